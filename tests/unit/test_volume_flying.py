"""Records on their way: when more may be (``volume.flying``)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from awayfs.core import flight
from awayfs.store.store import Store
from awayfs.volume.flying import Flying


def test_those_that_come_back_together_count_like_those_that_come_one_by_one(
    tmp_path: Path,
) -> None:
    """A long link brings the answers of all that were sent together at one moment."""

    async def play() -> int:
        flying = Flying(store.journal)
        for seq in range(flight.FIRST):
            flying.start(seq, asyncio.sleep(0))
        through = await flying.next_through(10)
        assert len(through) == flight.FIRST
        for seq in through:
            flying.landed(seq, waits=False)
        return flying.room(weak=False)

    store = Store.open(str(tmp_path / "volume"), create=True)
    try:
        assert asyncio.run(play()) == flight.FIRST * (1 + flight.MORE)
    finally:
        store.close()

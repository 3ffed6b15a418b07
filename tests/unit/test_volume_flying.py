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
            flying.start([seq], asyncio.sleep(0))
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


def test_one_that_goes_on_by_itself_keeps_none_of_those_it_went_with(tmp_path: Path) -> None:
    async def play() -> None:
        flying, go_on = Flying(store.journal), asyncio.Event()

        async def wait() -> None:
            await go_on.wait()

        async def together() -> None:
            await asyncio.sleep(0)
            flying.part(2, wait())

        flying.start([1, 2, 3], together())
        assert await flying.next_through(10) == [1, 3]
        for seq in (1, 3):
            flying.landed(seq, waits=False)
        assert 2 in flying and len(flying) == 1
        assert await flying.next_through(0.01) == []
        go_on.set()
        assert await flying.next_through(10) == [2]
        flying.landed(2, waits=True)
        assert not len(flying)
        go_on.clear()
        flying.start([4, 5], together())
        flying.part(5, wait())
        assert sorted(await flying.cancel()) == [4, 5]
        assert await flying.next_through(0.01) == [] and not len(flying)

    store = Store.open(str(tmp_path / "volume"), create=True)
    try:
        asyncio.run(play())
    finally:
        store.close()

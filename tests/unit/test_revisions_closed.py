"""A revision that is closed while somebody reads it: what is learned of a conflict does that."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.volume import server_variants


def test_reads_end_well_and_touch_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fetches, another waits for it; by then the numbers of its files are of other files."""
    theirs = os.urandom(3 << 20)
    monkeypatch.setattr(server_variants, "VARIANT_LIMIT", 1)

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        node = await world.cached("f")
        world.volume.link.offline_by_hand()
        world.write(node, 0, b"mine is longer")
        (world.share / "f").write_bytes(theirs)
        await world.volume.link.online_by_hand()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert not conflict.server_complete
        remote: Any = world.volume.link.remote
        fetch, going_on = remote.fetch, asyncio.Event()

        async def held(*arguments: Any) -> Any:
            await going_on.wait()
            return await fetch(*arguments)

        remote.fetch = held
        offsets = (0, 2 << 20)
        found: Any = [world.volume.shown.read(node.id, offset, 100) for offset in offsets]
        reads = [asyncio.ensure_future(one) for one in found]
        await asyncio.sleep(0.01)
        world.store.conflicts.update(conflict.id, note="learned meanwhile")
        others = [os.open(tmp_path / f"other{n}", os.O_RDWR | os.O_CREAT) for n in range(8)]
        going_on.set()
        try:
            for offset, read in zip(offsets, reads, strict=True):
                assert await read == theirs[offset : offset + 100]
            assert [os.fstat(fd).st_size for fd in others] == [0] * len(others)
        finally:
            for fd in others:
                os.close(fd)
        before = len(os.listdir("/proc/self/fd"))
        world.volume.shown.end()
        assert len(os.listdir("/proc/self/fd")) == before

    played(tmp_path, play, conflicted="server")

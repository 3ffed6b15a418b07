"""Content that goes while somebody waits: nobody gets zeros for it, or an error that is none."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.volume.files import FileHandle

MIB = 1 << 20


def whole(seed: int, size: int) -> bytes:
    """Content no two blocks of which are the same."""
    return hashlib.shake_256(seed.to_bytes(8, "little")).digest(size)


async def _sequentially(world: World, handle: FileHandle, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        found += await world.read(handle, len(found), 64 << 10)
    return bytes(found)


def test_several_readers_of_a_file_larger_than_the_cache(tmp_path: Path) -> None:
    """What one of them gives up to go on is what another has just waited for."""
    content = whole(1, 3 * MIB)

    async def play(world: World) -> None:
        (world.share / "large").write_bytes(content)
        node = await world.find("large")
        handles = [world.volume.files.open(node, writing=False) for _ in range(3)]
        found = await asyncio.gather(*(_sequentially(world, h, len(content)) for h in handles))
        assert found == [content] * 3
        for handle in handles:
            world.volume.files.close(handle)

    played(tmp_path, play, cache_limit=MIB)


def test_a_copy_of_what_another_reader_makes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """copy_file_range copies no hole that a reader left for want of room."""
    content = whole(2, 3 * MIB)

    async def play(world: World) -> None:
        (world.share / "large").write_bytes(content)
        (world.share / "copy").write_bytes(b"")
        node, copy = await world.find("large"), await world.find("copy")
        files = world.volume.files
        monkeypatch.setattr(files, "_room_for", lambda *_: None)
        source, other = files.open(node, writing=False), files.open(node, writing=False)
        target = files.open(copy, writing=True)
        reading = asyncio.ensure_future(_sequentially(world, other, len(content)))
        step = 64 << 10
        for offset in range(0, 512 << 10, step):
            assert await files.copy(source, offset, target, offset, step) == step
            await asyncio.sleep(0)
        assert await reading == content
        assert os.pread(target.opened.fd, 512 << 10, 0) == content[: 512 << 10]
        for handle in (source, other, target):
            files.close(handle)

    played(tmp_path, play, cache_limit=MIB)


def test_a_copy_that_waits_while_the_server_changes_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went while room was made is fetched anew."""

    async def play(world: World) -> None:
        (world.share / "source").write_bytes(whole(3, MIB))
        (world.share / "target").write_bytes(b"")
        node, target_node = await world.cached("source"), await world.find("target")
        files = world.volume.files
        source, target = files.open(node, writing=False), files.open(target_node, writing=True)

        async def changed() -> None:
            monkeypatch.undo()
            (world.share / "source").write_bytes(whole(4, 2 * MIB))
            await world.volume.observer.name(1, b"source")

        def waiting(*_args: Any) -> Any:
            return changed()

        monkeypatch.setattr(files, "_room_for", waiting)
        copied = await files.copy(source, 0, target, 0, MIB)
        assert os.pread(target.opened.fd, MIB, 0) == whole(4, 2 * MIB)[:copied]
        assert copied == MIB
        files.close(source)
        files.close(target)

    played(tmp_path, play)

"""Content of files that the server has under another name than we know."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind
from awayfs.core.types import ROOT
from awayfs.store.nodes import Node


async def content(world: World, node: Node) -> bytes:
    """What a reader of a node gets."""
    handle = world.volume.files.open(world.shown(node), writing=False)
    try:
        return await world.read(handle, 0, 1 << 20)
    finally:
        world.volume.files.close(handle)


@pytest.mark.parametrize("remounted", [False, True])
@pytest.mark.parametrize("taken", ["", "directory"])
def test_a_file_not_cached_and_renamed_on_both_sides_can_be_read(
    taken: str, remounted: bool, tmp_path: Path
) -> None:
    """``taken``: what has got its old name on the server since."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "f").write_bytes(b"content")
        file, directory = await world.find("f"), await world.find("d")
        world.volume.changes.rename(ROOT, b"f", directory.id, b"mine", 0)
        os.rename(world.share / "f", world.share / "theirs")
        if taken == "directory":
            (world.share / "f").mkdir()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.RENAME_RENAME
        if remounted:
            world.volume.context.seen_elsewhere.clear()
        assert await content(world, file) == b"content"

    played(tmp_path, play)


def test_another_file_where_it_was_last_seen_is_not_taken_for_it(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"content")
        file = await world.find("f")
        world.volume.changes.rename(ROOT, b"f", ROOT, b"mine", 0)
        os.rename(world.share / "f", world.share / "theirs")
        await world.drained()
        os.unlink(world.share / "theirs")
        (world.share / "theirs").write_bytes(b"another")
        with pytest.raises(OSError) as caught:
            await content(world, file)
        assert caught.value.errno == errno.ESTALE

    played(tmp_path, play)

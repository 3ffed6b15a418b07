"""A directory whose path on the server leads to another one by now is not listed there."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.types import ROOT
from awayfs.store.fsck import check


@pytest.mark.parametrize("renamed", ["there", "on both sides"])
def test_a_directory_is_not_listed_where_another_has_its_place(
    tmp_path: Path, renamed: str
) -> None:
    async def play(world: World) -> None:
        store = world.store
        (world.share / "d").mkdir()
        (world.share / "d/f").write_bytes(b"W")
        directory, file = await world.find("d"), await world.cached("d/f")
        await world.volume.observer.directory(ROOT)
        await world.volume.observer.directory(directory.id)
        if renamed != "there":
            world.volume.changes.rename(ROOT, b"d", ROOT, b"ours", 0)
        (world.share / "d").rename(world.share / "theirs")
        (world.share / "d").mkdir()
        (world.share / "d/other").write_bytes(b"O")
        await world.volume.observer.directory(directory.id)
        assert [name for name, _ in store.nodes.children(directory.id)] == [b"f"]
        assert store.nodes.child_id(directory.id, b"f") == file.id
        await world.volume.observer.directory(ROOT)
        (world.share / "theirs/new").write_bytes(b"N")
        await world.volume.observer.directory(directory.id)
        assert b"other" not in [name for name, _ in store.nodes.children(directory.id)]
        assert store.nodes.child_id(directory.id, b"f") == file.id
        assert check(store) == []

    played(tmp_path, play)

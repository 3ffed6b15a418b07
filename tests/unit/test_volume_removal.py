"""A removal goes out over the revision that was removed, whatever was looked at meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.types import ROOT, Kind
from awayfs.store.fsck import check

OVER = ["rm", "mv"]


@pytest.mark.parametrize("how", OVER)
def test_looking_does_not_make_the_servers_newer_version_the_removed_one(
    tmp_path: Path, how: str
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"W")
        (world.share / "other").write_bytes(b"O")
        await world.cached("f")
        await world.cached("other")
        if how == "rm":
            world.volume.changes.unlink(ROOT, b"f")
        else:
            world.volume.changes.rename(ROOT, b"other", ROOT, b"f", 0)
        (world.share / "f").write_bytes(b"R")
        await world.volume.observer.directory(ROOT)  # somebody lists it before replay gets there
        await world.drained()
        assert (world.share / "f").read_bytes() == b"R"
        assert world.store.conflicts.count() == 1

    played(tmp_path, play)


def test_nothing_is_left_of_a_removed_directory_whose_name_has_another(tmp_path: Path) -> None:
    """Somebody filled it on the server, which was seen before the removal was sent."""

    async def play(world: World) -> None:
        volume, store = world.volume, world.store
        (world.share / "d").mkdir()
        old = await world.find("d")
        await volume.observer.directory(old.id)
        volume.changes.rmdir(ROOT, b"d")
        new = volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        (world.share / "d/inner").mkdir()
        (world.share / "d/inner/theirs").write_text("theirs")
        await volume.observer.directory(old.id)
        inner = store.nodes.child(old.id, b"inner")
        assert inner is not None
        await volume.observer.directory(inner.id)
        await world.drained()
        shutil.rmtree(world.share / "d/inner")
        (world.share / "d/more").write_text("theirs")
        await volume.observer.directory(ROOT)
        await volume.observer.directory(new.id)
        assert [name for name, _ in store.nodes.children(new.id)] == [b"more"]
        assert (store.journal.count(), store.conflicts.count()) == (0, 0)
        assert check(store) == []

    played(tmp_path, play)


def test_a_directory_that_has_no_name_here_goes_with_what_is_in_it(tmp_path: Path) -> None:
    """As a decision may leave it: a listing that shows it to be gone is taken over."""

    async def play(world: World) -> None:
        (world.share / "d/inner").mkdir(parents=True)
        (world.share / "d/inner/f").write_text("theirs")
        directory = await world.find("d")
        await world.find("d/inner/f")
        with world.store.transaction():
            world.store.nodes.remove_name(ROOT, b"d")
        shutil.rmtree(world.share / "d")
        await world.volume.observer.directory(ROOT)
        assert world.store.nodes.get(directory.id) is None
        assert check(world.store) == []

    played(tmp_path, play)


def test_what_came_into_a_directory_that_both_sides_removed_goes_with_it(tmp_path: Path) -> None:
    """It was seen after the directory had gone here, and nothing leads to it when that is sent."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        directory = await world.find("d")
        await world.volume.observer.directory(directory.id)
        world.volume.changes.rmdir(ROOT, b"d")
        (world.share / "d/inner").mkdir()
        (world.share / "d/inner/f").write_text("theirs")
        await world.volume.observer.directory(directory.id)
        inner = world.store.nodes.child_id(directory.id, b"inner")
        assert inner is not None
        await world.volume.observer.directory(inner)
        shutil.rmtree(world.share / "d")
        await world.drained()
        assert not world.store.journal.count()
        assert world.store.nodes.get(directory.id) is None
        assert check(world.store) == []

    played(tmp_path, play)

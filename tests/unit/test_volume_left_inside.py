"""A directory that was let go of leaves nothing behind once what held it is decided.

It and what was in it were removed here; that was changed on the server, and comes back. The
directory does not: its name is another's by then, who meets what the server has there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.errors import UsageError
from awayfs.core.types import ROOT, Kind
from awayfs.remotes.directory_facts import FileSystem
from awayfs.store.fsck import check

THEIRS = {"directory": "d/inner/theirs", "file": "d/inner"}


async def left_inside(world: World, what: str) -> None:
    """See above."""
    volume, theirs = world.volume, world.share / THEIRS[what]
    (world.share / "d").mkdir()
    if what == "directory":
        (world.share / "d/inner").mkdir()
    else:
        theirs.write_text("before")
    inner, old = await world.find("d/inner"), await world.find("d")
    await volume.observer.directory(old.id)
    if what == "directory":
        await volume.observer.directory(inner.id)
        volume.changes.rmdir(old.id, b"inner")
    else:
        volume.changes.unlink(old.id, b"inner")
    volume.changes.rmdir(ROOT, b"d")
    theirs.write_text("theirs")
    volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
    await world.drained()
    assert [one.kind for one in world.store.conflicts.all()] == ["remove/update"]


@pytest.fixture(params=[True, False], ids=["ids", "no-ids"])
def ids(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the server tells objects apart, so that what moved is found where it is."""
    if not request.param:
        monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)
    return bool(request.param)


@pytest.mark.parametrize("looked", ["before", "after"])
@pytest.mark.parametrize("what", list(THEIRS))
@pytest.mark.parametrize("keep", [Resolution.SERVER, Resolution.BOTH])
def test_nothing_is_left_of_a_directory_whose_name_has_another_once_its_inside_is_decided(
    keep: Resolution, what: str, looked: str, ids: bool, tmp_path: Path
) -> None:
    async def play(world: World) -> None:
        await left_inside(world, what)
        if looked == "before":
            await world.find(THEIRS[what])
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, keep)
        await is_theirs_alone(world, what)

    played(tmp_path, play)


@pytest.mark.parametrize("what", list(THEIRS))
def test_what_is_nowhere_here_is_not_removed_again_and_nobody_told(
    what: str, ids: bool, tmp_path: Path
) -> None:
    """``--keep local`` removes what is shown; this is not."""

    async def play(world: World) -> None:
        await left_inside(world, what)
        for conflict in world.store.conflicts.all():
            with pytest.raises(UsageError, match="--keep server"):
                await world.volume.resolve(conflict, Resolution.LOCAL)
            await world.volume.resolve(conflict, Resolution.SERVER)
        await is_theirs_alone(world, what)

    played(tmp_path, play)


def test_the_last_that_leaves_a_directory_without_a_name_takes_it_along(tmp_path: Path) -> None:
    """It was found where it is by its id, and with it the conflict about it."""

    async def play(world: World) -> None:
        await left_inside(world, "file")
        shown = await world.find("d/inner")
        assert [one.node for one in world.store.conflicts.all()] == [shown.id]
        assert world.store.nodes.orphans() == []
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, Resolution.LOCAL)
        await world.drained()
        assert not (world.share / "d/inner").exists()
        assert check(world.store) == []

    played(tmp_path, play)


@pytest.mark.parametrize("keep", list(Resolution))
def test_what_is_written_where_nothing_leads_goes_where_it_is_found(
    keep: Resolution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program that has it open since before it was removed; it is decided about twice."""
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)

    async def play(world: World) -> None:
        store = world.store
        await left_inside(world, "file")
        (conflict,) = store.conflicts.all()
        node = world.volume.context.node(conflict.node)
        assert node is not None and store.nodes.path(node.id) is None
        world.write(node, 0, b"edited")
        await world.drained()
        for conflict in store.conflicts.all():
            nowhere = conflict.kind == "remove/update"
            await world.volume.resolve(conflict, Resolution.SERVER if nowhere else keep)
        await world.drained()
        kept = keep is not Resolution.SERVER
        assert (world.share / "inner").exists() is kept
        if kept:
            assert (world.share / "inner").read_bytes() == b"edited"
            assert store.nodes.path(node.id) == b"inner"
        await is_theirs_alone(world, "file")

    played(tmp_path, play)


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_start_lets_go_of_what_a_death_left_so(dies: str, ids: bool, tmp_path: Path) -> None:
    """The daemon dies before the decision, which stays to be made then, or right after it."""

    async def play(world: World) -> None:
        await left_inside(world, "directory")
        if dies == "after":
            with world.store.transaction():
                for conflict in world.store.conflicts.all():
                    world.store.conflicts.remove(conflict.id)
        world.die()
        world.open()
        assert world.store.conflicts.count() == (dies == "before")
        assert bool(world.store.nodes.orphans()) == (dies == "before")
        await world.online()
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, Resolution.SERVER)
        await is_theirs_alone(world, "directory")

    played(tmp_path, play)


async def is_theirs_alone(world: World, what: str) -> None:
    """What the server has is shown, and nothing else is known of it."""
    store = world.store
    await world.drained()
    shown = await world.cached(THEIRS[what])
    assert store.nodes.path(shown.id) == THEIRS[what].encode()
    assert (world.share / THEIRS[what]).read_text() == "theirs"
    assert (store.journal.count(), store.conflicts.count()) == (0, 0)
    assert check(store) == []
    assert store.nodes.orphans() == []

"""An editor's save, by a file of another name, that is given up for the server's version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.types import ROOT, Kind
from awayfs.store.conflicts import Conflict
from awayfs.store.fsck import check
from awayfs.volume import changes

OURS, THEIRS = b"ours\n", b"theirs, and longer\n"


def made(world: World, name: bytes) -> None:
    owner = (os.getuid(), os.getgid())
    world.write(world.volume.changes.create(ROOT, name, Kind.FILE, 0o644, *owner), 0, OURS)


async def saved(world: World) -> Conflict:
    """``f`` was saved here by ``.tmp``, and written on the server."""
    (world.share / "f").write_bytes(b"base\n")
    await world.cached("f")
    made(world, b".tmp")
    world.volume.changes.rename(ROOT, b".tmp", ROOT, b"f", 0)
    (world.share / "f").write_bytes(THEIRS)
    await world.drained()
    (conflict,) = world.store.conflicts.all()
    assert (world.share / ".tmp").read_bytes() == OURS
    return conflict


async def given_up(world: World) -> list[str]:
    """What is left on the server, and here, after all is decided for it."""
    for conflict in world.store.conflicts.all():
        await world.volume.deciding.keep(conflict.id, "server")
    await world.drained()
    await world.volume.observer.directory(ROOT)
    assert check(world.store) == [] and not world.store.journal.count()
    here = sorted(os.fsdecode(name) for name, _ in world.store.nodes.children(ROOT))
    assert here == sorted(os.listdir(world.share))
    return here


@pytest.mark.parametrize("restarted", [False, True])
def test_nothing_is_left_of_it(restarted: bool, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await saved(world)
        if restarted:
            world.die()
            world.open()
            await world.online()
        assert await given_up(world) == ["f"]
        assert (world.share / "f").read_bytes() == THEIRS
        kept = [world.store.history.content_path(one.id) for one in world.store.history.all()]
        assert [Path(path).read_bytes() for path in kept] == [OURS]
        assert not world.store.db.rows("SELECT key FROM facts WHERE key GLOB 'save.*'")

    played(tmp_path, play)


@pytest.mark.parametrize("what", ["directory", "symlink"])
def test_nor_where_the_server_has_another_kind_of_thing(what: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        there = world.share / "f"
        there.write_bytes(b"base\n")
        await world.cached("f")
        made(world, b".tmp")
        world.volume.changes.rename(ROOT, b".tmp", ROOT, b"f", 0)
        there.unlink()
        there.mkdir() if what == "directory" else there.symlink_to("elsewhere")
        await world.drained()
        assert [one.kind for one in world.store.conflicts.all()] == ["type"]
        assert await given_up(world) == ["f"]
        assert there.is_dir() or there.is_symlink()
        kept = [world.store.history.content_path(one.id) for one in world.store.history.all()]
        assert OURS in [Path(path).read_bytes() for path in kept]

    played(tmp_path, play)


def test_what_another_wrote_to_it_meanwhile_is_not_lost(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await saved(world)
        (world.share / ".tmp").write_bytes(b"somebody else's, under that name\n")
        await given_up(world)
        assert (world.share / ".tmp").read_bytes() == b"somebody else's, under that name\n"

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["the server's", "older", "sent"])
def test_what_had_a_life_of_its_own_has_its_name_again(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made by another, or long ago, or is what an earlier save left."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base\n")
        await world.cached("f")
        if how == "the server's":
            (world.share / "own").write_bytes(OURS)
            await world.cached("own")
        else:
            made(world, b"own")
        if how == "sent":
            (world.share / "own").write_bytes(b"")
            made(world, b"tmp")
            world.volume.changes.rename(ROOT, b"tmp", ROOT, b"own", 0)
            await world.drained()
            for conflict in world.store.conflicts.all():
                await world.volume.deciding.keep(conflict.id, "local")
            await world.drained()
        if how == "older":
            monkeypatch.setattr(changes, "SAVED_WITHIN_NS", 0)
        world.volume.changes.rename(ROOT, b"own", ROOT, b"f", 0)
        (world.share / "f").write_bytes(THEIRS)
        await world.drained()
        left = [name for name in await given_up(world) if "conflict" not in name]
        assert left == ["f", "own"]
        assert (world.share / "own").read_bytes() == OURS

    played(tmp_path, play)


def test_a_symlink_that_takes_the_place_of_another(tmp_path: Path) -> None:
    """``ln -sf`` makes it under a name of its own first."""

    async def play(world: World) -> None:
        os.symlink("base", world.share / "f")
        await world.find("f")
        owner = (os.getuid(), os.getgid())
        changes = world.volume.changes
        changes.create(ROOT, b"CuXX", Kind.SYMLINK, 0o777, *owner, target=b"ours")
        changes.rename(ROOT, b"CuXX", ROOT, b"f", 0)
        (world.share / "f").unlink()
        os.symlink("theirs", world.share / "f")
        await world.drained()
        assert await given_up(world) == ["f"]
        assert os.readlink(world.share / "f") == "theirs"

    played(tmp_path, play)


class _Died(BaseException):
    """At a point where a daemon may be killed."""


@pytest.mark.parametrize("point", ["resolve.found", "resolve.decided"])
def test_a_death_amid_the_decision(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of it all the same, and what was given up is in the history."""

    def fault(name: str) -> None:
        if name == point:
            raise _Died

    async def play(world: World) -> None:
        conflict = await saved(world)
        with monkeypatch.context() as patch, pytest.raises(_Died):
            for module in ("resolve", "resolve_moved"):
                patch.setattr(f"awayfs.volume.{module}.fault", fault)
            await world.volume.deciding.keep(conflict.id, "server")
        world.die()
        world.open()
        await world.online()
        assert await given_up(world) == ["f"]
        kept = [world.store.history.content_path(one.id) for one in world.store.history.all()]
        assert OURS in [Path(path).read_bytes() for path in kept]

    played(tmp_path, play)

"""Files that lost their name here while they are open: what is read, and what shows again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.errors import Refused
from awayfs.core.types import ROOT, Attributes
from awayfs.volume.discard import Discarder


async def refuse(*_: object) -> None:
    raise Refused(13, "not allowed")


async def refused(world: World) -> None:
    """What waits goes out, and the server lets nothing be taken away."""
    remote = world.volume.link.remote
    remote.remove = remote.rename = refuse  # type: ignore[method-assign,assignment]
    await world.volume.link.online_by_hand()
    await world.drained()
    del remote.remove, remote.rename


def take_away(world: World, how: str) -> None:
    if how == "rm":
        world.volume.changes.unlink(ROOT, b"f")
    else:
        world.volume.changes.rename(ROOT, b"other", ROOT, b"f", 0)


async def shown(world: World, name: str) -> bytes:
    handle = world.volume.files.open(await world.find(name), writing=False)
    try:
        return await world.read(handle, 0, 100)
    finally:
        world.volume.files.close(handle)


def test_what_could_not_be_removed_is_there_again(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"old content")
        file = await world.cached("f")
        world.volume.link.offline_by_hand()
        world.volume.changes.unlink(ROOT, b"f")
        await refused(world)
        (conflict,) = world.store.conflicts.all()
        await world.volume.resolve(conflict, Resolution.SERVER)
        assert (await world.find("f")).id == file.id
        assert world.store.journal.count() == 0

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["rm", "mv"])
@pytest.mark.parametrize("limit", [1 << 20, 0])
@pytest.mark.parametrize("still_open", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_what_was_written_without_a_name_does_not_pass_for_the_servers(
    tmp_path: Path, how: str, limit: int, still_open: bool, before: bool
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"old content")
        (world.share / "other").write_bytes(b"O")
        file = await world.cached("f")
        await world.cached("other")
        world.volume.link.offline_by_hand()
        handle = world.volume.files.open(world.shown(file), writing=True)
        if before:
            world.volume.files.write(handle, 0, b"OLD")
        take_away(world, how)
        world.volume.files.write(handle, 0, b"NEW and longer")
        assert await world.read(handle, 0, 100) == b"NEW and longer"
        if not still_open:
            world.volume.files.close(handle)
        await refused(world)
        (conflict,) = world.store.conflicts.all()
        await world.volume.resolve(conflict, Resolution.SERVER)
        assert (await world.find("f")).id == file.id
        assert await shown(world, "f") == b"old content"
        assert await shown(world, "other") == b"O"
        if limit and not still_open and how == "mv" and not before:
            world.volume.link.offline_by_hand()  # the base was kept, and has come back
            assert await shown(world, "f") == b"old content"
        await world.volume.link.online_by_hand()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"old content"

    played(tmp_path, play, base_limit=limit)


def test_a_removal_that_is_discarded_shows_the_base(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"old content")
        file = await world.cached("f")
        world.volume.link.offline_by_hand()
        handle = world.volume.files.open(world.shown(file), writing=True)
        world.volume.changes.unlink(ROOT, b"f")
        world.volume.files.write(handle, 0, b"NEW and longer")
        world.volume.files.close(handle)
        discarder = Discarder(world.volume.context, world.volume.changes, world.volume.replay)
        plan = await discarder.planner.plan({file.id})
        assert [group async for group in discarder.discard(plan)]
        assert await shown(world, "f") == b"old content"

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["rm and mv", "mv over"])
def test_discarding_keeps_what_was_under_one_name_one_after_the_other(
    tmp_path: Path, how: str
) -> None:
    """Both had changes: what is given up of one does not take the place of the other's."""

    async def play(world: World) -> None:
        for name in ("f", "g"):
            (world.share / name).write_bytes(b"theirs")
        nodes = {name: await world.cached(name) for name in ("f", "g")}
        world.volume.link.offline_by_hand()
        for name, node in nodes.items():
            world.write(node, 0, b"mine in " + name.encode())
        if how == "rm and mv":
            world.volume.changes.unlink(ROOT, b"f")
        world.volume.changes.rename(ROOT, b"g", ROOT, b"f", 0)
        discarder = Discarder(world.volume.context, world.volume.changes, world.volume.replay)
        plan = await discarder.planner.plan({node.id for node in nodes.values()})
        assert [group async for group in discarder.discard(plan)]
        history = world.store.history
        kept = {Path(history.content_path(lost.id)).read_bytes() for lost in history.all()}
        assert kept == {b"mine in f", b"mine in g"}
        assert await shown(world, "f") == await shown(world, "g") == b"theirs"
        await world.volume.undo.undo(b"f")
        assert await shown(world, "f") == b"mine in f"
        assert await shown(world, "g") == b"theirs"
        await world.volume.undo.undo(b"g")
        assert await shown(world, "g") == b"mine in g"

    played(tmp_path, play)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_discarding_a_removal_has_the_rights_show_that_were_set_before(
    tmp_path: Path, kind: str
) -> None:
    """The change of rights is not in the journal any more, as what it is about was to go."""

    async def play(world: World) -> None:
        place = world.share / "f"
        place.write_bytes(b"content") if kind == "file" else place.mkdir()
        place.chmod(0o750)
        node = await world.find("f")
        await world.volume.observer.directory(node.id if kind == "directory" else ROOT)
        world.volume.link.offline_by_hand()
        changes = world.volume.changes
        changes.set_attributes(node.id, Attributes(mode=0o700, uid=4, mtime_ns=4_000_000_000))
        changes.unlink(ROOT, b"f") if kind == "file" else changes.rmdir(ROOT, b"f")
        await world.volume.replay._optimiser.run()
        discarder = Discarder(world.volume.context, changes, world.volume.replay)
        plan = await discarder.planner.plan({node.id})
        assert [group async for group in discarder.discard(plan)]
        back = world.shown(node)
        assert not world.store.journal.count()
        assert (back.mode, back.uid, back.mtime_ns) == (node.mode, node.uid, node.mtime_ns)

    played(tmp_path, play)


@pytest.mark.parametrize("before", [True, False])
def test_what_is_read_of_the_rest_does_not_undo_what_was_written(
    tmp_path: Path, before: bool
) -> None:
    """Of a placeholder that is open, removed, and then written to; and looked at by fstat(2)."""

    async def play(world: World) -> None:
        data = os.urandom(9 << 20)
        (world.share / "f").write_bytes(data)
        file = await world.find("f")
        handle = world.volume.files.open(file, writing=True)
        world.volume.link.offline_by_hand()
        if before:
            world.volume.files.write(handle, 2000, b"first")
        world.volume.changes.unlink(ROOT, b"f")
        await world.volume.replay._optimiser.run()
        world.volume.files.write(handle, 1000, b"mine")
        await world.volume.link.online_by_hand()
        assert await world.read(handle, 5 << 20, 10) == data[5 << 20 :][:10]
        await world.volume.tree._freshen(file.id)
        assert await world.read(handle, 1000, 4) == b"mine"
        if before:
            assert await world.read(handle, 2000, 5) == b"first"
        world.volume.files.close(handle)

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["rm", "mv"])
@pytest.mark.parametrize("still_open", [True, False])
def test_who_has_it_open_reads_on_when_it_is_removed(
    tmp_path: Path, how: str, still_open: bool
) -> None:
    async def play(world: World) -> None:
        data = os.urandom(9 << 20)
        (world.share / "f").write_bytes(data)
        (world.share / "other").write_bytes(b"O")
        await world.cached("other")
        file = await world.find("f")
        handle = world.volume.files.open(file, writing=False)
        assert await world.read(handle, 1 << 20, 10) == data[1 << 20 :][:10]
        if not still_open:
            world.volume.files.close(handle)
        before = world.store.content.usage()
        take_away(world, how)
        await world.drained()
        assert os.listdir(world.share) == (["other"] if how == "rm" else ["f"])
        assert world.store.journal.count() == 0
        if not still_open:
            assert world.store.content.usage() <= before
            return
        for offset in (0, 5 << 20, (9 << 20) - 10):
            assert await world.read(handle, offset, 10) == data[offset:][:10]
        world.volume.files.close(handle)

    played(tmp_path, play)

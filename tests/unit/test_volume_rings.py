"""Two moves, each into the other, one here and one on the server: never a ring of directories.

What is here is a tree that begins at the root, at every step; the decision about it goes each way.
"""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import UsageError
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.fsck import check
from awayfs.volume.giving_up import GivingUp

WAYS = ["local", "server", "both"]


async def seen(world: World, *paths: str) -> list[NodeId]:
    """The nodes of directories, each listed."""
    found = []
    for path in paths:
        found.append((await world.find(path)).id)
        await world.volume.observer.directory(found[-1])
    return found


def tree(world: World) -> set[str]:
    """All paths that can be reached here."""
    store, paths, pending = world.store, set(), [(ROOT, "")]
    while pending:
        directory, above = pending.pop()
        for name, child in store.nodes.children(directory):
            paths.add(above + os.fsdecode(name))
            pending.append((child.id, above + os.fsdecode(name) + "/"))
    return paths


def there(world: World) -> set[str]:
    return {str(path.relative_to(world.share)) for path in world.share.rglob("*")}


async def look(world: World) -> None:
    """See all that the server has, twice: what has made way, and what takes its place."""
    for _ in range(2):
        pending = [ROOT]
        while pending:
            directory = pending.pop()
            await world.volume.observer.directory(directory)
            below = world.store.server.children(directory)
            known = [world.store.server.get(node) for _, node in below]
            pending += [one.node for one in known if one and one.kind is Kind.DIRECTORY]


async def decided(world: World, way: str) -> list[str]:
    """Decide all that is in conflict, one after the other; what was said against it."""
    said = []
    for _ in range(4):
        for conflict in world.store.conflicts.all():
            try:
                await asyncio.wait_for(world.volume.deciding.keep(conflict.id, way), 20)
            except UsageError as error:
                said.append(str(error))
        await world.drained()
        await look(world)
    return said


async def in_step(world: World) -> None:
    """Both sides have the same tree, nothing waits, and once more changes nothing."""
    assert tree(world) == there(world)
    assert not world.store.journal.count() and check(world.store) == []
    before = there(world)
    await world.drained()
    await look(world)
    assert tree(world) == there(world) == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", ["none", "unsent"])
def test_what_is_worked_in_stays_when_it_is_moved_into_what_was_removed_here(
    work: str, way: str, tmp_path: Path
) -> None:
    """Else all of it is gone from sight, and what comes back stands inside itself."""

    async def play(world: World) -> None:
        (world.share / "outer/removed").mkdir(parents=True)
        (world.share / "X").mkdir()
        (world.share / "X/file").write_bytes(b"content")
        outer, removed, x = await seen(world, "outer", "outer/removed", "X")
        file = await world.cached("X/file")
        world.volume.changes.rmdir(outer, b"removed")
        world.volume.changes.rename(ROOT, b"outer", x, b"outer", 0)
        if work == "unsent":
            world.write(file, 0, b"CONTENT")
        os.rename(world.share / "X", world.share / "outer/removed/X")
        await world.volume.observer.directory(removed)
        assert {"X", "X/file", "X/outer"} <= tree(world)
        await world.drained()
        await look(world)
        assert {"X", "X/outer", "X/outer/removed"} <= tree(world)
        said = await decided(world, way)
        (kept,) = [path for path in there(world) if path.endswith("file")]
        expected = b"CONTENT" if work == "unsent" else b"content"
        assert (world.share / kept).read_bytes() == expected
        await in_step(world)
        assert not world.store.conflicts.all() or all("rm -r" in text for text in said)

    played(tmp_path, play)


@pytest.mark.parametrize("way", WAYS)
def test_a_decision_never_moves_what_holds_work_out_of_sight(way: str, tmp_path: Path) -> None:
    """It is to go into a directory that was removed here, from one that was moved into it."""

    async def play(world: World) -> None:
        (world.share / "outer/removed/c").mkdir(parents=True)
        (world.share / "outer/removed/c/file").write_bytes(b"content")
        outer, removed, c = await seen(world, "outer", "outer/removed", "outer/removed/c")
        changes = world.volume.changes
        changes.rename(removed, b"c", ROOT, b"c", 0)
        changes.rmdir(outer, b"removed")
        changes.rename(ROOT, b"outer", c, b"outer", 0)
        made = changes.create(outer, b"new", Kind.FILE, 0o644, os.getuid(), os.getgid())
        world.write(made, 0, b"new work")
        os.rename(world.share / "outer/removed/c", world.share / "outer/removed/c2")
        await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
        (conflict,) = world.store.conflicts.all()
        await world.volume.deciding.keep(conflict.id, "server")
        shown = {"c", "c/file", "c/outer", "c/outer/new"}
        assert shown <= tree(world)
        await world.drained()
        await look(world)
        assert shown <= tree(world)
        notes = {one.kind: one.note for one in world.store.conflicts.all()}
        assert "--keep server takes the move back" in notes[ConflictKind.REFUSED]
        await decided(world, way)
        (kept,) = [path for path in there(world) if path.endswith("new")]
        assert (world.share / kept).read_bytes() == b"new work"
        if way == "local":  # as the note says: once that is moved out there, ours is carried out
            os.rename(world.share / "outer/removed/c2", world.share / "c")
            await look(world)
            await decided(world, way)
            await in_step(world)
            assert tree(world) == shown  # and what was removed here goes, as nothing is in it
            return
        if way == "both":
            await decided(world, "server")
        await in_step(world)
        assert tree(world) >= {"outer", "outer/new", "outer/removed/c2/file"}

    played(tmp_path, play)


def in_a_ring(world: World, outer: NodeId, inner: NodeId, other: NodeId) -> None:
    """``outer`` is in ``other``, which is in ``inner``, which is in ``outer``."""
    nodes = world.store.nodes
    with world.store.transaction():
        nodes.move_name(ROOT, b"outer", other, b"outer")
        nodes.remove_name(ROOT, b"other")
        world.store.db.execute("INSERT INTO names VALUES (?, ?, ?)", (inner, b"other", other))
        world.store.db.execute("UPDATE nodes SET nlink = nlink + 1 WHERE id = ?", (inner,))
    world.store.db.forget()


async def with_a_ring(world: World) -> tuple[NodeId, NodeId, NodeId, NodeId]:
    (world.share / "outer/inner").mkdir(parents=True)
    (world.share / "other").mkdir()
    (world.share / "other/file").write_bytes(b"content")
    outer, inner, other = await seen(world, "outer", "outer/inner", "other")
    file = (await world.find("other/file")).id
    in_a_ring(world, outer, inner, other)
    return outer, inner, other, file


def test_a_walk_through_a_ring_of_directories_ends(tmp_path: Path) -> None:
    """States of before rings were ruled out may have one."""

    async def play(world: World) -> None:
        outer, inner, other, file = await with_a_ring(world)
        giving_up = GivingUp(world.volume.context, world.volume.changes)
        found = list(islice(giving_up.below(outer), 10))
        assert sorted(found) == sorted([inner, other, file])
        conflict = world.store.conflicts.add(outer, "refused", ROOT, b"outer", 1)
        world.store.journal.append(RecordKind.SETATTR, file)
        losing = islice(world.volume.losing.losing_here(conflict, b"outer"), 10)
        assert [node for node, _ in losing] == [file]
        world.store.conflicts.remove(conflict.id)
        assert [problem.rule for problem in check(world.store, repair=True)] == ["cycle"]
        assert check(world.store) == []

    played(tmp_path, play)


def test_fsck_opens_a_ring_where_something_was_moved(tmp_path: Path) -> None:
    """What was moved there goes back to where the server has it, and all of it can be reached."""

    async def play(world: World) -> None:
        outer, _, other, file = await with_a_ring(world)
        moved = {"to_parent": other, "to_name": b"outer"}
        world.store.journal.append(RecordKind.RENAME, outer, parent=ROOT, name=b"outer", **moved)
        (problem,) = check(world.store)
        assert problem.rule == "cycle" and not problem.leftover and not problem.repaired
        assert [problem.repaired for problem in check(world.store, repair=True)] == [True]
        assert world.store.nodes.path(file) == b"outer/inner/other/file"
        assert check(world.store) == []

    played(tmp_path, play)


@pytest.mark.parametrize("unsent", [True, False])
def test_fsck_finds_what_is_in_a_directory_that_nothing_leads_to(
    unsent: bool, tmp_path: Path
) -> None:
    """Unsent work gets a name again; what the server has, too, goes, and is listed anew."""

    async def play(world: World) -> None:
        (world.share / "directory/below").mkdir(parents=True)
        (world.share / "directory/below/file").write_bytes(b"content")
        directory, below = await seen(world, "directory", "directory/below")
        file = await world.cached("directory/below/file")
        if unsent:
            world.write(file, 0, b"CONTENT")
        store = world.store
        with store.transaction():
            store.nodes.remove_name(ROOT, b"directory")
            store.server.remove_name(ROOT, b"directory")
        (problem,) = check(store)
        assert (problem.rule, problem.node, problem.leftover) == (
            "unreachable",
            directory,
            not unsent,
        )
        check(store, repair=True)
        assert check(store) == [] and store.nodes.orphans() == []
        known = store.nodes.get(file.id)
        assert (known is not None) is unsent
        if unsent:
            assert store.nodes.path(file.id) == b"directory/below/file"
        else:
            assert store.nodes.get(below) is None
            await look(world)
            await in_step(world)

    played(tmp_path, play)


def test_a_removal_that_is_not_sent_yet_is_no_directory_out_of_reach(tmp_path: Path) -> None:
    """What somebody makes in it there meanwhile brings it back."""

    async def play(world: World) -> None:
        (world.share / "outer/removed").mkdir(parents=True)
        outer, removed = await seen(world, "outer", "outer/removed")
        world.volume.changes.rmdir(outer, b"removed")
        (world.share / "outer/removed/file").write_bytes(b"theirs")
        await world.volume.observer.directory(removed)
        assert world.store.nodes.has_children(removed) and check(world.store) == []
        await world.drained()
        assert "outer/removed/file" in tree(world)

    played(tmp_path, play)


def test_what_comes_back_and_would_be_inside_itself_is_shown_in_the_root(tmp_path: Path) -> None:
    """A state of before work was kept in sight: what was removed holds what it was in."""

    async def play(world: World) -> None:
        (world.share / "outer/removed").mkdir(parents=True)
        (world.share / "X").mkdir()
        outer, removed, x = await seen(world, "outer", "outer/removed", "X")
        world.volume.changes.rmdir(outer, b"removed")
        world.volume.changes.rename(ROOT, b"outer", x, b"outer", 0)
        os.rename(world.share / "X", world.share / "outer/removed/X")
        with world.store.transaction():
            world.store.nodes.move_name(ROOT, b"X", removed, b"X")
            world.store.server.move_name(ROOT, b"X", removed, b"X")
        assert tree(world) == set()
        await world.drained()
        assert tree(world) == {"removed", "removed/X", "removed/X/outer"}
        await decided(world, "server")
        assert tree(world) == {"outer", "outer/removed", "outer/removed/X"}
        await in_step(world)
        assert not world.store.conflicts.all()

    played(tmp_path, play)


def test_the_store_never_has_a_directory_in_itself(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "outer/inner").mkdir(parents=True)
        outer, inner = await seen(world, "outer", "outer/inner")
        with world.store.transaction():
            world.store.nodes.remove_name(ROOT, b"outer")
        for parent in (outer, inner):
            with pytest.raises(OSError, match="Invalid argument"):
                world.store.nodes.add_name(parent, b"outer", outer)

    played(tmp_path, play)

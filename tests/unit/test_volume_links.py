"""Hard links on the server, seen and edited through one name or the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.types import ROOT, Kind


async def content(world: World, path: str) -> bytes:
    """What a reader of one name gets."""
    node = await world.cached(path)
    handle = world.volume.files.open(node, writing=False)
    try:
        return await world.read(handle, 0, 1 << 20)
    finally:
        world.volume.files.close(handle)


def save_over(path: Path, data: bytes) -> None:
    """As an editor does: a new file takes the name."""
    new = path.with_name("new")
    new.write_bytes(data)
    os.rename(new, path)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("saved", ["a", "d/b"])
def test_a_name_saved_over_leaves_what_the_name_in_another_directory_shows(
    saved: str, linked: bool, tmp_path: Path
) -> None:
    """``linked``: what was put there has a further name itself, which is not seen here."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        (world.share / "d").mkdir()
        os.link(world.share / "a", world.share / "d" / "b")
        assert await content(world, "a") == await content(world, "d/b") == b"one"
        node = await world.find("a")
        assert (await world.find("d/b")).id == node.id
        save_over(world.share / saved, b"another")
        if linked:
            os.link(world.share / saved, tmp_path / "elsewhere")
        other = "d/b" if saved == "a" else "a"
        for path in (saved, other, saved):
            wanted = b"another" if path == saved else b"one"
            assert await content(world, path) == wanted
        assert (await world.find(saved)).id != (await world.find(other)).id

    played(tmp_path, play)


@pytest.mark.parametrize("edited", ["a", "d/b"])
def test_a_name_saved_over_while_the_file_is_edited_by_the_other(
    edited: str, tmp_path: Path
) -> None:
    """The edit goes out, and the name that is another file by now is not made anew from it."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        (world.share / "d").mkdir()
        os.link(world.share / "a", world.share / "d" / "b")
        for path in ("a", "d/b"):
            await content(world, path)
        other = "d/b" if edited == "a" else "a"
        save_over(world.share / other, b"another")
        world.write(await world.find(edited), 0, b"two")
        await world.drained()
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, Resolution.BOTH)
        await world.drained()
        await world.volume.observer.directory((await world.find("d")).id)
        shown = {path: await content(world, path) for path in names(world.share)}
        assert shown == names(world.share)
        assert b"two" in shown.values() and b"another" in shown.values()

    played(tmp_path, play)


def test_names_that_were_never_seen_follow_an_edit(tmp_path: Path) -> None:
    """As they do where a program writes through one name of a file."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        (world.share / "d" / "deep").mkdir(parents=True)
        for path in ("b", "d/c", "d/deep/e"):
            os.link(world.share / "a", world.share / path)
        world.write(await world.cached("a"), 0, b"two")
        await world.drained()
        assert set(names(world.share).values()) == {b"two"}
        assert {p.stat().st_nlink for p in world.share.rglob("*") if p.is_file()} == {4}
        assert not world.store.conflicts.all()

    played(tmp_path, play)


def test_a_name_outside_the_share_is_parted_and_that_is_said(tmp_path: Path) -> None:
    """It may be a backup made of links: it is not written to (docs/adr/0009)."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        os.link(world.share / "a", tmp_path / "backup")
        node = await world.cached("a")
        world.write(node, 0, b"two")
        await world.drained()
        assert (world.share / "a").read_bytes() == b"two"
        assert (tmp_path / "backup").read_bytes() == b"one"
        failure = world.volume.context.failures.of(node.id)
        assert failure is not None and "1 other hard link" in failure.text

    played(tmp_path, play)


def test_a_name_never_seen_and_saved_over_meanwhile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found, and then is another's file by the time that it would be made anew."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        (world.share / "d").mkdir()
        os.link(world.share / "a", world.share / "d" / "b")
        world.write(await world.cached("a"), 0, b"two")
        remote = world.volume.link.remote
        replace = remote.replace

        async def late(*args: Any) -> Any:
            save_over(world.share / "d" / "b", b"another")
            return await replace(*args)

        monkeypatch.setattr(remote, "replace", late)
        await world.drained()
        for conflict in world.store.conflicts.all():  # the link count of what it was based on
            await world.volume.resolve(conflict, Resolution.LOCAL)
        await world.drained()
        assert names(world.share) == {"a": b"two", "d/b": b"another"}

    played(tmp_path, play)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("moved", ["", "z", "d/z"])
@pytest.mark.parametrize("renamed", ["a", "l"])
def test_one_name_is_renamed_here_and_saved_over_there_and_the_other_is_moved_there(
    renamed: str, moved: str, keep: Resolution, tmp_path: Path
) -> None:
    """Each name goes its own way; none stays here that the server does not have."""

    async def play(world: World) -> None:
        other = "l" if renamed == "a" else "a"
        (world.share / "d").mkdir()
        (world.share / "a").write_bytes(b"one")
        os.link(world.share / "a", world.share / "l")
        for path in ("d", "a", "l"):
            await world.find(path)
        await content(world, "a")
        world.volume.changes.rename(ROOT, renamed.encode(), ROOT, b"mine", 0)
        save_over(world.share / renamed, b"another")
        if moved:
            os.rename(world.share / other, world.share / moved)
        await world.volume.observer.directory((await world.find("d")).id)
        await world.volume.observer.directory(ROOT)
        await world.drained()
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, keep)
        await world.drained()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        there = names(world.share)
        assert there == {"mine": b"another", moved or other: b"one"}
        for path, data in there.items():
            assert await content(world, path) == data
        for directory in (ROOT, (await world.find("d")).id):
            await world.volume.observer.directory(directory)
        shown = {name for name, _ in world.store.nodes.children(ROOT)} - {b"d"}
        shown |= {b"d/" + n for n, _ in world.store.nodes.children((await world.find("d")).id)}
        assert shown == {path.encode() for path in there}

    played(tmp_path, play)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("moved", ["", "z"])
@pytest.mark.parametrize("removed", ["a", "l"])
def test_one_name_is_removed_here_and_saved_over_there(
    removed: str, moved: str, keep: Resolution, tmp_path: Path
) -> None:
    """What was saved there is shown, unless it is decided against; the other name is as it was."""

    async def play(world: World) -> None:
        other = "l" if removed == "a" else "a"
        (world.share / "a").write_bytes(b"one")
        os.link(world.share / "a", world.share / "l")
        for path in ("a", "l"):
            await content(world, path)
        world.volume.changes.unlink(ROOT, removed.encode())
        save_over(world.share / removed, b"another")
        if moved:
            os.rename(world.share / other, world.share / moved)
        await world.drained()
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, keep)
        await world.drained()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        there = names(world.share)
        assert there.pop(removed, b"another") == b"another"
        assert there == {moved or other: b"one"}
        await world.volume.observer.directory(ROOT)
        there = names(world.share)
        for path, data in there.items():
            assert await content(world, path) == data
        shown = {name for name, _ in world.store.nodes.children(ROOT)}
        assert shown == {path.encode() for path in there}

    played(tmp_path, play)


def names(root: Path) -> dict[str, bytes]:
    """Every file of a tree by its path, with its content."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("own", [None, 1, 9])
def test_of_two_nodes_that_are_one_file_what_was_wished_for_either_stays(
    tmp_path: Path, own: int | None
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"one")
        (world.share / "g").write_bytes(b"two")
        nodes = [await world.find("f"), await world.find("g")]
        (world.share / "g").unlink()
        os.link(world.share / "f", world.share / "g")
        there = await world.volume.link.remote.stat(b"g")
        kept, gone = nodes
        for node in nodes:  # a link whose source had become a name of another file
            world.store.server.set(node.id, there, seen_ns=1)
        if world.store.server.by_file_id(there.file_id or b"") == gone.id:
            kept, gone = gone, kept
        world.store.pins.add(gone.id, 5, True)
        world.store.node_settings.set(gone.id, "cull", "off")
        world.store.node_settings.set(gone.id, "fresh", "7")
        world.store.node_settings.set(kept.id, "fresh", "3")
        if own is not None:
            world.store.pins.add(kept.id, own, False)
        await world.volume.observer.directory(ROOT)
        assert (await world.find("f")).id == (await world.find("g")).id == kept.id
        pin = world.store.pins.get(kept.id)
        assert pin is not None and pin.priority == max(5, own or 0)
        assert world.store.node_settings.of(kept.id) == {"cull": "off", "fresh": "3"}
        assert world.store.pins.get(gone.id) is None
        assert world.store.node_settings.of(gone.id) == {}

    played(tmp_path, play)


@pytest.mark.parametrize("also_inside", [False, True])
def test_what_was_edited_there_is_not_removed_for_a_name_outside_the_share(
    also_inside: bool, tmp_path: Path
) -> None:
    """As a backup of hard links has one. Under a name in the share it stays to be seen."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"before")
        os.link(world.share / "a", tmp_path / "backup")
        if also_inside:
            os.link(world.share / "a", world.share / "b")
        assert await content(world, "a") == b"before"
        await world.volume.observer.directory(ROOT)
        world.volume.changes.unlink(ROOT, b"a")
        (world.share / "a").write_bytes(b"edited there")
        await world.drained()
        kinds = [one.kind for one in world.store.conflicts.all()]
        assert kinds == ([] if also_inside else ["remove/update"])
        assert (world.share / "a").exists() is not also_inside
        assert (world.share / ("b" if also_inside else "a")).read_bytes() == b"edited there"

    played(tmp_path, play)


def test_what_was_edited_there_is_not_removed_for_a_name_that_is_gone(tmp_path: Path) -> None:
    """The other name was in the share when it was last looked at, and was moved out of it."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"before")
        os.link(world.share / "a", world.share / "b")
        assert await content(world, "a") == b"before"
        await world.volume.observer.directory(ROOT)
        world.volume.changes.unlink(ROOT, b"a")
        os.rename(world.share / "b", tmp_path / "trash")
        (world.share / "a").write_bytes(b"edited there")
        await world.drained()
        assert [one.kind for one in world.store.conflicts.all()] == ["remove/update"]
        assert (world.share / "a").read_bytes() == b"edited there"

    played(tmp_path, play)


def take(world: World, name: bytes, how: str) -> None:
    """A name is removed here, moved away and removed, or saved over."""
    changes = world.volume.changes
    if how == "saved over":
        new = changes.create(ROOT, b"new", Kind.FILE, 0o644, 0, 0)
        world.write(new, 0, b"saved here")
        changes.rename(ROOT, b"new", ROOT, name, 0)
        return
    if how == "moved and removed":
        changes.rename(ROOT, name, ROOT, b"elsewhere", 0)
        name = b"elsewhere"
    changes.unlink(ROOT, name)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("how", ["removed", "moved and removed", "saved over"])
@pytest.mark.parametrize("kept", ["a", "b"])
@pytest.mark.parametrize("first", ["take", "store"])
def test_what_was_edited_by_a_name_that_was_removed_there_outlives_its_other_name_here(
    first: str, kept: str, how: str, keep: Resolution, tmp_path: Path
) -> None:
    """The edit is in conflict: it does not go out to a name that it is then removed with, and
    that name is removed whatever is decided."""

    async def play(world: World) -> None:
        other = "b" if kept == "a" else "a"
        (world.share / "a").write_bytes(b"one")
        os.link(world.share / "a", world.share / "b")
        for path in ("a", "b"):
            await content(world, path)
        node = await world.find(kept)
        if first == "take":
            take(world, other.encode(), how)
        world.write(node, 0, b"edited here")
        if first == "store":
            take(world, other.encode(), how)
        (world.share / kept).unlink()
        await world.drained()
        assert [one.kind for one in world.store.conflicts.all()] == ["update/remove"]
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, keep)
        await world.drained()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        there = {} if keep is Resolution.SERVER else {kept: b"edited here"}
        there |= {other: b"saved here"} if how == "saved over" else {}
        assert names(world.share) == there
        await world.volume.observer.directory(ROOT)
        shown = {name for name, _ in world.store.nodes.children(ROOT)}
        assert shown == {path.encode() for path in there}

    played(tmp_path, play)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("how", ["removed", "moved and removed", "saved over"])
def test_what_was_edited_there_by_the_name_that_was_removed_here_is_not_removed(
    how: str, keep: Resolution, tmp_path: Path
) -> None:
    """While the name that was edited here was removed there: each side's edit is kept."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        os.link(world.share / "a", world.share / "b")
        for path in ("a", "b"):
            await content(world, path)
        world.write(await world.find("a"), 0, b"edited here")
        take(world, b"b", how)
        (world.share / "a").unlink()
        await world.drained()
        (world.share / "b").write_bytes(b"edited there")
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, keep)
        await world.drained()
        there = names(world.share)
        assert (there.get("a") == b"edited here") is (keep is not Resolution.SERVER)
        assert there["b"] == b"edited there"
        found = "update/update" if how == "saved over" else "remove/update"
        assert [one.kind for one in world.store.conflicts.all()] == [found]

    played(tmp_path, play)


@pytest.mark.parametrize("moved_over", [False, True])
@pytest.mark.parametrize("kept", ["a", "b"])
def test_what_was_edited_does_not_go_out_by_a_name_that_is_moved_and_then_removed(
    kept: str, moved_over: bool, tmp_path: Path
) -> None:
    """The name that stays here was moved there. ``moved_over``: the removed one displaced another
    file before, so that its move goes out by itself.
    """

    async def play(world: World) -> None:
        changes, other = world.volume.changes, b"b" if kept == "a" else b"a"
        (world.share / "a").write_bytes(b"one")
        os.link(world.share / "a", world.share / "b")
        (world.share / "c").write_bytes(b"displaced")
        for path in ("a", "b", "c"):
            await content(world, path)
        world.write(await world.find(kept), 0, b"edited here")
        target = b"c" if moved_over else b"d"
        changes.rename(ROOT, other, ROOT, target, 0)
        changes.unlink(ROOT, target)
        (world.share / "theirs").mkdir()
        os.rename(world.share / kept, world.share / "theirs" / "moved")
        await world.drained()
        while world.store.conflicts.all():
            for conflict in world.store.conflicts.all():
                await world.volume.resolve(conflict, Resolution.LOCAL)
            await world.drained()
        assert not world.store.journal.count()
        assert not (world.share / os.fsdecode(target)).exists()
        assert b"edited here" in names(world.share).values()

    played(tmp_path, play)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("then", ["stays", "moves", "is removed"])
@pytest.mark.parametrize("there", ["edited", "saved over"])
def test_a_name_saved_over_here_does_not_come_back_with_a_decision_about_the_file(
    there: str, then: str, keep: Resolution, tmp_path: Path
) -> None:
    """The file is in conflict, and its other name is removed here as well. ``there``: what happened
    to that one on the server; ``then``: what becomes of what was saved here.
    """

    async def play(world: World) -> None:
        changes = world.volume.changes
        (world.share / "a").write_bytes(b"one")
        os.link(world.share / "a", world.share / "b")
        for path in ("a", "b"):
            await content(world, path)
        world.write(await world.find("a"), 0, b"edited here")
        (world.share / "b").write_bytes(b"edited there")
        if there == "saved over":
            save_over(world.share / "a", b"saved there")
        await world.drained()
        assert [one.kind for one in world.store.conflicts.all()] == ["update/update"]
        take(world, b"b", "saved over")
        if then == "moves":
            changes.rename(ROOT, b"b", ROOT, b"c", 0)
        elif then == "is removed":
            changes.unlink(ROOT, b"b")
        changes.unlink(ROOT, b"a")
        (conflict,) = world.store.conflicts.all()
        await world.volume.resolve(conflict, keep)
        assert then == "stays" or world.store.nodes.child_id(ROOT, b"b") is None
        await world.drained()
        while world.store.conflicts.all():
            for conflict in world.store.conflicts.all():
                await world.volume.resolve(conflict, keep)
            await world.drained()
        assert not world.store.journal.count()
        await world.volume.observer.directory(ROOT)
        for path, data in names(world.share).items():
            assert await content(world, path) == data
        shown = {name for name, _ in world.store.nodes.children(ROOT)}
        assert shown == {path.encode() for path in names(world.share)}

    played(tmp_path, play)

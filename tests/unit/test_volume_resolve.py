"""Decisions in one process: lost answers, and changes between any two of their steps."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import Unreachable, UsageError
from awayfs.core.merge_rules import Rule, Strategy
from awayfs.core.settings import Settings
from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.store.fsck import check
from awayfs.store.nodes import Node
from awayfs.volume import programs
from awayfs.volume.changes import RENAME_EXCHANGE


async def edited_on_both(world: World, ours: bytes, theirs: bytes) -> tuple[Node, Any]:
    (world.share / "f").write_bytes(b"1\n2\n3\n")
    node = await world.cached("f")
    world.volume.files.truncate(node, 0)
    world.write(await world.find("f"), 0, ours)
    (world.share / "f").write_bytes(theirs)
    await world.drained()
    (conflict,) = world.store.conflicts.of_node(node.id)
    return node, conflict


def content(world: World, node: Node) -> bytes:
    return Path(world.store.content.fd_path(node.id)).read_bytes()


async def made_on_both(world: World) -> Any:
    node = world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, 0, 0)
    world.write(node, 0, b"ours")
    (world.share / "f").write_bytes(b"theirs")
    await world.drained()
    (conflict,) = world.store.conflicts.of_node(node.id)
    assert conflict.kind == ConflictKind.NAME_NAME
    return conflict


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("then", [Resolution.LOCAL, Resolution.BOTH, Resolution.SERVER])
def test_a_lost_answer_while_a_stranger_is_moved(
    executed: bool, then: Resolution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided again, whatever for, there is one copy, and nothing is left over."""

    async def play(world: World) -> None:
        conflict = await made_on_both(world)
        remote: Any = world.volume.link.remote
        real = remote.rename

        async def lost(*args: Any) -> Any:
            if executed:
                await real(*args)
            raise Unreachable("the answer is lost")

        monkeypatch.setattr(remote, "rename", lost)
        with pytest.raises(Unreachable):
            await world.volume.resolve(conflict, Resolution.LOCAL)
        monkeypatch.setattr(remote, "rename", real)
        (seq,) = conflict.record_seqs
        assert world.store.intents.get(seq) is not None
        await world.online()
        await world.volume.resolve(conflict, then)
        await world.drained()
        there = {name: (world.share / name).read_bytes() for name in os.listdir(world.share)}
        expected = {b"theirs"} if then is Resolution.SERVER else {b"ours", b"theirs"}
        assert set(there.values()) == expected and len(there) == len(expected), there
        assert then is not Resolution.LOCAL or there["f"] == b"ours"
        assert not world.store.intents.all() and not world.store.journal.count()
        assert check(world.store) == []

    played(tmp_path, play)


@pytest.mark.parametrize("way", ["server", "with"])
def test_an_edit_between_the_keeping_and_the_dropping(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the history got is not what would go by then: nothing is decided."""

    async def play(world: World) -> None:
        node, conflict = await edited_on_both(world, b"ours\n", b"theirs\n")
        losing = world.volume.losing
        keep = losing.keep

        async def late(*args: Any) -> Any:
            kept = await keep(*args)
            world.write(await world.find("f"), 0, b"OURS\n")
            return kept

        monkeypatch.setattr(losing, "keep", late)
        staged = world.store.content.stage_path()
        Path(staged).write_bytes(b"merged\n")
        with pytest.raises(UsageError, match="changed here meanwhile"):
            if way == "with":
                await world.volume.deciding.take(conflict.id, staged)
            else:
                await world.volume.deciding.keep(conflict.id, way)
        assert content(world, node) == b"OURS\n"
        assert world.store.conflicts.get(conflict.id) is not None
        assert not os.path.exists(staged) or way == "server"

    played(tmp_path, play)


def test_a_merge_of_what_was_changed_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        rule = Rule("*", Strategy.TEXT, "test")
        world.volume.context.settings = lambda: Settings(rules=(rule,))
        node, _ = await edited_on_both(world, b"one\n2\n3\n", b"1\n2\nthree\n")
        run = programs.run
        changes = [b"eins\n2\n3\n"]

        async def slow(*args: Any) -> Any:
            ended = await run(*args)
            if changes:
                world.write(await world.find("f"), 0, changes.pop())
            return ended

        monkeypatch.setattr(programs, "run", slow)
        assert await world.volume.merging._all() is True  # to be tried again
        assert content(world, node) == b"eins\n2\n3\n"
        assert await world.volume.merging._all() is False
        await world.drained()
        assert (world.share / "f").read_bytes() == b"eins\n2\nthree\n"
        assert not world.store.conflicts.all() and check(world.store) == []

    played(tmp_path, play)


def test_a_merge_is_based_on_the_servers_revision(tmp_path: Path) -> None:
    """The next conflict is merged from there, and knows what was merged before."""

    async def play(world: World) -> None:
        rule = Rule("*", Strategy.TEXT, "test")
        world.volume.context.settings = lambda: Settings(rules=(rule,))
        node, _ = await edited_on_both(world, b"one\n2\n3\n", b"1\n2\nthree\n")
        await world.volume.merging._all()
        assert world.store.content.base_path(node.id) is not None
        base = Path(world.store.content.base_path(node.id) or "").read_bytes()
        assert base == b"1\n2\nthree\n" and content(world, node) == b"one\n2\nthree\n"
        (world.share / "f").write_bytes(b"1\n2\nthree\nfour\n")  # before it went out
        await world.drained()
        await world.volume.merging._all()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"one\n2\nthree\nfour\n"
        assert not world.store.conflicts.all() and check(world.store) == []

    played(tmp_path, play)


def test_two_decisions_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        _, conflict = await edited_on_both(world, b"ours\n", b"theirs!\n")
        results = await asyncio.gather(
            *(world.volume.deciding.keep(conflict.id, way) for way in ("both", "both", "local")),
            return_exceptions=True,
        )
        assert [isinstance(one, UsageError) for one in results] == [False, True, True]
        await world.drained()
        assert len(os.listdir(world.share)) == 2 and check(world.store) == []

    played(tmp_path, play)


def saved_like_an_editor(world: World, name: bytes, text: bytes) -> Node:
    """Written beside it, then renamed over it."""
    made = world.volume.changes.create(ROOT, name + b"~new", Kind.FILE, 0o644, 0, 0)
    world.write(made, 0, text)
    world.volume.changes.rename(ROOT, name + b"~new", ROOT, name, 0)
    return made


@pytest.mark.parametrize("way", ["rule", "with", "base", "local"])
def test_an_editors_save_against_an_edit(way: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"1\n2\n3\n")
        await world.cached("f")
        saved_like_an_editor(world, b"f", b"one\n2\n3\n")
        (world.share / "f").write_bytes(b"1\n2\nthree\n")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.UPDATE_UPDATE
        if way == "rule":
            rule = Rule("*", Strategy.TEXT, "test")
            world.volume.context.settings = lambda: Settings(rules=(rule,))
            await world.volume.merging._all()
        elif way == "with":
            staged = world.store.content.stage_path()
            Path(staged).write_bytes(b"merged\n")
            await world.volume.deciding.take(conflict.id, staged)
        else:
            await world.volume.deciding.keep(conflict.id, way)
        await world.drained()
        expected = {
            "rule": b"one\n2\nthree\n",
            "with": b"merged\n",
            "base": b"1\n2\n3\n",
            "local": b"one\n2\n3\n",
        }
        assert {n: (world.share / n).read_bytes() for n in os.listdir(world.share)} == {
            "f": expected[way]
        }
        lost = {one.which for one in world.store.history.all()}
        assert lost == ({"server"} if way == "local" else {"local", "server"})
        assert not world.store.conflicts.all() and not world.store.journal.count()
        assert check(world.store) == []

    played(tmp_path, play)


def test_an_edit_made_while_in_conflict_is_part_of_what_is_decided(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await edited_on_both(world, b"one\n2\n3\n", b"1\n2\nthree\n")
        world.write(await world.find("f"), 0, b"ONE\n")
        rule = Rule("*", Strategy.TEXT, "test")
        world.volume.context.settings = lambda: Settings(rules=(rule,))
        await world.volume.merging._all()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"ONE\n2\nthree\n"
        assert not world.store.conflicts.all() and not world.store.journal.count()

    played(tmp_path, play)


@pytest.mark.parametrize("way", ["local", "server", "both", "base"])
def test_an_undo_of_every_decision(way: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        _, conflict = await edited_on_both(world, b"ours\n", b"theirs!\n")
        await world.volume.deciding.keep(conflict.id, way)
        await world.drained()
        before = (world.share / "f").read_bytes()
        undone = await world.volume.undo.undo(b"f")
        await world.drained()
        back = b"theirs!\n" if way == "local" else b"ours\n"
        assert (world.share / "f").read_bytes() == back and undone.path == b"f"
        await world.volume.undo.undo(b"f")
        await world.drained()
        assert (world.share / "f").read_bytes() == before
        assert not world.store.conflicts.all() and check(world.store) == []

    played(tmp_path, play)


def test_an_undo_leaves_a_copy_that_the_history_could_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than the attributes come back: what it held is in the copy alone."""

    async def play(world: World) -> None:
        _, conflict = await edited_on_both(world, b"ours\n", b"theirs!\n")
        monkeypatch.setattr(world.volume.losing, "copy_of", too_large)
        await world.volume.deciding.keep(conflict.id, "both")
        monkeypatch.undo()
        await world.drained()
        with suppress(UsageError):
            await world.volume.undo.undo(b"f")
        await world.drained()
        there = sorted(path.read_bytes() for path in world.share.iterdir())
        assert there == [b"ours\n", b"theirs!\n"]

    async def too_large(_node: Any) -> None:
        return None

    played(tmp_path, play)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("way", ["of its own", "a save", "moved on", "in use"])
def test_the_base_of_a_rename_over_a_file(way: str, edited: bool, tmp_path: Path) -> None:
    """What was there before both changes: what was renamed has its name again, if it had a life of
    its own. ``edited``: here, before it was renamed."""

    async def play(world: World) -> None:
        share = world.share
        (share / "f").write_bytes(b"base")
        before = await world.cached("f")
        if way == "a save":
            node = world.volume.changes.create(ROOT, b"g", Kind.FILE, 0o644, 0, 0)
            world.write(node, 0, b"saved")
        else:
            (share / "g").write_bytes(b"other")
            node = await world.cached("g")
        if edited:
            world.write(world.shown(node), 0, b"EDITED")
        world.volume.changes.rename(ROOT, b"g", ROOT, b"f", 0)
        if way == "moved on":
            world.volume.changes.rename(ROOT, b"f", ROOT, b"h", 0)
        (share / "f").write_bytes(b"theirs, longer")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.UPDATE_UPDATE
        handle = None
        if way == "in use":
            handle = world.volume.files.open(world.shown(before), writing=True)
            with pytest.raises(UsageError, match="a program has it open"):
                await world.volume.deciding.keep(conflict.id, "base")
            assert world.store.conflicts.all() and world.store.nodes.resolve(b"g") is None
            world.volume.files.close(handle)
        await world.volume.deciding.keep(conflict.id, "base")
        await world.drained()
        ours = b"EDITED" if edited else b"saved" if way == "a save" else b"other"
        wanted = {"f": b"base"}
        if way in ("of its own", "in use"):
            wanted["g"] = ours
        elif way == "moved on":
            wanted["h"] = ours
        assert {path.name: path.read_bytes() for path in share.iterdir()} == wanted
        assert not world.store.conflicts.all() and not world.store.journal.count()
        history = world.store.history
        lost = {one.which: Path(history.content_path(one.id)) for one in history.all()}
        assert lost["local"].read_bytes() == ours
        assert lost["server"].read_bytes() == b"theirs, longer"
        if way != "moved on":  # which was decided about under another name
            for which, content in (("server", b"theirs, longer"), ("local", ours)):
                await world.volume.undo.undo(b"f", which)
                await world.drained()
                assert (share / "f").read_bytes() == content
        assert check(world.store) == []

    played(tmp_path, play)


@pytest.mark.parametrize("what", ["content", "mode"])
@pytest.mark.parametrize(
    "order", [["local", "server"], ["server", "local"], [None, None, "server"]]
)
def test_either_variant_comes_back_after_the_other(
    what: str, order: list[str | None], tmp_path: Path
) -> None:
    """Both were given up for the base, and an undo decides nothing: the other is still there."""

    async def play(world: World) -> None:
        file = world.share / "f"
        file.write_bytes(b"base\n")
        node = await world.cached("f")
        if what == "content":
            world.write(node, 0, b"ours\n")
            file.write_bytes(b"theirs!\n")
        else:
            world.volume.changes.set_attributes(node.id, Attributes(mode=0o600))
            file.chmod(0o640)
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        await world.volume.deciding.keep(conflict.id, "base")
        await world.drained()
        for which in order:
            await world.volume.undo.undo(b"f", which)
            await world.drained()
        if what == "content":
            wanted = {"server": b"theirs!\n", "local": b"ours\n"}[order[-1] or ""]
            assert file.read_bytes() == wanted
        else:
            assert file.stat().st_mode & 0o777 == {"server": 0o640, "local": 0o600}[order[-1] or ""]
        with pytest.raises(UsageError, match="did not give the server version up"):
            await world.volume.undo.undo(b"f", "server")
        assert not world.store.conflicts.all() and check(world.store) == []

    played(tmp_path, play)


def test_what_was_done_after_an_undo_is_not_replaced_by_the_other_variant(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node, conflict = await edited_on_both(world, b"ours\n", b"theirs!\n")
        await world.volume.deciding.keep(conflict.id, "base")
        await world.volume.undo.undo(b"f")
        world.write(world.shown(node), 0, b"mine\n")
        with pytest.raises(UsageError, match="was changed since"):
            await world.volume.undo.undo(b"f", "server")
        await world.volume.undo.undo(b"f", "server", force=True)
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs!\n"

    played(tmp_path, play)


@pytest.mark.parametrize("way", [Resolution.LOCAL, Resolution.BOTH, Resolution.SERVER])
@pytest.mark.parametrize("how", ["renamed", "linked"])
def test_what_was_moved_away_while_another_kind_took_its_name_there(
    how: str, way: Resolution, tmp_path: Path
) -> None:
    """Ours is gone there, and what has its old name is in nobody's way: decided, it is over."""

    async def play(world: World) -> None:
        (world.share / "old").write_bytes(b"ours")
        node = await world.cached("old")
        if how == "renamed":
            world.volume.changes.rename(ROOT, b"old", ROOT, b"new", 0)
        else:
            world.volume.changes.link(node.id, ROOT, b"new")
        (world.share / "old").unlink()
        (world.share / "old").symlink_to("theirs")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.UPDATE_REMOVE
        await world.volume.resolve(conflict, way)
        await world.drained()
        for again in world.store.conflicts.all():  # linked: made anew under the taken name, too
            assert (how, again.kind) == ("linked", ConflictKind.TYPE)
            await world.volume.resolve(again, way)
            await world.drained()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        links = [path for path in world.share.iterdir() if path.is_symlink()]
        assert [os.readlink(path) for path in links] == ["theirs"]
        ours = {path.name for path in world.share.iterdir()} - {links[0].name}
        assert ("new" in ours) == (way is not Resolution.SERVER), ours
        assert all((world.share / name).read_bytes() == b"ours" for name in ours)

    played(tmp_path, play)


@pytest.mark.parametrize("way", [Resolution.LOCAL, Resolution.BOTH, Resolution.SERVER])
@pytest.mark.parametrize("how", ["exchanged", "renamed over"])
def test_one_of_several_names_is_decided_about_where_it_is(
    how: str, way: Resolution, tmp_path: Path
) -> None:
    """Another name of a hard-linked file, first of all of them, tells nothing of this one."""

    async def play(world: World) -> None:
        for directory in ("first", "then"):
            (world.share / directory).mkdir()
        (world.share / "first/ours").write_bytes(b"ours")
        (world.share / "first/other").write_bytes(b"other")
        os.link(world.share / "first/ours", world.share / "then/a")
        os.link(world.share / "first/other", world.share / "then/b")
        for path in ("first/ours", "first/other", "then/a", "then/b"):
            await world.cached(path)
        then, other = await world.find("then"), await world.find("then/b")
        flags = RENAME_EXCHANGE if how == "exchanged" else 0
        world.volume.changes.rename(then.id, b"a", then.id, b"b", flags)
        (world.share / "first/ours").unlink()
        (world.share / "then/b").unlink()
        if how == "renamed over":
            (world.share / "then/b").write_bytes(b"theirs")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        await world.volume.resolve(conflict, way)
        await world.drained()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        there = {path.name: path.read_bytes() for path in (world.share / "then").iterdir()}
        if how == "exchanged":
            wanted = {b"ours"} if way is Resolution.SERVER else {b"ours", b"other"}
        else:
            wanted = {b"ours"} if way is Resolution.LOCAL else {b"ours", b"theirs"}
        assert set(there.values()) == wanted, there
        assert world.store.nodes.get(other.id) is not None
        assert (world.share / "first/other").read_bytes() == b"other"

    played(tmp_path, play)


@pytest.mark.parametrize("way", [Resolution.SERVER, Resolution.BOTH])
@pytest.mark.parametrize("gone", ["removed", "moved"])
def test_the_servers_rights_are_no_word_about_an_edit(
    gone: str, way: Resolution, tmp_path: Path
) -> None:
    """The file went on the server while its mode waited for a decision."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        node = await world.cached("f")
        world.volume.changes.set_attributes(node.id, Attributes(mode=0o600))
        (world.share / "f").chmod(0o755)
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.ATTRIBUTE
        world.write(world.shown(node), 6, b" and mine")
        if gone == "removed":
            (world.share / "f").unlink()
        else:
            (world.share / "f").rename(world.share / "g")
        await world.volume.resolve(conflict, way)
        await world.drained()
        conflicts = world.store.conflicts.all()
        if gone == "removed":
            assert [one.kind for one in conflicts] == [ConflictKind.UPDATE_REMOVE]
            await world.volume.resolve(conflicts[0], Resolution.LOCAL)
            await world.drained()
        left = {path.name: path.read_bytes() for path in world.share.iterdir()}
        assert left == {"f" if gone == "removed" else "g": b"theirs and mine"}
        assert not world.store.conflicts.all() and not world.store.journal.count()

    played(tmp_path, play)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("keep", list(Resolution))
def test_the_rights_of_a_file_that_was_saved_over_there(
    keep: Resolution, edited: bool, tmp_path: Path
) -> None:
    """By another file, as editors do. ``edited``: here as well, of which nothing is said yet."""

    async def play(world: World) -> None:
        file, new = world.share / "f", world.share / "new"
        file.write_bytes(b"one")
        node = await world.cached("f")
        world.volume.changes.set_attributes(node.id, Attributes(mode=0o600))
        if edited:
            world.write(world.shown(node), 0, b"edited here")
        new.write_bytes(b"saved there")
        new.chmod(0o640)
        new.rename(file)
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.ATTRIBUTE
        await world.volume.resolve(conflict, keep)
        await world.drained()
        left = [conflict.kind for conflict in world.store.conflicts.all()]
        assert left == ([ConflictKind.UPDATE_UPDATE] if edited else [])
        assert file.read_bytes() == b"saved there"
        assert file.stat().st_mode & 0o7777 == (0o600 if keep is Resolution.LOCAL else 0o640)

    played(tmp_path, play)


@pytest.mark.parametrize("first", ["mode", "link"])
def test_an_edit_that_goes_with_a_removed_file_is_in_the_history(
    first: str, tmp_path: Path
) -> None:
    """Whatever was the first change that met the removal."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        node = await world.cached("f")
        if first == "mode":
            world.volume.changes.set_attributes(node.id, Attributes(mode=0o600))
        else:
            world.volume.changes.link(node.id, ROOT, b"g")
        world.write(world.shown(node), 6, b" and mine")
        (world.share / "f").unlink()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.UPDATE_REMOVE
        await world.volume.resolve(conflict, Resolution.SERVER)
        kept = [Path(world.store.history.content_path(one.id)) for one in world.store.history.all()]
        assert [path.read_bytes() for path in kept if path.exists()] == [b"theirs and mine"]

    played(tmp_path, play)


@pytest.mark.parametrize("way", ["local", "server", "both"])
@pytest.mark.parametrize("who", ["there", "here"])
def test_a_file_in_conflict_that_left_its_directory_which_went_then(
    who: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of it is made beside where it is by now."""
    monkeypatch.setattr("awayfs.volume.volume.SENT_S", 0.1)  # what replays here is the test

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d/f").write_bytes(b"base")
        directory, node = await world.find("d"), await world.cached("d/f")
        await world.volume.observer.directory(directory.id)
        world.write(node, 0, b"ours")
        (world.share / "d/f").write_bytes(b"theirs!")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert (conflict.kind, conflict.parent) == (ConflictKind.UPDATE_UPDATE, directory.id)
        if who == "there":
            (world.share / "d/f").rename(world.share / "g")
            (world.share / "d").rmdir()
        else:
            world.volume.changes.rename(directory.id, b"f", ROOT, b"g", 0)
            world.volume.changes.rmdir(ROOT, b"d")
        await world.volume.observer.directory(ROOT)
        await world.drained()
        await world.volume.observer.directory(ROOT)
        assert world.store.nodes.path(node.id) == b"g"
        assert world.store.nodes.path(directory.id) is None
        for _ in range(2):  # the rename there, too, was a change
            for found in world.store.conflicts.of_node(node.id):
                with suppress(UsageError):
                    await world.volume.deciding.keep(found.id, way)
            await world.drained()
        await world.volume.observer.directory(ROOT)
        for found in world.store.conflicts.all():
            assert found.node == directory.id  # it came back: what is in it there is decided for
            await world.volume.deciding.keep(found.id, way)
        for _ in range(2):
            await world.volume.observer.directory(ROOT)
            if world.store.server.path(directory.id) is not None:
                await world.volume.observer.directory(directory.id)
        expected = {"local": {b"ours"}, "server": {b"theirs!"}, "both": {b"ours", b"theirs!"}}
        files = [path for path in world.share.rglob("*") if path.is_file()]
        assert {path.read_bytes() for path in files} == expected[way]
        assert len(files) == len(expected[way])
        for path in files:
            shown = await world.cached(str(path.relative_to(world.share)))
            assert content(world, shown) == path.read_bytes()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        assert check(world.store) == []

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["set here", "known before", "in a directory"])
def test_what_is_made_anew_has_its_extended_attributes(how: str, tmp_path: Path) -> None:
    """Here it shows them on; the new file on the server was made without."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d/f").write_bytes(b"content")
        os.setxattr(world.share / "d/f", b"user.before", b"1")
        node = await world.cached("d/f")
        await world.volume.tree.xattrs(node.id)
        directory = await world.find("d")
        if how == "set here":
            world.volume.changes.set_xattr(node.id, b"user.here", b"2", 0)
        elif how == "known before":
            world.write(node, 0, b"CONTENT")
        else:
            world.volume.changes.rename(ROOT, b"d", ROOT, b"e", 0)
        (world.share / "d/f").unlink()
        if how == "in a directory":
            (world.share / "d").rmdir()
        await world.drained()
        for conflict in world.store.conflicts.all():
            await world.volume.deciding.keep(conflict.id, "local")
        await world.drained()
        (path,) = [path for path in world.share.rglob("*") if path.is_file()]
        there = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        expected = {"user.before": b"1"} | ({"user.here": b"2"} if how == "set here" else {})
        assert there == expected and directory.id
        assert not world.store.conflicts.all() and not world.store.journal.count()

    played(tmp_path, play)


@pytest.mark.parametrize("is_source_there", [True, False])
def test_keeping_both_where_the_servers_went_with_its_directory(
    is_source_there: bool, tmp_path: Path
) -> None:
    """The conflict is found anew as what it is by then, and that can be decided."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d/f").write_bytes(b"theirs")
        (world.share / "ours").write_bytes(b"ours")
        (world.share / "other").write_bytes(b"other")
        await world.cached("d/f")
        await world.cached("ours")
        directory = await world.find("d")
        world.volume.changes.rename(ROOT, b"ours", directory.id, b"f", 0)
        (world.share / "d/f").write_bytes(b"theirs, changed")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        shutil.rmtree(world.share / "d")
        if not is_source_there:
            (world.share / "ours").unlink()
        world.volume.context.spawn(world.volume.replay.run())
        with pytest.raises(UsageError, match="decide anew"):
            await world.volume.deciding.keep(conflict.id, "both")
        for again in world.store.conflicts.all():
            await world.volume.deciding.keep(again.id, "both")
        async with asyncio.timeout(20):
            while world.store.journal.count():
                await asyncio.sleep(0.02)
        assert not world.store.conflicts.all()
        assert (world.share / "d/f").read_bytes() == b"ours"

    played(tmp_path, play)


def test_keeping_both_where_a_file_has_the_name_of_the_directory_it_was_moved_to(
    tmp_path: Path,
) -> None:
    """The file goes aside, and the directory is made anew with what was moved there."""

    async def play(world: World) -> None:
        for name in ("d", "e"):
            (world.share / name).mkdir()
        (world.share / "e/f").write_bytes(b"moved")
        await world.cached("e/f")
        directory = await world.find("d")
        await world.volume.observer.directory(directory.id)
        world.volume.changes.rename(ROOT, b"e", directory.id, b"e", 0)
        (world.share / "d").rmdir()
        (world.share / "d").write_bytes(b"theirs")
        await world.drained()
        assert [one.kind for one in world.store.conflicts.all()] == ["type"]
        for conflict in world.store.conflicts.all():
            await world.volume.deciding.keep(conflict.id, "both")
        await world.drained()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        assert (world.share / "d/e/f").read_bytes() == b"moved"
        (aside,) = world.share.glob("d (conflict*")
        assert aside.read_bytes() == b"theirs"

    played(tmp_path, play)


SINCE: dict[str, list[tuple[str, str, int]]] = {
    "renamed": [("d/a", "d/b", 0)],
    "both renamed": [("d/a", "d/b", 0), ("f", "g", 0)],
    "saved over": [("d/a", "d/b", 0), ("other", "d/b", 0)],
    "renamed over": [("d/a", "other", 0)],
    "exchanged": [("d/a", "d/b", 0), ("d/b", "other", RENAME_EXCHANGE)],
    "removed": [("d/a", "d/b", 0), ("d/b", "", 0)],
}
"""What was done with one of two names of a file after it was changed."""


@pytest.mark.parametrize("keep", ["local", "both"])
@pytest.mark.parametrize("since", SINCE)
def test_a_file_of_several_names_is_made_anew_under_those_that_it_has(
    since: str, keep: str, tmp_path: Path
) -> None:
    """What was done with one that it has no more is not done to the one that is made."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "f").write_bytes(b"theirs")
        os.link(world.share / "f", world.share / "d/a")
        (world.share / "other").write_bytes(b"other")
        await world.cached("d/a")
        await world.cached("other")
        world.write(await world.find("f"), 0, b"ours")
        in_d, changes = (await world.find("d")).id, world.volume.changes
        for old, new, flags in SINCE[since]:
            source, target = (
                (in_d, os.fsencode(path[2:])) if path.startswith("d/") else (ROOT, path.encode())
                for path in (old, new)
            )
            if new:
                changes.rename(*source, *target, flags)
            else:
                changes.unlink(*source)
        (world.share / "f").unlink()
        (world.share / "d/a").unlink()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        await world.volume.deciding.keep(conflict.id, keep)
        await world.drained()
        await world.volume.observer.directory(ROOT)
        await world.volume.observer.directory(in_d)
        here = {
            (directory, name): b"oursrs" if node.id == conflict.node else b"other"
            for directory in (ROOT, in_d)
            for name, node in world.store.nodes.children(directory)
            if node.id != in_d
        }
        there = {
            (in_d if path.parent.name == "d" else ROOT, os.fsencode(path.name)): path.read_bytes()
            for path in world.share.rglob("*")
            if path.is_file()
        }
        assert here == there
        assert b"oursrs" in there.values()
        assert not world.store.journal.count()
        assert check(world.store) == []

    played(tmp_path, play)

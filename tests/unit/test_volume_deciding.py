"""Decisions against a server, a disk and a user that move between any two of their steps."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_resolve import content, edited_on_both
from tests.unit.test_volume_review import World, played

from awayfs.control.messages import ControlError
from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import Refused, UsageError
from awayfs.core.history import Limits
from awayfs.core.merge_rules import Rule, Strategy
from awayfs.core.settings import Settings
from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.daemon.api_resolve import ResolveApi
from awayfs.store.fsck import check

SETTLED_S = 0.05
"""After that tokens of a local directory are strong."""


@pytest.mark.parametrize("way", ["local", "with", "base"])
def test_the_server_changes_once_more_after_the_check(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has seen, and the history does not have, is not overwritten."""
    monkeypatch.setattr("awayfs.volume.volume.SENT_S", 0.1)  # what replays here is the test

    async def play(world: World) -> None:
        node, conflict = await edited_on_both(world, b"ours\n", b"theirs\n")
        losing = world.volume.losing
        keep = losing.keep

        async def late(*args: Any) -> Any:
            kept = await keep(*args)
            (world.share / "f").write_bytes(b"theirs, again\n")
            return kept

        monkeypatch.setattr(losing, "keep", late)
        staged = world.store.content.stage_path()
        Path(staged).write_bytes(b"merged\n")
        try:
            if way == "with":
                await world.volume.deciding.take(conflict.id, staged)
            else:
                await world.volume.deciding.keep(conflict.id, way)
        except UsageError:
            pass
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs, again\n"
        assert world.store.conflicts.of_node(node.id)
        assert check(world.store) == []

    played(tmp_path, play)


def test_no_room_for_the_servers_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it was found nor when it is decided: then it is not overwritten."""

    async def play(world: World) -> None:
        remote: Any = world.volume.link.remote
        real = remote.fetch
        failures = [Refused(errno.EACCES), OSError(errno.ENOSPC, "no space left on device")]

        async def full(*args: Any) -> Any:
            raise failures.pop(0) if len(failures) > 1 else failures[0]

        (world.share / "f").write_bytes(b"1\n2\n3\n")
        node = await world.cached("f")
        world.volume.files.truncate(node, 0)
        world.write(await world.find("f"), 0, b"ours")
        (world.share / "f").write_bytes(b"theirs")
        monkeypatch.setattr(remote, "fetch", full)
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(node.id)
        assert not conflict.server_complete
        with pytest.raises(UsageError, match="nothing was decided"):
            await world.volume.deciding.keep(conflict.id, "local")
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs"
        assert world.store.conflicts.get(conflict.id) is not None
        monkeypatch.setattr(remote, "fetch", real)
        await world.volume.deciding.keep(conflict.id, "local")
        await world.drained()
        assert (world.share / "f").read_bytes() == b"ours"
        assert [one.which for one in world.store.history.all()] == ["server"]

    played(tmp_path, play)


@pytest.mark.parametrize("strategy", [Strategy.SERVER, Strategy.NEWEST])
def test_a_rule_gives_up_nothing_that_cannot_be_kept(strategy: Strategy, tmp_path: Path) -> None:
    """A rule may come from the share, and nobody is asked."""

    async def play(world: World) -> None:
        rule = Rule("*", strategy, "test")
        settings = Settings(rules=(rule,), history=Limits(one=3))
        world.volume.context.settings = lambda: settings
        node, conflict = await edited_on_both(world, b"ours\n", b"theirs\n")
        await world.volume.merging._all()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs\n"
        assert content(world, node) == b"ours\n"
        left = world.store.conflicts.get(conflict.id)
        assert left is not None and "too large for the history" in left.note

    played(tmp_path, play)


def test_an_edit_of_what_came_back_is_kept_when_the_removal_is_decided_for(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"1\n")
        await world.cached("f")
        world.volume.changes.unlink(ROOT, b"f")
        (world.share / "f").write_bytes(b"theirs\n")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.REMOVE_UPDATE
        await asyncio.sleep(SETTLED_S)  # else it may be an edit of what nobody can tell from theirs
        await world.cached("f")
        world.write(await world.find("f"), 0, b"worked on\n")
        await world.volume.deciding.keep(conflict.id, "local")
        await world.drained()
        assert not (world.share / "f").exists()
        kept = {
            Path(world.store.history.content_path(one.id)).read_bytes()
            for one in world.store.history.all()
        }
        assert b"worked on\n" in kept

    played(tmp_path, play)


def test_a_newer_version_of_what_came_back_is_not_removed_unseen(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"1\n")
        await world.cached("f")
        world.volume.changes.unlink(ROOT, b"f")
        (world.share / "f").write_bytes(b"theirs\n")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        (world.share / "f").write_bytes(b"theirs, again\n")
        await world.find("f")
        await world.volume.observer.directory(ROOT)
        try:
            await world.volume.deciding.keep(conflict.id, "local")
        except UsageError:
            pass
        await world.drained()
        kept = {
            Path(world.store.history.content_path(one.id)).read_bytes()
            for one in world.store.history.all()
        }
        there = (world.share / "f").read_bytes() if (world.share / "f").exists() else b""
        assert b"theirs, again\n" in kept | {there}

    played(tmp_path, play)


async def changed_in_part(world: World) -> Any:
    """A large file of which a part is here, and changed; then the server has another one."""
    (world.share / "f").write_bytes(b"x" * (1 << 20))
    node = await world.find("f")
    handle = world.volume.files.open(node, writing=True)
    await world.read(handle, 0, 100)
    world.volume.link.offline_by_hand()
    world.volume.files.write(handle, 0, b"ours")
    world.volume.files.close(handle)
    assert not world.store.content.covers(node.id, 0, 1 << 20)
    return node


def test_an_undo_does_not_take_holes_for_content(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node = await changed_in_part(world)
        (world.share / "f").write_bytes(b"y" * (1 << 20))
        await world.volume.link.online_by_hand()
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(node.id)
        await world.volume.deciding.keep(conflict.id, "server")
        await world.drained()
        with pytest.raises(UsageError, match="only a part"):
            await world.volume.undo.undo(b"f")
        with pytest.raises(UsageError, match="only a part"):
            await world.volume.undo.undo(b"f", force=True)
        await world.drained()
        assert (world.share / "f").read_bytes() == b"y" * (1 << 20)

    played(tmp_path, play)


def test_a_made_directory_that_is_still_filled_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision was made about what was in it then."""

    async def play(world: World) -> None:
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        (world.share / "d").write_bytes(b"theirs")
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(directory.id)
        losing = world.volume.losing
        keep = losing.keep

        async def late(*args: Any) -> Any:
            kept = await keep(*args)
            made = world.volume.changes.create(directory.id, b"new", Kind.FILE, 0o644, 0, 0)
            world.write(made, 0, b"new work")
            return kept

        monkeypatch.setattr(losing, "keep", late)
        with pytest.raises(UsageError, match="changed here meanwhile"):
            await world.volume.deciding.keep(conflict.id, "server")
        found = world.store.nodes.resolve(b"d/new")
        assert found is not None and content(world, found) == b"new work"

    played(tmp_path, play)


@pytest.mark.parametrize("missing", ["server", "local"])
def test_a_tool_gets_nothing_empty_for_what_is_not_here(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        if missing == "local":
            await changed_in_part(world)
            (world.share / "f").write_bytes(b"y" * (1 << 20))
            await world.volume.link.online_by_hand()
            await world.drained()
            said = "a part of our version is not here"
        else:
            _, conflict = await edited_on_both(world, b"ours\n", b"theirs\n")
            world.store.conflicts.update(conflict.id, server_complete=False)
            world.volume.link.offline_by_hand()
            said = "the server's version is not here"
        place = tmp_path / "scratch"
        place.mkdir()
        checkout = ResolveApi(lambda: world.volume).handlers()["conflict_checkout"]
        with pytest.raises(ControlError, match=said):
            await checkout({"path": "f", "directory": str(place)})  # type: ignore[misc]

    played(tmp_path, play)


def test_a_name_of_the_share_is_no_command(tmp_path: Path) -> None:
    """Also for a user who has a shell put a command together."""

    async def play(world: World) -> None:
        name = "$(touch pwned)`touch pwned`; touch pwned; é.txt"
        script = f"cd {tmp_path} && cat {{local}} {{server}} > {{merged}}"
        rule = Rule("*", Strategy.COMMAND, "test", command=("sh", "-c", script))
        world.volume.context.settings = lambda: Settings(rules=(rule,))
        (world.share / name).write_bytes(b"1\n")
        node = await world.cached(name)
        world.write(node, 0, b"o\n")
        (world.share / name).write_bytes(b"theirs\n")
        await world.drained()
        await world.volume.merging._all()
        await world.drained()
        assert (world.share / name).read_bytes() == b"o\ntheirs\n"
        assert not (tmp_path / "pwned").exists()

    played(tmp_path, play)


def test_an_undo_of_what_is_being_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a program that gives the file the size and time it had."""

    async def play(world: World) -> None:
        node, conflict = await edited_on_both(world, b"ours\n", b"theirs\n")
        await world.volume.deciding.keep(conflict.id, "server")
        await world.drained()
        await world.cached("f")
        deciding = world.volume.deciding
        staged_copy = deciding.staged_copy

        async def late(path: Any) -> str:
            before = world.shown(node)
            world.write(await world.find("f"), 0, b"THEIRS\n")
            world.volume.changes.set_attributes(node.id, Attributes(mtime_ns=before.mtime_ns))
            return await staged_copy(path)

        monkeypatch.setattr(deciding, "staged_copy", late)
        with pytest.raises(UsageError, match="being changed"):
            await world.volume.undo.undo(b"f")
        assert content(world, node) == b"THEIRS\n"

    played(tmp_path, play)


@pytest.mark.parametrize("way", ["written", "open"])
def test_an_undo_takes_nothing_away_that_is_being_written(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision made the file anew; what it holds is looked at, which takes a while."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base\n")
        file = await world.cached("f")
        world.write(file, 0, b"ours\n")
        (world.share / "f").unlink()
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(file.id)
        await world.volume.deciding.keep(conflict.id, "local")
        await world.drained()
        undo = world.volume.undo
        look, handles = undo._check_unchanged, []

        async def slow(*args: Any) -> None:
            await look(*args)
            if way == "written":
                world.write(world.shown(file), 0, b"new work\n")
            else:
                handles.append(world.volume.files.open(world.shown(file), writing=True))

        monkeypatch.setattr(undo, "_check_unchanged", slow)
        with pytest.raises(UsageError, match="try again"):
            await undo.undo(b"f")
        assert content(world, file) == (b"new work\n" if way == "written" else b"ours\n")
        monkeypatch.undo()
        for handle in handles:
            world.volume.files.close(handle)
        await undo.undo(b"f", force=True)
        await world.drained()
        assert not (world.share / "f").exists()

    played(tmp_path, play)

"""Two names are exchanged over SFTP, which has no such step, and something comes in between.

Whatever it is, both contents stay on the server, and in the end no name of the operation is left:
exchanged, or taken back, or a conflict whose decision leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sftp_world import SftpWorld, losing, played
from test_replay_cut_off import cutting
from test_volume_review import World
from test_volume_review import played as played_in_a_directory

from awayfs.core.conflicts import Resolution
from awayfs.core.errors import Refused, Unreachable
from awayfs.core.types import ROOT
from awayfs.ports.remote import Capabilities, Guard
from awayfs.remotes import directory_probe
from awayfs.volume.changes import RENAME_EXCHANGE
from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

MOST_POINTS = 10
LONG_AGO = (1_600_000_000, 1_600_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


def put(world: World, path: str, text: str) -> None:
    """A file that looks like every other of the same length; below ``path`` where it ends in /."""
    place = world.share / path
    place = place / "in" if path.endswith("/") else place
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    os.utime(place, LONG_AGO)


def tree(world: World) -> dict[str, str]:
    """All files there, and every name of ours."""
    found = {}
    for path in world.share.rglob("*"):
        name = str(path.relative_to(world.share))
        if path.is_file():
            found[name] = path.read_text()
        elif path.name.startswith(".awayfs"):
            found[name] = "<directory>"
    return found


async def shown(world: World) -> dict[str, str]:
    """All files here, with their content."""
    found: dict[str, str] = {}

    async def walk(node: int, above: str) -> None:
        await world.volume.tree.open_directory(node)
        for name, child in world.volume.tree.entries(node):
            path = above + os.fsdecode(name)
            if child.kind.name == "DIRECTORY":
                await walk(child.id, path + "/")
            else:
                whole = await world.cached(path)
                handle = world.volume.files.open(whole, writing=False)
                found[path] = (await world.read(handle, 0, 100)).decode()
                world.volume.files.close(handle)

    await walk(ROOT, "")
    return found


async def exchange(world: World, one: str, other: str) -> None:
    await world.find(one)
    await world.find(other)
    places = []
    for path in one, other:
        folder, _, name = path.rpartition("/")
        node = (await world.find(folder)).id if folder else ROOT
        places.append((node, name.encode()))
    world.volume.changes.rename(*places[0], *places[1], RENAME_EXCHANGE)


PAIRS = {
    "files": ("f", "g"),
    "of two directories": ("d/f", "e/g"),
    "directories": ("f/", "e/g/"),
    "a file and a directory": ("f", "g/"),
}


async def begun(world: World, pair: str) -> dict[str, str]:
    """Exchanged here, and not yet there; what the server will have."""
    one, other = PAIRS[pair]
    put(world, one, "one")
    put(world, other, "two")
    await shown(world)
    await exchange(world, one.rstrip("/"), other.rstrip("/"))
    inside = {"one": "/in" * one.endswith("/"), "two": "/in" * other.endswith("/")}
    return {
        one.rstrip("/") + inside["two"]: "two",
        other.rstrip("/") + inside["one"]: "one",
    }


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("call", ["exchange", "settle"])
@pytest.mark.parametrize("nth", range(1, MOST_POINTS))
def test_cut_off_anywhere_it_is_done_in_the_end(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: str, call: str, nth: int
) -> None:
    async def play(world: SftpWorld) -> None:
        wanted = await begun(world, pair)
        remote: Any = world.volume.link.remote
        monkeypatch.setattr(remote, call, cutting(getattr(remote, call), nth))
        await world.drained()
        monkeypatch.undo()
        assert {"one", "two"} <= set(tree(world).values())
        await world.settled()
        assert tree(world) == wanted
        assert await shown(world) == wanted
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("call", ["exchange", "settle"])
def test_a_lost_answer_neither_undoes_nor_repeats_it(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: str, call: str
) -> None:
    async def play(world: SftpWorld) -> None:
        wanted = await begun(world, pair)
        remote: Any = world.volume.link.remote
        monkeypatch.setattr(remote, call, losing(getattr(remote, call)))
        await world.drained()
        monkeypatch.undo()
        await world.settled()
        assert tree(world) == wanted
        assert await shown(world) == wanted
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


async def gone(*_: object) -> None:
    raise Unreachable("killed")


POINTS = ["replay.frozen", "replay.aside", "replay.crossing", "replay.acted", "replay.committed"]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("point", POINTS)
def test_a_daemon_that_dies_leaves_it_to_the_next(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: str, point: str
) -> None:
    async def play(world: SftpWorld) -> None:
        wanted = await begun(world, pair)

        left = world.state + ".killed"

        def killed(name: str) -> None:
            """What is on disk now is what the next one finds, and nothing more is sent."""
            if name == point and not os.path.exists(left):
                shutil.copytree(world.state, left)
                monkeypatch.setattr(world.volume.link, "call", gone)
                raise Unreachable("killed")

        for module in ("replay_act", "freezing", "puts", "replay_steps", "replay_commit"):
            monkeypatch.setattr(f"awayfs.volume.{module}.fault", killed)
        await world.drained()
        monkeypatch.undo()
        await world.volume.link.remote.close()
        world.die()
        world.state = left
        world.open()
        assert {"one", "two"} <= set(tree(world).values())
        await world.settled()
        assert tree(world) == wanted
        assert await shown(world) == wanted
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


# -- somebody comes in between ----------------------------------------------------------------

WAYS = [Resolution.LOCAL, Resolution.SERVER, Resolution.BOTH]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("gone", ["f", "g"])
def test_the_decision_about_what_was_removed_there_leaves_nothing_behind(
    server: Sshd, tmp_path: Path, gone: str, way: Resolution
) -> None:
    async def play(world: SftpWorld) -> None:
        await begun(world, "files")
        (world.share / gone).unlink()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        stays, data = ("g", "two") if gone == "f" else ("f", "one")
        assert tree(world) == {stays: data}
        await world.volume.resolve(conflict, way)
        await world.settled()
        crossed = {"f": "two", "g": "one"}
        assert tree(world) == ({stays: data} if way is Resolution.SERVER else crossed)
        assert await shown(world) == tree(world)
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


@pytest.mark.parametrize("name", ["f", "g"])
@pytest.mark.parametrize("moment", ["exchange", "settle"])
def test_a_stranger_takes_a_name_while_they_are_aside(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    """After the first half, or before the second: nothing is lost, and nothing of ours is left."""

    async def play(world: SftpWorld) -> None:
        await begun(world, "files")
        remote: Any = world.volume.link.remote
        call = getattr(remote, moment)

        async def between(*arguments: Any) -> Any:
            if moment == "settle":
                put(world, name, "stranger's")
            outcome = await call(*arguments)
            if moment == "exchange":
                put(world, name, "stranger's")
                raise Unreachable("the answer is lost")
            return outcome

        monkeypatch.setattr(remote, moment, between)
        await world.drained()
        monkeypatch.undo()
        await world.online()
        await world.drained()
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, Resolution.BOTH)
        await world.settled()
        found = tree(world)
        assert sorted(found.values()) == ["one", "stranger's", "two"], found
        assert not [shown for shown in found if ".awayfs" in shown]
        assert await shown(world) == found
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


def test_another_client_never_shows_what_is_aside(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: SftpWorld) -> None:
        wanted = await begun(world, "of two directories")
        remote: Any = world.volume.link.remote
        monkeypatch.setattr(remote, "exchange", losing(remote.exchange))
        await world.drained()
        monkeypatch.undo()
        (tmp_path / "other").mkdir()
        other = Other(tmp_path / "other", server, world.share)
        try:
            await other.online()
            assert len([name for name in tree(world) if ".awayfs-" in name]) == 2
            assert await shown(other) == {}
            await world.settled()
            assert await shown(other) == tree(world) == wanted
            assert await shown(world) == wanted
        finally:
            await other.end()

    played(server, tmp_path, play)


class Other(SftpWorld):
    """Another machine on the same share."""

    client = "another"

    def __init__(self, tmp_path: Path, server: Sshd, share: Path) -> None:
        super().__init__(tmp_path, server)
        self.share = share
        self.store.close()
        self.open()


def test_what_the_server_refuses_is_taken_back(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of the two cannot be taken: the first has its name again."""

    async def play(world: SftpWorld) -> None:
        await begun(world, "of two directories")
        remote: Any = world.volume.link.remote
        moves = remote._parts.exchanger._moves
        take = moves.take

        async def refusing(path: bytes, own: bytes) -> Any:
            if path == b"e/g":
                raise Refused(13, "not you")
            return await take(path, own)

        monkeypatch.setattr(moves, "take", refusing)
        await world.drained()
        assert tree(world) == {"d/f": "one", "e/g": "two"}
        (conflict,) = world.store.conflicts.all()
        monkeypatch.undo()
        await world.volume.resolve(conflict, Resolution.LOCAL)
        await world.settled()
        assert tree(world) == {"d/f": "two", "e/g": "one"} == await shown(world)

    played(server, tmp_path, play)


def test_a_refusal_after_the_note_is_no_refusal_of_the_record(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has gone out: it ends when the server lets us."""

    async def play(world: SftpWorld) -> None:
        wanted = await begun(world, "files")
        remote: Any = world.volume.link.remote

        async def refusing(*_: object) -> None:
            raise Refused(13, "not now")

        monkeypatch.setattr(remote, "settle", refusing)
        await world.drained()
        await world.drained()
        assert not world.store.conflicts.count()
        assert sorted(tree(world).values()) == ["one", "two"]
        monkeypatch.undo()
        await world.settled()
        assert tree(world) == wanted == await shown(world)

    played(server, tmp_path, play)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    "steps",
    [
        ["f g", "g h"],
        ["f g", "g h", "f h"],
        ["f g", "f g"],
        ["f g", "g h", "h f", "f g"],
        ["d e", "d/in e/in"],
        ["f d", "d e", "d/in e"],
    ],
)
def test_chains_of_exchanges(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[str], cut: bool
) -> None:
    async def play(world: SftpWorld) -> None:
        for path in "f", "g", "h", "d/", "e/":
            put(world, path, "in " + path[0])
        await shown(world)
        for step in steps:
            await exchange(world, *step.split())
        wanted = await here(world)
        remote: Any = world.volume.link.remote
        for call in ("exchange", "settle", "exchange") if cut else ():
            monkeypatch.setattr(remote, call, losing(getattr(remote, call)))
            await world.online()
            await world.drained()
            monkeypatch.undo()
        await world.settled()
        assert tree(world) == wanted == await shown(world)
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


async def here(world: World) -> dict[str, str]:
    """What is shown, without asking the server: all of it is cached."""
    connected, world.volume.link.connected = world.volume.link.connected, None
    try:
        return await shown(world)
    finally:
        world.volume.link.connected = connected


@pytest.mark.parametrize("name", ["f", "g"])
def test_an_exchange_of_one_of_two_names_of_a_file(server: Sshd, tmp_path: Path, name: str) -> None:
    async def play(world: SftpWorld) -> None:
        put(world, "f", "one")
        put(world, "g", "two")
        node = await world.cached(name)
        await world.cached("f" if name == "g" else "g")
        world.volume.changes.link(node.id, ROOT, b"second")
        await exchange(world, "f", "g")
        await exchange(world, "second", "f")
        wanted = await here(world)
        await world.settled()
        assert tree(world) == wanted == await shown(world)
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


@pytest.mark.parametrize("edited", [("f",), ("g",), ("f", "g")])
def test_what_is_edited_just_before_goes_along(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: tuple[str, ...]
) -> None:
    """An exchange is about names: what somebody wrote since we looked has the other one, too."""

    async def play(world: SftpWorld) -> None:
        await begun(world, "files")
        remote: Any = world.volume.link.remote
        call = remote.exchange

        async def after_an_edit(*arguments: Any) -> Any:
            for name in edited:
                (world.share / name).write_text("edited " + name)
            return await call(*arguments)

        monkeypatch.setattr(remote, "exchange", after_an_edit)
        await world.settled()
        monkeypatch.undo()
        wanted = {
            "f": "edited g" if "g" in edited else "two",
            "g": "edited f" if "f" in edited else "one",
        }
        assert tree(world) == wanted
        await world.volume.observer.directory(ROOT)
        assert await shown(world) == wanted
        assert not world.store.conflicts.count()

    played(server, tmp_path, play)


# -- a directory whose file system has no RENAME_EXCHANGE either ---------------------------------


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("call", ["exchange", "settle"])
@pytest.mark.parametrize("nth", range(1, 5))
def test_the_same_with_a_kernel_client_that_has_no_such_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: str, call: str, nth: int
) -> None:
    probe = directory_probe.probe

    def lesser(*arguments: Any) -> Capabilities:
        return replace(probe(*arguments), exchange=False, guard=Guard.ASIDE)

    async def play(world: World) -> None:
        wanted = await begun(world, pair)
        remote: Any = world.volume.link.remote
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote, call, cutting(getattr(remote, call), nth))
            await world.drained()
        assert {"one", "two"} <= set(tree(world).values())
        for _ in range(2):
            await world.online()
            await world.drained()
        assert tree(world) == wanted == await shown(world)
        assert not world.store.conflicts.count() and not world.store.journal.count()

    monkeypatch.setattr(directory_probe, "probe", lesser)
    played_in_a_directory(tmp_path, play)

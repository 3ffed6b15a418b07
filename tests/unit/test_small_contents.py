"""Small contents go with their name, in one call, where there are no ids to know them by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, loses_next_answer, played

from awayfs.core.errors import Unreachable
from awayfs.core.types import ROOT, Kind
from awayfs.remotes.directory_facts import FileSystem
from awayfs.remotes.putting import LARGEST_PUT
from awayfs.store.nodes import Node
from awayfs.volume import small_contents


@pytest.fixture(autouse=True)
def without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)


def made(world: World, data: bytes, name: bytes = b"f") -> Node:
    node = world.volume.changes.create(ROOT, name, Kind.FILE, 0o640, os.getuid(), os.getgid())
    world.write(world.shown(node), 0, data)
    return node


def files(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in world.share.iterdir()}


class Calls:
    """Counts what goes by which call."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.put: list[bytes] = []
        self.staged: list[int] = []
        remote = world.volume.link.remote
        put, stage = remote.put, remote.stage

        async def counted(op: str, path: bytes, content: bytes, *rest: Any) -> Any:
            self.put.append(content)
            return await put(op, path, content, *rest)

        async def stages(op: str, directory: bytes, fd: int, size: int, *rest: Any) -> Any:
            self.staged.append(size)
            return await stage(op, directory, fd, size, *rest)

        monkeypatch.setattr(remote, "put", counted)
        monkeypatch.setattr(remote, "stage", stages)


@pytest.mark.parametrize("size", [0, 1, LARGEST_PUT, LARGEST_PUT + 1])
def test_what_is_small_goes_by_one_call(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        calls = Calls(world, monkeypatch)
        content = os.urandom(size)
        made(world, content)
        await world.drained()
        assert files(world) == {"f": content}
        assert calls.staged == [size]  # which a directory makes of it, too
        assert calls.put == ([content] if size <= LARGEST_PUT else [])
        assert (world.share / "f").stat().st_mode & 0o777 == 0o640

    played(tmp_path, play)


def test_what_is_open_for_writing_is_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was just made, say, and gets its content in a moment: nobody is to see it empty."""

    async def play(world: World) -> None:
        calls, remote = Calls(world, monkeypatch), world.volume.link.remote
        stage, node = remote.stage, world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, 0, 0)
        handle = world.volume.files.open(node, writing=True)

        async def written_meanwhile(*given: Any) -> Any:
            world.volume.files.write(handle, 0, b"content")
            return await stage(*given)

        monkeypatch.setattr(remote, "stage", written_meanwhile)
        world.volume.replay.wake()
        with world.volume.replay.urgently(node.id):
            await world.volume.replay._drain()
        assert not calls.put
        assert not files(world)
        monkeypatch.setattr(remote, "stage", stage)
        world.volume.files.close(handle)
        await world.drained()
        assert files(world) == {"f": b"content"}

    played(tmp_path, play)


def test_what_is_written_while_it_is_on_its_way_goes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        remote, node = world.volume.link.remote, made(world, b"first")
        put, sent = remote.put, list[bytes]()

        async def edited_meanwhile(op: str, path: bytes, content: bytes, *rest: Any) -> Any:
            sent.append(content)
            if len(sent) == 1:
                world.write(world.shown(node), 0, b"later")
            return await put(op, path, content, *rest)

        monkeypatch.setattr(remote, "put", edited_meanwhile)
        await world.drained()
        assert sent == [b"first", b"later"]
        assert files(world) == {"f": b"later"}
        assert not world.store.conflicts.count()

    played(tmp_path, play)


def test_what_changes_as_it_is_read_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program writes through a mapping, say: half of the one content is never sent."""

    async def play(world: World) -> None:
        node = made(world, b"x" * 100)
        path = world.store.content.fd_path(node.id)
        read = os.pread

        def torn(fd: int, length: int, offset: int) -> bytes:
            found = read(fd, length, offset)
            with open(path, "r+b") as file:
                file.write(b"y")
            os.utime(path)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(small_contents.os, "pread", torn)
            await world.drained()
        assert not files(world)
        assert not world.store.intents.all()
        world.write(world.shown(node), 0, b"y")
        await world.drained()
        assert files(world) == {"f": b"y" + b"x" * 99}

    played(tmp_path, play)


@pytest.mark.parametrize("later", [b"", b"here", b"other"])
def test_an_answer_that_is_lost_makes_no_conflict(later: bytes, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node = made(world, b"first")
        await world.drained()
        world.write(world.shown(node), 0, b"again")
        loses_next_answer(world, "put")
        await world.drained()
        assert files(world) == {"f": b"again"}
        assert not world.volume.link.usable
        if later:
            world.write(world.shown(node), 0, later)
        await world.online()
        await world.drained()
        assert files(world) == {"f": later.ljust(5, b"n") if later else b"again"}
        assert not world.store.conflicts.count()
        assert not world.store.journal.count()

    played(tmp_path, play)


def test_after_a_lost_answer_the_edit_of_somebody_else_is_a_conflict(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node = made(world, b"first")
        loses_next_answer(world, "put")
        await world.drained()
        times = (world.share / "f").stat()
        (world.share / "f").write_bytes(b"other")
        os.utime(world.share / "f", ns=(times.st_atime_ns, times.st_mtime_ns))
        world.write(world.shown(node), 0, b"later")
        await world.online()
        await world.drained()
        assert world.store.conflicts.count() == 1
        assert files(world) == {"f": b"other"}

    played(tmp_path, play)


def test_a_daemon_that_dies_before_the_call_sends_it_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        made(world, b"first")

        async def never(*_given: Any) -> Any:
            raise Unreachable("it died")

        monkeypatch.setattr(world.volume.link.remote, "put", never)
        await world.drained()
        assert [stage for _, _, stage in world.store.intents.all()] == ["putting"]
        world.die()
        world.open()
        await world.online()
        await world.drained()
        assert files(world) == {"f": b"first"}
        assert not world.store.journal.count()
        assert not world.store.conflicts.count()

    played(tmp_path, play)

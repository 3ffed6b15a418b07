"""Small contents that go together: what one of them meets is its own affair."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_small_contents import files, made
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import NotFound, Refused, Unreachable
from awayfs.core.records import RecordState
from awayfs.core.types import ROOT
from awayfs.remotes.directory_facts import FileSystem
from awayfs.store.nodes import Node
from awayfs.volume import replay_batches

NAMES = tuple(b"f%d" % n for n in range(6))
ONE = NAMES[2]
OLD_S = 1_400_000_000


@pytest.fixture(autouse=True)
def without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)
    monkeypatch.setattr(FileSystem, "settled_in_ns", lambda *_: 0)


async def changed(world: World, there: bool) -> dict[bytes, Node]:
    """Files that are made here, or that are ``there`` and were edited here."""
    if not there:
        return {name: made(world, b"our " + name, name) for name in NAMES}
    for name in NAMES:
        path = world.share / name.decode()
        path.write_bytes(b"old")
        os.utime(path, (OLD_S, OLD_S))
    found = {name: await world.cached(name.decode()) for name in NAMES}
    for name, node in found.items():
        world.write(node, 0, b"our " + name)
    return found


def wanted() -> dict[str, bytes]:
    return {name.decode(): b"our " + name for name in NAMES}


async def settled(world: World) -> None:
    for _ in range(4):
        if not world.volume.link.usable:
            await world.online()
        await world.drained()
    assert not world.store.journal.count()
    assert not world.store.intents.all()


class Server:
    """Something happens once as an upload of ``ONE`` begins, or ``after`` it, among others."""

    def __init__(
        self, world: World, happens: Callable[[], object], *, after: bool, monkeypatch: Any
    ) -> None:
        self.together: list[int] = []
        remote, left = world.volume.link.remote, [happens]
        put, put_many = remote.put, remote.put_many

        async def meets(op: str, path: bytes, *given: Any) -> Any:
            outcome = await put(op, path, *given) if after else None
            if path == ONE and left:
                left.pop()()
            return outcome if after else await put(op, path, *given)

        async def counts(puts: Any) -> Any:
            self.together.append(len(puts))
            return await put_many(puts)

        monkeypatch.setattr(remote, "put", meets)
        monkeypatch.setattr(remote, "put_many", counts)


def raising(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


BOTH = pytest.mark.parametrize("there", [False, True])
ERRORS = [Unreachable("x"), NotFound("x"), OSError(errno.EIO, "x"), ValueError("x")]


def test_what_cannot_even_be_decided_on_keeps_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = replay_batches.decide

    def decides(facts: Any) -> Any:
        if facts.record.name == ONE:
            raise ValueError("a bug")
        return decide(facts)

    monkeypatch.setattr(replay_batches, "decide", decides)

    async def play(world: World) -> None:
        await changed(world, there=False)
        await world.drained()
        assert files(world) == wanted()

    played(tmp_path, play)


@BOTH
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_one_of_them_raises_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, after: bool, there: bool
) -> None:
    async def play(world: World) -> None:
        server = Server(world, raising(error), after=after, monkeypatch=monkeypatch)
        await changed(world, there)
        await world.drained()
        assert max(server.together) > 1
        await settled(world)
        assert files(world) == wanted()

    played(tmp_path, play)


@BOTH
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_one_of_them_is_refused_is_done_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, there: bool
) -> None:
    async def play(world: World) -> None:
        refused = raising(Refused(code, "no"))
        Server(world, refused, after=False, monkeypatch=monkeypatch)
        await changed(world, there)
        await world.drained()
        found, expected = files(world), wanted()
        if code == errno.ENOSPC:
            await settled(world)
            found = files(world)
        else:
            assert world.store.journal.counts()[RecordState.PARKED]
            del expected[ONE.decode()]
        assert {name: found.get(name) for name in expected} == expected

    played(tmp_path, play)


@BOTH
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("act", ["write", "grow", "truncate", "unlink", "rename"])
def test_what_is_done_to_one_meanwhile_goes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, after: bool, there: bool
) -> None:
    async def play(world: World) -> None:
        expected = wanted()

        def acts() -> None:
            node, name = world.shown(nodes[ONE]), ONE.decode()
            if act == "unlink":
                world.volume.changes.unlink(ROOT, ONE)
                del expected[name]
            elif act == "rename":
                world.volume.changes.rename(ROOT, ONE, ROOT, b"g", 0)
                expected["g"] = expected.pop(name)
            else:
                data = {"write": b"new", "grow": b"new" * 30_000, "truncate": b""}[act]
                world.volume.files.truncate(node, 0)
                world.write(world.shown(node), 0, data)
                expected[name] = data

        Server(world, acts, after=after, monkeypatch=monkeypatch)
        nodes = await changed(world, there)
        await world.drained()
        await settled(world)
        assert files(world) == expected

    played(tmp_path, play)

"""Small contents that go to the server together: each has an outcome of its own."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import NotFound, Refused, Unreachable
from awayfs.core.records import RecordState
from awayfs.core.types import ROOT, Kind
from awayfs.ports.remote import Put
from awayfs.remotes.directory_facts import FileSystem
from awayfs.store.nodes import Node
from awayfs.volume import replay_batches
from awayfs.volume.versions import Torn

COUNT = 5
OLD_S = 1_500_000_000


@pytest.fixture(autouse=True)
def without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)
    monkeypatch.setattr(FileSystem, "settled_in_ns", lambda *_: 0)


def name(number: int) -> str:
    return f"f{number}"


def content(number: int) -> bytes:
    return b"content of %d" % number


def made(world: World, count: int = COUNT, directory: int = ROOT) -> list[Node]:
    """New files, while the server is away."""
    nodes = []
    for number in range(count):
        given = os.fsencode(name(number)), Kind.FILE, 0o640, os.getuid(), os.getgid()
        node = world.volume.changes.create(directory, *given)
        world.write(world.shown(node), 0, content(number))
        nodes.append(node)
    return nodes


def there(world: World) -> dict[str, bytes]:
    found = (path for path in world.share.rglob("*") if path.is_file())
    return {os.fspath(path.relative_to(world.share)): path.read_bytes() for path in found}


def wanted(count: int = COUNT) -> dict[str, bytes]:
    return {name(number): content(number) for number in range(count)}


class Watched:
    """How many went in each call, and what happens to one of them."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.alone: list[bytes] = []
        self.trouble: dict[bytes, Callable[[], None]] = {}
        remote: Any = world.volume.link.remote
        put_many, put = remote.put_many, remote.put
        self._inside = False

        async def many(puts: Sequence[Put]) -> Any:
            self.sizes.append(len(puts))
            self._inside = True
            try:
                return await put_many(puts)
            finally:
                self._inside = False

        async def one(op: str, path: bytes, *rest: Any) -> Any:
            if not self._inside:
                self.alone.append(path)
            if path in self.trouble:
                self.trouble.pop(path)()
            return await put(op, path, *rest)

        monkeypatch.setattr(remote, "put_many", many)
        monkeypatch.setattr(remote, "put", one)


async def back(world: World) -> None:
    await world.volume.link.online_by_hand()
    await world.drained()


def raises(error: Exception) -> Callable[[], None]:
    def trouble() -> None:
        raise error

    return trouble


def test_what_is_new_and_what_is_edited_goes_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        (world.share / "old").write_bytes(b"before")
        os.utime(world.share / "old", (OLD_S, OLD_S))
        node = await world.cached("old")
        world.volume.link.offline_by_hand()
        world.write(node, 0, b"edited")
        made(world, replay_batches.MOST)
        await back(world)
        assert there(world) == {**wanted(replay_batches.MOST), "old": b"edited"}
        assert watched.sizes == [replay_batches.MOST] and len(watched.alone) == 1
        assert not world.store.journal.count() and not world.store.intents.all()
        for path, data in there(world).items():
            found = await world.find(path)
            base = world.store.server.get(found.id)
            assert base is not None and base.token == world.store.content.token(found.id)
            assert base.size == len(data)

    played(tmp_path, play)


def test_what_somebody_has_open_goes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        world.volume.link.offline_by_hand()
        nodes = made(world)
        handle = world.volume.files.open(world.shown(nodes[0]), writing=False)
        await back(world)
        world.volume.files.close(handle)
        assert there(world) == wanted()
        assert watched.sizes == [COUNT - 1] and watched.alone == [b"f0"]

    played(tmp_path, play)


def test_over_a_weak_link_each_goes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        world.volume.link.offline_by_hand()
        made(world)
        world.volume.link.set_metered(True)
        await back(world)
        assert there(world) == wanted()
        assert not watched.sizes and len(watched.alone) == COUNT

    played(tmp_path, play)


def test_one_that_is_refused_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        watched.trouble[b"f2"] = raises(Refused(errno.EACCES, "no"))
        world.volume.link.offline_by_hand()
        nodes = made(world)
        await back(world)
        assert watched.sizes == [COUNT]
        assert there(world) == {path: data for path, data in wanted().items() if path != "f2"}
        assert world.store.journal.of_node(nodes[2].id)[0].state is RecordState.PARKED
        assert world.store.conflicts.of_node(nodes[2].id)
        assert not world.store.journal.of_node(nodes[3].id)

    played(tmp_path, play)


def test_one_whose_name_was_taken_is_a_conflict_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        world.volume.link.offline_by_hand()
        nodes = made(world)
        (world.share / "f1").write_bytes(b"theirs")
        await back(world)
        assert watched.sizes == [COUNT]
        assert there(world) == {**wanted(), "f1": b"theirs"}
        assert [c.node for c in world.store.conflicts.all()] == [nodes[1].id]
        assert world.store.intents.all() == []

    played(tmp_path, play)


def test_one_that_is_edited_on_both_sides_is_a_conflict_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        nodes = []
        for number in range(COUNT):
            (world.share / name(number)).write_bytes(b"before")
            os.utime(world.share / name(number), (OLD_S, OLD_S))
            nodes.append(await world.cached(name(number)))
        world.volume.link.offline_by_hand()
        for number, node in enumerate(nodes):
            world.write(node, 0, content(number))
        (world.share / "f3").write_bytes(b"theirs, meanwhile")
        await back(world)
        assert watched.sizes == [COUNT]
        assert there(world) == {**wanted(), "f3": b"theirs, meanwhile"}
        assert [c.node for c in world.store.conflicts.all()] == [nodes[3].id]

    played(tmp_path, play)


def test_those_in_a_directory_that_is_gone_bring_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        (world.share / "d").mkdir()
        directory = await world.find("d")
        await world.volume.observer.directory(directory.id)
        world.volume.link.offline_by_hand()
        made(world, directory=directory.id)
        (world.share / "d").rmdir()
        await back(world)
        assert watched.sizes[0] == COUNT
        assert there(world) == {f"d/{path}": data for path, data in wanted().items()}
        assert not world.store.journal.count()

    played(tmp_path, play)


def test_one_that_is_written_to_at_the_wrong_moment_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched, small = Watched(world, monkeypatch), world.volume.replay.steps._actor.puts._small
        world.volume.link.offline_by_hand()
        nodes, read, torn = made(world), small.read, [1]

        def tearing(node: int, mode: int | None) -> Any:
            if node == nodes[1].id and torn:
                torn.pop()
                raise Torn
            return read(node, mode)

        monkeypatch.setattr(small, "read", tearing)
        await back(world)
        await world.drained()
        assert watched.sizes[0] == COUNT - 1 and not torn
        assert there(world) == wanted()

    played(tmp_path, play)


def test_one_whose_record_is_gone_by_then_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        puts: Any = world.volume.replay.steps._actor.puts
        send_all, journal = puts.send_all, world.store.journal

        async def gone(loads: Any) -> Any:
            monkeypatch.setattr(puts, "send_all", send_all)
            journal.remove(journal.seqs_of(loads[1].record.node))
            return await send_all(loads)

        monkeypatch.setattr(puts, "send_all", gone)
        world.volume.link.offline_by_hand()
        nodes = made(world)
        await back(world)
        assert there(world) == {path: data for path, data in wanted().items() if path != "f1"}
        assert not journal.count() and not world.store.intents.all()
        assert not [node for node in nodes if world.volume.context.failures.of(node.id)]

    played(tmp_path, play)


@pytest.mark.parametrize("through", range(COUNT + 1))
def test_a_link_that_is_cut_amid_a_batch_leaves_no_trace(
    through: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some were put, and nobody heard of any."""

    async def play(world: World) -> None:
        remote: Any = world.volume.link.remote
        put_many = remote.put_many

        async def cut(puts: Sequence[Put]) -> Any:
            monkeypatch.setattr(remote, "put_many", put_many)
            await put_many(puts[:through])
            raise Unreachable("cut")

        world.volume.link.offline_by_hand()
        made(world)
        monkeypatch.setattr(remote, "put_many", cut)
        await back(world)
        assert not world.volume.link.usable
        assert len(world.store.intents.all()) == COUNT
        await back(world)
        assert there(world) == wanted()
        assert not world.store.journal.count() and not world.store.conflicts.all()

    played(tmp_path, play)


def test_an_answer_that_the_server_is_away_is_heard_of_one_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        watched.trouble[b"f2"] = raises(Unreachable("gone"))
        world.volume.link.offline_by_hand()
        nodes = made(world)
        await back(world)
        assert not world.volume.link.usable
        (seq,) = [seq for seq, _, _ in world.store.intents.all()]
        assert seq == world.store.journal.of_node(nodes[2].id)[0].seq
        await back(world)
        assert there(world) == wanted() and not world.store.conflicts.all()

    played(tmp_path, play)


def test_one_whose_directory_is_not_there_is_looked_at_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        watched = Watched(world, monkeypatch)
        watched.trouble[b"f0"] = raises(NotFound("its directory, it seems"))
        world.volume.link.offline_by_hand()
        made(world)
        await back(world)
        assert watched.sizes == [COUNT] and not watched.trouble
        assert there(world) == wanted() and not world.store.journal.count()

    played(tmp_path, play)


def test_those_that_cannot_be_written_down_together_are_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        committer: Any = world.volume.replay.steps._committer
        commit = committer.commit

        async def failing(*through: Any) -> None:
            if len(through) > 1:
                raise OSError(errno.EIO, "one of them cannot be written down")
            await commit(*through)

        monkeypatch.setattr(committer, "commit", failing)
        world.volume.link.offline_by_hand()
        made(world)
        await back(world)
        assert there(world) == wanted()
        assert not world.store.journal.count() and not world.store.intents.all()

    played(tmp_path, play)


def test_a_full_disk_here_freezes_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        freezer: Any = world.volume.replay.steps._actor.freezer
        freeze_all = freezer.freeze_all

        def full(*_given: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        world.volume.link.offline_by_hand()
        made(world)
        monkeypatch.setattr(freezer, "freeze_all", full)
        await back(world)
        assert not there(world) and not world.store.intents.all()
        assert {record.state for record in world.store.journal.all()} == {RecordState.PENDING}
        monkeypatch.setattr(freezer, "freeze_all", freeze_all)
        await world.drained()
        assert there(world) == wanted() and not world.store.journal.count()

    played(tmp_path, play)


def test_a_conflict_that_takes_long_holds_up_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows one of them goes on, while the server's variant of another is fetched, say."""

    async def play(world: World) -> None:
        parking: Any = world.volume.replay.steps._parking
        conflict, go_on = parking.conflict, asyncio.Event()

        async def slow(*given: Any) -> None:
            await go_on.wait()
            await conflict(*given)

        monkeypatch.setattr(parking, "conflict", slow)
        world.volume.link.offline_by_hand()
        nodes = made(world)
        (world.share / "f1").write_bytes(b"theirs")
        world.volume.changes.link(nodes[2].id, ROOT, b"other")
        await world.volume.link.online_by_hand()
        world.volume.replay.hurry()
        draining = asyncio.ensure_future(world.volume.replay._drain())
        while not (world.share / "other").exists():
            assert not draining.done()
            await asyncio.sleep(0.01)
        assert not go_on.is_set() and not world.store.conflicts.all()
        go_on.set()
        await asyncio.wait_for(draining, 20)
        assert [c.node for c in world.store.conflicts.all()] == [nodes[1].id]

    played(tmp_path, play)

"""A file that may be written to through a mapping, which nobody tells us of.

The handle stands for a program that opened the file O_RDWR beside a passthrough reader; its
mapping is of the cache file, as the kernel has it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import UsageError
from awayfs.core.records import RecordKind, RecordState
from awayfs.core.types import ROOT
from awayfs.store.nodes import Node
from awayfs.volume.files import FileHandle

SIZE = 100_000


async def opened(world: World, name: str) -> tuple[Node, FileHandle, FileHandle]:
    """A file with a passthrough reader, and a writer that may map it."""
    (world.share / name).write_bytes(b"a" * SIZE)
    file = await world.cached(name)
    reader = world.volume.files.open(world.shown(file), writing=False)
    reader.opened.passthrough = 7
    writer = world.volume.files.open(world.shown(file), writing=True)
    world.volume.files.note_mappable(writer)
    return file, reader, writer


@contextmanager
def mapped(handle: FileHandle) -> Iterator[mmap.mmap]:
    with mmap.mmap(handle.opened.fd, SIZE) as memory:
        yield memory


async def passes(world: World) -> None:
    """Replay without hurry, until nothing moves."""
    await asyncio.wait_for(world.volume.replay._drain(), 60)


def stores(world: World, file: Node) -> list[RecordState]:
    records = world.store.journal.of_node(file.id)
    return [record.state for record in records if record.kind is RecordKind.STORE]


def test_a_mapped_file_waits_and_is_followed_when_it_is_sent(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        file, reader, writer = await opened(world, "f")
        there = world.share / "f"
        with mapped(writer) as memory:
            memory[:3] = b"one"
            await passes(world)
            assert there.read_bytes() == b"a" * SIZE, "sent though nobody asked for it"
            await world.drained()
            assert there.read_bytes()[:3] == b"one"
            assert stores(world, file) == [RecordState.PENDING]
            memory[:3] = b"two"
            await passes(world)
            assert there.read_bytes()[:3] == b"one", "sent again and again"
        for handle in (writer, reader):
            world.volume.files.close(handle)
        await passes(world)
        assert there.read_bytes()[:3] == b"two"
        assert stores(world, file) == [] and world.store.conflicts.all() == []

    played(tmp_path, play)


def test_what_was_mapped_when_the_daemon_died_in_an_upload_is_sent(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        _, _, writer = await opened(world, "f")
        replace = world.volume.link.remote.replace

        async def dying(*args: object) -> object:
            await replace(*args)
            with mapped(writer) as memory:
                memory[:3] = b"two"
            raise asyncio.CancelledError

        world.volume.link.remote.replace = dying  # type: ignore[method-assign, assignment]
        with mapped(writer) as memory:
            memory[:3] = b"one"
        await world.drained()
        assert (world.share / "f").read_bytes()[:3] == b"one"
        world.die()
        world.open()
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes()[:3] == b"two"
        assert world.store.journal.count() == 0 and world.store.conflicts.all() == []

    played(tmp_path, play)


def test_what_waits_behind_a_mapped_file_is_sent(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        file, reader, writer = await opened(world, "f")
        world.volume.changes.rename(ROOT, b"f", ROOT, b"g", 0)
        await passes(world)
        assert os.listdir(world.share) == ["g"]
        assert stores(world, file) == [RecordState.PENDING]
        for handle in (writer, reader):
            world.volume.files.close(handle)
        await passes(world)
        assert world.store.journal.count() == 0

    played(tmp_path, play)


def test_a_write_that_is_seen_takes_what_is_mapped_along(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        file, _, writer = await opened(world, "f")
        world.volume.files.write(writer, 3, b"told")
        writer.opened.written_ns -= 3_000_000_000  # it has been quiet since
        world.store.db.execute("UPDATE journal SET at_ns = at_ns - 4000000000")
        await passes(world)
        assert (world.share / "f").read_bytes()[3:7] == b"told"
        assert stores(world, file) == [RecordState.PENDING]

    played(tmp_path, play)


def test_who_waits_for_a_mapped_file_does_not_wait_for_ever(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        file, _, writer = await opened(world, "f")
        replay = world.volume.replay
        running = asyncio.ensure_future(replay.run())
        with mapped(writer) as memory:
            memory[:3] = b"one"
            await asyncio.wait_for(world.volume.sent(file.id), 30)
            assert (world.share / "f").read_bytes()[:3] == b"one"
            memory[:3] = b"two"
            await asyncio.wait_for(world.volume.all_sent(), 30)
            assert (world.share / "f").read_bytes()[:3] == b"two"
        for _ in range(100):
            if not replay.active and not replay._woken.is_set():
                break
            await asyncio.sleep(0.05)
        progress = replay.progress()
        assert (progress.records, progress.mapped, progress.stuck) == (1, 1, False)
        assert progress.over
        world.volume.link.offline_by_hand()
        progress = replay.progress()
        assert (progress.mapped, progress.over) == (0, False), "it waits for the server then"
        running.cancel()

    played(tmp_path, play)


@pytest.mark.parametrize("way", ["server", "both"])
def test_what_is_mapped_is_not_given_up_unseen(way: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        file, reader, writer = await opened(world, "f")
        with mapped(writer) as memory:
            memory[:3] = b"one"
            (world.share / "f").write_bytes(b"theirs")
            await world.drained()
            (conflict,) = world.store.conflicts.of_node(file.id)
            with pytest.raises(UsageError, match="mapping"):
                await world.volume.deciding.keep(conflict.id, way)
            memory[:3] = b"two"
        assert world.store.conflicts.of_node(file.id)
        for handle in (writer, reader):
            world.volume.files.close(handle)
        await world.volume.deciding.keep(conflict.id, way)
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs"
        path = world.store.history.content_path(world.store.history.all()[-1].id)
        assert Path(path).read_bytes()[:3] == b"two"

    played(tmp_path, play)

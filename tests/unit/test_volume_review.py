"""The live volume in one process, on a directory: what single steps must never do.

No mount and no worker: the store, the volume and ``DirectoryRemote`` on one event loop, so that
a server can change, a disk can be full, or a daemon can end between any two steps.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import ECONFLICTED, RemoteError, Unreachable, UsageError
from awayfs.core.modes import Mode, ModeState
from awayfs.core.records import RecordKind, RecordState
from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.fuse import requests as rq
from awayfs.fuse.bridge_names import NameHandlers
from awayfs.fuse.bridge_shared import Shared
from awayfs.remotes.directory import DirectoryRemote
from awayfs.store.nodes import Node
from awayfs.store.store import Store
from awayfs.testing.fake_replies import DirectoryEntry, directory_of
from awayfs.volume import files as files_module
from awayfs.volume.context import Context, VolumeOptions
from awayfs.volume.files import FileHandle
from awayfs.volume.link import Link
from awayfs.volume.recover import recover
from awayfs.volume.volume import Volume


class World:
    """A volume, and the directory that is its server."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.share = tmp_path / "share"
        self.share.mkdir(exist_ok=True)
        self.state = str(tmp_path / "state")
        self.options = VolumeOptions(fresh_s=0.0, uid=os.getuid(), gid=os.getgid(), **options)
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.state, create=True)
        recover(self.store, time.time_ns())
        remote = DirectoryRemote(os.fsencode(self.share))
        link = Link(remote, time.time_ns, ModeState(Mode.DISCONNECTED, cause="starting"))
        context = Context(self.store, link, self.options, time.time_ns)
        self.volume = Volume(context, "testclient")

    def die(self) -> None:
        """The daemon is killed: nothing is saved, the files and the database stay as they are."""
        left = self.state + "+"
        shutil.copytree(self.state, left)
        for opened in self.volume.context.opened.all():
            os.close(opened.fd)
        self.store.db.close()
        self.store._lock.release()
        self.state = left

    async def end(self) -> None:
        await self.volume.stop()
        self.store.close()

    async def online(self) -> None:
        await self.volume.link.connect()

    async def find(self, path: str) -> Node:
        return await self.volume.find(os.fsencode(path))

    async def read(self, handle: FileHandle, offset: int, size: int) -> bytes:
        found = self.volume.files.read(handle, offset, size)
        return found if isinstance(found, bytes) else await found

    async def cached(self, path: str) -> Node:
        node = await self.find(path)
        await self.volume.fetcher.whole(node.id)
        return node

    def write(self, node: Node, offset: int, data: bytes) -> None:
        handle = self.volume.files.open(node, writing=True)
        self.volume.files.write(handle, offset, data)
        self.volume.files.close(handle)

    def shown(self, node: Node) -> Node:
        found = self.volume.context.node(node.id)
        assert found is not None
        return found

    async def drained(self, seconds: float = 60.0) -> None:
        """Replay until nothing moves any more."""
        self.volume.replay.hurry()
        await asyncio.wait_for(self.volume.replay._drain(), seconds)


Play = Callable[[World], Coroutine[Any, Any, None]]


def played(tmp_path: Path, play: Play, **options: Any) -> None:
    """Run one story in a fresh world."""

    async def run() -> None:
        world = World(tmp_path, **options)
        try:
            await world.online()
            await play(world)
        finally:
            await world.end()

    asyncio.run(run())


def loses_next_answer(world: World, call: str) -> None:
    """The server carries the next such call out, and nobody hears of it."""
    remote: Any = world.volume.link.remote
    sent = getattr(remote, call)

    async def lost(*arguments: Any) -> Any:
        setattr(remote, call, sent)
        await sent(*arguments)
        raise Unreachable("the answer is lost")

    setattr(remote, call, lost)


def parked(
    world: World, node: Node, kind: RecordKind, conflict: ConflictKind, **fields: Any
) -> Any:
    """A parked record of a node, and the conflict about it."""
    store = world.store
    record = store.journal.append(kind, node.id, **fields)
    store.journal.set_state(record.seq, RecordState.PARKED, "a test")
    parent, name = store.nodes.names(node.id)[0]
    base = store.server.get(node.id)
    return store.conflicts.add(
        node.id,
        conflict,
        parent,
        name,
        time.time_ns(),
        record_seqs=(record.seq,),
        server_entry=base.entry() if base else None,
    )


# -- work that nobody gave up is kept --------------------------------------------------------


def test_taking_the_servers_rights_of_a_directory_keeps_the_work_in_it(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d" / "f").write_bytes(b"theirs")
        directory, file = await world.find("d"), await world.cached("d/f")
        conflict = parked(
            world,
            directory,
            RecordKind.SETATTR,
            ConflictKind.REFUSED,
            attributes=Attributes(mode=0o700),
        )
        world.write(file, 0, b"edited")
        await world.volume.resolve(conflict, Resolution.SERVER)
        assert world.store.journal.has_store(file.id), "the unsent edit was dropped"
        await world.drained()
        assert (world.share / "d" / "f").read_bytes() == b"edited"

    played(tmp_path, play)


def test_taking_the_servers_rights_of_a_file_keeps_its_edit(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        mode = (world.share / "f").stat().st_mode & 0o777
        file = await world.cached("f")
        changes = world.volume.changes
        changes.set_attributes(file.id, Attributes(mode=0o700))
        for record in world.store.journal.of_node(file.id):
            world.store.journal.remove([record.seq])
        conflict = parked(
            world,
            file,
            RecordKind.SETATTR,
            ConflictKind.REFUSED,
            attributes=Attributes(mode=0o700),
        )
        world.write(file, 0, b"edited")
        await world.volume.resolve(conflict, Resolution.SERVER)
        await world.drained()
        assert (world.share / "f").read_bytes() == b"edited"
        assert world.shown(file).mode == mode

    played(tmp_path, play)


SINCE = ["", "open", "xattr", "chmod", "utimes"]
"""What is the case, or was done, when the content goes out."""


@pytest.mark.parametrize("since", SINCE)
def test_content_that_goes_out_leaves_the_mode_that_was_set_on_the_server(
    since: str, tmp_path: Path
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        file, changes = await world.cached("f"), world.volume.changes
        handle = world.volume.files.open(file, writing=True)
        world.volume.files.write(handle, 0, b"ours")
        if since != "open":
            world.volume.files.close(handle)
        if since == "xattr":
            changes.set_xattr(file.id, b"user.ours", b"1", 0)
        elif since == "chmod":
            changes.set_attributes(file.id, Attributes(mode=0o640))
        elif since == "utimes":
            changes.set_attributes(file.id, Attributes(mtime_ns=10**18))
        (world.share / "f").chmod(0o600)
        await world.drained()
        assert (world.share / "f").stat().st_mode & 0o777 == 0o600
        if since == "open":
            world.volume.files.close(handle)
            await world.drained()
        await world.volume.observer.directory(ROOT)
        assert (world.share / "f").read_bytes() == b"oursrs"
        assert (world.share / "f").stat().st_mode & 0o777 == 0o600
        is_conflict = since == "chmod"
        assert world.shown(file).mode == (0o640 if is_conflict else 0o600)
        assert [one.kind for one in world.store.conflicts.all()] == ["attribute"] * is_conflict

    played(tmp_path, play)


def test_a_time_that_is_given_up_while_the_file_is_open_shows_no_more(tmp_path: Path) -> None:
    """It was that of content that the server has replaced since."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"before")
        file = await world.cached("f")
        handle = world.volume.files.open(file, writing=False)
        world.volume.changes.set_attributes(file.id, Attributes(mtime_ns=10**18))
        (world.share / "f").write_bytes(b"theirs")
        await world.volume.observer.directory(ROOT)
        await world.drained()
        world.volume.files.close(handle)
        await world.volume.observer.directory(ROOT)
        assert world.shown(file).mtime_ns == (world.share / "f").stat().st_mtime_ns

    played(tmp_path, play)


def test_giving_up_a_link_keeps_the_edit_of_the_file(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        (world.share / "g").write_bytes(b"a stranger")
        file = await world.cached("f")
        world.volume.changes.link(file.id, ROOT, b"h")
        (record,) = world.store.journal.of_node(file.id)
        world.store.journal.set_state(record.seq, RecordState.PARKED, "a test")
        conflict = world.store.conflicts.add(
            file.id, ConflictKind.NAME_NAME, ROOT, b"h", 1, record_seqs=(record.seq,)
        )
        world.write(file, 0, b"edited")
        world.volume.changes.rename(ROOT, b"h", ROOT, b"i", 0)
        await world.volume.resolve(conflict, Resolution.SERVER)
        assert [name for _, name in world.store.nodes.names(file.id)] == [b"f"]
        await world.drained()
        assert (world.share / "f").read_bytes() == b"edited"
        assert sorted(os.listdir(world.share)) == ["f", "g"]

    played(tmp_path, play)


def test_parts_of_two_revisions_are_never_put_together(tmp_path: Path) -> None:
    """Keep local, of a partly cached file: what is missing went with the old revision."""

    async def play(world: World) -> None:
        old, new = b"o" * 300_000, b"n" * 300_000
        (world.share / "f").write_bytes(old)
        file = await world.find("f")
        await world.volume.fetcher.ensure(file.id, 0, 4096)
        world.write(file, 0, b"mine")
        (world.share / "f").write_bytes(new)
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(file.id)
        with pytest.raises(UsageError):
            await world.volume.resolve(conflict, Resolution.LOCAL)
        await world.drained()
        assert (world.share / "f").read_bytes() == new
        await world.volume.resolve(conflict, Resolution.SERVER)
        await world.cached("f")
        assert not world.store.conflicts.of_node(file.id)

    played(tmp_path, play)


def test_a_write_into_what_was_never_read_is_not_put_over_another_revision(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"o" * 300_000)
        file = await world.find("f")
        world.write(file, 0, b"mine")
        (world.share / "f").write_bytes(b"n" * 300_000)
        base = await world.volume.link.remote.stat(b"f")
        world.store.server.set(file.id, base, seen_ns=0)  # as if somebody took it for the base
        with pytest.raises(OSError) as caught:
            await world.volume.fetcher.whole(file.id)
        assert caught.value.errno == ECONFLICTED

    played(tmp_path, play)


def test_a_truncation_that_was_cut_off_never_makes_content_of_holes(tmp_path: Path) -> None:
    """Only the head and the tail were cached; the file is cut to its head, and the daemon dies."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"x" * 300_000)
        file = await world.find("f")
        await world.volume.fetcher.ensure(file.id, 0, 4096)
        await world.volume.fetcher.ensure(file.id, 290_000, 300_000)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files_module, "fault", _killed_when_written)
            with pytest.raises(Killed):
                world.volume.files.truncate(world.shown(file), 4096)
        world.die()
        world.open()
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes() in (b"x" * 4096, b"x" * 300_000)

    played(tmp_path, play)


class Killed(BaseException):
    """The process ends here."""


def _killed_when_written(point: str) -> None:
    if point == "files.written":
        raise Killed


def test_an_exchange_happens_whole_or_not_at_all(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"a")
        (world.share / "b").write_bytes(b"b")
        a, b = await world.find("a"), await world.find("b")
        changes, count = world.volume.changes, 0
        real = world.store.nodes.move_name

        def failing(*args: Any) -> None:
            nonlocal count
            count += 1
            if count == 2:
                raise OSError(errno.ENOSPC, "full")
            real(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store.nodes, "move_name", failing)
            with pytest.raises(OSError):
                changes.rename(ROOT, b"a", ROOT, b"b", 2)
        names = dict(world.volume.tree.entries(ROOT))
        assert {name: node.id for name, node in names.items()} == {b"a": a.id, b"b": b.id}

    played(tmp_path, play)


def test_a_nameless_file_takes_its_xattrs_to_the_server(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        changes = world.volume.changes
        node = changes.unnamed(ROOT, 0o644, os.getuid(), os.getgid())
        changes.set_xattr(node.id, b"user.kept", b"yes", 0)
        changes.link(node.id, ROOT, b"f")
        await world.drained()
        try:
            assert os.getxattr(world.share / "f", b"user.kept") == b"yes"
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                pytest.skip("no extended attributes here")
            raise

    played(tmp_path, play)


def test_undoing_a_rename_never_takes_the_work_with_it(tmp_path: Path) -> None:
    """The old name is taken here meanwhile: there is no place to go back to."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d" / "f").write_bytes(b"theirs")
        directory, file = await world.find("d"), await world.cached("d/f")
        world.volume.changes.rename(ROOT, b"d", ROOT, b"e", 0)
        (record,) = world.store.journal.of_node(directory.id)
        world.store.journal.set_state(record.seq, RecordState.PARKED, "a test")
        conflict = world.store.conflicts.add(
            directory.id, ConflictKind.RENAME_RENAME, ROOT, b"e", 1, record_seqs=(record.seq,)
        )
        world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        world.write(file, 0, b"edited")
        with pytest.raises(UsageError):
            await world.volume.resolve(conflict, Resolution.SERVER)
        assert world.store.journal.has_store(file.id)
        assert world.store.nodes.path(file.id) == b"e/f"

    played(tmp_path, play)


# -- what is shown is what is there ----------------------------------------------------------


def test_the_size_follows_content_that_was_outdated_while_the_kernel_read_it(
    tmp_path: Path,
) -> None:
    """A passthrough reader keeps the old content open; the mount ends before it closes."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"a" * 100_000)
        file = await world.cached("f")
        handle = world.volume.files.open(world.shown(file), writing=False)
        handle.opened.passthrough = 7
        (world.share / "f").write_bytes(b"b" * 200_000)
        for _ in range(50):
            await world.volume.observer.directory(ROOT)
            seen = world.store.server.get(file.id)
            if seen is not None and not seen.weak:
                break
            await asyncio.sleep(0.1)
        world.die()
        world.open()
        await world.online()
        wait = world.volume.tree.freshen(file.id)
        if wait is not None:
            await wait
        handle = world.volume.files.open(world.shown(file), writing=False)
        assert world.shown(file).size == 200_000
        assert await world.read(handle, 0, 300_000) == b"b" * 200_000
        world.volume.files.close(handle)

    played(tmp_path, play)


def test_a_listing_that_has_ended_is_shared_with_nobody(tmp_path: Path) -> None:
    """Who asks in the moment between its end and the news of it gets a look of their own."""

    async def play(world: World) -> None:
        observer, ended = world.volume.observer, asyncio.Event()
        await observer.directory(ROOT)
        real = observer._adopt_listing

        async def adopting(*args: Any) -> None:
            await real(*args)
            ended.set()

        observer._adopt_listing = adopting  # type: ignore[method-assign]
        first = asyncio.ensure_future(observer.directory(ROOT))
        await ended.wait()
        (world.share / "f").write_bytes(b"new")
        await observer.directory(ROOT)
        assert world.store.server.child(ROOT, b"f") is not None
        await first

    played(tmp_path, play)


def test_content_that_cannot_be_dropped_is_still_there(tmp_path: Path) -> None:
    """The disk is full when a new revision is adopted: what an open file shows stays."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"a" * 100_000)
        file = await world.cached("f")
        handle = world.volume.files.open(world.shown(file), writing=False)
        (world.share / "f").write_bytes(b"b" * 10)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store.server, "set_listed", _full)
            with pytest.raises(OSError):
                for _ in range(20):
                    await world.volume.observer.directory(ROOT)
        assert handle.opened.size == 100_000
        assert await world.read(handle, 0, 200_000) == b"a" * 100_000
        world.volume.files.close(handle)

    played(tmp_path, play)


def _full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "no room for the database")


# -- nothing stops for good ------------------------------------------------------------------


def test_a_full_disk_does_not_end_the_search_for_the_server(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        link = world.volume.link
        link.lost("a test")
        real, calls = link.admit, 0

        async def failing(connected: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                _full()
            await real(connected)

        link.admit = failing
        trying = asyncio.ensure_future(link.keep_trying())
        for _ in range(100):
            await asyncio.sleep(0.1)
            if link.usable:
                break
        assert link.usable, f"gave up: {trying}"
        trying.cancel()

    played(tmp_path, play)


def test_replay_goes_on_after_the_disk_was_full(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        replay, calls = world.volume.replay, 0
        real = replay._optimiser.run

        async def failing() -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                _full()
            await real()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replay._optimiser, "run", failing)
            running = asyncio.ensure_future(replay.run())
            node = world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, 0, 0)
            world.write(node, 0, b"kept")
            for _ in range(100):
                await asyncio.sleep(0.1)
                if not world.store.journal.count():
                    break
            assert not world.store.journal.count(), "nothing woke it again"
            running.cancel()

    played(tmp_path, play)


def test_a_directory_without_a_name_does_not_keep_the_volume_from_starting(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes, now = world.store.nodes, time.time_ns()
        times = {"atime_ns": now, "mtime_ns": now, "ctime_ns": now, "btime_ns": now}
        directory = nodes.add(Kind.DIRECTORY, 0o755, 0, 0, **times)
        child = nodes.add(Kind.FILE, 0o644, 0, 0, **times)
        nodes.add_name(directory.id, b"child", child.id)
        world.volume.changes.discard_if_unused(directory.id)
        world.die()
        world.open()
        await world.online()

    played(tmp_path, play)


def test_a_closing_that_fails_still_lets_go_of_the_file(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"a" * 100_000)
        file = await world.cached("f")
        handle = world.volume.files.open(world.shown(file), writing=True)
        handle.opened.passthrough = 7
        os.utime(handle.opened.fd, ns=(1 << 62, 1 << 62))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.volume.files, "_store_record", _full)
            with pytest.raises(OSError):
                world.volume.files.close(handle)
        assert world.volume.context.opened.get(file.id) is None

    played(tmp_path, play)


# -- nobody waits for another's work ---------------------------------------------------------


def test_one_call_copies_no_more_than_a_moments_worth(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        files, changes = world.volume.files, world.volume.changes
        source = changes.create(ROOT, b"source", Kind.FILE, 0o644, 0, 0)
        target = changes.create(ROOT, b"target", Kind.FILE, 0o644, 0, 0)
        files.truncate(source, 1 << 30)
        one = files.open(world.shown(source), writing=True)
        two = files.open(world.shown(target), writing=True)
        copied = await files.copy(one, 0, two, 0, 1 << 30)
        assert 0 < copied <= 16 << 20
        began = time.monotonic()
        files.allocate(one, 0x02 | 0x01, 0, 1 << 30)
        assert time.monotonic() - began < 0.5
        assert os.fstat(one.opened.fd).st_blocks * 512 < 1 << 20
        for handle in (one, two):
            files.close(handle)

    played(tmp_path, play)


def test_the_tree_of_conflicts_is_looked_at_in_no_time(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        store, changes = world.store, world.volume.changes
        with store.transaction():
            for number in range(3000):
                name = b"f%d" % number
                node = changes.create(ROOT, name, Kind.FILE, 0o644, 0, 0)
                store.conflicts.add(node.id, ConflictKind.REFUSED, ROOT, name, 1)
        virtual = world.volume.virtual
        began = time.monotonic()
        names = [name for name, _ in virtual.conflicts.entries(())]
        for name in names[:500]:
            assert virtual.conflicts.find((name,)).kind is Kind.DIRECTORY
        assert len(names) == 3000
        assert time.monotonic() - began < 2.0
        store.conflicts.remove(store.conflicts.all()[0].id)
        assert len(virtual.conflicts.entries(())) == 2999

    played(tmp_path, play)


def test_an_inventory_lets_others_have_their_turn(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        changes = world.volume.changes
        with world.store.transaction():
            for number in range(2000):
                changes.create(ROOT, b"f%d" % number, Kind.FILE, 0o644, 0, 0)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        ticking = asyncio.ensure_future(other())
        inventory = await world.volume.hoard.check(ROOT)
        ticking.cancel()
        assert inventory.files == 2000
        assert turns > 5

    played(tmp_path, play)


# -- nothing piles up ------------------------------------------------------------------------


def test_a_variant_that_cannot_be_kept_leaves_no_file(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"a" * 1000)
        file = await world.cached("f")
        world.write(file, 0, b"mine")
        (world.share / "f").write_bytes(b"b" * 2000)
        variants = world.volume.virtual.server_variants
        entry = await world.volume.link.remote.stat(b"f")

        async def gone(*_: Any) -> Any:
            raise RemoteError("gone")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.volume.link.remote, "fetch", gone)
            assert await variants.fetch(b"f", entry) is None
        assert os.listdir(f"{world.state}/staging") == []

    played(tmp_path, play)


def test_what_was_read_is_forgotten_when_it_is_closed(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"a" * 1000)
        file = await world.find("f")
        handle = world.volume.files.open(file, writing=False)
        assert await world.read(handle, 0, 1000) == b"a" * 1000
        assert world.volume.files.close(handle)
        world.volume.closed(file.id, handle.opened)
        assert not world.volume.fetcher._progress
        for _ in range(3):
            with pytest.raises(OSError):
                world.volume.virtual.get((b"nothing",))

    played(tmp_path, play)


# -- what the kernel is told -----------------------------------------------------------------


def _listed(world: World, handlers: NameHandlers, fh: int, offset: int) -> list[DirectoryEntry]:
    """One page, of a size that holds a few names only."""
    request = rq.Readdirplus(1, ROOT, 0, 0, 0, fh, offset, 600, 0, 0, 0)
    return directory_of(bytes(handlers._names_with_attributes(request)), 600, plus=True)


def test_a_listing_read_in_parts_tells_of_files_as_they_are_then(tmp_path: Path) -> None:
    """The kernel keeps what READDIRPLUS says: an older size would cut the file off."""

    async def play(world: World) -> None:
        changes = world.volume.changes
        nodes = [changes.create(ROOT, b"f%02d" % n, Kind.FILE, 0o644, 0, 0) for n in range(12)]
        shared = Shared(world.volume)
        handlers = NameHandlers(shared, lambda: b"", lambda nodeid, count: None)
        fh = shared.new_handle(await world.volume.tree.open_directory(ROOT))
        page = _listed(world, handlers, fh, 0)
        assert page[-1].name < b"f08"
        world.write(nodes[9], 0, b"written meanwhile")
        changes.unlink(ROOT, b"f10")
        changes.unlink(ROOT, b"f11")
        new = changes.create(ROOT, b"f11", Kind.FILE, 0o600, 0, 0)
        rest = {}
        while page:
            rest.update({entry.name: entry for entry in page})
            page = _listed(world, handlers, fh, page[-1].offset)
        written, renewed = rest[b"f09"].entry, rest[b"f11"].entry
        assert written is not None and written.attr.size == len(b"written meanwhile")
        assert b"f10" not in rest
        assert renewed is not None and renewed.nodeid == new.id
        assert nodes[10].id not in shared.lookups
        assert nodes[11].id not in shared.lookups

    played(tmp_path, play)

"""Making a file costs one transaction, and is not less safe for it.

Creation, content row and first store are committed together; the size of a file that was closed
is written down with the next transaction. Whatever dies, fails or asks in between, nobody may
notice.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.records import RecordKind, RecordState
from awayfs.core.types import ABSENT, ROOT, Attributes, Kind, Range
from awayfs.ports.remote import Intent
from awayfs.store.journal import Journal
from awayfs.store.nodes import Node
from awayfs.volume.files import FileHandle

BOTH = [RecordKind.CREATE, RecordKind.STORE]


def create(world: World, name: bytes, *, writing: bool = True) -> tuple[Node, FileHandle]:
    """open(2) with O_CREAT."""
    node, opened = world.volume.changes.create_open(ROOT, name, 0o644, 0, 0, writing=writing)
    return node, FileHandle(opened, writing, append=False)


def made(world: World, name: bytes, data: bytes) -> Node:
    """A file, written and closed."""
    node, handle = create(world, name)
    assert world.volume.files.write(handle, 0, data) == len(data)
    assert world.volume.files.close(handle)
    return node


def kinds(world: World, node: Node) -> list[RecordKind]:
    return [record.kind for record in world.store.journal.of_node(node.id)]


def size_in_database(world: World, node: Node) -> int:
    """What a daemon that is killed now leaves."""
    row = world.store.db.row_now("SELECT size FROM nodes WHERE id = ?", (node.id,))
    assert row is not None
    return int(row[0])


def content(world: World, node: Node) -> bytes:
    with open(world.store.content.fd_path(node.id), "rb") as file:
        return file.read()


@contextmanager
def commits(world: World) -> Iterator[list[str]]:
    """The transactions that change something within the block."""
    seen: list[str] = []
    connection = world.store.db._connection
    connection.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
    try:
        yield seen
    finally:
        connection.set_trace_callback(None)


def test_a_file_made_written_and_closed_is_one_transaction(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        made(world, b"first", b"1")
        with commits(world) as seen:
            for number in range(10):
                made(world, b"%d" % number, b"some content")
        assert len(seen) == 10

    played(tmp_path, play)


def test_what_was_closed_shows_its_size_to_whoever_asks(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        store = world.store
        ways = [
            lambda node: world.shown(node).size,
            lambda node: store.nodes.get(node.id).size,  # type: ignore[union-attr]
            lambda node: store.nodes.child(ROOT, b"f").size,  # type: ignore[union-attr]
            lambda node: {n.id: n.size for _, n in store.nodes.children(ROOT)}[node.id],
            lambda node: store.content.ranges(node.id)[0].end,
            lambda _: store.content.usage(),
            lambda _: store.journal.pending_bytes(),
        ]
        for way in ways:
            node = made(world, b"f", b"twelve bytes")
            assert size_in_database(world, node) == 0
            assert way(node) == 12
            world.volume.changes.unlink(ROOT, b"f")
            store.journal.remove([r.seq for r in store.journal.of_node(node.id)])
            store.nodes.remove(node.id)

    played(tmp_path, play)


def test_nothing_is_lost_when_the_daemon_dies_at_once(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = [made(world, b"%d" % number, b"x" * number) for number in range(1, 6)]
        open_one, handle = create(world, b"open")
        world.volume.files.write(handle, 0, b"still open")
        last = made(world, b"last", b"closed, and not saved")
        before = {node.id: world.shown(node) for node in (*nodes, open_one, last)}
        assert size_in_database(world, last) == 0
        world.die()
        world.open()
        for node in (*nodes, open_one, last):
            now, then = world.shown(node), before[node.id]
            assert (now.size, now.mtime_ns) == (then.size, then.mtime_ns)
            assert kinds(world, node) == BOTH
        assert content(world, last) == b"closed, and not saved"
        assert world.store.content.ranges(last.id) == [Range(0, 21)]
        await world.online()
        await world.drained()
        assert (world.share / "last").read_bytes() == b"closed, and not saved"
        assert (world.share / "open").read_bytes() == b"still open"

    played(tmp_path, play)


def test_a_file_that_nobody_wrote_to_is_a_creation_only(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node, handle = create(world, b"touched")
        assert kinds(world, node) == BOTH
        world.volume.files.close(handle)
        assert kinds(world, node) == [RecordKind.CREATE]
        reader, handle = create(world, b"read", writing=False)
        assert kinds(world, reader) == [RecordKind.CREATE]
        world.volume.files.close(handle)
        await world.drained()
        assert (world.share / "touched").read_bytes() == b""
        assert not world.store.journal.count()

    played(tmp_path, play)


def test_a_second_descriptor_may_still_write(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node, handle = create(world, b"f")
        second = world.volume.files.open(node, writing=True)
        world.volume.files.close(handle)
        assert kinds(world, node) == BOTH
        world.volume.files.write(second, 0, b"late")
        world.volume.files.close(second)
        assert kinds(world, node) == BOTH

    played(tmp_path, play)


def test_a_daemon_that_dies_before_the_first_write_leaves_an_empty_file(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node, _ = create(world, b"f")
        before = world.shown(node)
        world.die()
        world.open()
        assert world.shown(node) == before
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes() == b""
        assert not world.store.journal.count()

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["frozen", "intent"])
def test_what_may_have_gone_out_is_not_withdrawn(tmp_path: Path, how: str) -> None:
    async def play(world: World) -> None:
        node, handle = create(world, b"f")
        journal = world.store.journal
        seq = journal.of_node(node.id)[0].seq
        if how == "frozen":
            journal.set_state(seq, RecordState.FROZEN)
        else:
            world.store.intents.set(seq, Intent("op", b"f", ABSENT), "staging")
        world.volume.files.close(handle)
        assert kinds(world, node) == BOTH

    played(tmp_path, play)


def test_a_first_write_after_the_store_has_gone_out_is_a_new_one(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node, handle = create(world, b"f")
        await world.drained()
        assert (world.share / "f").read_bytes() == b""
        world.volume.files.write(handle, 0, b"late")
        assert kinds(world, node) == [RecordKind.STORE]
        world.volume.files.close(handle)
        assert kinds(world, node) == [RecordKind.STORE]
        await world.drained()
        assert (world.share / "f").read_bytes() == b"late"

    played(tmp_path, play)


def test_a_rollback_leaves_what_was_closed_to_the_next_transaction(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        node = made(world, b"f", b"twelve bytes")
        with pytest.raises(ZeroDivisionError), world.store.transaction():
            assert size_in_database(world, node) == 12
            raise ZeroDivisionError
        assert size_in_database(world, node) == 0
        assert world.store.content.covers(node.id, 0, 12)
        assert size_in_database(world, node) == 12

    played(tmp_path, play)


def test_a_file_opened_in_a_transaction_that_rolls_back_is_saved_all_the_same(
    tmp_path: Path,
) -> None:
    async def play(world: World) -> None:
        node = made(world, b"f", b"twelve bytes")
        with pytest.raises(ZeroDivisionError), world.store.transaction():
            handle = world.volume.files.open(world.shown(node), writing=False)
            raise ZeroDivisionError
        assert size_in_database(world, node) == 0
        world.volume.files.close(handle)
        assert world.store.nodes.get(node.id).size == 12  # type: ignore[union-attr]

    played(tmp_path, play)


def test_on_a_full_disk_what_was_closed_is_read_and_saved_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        node = made(world, b"f", b"twelve bytes")
        update, full = world.store.nodes.update, True

        def refuse(node: int, **columns: Any) -> None:
            if full and "size" in columns:
                raise OSError(errno.ENOSPC, "full")
            update(node, **columns)

        monkeypatch.setattr(world.store.nodes, "update", refuse)
        assert world.shown(node).size == 12
        assert not world.store.content.ranges(node.id)
        handle = world.volume.files.open(world.shown(node), writing=True)
        assert await world.read(handle, 0, 100) == b"twelve bytes"
        world.volume.files.close(handle)
        with pytest.raises(OSError, match="full"):
            world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        assert content(world, node) == b"twelve bytes"
        full = False
        world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        assert size_in_database(world, node) == 12
        assert world.store.content.ranges(node.id) == [Range(0, 12)]

    played(tmp_path, play)


def test_a_taken_name_leaves_nothing_behind(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        made(world, b"f", b"first")
        opened = len(world.volume.context.opened.all())
        descriptors = len(os.listdir("/proc/self/fd"))
        records = world.store.journal.count()
        with pytest.raises(FileExistsError):
            create(world, b"f")
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert len(world.volume.context.opened.all()) == opened
        assert world.store.journal.count() == records

    played(tmp_path, play)


def test_a_creation_that_fails_closes_and_removes_the_cache_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        def refuse(*_args: Any, **_more: Any) -> int:
            raise OSError(errno.ENOSPC, "full")

        descriptors = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(world.store.journal, "append_created", refuse)
        with pytest.raises(OSError, match="full"):
            create(world, b"f")
        monkeypatch.undo()
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert not world.volume.context.opened.all()
        node = made(world, b"f", b"second try")
        assert content(world, node) == b"second try"
        assert not os.path.exists(f"{world.state}/lost+found")

    played(tmp_path, play)


def test_the_directory_shows_what_happened_to_it_since(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        changes = world.volume.changes
        parent = changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        node, opened = changes.create_open(parent.id, b"f", 0o644, 0, 0, writing=True)
        assert world.shown(parent).mtime_ns == node.mtime_ns
        assert world.shown(parent) == world.store.nodes.get(parent.id)
        changes.set_attributes(parent.id, Attributes(mode=0o700))
        assert world.shown(parent).mode == 0o700
        changes.create(parent.id, b"sub", Kind.DIRECTORY, 0o755, 0, 0)
        assert world.shown(parent).nlink == 3
        world.volume.files.close(FileHandle(opened, writing=True, append=False))
        changes.unlink(parent.id, b"f")
        assert world.shown(parent) == world.store.nodes.get(parent.id)
        with pytest.raises(OSError, match="not a directory"):
            changes.create_open(node.id, b"f", 0o644, 0, 0, writing=True)

    played(tmp_path, play)


@pytest.mark.parametrize("stored", [True, False])
def test_the_index_of_a_creation_is_that_of_its_records(tmp_path: Path, stored: bool) -> None:
    def index(journal: Journal) -> dict[str, Any]:
        names = ("_seqs", "_stores", "_open_stores", "_worked_in", "_times_set", "_sizes")
        known = {name: dict(getattr(journal, name)) for name in names}
        return {**known, "pending": journal._pending, "counts": journal.counts()}

    async def play(world: World) -> None:
        store = world.store
        made(world, b"other", b"other")
        times = {"atime_ns": 1, "mtime_ns": 1, "ctime_ns": 1, "btime_ns": 1}
        new = store.nodes.add(Kind.FILE, 0o644, 0, 0, **times).id
        before = index(store.journal)
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.journal.append_created(new, ROOT, b"f", 1, stored=stored)
            store.journal.append(RecordKind.SETATTR, new, attributes=Attributes(mtime_ns=5))
            raise ZeroDivisionError
        assert index(store.journal) == before
        last = store.journal.append_created(new, ROOT, b"f", 1, stored=stored)
        assert index(store.journal) == index(Journal(store.db))
        records = store.journal.of_node(new)
        assert [r.kind for r in records] == (BOTH if stored else BOTH[:1])
        assert records[-1].seq == last
        assert (records[0].parent, records[0].name, records[0].at_ns) == (ROOT, b"f", 1)

    played(tmp_path, play)


def test_a_directory_that_another_brings_back_first_has_his_rights(tmp_path: Path) -> None:
    """It was removed there while something was made in it here: both bring it back."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir(mode=0o755)
        directory = await world.find("d")
        await world.volume.observer.directory(directory.id)
        made = world.volume.changes.create(directory.id, b"f", Kind.FILE, 0o644, 0, 0)
        world.write(made, 0, b"made here")
        (world.share / "d").rmdir()
        searched = world.volume.observer.search

        async def search(node: int) -> None:
            await searched(node)
            (world.share / "d").mkdir()
            (world.share / "d").chmod(0o775)

        world.volume.observer.search = search  # type: ignore[method-assign]
        await world.drained()
        assert (world.share / "d/f").read_bytes() == b"made here"
        assert world.shown(directory).mode == (world.share / "d").stat().st_mode & 0o7777 == 0o775

    played(tmp_path, play)

"""Nodes whose content file is open, and the attributes that writes change.

A write changes size and times. Writing them to the database each time would cost more than
the write, so while a *whole* file (every byte cached) is open they live here and are saved
when the last writer closes, at fsync and at the timed commit. Nothing acknowledged hangs on
that: for a whole file with an unsent store the cache file itself is the witness, and
``recover`` takes size and time from it after a crash. For that its time is the node's from
the first store on, whoever else touches it: ``utimes``, a fetch that fills a gap
(``Content.stamp``). A partly cached file has no such witness, so its changes go to the
database at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct, field

from awayfs.core.types import NodeId, Range
from awayfs.store.nodes import Node
from awayfs.store.store import Store

log = logging.getLogger(__name__)


class PageRead(Struct):
    """A read that waits to be answered; the kernel has its pages locked."""

    pages: Range
    forgotten: bool = False  # the kernel was told to forget the node meanwhile


class Asking(Struct):
    """The kernel is being asked for the pages of a file (``volume.pages``)."""

    acts: list[Callable[[], None]] = field(default_factory=list)
    asked: list[Range] = field(default_factory=list)
    answered: int = 0  # reads that were answered since
    parking: bool = False  # all reads wait
    over: asyncio.Event = field(default_factory=asyncio.Event)


class OpenNode(Struct):
    """One node with an open content file; shared by all its handles."""

    node: NodeId
    fd: int
    size: int
    mtime_ns: int
    ctime_ns: int
    whole: bool
    users: int = 0
    writers: int = 0
    mappable: int = 0  # handles through which pages of the kernel's may be written (mmap)
    mappers: int = 0  # writers that may map the cache file, past us (``Files.note_mappable``)
    direct: int = 0  # writers that pass by the kernel's page cache
    beside_direct: bool = False  # somebody has opened it beside one of those
    unsaved: bool = False  # size and times differ from the database
    unsynced: bool = False  # written since the last fsync was begun
    written_ns: int = 0
    blank: int = 0  # the record that foresees a first write, until there is one; 0 for none
    passthrough: int = 0  # backing id the kernel reads through, 0 for none
    outdated: bool = False  # the server has a newer content, to be taken after the last close
    gone: bool = False  # its last name went because the server had it no more
    fetched: bool = False  # what the kernel had of written pages is here, at this moment
    asking: Asking | None = None
    reads: list[PageRead] = field(default_factory=list)
    drops: int = 0  # how often its content gave way to another


_CHANGED = ("size", "mtime_ns", "ctime_ns", "unsaved")


def _cut_beyond(fd: int, node: Node) -> None:
    """What an operation that was cut off left beyond the end must not come back as content."""
    if os.fstat(fd).st_size > node.size:
        os.ftruncate(fd, node.size)
        os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))


def _close(fd: int, node: NodeId) -> None:
    """It is closed, whatever close(2) says: what is not on the disk, an fsync tells as well."""
    try:
        os.close(fd)
    except OSError as error:
        log.error("closing the cache file of node %d: %s", node, error)


class OpenNodes:
    """All open nodes of a volume."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[NodeId, OpenNode] = {}
        self._closed: dict[NodeId, OpenNode] = {}  # by everybody, and not saved yet
        self._edits: dict[NodeId, int] = {}
        self._edited = 0
        store.nodes.on_remove.append(self.sent)
        self.before_change: list[Callable[[NodeId], None]] = []

    def get(self, node: NodeId) -> OpenNode | None:
        """The open node, or None when nobody has it open."""
        return self._open.get(node)

    def all(self) -> list[OpenNode]:
        """Every open node."""
        return list(self._open.values())

    def edited(self, node: NodeId) -> None:
        """The content is about to change, which tears an upload that is under way."""
        self._edited += 1  # of all nodes, so that none comes twice when one was forgotten
        self._edits[node] = self._edited
        for call in self.before_change:
            call(node)

    def edits(self, node: NodeId) -> int:
        """A number that differs once the content has changed, closed meanwhile or not."""
        return self._edits.get(node, 0)

    def sent(self, node: NodeId) -> None:
        """No store of the node waits any more: its edits need not be counted."""
        self._edits.pop(node, None)

    def acquire(self, node: Node, *, writing: bool) -> OpenNode:
        """One more user of a node's content; opens the cache file for the first."""
        opened = self._open.get(node.id) or self._reopened(node.id)
        if opened is None:
            fd = self._store.content.open(node.id)
            _cut_beyond(fd, node)
            opened = self._open[node.id] = OpenNode(
                node=node.id,
                fd=fd,
                size=node.size,
                mtime_ns=node.mtime_ns,
                ctime_ns=node.ctime_ns,
                whole=self._store.content.covers(node.id, 0, node.size),
            )
        opened.users += 1
        opened.writers += writing
        return opened

    def create(self, node: Node, *, writing: bool) -> OpenNode:
        """A node that was just made, open; in a transaction, which may take it back."""
        fd = self._store.content.create(node.id, node.ctime_ns, node.mtime_ns)
        opened = self._open[node.id] = OpenNode(
            node=node.id,
            fd=fd,
            size=0,
            mtime_ns=node.mtime_ns,
            ctime_ns=node.ctime_ns,
            whole=True,
            users=1,
            writers=int(writing),
            unsynced=True,
        )
        self._store.db.on_rollback(self._not_created, opened)
        return opened

    def _not_created(self, opened: OpenNode) -> None:
        self._open.pop(opened.node, None)
        os.close(opened.fd)

    def _reopened(self, node: NodeId) -> OpenNode | None:
        """A node that was closed a moment ago, as it was then."""
        opened = self._closed.get(node)
        if opened is not None:
            opened.fd = self._store.content.open(node)
            self._closed.pop(node, None)
            self._open[node] = opened
        return opened

    def release(self, opened: OpenNode, *, writing: bool) -> bool:
        """One user less; saves after the last writer, closes after the last user (True).

        What the last user leaves unsaved is saved with the next transaction, or before the next
        query that it makes a difference to.
        """
        opened.writers -= writing
        opened.users -= 1
        if opened.users:
            if not opened.writers:
                self._save_soon(opened)
            return False
        self._open.pop(opened.node, None)
        fd, opened.fd = opened.fd, -1
        if opened.unsaved:
            self._leave(opened)
        _close(fd, opened.node)
        return True

    def _save_soon(self, opened: OpenNode) -> None:
        try:
            self.save(opened)
        except OSError as error:
            log.error("size and time of node %d are not saved yet: %s", opened.node, error)

    def _leave(self, opened: OpenNode) -> None:
        """Have a closed node saved with the next transaction."""
        again = self._open.get(opened.node)
        if again is not None:
            again.unsaved = True  # it was opened within the transaction that rolled back
            return
        if not self._closed:
            self._store.db.defer(self._save_closed)
        self._closed[opened.node] = opened

    def _save_closed(self) -> None:
        """In a transaction: what was closed unsaved. A rollback leaves it unsaved."""
        closed, self._closed = self._closed, {}
        for opened in closed.values():
            self._store.db.on_rollback(self._leave, opened)
        for opened in closed.values():
            self.save(opened)

    def overlay(self, node: Node) -> None:
        """Put the unsaved attributes of an open node into ``node``."""
        opened = self._open.get(node.id) or self._closed.get(node.id)
        if opened is not None and opened.unsaved:
            node.size = opened.size
            node.mtime_ns = opened.mtime_ns
            node.ctime_ns = opened.ctime_ns

    def save_if_open(self, node: NodeId) -> None:
        """``save`` for a node that may be open."""
        if (opened := self.get(node)) is not None:
            self.save(opened)

    def save(self, opened: OpenNode) -> None:
        """Write unsaved attributes, and the range they imply, to the database."""
        if not opened.unsaved:
            return
        with self._store.transaction():
            self._store.db.on_rollback(setattr, opened, "unsaved", True)
            self._store.nodes.update(
                opened.node,
                size=opened.size,
                mtime_ns=opened.mtime_ns,
                ctime_ns=opened.ctime_ns,
            )
            if opened.whole and opened.size:
                self._store.content.add_range(opened.node, 0, opened.size)
        opened.unsaved = False

    @contextmanager
    def changing(self, opened: OpenNode) -> Iterator[None]:
        """A transaction; when it fails, size and times of ``opened`` are as they were, too."""
        kept = {name: getattr(opened, name) for name in _CHANGED}
        try:
            with self._store.transaction():
                yield
        except BaseException:
            for name, value in kept.items():
                setattr(opened, name, value)
            raise

    def save_all(self) -> None:
        """Write the unsaved attributes of every node, open or closed."""
        with self._store.transaction():
            for opened in self._open.values():
                self.save(opened)

    def close_all(self) -> None:
        """Save and close everything; for the end of a mount."""
        for opened in list(self._open.values()):
            self.save(opened)
            os.close(opened.fd)
        self._open.clear()

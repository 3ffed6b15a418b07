"""The state of one volume on disk: opening, closing, and the parts by name.

Layout of a volume's directory (0700; files 0600):

    volume.db          the database, with its log ``-wal`` and shared memory ``-shm``
    lock               flock of the daemon; its pid
    running            there while open: the boot id. At open it means an unclean shutdown
    content/xx/NODE    current content, sparse; xx is the id's low byte
    base/xx/NODE.N     base variants
    variants/ID.WHICH  variants of conflicts
    history/ID         variants that lost, kept for a while
    staging/           unfinished files and scratch directories; emptied at open
    damaged-TIME/      a database that was set aside
    lost+found/        unsent content that fsck found without a row
    reserve            room kept for what frees room (``reserve``)
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from awayfs.core.errors import StoreError
from awayfs.core.types import NodeId
from awayfs.store import fsck, sync
from awayfs.store.brought import Brought
from awayfs.store.conflicts import Conflicts
from awayfs.store.content import Content
from awayfs.store.db import Database
from awayfs.store.facts import Facts
from awayfs.store.files import Files, empty_staging, fsync_path, make_folders
from awayfs.store.history import History
from awayfs.store.intents import Intents
from awayfs.store.journal import Journal
from awayfs.store.lock import Lock
from awayfs.store.node_settings import NodeSettings
from awayfs.store.nodes import Nodes
from awayfs.store.pins import Pins
from awayfs.store.refusals import Refusals
from awayfs.store.reserve import Reserve
from awayfs.store.salvage import SalvageReport, finished, open_or_salvage, unfinished
from awayfs.store.saves import Saves
from awayfs.store.server import ServerView
from awayfs.store.uses import Uses

T = TypeVar("T")
_WAL_LIMIT: Final = 256 * 1024 * 1024
"""A log beyond this is emptied even if the event loop has to wait for it."""
LOST_RECORDS: Final = 100_000
"""More than are made between two syncs of the log."""
_SIGNS: Final = ("volume.db", "volume.db.salvaged", "running")
"""One of these says that a directory holds a volume."""

_SUSPECT: Final = "store.suspect"

_SAME_TIME_NS: Final = 2_000_000_000
"""A server may keep times so coarsely."""
_EDITED: Final = (
    "SELECT content.node FROM content JOIN nodes ON id = content.node"
    " JOIN server_nodes s ON s.node = id WHERE nodes.size != s.size"
    " OR abs(nodes.mtime_ns - s.mtime_ns) > ? OR id IN (SELECT node FROM bases)"
)
"""A base is kept as long as an edit of it was not sent."""


class Store:
    """Everything a volume keeps. All methods belong to the event loop unless they say not."""

    def __init__(self, directory: str, lock: Lock, db: Database) -> None:
        self.directory = directory
        self._lock = lock
        self.db = db
        self.salvaged: SalvageReport | None = None
        self.suspect: list[NodeId] = []
        self.facts = Facts(db)
        self.nodes = Nodes(db)
        self.server = ServerView(db, self.facts)
        self.journal = Journal(db)
        self.intents = Intents(db)
        self.saves = Saves(db)
        self.brought = Brought(db)
        self.journal.on_remove += (self.intents.clear_all, self.saves.clear_all)
        self.pins = Pins(db, self.nodes)
        self.node_settings = NodeSettings(db, self.nodes)
        self.refusals = Refusals(db, self.nodes)
        self.files = Files(directory, db)
        self.reserve = Reserve(f"{directory}/reserve")
        self.content = Content(db, self.files)
        self.conflicts = Conflicts(db, self.files)
        self.history = History(db, self.files)
        self.uses = Uses(db)
        self.nodes.on_size.append(self.journal.size_changed)
        self.nodes.on_remove += (self.server.purge, self.content.drop, self.content.drop_base)
        self.nodes.on_remove.append(self._size_gone)

    def _size_gone(self, node: NodeId) -> None:
        self.journal.size_changed(node, 0)

    # -- opening and closing ------------------------------------------------------------

    @classmethod
    def open(cls, directory: str, *, create: bool = False, boot_id: str | None = None) -> Store:
        """Open a volume's state, or with ``create`` make it.

        ``boot_id`` is for tests; the default is the kernel's. Raises StoreInUse, and
        StoreError with one line that says why the directory cannot be used. A damaged
        database is set aside and what can be read goes into a new one: ``salvaged``.
        """
        try:
            return cls._open(directory, create, boot_id or _boot_id())
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise StoreError(f"the state in {directory} cannot be used: {reason}") from error

    @classmethod
    def _open(cls, directory: str, create: bool, boot_id: str) -> Store:
        if create:
            os.makedirs(directory, 0o700, exist_ok=True)
        elif not any(os.path.exists(f"{directory}/{name}") for name in _SIGNS):
            raise StoreError(f"there is no volume in {directory}")
        lock = Lock.take(directory)
        try:
            make_folders(directory)
            empty_staging(directory)
            return cls._open_locked(directory, lock, boot_id)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open_locked(cls, directory: str, lock: Lock, boot_id: str) -> Store:
        last_boot = _read_marker(directory)
        unclean = last_boot is not None

        def load(db: Database) -> Store:
            return cls(directory, lock, db)

        store = open_or_salvage(directory, unclean, load)
        try:
            report = unfinished(store.db)
            if report is not None:
                store._after_salvage(report)
            if unclean and last_boot != boot_id:
                store._after_power_cut()
                store.journal.skip(LOST_RECORDS)
            store.suspect = store._suspects()
            store.facts.set("store.boot_id", boot_id)
            _write_marker(directory, boot_id)
        except BaseException:
            store.db.close()
            raise
        store.reserve.make()
        return store

    def close(self) -> None:
        """Make all durable, empty the log, let go of the lock. Blocking.

        When that fails the next open treats it as an unclean shutdown; nothing is raised.
        """
        try:
            self.insist(self.sync)
            if not self.db.damaged and self.db.checkpoint(truncate=True):
                os.unlink(f"{self.directory}/running")
                fsync_path(self.directory)
        except OSError:
            pass  # the marker stays
        finally:
            try:
                self.db.close()
            finally:
                self._lock.release()

    # -- changing -----------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[None]:
        """One commit for all that is done inside; nested ones join the outermost.

        An exception rolls back the database and what is known in memory. OSError(ENOSPC)
        when the disk is full.
        """
        return self.db.transaction()

    def insist(self, work: Callable[[], T]) -> T:
        """Do what must not fail for want of room; on a full disk the reserve is given up for it.

        Part of that goes to emptying the log, which then need not grow any more; that blocks for
        a moment. ``work`` is done anew from its beginning, and must not be in a transaction.
        """
        try:
            return work()
        except OSError as error:
            if error.errno != errno.ENOSPC or self.db.in_transaction:
                raise
        self.reserve.give_up()
        try:
            self.checkpoint()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        return work()

    # -- durability ---------------------------------------------------------------------

    def begin_sync(self, nodes: Iterable[NodeId] | None = None) -> sync.SyncWork:
        """Note what is to be made durable: given nodes, or with None all; always the log.

        Call ``run()`` of the result in an executor, then ``finish_sync``. An empty iterable
        makes the log alone durable.
        """
        return sync.begin(self.db, self.content, self.files, nodes)

    def finish_sync(self, work: sync.SyncWork) -> None:
        """After ``work.run()``: note what is durable now."""
        sync.finish(self.db, self.content, work)

    def sync(self, nodes: Iterable[NodeId] | None = None) -> None:
        """``begin_sync``, ``run`` and ``finish_sync`` in one; blocks the event loop."""
        work = self.begin_sync(nodes)
        work.run()
        self.finish_sync(work)

    def checkpoint(self) -> bool:
        """Move the log into the database; blocking, callable from any thread.

        True when all of it was moved, so that the next commit starts the log over.
        """
        return self.db.checkpoint(truncate=self.db.wal_bytes() > _WAL_LIMIT)

    def wal_bytes(self) -> int:
        """Size of the log: worth a ``checkpoint`` from some megabytes on."""
        return self.db.wal_bytes()

    def _after_salvage(self, report: SalvageReport) -> None:
        """Keep content that may be unsent though its rows say otherwise; mend what is derived."""
        self.salvaged = report
        with self.transaction():
            for node in self._perhaps_unsent():
                self._lose(node)
            report.problems = [problem.text for problem in fsck.check(self, repair=True)]
            self.server.stale_all()
            finished(self.db)

    def _perhaps_unsent(self) -> list[NodeId]:
        """Nodes without a store in the journal whose content may be an edit that had one: not safe
        on disk, changed since, or otherwise than the server's is known to be.
        """
        edited = self.db.rows(_EDITED, (_SAME_TIME_NS,))
        found = {*self.content.doubtful(), *(node for (node,) in edited)}
        return sorted(node for node in found if not self.journal.has_store(node))

    def _lose(self, node: NodeId) -> None:
        """A content goes to ``lost+found/``; what the server has is shown."""
        self.content.lose(node)
        self.content.drop_base(node)
        base = self.server.get(node)
        if base is not None and self.nodes.get(node) is not None:
            self.nodes.update(node, size=base.size, mtime_ns=base.mtime_ns)

    def _after_power_cut(self) -> None:
        """Drop clean content that may not have reached the disk; note the dirty nodes concerned.

        On record, as who opens next may be somebody who only looks, or may not get far.
        """
        suspect = set(self._suspects())
        with self.transaction():
            self.nodes.skip_ids()
            for node in self.content.doubtful():
                if self.journal.has_store(node):
                    self.content.mark_unsynced(node)
                    suspect.add(node)
                else:
                    self.content.drop(node)
            for node in self.content.bases.unsynced():
                self.content.drop_base(node)
            self.facts.set(_SUSPECT, " ".join(map(str, sorted(suspect))))

    def _suspects(self) -> list[NodeId]:
        noted = map(int, (self.facts.get(_SUSPECT) or "").split())
        return [node for node in noted if self.journal.has_store(node)]

    def suspects_seen_to(self) -> None:
        """None of them is sent unseen any more. In the transaction that has them wait."""
        self.facts.set(_SUSPECT, "")


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _read_marker(directory: str) -> str | None:
    """The boot id of an unclean shutdown; None after a clean one."""
    try:
        with open(f"{directory}/running", encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def _write_marker(directory: str, boot_id: str) -> None:
    """Durable before anything is changed, and after the log file exists."""
    fd = os.open(f"{directory}/running", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.write(fd, boot_id.encode()) != len(boot_id):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_path(directory)

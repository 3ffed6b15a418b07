"""Content files and what of them is here.

The range map alone says which bytes mean something (holes in a file do not). A file that is
replaced gets a new version, and so a new path: the row names the version, so one commit
switches from the old file to the new one, whatever a crash leaves over (docs/CRASH.md).

Rows in use are cached in memory; a rollback drops the touched ones from the cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import count
from typing import Final

from awayfs.core.types import NodeId, Range
from awayfs.store.bases import BaseCopy, Bases
from awayfs.store.db import Database
from awayfs.store.files import Files, keep_lost, mtime_of, rename_back, unlink_quietly
from awayfs.store.last_used import LastUsed
from awayfs.store.ranges import RangeMap

_CACHED: Final = 4096
"""Rows kept in memory; the oldest goes first."""
_BATCH: Final = 256
_NEW: Final = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL


class _Held:
    """One row of ``content`` with its ranges."""

    __slots__ = ("map", "synced", "token", "version")

    def __init__(self, version: int, token: bytes | None, synced: bool, held: RangeMap) -> None:
        self.version = version
        self.token = token
        self.synced = synced
        self.map = held


class Content:
    """Current content by node."""

    def __init__(self, db: Database, files: Files) -> None:
        self._db = db
        self.bases = Bases(db, files)
        self._files = files
        self._cache: dict[NodeId, _Held] = {}
        self.last_used = LastUsed(db, self.has)
        self._usage: int | None = None
        self._clock = count(1)
        self._leaving: dict[NodeId, int] = {}
        self._changes: dict[NodeId, int] = {}
        self._unsynced: set[NodeId] = set()
        self.stage_path = files.stage_path
        self.base_path = self.bases.path
        self.base_ranges = self.bases.ranges
        self.base_token = self.bases.token
        self.drop_base = self.bases.drop
        self._load_unsynced()

    def _load_unsynced(self) -> None:
        rows = self._db.rows("SELECT node FROM content WHERE synced = 0")
        self._unsynced = {row[0] for row in rows}

    # -- what is here -------------------------------------------------------------------

    def ranges(self, node: NodeId) -> list[Range]:
        """The bytes that are here, in order."""
        held = self._get(node)
        return held.map.ranges() if held else []

    def covers(self, node: NodeId, start: int, end: int) -> bool:
        """Whether all bytes of start to end are here."""
        held = self._get(node)
        return held.map.covers(start, end) if held else start >= end

    def missing(self, node: NodeId, start: int, end: int) -> list[Range]:
        """The parts of start to end that are not here."""
        held = self._get(node)
        return (held.map if held else RangeMap()).missing(start, end)

    def has(self, node: NodeId) -> bool:
        """Whether there is a content file for the node."""
        return self._get(node) is not None

    def token(self, node: NodeId) -> bytes | None:
        """The server revision that the fetched ranges belong to."""
        held = self._get(node)
        return held.token if held else None

    def fd_path(self, node: NodeId) -> str:
        """Path of the current content file, whether or not it exists."""
        held = self._get(node)
        return self._files.path("content", node, held.version if held else 0)

    def usage(self) -> int:
        """Bytes of content held (ranges, not disk blocks; bases are not counted)."""
        self._db.settle()
        if self._usage is None:
            self._usage = int(self._db.value('SELECT total("end" - start) FROM ranges'))
        return self._usage

    def unsynced(self) -> list[NodeId]:
        """Nodes whose file may not be durable."""
        return sorted(self._unsynced)

    def unsynced_nodes(self) -> AbstractSet[NodeId]:
        """The same, as a live set not to be changed."""
        return self._unsynced

    def unsynced_files(self, nodes: Iterable[NodeId] | None) -> list[tuple[NodeId, str, int]]:
        """(node, path, ``change``) of what may not be durable; of the given nodes, or all."""
        if nodes is not None:
            wanted = self._unsynced.intersection(nodes)
            return [(node, self.fd_path(node), self.change(node)) for node in sorted(wanted)]
        rows = self._db.rows("SELECT node, version FROM content WHERE synced = 0 ORDER BY node")
        path = self._files.path
        return [(node, path("content", node, v), self.change(node)) for node, v in rows]

    def change(self, node: NodeId) -> int:
        """A number that grows with each change of the file; only equality means something."""
        return self._changes.get(node, 0)

    # -- changes ------------------------------------------------------------------------

    def open(self, node: NodeId, *, create: bool = True, token: bytes | None = None) -> int:
        """A descriptor of the content file, O_RDWR; the caller closes it.

        With ``create`` a missing row and file are made (0600, empty). A file that a crash left
        there goes to ``lost+found/``. FileNotFoundError when not created. ``token`` is a new one's.
        """
        held = self._get(node)
        if held is not None:
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
            return os.open(self._files.path("content", node, held.version), flags, 0o600)
        if not create:
            raise FileNotFoundError(2, "no content here", str(node))
        with self._db.transaction():
            return self._create(node, token=token)

    def create(self, node: NodeId, used_ns: int, mtime_ns: int) -> int:
        """``open`` for a node that was just made; the file bears its time."""
        with self._db.transaction():
            fd = self._create(node, used_ns)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
            return fd

    def _create(self, node: NodeId, used_ns: int = 0, token: bytes | None = None) -> int:
        """An empty file with its row, in a transaction; a rollback takes both back."""
        held = self._make(node, token=token, used_ns=used_ns)
        path = self._files.path("content", node, held.version)
        try:
            fd = os.open(path, _NEW, 0o600)
        except FileExistsError:
            self._clear(node, path)
            fd = os.open(path, _NEW, 0o600)
        self._db.on_rollback(unlink_quietly, path)
        return fd

    def _clear(self, node: NodeId, path: str) -> None:
        """What is there without a row may be unsent, had the log lost its end: keep it.

        There is nothing to keep of a file whose creation was cut off.
        """
        if not os.path.lexists(path):
            return
        if os.lstat(path).st_size == 0:
            os.unlink(path)
        else:
            keep_lost(self._files.directory, path, f"content-{node}")

    def add_range(self, node: NodeId, start: int, end: int) -> None:
        """Bytes start to end were written to the file; it is unsynced now."""
        held = self._get(node)
        if held is not None and not held.synced and held.map.covers(start, end):
            self._changes[node] = next(self._clock)
            return
        with self._db.transaction():
            held = held or self._make(node)
            self._mark(node, held)
            if start < end and not held.map.covers(start, end):
                self._merge(node, held, start, end)

    def _merge(self, node: NodeId, held: _Held, start: int, end: int) -> None:
        old, start, end = held.map.add(start, end)
        if len(old) == 1 and old[0][0] == start:
            self._db.execute(
                'UPDATE ranges SET "end" = ? WHERE node = ? AND start = ?', (end, node, start)
            )
        else:
            if old:
                self._db.execute(
                    "DELETE FROM ranges WHERE node = ? AND start BETWEEN ? AND ?",
                    (node, old[0][0], old[-1][0]),
                )
            self._db.execute("INSERT INTO ranges VALUES (?, ?, ?)", (node, start, end))
        self._count(end - start - sum(e - s for s, e in old))

    def truncate_ranges(self, node: NodeId, size: int) -> None:
        """The file was cut to ``size``: what lay beyond is not here any more."""
        held = self._get(node)
        if held is None:
            return
        with self._db.transaction():
            self._mark(node, held)
            self._db.execute("DELETE FROM ranges WHERE node = ? AND start >= ?", (node, size))
            self._db.execute(
                'UPDATE ranges SET "end" = ? WHERE node = ? AND "end" > ?', (size, node, size)
            )
            self._count(-held.map.truncate(size))

    def drop_ranges(self, node: NodeId) -> None:
        """Nothing of the file means anything any more; the file stays."""
        self.truncate_ranges(node, 0)

    def set_token(self, node: NodeId, token: bytes | None) -> None:
        """Say which server revision the ranges belong to; makes the row if need be."""
        held = self._get(node)
        if held is not None and held.token == token:
            return
        with self._db.transaction():
            held = held or self._make(node)
            self._touch(node)
            self._db.execute("UPDATE content SET token = ? WHERE node = ?", (token, node))
            held.token = token

    def mark_unsynced(self, node: NodeId) -> None:
        """The file changed, or may have."""
        held = self._get(node)
        if held is not None:
            if held.synced:
                with self._db.transaction():
                    self._mark(node, held)
            else:
                self._changes[node] = next(self._clock)

    def stamp(self, node: NodeId, mtime_ns: int) -> None:
        """Give the file a modification time, if there is a file; it counts as changed."""
        held = self._get(node)
        if held is None:
            return
        try:
            path = self._files.path("content", node, held.version)
            os.utime(path, ns=(mtime_ns, mtime_ns))
        except FileNotFoundError:
            return
        self.mark_unsynced(node)

    def drop(self, node: NodeId) -> None:
        """No content any more: the rows now, the file after the commit."""
        held = self._get(node)
        if held is None:
            return
        with self._db.transaction():
            self._touch(node)
            self._db.execute("DELETE FROM content WHERE node = ?", (node,))
            self._db.execute("DELETE FROM ranges WHERE node = ?", (node,))
            self._count(-held.map.total())
            del self._cache[node]
            self._unsynced.discard(node)
            self._leave(node, held.version)

    def replace_with(self, node: NodeId, staged_path: str, size: int, token: bytes | None) -> None:
        """A staged file, whole, ``size`` bytes, fsynced by the caller, becomes the content.

        Order: rename to the path of a new version; commit the row that names it; delete the
        old version. Until the commit, the old version is the content. A rollback moves the
        file back to ``staged_path``.
        """
        with self._db.transaction():
            old = self._get(node)
            version = old.version + 1 if old else self._leaving.get(node, -1) + 1
            path = self._files.path("content", node, version)
            self._clear(node, path)
            os.rename(staged_path, path)
            self._db.on_rollback(rename_back, path, staged_path)
            if old is not None:
                self.drop(node)
            held = self._make(node, version, token)
            if size:
                self._merge(node, held, 0, size)

    # -- the base variant ---------------------------------------------------------------

    def keep_base(self, node: NodeId, limit: int) -> bool:
        """Keep the present content as base, if there is none yet.

        A reflink where the file system can, else a copy of at most ``limit`` bytes. False
        when there is nothing to keep, it is too large, or the copy fails.
        """
        held = self._get(node)
        if held is None:
            return self.bases.path(node) is not None
        path = self._files.path("content", node, held.version)
        ranges, state = held.map.ranges(), self._state(node, held)
        return self.bases.keep(node, path, ranges, held.token, limit, state)

    def base_copy(self, node: NodeId, limit: int) -> BaseCopy | None:
        """What ``keep_base`` would take long for: to be run in a thread, and then offered."""
        held = self._get(node)
        if held is None:
            return None
        path = self._files.path("content", node, held.version)
        return self.bases.copy_of(node, path, held.map.ranges(), limit, self._state(node, held))

    def _state(self, node: NodeId, held: _Held) -> tuple[object, ...]:
        """Another value when the file's bytes may be others."""
        return held.version, held.token, self.change(node), tuple(held.map.ranges())

    def keep_no_base(self, node: NodeId) -> None:
        """Have a base with no known range: the content is not what the server has any more."""
        held = self._get(node)
        if held is not None:
            path = self._files.path("content", node, held.version)
            self.bases.keep(node, path, [], held.token, 0)

    def restore_base(self, node: NodeId, to: NodeId) -> bool:
        """The base becomes the content of ``to``; False, and no content, where none is kept.

        Both names are of one file until the base's is deleted after the commit: whatever a crash
        leaves, the row that counts has its file.
        """
        path = self.bases.path(node)
        with self._db.transaction():
            if path is None:
                self.drop(to)
                return False
            ranges, token = self.bases.ranges(node), self.bases.token(node)
            old = self._get(to)
            version = old.version + 1 if old else self._leaving.get(to, -1) + 1
            target = self._files.path("content", to, version)
            self._clear(to, target)
            os.link(path, target)
            self._db.on_rollback(unlink_quietly, target)
            if old is not None:
                self.drop(to)
            held = self._make(to, version, token)
            for part in ranges:
                self._merge(to, held, part.start, part.end)
            self.drop_base(node)
        return True

    # -- after a power cut --------------------------------------------------------------

    def doubtful(self) -> list[NodeId]:
        """Nodes whose file may not be what its row says: not made durable, or touched since.

        Looks at each file: for use after a power cut only.
        """
        found: list[NodeId] = []
        for node, version, synced, stamp_ns in self._db.rows(
            "SELECT node, version, synced, stamp_ns FROM content"
        ):
            path = self._files.path("content", node, version)
            if not synced or mtime_of(path) != stamp_ns:
                found.append(node)
        return found

    def lose(self, node: NodeId) -> None:
        """``drop``, but the file is kept in ``lost+found/`` (at once)."""
        path = self.fd_path(node)
        if os.path.exists(path):
            keep_lost(self._files.directory, path, f"content-{node}")
        self.drop(node)

    # -- rows in memory -----------------------------------------------------------------

    def _get(self, node: NodeId) -> _Held | None:
        if self._db.has_deferred:
            self._db.settle()
        held = self._cache.get(node)
        if held is not None:
            return held
        row = self._db.row("SELECT version, token, synced FROM content WHERE node = ?", (node,))
        if row is None:
            return None
        pairs = self._db.rows(
            'SELECT start, "end" FROM ranges WHERE node = ? ORDER BY start', (node,)
        )
        held = _Held(row[0], row[1], bool(row[2]), RangeMap(pairs))
        self._keep(node, held)
        return held

    def _keep(self, node: NodeId, held: _Held) -> None:
        if len(self._cache) >= _CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[node] = held

    def _make(
        self, node: NodeId, version: int = -1, token: bytes | None = None, used_ns: int = 0
    ) -> _Held:
        """A new row, unsynced, without ranges."""
        if version < 0:
            version = self._leaving.get(node, -1) + 1
        self._touch(node)
        self._db.execute(
            "INSERT INTO content (node, version, token, synced, stamp_ns, used_ns)"
            " VALUES (?, ?, ?, 0, 0, ?)",
            (node, version, token, used_ns),
        )
        held = _Held(version, token, False, RangeMap())
        self._keep(node, held)
        self._unsynced.add(node)
        self._changes[node] = next(self._clock)
        return held

    def _mark(self, node: NodeId, held: _Held) -> None:
        self._touch(node)
        self._changes[node] = next(self._clock)
        if held.synced:
            self._db.execute("UPDATE content SET synced = 0 WHERE node = ?", (node,))
            held.synced = False
            self._unsynced.add(node)

    def mark_synced(self, stamps: Iterable[tuple[NodeId, int]]) -> None:
        """The files are durable as of their mtimes. Needs a transaction around it."""
        rows = [(stamp_ns, node) for node, stamp_ns in stamps if node in self._unsynced]
        for _, node in rows:
            self._touch(node)
            held = self._cache.get(node)
            if held is not None:
                held.synced = True
            self._unsynced.discard(node)
            self._changes.pop(node, None)
        self._db.execute_many("UPDATE content SET synced = 1, stamp_ns = ? WHERE node = ?", rows)

    def _touch(self, node: NodeId) -> None:
        """What memory knows of the node is void when the transaction rolls back."""
        self._db.on_rollback(self._revert, node, node in self._unsynced)

    def _revert(self, node: NodeId, unsynced: bool) -> None:
        self._cache.pop(node, None)
        self._usage = None
        self._changes[node] = next(self._clock)
        if unsynced:
            self._unsynced.add(node)
        else:
            self._unsynced.discard(node)

    def _count(self, by: int) -> None:
        if self._usage is not None:
            self._usage += by

    def _leave(self, node: NodeId, version: int) -> None:
        """Delete a version after the commit; until then its path is not used again."""
        if not self._leaving:
            self._db.on_commit(self._leaving.clear)
            self._db.on_rollback(self._leaving.clear)
        self._leaving[node] = version
        self._files.delete_after_commit(self._files.path("content", node, version))

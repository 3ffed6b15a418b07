"""Base variants: content as it was before the first local change.

A base is not worth an fsync on the event loop: its row says ``synced = 0`` until the next
sync, and after a power cut such bases are dropped. What is lost is a three-way merge.
"""

from __future__ import annotations

import os
from typing import Final

from msgspec import Struct

from awayfs.core.types import NodeId, Range
from awayfs.store.db import Database
from awayfs.store.files import Files, clone_or_copy, unlink_quietly
from awayfs.store.ranges import pack, unpack

_AT_ONCE: Final = 1 << 20
"""So much is copied when it is needed; more is offered by somebody who could wait for it."""


class BaseCopy(Struct, frozen=True):
    """A copy of content that may become a base: while ``state`` is the content's still."""

    node: NodeId
    source: str
    staged: str
    ranges: tuple[Range, ...]
    limit: int
    state: tuple[object, ...]

    def run(self) -> None:
        """Blocking, any thread. Raises OSError; then there is no copy."""
        clone_or_copy(self.source, self.staged, self.ranges, self.limit)


class Bases:
    """Base content by node, at most one each."""

    def __init__(self, db: Database, files: Files) -> None:
        self._db = db
        self._files = files
        self._versions: dict[NodeId, int] = dict(db.rows("SELECT node, version FROM bases"))
        self._serial = max(self._versions.values(), default=0)
        self._offered: dict[NodeId, BaseCopy] = {}
        self._shares_blocks: bool | None = None

    def copy_of(
        self,
        node: NodeId,
        source: str,
        ranges: list[Range],
        limit: int,
        state: tuple[object, ...],
    ) -> BaseCopy | None:
        """The copy that ``keep`` would have to make, if that takes long and is not made yet."""
        total = sum(r.end - r.start for r in ranges)
        if not _AT_ONCE < total <= limit or self.path(node) is not None:
            return None
        offered = self._offered.get(node)
        if (offered is not None and offered.state == state) or self._can_share(source):
            return None
        return BaseCopy(node, source, self._files.stage_path(), tuple(ranges), limit, state)

    def offer(self, copy: BaseCopy) -> None:
        """Such a copy was made; ``keep`` takes it if it is of the same content."""
        old = self._offered.pop(copy.node, None)
        if old is not None:
            unlink_quietly(old.staged)
        self._offered[copy.node] = copy

    def _can_share(self, source: str) -> bool:
        """Whether a reflink costs nothing here."""
        if self._shares_blocks is None:
            probe = self._files.stage_path()
            try:
                self._shares_blocks = clone_or_copy(source, probe, (), -1) is not None
            except OSError:
                return True  # then there is nothing to copy either
            unlink_quietly(probe)
        return self._shares_blocks

    def _take_offered(self, node: NodeId, state: tuple[object, ...], path: str) -> int | None:
        """Bytes of the offered copy, which is at ``path`` now; None without a right one."""
        offered = self._offered.pop(node, None)
        if offered is None:
            return None
        if offered.state != state:
            unlink_quietly(offered.staged)
            return None
        os.rename(offered.staged, path)
        return sum(r.end - r.start for r in offered.ranges)

    def keep(
        self,
        node: NodeId,
        source: str,
        ranges: list[Range],
        token: bytes | None,
        limit: int,
        state: tuple[object, ...] = (),
    ) -> bool:
        """Keep ``ranges`` of the file ``source`` unless there is a base (``Content.keep_base``)."""
        if self.path(node) is not None:
            return True
        self._serial += 1
        path = self._files.path("base", node, self._serial)
        try:
            copied = self._take_offered(node, state, path)
            if copied is None:
                copied = clone_or_copy(source, path, ranges, limit)
        except OSError:
            return False
        if copied is None:
            return False
        with self._db.transaction():
            self._db.on_rollback(unlink_quietly, path)
            self._db.execute(
                "INSERT INTO bases VALUES (?, ?, ?, ?, ?, 0)",
                (node, self._serial, token, pack(ranges), copied),
            )
            self._db.on_rollback(self._versions.pop, node)
            self._versions[node] = self._serial
        return True

    def path(self, node: NodeId) -> str | None:
        """Where the base's content is."""
        version = self._versions.get(node)
        return None if version is None else self._files.path("base", node, version)

    def ranges(self, node: NodeId) -> list[Range]:
        row = self._db.row("SELECT ranges FROM bases WHERE node = ?", (node,))
        return [] if row is None else unpack(row[0])

    def token(self, node: NodeId) -> bytes | None:
        token: bytes | None = self._db.value("SELECT token FROM bases WHERE node = ?", (node,))
        return token

    def set_token(self, node: NodeId, token: bytes) -> None:
        """The server has given another token to this very content."""
        with self._db.transaction():
            self._db.execute("UPDATE bases SET token = ? WHERE node = ?", (token, node))

    def drop(self, node: NodeId) -> None:
        """No base any more: the row now, the file after the commit."""
        version = self._versions.get(node)
        if version is not None:
            with self._db.transaction():
                self._db.execute("DELETE FROM bases WHERE node = ?", (node,))
                self._db.on_rollback(self._versions.__setitem__, node, version)
                del self._versions[node]
                self._files.delete_for_good_after_commit(self._files.path("base", node, version))

    def unsynced(self) -> list[NodeId]:
        """Nodes whose base may not be durable."""
        return [row[0] for row in self._db.rows("SELECT node FROM bases WHERE synced = 0")]

    def mark_synced(self, node: NodeId, path: str) -> None:
        """The base at ``path`` is durable; nothing if it is another one by now."""
        if self.path(node) == path:
            self._db.execute("UPDATE bases SET synced = 1 WHERE node = ?", (node,))

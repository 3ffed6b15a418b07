"""A tree of names over node ids; there are two of them, the local one and the server's."""

from __future__ import annotations

import errno
import os
from bisect import insort

from awayfs.core.types import ROOT, NodeId
from awayfs.store.db import ConstraintError, Database
from awayfs.store.remembered import Remembered

_DEEPEST = 10_000
"""More directories above a node than this is a cycle."""


class Names:
    """Rows (parent, name, node) of one table. Writing needs a transaction around it."""

    def __init__(self, db: Database, table: str) -> None:
        self._db = db
        self._known = Remembered[NodeId, list[tuple[NodeId, bytes]]](db)
        t = table  # a constant of this package, never input
        self._child = f"SELECT node FROM {t} WHERE parent = ? AND name = ?"  # noqa: S608
        self._names = f"SELECT parent, name FROM {t} WHERE node = ?"  # noqa: S608
        self._any = f"SELECT 1 FROM {t} WHERE parent = ? LIMIT 1"  # noqa: S608
        self._children = f"SELECT name, node FROM {t} WHERE parent = ? ORDER BY name"  # noqa: S608
        self._below = (
            f"WITH RECURSIVE below (id) AS (VALUES (?) UNION SELECT {t}.node FROM {t}"  # noqa: S608
            f" JOIN below ON {t}.parent = below.id) SELECT id FROM below"
        )
        self._add = f"INSERT INTO {t} VALUES (?, ?, ?)"  # noqa: S608
        self._remove = f"DELETE FROM {t} WHERE parent = ? AND name = ?"  # noqa: S608

    def child(self, parent: NodeId, name: bytes) -> NodeId | None:
        """The node that a name leads to."""
        row = self._db.row_now(self._child, (parent, name))
        return None if row is None else row[0]

    def children(self, parent: NodeId) -> list[tuple[bytes, NodeId]]:
        """Names in a directory, ordered."""
        return self._db.rows(self._children, (parent,))

    def has_children(self, parent: NodeId) -> bool:
        return self._db.row(self._any, (parent,)) is not None

    def of(self, node: NodeId) -> list[tuple[NodeId, bytes]]:
        """All names of a node, ordered by parent and name."""
        return list(self._of(node))

    def _of(self, node: NodeId) -> list[tuple[NodeId, bytes]]:
        known = self._known.get(node)
        if known is None:
            known = self._db.rows(self._names, (node,))
            self._known.keep(node, known)
        return known

    def forget(self, node: NodeId) -> None:
        """A node's names were changed by others."""
        self._known.forget(node)

    def below(self, node: NodeId) -> list[NodeId]:
        """The node and everything inside it, at any depth, each once."""
        return [row[0] for row in self._db.rows(self._below, (node,))]

    def parent(self, node: NodeId) -> NodeId | None:
        """The directory of the first name."""
        known = self._of(node)
        return known[0][0] if known else None

    def path(self, node: NodeId) -> bytes | None:
        """Path by first names; ``b""`` for the root; None without a name up to the root."""
        parts: list[bytes] = []
        while node != ROOT:
            known = self._known.get(node) or self._of(node)
            if not known or len(parts) > _DEEPEST:
                return None
            node, name = known[0]
            parts.append(name)
        return b"/".join(reversed(parts))

    def above(self, node: NodeId) -> list[NodeId]:
        """The node and the directories above it, by first names, as far as that leads."""
        way: list[NodeId] = []
        at: NodeId | None = node
        while at is not None and at not in way:
            way.append(at)
            at = self.parent(at)
        return way

    def is_ancestor(self, ancestor: NodeId, node: NodeId) -> bool:
        """Whether ``ancestor`` is above ``node`` (by first names), or is it."""
        for _ in range(_DEEPEST):
            if node == ancestor:
                return True
            parent = self.parent(node)
            if parent is None:
                return False
            node = parent
        return False

    def add(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        """Raises FileExistsError where the name is taken."""
        try:
            self._db.execute(self._add, (parent, name, node))
        except ConstraintError:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        known = self._known.get(node)
        if known is not None:
            insort(known, (parent, name))

    def remove(self, parent: NodeId, name: bytes) -> None:
        """Raises FileNotFoundError where there is no such name."""
        node = self.child(parent, name)
        if node is None:
            raise missing(name)
        self._known.forget(node)
        self._db.execute(self._remove, (parent, name))


def missing(what: object) -> FileNotFoundError:
    """ENOENT for a name or a node id."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(what))

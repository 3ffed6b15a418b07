"""The local tree: nodes, their names and xattrs."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from msgspec import Struct

from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.db import Database, Row
from awayfs.store.names import Names, missing
from awayfs.store.remembered import Remembered

KINDS: Final[dict[int, Kind]] = {int(kind): kind for kind in Kind}
_DIRECTORY: Final = int(Kind.DIRECTORY)

LOST: Final = 1 << 20
"""More nodes than can be made between two commits that a power cut lets us lose."""

_COLUMNS: Final = (
    "id, kind, mode, uid, gid, rdev, size, atime_ns, mtime_ns, ctime_ns, btime_ns, nlink, target"
)
_CHANGEABLE: Final = frozenset(_COLUMNS.split(", ")) - {"id", "nlink"}
_GET: Final = f"SELECT {_COLUMNS} FROM nodes WHERE id = ?"  # noqa: S608
_SOME: Final = f"SELECT {_COLUMNS} FROM nodes WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
_CHILD: Final = (
    f"SELECT {_COLUMNS} FROM nodes WHERE id ="  # noqa: S608
    " (SELECT node FROM names WHERE parent = ? AND name = ?)"
)
_CHILDREN: Final = (
    f"SELECT {_COLUMNS}, name FROM names JOIN nodes ON nodes.id = names.node"  # noqa: S608
    " WHERE parent = ? ORDER BY name"
)
_DIRECTORIES: Final = (
    "SELECT name, node FROM names JOIN nodes ON nodes.id = names.node"
    " WHERE parent = ? AND name > ? AND kind = ? ORDER BY name LIMIT ?"
)
_NAMED: Final = "SELECT 1 FROM names WHERE node = ? LIMIT 1"
_INSERT: Final = f"INSERT INTO nodes ({_COLUMNS}) VALUES (NULL, ?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
_LINKS: Final = "UPDATE nodes SET nlink = nlink + ? WHERE id = ?"


class Node(Struct):
    """One file system object as this machine shows it; times in ns, sizes in bytes."""

    id: NodeId
    kind: Kind
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    nlink: int
    target: bytes | None


def _node(row: Row) -> Node:
    return Node(row[0], KINDS[row[1]], *row[2:13])


class Nodes:
    """Reading is free of side effects; each change is a transaction or joins the current one.

    ``on_size`` and ``on_remove`` are told of new sizes and of removed nodes, so that the
    other parts of the store follow. ``on_move`` is told of a node whose path may be another now,
    and whether it is a directory.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._names = Names(db, "names")
        self.child_id = self._names.child
        self.has_children = self._names.has_children
        self.names = self._names.of
        self.parent = self._names.parent
        self.path = self._names.path
        self.above = self._names.above
        self.is_ancestor = self._names.is_ancestor
        self.below = self._names.below
        self._rows = Remembered[NodeId, Row](db)
        self.on_size: list[Callable[[NodeId, int], None]] = []
        self.on_remove: list[Callable[[NodeId], None]] = []
        self.on_move: list[Callable[[NodeId, bool], None]] = []
        self._watched: dict[bytes, Callable[[], None]] = {}
        self._named: dict[bytes, dict[NodeId, NodeId]] = {}

    def get(self, node: NodeId) -> Node | None:
        if self._db.has_deferred:
            self._db.settle()
        return self.get_now(node)

    def get_now(self, node: NodeId) -> Node | None:
        """``get``, less what is deferred: for who knows the size and times of open files."""
        row = self._rows.get(node)
        if row is None:
            row = self._db.row_now(_GET, (node,))
            if row is None:
                return None
            self._rows.keep(node, row)
        return _node(row)

    def foresee(self, nodes: Iterable[NodeId]) -> None:
        """Some will be asked for soon: read them at once, which takes less time than one by one."""
        unknown = [node for node in nodes if node not in self._rows]
        for row in self._db.rows(_SOME, (json.dumps(unknown),)) if unknown else ():
            self._rows.keep(row[0], row)

    def touched(self, directory: Node, now_ns: int) -> None:
        """A directory has got a file just now, in a transaction that is over.

        The kernel asks for its attributes, and it mostly gets one more: so they are remembered.
        """
        if self._db.in_transaction:
            return
        d = directory
        times = (d.atime_ns, now_ns, now_ns, d.btime_ns)
        row = (d.id, d.kind, d.mode, d.uid, d.gid, d.rdev, d.size, *times, d.nlink, d.target)
        self._rows.keep(d.id, row)

    def child(self, parent: NodeId, name: bytes) -> Node | None:
        """The node that a name in a directory leads to."""
        row = self._db.row_now(_CHILD, (parent, name))
        if row is not None and self._db.has_deferred:
            row = self._db.row(_CHILD, (parent, name))
        return None if row is None else Node(row[0], KINDS[row[1]], *row[2:])

    def is_named(self, node: NodeId) -> bool:
        """Whether it has a name."""
        return self._db.row_now(_NAMED, (node,)) is not None

    def children(self, parent: NodeId) -> list[tuple[bytes, Node]]:
        """Names and nodes in a directory, ordered by name."""
        return [(row[13], _node(row)) for row in self._db.rows(_CHILDREN, (parent,))]

    def directories(self, parent: NodeId, after: bytes, limit: int) -> list[tuple[bytes, NodeId]]:
        """The first directories in a directory whose names come after a name, by name."""
        return self._db.rows(_DIRECTORIES, (parent, after, _DIRECTORY, limit))

    def resolve(self, path: bytes) -> Node | None:
        """The node at a path relative to the root, symlinks not followed."""
        node: NodeId | None = ROOT
        for part in path.split(b"/"):
            if part and node is not None:
                node = self.child_id(node, part)
        return None if node is None else self.get(node)

    def named(self, name: bytes) -> list[tuple[NodeId, NodeId]]:
        """(directory, node) of everything of one name. Looks at all names the first time."""
        if name not in self._named:
            rows = self._db.rows("SELECT parent, node FROM names WHERE name = ?", (name,))
            self._named[name] = {row[0]: row[1] for row in rows}
        return sorted(self._named[name].items())

    def watch(self, name: bytes, call: Callable[[], None]) -> None:
        """Have ``call`` called when something gets, or loses, a name."""
        self._watched[name] = call

    def _moved(self, node: NodeId, directory: bool) -> None:
        for call in self.on_move:
            call(node, directory)
            self._db.on_rollback(call, node, directory)

    def _renamed(self, parent: NodeId, name: bytes, node: NodeId | None) -> None:
        if name in self._watched:
            self._db.on_rollback(self._named.pop, name, None)
            named = self._named.get(name)
            if named is not None and node is None:
                named.pop(parent, None)
            elif named is not None and node is not None:
                named[parent] = node
            self._watched[name]()

    def count(self) -> int:
        """Number of nodes, the root included."""
        return int(self._db.value("SELECT count(*) FROM nodes"))

    def orphans(self) -> list[NodeId]:
        """Nodes without a name, the root left out."""
        rows = self._db.rows(
            "SELECT id FROM nodes WHERE id != ? AND NOT EXISTS"
            " (SELECT 1 FROM names WHERE node = id) ORDER BY id",
            (ROOT,),
        )
        return [row[0] for row in rows]

    def add(
        self,
        kind: Kind,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        size: int = 0,
        atime_ns: int,
        mtime_ns: int,
        ctime_ns: int,
        btime_ns: int,
        target: bytes | None = None,
        place: tuple[NodeId, bytes] | None = None,
    ) -> Node:
        """A new node, under a free name in a directory (else EEXIST) or without a name.

        nlink is the number of names, and 2 for a directory.
        """
        links = 2 if kind == _DIRECTORY else int(place is not None)
        times = (atime_ns, mtime_ns, ctime_ns, btime_ns)
        with self._db.transaction():
            node = self._db.insert(
                _INSERT, (kind, mode, uid, gid, rdev, size, *times, links, target)
            )
            if place is not None:
                self._names.add(*place, node)
                if kind == _DIRECTORY:
                    self._link(place[0], 1)
        return Node(node, KINDS[kind], mode, uid, gid, rdev, size, *times, links, target)

    def skip_ids(self) -> None:
        """Pass over the ids that may have been given out for nodes that are lost.

        Somebody may know such an id (an inode number, a file handle): it must not mean another
        node one day.
        """
        self._db.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'nodes'", (LOST,))

    def update(self, node: NodeId, **columns: Any) -> None:
        """Set columns by name (not id and nlink). Unknown ones: ValueError; no node: ENOENT."""
        if not columns:
            return
        with self._db.transaction():
            self._rows.forget(node)
            if self._db.execute(_update(tuple(columns)), (*columns.values(), node)) == 0:
                raise missing(node)
            if "size" in columns:
                for call in self.on_size:
                    call(node, columns["size"])

    def add_name(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        """One more name. A directory can have one only (EPERM), and never one inside itself
        (EINVAL); a taken name is EEXIST.
        """
        with self._db.transaction():
            kind = self._kind(node)
            if kind == _DIRECTORY and (node == ROOT or self.parent(node) is not None):
                raise OSError(errno.EPERM, "a directory can have one name only", name)
            if kind == _DIRECTORY and self.is_ancestor(node, parent):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
            self._names.add(parent, name, node)
            self._renamed(parent, name, node)
            self._moved(node, kind == _DIRECTORY)
            self._link(parent if kind == _DIRECTORY else node, 1)

    def remove_name(self, parent: NodeId, name: bytes) -> None:
        """Take a name away; the node stays, if need be as an orphan."""
        with self._db.transaction():
            node = self.child_id(parent, name)
            if node is None:
                raise missing(name)
            self._names.remove(parent, name)
            self._renamed(parent, name, None)
            directory = self._kind(node) == _DIRECTORY
            self._moved(node, directory)
            self._link(parent if directory else node, -1)

    def move_name(self, parent: NodeId, name: bytes, to_parent: NodeId, to_name: bytes) -> None:
        """Rename to a free name (else EEXIST); a directory never into itself (EINVAL)."""
        with self._db.transaction():
            node = self.child_id(parent, name)
            if node is None:
                raise missing(name)
            directory = self._kind(node) == _DIRECTORY
            if directory and parent != to_parent and self.is_ancestor(node, to_parent):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), to_name)
            self._names.add(to_parent, to_name, node)
            self._names.remove(parent, name)
            self._renamed(to_parent, to_name, node)
            self._renamed(parent, name, None)
            self._moved(node, directory)
            if directory and parent != to_parent:
                self._link(parent, -1)
                self._link(to_parent, 1)

    def remove(self, node: NodeId) -> None:
        """Forget a node and everything of it: names, xattrs, server view, content, pin.

        Content files go after the commit. A directory must be empty (ENOTEMPTY).
        """
        with self._db.transaction():
            if self.has_children(node):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(node))
            for parent, name in self.names(node):
                self.remove_name(parent, name)
            for call in self.on_remove:
                call(node)
            self._db.execute("DELETE FROM xattrs WHERE node = ?", (node,))
            self._db.execute("DELETE FROM xattr_bases WHERE node = ?", (node,))
            self._db.execute("DELETE FROM nodes WHERE id = ?", (node,))
            self._rows.forget(node)

    def _link(self, node: NodeId, by: int) -> None:
        self._rows.forget(node)
        self._db.execute(_LINKS, (by, node))

    def _kind(self, node: NodeId) -> int:
        found = self.get_now(node)
        if found is None:
            raise missing(node)
        return int(found.kind)

    # -- xattrs -------------------------------------------------------------------------

    def xattrs(self, node: NodeId) -> dict[bytes, bytes]:
        return dict(self._db.rows("SELECT name, value FROM xattrs WHERE node = ?", (node,)))

    def set_xattr(self, node: NodeId, name: bytes, value: bytes | None) -> None:
        """Set one, or with None remove it (fine if there is none)."""
        with self._db.transaction():
            if value is None:
                self._db.execute("DELETE FROM xattrs WHERE node = ? AND name = ?", (node, name))
            else:
                self._db.execute(
                    "INSERT OR REPLACE INTO xattrs VALUES (?,?,?)", (node, name, value)
                )

    def keep_base_xattr(self, node: NodeId, name: bytes, value: bytes | None) -> None:
        """Note what one was before its first unsent change; None: it was not there."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO xattr_bases VALUES (?,?,?)", (node, name, value)
            )

    def base_xattrs(self, node: NodeId) -> dict[bytes, bytes | None]:
        """What was noted; of attributes with no unsent change it may be outdated."""
        return dict(self._db.rows("SELECT name, value FROM xattr_bases WHERE node = ?", (node,)))


@cache
def _update(columns: tuple[str, ...]) -> str:
    """The UPDATE statement for a set of columns, checked once."""
    unknown = set(columns) - _CHANGEABLE
    if unknown:
        raise ValueError(f"not columns of a node: {', '.join(sorted(unknown))}")
    return f"UPDATE nodes SET {', '.join(c + ' = ?' for c in columns)} WHERE id = ?"  # noqa: S608

"""The server's view: what was last seen there and adopted; the base of every change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.db import Database, Row
from awayfs.store.facts import Facts
from awayfs.store.names import Names, missing
from awayfs.store.nodes import KINDS
from awayfs.store.remembered import Remembered

_EPOCH: Final = "server.epoch"
_FIELDS: Final = (
    "kind, mode, uid, gid, size, mtime_ns, token, weak, file_id, nlink, rdev, target,"
    " ctime_ns, btime_ns"
)
_GET: Final = f"SELECT node, {_FIELDS}, digest, seen_ns, epoch FROM server_nodes WHERE node = ?"  # noqa: S608
_CHILDREN: Final = (
    f"SELECT server_nodes.node, {_FIELDS}, digest, seen_ns, epoch, name"  # noqa: S608
    " FROM server_names JOIN server_nodes ON server_nodes.node = server_names.node"
    " WHERE parent = ? ORDER BY name"
)
_DOUBT: Final = (
    "DELETE FROM server_fingerprints"
    " WHERE directory IN (SELECT parent FROM server_names WHERE node = ?)"
)
_LISTED_WITH: Final = (
    "SELECT max(l.listed_ns) FROM server_names n"
    " JOIN server_fingerprints f ON f.directory = n.parent"
    " JOIN server_listings l ON l.directory = n.parent WHERE n.node = ? AND l.epoch = ?"
)
_OTHER_TIMES: Final = (
    "SELECT s.node FROM server_names n JOIN server_nodes s ON s.node = n.node"
    " JOIN nodes l ON l.id = n.node"
    " WHERE n.parent = ? AND s.kind = ? AND l.mtime_ns != s.mtime_ns ORDER BY s.node"
)
_PAGE: Final = 10_000


def _without(one: str, other: str, known: str, at_all: bool) -> tuple[str, str]:
    """Queries for the last name of a page of one tree's, and for those that the other has not,
    or not ``at_all``, of nodes that a table knows.
    """
    page = f"FROM {one} WHERE parent = ? AND name > ?"
    same = f"SELECT 1 FROM {other} o WHERE o.parent = {one}.parent AND o.name = {one}.name"  # noqa: S608
    same += "" if at_all else f" AND o.node = {one}.node"
    return (
        f"SELECT max(name) FROM (SELECT name {page} ORDER BY name LIMIT ?)",  # noqa: S608
        f"SELECT name, node {page} AND name <= ? AND NOT EXISTS ({same})"  # noqa: S608
        f" AND EXISTS (SELECT 1 FROM {known} s WHERE s.node = {one}.node)",
    )


_NOT_HERE: Final = _without("server_names", "names", "server_names", at_all=False)
_ONLY_HERE: Final = _without("names", "server_names", "server_nodes", at_all=True)
_CHILDREN_KNOWN: Final = (
    "SELECT EXISTS (SELECT 1 FROM server_listings WHERE directory = ?)"
    " OR NOT EXISTS (SELECT 1 FROM server_nodes WHERE node = ?)"
)
_SET: Final = (
    f"INSERT INTO server_nodes (node, {_FIELDS}, seen_ns, epoch, digest)"  # noqa: S608
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT (node) DO UPDATE SET digest = CASE WHEN excluded.digest IS NULL"
    " AND token = excluded.token THEN digest ELSE excluded.digest END, "
    + ", ".join(f"{c} = excluded.{c}" for c in f"{_FIELDS}, seen_ns, epoch".split(", "))
)


class ServerNode(Struct):
    """What stands on the server for a node, as far as is known.

    ``digest`` is BLAKE2b-256 of the content of this revision, if known. ``seen_ns`` is when
    it was seen, 0 after ``stale_all``.
    """

    node: NodeId
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    token: bytes
    weak: bool
    file_id: bytes | None
    nlink: int
    rdev: int
    target: bytes | None
    ctime_ns: int | None
    btime_ns: int | None
    digest: bytes | None
    seen_ns: int

    def entry(self, name: bytes = b"") -> Entry:
        """The same as a remote's ``Entry``."""
        return Entry(
            name=name,
            kind=self.kind,
            mode=self.mode,
            uid=self.uid,
            gid=self.gid,
            size=self.size,
            mtime_ns=self.mtime_ns,
            token=self.token,
            weak=self.weak,
            file_id=self.file_id,
            nlink=self.nlink,
            rdev=self.rdev,
            target=self.target,
            ctime_ns=self.ctime_ns,
            btime_ns=self.btime_ns,
        )


Seen = NodeId | tuple[NodeId, bytes]
"""What was seen or became otherwise: a node, or a name in a directory."""
Noted = set[Seen]


class ServerView:
    """Server nodes, the server's names, and when directories were listed."""

    def __init__(self, db: Database, facts: Facts) -> None:
        self._db = db
        self._facts = facts
        self._names = Names(db, "server_names")
        self._rows = Remembered[NodeId, Row | None](db)  # None: it is not there
        self._epoch = int(facts.get(_EPOCH) or 0)
        self._noting: list[Noted] = []
        self.child = self._names.child
        self.children = self._names.children
        self.names = self._names.of
        self.below = self._names.below
        self.path = self._names.path
        self.above = self._names.above

    def get(self, node: NodeId) -> ServerNode | None:
        if node in self._rows:
            row = self._rows[node]
        else:
            row = self._db.row_now(_GET, (node,))
            self._rows.keep(node, row)
        return None if row is None else self._node(row)

    def children_seen(self, directory: NodeId) -> Iterator[tuple[bytes, ServerNode]]:
        """Names and nodes in a directory, by name, as they are when this is called."""
        rows = self._db.rows(_CHILDREN, (directory,))
        return ((row[18], self._node(row)) for row in rows)

    def _node(self, row: Row) -> ServerNode:
        seen = row[16] if row[17] == self._epoch else 0
        fields = (*row[2:8], bool(row[8]), *row[9:16], seen)
        return ServerNode(row[0], KINDS[row[1]], *fields)

    def set(self, node: NodeId, entry: Entry, *, seen_ns: int, digest: bytes | None = None) -> None:
        """Adopt an observation. A known digest stays while the token does."""
        self._note(node)
        e = entry
        shape = (int(e.kind), e.mode, e.uid, e.gid, e.size, e.mtime_ns)
        identity = (e.token, int(e.weak), e.file_id, e.nlink, e.rdev, e.target)
        values = (node, *shape, *identity, e.ctime_ns, e.btime_ns, seen_ns, self._epoch, digest)
        with self._db.transaction():
            self._rows.forget(node)
            self._db.execute(_SET, values)

    def set_digest(self, node: NodeId, digest: bytes | None) -> None:
        """Note the digest of the current revision."""
        with self._db.transaction():
            self._rows.forget(node)
            self._db.execute("UPDATE server_nodes SET digest = ? WHERE node = ?", (digest, node))

    def touch(self, node: NodeId, seen_ns: int) -> None:
        """Seen again, unchanged; with 0, what was seen before counts no more."""
        self._note(node)
        with self._db.transaction():
            self._rows.forget(node)
            self._db.execute(
                "UPDATE server_nodes SET seen_ns = ?, epoch = ? WHERE node = ?",
                (seen_ns, self._epoch, node),
            )
            if not seen_ns:
                self._db.execute(_DOUBT, (node,))

    def touch_all(self, nodes: Sequence[NodeId], seen_ns: int) -> None:
        """Seen again, unchanged, all at one moment."""
        self._note(*nodes)
        with self._db.transaction():
            for node in nodes:
                self._rows.forget(node)
            self._db.execute_many(
                "UPDATE server_nodes SET seen_ns = max(seen_ns * (epoch = ?1), ?2), epoch = ?1"
                " WHERE node = ?3",
                [(self._epoch, seen_ns, node) for node in nodes],
            )

    def seen_ns(self, node: NodeId) -> int | None:
        """When a node was seen last, alone or in a listing that was as all of it is known here.

        None for a node that is not on the server, 0 if it was not since ``stale_all``.
        """
        row = self._db.row("SELECT seen_ns, epoch FROM server_nodes WHERE node = ?", (node,))
        if row is None:
            return None
        alone = row[0] if row[1] == self._epoch else 0
        return max(alone, self._db.value(_LISTED_WITH, (node, self._epoch)) or 0)

    def forget(self, node: NodeId) -> None:
        """No longer on the server: its row, its names and that it was listed.

        Names inside a directory stay for the caller to walk; forgetting those nodes removes
        them.
        """
        self._note(node, *self.names(node))
        with self._db.transaction():
            self._rows.forget(node)
            self._db.execute("DELETE FROM server_nodes WHERE node = ?", (node,))
            self._db.execute("DELETE FROM server_names WHERE node = ?", (node,))
            self._names.forget(node)
            self.set_listed(node, None)

    def purge(self, node: NodeId) -> None:
        """``forget`` for a node that ceases to exist: also the names inside it."""
        with self._db.transaction():
            self.forget(node)
            for name, _ in self.children(node):
                self._names.remove(node, name)

    def by_file_id(self, file_id: bytes) -> NodeId | None:
        """A node that bears this identity on the server (the lowest id of hard links)."""
        row = self._db.row(
            "SELECT node FROM server_nodes WHERE file_id = ? ORDER BY node LIMIT 1", (file_id,)
        )
        return None if row is None else row[0]

    def youngest(self, limit: int, since_ns: int = 0) -> list[NodeId]:
        """Files, and directories, that changed last there, of what was seen after ``since_ns``,
        alone or in a listing that was as all of it is known here.
        """
        query = (
            "SELECT node FROM server_nodes WHERE (kind = ?2) = ?3 AND (seen_ns > ?1 OR EXISTS"
            " (SELECT 1 FROM server_names n JOIN server_fingerprints f ON f.directory = n.parent"
            " JOIN server_listings l ON l.directory = n.parent"
            " WHERE n.node = server_nodes.node AND l.listed_ns > ?1))"
            " ORDER BY COALESCE(ctime_ns, mtime_ns) DESC LIMIT ?4"
        )
        values = [(since_ns, int(Kind.DIRECTORY), wanted, limit) for wanted in (0, 1)]
        return [node for given in values for (node,) in self._db.rows(query, given)]

    # -- what changes while somebody waits ----------------------------------------------

    @contextmanager
    def noting(self) -> Iterator[Noted]:
        """A set that gets all that is seen, or becomes otherwise, until the end of the block.

        What a rolled back transaction did is in it, too.
        """
        noted: Noted = set()
        self._noting.append(noted)
        try:
            yield noted
        finally:
            self._noting = [one for one in self._noting if one is not noted]

    def seen(self, parent: NodeId, name: bytes) -> None:
        """A name was seen to lead where it is known to lead."""
        self._note((parent, name))

    def _note(self, *seen: Seen) -> None:
        for noted in self._noting:
            noted.update(seen)

    # -- names --------------------------------------------------------------------------

    def directories_of_other_times(self, directory: NodeId) -> list[NodeId]:
        """Directories in a directory of the server that show another time here."""
        return [node for (node,) in self._db.rows(_OTHER_TIMES, (directory, int(Kind.DIRECTORY)))]

    def kinds(self, directory: NodeId) -> list[tuple[bytes, Kind]]:
        """Names in a directory with what they are, ordered."""
        rows = self._db.rows(
            "SELECT n.name, s.kind FROM server_names n JOIN server_nodes s ON s.node = n.node"
            " WHERE n.parent = ? ORDER BY n.name",
            (directory,),
        )
        return [(name, KINDS[kind]) for name, kind in rows]

    def add_name(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        """A name stands on the server. Raises FileExistsError where one is known."""
        self._note((parent, name))
        with self._db.transaction():
            self._names.add(parent, name, node)

    def remove_name(self, parent: NodeId, name: bytes) -> None:
        """A name is gone. Raises FileNotFoundError where none was known."""
        self._note((parent, name))
        with self._db.transaction():
            self._names.remove(parent, name)

    def move_name(self, parent: NodeId, name: bytes, to_parent: NodeId, to_name: bytes) -> None:
        """A name was renamed; the new one must be free."""
        self._note((parent, name), (to_parent, to_name))
        with self._db.transaction():
            node = self.child(parent, name)
            if node is None:
                raise missing(name)
            self._names.add(to_parent, to_name, node)
            self._names.remove(parent, name)

    def not_here(self, directory: NodeId) -> Iterator[list[tuple[bytes, NodeId]]]:
        """Names in a directory of the server that its nodes do not have here, with these.

        A page after the other, each as it is then: a directory may be large.
        """
        return self._in_pages(_NOT_HERE, directory)

    def only_here(self, directory: NodeId) -> Iterator[list[tuple[bytes, NodeId]]]:
        """Names in a directory here that nothing has on the server, of nodes that it has, or has
        had, under others; likewise.
        """
        return self._in_pages(_ONLY_HERE, directory)

    def _in_pages(
        self, queries: tuple[str, str], directory: NodeId
    ) -> Iterator[list[tuple[bytes, NodeId]]]:
        after: bytes = b""
        while (end := self._db.value(queries[0], (directory, after, _PAGE))) is not None:
            yield self._db.rows(queries[1], (directory, after, end))
            after = end

    # -- freshness ----------------------------------------------------------------------

    def children_known(self, directory: NodeId) -> bool:
        """Whether the children known here are all there are: listed once, or made here."""
        return bool(self._db.row_now(_CHILDREN_KNOWN, (directory, directory)) == (1,))

    def listed_ns(self, directory: NodeId) -> int | None:
        """When a directory was listed: None never, 0 before the last ``stale_all``."""
        row = self._db.row(
            "SELECT listed_ns, epoch FROM server_listings WHERE directory = ?", (directory,)
        )
        if row is None:
            return None
        return row[0] if row[1] == self._epoch else 0

    def set_listed(
        self, directory: NodeId, ns: int | None, fingerprint: bytes | None = None
    ) -> None:
        """The names of a directory are complete as of ``ns``; None: they are not.

        ``fingerprint``: of that listing, if all that is known of the entries is as it had them.
        """
        with self._db.transaction():
            self._db.execute("DELETE FROM server_fingerprints WHERE directory = ?", (directory,))
            if ns is None:
                self._db.execute("DELETE FROM server_listings WHERE directory = ?", (directory,))
                return
            self._db.execute(
                "INSERT OR REPLACE INTO server_listings VALUES (?, ?, ?)",
                (directory, ns, self._epoch),
            )
            if fingerprint is not None:
                self._db.execute(
                    "INSERT INTO server_fingerprints VALUES (?, ?)", (directory, fingerprint)
                )

    def fingerprint(self, directory: NodeId) -> bytes | None:
        """The fingerprint of the listing that is all that is known of a directory's entries."""
        found: bytes | None = self._db.value(
            "SELECT fingerprint FROM server_fingerprints WHERE directory = ?", (directory,)
        )
        return found

    def listed_again(self, directory: NodeId, ns: int, fingerprint: bytes) -> bool:
        """A directory was listed as before; False if by now something else is known of it."""
        if self.fingerprint(directory) != fingerprint:
            return False
        with self._db.transaction():
            done = self._db.execute(
                "UPDATE server_listings SET listed_ns = ?, epoch = ? WHERE directory = ?",
                (ns, self._epoch, directory),
            )
        return done == 1

    def forget_fingerprints(self) -> None:
        """The next listing of each directory is compared with all that is known."""
        with self._db.transaction():
            self._db.execute("DELETE FROM server_fingerprints")

    @property
    def epoch(self) -> int:
        """Another number after each ``stale_all``."""
        return self._epoch

    def stale_all(self) -> None:
        """Nothing counts as fresh any more: a new epoch, so that no row has to change."""
        with self._db.transaction():
            self._db.on_rollback(setattr, self, "_epoch", self._epoch)
            self._epoch += 1
            self._facts.set(_EPOCH, str(self._epoch))

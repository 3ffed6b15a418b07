"""Conflicts that wait for a decision, and their variant files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct

from awayfs.core.conflicts import ConflictKind
from awayfs.core.types import Entry, NodeId
from awayfs.store.db import Database, Row
from awayfs.store.files import Files
from awayfs.store.names import missing

WHICH: Final = ("base", "server", "merged")
_FIELDS: Final = (
    "node, kind, parent, name, detected_ns, record_seqs, base_token, server_entry,"
    " server_variant, server_complete, base_variant, note"
)
_SELECT: Final = f"SELECT id, {_FIELDS} FROM conflicts"  # noqa: S608
_NAMES: Final = (
    "SELECT c.id, c.node, c.kind, ifnull(n.parent, c.parent), ifnull(n.name, c.name)"
    " FROM conflicts c LEFT JOIN names n ON n.node = c.node"
)
_PLACES: Final = f"{_NAMES} GROUP BY c.id ORDER BY c.id"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class Conflict(Struct):
    """One conflict.

    ``record_seqs`` are the parked records. ``server_entry`` None: the server has nothing
    there. ``server_variant`` is the path of the server's content, None while it is not
    fetched, and ``server_complete`` says whether all of it is. ``base_variant``: the base's
    content is at ``variant_path(id, "base")``, if that is there.
    """

    id: int
    node: NodeId
    kind: str
    parent: NodeId
    name: bytes
    detected_ns: int
    record_seqs: tuple[int, ...] = ()
    base_token: bytes | None = None
    server_entry: Entry | None = None
    server_variant: str | None = None
    server_complete: bool = False
    base_variant: bool = False
    note: str = ""

    @property
    def shows_servers(self) -> bool:
        """Whether it is about what was removed here, and is shown again as the server has it."""
        return self.kind == ConflictKind.REMOVE_UPDATE and not self.record_seqs


class Place(Struct, frozen=True):
    """A conflict's place in the tree, without all the rest."""

    id: int
    node: NodeId
    kind: str
    parent: NodeId
    name: bytes


class Conflicts:
    """Conflicts by id; a node may have several. ``on_change`` hears of nodes, after the commit."""

    def __init__(self, db: Database, files: Files) -> None:
        self._db = db
        self._files = files
        self.on_change: list[Callable[[NodeId], None]] = []

    def _changed(self, node: NodeId) -> None:
        for call in self.on_change:
            self._db.on_commit(partial(call, node))

    def add(
        self,
        node: NodeId,
        kind: str,
        parent: NodeId,
        name: bytes,
        detected_ns: int,
        **fields: Any,
    ) -> Conflict:
        """A new conflict; ``fields`` are the other ones of ``Conflict``."""
        conflict = Conflict(0, node, str(kind), parent, name, detected_ns, **fields)
        values = self._values(conflict)
        marks = ", ".join("?" * len(values))
        with self._db.transaction():
            conflict.id = self._db.insert(
                f"INSERT INTO conflicts ({_FIELDS}) VALUES ({marks})",  # noqa: S608
                values,
            )
            self._changed(node)
        return conflict

    def get(self, conflict: int) -> Conflict | None:
        row = self._db.row(f"{_SELECT} WHERE id = ?", (conflict,))
        return None if row is None else self._conflict(row)

    def of_node(self, node: NodeId) -> list[Conflict]:
        """The conflicts of a node, oldest first."""
        rows = self._db.rows(f"{_SELECT} WHERE node = ? ORDER BY id", (node,))
        return [self._conflict(row) for row in rows]

    def all(self) -> list[Conflict]:
        """Oldest first."""
        return [self._conflict(row) for row in self._db.rows(f"{_SELECT} ORDER BY id")]

    def places(self) -> list[Place]:
        """Where each is shown, oldest first: the node's first name, else where it was found."""
        return [Place(*row) for row in self._db.rows(_PLACES)]

    def places_by_name(self) -> list[Place]:
        """The same, but one for each name of a node that has several."""
        return [Place(*row) for row in self._db.rows(_NAMES)]

    def nodes(self) -> set[NodeId]:
        """The nodes that have one."""
        return {row[0] for row in self._db.rows("SELECT DISTINCT node FROM conflicts")}

    def ids(self, *, after: int = 0) -> list[int]:
        """Numbers above ``after``, oldest first."""
        rows = self._db.rows("SELECT id FROM conflicts WHERE id > ? ORDER BY id", (after,))
        return [row[0] for row in rows]

    def count(self) -> int:
        return int(self._db.value("SELECT count(*) FROM conflicts"))

    def update(self, conflict: int, **fields: Any) -> None:
        """Set fields by name; ENOENT without the conflict."""
        with self._db.transaction():
            found = self.get(conflict)
            if found is None:
                raise missing(f"conflict {conflict}")
            for name, value in fields.items():
                if name == "id" or name not in Conflict.__struct_fields__:
                    raise ValueError(f"not a field of a conflict: {name}")
                setattr(found, name, value)
            values = self._values(found)
            marks = ", ".join("?" * len(values))
            self._db.execute(
                f"UPDATE conflicts SET ({_FIELDS}) = ({marks}) WHERE id = ?",  # noqa: S608
                (*values, conflict),
            )
            self._changed(found.node)

    def remove(self, conflict: int) -> None:
        """Forget it, and delete its variants after the commit; fine if there is none."""
        with self._db.transaction():
            node = self._db.value("SELECT node FROM conflicts WHERE id = ?", (conflict,))
            if self._db.execute("DELETE FROM conflicts WHERE id = ?", (conflict,)):
                self._changed(node)
                for which in WHICH:
                    self._files.delete_after_commit(self._files.variant(conflict, which))

    def variant_path(self, conflict: int, which: str) -> str:
        """Where a variant (``base``, ``server``, ``merged``) is, or is to be put."""
        if which not in WHICH:
            raise ValueError(f"not a variant: {which}")
        return self._files.variant(conflict, which)

    def _values(self, c: Conflict) -> Row:
        entry = None if c.server_entry is None else _encode(c.server_entry)
        variant = c.server_variant
        if variant is not None:
            variant = variant.rpartition("/")[2]
        where = (c.node, c.kind, c.parent, c.name, c.detected_ns)
        seqs = " ".join(map(str, c.record_seqs))
        flags = (int(c.server_complete), int(c.base_variant))
        return (*where, seqs, c.base_token, entry, variant, *flags, c.note)

    def _conflict(self, row: Row) -> Conflict:
        variant = row[9]
        return Conflict(
            id=row[0],
            node=row[1],
            kind=row[2],
            parent=row[3],
            name=row[4],
            detected_ns=row[5],
            record_seqs=tuple(map(int, row[6].split())),
            base_token=row[7],
            server_entry=None if row[8] is None else _decode(row[8]),
            server_variant=None
            if variant is None
            else f"{self._files.directory}/variants/{variant}",
            server_complete=bool(row[10]),
            base_variant=bool(row[11]),
            note=row[12],
        )

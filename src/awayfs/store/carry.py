"""Carrying rows from a damaged database to a new one, and closing the gaps they leave."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from awayfs.core.records import RecordKind, RecordState
from awayfs.core.types import ROOT, Entry, Kind, NodeId
from awayfs.ports.remote import Intent
from awayfs.store.db import Database, Row
from awayfs.store.history import decode_shape
from awayfs.store.nodes import KINDS

BAD_VALUE: Final = (KeyError, TypeError, ValueError, msgspec.MsgspecError)
"""What reading a row that is not what was written can raise."""

_HIGHEST: Final = 2**40
_QUERIES: Final = 20_000
"""Queries a table is worth, so that a hopeless one ends soon."""

_TABLES: Final = (
    ("journal", "seq"),
    ("intents", "seq"),
    ("nodes", "id"),
    ("names", "parent"),
    ("content", "node"),
    ("ranges", "node"),
    ("bases", "node"),
    ("conflicts", "id"),
    ("pins", "node"),
    ("node_settings", "node"),
    ("xattrs", "node"),
    ("xattr_bases", "node"),
    ("server_nodes", "node"),
    ("server_names", "parent"),
    ("server_listings", "directory"),
    ("history", "id"),
    ("history_partial", "id"),
    ("history_shapes", "id"),
    ("uses", "node"),
    ("refusals", "node"),
)
"""The tables and the number they are ordered by, the dearest first."""

_INDEXES: Final = (("names", "names_by_node"), ("server_names", "server_names_by_node"))
"""Indexes that hold whole rows of their table, ordered by node."""

NODE_IDS: Final = (
    ("nodes", "id"),
    ("names", "node"),
    ("names", "parent"),
    ("server_nodes", "node"),
    ("journal", "node"),
    ("journal", "parent"),
    ("journal", "to_parent"),
    ("journal", "replaced"),
)

_FACTS: Final = "SELECT key, value FROM facts ORDER BY key"
_REFERRED: Final = (
    "SELECT node FROM names UNION SELECT parent FROM names"
    " UNION SELECT node FROM journal WHERE kind IN ('create', 'store')"
    " EXCEPT SELECT id FROM nodes"
)

_intent = msgspec.msgpack.Decoder(Intent).decode
_entry = msgspec.msgpack.Decoder(Entry).decode


def carry_over(source: Database, target: Database, rows: dict[str, int]) -> None:
    """Copy every readable, sensible row of ``source``; ``rows`` counts them by table."""
    for table, key in _TABLES:
        columns = _columns(target, table)
        select = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608
        _copy(source, target, table, select, columns, key, rows)
    for table, index in _INDEXES:
        columns = _columns(target, table)
        select = f"SELECT {', '.join(columns)} FROM {table} INDEXED BY {index}"  # noqa: S608
        _copy(source, target, table, select, columns, "node", rows)
    for order in (" ASC", " DESC"):
        facts, _ = source.rows_until_error(_FACTS + order)
        for fact in facts:
            _put(target, "facts", fact, rows)


def _columns(db: Database, table: str) -> list[str]:
    return [f'"{row[1]}"' for row in db.rows(f"PRAGMA table_info({table})")]


def _copy(
    source: Database,
    target: Database,
    table: str,
    select: str,
    columns: list[str],
    key: str,
    rows: dict[str, int],
) -> None:
    at = columns.index(f'"{key}"')
    for row in _readable(source, select, key, at):
        if _sensible(table, row):
            _put(target, table, row, rows)


def _put(target: Database, table: str, row: Row, rows: dict[str, int]) -> None:
    """Insert a row unless its key is there; the root's row replaces the one made anew."""
    verb = "REPLACE" if table == "nodes" and row[0] == ROOT else "IGNORE"
    marks = ", ".join("?" * len(row))
    try:
        done = target.execute(f"INSERT OR {verb} INTO {table} VALUES ({marks})", row)  # noqa: S608
    except BAD_VALUE:
        return  # a value of the wrong type
    rows[table] = rows.get(table, 0) + max(done, 0)


def _readable(source: Database, select: str, key: str, at: int) -> Iterator[Row]:
    """Rows by key: up to the damage from both ends, then what is between by halves."""
    spans = [(0, _HIGHEST)]
    for _ in range(_QUERIES):
        if not spans:
            return
        low, high = spans.pop()
        between = f"{select} WHERE {key} BETWEEN ? AND ? ORDER BY {key}"
        found, whole = source.rows_until_error(between, (low, high))
        yield from found
        if whole:
            continue
        upward = found[-1][at] if found else low
        found, _ = source.rows_until_error(between + " DESC", (low, high))
        yield from found
        downward = found[-1][at] if found else high
        if low < high and upward <= downward:
            middle = (upward + downward) // 2
            if (middle + 1, downward) != (low, high):
                spans.append((middle + 1, downward))
            if (upward, middle) != (low, high):
                spans.append((upward, middle))


def _sensible(table: str, row: Row) -> bool:
    """Whether a row is one that the store could have written."""
    try:
        _CHECKS.get(table, _anything)(row)
    except BAD_VALUE:
        return False
    return True


def _anything(row: Row) -> None:
    """Tables whose column types say all there is to check."""


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _check_node(row: Row) -> None:
    _require(KINDS[row[1]] in KINDS and 0 <= row[2] <= 0o7777 and row[6] >= 0 and row[0] > 0)
    _require(row[0] != ROOT or row[1] == Kind.DIRECTORY)


def _check_record(row: Row) -> None:
    _require(row[1] in set(RecordKind) and row[15] in set(RecordState) and row[2] > 0)


def _check_name(row: Row) -> None:
    name = row[1]
    _require(0 < len(name) <= 255 and b"/" not in name and b"\0" not in name and row[2] > 0)


def _check_conflict(row: Row) -> None:
    _require(row[8] is None or bool(_entry(row[8])))
    [int(seq) for seq in row[6].split()]


def _check_lost(row: Row) -> None:
    _require(row[0] > 0 and row[7] >= 0 and row[4] in ("local", "server", "current"))
    _require(not row[3].startswith(b"/") and b"\0" not in row[3])


_CHECKS: Final[dict[str, Callable[[Row], Any]]] = {
    "nodes": _check_node,
    "journal": _check_record,
    "names": _check_name,
    "server_names": _check_name,
    "server_nodes": lambda row: KINDS[row[1]],
    "intents": lambda row: _intent(row[2]),
    "ranges": lambda row: _require(0 <= row[1] < row[2]),
    "bases": lambda row: _require(len(row[3]) % 16 == 0),
    "conflicts": _check_conflict,
    "history": _check_lost,
    "history_shapes": lambda row: [decode_shape(blob) for blob in row[1:3] if blob is not None],
}


# -- closing the gaps -----------------------------------------------------------------------


def mend(db: Database, files: list[tuple[NodeId, int, str]]) -> None:
    """Make nodes that names or unsent content call for, and give lost names back.

    ``files`` are the content files that are there.
    """
    paths = {node: (version, path) for node, version, path in files}
    removed = _removed(db)
    for (node,) in db.rows(_REFERRED):
        if node not in removed:
            _make_node(db, node, paths)
    for node in _nameless(db) - removed:
        _name(db, node)
    for node, (version, path) in paths.items():
        _own_content(db, node, version, path)


def _removed(db: Database) -> set[NodeId]:
    """Nodes that a record in the journal took a name of."""
    rows = db.rows("SELECT node FROM journal WHERE kind = 'remove'")
    rows += db.rows("SELECT replaced FROM journal WHERE kind = 'rename'")
    return {row[0] for row in rows}


def _make_node(db: Database, node: NodeId, paths: dict[NodeId, tuple[int, str]]) -> None:
    """A row for a node that is referred to: from the server's view, or as plain as can be."""
    if db.execute(
        "INSERT OR IGNORE INTO nodes SELECT node, kind, mode, uid, gid, rdev, size, mtime_ns,"
        " mtime_ns, mtime_ns, mtime_ns, 0, target FROM server_nodes WHERE node = ?",
        (node,),
    ):
        return
    directory = db.value("SELECT 1 FROM names WHERE parent = ?", (node,)) is not None
    stored = db.value("SELECT 1 FROM journal WHERE node = ? AND kind = 'store'", (node,))
    if not directory and node not in paths and not stored:
        return  # nothing tells what it was: fsck takes its names away
    size, ns = 0, 0
    if node in paths:
        found = os.stat(paths[node][1])
        size, ns = found.st_size, found.st_mtime_ns
    kind, mode = (Kind.DIRECTORY, 0o700) if directory else (Kind.FILE, 0o600)
    owner = (os.getuid(), os.getgid())
    db.execute(
        "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, 0, NULL)",
        (node, int(kind), mode, *owner, size, ns, ns, ns, ns),
    )


def _nameless(db: Database) -> set[NodeId]:
    rows = db.rows(
        "SELECT id FROM nodes WHERE id != ? AND id NOT IN (SELECT node FROM names)", (ROOT,)
    )
    return {row[0] for row in rows}


def _name(db: Database, node: NodeId) -> None:
    """A name for a node that lost it: the last one known, else ``recovered-ID`` in the root."""
    known = db.rows(
        "SELECT CASE kind WHEN 'rename' THEN to_parent ELSE parent END,"
        " CASE kind WHEN 'rename' THEN to_name ELSE name END FROM journal"
        " WHERE node = ? AND kind IN ('create', 'link', 'rename') ORDER BY seq DESC",
        (node,),
    )
    known += db.rows("SELECT parent, name FROM server_names WHERE node = ?", (node,))
    known.append((ROOT, b"recovered-%d" % node))
    for parent, name in known:
        if name and db.value(
            "SELECT 1 FROM nodes WHERE id = ? AND kind = ?", (parent, int(Kind.DIRECTORY))
        ):
            try:
                db.execute("INSERT INTO names VALUES (?, ?, ?)", (parent, name, node))
                return
            except BAD_VALUE:
                continue  # the name is taken


def _own_content(db: Database, node: NodeId, version: int, path: str) -> None:
    """Content of a file whose CREATE is not sent is whole: its rows can be made anew."""
    made_here = db.value(
        "SELECT 1 FROM journal JOIN nodes ON nodes.id = journal.node WHERE journal.node = ?1"
        " AND journal.kind = 'create' AND nodes.kind = ?2",
        (node, int(Kind.FILE)),
    )
    if not made_here:
        return
    size = os.stat(path).st_size
    if db.execute(
        "INSERT OR IGNORE INTO content (node, version, synced, stamp_ns, used_ns)"
        " VALUES (?, ?, 0, 0, 0)",
        (node, version),
    ):
        db.execute("DELETE FROM ranges WHERE node = ?", (node,))
        if size:
            db.execute("INSERT INTO ranges VALUES (?, 0, ?)", (node, size))

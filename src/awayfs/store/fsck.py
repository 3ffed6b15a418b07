"""Checking a volume's state against the rules that the rest of the store relies on.

Repair changes what can be derived (link counts, dangling names, range maps) and never deletes
content that may not have been sent: such files go to ``lost+found/``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from awayfs.core.namespace import Slot
from awayfs.core.records import RecordState, brings_name, takes_away
from awayfs.core.standing import place_for
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.files import cache_files, keep_lost

if TYPE_CHECKING:
    from awayfs.store.store import Store

_DIRECTORY: Final = int(Kind.DIRECTORY)


class Problem(Struct):
    """One broken rule. ``leftover``: a crash may leave it, it costs room and nothing else."""

    rule: str
    node: NodeId
    text: str
    leftover: bool = False
    repaired: bool = False


Repair = Callable[[], object]
Found = tuple[Problem, Repair | None]


def check(store: Store, *, repair: bool = False) -> list[Problem]:
    """All problems, each with ``repaired`` set where it was. Reads every row and file name."""
    problems: list[Problem] = []
    for rule in _RULES:
        with store.transaction():
            store.db.forget()
            for problem, mend in list(rule(store)):
                if repair and mend is not None:
                    mend()
                    store.db.forget()
                    problem.repaired = True
                problems.append(problem)
    return problems


def let_go_unreachable(store: Store) -> None:
    """Directories that have no name on either side go, with all in them, where nothing below is
    changed here or waits for a decision: what was left between the last such thing and this.
    """
    with store.transaction():
        for problem, mend in list(_unreachable(store)):
            if problem.leftover and mend is not None and not store.server.names(problem.node):
                mend()


def _names(store: Store) -> Iterator[Found]:
    """A name's node exists, its parent is a directory, and a directory has one name."""
    rows = store.db.rows(
        "SELECT parent, name, node FROM names WHERE node NOT IN (SELECT id FROM nodes)"
        " OR parent NOT IN (SELECT id FROM nodes WHERE kind = ?)",
        (_DIRECTORY,),
    )
    for parent, name, node in rows:
        problem = Problem("name", node, f"the name {name!r} in {parent} dangles")
        yield problem, partial(_delete_name, store, parent, name)
    several = store.db.rows(
        "SELECT node, max(parent), max(name) FROM names JOIN nodes ON id = node WHERE kind = ?"
        " GROUP BY node HAVING count(*) > 1 OR node = ?",
        (_DIRECTORY, ROOT),
    )
    for node, _, _ in several:
        names = store.nodes.names(node)
        doomed = names if node == ROOT else names[1:]
        yield (
            Problem("directory", node, f"directory {node} has {len(names)} names"),
            partial(_delete_names, store, doomed),
        )


def _delete_name(store: Store, parent: NodeId, name: bytes) -> None:
    store.db.execute("DELETE FROM names WHERE parent = ? AND name = ?", (parent, name))


def _delete_names(store: Store, names: list[tuple[NodeId, bytes]]) -> None:
    for parent, name in names:
        _delete_name(store, parent, name)


def _cycles(store: Store) -> Iterator[Found]:
    """Every directory that has a name leads up to the root."""
    above: dict[NodeId, NodeId] = dict(
        store.db.rows(
            "SELECT node, parent FROM names JOIN nodes ON id = node WHERE kind = ?", (_DIRECTORY,)
        )
    )
    sound: set[NodeId] = {ROOT}
    for start in above:
        way: list[NodeId] = []
        at = start
        while at in above and at not in sound and at not in way:
            way.append(at)
            at = above[at]
        if at in way:
            ring = way[way.index(at) :]
            text = f"directory {at} is inside itself"
            yield Problem("cycle", at, text), partial(_open_ring, store, ring)
        sound.update(way)


def _open_ring(store: Store, ring: list[NodeId]) -> None:
    """The directory goes home that was moved there, as far as that can be told."""

    def goes_first(node: NodeId) -> tuple[bool, bool]:
        home = store.server.names(node)
        outside = bool(home) and store.nodes.path(home[0][0]) is not None
        records = store.journal.of_node(node)
        return (not outside, not any(brings_name(r, node, names[node]) for r in records))

    names = {node: store.nodes.names(node)[0] for node in ring}
    chosen = min(ring, key=goes_first)
    store.nodes.remove_name(*names[chosen])
    _show(store, chosen, names[chosen][1])


def _show(store: Store, node: NodeId, name: bytes) -> None:
    """A name that leads to a node: the server's, or one in the root."""

    def is_free(slot: Slot) -> bool:
        return store.nodes.path(slot[0]) is not None and store.nodes.child_id(*slot) is None

    home = store.server.names(node)
    slot = place_for(node, name, home, store.nodes.above, is_free)
    store.nodes.add_name(*slot, node)


def _unreachable(store: Store) -> Iterator[Found]:
    """Nothing is in a directory without a name, but in one that is removed, or waits for a word."""
    rows = store.db.rows(
        "SELECT id FROM nodes WHERE kind = ? AND id != ?"
        " AND NOT EXISTS (SELECT 1 FROM names WHERE node = id)"
        " AND EXISTS (SELECT 1 FROM names WHERE parent = id)",
        (_DIRECTORY, ROOT),
    )
    for (node,) in rows:
        if takes_away(store.journal.of_node(node), node) or store.conflicts.of_node(node):
            continue
        below = store.nodes.below(node)
        unsent = any(store.journal.concerns(n) or store.conflicts.of_node(n) for n in below)
        problem = Problem("unreachable", node, f"directory {node} has no name", not unsent)
        if unsent:
            yield problem, partial(_show, store, node, b"directory")
        else:
            yield problem, partial(_forget, store, below)


def _forget(store: Store, below: list[NodeId]) -> None:
    """What the server has, too, or had, and nobody can reach here."""
    for directory in below:
        for name, _ in store.nodes.children(directory):
            store.nodes.remove_name(directory, name)
            if store.server.child(directory, name) is not None:
                store.server.remove_name(directory, name)
    for node in below:
        if not store.nodes.names(node):
            store.server.forget(node)
            store.nodes.remove(node)


def _links(store: Store) -> Iterator[Found]:
    """nlink: 2 + subdirectories for a directory, the number of names for others."""
    rows = store.db.rows(
        "SELECT id, nlink, CASE WHEN kind = ?1 THEN 2 + (SELECT count(*) FROM names"
        " JOIN nodes AS below ON below.id = names.node"
        " WHERE names.parent = nodes.id AND below.kind = ?1)"
        " ELSE (SELECT count(*) FROM names WHERE node = nodes.id) END AS right"
        " FROM nodes WHERE nlink != right",
        (_DIRECTORY,),
    )
    for node, links, right in rows:
        yield (
            Problem("nlink", node, f"node {node} has nlink {links}, not {right}"),
            partial(store.db.execute, "UPDATE nodes SET nlink = ? WHERE id = ?", (right, node)),
        )


def _journal(store: Store) -> Iterator[Found]:
    """A record's nodes exist, or were removed by a record in the journal; parked ones wait."""
    known = {row[0] for row in store.db.rows("SELECT id FROM nodes")} | {0}
    removed = {
        node
        for row in store.db.rows(
            "SELECT node, replaced FROM journal WHERE kind = 'remove' OR replaced != 0"
        )
        for node in row
    }
    for seq, *nodes in store.db.rows(
        "SELECT seq, node, parent, to_parent, replaced FROM journal WHERE state != 'parked'"
    ):
        gone = set(nodes) - known - removed
        if gone:
            text = f"record {seq} is about node {min(gone)}, which is not there"
            yield Problem("record", nodes[0], text), partial(_park, store, seq, text)
    for (seq,) in store.db.rows(
        "SELECT seq FROM intents WHERE seq NOT IN (SELECT seq FROM journal)"
    ):
        yield Problem("intent", 0, f"an intent for record {seq}, which is not there"), None


def _park(store: Store, seq: int, text: str) -> None:
    store.journal.set_state(seq, RecordState.PARKED, text)


def _ranges(store: Store) -> Iterator[Found]:
    """Ranges are in order, do not touch, belong to a row and end within the file."""
    for (node,) in store.db.rows(
        "SELECT DISTINCT node FROM ranges WHERE node NOT IN (SELECT node FROM content)"
    ):
        yield (
            Problem("ranges", node, f"ranges of node {node} without content"),
            partial(store.db.execute, "DELETE FROM ranges WHERE node = ?", (node,)),
        )
    rows = store.db.rows(
        "SELECT DISTINCT a.node FROM ranges a LEFT JOIN ranges b ON a.node = b.node"
        ' AND b.start > a.start AND b.start <= a."end" WHERE b.node IS NOT NULL'
        ' OR a.start < 0 OR a."end" <= a.start'
    )
    for (node,) in rows:
        yield (
            Problem("ranges", node, f"the range map of node {node} contradicts itself"),
            partial(store.content.drop_ranges, node),
        )


def _content(store: Store) -> Iterator[Found]:
    """A content row has its node, its file, and no range beyond the file's end."""
    rows = store.db.rows(
        "SELECT content.node, nodes.id,"
        ' (SELECT max("end") FROM ranges WHERE ranges.node = content.node)'
        " FROM content LEFT JOIN nodes ON nodes.id = content.node"
    )
    for node, known, end in rows:
        path = store.content.fd_path(node)
        size = os.stat(path).st_size if os.path.exists(path) else None
        dirty = store.journal.has_store(node)
        if known is None:
            yield (
                Problem("content", node, f"content of node {node}, which is not there"),
                partial(store.content.lose, node),
            )
        elif size is None:
            text = f"the content file of node {node} is missing"
            yield (
                Problem("content", node, text),
                partial(store.content.drop, node),
            )
        elif end is not None and end > size and not dirty:
            yield (
                Problem("content", node, f"the content of node {node} is shorter than its map"),
                partial(store.content.drop, node),
            )
        elif end is not None and end > size:
            yield (
                Problem("content", node, f"the content of node {node} is shorter than its map"),
                partial(store.content.truncate_ranges, node, size),
            )


def _stores(store: Store) -> Iterator[Found]:
    """A pending STORE of a node that is there has content to send."""
    for seq, node in store.db.rows(
        "SELECT seq, node FROM journal JOIN nodes ON nodes.id = node"
        " WHERE journal.kind = 'store' AND state != 'parked'"
        " AND node NOT IN (SELECT node FROM content)"
    ):
        text = f"record {seq} is to send node {node}, whose content is not there"
        yield Problem("store", node, text), partial(_park, store, seq, text)


def _strays(store: Store) -> Iterator[Found]:
    """A file in content/ or base/ is the one that its node's row names."""
    current: dict[NodeId, int] = dict(store.db.rows("SELECT node, version FROM content"))
    bases: dict[NodeId, int] = dict(store.db.rows("SELECT node, version FROM bases"))
    for folder, rows in (("content", current), ("base", bases)):
        for node, version, path in cache_files(store.directory, folder):
            if rows.get(node) != version:
                yield (
                    Problem("stray", node, f"{folder} file {path} has no row", leftover=True),
                    partial(keep_lost, store.directory, path, f"{folder}-{node}.{version}"),
                )
    for node in bases:
        if not os.path.exists(store.content.base_path(node) or ""):
            yield (
                Problem("base", node, f"the base file of node {node} is missing"),
                partial(store.content.drop_base, node),
            )


def _variants(store: Store) -> Iterator[Found]:
    """A variant that a conflict has is there, and a file in variants/ is a conflict's."""
    claimed: set[str] = set()
    for one in store.conflicts.all():
        path_of = partial(store.conflicts.variant_path, one.id)
        claimed.add(path_of("merged"))
        absent = {"server_variant": None, "server_complete": False}
        kept = [(one.server_variant, absent)] if one.server_variant else []
        kept += [(path_of("base"), {"base_variant": False})] if one.base_variant else []
        for path, without in kept:
            claimed.add(path)
            if not os.path.exists(path):
                yield (
                    Problem("variant", one.node, f"the variant {path} of a conflict is missing"),
                    partial(store.conflicts.update, one.id, **without),
                )
    for name in sorted(os.listdir(f"{store.directory}/variants")):
        path = f"{store.directory}/variants/{name}"
        if path not in claimed:
            yield (
                Problem("stray", 0, f"variants file {path} has no conflict", leftover=True),
                partial(keep_lost, store.directory, path, f"variants-{name}"),
            )


def _history(store: Store) -> Iterator[Found]:
    """A variant that lost has its file, whole, and a file in history/ has its row."""
    bare = "SELECT id FROM history_shapes WHERE content = 0"
    query = f"SELECT id, size FROM history WHERE id NOT IN ({bare})"  # noqa: S608
    rows: dict[int, int] = dict(store.db.rows(query))
    for number, size in rows.items():
        path = store.history.content_path(number)
        if not os.path.exists(path) or os.stat(path).st_size != size:
            yield (
                Problem("history", 0, f"the variant {number} in the history is not whole"),
                partial(_set_apart, store, number),
            )
    for name in sorted(os.listdir(f"{store.directory}/history")):
        if not name.isdecimal() or int(name) not in rows:
            path = f"{store.directory}/history/{name}"
            yield (
                Problem("stray", 0, f"history file {path} has no row", leftover=True),
                partial(keep_lost, store.directory, path, f"history-{name}"),
            )


def _set_apart(store: Store, number: int) -> None:
    """What is left of a variant may be all that there is of somebody's work."""
    path = store.history.content_path(number)
    if os.path.exists(path):
        keep_lost(store.directory, path, f"history-{number}")
    store.history.remove([number])


def _server(store: Store) -> Iterator[Found]:
    """The server's view is about nodes that are there."""
    for table, column in (
        ("server_nodes", "node"),
        ("server_names", "node"),
        ("server_listings", "directory"),
        ("server_fingerprints", "directory"),
        ("xattrs", "node"),
        ("xattr_bases", "node"),
        ("refusals", "node"),
    ):
        where = f"FROM {table} WHERE {column} NOT IN (SELECT id FROM nodes)"  # noqa: S608
        for (node,) in store.db.rows(f"SELECT DISTINCT {column} {where}"):
            yield (
                Problem("server", node, f"{table} has rows of node {node}, which is not there"),
                partial(store.db.execute, f"DELETE {where} AND {column} = ?", (node,)),
            )


_RULES: Final = (
    _names,
    _cycles,
    _unreachable,
    _links,
    _ranges,
    _content,
    _stores,
    _journal,
    _strays,
    _variants,
    _history,
    _server,
)

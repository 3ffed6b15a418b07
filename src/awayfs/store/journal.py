"""The journal: local changes in the order they were acknowledged.

What the volume asks on each write (is there a STORE of this node, any record at all, how many
bytes are pending) is answered from an index in memory, built at open and kept in step with
transactions: each change of it registers its opposite for a rollback.
"""

from __future__ import annotations

import json
from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable
from typing import Any, Final

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId
from awayfs.store.db import Database, Row
from awayfs.store.journal_rows import FIELDS, KINDS, STATES, record_of, values_of
from awayfs.store.names import missing
from awayfs.store.remembered import Remembered

_SELECT: Final = f"SELECT seq, {FIELDS} FROM journal"  # noqa: S608
_INSERT: Final = f"INSERT INTO journal ({FIELDS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
_CREATED: Final = (
    f"INSERT INTO journal ({FIELDS})"  # noqa: S608
    " VALUES ('create',?,?,?,0,x'',0,NULL,NULL,NULL,NULL,NULL,x'',NULL,'pending','',?)"
)
_AND_STORED: Final = ",('store',?,0,x'',0,x'',0,NULL,NULL,NULL,NULL,NULL,x'',NULL,'pending','',?)"
_REPLACE: Final = (
    f"UPDATE journal SET ({FIELDS}) = (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) WHERE seq = ?"  # noqa: S608
)
_GET: Final = f"{_SELECT} WHERE seq = ?"
_AFTER: Final = f"{_SELECT} WHERE seq > ? ORDER BY seq LIMIT ?"
_AMONG: Final = f"{_SELECT} WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"  # noqa: S608
_USES_NAME: Final = "SELECT 1 FROM journal WHERE parent != 0 AND parent = ? AND name = ? LIMIT 1"
_USES_TO_NAME: Final = (
    "SELECT 1 FROM journal WHERE to_parent != 0 AND to_parent = ? AND to_name = ? LIMIT 1"
)
_UNPARKED: Final = "SELECT 1 FROM journal WHERE state != ? AND seq <= ? LIMIT 1"
_UNPARKED_AFTER: Final = "SELECT count(*) FROM journal WHERE state != ? AND seq > ?"
_FIRST_SINCE: Final = (
    "SELECT seq, at_ns FROM journal"
    " WHERE seq > ? AND at_ns > ? AND at_ns <= ? AND state = ? ORDER BY seq LIMIT 1"
)
_MOVES: Final = f"{_SELECT} WHERE to_parent != 0 AND to_parent != parent ORDER BY seq"
_REMOVE: Final = "DELETE FROM journal WHERE seq = ?"
_SET_STATE: Final = "UPDATE journal SET state = ?, reason = ? WHERE seq = ?"
_DOUBT: Final = "DELETE FROM server_fingerprints WHERE directory = ?"
_LAST_FROZEN: Final = "SELECT seq FROM journal WHERE state = ? ORDER BY seq DESC LIMIT 1"
_INSIDE: Final = (
    "SELECT seq FROM journal WHERE parent != 0 AND parent = ?"
    " UNION SELECT seq FROM journal WHERE to_parent != 0 AND to_parent = ?"
)
_FROZEN: Final = "SELECT seq FROM journal WHERE state = ?"


class Journal:
    """All records, and what is known of them without a query.

    ``on_change`` is told the seq of each record that is replaced, removed or gets another state,
    within the transaction that does it; should that roll back, the record is as it was.
    ``on_remove`` is told the seqs of those that are removed: what belongs to them goes with them.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known = Remembered[int, Record | None](db)  # None: it was removed
        self._seqs: dict[NodeId, list[int]] = {}
        self._stores: dict[NodeId, int] = {}
        self._open_stores: Counter[NodeId] = Counter()
        self._worked_in: Counter[NodeId] = Counter()
        self._times_set: Counter[NodeId] = Counter()
        self._out_over: Counter[NodeId] = Counter()
        self._sizes: dict[NodeId, int] = {}
        self._pending = 0
        self._states: Counter[RecordState] = Counter()
        self.on_change: list[Callable[[int], None]] = []
        self.on_remove: list[Callable[[Collection[int]], None]] = []
        self._load()

    def _load(self) -> None:
        store = str(RecordKind.STORE)
        for seq, kind, node, replaced, state, mtime, parent, to_parent in self._db.rows(
            "SELECT seq, kind, node, replaced, state, set_mtime, parent, to_parent"
            " FROM journal ORDER BY seq"
        ):
            for directory in {parent, to_parent} - {0}:
                self._worked_in[directory] += 1
            if mtime is not None:
                self._times_set[node] += 1
            self._states[STATES[state]] += 1
            if STATES[state] is RecordState.FROZEN and replaced:
                self._out_over.update((node, replaced))
            for of in {node, replaced} - {0}:
                self._seqs.setdefault(of, []).append(seq)
            if KINDS[kind] == store:
                self._stores[node] = self._stores.get(node, 0) + 1
                if STATES[state] is RecordState.PENDING:
                    self._open_stores[node] += 1
        for node, size in self._db.rows(
            "SELECT DISTINCT nodes.id, nodes.size FROM journal JOIN nodes ON nodes.id = node"
            " WHERE journal.kind = ?",
            (store,),
        ):
            self._sizes[node] = size
        self._pending = sum(self._sizes.values())

    # -- answered from memory -----------------------------------------------------------

    def has_store(self, node: NodeId) -> bool:
        """Whether a change of this node's content is in the journal."""
        return node in self._stores

    def has_open_store(self, node: NodeId) -> bool:
        """Whether one of those has not gone out, so that later writes may still join it.

        One that was followed by a modification time that somebody set may not be joined: the
        time would be set after the later write, too.
        """
        if node not in self._open_stores:
            return False
        return node not in self._times_set or self._is_store_last(node)

    def _is_store_last(self, node: NodeId) -> bool:
        for seq in reversed(self._seqs[node]):
            record = self._require(seq)
            if record.kind is RecordKind.STORE and record.state is RecordState.PENDING:
                return True
            if record.node == node and record.attributes.mtime_ns is not None:
                return False
        return False

    def has_any(self, node: NodeId) -> bool:
        """Whether any record has this node as ``node`` or ``replaced``."""
        return node in self._seqs

    def works_in(self, directory: NodeId) -> bool:
        """Whether a record gives or takes a name in this directory."""
        return directory in self._worked_in

    @property
    def out_over(self) -> Container[NodeId]:
        """Nodes of which one has gone out to take the other's name; empty is false."""
        return self._out_over

    def concerns(self, node: NodeId) -> bool:
        """Whether any record is about this node, or works in it."""
        return node in self._seqs or node in self._worked_in

    def seqs_of(self, node: NodeId) -> tuple[int, ...]:
        """The seqs of the records that have this node as ``node`` or ``replaced``, in order."""
        return tuple(self._seqs.get(node, ()))

    def nodes(self) -> list[NodeId]:
        """Every node that a record has as ``node`` or ``replaced``, by id."""
        return sorted(self._seqs)

    def count(self) -> int:
        return self._states.total()

    def counts(self) -> dict[RecordState, int]:
        """Number of records in each state, states without one included."""
        return {state: self._states[state] for state in RecordState}

    def sizes(self) -> list[tuple[NodeId, int]]:
        """Nodes of which content is in the journal, with their sizes."""
        self._db.settle()
        return list(self._sizes.items())

    def pending_bytes(self) -> int:
        """Sum of the sizes of nodes whose content is to be sent."""
        self._db.settle()
        return self._pending

    # -- queries ------------------------------------------------------------------------

    def get(self, seq: int) -> Record | None:
        if seq in self._known:
            return self._known[seq]
        row = self._db.row_now(_GET, (seq,))
        if row is None:
            return None
        record = record_of(row)
        self._known.keep(seq, record)
        return record

    def some(self, seqs: Iterable[int]) -> list[Record]:
        """Those of these records that are there."""
        return [record for record in map(self.get, seqs) if record is not None]

    def there(self, seqs: Iterable[int]) -> list[Record]:
        """The same, in order, for many of which most may be gone."""
        rows = self._db.rows(_AMONG, (json.dumps(list(seqs)),))
        return [record_of(row) for row in rows]

    def all(self, *, limit: int | None = None, after: int = 0) -> list[Record]:
        """Records with a seq above ``after``, in order, at most ``limit``."""
        most = -1 if limit is None else limit
        read = []
        for row in self._db.rows(_AFTER, (after, most)):
            record = self._known.get(row[0])
            if record is None:
                record = record_of(row)
                self._known.keep(record.seq, record)
            read.append(record)
        return read

    def of_node(self, node: NodeId) -> list[Record]:
        """Records that have this node as ``node`` or ``replaced``, in order."""
        seqs = self._seqs.get(node)
        return self.some(seqs) if seqs else []

    def touching_name(self, parent: NodeId, name: bytes) -> list[Record]:
        """Records whose name or new name is this one, in order."""
        rows = self._db.rows(
            f"{_SELECT} WHERE parent != 0 AND parent = ? AND name = ?"
            f" UNION {_SELECT} WHERE to_parent != 0 AND to_parent = ? AND to_name = ?"
            " ORDER BY seq",
            (parent, name, parent, name),
        )
        return [record_of(row) for row in rows]

    def uses_name(self, parent: NodeId, name: bytes) -> bool:
        """Whether a record gives or takes this name."""
        if not self.count():
            return False
        slot = (parent, name)
        return bool(self._db.rows(_USES_NAME, slot) or self._db.rows(_USES_TO_NAME, slot))

    def skip(self, count: int) -> None:
        """Leave out so many numbers: records that had them may be lost, and sent all the same."""
        with self._db.transaction():
            changed = self._db.execute(
                "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'journal'", (count,)
            )
            if not changed:
                self._db.execute("INSERT INTO sqlite_sequence VALUES ('journal', ?)", (count,))

    def last_seq(self) -> int:
        """The seq of the last record; 0 without one."""
        return int(self._db.value("SELECT coalesce(max(seq), 0) FROM journal"))

    def last_frozen(self) -> int:
        """The latest record that has gone out, by its seq; 0 without one."""
        if not self._states[RecordState.FROZEN]:
            return 0
        return int(self._db.value(_LAST_FROZEN, (str(RecordState.FROZEN),)) or 0)

    def has_unparked(self, until: int) -> bool:
        """Whether a record up to this seq waits for something else than a decision."""
        return self._db.row(_UNPARKED, (str(RecordState.PARKED), until)) is not None

    def count_unparked(self, after: int) -> int:
        """How many records later than this one wait for something else than a decision."""
        return int(self._db.value(_UNPARKED_AFTER, (str(RecordState.PARKED), after)))

    def gone_out(self) -> set[int]:
        """The records that have gone out, by their seqs."""
        if not self._states[RecordState.FROZEN]:
            return set()
        return {seq for (seq,) in self._db.rows(_FROZEN, (str(RecordState.FROZEN),))}

    def first_since(self, since_ns: int, until_ns: int, after: int) -> tuple[int, int] | None:
        """(seq, at_ns) of the first record above ``after`` that is not sent, and was made later
        than ``since_ns`` and not after ``until_ns``.
        """
        pending = str(RecordState.PENDING)
        row = self._db.row(_FIRST_SINCE, (after, since_ns, until_ns, pending))
        return None if row is None else (row[0], row[1])

    def moves(self) -> list[Record]:
        """Records that take a name to another directory, in order."""
        return [record_of(row) for row in self._db.rows(_MOVES)]

    def inside(self, parent: NodeId) -> list[Record]:
        """Records whose name or new name is in this directory, in order."""
        rows = self._db.rows(
            f"{_SELECT} WHERE parent != 0 AND parent = ?"
            f" UNION {_SELECT} WHERE to_parent != 0 AND to_parent = ? ORDER BY seq",
            (parent, parent),
        )
        return [record_of(row) for row in rows]

    def seqs_inside(self, parent: NodeId) -> list[int]:
        """The seqs of the same."""
        return [seq for (seq,) in self._db.rows(_INSIDE, (parent, parent))]

    # -- changes ------------------------------------------------------------------------

    def append(self, kind: RecordKind, node: NodeId, **fields: Any) -> Record:
        """A new last record; ``fields`` are those of ``Record``."""
        record = Record(0, kind, node, **fields)
        with self._db.transaction():
            seq = self._db.insert(_INSERT, values_of(record))
            record = Record(seq, kind, node, **fields)
            self._index(record)
        return record

    def append_created(
        self, node: NodeId, parent: NodeId, name: bytes, at_ns: int, *, stored: bool
    ) -> int:
        """A CREATE of a new, empty node and, with ``stored``, a STORE of it; the last one's seq.

        The same as ``append`` twice, in one statement: it is what making a file mostly costs.
        """
        values: Row = (node, parent, name, at_ns)
        with self._db.transaction():
            if stored:
                last = self._db.insert(_CREATED + _AND_STORED, (*values, node, at_ns))
            else:
                last = self._db.insert(_CREATED, values)
            self._db.on_rollback(self._count_created, node, parent, last, stored, -1)
            self._count_created(node, parent, last, stored, 1)
        return last

    def _count_created(
        self, node: NodeId, parent: NodeId, last: int, stored: bool, by: int
    ) -> None:
        self._states[RecordState.PENDING] += by * (1 + stored)
        self._work_in(parent, by)
        if by < 0:
            self._seqs.pop(node, None)
            self._stores.pop(node, None)
            self._open_stores.pop(node, None)
            self._set_size(node, None)
            return
        self._seqs[node] = [last - 1, last] if stored else [last]
        if stored:
            self._stores[node] = self._open_stores[node] = 1
            self._sizes[node] = 0

    def _work_in(self, directory: NodeId, by: int) -> None:
        self._worked_in[directory] += by
        if not self._worked_in[directory]:
            del self._worked_in[directory]

    def replace(self, record: Record) -> None:
        """New fields for the record of the same seq; ENOENT without one."""
        with self._db.transaction():
            old = self._require(record.seq)
            self._tell(record.seq)
            self._known.forget(record.seq)
            self._db.execute(_REPLACE, (*values_of(record), record.seq))
            self._doubt_listings((old,))
            self._unindex(old)
            self._index(record)

    def remove(self, seqs: Iterable[int]) -> None:
        """Take records out, and their intents; those that are not there are ignored."""
        with self._db.transaction():
            gone = self.some(dict.fromkeys(seqs))  # each once
            self._db.execute_many(_REMOVE, [(record.seq,) for record in gone])
            for record in gone:
                self._tell(record.seq)
                self._known.keep(record.seq, None)
            self._doubt_listings(gone)
            for call in self.on_remove:
                call([record.seq for record in gone])
            for record in gone:
                self._unindex(record)

    def _doubt_listings(self, records: Iterable[Record]) -> None:
        """What they said of names holds no more: the next listing is compared with all."""
        directories = {one for record in records for one in (record.parent, record.to_parent)}
        self._db.execute_many(_DOUBT, [(one,) for one in directories - {0}])

    def set_state(self, seq: int, state: RecordState, reason: str = "") -> None:
        """Where a record stands; ENOENT without it."""
        self.set_states((seq,), state, reason)

    def set_states(self, seqs: Iterable[int], state: RecordState, reason: str = "") -> None:
        """Where several stand; ENOENT without one of them."""
        with self._db.transaction():
            there = [self._require(seq) for seq in dict.fromkeys(seqs)]  # each once
            others = [old for old in there if (old.state, old.reason) != (state, reason)]
            self._db.execute_many(_SET_STATE, [(str(state), reason, old.seq) for old in others])
            for old in others:
                self._tell(old.seq)
                new = old.in_state(state, reason)
                self._known.keep(old.seq, new)
                self._db.on_rollback(self._restate, new, old)
                self._restate(old, new)

    def _tell(self, seq: int) -> None:
        for call in self.on_change:
            call(seq)

    def _require(self, seq: int) -> Record:
        record = self.get(seq)
        if record is None:
            raise missing(f"record {seq}")
        return record

    # -- the index in memory ------------------------------------------------------------

    def size_changed(self, node: NodeId, size: int) -> None:
        """A node's size is new; counts only when its content is to be sent."""
        old = self._sizes.get(node)
        if old is not None and old != size:
            self._db.on_rollback(self._set_size, node, old)
            self._set_size(node, size)

    def _set_size(self, node: NodeId, size: int | None) -> None:
        self._pending += (size or 0) - self._sizes.pop(node, 0)
        if size is not None:
            self._sizes[node] = size

    def _index(self, record: Record) -> None:
        if record.kind is RecordKind.STORE and record.node not in self._sizes:
            row = self._db.row("SELECT size FROM nodes WHERE id = ?", (record.node,))
            self._db.on_rollback(self._set_size, record.node, None)
            self._set_size(record.node, row[0] if row else 0)
        self._db.on_rollback(self._drop, record)
        self._put(record)

    def _unindex(self, record: Record) -> None:
        self._db.on_rollback(self._put, record)
        self._drop(record)
        if record.kind is RecordKind.STORE and record.node not in self._stores:
            self._db.on_rollback(self._set_size, record.node, self._sizes.get(record.node))
            self._set_size(record.node, None)

    def _put(self, record: Record) -> None:
        self._count(record, 1)
        for directory in {record.parent, record.to_parent} - {0}:
            self._work_in(directory, 1)
        node, replaced = record.node, record.replaced
        insort(self._seqs.setdefault(node, []), record.seq)
        if replaced and replaced != node:
            insort(self._seqs.setdefault(replaced, []), record.seq)
        if record.kind is RecordKind.STORE:
            self._stores[node] = self._stores.get(node, 0) + 1
        self._count_time(record, 1)

    def _drop(self, record: Record) -> None:
        self._count(record, -1)
        for directory in {record.parent, record.to_parent} - {0}:
            self._work_in(directory, -1)
        for node in {record.node, record.replaced} - {0}:
            seqs = self._seqs[node]
            seqs.remove(record.seq)
            if not seqs:
                del self._seqs[node]
        if record.kind is RecordKind.STORE:
            self._stores[record.node] -= 1
            if not self._stores[record.node]:
                del self._stores[record.node]
        self._count_time(record, -1)

    def _count_time(self, record: Record, by: int) -> None:
        if record.attributes.mtime_ns is not None:
            self._times_set[record.node] += by
            if not self._times_set[record.node]:
                del self._times_set[record.node]

    def _restate(self, old: Record, new: Record) -> None:
        self._count(old, -1)
        self._count(new, 1)

    def _count(self, record: Record, by: int) -> None:
        self._states[record.state] += by
        if record.state is RecordState.FROZEN and record.replaced:
            for node in (record.node, record.replaced):
                self._out_over[node] += by
                if not self._out_over[node]:
                    del self._out_over[node]
        if record.kind is RecordKind.STORE and record.state is RecordState.PENDING:
            self._open_stores[record.node] += by
            if not self._open_stores[record.node]:
                del self._open_stores[record.node]

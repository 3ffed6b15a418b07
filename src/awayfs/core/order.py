"""Which records may go out now.

Replay runs in parallel where records are independent (DESIGN section 5). Record B must wait
for an earlier A, while A is in the journal, when both

* concern the same node, or the same name in the same directory;
* or A makes the directory that B works in, or B removes (or displaces) the directory that A
  worked in: a directory is emptied before it goes;
* or both move directories from one parent to another: in another order they could form a ring;
* or A sets the rights or the time of the directory that B works in, or the other way round.

A parked record holds back what depends on it and nothing else; a parked change of rights holds
back nothing but later changes of the same node, and a parked move of a directory no other move
(when it is decided at last, the server's tree as it is then tells whether it forms a ring).
Renaming a directory does not hold back what is inside (records name nodes by id), but it runs
alone, since it changes the paths that other operations on their way are using.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId

Claim = tuple[Literal["node", "slot", "directory", "rights", "moves"], NodeId, bytes]
"""Something a record uses. ``directory``: that it exists; ``slot``: a name in it."""

IsDirectory = Callable[[NodeId], bool]

_STRUCTURAL = (RecordKind.RENAME, RecordKind.EXCHANGE)


def dependencies(
    records: Iterable[Record], is_directory: IsDirectory | None = None
) -> Mapping[int, frozenset[int]]:
    """For each record the earlier ones it has to wait for (its direct dependencies)."""
    writer: dict[Claim, int] = {}
    readers: dict[Claim, list[int]] = {}
    answer: dict[int, frozenset[int]] = {}
    for record in records:
        found: set[int] = set()
        reads, writes = claims(record, is_directory)
        for claim in reads:
            if claim in writer:
                found.add(writer[claim])
            readers.setdefault(claim, []).append(record.seq)
        for claim in writes:
            found.update(readers.pop(claim, ()))
            if claim in writer:
                found.add(writer[claim])
            if record.state is not RecordState.PARKED or not _is_soft(claim, record):
                writer[claim] = record.seq
        found.discard(record.seq)
        answer[record.seq] = frozenset(found)
    return answer


def ready(
    records: Iterable[Record],
    in_flight: Container[int] = frozenset(),
    parked: Container[int] = frozenset(),
    is_directory: IsDirectory | None = None,
    limit: int | None = None,
) -> list[Record]:
    """The records that may go out now, in journal order, at most ``limit`` of them.

    ``records`` is the journal: all that is unfinished, in order. A record that is FROZEN but
    not in flight (after a restart) is offered again. ``is_directory`` tells which nodes are
    directories; without it every renamed node is taken for one.
    """
    answer: list[Record] = []
    for record in _candidates(records, in_flight, parked, is_directory):
        if limit is not None and len(answer) >= limit:
            break
        answer.append(record)
    return answer


def _candidates(
    records: Iterable[Record],
    in_flight: Container[int],
    parked: Container[int],
    is_directory: IsDirectory | None,
) -> Iterator[Record]:
    records = list(records)
    held = _Held()
    flying = any(record.seq in in_flight for record in records)  # later ones count, too
    for record in records:
        reads, writes = claims(record, is_directory)
        free = held.allows(reads, writes)
        is_parked = record.state is RecordState.PARKED or record.seq in parked
        lasting = [w for w in writes if not (is_parked and _is_soft(w, record))]
        held.add(reads, lasting)
        if record.seq in in_flight:
            if runs_alone(record, is_directory):
                return
        elif free and not is_parked:
            if runs_alone(record, is_directory):
                if not flying:
                    yield record
                return
            flying = True
            yield record


def runs_alone(record: Record, is_directory: IsDirectory | None = None) -> bool:
    """Whether nothing else may be on its way at the same time: it changes others' paths."""
    return record.kind in _STRUCTURAL and _may_move_directory(record, is_directory)


def claims(
    record: Record, is_directory: IsDirectory | None = None
) -> tuple[list[Claim], list[Claim]]:
    """What a record reads (may be shared) and writes (may not)."""
    reads: list[Claim] = []
    writes: list[Claim] = [("node", record.node, b"")]
    if record.replaced:
        writes += [("node", record.replaced, b""), ("directory", record.replaced, b"")]
    for parent, name in _slots(record):
        reads += [("directory", parent, b""), ("rights", parent, b"")]
        writes.append(("slot", parent, name))
    if record.kind in (RecordKind.CREATE, RecordKind.REMOVE):
        writes.append(("directory", record.node, b""))
    if record.kind is RecordKind.SETATTR and _sets_rights(record):
        writes.append(("rights", record.node, b""))
    if record.kind in _STRUCTURAL and _may_form_ring(record, is_directory):
        writes.append(("moves", 0, b""))
    return reads, writes


def _slots(record: Record) -> list[tuple[NodeId, bytes]]:
    slots = [(record.parent, record.name)] if record.parent else []
    if record.to_parent:
        slots.append((record.to_parent, record.to_name))
    return slots


def _sets_rights(record: Record) -> bool:
    """Or the time, which each change inside a directory sets anew (``cp -a`` sets it last)."""
    wanted = record.attributes
    set_here = (wanted.mode, wanted.uid, wanted.gid, wanted.mtime_ns)
    return any(value is not None for value in set_here)


def _is_soft(claim: Claim, record: Record) -> bool:
    """What a set-aside record does not hold back: what only might be affected.

    A change of rights does not hold back what happens inside the directory. A move in conflict
    does not hold back other moves; one that only waits a moment does, or a ring could form.
    """
    return claim[0] == "rights" or (claim[0] == "moves" and record.state is RecordState.PARKED)


def _may_move_directory(record: Record, is_directory: IsDirectory | None) -> bool:
    if is_directory is None:
        return True
    nodes = [record.node]
    if record.kind is RecordKind.EXCHANGE:
        nodes.append(record.replaced)
    return any(is_directory(node) for node in nodes)


def _may_form_ring(record: Record, is_directory: IsDirectory | None) -> bool:
    """A directory that changes its parent may come to lie inside itself; a rename in place not.

    A plain move into the root cannot close a ring, but it can be what opens one.
    """
    if record.parent == record.to_parent:
        return False
    return _may_move_directory(record, is_directory)


@dataclass
class _Held:
    """What earlier records in the journal use."""

    read: set[Claim] = field(default_factory=set)
    written: set[Claim] = field(default_factory=set)

    def allows(self, reads: Iterable[Claim], writes: Iterable[Claim]) -> bool:
        return not any(claim in self.written for claim in reads) and not any(
            claim in self.written or claim in self.read for claim in writes
        )

    def add(self, reads: Iterable[Claim], writes: Iterable[Claim]) -> None:
        self.read.update(reads)
        self.written.update(writes)

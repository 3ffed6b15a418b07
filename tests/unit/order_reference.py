"""What "may go out now" means, said by going through the whole journal each time.

``core.order.Order`` must say the same at every moment.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from awayfs.core.claims import Claim, IsDirectory, claims, made, runs_alone
from awayfs.core.records import Record, RecordKind, RecordState


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
        for claim in made(record):
            if claim in writer:
                found.add(writer[claim])
            writer[claim] = record.seq
        for claim in writes:
            found.update(readers.pop(claim, ()))
            if claim in writer:
                found.add(writer[claim])
            if record.state is not RecordState.PARKED or not is_soft(claim, record):
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
    not_done: Container[int] = frozenset(),
) -> list[Record]:
    """The records that may go out now, at most ``limit`` of them: directories that are made, then
    all others, each in journal order.

    A FROZEN move of a directory goes before all others, unless it is ``not_done``.

    ``records`` is the journal: all that is unfinished, in order. A record that is FROZEN but
    not in flight (after a restart) is offered again. ``is_directory`` tells which nodes are
    directories; without it every renamed node is taken for one.
    """
    answer: list[Record] = []
    for record in _candidates(records, in_flight, parked, is_directory, not_done):
        if limit is not None and len(answer) >= limit:
            break
        answer.append(record)
    return answer


def _candidates(
    records: Iterable[Record],
    in_flight: Container[int],
    parked: Container[int],
    is_directory: IsDirectory | None,
    not_done: Container[int],
) -> Iterator[Record]:
    records = list(records)
    held = _Held()
    flying = any(record.seq in in_flight for record in records)  # later ones count, too
    if any(runs_alone(r, is_directory) for r in records if r.seq in in_flight):
        return
    out = [r for r in records if r.state is RecordState.FROZEN and runs_alone(r, is_directory)]
    if uncertain := [r for r in out if r.seq not in not_done]:
        if not flying:
            yield from [r for r in uncertain if r.seq not in parked][:1]
        return
    able: list[Record] = []
    for record in records:
        reads, writes = claims(record, is_directory)
        free = held.allows([*reads, *made(record)], writes)
        is_parked = record.state is RecordState.PARKED or record.seq in parked
        lasting = [w for w in writes if not (is_parked and is_soft(w, record))]
        held.add(reads, [*lasting, *made(record)])
        if record.seq not in in_flight and free and not is_parked:
            able.append(record)

    def makes_directory(record: Record) -> bool:
        is_new = record.kind is RecordKind.CREATE
        return is_new and is_directory is not None and is_directory(record.node)

    for record in sorted(able, key=lambda one: not makes_directory(one)):
        if runs_alone(record, is_directory):
            if not flying:
                yield record
            return
        flying = True
        yield record


def is_soft(claim: Claim, record: Record) -> bool:
    """What a set-aside record does not hold back: rights, and moves if it is in conflict."""
    return claim[0] == "rights" or (claim[0] == "moves" and record.state is RecordState.PARKED)


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

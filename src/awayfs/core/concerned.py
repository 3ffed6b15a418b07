"""Which part of the journal has to be looked at when some of it is new.

What was optimised before and has nothing to do with the new records need not be read again. The
records of the nodes that changed may be merged; what else uses their names and directories is
read along, but left as it is. ``optimise`` leaves alone what is not pending, so the latter are
given to it as frozen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from msgspec.structs import replace

from awayfs.core.positions import STRUCTURAL, slots_of
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId


class Journal(Protocol):
    """What is asked of the journal."""

    def of_node(self, node: NodeId) -> Sequence[Record]:
        """Records that have the node as ``node`` or ``replaced``."""
        ...

    def touching_name(self, parent: NodeId, name: bytes) -> Sequence[Record]:
        """Records whose name or new name is this one."""
        ...

    def inside(self, parent: NodeId) -> Sequence[Record]:
        """Records whose name or new name is in this directory."""
        ...

    def moves(self) -> Sequence[Record]:
        """Records that take a name to another directory."""
        ...


def concerned(changed: Iterable[NodeId], journal: Journal) -> Generator[None, None, list[Record]]:
    """The records to give to ``optimise`` when those of the ``changed`` nodes are new.

    Yields now and then, so that whoever runs it may do something else in between, and returns
    the answer. The journal must not change before that, but at its end.
    """
    own: dict[int, Record] = {}
    pending, seen = list(changed), set[NodeId]()
    while pending:
        node = pending.pop()
        if node in seen or not node:
            continue
        seen.add(node)
        for record in journal.of_node(node):
            own[record.seq] = record
            pending += (record.node, record.replaced)
        yield
    beside: dict[int, Record] = {}
    parents: set[NodeId] = set()
    for record in own.values():
        for parent, name in slots_of(record):
            beside.update((r.seq, r) for r in journal.touching_name(parent, name))
            parents.add(parent)
        yield
    for node in seen:
        beside.update((r.seq, r) for r in journal.inside(node))
        yield
    for parent in parents - seen:
        beside.update((r.seq, r) for r in journal.of_node(parent) if r.kind in STRUCTURAL)
        yield
    if any(_moves(record) for record in own.values()):
        beside.update((r.seq, r) for r in journal.moves())
    frozen = {seq: replace(r, state=RecordState.FROZEN) for seq, r in beside.items()}
    return [record for _, record in sorted({**frozen, **own}.items())]


def _moves(record: Record) -> bool:
    renames = record.kind in (RecordKind.RENAME, RecordKind.EXCHANGE)
    return renames and record.parent != record.to_parent

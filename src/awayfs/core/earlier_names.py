"""Where a node was at an earlier point of the journal.

A record that is decided about anew keeps its place in the journal; what came after it starts from
the names that the node had then, not from those that it has now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import NodeId


def names_before(node: NodeId, now: Iterable[Slot], records: Sequence[Record]) -> list[Slot]:
    """The names that a node had before ``records``, given those it has after them.

    The records are all that have the node as ``node`` or ``replaced``, in order. Names that they
    took away come first, the one that went first before the others.
    """
    names = list(now)
    for record in reversed(records):
        gained, lost = _effect(node, record)
        names = [*lost, *(name for name in names if name not in (*gained, *lost))]
    return names


def name_after(node: NodeId, name: Slot, records: Sequence[Record]) -> Slot | None:
    """What became of a name that a node had before ``records``; None where it was taken away."""
    for record in records:
        gained, lost = _effect(node, record)
        if name in lost:
            if not gained:
                return None
            name = gained[0]
    return name


def _effect(node: NodeId, record: Record) -> tuple[list[Slot], list[Slot]]:
    """The names that a record gave the node, and took away from it."""
    here, there = (record.parent, record.name), (record.to_parent, record.to_name)
    match record.kind:
        case RecordKind.CREATE | RecordKind.LINK:
            return [here], []
        case RecordKind.REMOVE:
            return [], [here]
        case RecordKind.RENAME | RecordKind.EXCHANGE if record.node == record.replaced:
            return [], []  # between two names of one file: nothing happens
        case RecordKind.RENAME if here == there:
            return [], []
        case RecordKind.RENAME | RecordKind.EXCHANGE if record.node == node:
            return [there], [here]
        case RecordKind.RENAME:
            return [], [there]
        case RecordKind.EXCHANGE:
            return [here], [there]
        case _:
            return [], []

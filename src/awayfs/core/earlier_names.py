"""Where a node was at an earlier point of the journal.

A record that is decided about anew keeps its place in the journal; what came after it starts from
the names that the node had then, not from those that it has now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

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


def taken_out(
    node: NodeId, name: Slot, records: Sequence[Record]
) -> tuple[Slot | None, dict[int, Record | None]]:
    """What became of a name that a node had before ``records``, and by their numbers what is left
    of those that led there, where it is not repeated; None: nothing is.
    """
    left: dict[int, Record | None] = {}
    for record in records:
        gained, lost = _effect(node, record)
        if name in lost:
            left[record.seq] = rest_of(record, node)
            if not gained:
                return None, left
            name = gained[0]
    return name, left


def rest_of(record: Record, node: NodeId) -> Record | None:
    """What a record does to others than a node."""
    if record.kind is RecordKind.EXCHANGE:
        return without(record, node)
    if record.node != node:
        return replace(record, replaced=0)
    if record.kind is not RecordKind.RENAME or record.replaced in (0, node):
        return None
    return Record(
        seq=record.seq,
        kind=RecordKind.REMOVE,
        node=record.replaced,
        parent=record.to_parent,
        name=record.to_name,
        at_ns=record.at_ns,
    )


def without(exchange: Record, node: NodeId) -> Record:
    """What is left of an exchange when one of the two is gone: the other's renaming."""
    renamed = replace(exchange, kind=RecordKind.RENAME, replaced=0)
    if exchange.replaced == node:
        return renamed
    return replace(
        renamed,
        node=exchange.replaced,
        parent=exchange.to_parent,
        name=exchange.to_name,
        to_parent=exchange.parent,
        to_name=exchange.name,
    )


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

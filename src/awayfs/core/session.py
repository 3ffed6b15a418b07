"""The offline session as a snapshot: what differs between base and local, and what hangs together.

Two trees of names over the same node ids are compared, the base (what the server had when it was
last in step) and the local one. What differs is told a node at a time, so that it can be asked for
the nodes that the journal touches alone, and a renamed directory is one difference, whatever is in
it.

To discard a change is to put nodes back to where the base has them. ``closure`` tells which nodes
have to go back together: what holds the place that something returns to, what lies in a directory
that ceases to exist, the directory that something returns into, what one record is about.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import ROOT, NodeId

NAMING = (
    RecordKind.CREATE,
    RecordKind.LINK,
    RecordKind.REMOVE,
    RecordKind.RENAME,
    RecordKind.EXCHANGE,
)
ROOT_SLOT: Slot = (0, b"")
"""Stands for the place of the root, which has no name."""


class Aspect(enum.Flag):
    """What of a node a record is about."""

    NAMES = enum.auto()
    CONTENT = enum.auto()
    ATTRIBUTES = enum.auto()


EVERYTHING = Aspect.NAMES | Aspect.CONTENT | Aspect.ATTRIBUTES


def aspect_of(kind: RecordKind) -> Aspect:
    """The aspect that a record changes."""
    if kind in NAMING:
        return Aspect.NAMES
    return Aspect.CONTENT if kind is RecordKind.STORE else Aspect.ATTRIBUTES


class Trees(Protocol):
    """Both trees of names."""

    def base_slots(self, node: NodeId) -> Sequence[Slot]:
        """All names of a node in the base."""
        ...

    def local_slots(self, node: NodeId) -> Sequence[Slot]:
        """All names of a node here."""
        ...

    def base_child(self, slot: Slot) -> NodeId | None:
        """What a name leads to in the base."""
        ...

    def local_child(self, slot: Slot) -> NodeId | None:
        """What a name leads to here."""
        ...

    def local_children(self, directory: NodeId) -> Iterable[NodeId]:
        """What is in a directory here."""
        ...


class Records(Protocol):
    """The journal, by what its records use; each answer in order."""

    def of_node(self, node: NodeId) -> Sequence[Record]:
        """Records that have a node as ``node`` or ``replaced``."""
        ...

    def inside(self, directory: NodeId) -> Sequence[Record]:
        """Records whose name or new name is in a directory."""
        ...

    def touching_name(self, directory: NodeId, name: bytes) -> Sequence[Record]:
        """Records whose name or new name is this one."""
        ...


@dataclass(frozen=True, slots=True)
class Difference:
    """One place that differs, or may: ``base`` in the base tree, ``local`` here.

    Only ``base``: the name is gone. Only ``local``: it is new. Both: the node is still there, if
    they differ under another name; with ``node`` and ``base_node`` differing, something new stands
    where something else was. Paths are filled in by who knows them.
    """

    node: NodeId | None
    base_node: NodeId | None
    base: Slot | None
    local: Slot | None
    path: bytes = b""
    from_path: bytes = b""


def differences(node: NodeId, trees: Trees) -> list[Difference]:
    """The places of one node: those it kept first, then renamed, gone and new ones."""
    if node == ROOT:
        return [Difference(node, node, ROOT_SLOT, ROOT_SLOT)]
    base, local = set(trees.base_slots(node)), set(trees.local_slots(node))
    gone, new = sorted(base - local), sorted(local - base)
    found = [Difference(node, node, slot, slot) for slot in sorted(base & local)]
    found += [Difference(node, node, old, slot) for old, slot in zip(gone, new, strict=False)]
    found += [Difference(None, node, old, None) for old in gone[len(new) :]]
    found += [Difference(node, None, None, slot) for slot in new[len(gone) :]]
    return found


def pair_replaced(found: Iterable[Difference], trees: Trees) -> list[Difference]:
    """Something new where something else was is one difference: an editor's save is an edit.

    Both have to be wholly new and wholly gone; a rename over something else stays two.
    """
    answer: list[Difference] = []
    gone: dict[bytes, int] = {}
    for difference in found:
        was = difference.base_node
        if difference.local is None and was is not None and not trees.local_slots(was):
            gone[difference.from_path] = len(answer)
        answer.append(difference)
    dropped: set[int] = set()
    for index, difference in enumerate(answer):
        if difference.base is not None or difference.node is None:
            continue
        old = gone.get(difference.path)
        if old is None or trees.base_slots(difference.node):
            continue
        other = answer[old]
        answer[index] = replace(
            difference, base_node=other.base_node, base=other.base, from_path=other.from_path
        )
        dropped.add(old)
        del gone[difference.path]
    return [d for index, d in enumerate(answer) if index not in dropped]


def closure(wanted: Iterable[NodeId], trees: Trees, records: Records) -> set[NodeId]:
    """The nodes whose names have to go back together, ``wanted`` among them.

    Putting back exactly these, and dropping their naming records, leaves a tree (every name free,
    every directory there, no ring) and records that can be carried out on the base.
    """
    chosen: set[NodeId] = set()
    pending = list(wanted)
    while pending:
        while pending:
            node = pending.pop()
            if node not in chosen and node != ROOT:
                chosen.add(node)
                pending += _needs(node, trees, records)
        pending = _ring(chosen, trees) or _colliding(chosen, trees, records)
    return chosen


def dropped(chosen: Iterable[NodeId], trees: Trees, records: Records) -> dict[int, Record]:
    """The records that go when the names of these nodes go back: naming ones, and all of those
    that are about a node which ceases to exist with it.
    """
    found: dict[int, Record] = {}
    for node in chosen:
        known = node == ROOT or bool(trees.base_slots(node))
        for record in records.of_node(node):
            if record.kind in NAMING or (record.node == node and not known):
                found[record.seq] = record
    return found


def _needs(node: NodeId, trees: Trees, records: Records) -> list[NodeId]:
    base, local = trees.base_slots(node), trees.local_slots(node)
    needed: list[NodeId] = []
    for slot in base:
        if slot in local:
            continue
        holder = trees.local_child(slot)
        if holder is not None:
            needed.append(holder)
        if slot[0] != ROOT and not trees.local_slots(slot[0]):
            needed.append(slot[0])
    for record in records.of_node(node):
        if record.kind in NAMING and record.replaced:
            needed += (record.node, record.replaced)
    if not base:
        needed += trees.local_children(node)
        needed += (record.node for record in records.inside(node))
    return needed


def _ring(chosen: Collection[NodeId], trees: Trees) -> list[NodeId]:
    """A node that has to go back, too, or directories would come to lie in each other."""
    for start in chosen:
        at, way = start, [start]
        while (above := _above(at, chosen, trees)) is not None and above not in way:
            at = above
            way.append(at)
        if above is None:
            continue
        for node in way[way.index(above) :]:
            if node not in chosen and _has_moved(node, trees):
                return [node]
    return []


def _has_moved(node: NodeId, trees: Trees) -> bool:
    return sorted(trees.base_slots(node)) != sorted(trees.local_slots(node))


def _above(node: NodeId, chosen: Collection[NodeId], trees: Trees) -> NodeId | None:
    """The directory that a node will be in; None for the root and for what will be nowhere."""
    if node == ROOT:
        return None
    slots = trees.base_slots(node) if node in chosen else trees.local_slots(node)
    return slots[0][0] if slots else None


def _colliding(chosen: Collection[NodeId], trees: Trees, records: Records) -> list[NodeId]:
    """Nodes of records that could not be carried out any more without those that go."""
    gone = dropped(chosen, trees, records)
    slots = {slot for record in gone.values() for slot in _slots(record)}
    found: list[NodeId] = []
    for slot in sorted(slots):
        remaining = [r for r in records.touching_name(*slot) if r.seq not in gone]
        found += colliding(slot, trees.base_child(slot), remaining)
    return [node for node in found if node not in chosen]


def _slots(record: Record) -> list[Slot]:
    slots = [(record.parent, record.name)] if record.parent else []
    return [*slots, (record.to_parent, record.to_name)] if record.to_parent else slots


def colliding(slot: Slot, holder: NodeId | None, remaining: Iterable[Record]) -> list[NodeId]:
    """Nodes of records that cannot be carried out, given who holds a name in the base.

    ``remaining`` are the records that use the name and stay, in order.
    """
    found: list[NodeId] = []
    for record in remaining:
        takes = _takes(record, slot)
        leaves = _leaves(record, slot)
        if leaves and holder != leaves:
            found.append(record.node)
        elif leaves:
            holder = None
        if takes:
            if holder is not None and holder != record.replaced:
                found.append(record.node)
            holder = takes
    return found


def _takes(record: Record, slot: Slot) -> NodeId | None:
    """The node that has the name after a record."""
    if record.kind in (RecordKind.CREATE, RecordKind.LINK):
        return record.node
    if record.kind is RecordKind.EXCHANGE and (record.parent, record.name) == slot:
        return record.replaced
    moves = record.kind in (RecordKind.RENAME, RecordKind.EXCHANGE)
    return record.node if moves and (record.to_parent, record.to_name) == slot else None


def _leaves(record: Record, slot: Slot) -> NodeId | None:
    """The node that has the name before a record, and not after it."""
    if record.kind is RecordKind.EXCHANGE:
        here = (record.parent, record.name) == slot
        return record.node if here else record.replaced
    if record.kind in (RecordKind.REMOVE, RecordKind.RENAME):
        return record.node if (record.parent, record.name) == slot else None
    return None


class Order(enum.IntEnum):
    """Going back one by one, each as soon as nothing hangs on it: what was made here first."""

    MADE = 0
    KNOWN = 1
    MADE_DIRECTORY = 2


def going_back(
    nodes: Iterable[NodeId],
    is_known: Callable[[NodeId], bool],
    is_directory: Callable[[NodeId], bool],
    depth: Callable[[NodeId], int],
) -> list[NodeId]:
    """An order in which few nodes have to go back at the same time.

    What was made here goes before the directory made here that it is in; what the base has comes
    back from the top down.
    """

    def key(node: NodeId) -> tuple[int, int, NodeId]:
        if is_known(node):
            return (Order.KNOWN, depth(node), node)
        if is_directory(node):
            return (Order.MADE_DIRECTORY, -depth(node), node)
        return (Order.MADE, 0, node)

    return sorted(nodes, key=key)

"""The journal by position, with indices that answer: does anything between use this?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable

from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import ROOT, NodeId

NodeTest = Callable[[NodeId], bool]

STRUCTURAL = frozenset(
    {
        RecordKind.CREATE,
        RecordKind.LINK,
        RecordKind.REMOVE,
        RecordKind.RENAME,
        RecordKind.EXCHANGE,
    }
)
"""The kinds that change names."""


class Positions:
    """Records by position. All indices are sorted lists of positions.

    ``own``: records of a node, or that displace it; ``structural``: those of them that change
    names; ``inside``: records that work in a directory; ``touches``: records that use a name;
    ``moves``: directories that change their parent. ``touched`` is where something was put or
    taken; whoever looks there empties it.
    """

    def __init__(self, is_directory: NodeTest) -> None:
        self.is_directory = is_directory
        self.live: dict[int, Record] = {}
        self.touched: set[int] = set()
        self.touches: dict[Slot, list[int]] = {}
        self.own: dict[NodeId, list[int]] = {}
        self.structural: dict[NodeId, list[int]] = {}
        self.inside: dict[NodeId, list[int]] = {}
        self.moves: list[int] = []
        self.created_at: dict[NodeId, int] = {}
        self.removed_at: dict[NodeId, int] = {}

    def put(self, position: int, record: Record) -> None:
        """Set the record at a position."""
        if position in self.live:
            self.take(position)
        self.live[position] = record
        self.touched.add(position)
        for index in self._indices(record):
            if not index or index[-1] < position:
                index.append(position)
            else:
                insort(index, position)
        if record.kind is RecordKind.CREATE:
            self.created_at[record.node] = position

    def take(self, position: int) -> Record:
        """Take the record out."""
        record = self.live.pop(position)
        self.touched.add(position)
        for index in self._indices(record):
            del index[bisect_left(index, position)]
        return record

    def _indices(self, record: Record) -> list[list[int]]:
        nodes = {record.node, record.replaced} - {0}
        indices = [self.own.setdefault(node, []) for node in nodes]
        if record.kind not in STRUCTURAL:
            return indices
        indices += [self.structural.setdefault(node, []) for node in nodes]
        slots = slots_of(record)
        indices += [self.touches.setdefault(slot, []) for slot in slots]
        parents = {slot[0] for slot in slots} - {ROOT}
        indices += [self.inside.setdefault(parent, []) for parent in parents]
        if self._moves_directory(record):
            indices.append(self.moves)
        return indices

    def _moves_directory(self, record: Record) -> bool:
        if record.kind not in (RecordKind.RENAME, RecordKind.EXCHANGE):
            return False
        if record.parent == record.to_parent:
            return False
        if record.kind is RecordKind.EXCHANGE and self.is_directory(record.replaced):
            return True
        return self.is_directory(record.node)

    def may_stay(self, node: NodeId, slot: Slot, start: int, end: int) -> bool:
        """Whether a node could keep ``slot`` from ``start`` to ``end`` and disturb nobody."""
        if between(self.touches.get(slot), start, end):
            return False
        if start < self.removed_at.get(slot[0], -1) <= end:
            return False
        return self._no_ring(node, start, end)

    def may_come_early(self, node: NodeId, slot: Slot, start: int, end: int) -> bool:
        """Whether a node that takes ``slot`` at ``end`` could have taken it at ``start``."""
        if between(self.touches.get(slot), start, end):
            return False
        if start < self.created_at.get(slot[0], -1) < end:
            return False
        return self._no_ring(node, start, end)

    def _no_ring(self, node: NodeId, start: int, end: int) -> bool:
        """Nothing between could come to lie inside itself because ``node`` is elsewhere."""
        return not self.is_directory(node) or not between(self.moves, start, end)

    def untouched(self, node: NodeId, start: int, end: int) -> bool:
        """Nothing between concerns the node or works in it."""
        return not between(self.own.get(node), start, end) and not between(
            self.inside.get(node), start, end
        )


def slots_of(record: Record) -> list[Slot]:
    """The names that a record uses."""
    if record.kind not in STRUCTURAL:
        return []
    slots = [(record.parent, record.name)]
    to = (record.to_parent, record.to_name)
    if record.kind in (RecordKind.RENAME, RecordKind.EXCHANGE) and to not in slots:
        slots.append(to)
    return slots


def between(positions: list[int] | None, start: int, end: int) -> bool:
    """Whether any of the sorted positions lies strictly between the two."""
    if not positions:
        return False
    at = bisect_right(positions, start)
    return at < len(positions) and positions[at] < end

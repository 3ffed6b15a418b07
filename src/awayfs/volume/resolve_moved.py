"""A node that the server has under another name by now: that name becomes its own in what is known
of the server, so that what was decided starts from there.

Another node may be known under that name. It has left it: two directories changed places, or one
took the name of one that was moved or removed. Were it left there, the conflict would be found
again after each decision.
"""

from __future__ import annotations

from awayfs.core.conflicts import ConflictKind
from awayfs.core.namespace import Slot
from awayfs.core.records import Record, brings_name
from awayfs.core.types import NodeId
from awayfs.volume.adopt import Adopter
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.observe import Observer

Places = dict[NodeId, Slot | None]
"""Nodes with the names that they have on the server by now; None: not known to have one."""


class MovedNodes:
    """Takes over where nodes in conflict are on the server. Needs no transaction around it."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._adopter = Adopter(context)

    async def find(self, record: Record) -> None:
        """Where the server has the node now becomes the name that our rename starts from.

        Those that were known there are moved along, each to where it is by now.
        """
        await self.look(record.node)
        self.take(record)
        fault("resolve.found")

    async def look(self, node: NodeId) -> None:
        """See where a node is by now, and those that are known there."""
        if await self._is_there(node):
            return
        await self._observer.search(node)
        looked_for = {node}
        while left := [one for one in self._places(node) if one not in looked_for]:
            await self._observer.search(left[0])
            looked_for.add(left[0])

    def take(self, record: Record) -> None:
        """What was seen is what is known from now on; see ``find``."""
        self._move(record, self._places(record.node))

    async def _is_there(self, node: NodeId) -> bool:
        """Whether the node, of one name, is where it is known to be; nothing else counts then."""
        known, names = self._store.server.get(node), self._store.server.names(node)
        path = self._store.server.path(node)
        if known is None or known.file_id is None or len(names) != 1 or path is None:
            return False
        entry = await self._context.link.find(path)
        if entry is None or entry.file_id != known.file_id:
            return False
        self._context.seen_elsewhere.pop(node, None)
        return True

    def is_known_as_another(self, node: NodeId) -> bool:
        """Whether what the server has is known as another node of ours already, which has its
        name: one that was made here under the name that it was moved to there.
        """
        seen = self._context.seen_at(node)
        other = self._store.server.child(*seen) if seen is not None else None
        return other is not None and other != node and self._is_one(node, other)

    def _places(self, node: NodeId) -> Places:
        """Where the node was seen, and those that give way to it; nothing where that is no help."""
        places: Places = {}
        at: NodeId | None = node
        while at is not None and at not in places:
            seen = self._context.seen_at(at)
            if seen is None and at == node:
                return {}  # a directory that is gone since leads nowhere
            if at != node and not self._may_go_along(at):
                seen = None
            places[at] = seen
            holder = self._store.server.child(*seen) if seen is not None else None
            if seen is not None and holder is not None and not self._gives_way(at, holder, seen):
                return {}
            at = holder
        inside = (set(self._store.server.above(seen[0])) for seen in places.values() if seen)
        return {} if any(above & places.keys() for above in inside) else places

    def _gives_way(self, node: NodeId, holder: NodeId, place: Slot) -> bool:
        """Whether what is known under a name has left it. One of several names of a file stays
        while a change here is about it: that goes out by the name.
        """
        if node == holder or self._is_one(node, holder):
            return False
        several = len(self._store.server.names(holder)) > 1
        return not (several and self._adopter.is_name_dirty(holder, place))

    def _is_one(self, node: NodeId, other: NodeId) -> bool:
        known, there = self._store.server.get(node), self._store.server.get(other)
        if known is None or there is None or known.file_id is None:
            return False
        return known.kind is there.kind and known.file_id == there.file_id

    def _may_go_along(self, node: NodeId) -> bool:
        """Whether nothing is decided by it: no rename of ours goes out from there unasked.

        Where one could, the node has no name on the server until its conflict is found as well.
        """
        names = self._store.server.names(node)
        if len(names) > 1:
            return False  # it has the others
        if not any(self._adopter.is_name_dirty(node, name) for name in names):
            return True
        found = self._store.conflicts.of_node(node)
        return any(conflict.kind == ConflictKind.RENAME_RENAME for conflict in found)

    def _move(self, record: Record, places: Places) -> None:
        server, node = self._store.server, record.node
        if not places:
            return
        with self._store.transaction():
            old = {node: self._starts_from(record)}
            for seen in places.values():
                holder = server.child(*seen) if seen is not None else None
                if holder is not None:
                    old[holder] = seen
            for left in old.values():
                if left is not None and server.child(*left) is not None:
                    server.remove_name(*left)
            for moved, seen in places.items():
                if seen is not None:
                    server.add_name(*seen, moved)
                    self._context.seen_elsewhere.pop(moved, None)
                if server.listed_ns(moved) is not None:
                    server.set_listed(moved, 0)  # it may have been another's listing
            start, place = old[node], places[node]
            if start is not None and place is not None:
                self._follow(node, start, place)

    def _starts_from(self, record: Record) -> Slot | None:
        names, recorded = self._store.server.names(record.node), (record.parent, record.name)
        return recorded if recorded in names else next(iter(names), None)

    def _follow(self, node: NodeId, old: Slot, new: Slot) -> None:
        """A name here that our rename was not about, of a file with several, moves as well."""
        nodes, records = self._store.nodes, self._store.journal.of_node(node)
        if nodes.child_id(*old) != node or any(brings_name(r, node, old) for r in records):
            return
        nodes.remove_name(*old)
        if nodes.child_id(*new) is None:
            nodes.add_name(*new, node)
        for place in (old, new):
            self._context.kernel.forget_entry(*place)

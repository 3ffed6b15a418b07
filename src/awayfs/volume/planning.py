"""What a discard will take: small groups of nodes that go back together, in an order.

The plan is made before anything changes, so that a refusal changes nothing. For that the steps are
played on an overlay of both trees, in which what is planned already is where the base has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct, field

from awayfs.core.namespace import Slot
from awayfs.core.records import Record
from awayfs.core.session import closure, dropped, going_back
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.store import Store
from awayfs.volume.session import StoreTrees
from awayfs.volume.slices import Slices


class Plan(Struct):
    """``groups`` in their order; ``also`` are nodes that nobody named, and ``losing`` those of
    them that would lose something which can be seen here.
    """

    groups: list[list[NodeId]] = field(default_factory=list)
    seqs: set[int] = field(default_factory=set)
    also: set[NodeId] = field(default_factory=set)
    losing: list[NodeId] = field(default_factory=list)

    @property
    def nodes(self) -> set[NodeId]:
        """All that go back."""
        return {node for group in self.groups for node in group}


class Planner:
    """Makes plans; reads only."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def plan(self, wanted: Collection[NodeId]) -> Plan:
        """How to put back these nodes, with what has to go with them."""
        store, slices, plan = self._store, Slices(), Plan()
        trees = _Planned(store)
        wanted = set(wanted)
        depths: dict[NodeId, int] = {}
        made: set[NodeId] = set()
        directories: set[NodeId] = set()
        for node in wanted:
            depths[node] = self._depth(node)
            if node != ROOT and not store.server.names(node):
                made.add(node)
                directories |= {node} if self._is_directory(node) else set()
            await slices.pause()
        order = going_back(
            wanted,
            lambda node: node not in made,
            directories.__contains__,
            depths.__getitem__,
        )
        for node in order:
            if node in trees.planned:
                continue
            group = {node} if node == ROOT else closure([node], trees, trees)
            plan.seqs |= dropped(group, trees, trees).keys()
            for also in group - wanted:
                plan.also.add(also)
                if store.nodes.names(also):
                    plan.losing.append(also)
            plan.groups.append(sorted(group))
            trees.note(group, plan.seqs)
            await slices.pause()
        return plan

    def _is_directory(self, node: NodeId) -> bool:
        found = self._store.nodes.get(node)
        return found is not None and found.kind is Kind.DIRECTORY

    def _depth(self, node: NodeId) -> int:
        names = self._store.server
        path = names.path(node) if names.names(node) else self._store.nodes.path(node)
        return 0 if path is None else path.count(b"/")


class _Planned:
    """Both trees and the journal as if all that is planned had gone back already."""

    def __init__(self, store: Store) -> None:
        self._real = StoreTrees(store)
        self.planned: set[NodeId] = set()
        self._gone: set[int] = set()
        self.base_slots = self._real.base_slots
        self.base_child = self._real.base_child

    def note(self, nodes: Iterable[NodeId], gone: set[int]) -> None:
        """These are planned, and these records go."""
        self.planned.update(nodes)
        self._gone = gone

    def local_slots(self, node: NodeId) -> Sequence[Slot]:
        """Where a node will be."""
        planned = node in self.planned
        return self._real.base_slots(node) if planned else self._real.local_slots(node)

    def local_child(self, slot: Slot) -> NodeId | None:
        """What will have a name."""
        before = self._real.base_child(slot)
        if before in self.planned:
            return before
        now = self._real.local_child(slot)
        return None if now in self.planned else now

    def local_children(self, directory: NodeId) -> Iterable[NodeId]:
        """What will be in a directory that only exists here."""
        children = self._real.local_children(directory)
        return [child for child in children if child not in self.planned]

    def of_node(self, node: NodeId) -> Sequence[Record]:
        """What is left of a node's records."""
        return [r for r in self._real.of_node(node) if r.seq not in self._gone]

    def inside(self, directory: NodeId) -> Sequence[Record]:
        """What is left of the records in a directory."""
        return [r for r in self._real.inside(directory) if r.seq not in self._gone]

    def touching_name(self, directory: NodeId, name: bytes) -> Sequence[Record]:
        """What is left of the records that use a name."""
        found = self._real.touching_name(directory, name)
        return [r for r in found if r.seq not in self._gone]

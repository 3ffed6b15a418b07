"""``awayfs discard`` and ``awayfs journal drop``: going back from local to base.

Nodes are put back to where and what the base has them, and the records that said otherwise go, in
one transaction for each group that has to go together (``core.session.closure``). Between two
transactions the tree and the journal agree, so a daemon that dies leaves a session of which a part
is discarded; discarding again goes on. Content that is given up goes to the history first.

While connected, the base is only what was seen last: what went back counts as not seen lately, so
the server's version is taken over like after any absence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Final

from awayfs.core.errors import UsageError
from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.session import EVERYTHING, Aspect, aspect_of, closure, dropped
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.planning import Plan, Planner
from awayfs.volume.put_back import BRINGING, PutBack
from awayfs.volume.replay import Replay
from awayfs.volume.returning import Returning
from awayfs.volume.session import StoreTrees
from awayfs.volume.slices import Slices

SETTLE_S: Final = 10.0
LOOK_S: Final = 0.05


class _Patience:
    """Waits for what is on its way to the server to settle, but not for ever."""

    def __init__(self, context: Context, replay: Replay) -> None:
        self._context = context
        self._replay = replay
        self._until = asyncio.get_running_loop().time() + SETTLE_S

    async def wait(self, seq: int) -> None:
        """A moment; UsageError when it makes no sense, or no sense any more."""
        record, why = self._context.store.journal.get(seq), "is on its way to the server"
        if record is not None and self._context.deciding[record.node]:
            why = "is being decided about"
        elif not self._context.link.usable:
            raise UsageError(
                f"record {seq} may be on the server already, and the server is away; "
                "go online first (awayfs online)"
            )
        if asyncio.get_running_loop().time() > self._until:
            raise UsageError(f"record {seq} {why}; try again soon")
        self._replay.wake()
        await asyncio.sleep(LOOK_S)


class Discarder:
    """Carries plans out."""

    def __init__(self, context: Context, changes: Changes, replay: Replay) -> None:
        self._context = context
        self._store = context.store
        self._changes = changes
        self._replay = replay
        self._trees = StoreTrees(context.store)
        self._put_back = PutBack(context)
        self._returning = Returning(context)
        self._touched: set[NodeId] = set()
        self.planner = Planner(context.store)

    async def discard(
        self, plan: Plan, aspects: Aspect = EVERYTHING
    ) -> AsyncIterator[tuple[NodeId, ...]]:
        """Put back all groups; yields each when it is done.

        ``aspects`` is what goes back of nodes that the base has; what only exists here goes
        altogether. Raises UsageError when something is on its way to the server and does not
        settle, or was changed meanwhile; what was yielded is done then, and stays so. What cannot
        be kept because it is being written is found before.
        """
        allowed, slices = plan.nodes, Slices()
        self._put_back.check(allowed)
        decision = self._store.history.new_decision()
        self._touched.clear()
        for group in plan.groups:
            together = self._together(group, allowed)
            patience = _Patience(self._context, self._replay)
            while (seq := self._try(together, aspects, decision)) is not None:
                await patience.wait(seq)
                together = self._together(group, allowed)
            fault("discard.applied")
            yield tuple(together)
            await slices.pause()
        for directory in self._touched:
            self._settle_directory(directory)
            await slices.pause()
        self._context.on_journal()

    async def drop(self, record: Record) -> None:
        """Give up one change of content or of properties of a node that the base has.

        A change of content takes the others of that node along: what is sent is one content.
        """
        patience, node = _Patience(self._context, self._replay), record.node
        while True:
            records = {record.seq: record}
            if record.kind is RecordKind.STORE:
                records = self._records([node], Aspect.CONTENT)
                self._check_closed(node, records)
            flying = next((r.seq for r in records.values() if self._is_flying(r)), None)
            if flying is None:
                break
            await patience.wait(flying)
        decision = self._store.history.new_decision()
        self._apply([node], records, aspect_of(record.kind), decision)
        fault("discard.applied")
        self._context.on_journal()

    def _check_closed(self, node: NodeId, records: Collection[int]) -> None:
        """Another node takes the place of an open one; what is left in the journal cannot."""
        stays = any(r.seq not in records for r in self._store.journal.of_node(node))
        if stays and self._context.opened.get(node) is not None:
            raise UsageError("the file is open and has other changes too; close it first")

    def _together(self, group: Collection[NodeId], allowed: Collection[NodeId]) -> list[NodeId]:
        """The group as it is by now; what is back already may be in it, and does no harm."""
        there = {node for node in group if self._store.nodes.get(node) is not None}
        found = closure(there, self._trees, self._trees) | there
        strangers = found - set(allowed)
        if any(self._store.nodes.names(node) for node in strangers):
            raise UsageError("it was changed meanwhile; look at awayfs diff, and discard again")
        return sorted(found)

    def _try(self, nodes: list[NodeId], aspects: Aspect, decision: int) -> int | None:
        """Put a group back; or the record that is in flight, and nothing is done."""
        records = self._records(nodes, aspects)
        for record in records.values():
            if self._is_flying(record):
                return record.seq
        self._apply(nodes, records, aspects, decision)
        return None

    def _records(self, nodes: Collection[NodeId], aspects: Aspect) -> dict[int, Record]:
        """What is dropped with these nodes."""
        found = dropped(nodes, self._trees, self._trees) if Aspect.NAMES in aspects else {}
        for node in nodes:
            for record in self._store.journal.of_node(node):
                if record.node == node and aspect_of(record.kind) in aspects:
                    found[record.seq] = record
        return found

    def _is_flying(self, record: Record) -> bool:
        """Whether somebody works on it: who has looked at the server goes on from that."""
        if self._context.deciding[record.node]:
            return True
        if self._replay.is_flying(record.seq) or record.state is RecordState.FROZEN:
            return True
        return self._store.intents.get(record.seq) is not None

    def _apply(
        self, nodes: list[NodeId], records: dict[int, Record], aspects: Aspect, decision: int
    ) -> None:
        store, kernel = self._store, self._context.kernel
        local = {node: list(store.nodes.names(node)) for node in nodes}
        known = {node for node in nodes if node == ROOT or store.server.names(node)}
        with store.transaction():
            for node in nodes:
                if any(r.kind in BRINGING and r.node == node for r in records.values()):
                    self._put_back.keep(node, decision)
            fault("discard.kept")
            if Aspect.NAMES in aspects:
                self._names_back(nodes)
            store.journal.remove(records)
            for node in nodes:
                mine = [r for r in records.values() if r.node == node]
                if node in known:
                    self._put_back.properties(node, mine)
                    if node != ROOT and not local[node]:  # what was set may be out of the journal
                        self._returning.attributes(node)
                    self._put_back.content(node, mine)
                    self._returning.content(node)
                for conflict in store.conflicts.of_node(node):
                    if not any(store.journal.get(seq) for seq in conflict.record_seqs):
                        store.conflicts.remove(conflict.id)
            slots = self._slots(nodes, local)
            self._look_again(nodes, slots)
        self._touched |= {slot[0] for slot in slots} | known
        for slot in slots:
            kernel.forget_entry(*slot)
        for node in nodes:
            kernel.forget_node(node)
            self._context.failures.clear(node)
            self._changes.discard_if_unused(node)

    def _names_back(self, nodes: list[NodeId]) -> None:
        names = self._store.nodes
        for node in nodes:
            for slot in names.names(node):
                names.remove_name(*slot)
        for node in nodes:
            for slot in self._store.server.names(node):
                names.add_name(*slot, node)

    def _slots(self, nodes: list[NodeId], local: dict[NodeId, list[Slot]]) -> list[Slot]:
        """Where the nodes were, and where they are."""
        now = [slot for node in nodes for slot in self._store.nodes.names(node)]
        return sorted({slot for slots in local.values() for slot in slots} | set(now))

    def _settle_directory(self, directory: NodeId) -> None:
        """A directory in which nothing is changed any more has the base's time again.

        At the end, and not with each group: who is cut off before has a time that is too new.
        """
        base, journal = self._store.server.get(directory), self._store.journal
        if base is None or base.kind is not Kind.DIRECTORY or journal.has_any(directory):
            return
        if self._store.nodes.get(directory) is None or journal.works_in(directory):
            return
        self._store.nodes.update(directory, mtime_ns=base.mtime_ns)
        self._context.kernel.forget_node(directory)

    def _look_again(self, nodes: list[NodeId], slots: list[Slot]) -> None:
        """The server's version of this moment is to be taken over, not that of the base."""
        if not self._context.link.usable:
            return
        server = self._store.server
        for node in nodes:
            server.touch(node, 0)
        for directory in {slot[0] for slot in slots}:
            if server.listed_ns(directory) is not None:
                server.set_listed(directory, 0)

"""Keeping the journal short: what has no net effect is dropped before it is sent.

Done in slices, since a journal may be long. Every step leaves a journal that means the same, so
there may be a pause, or an end, after each. Only what concerns records that are new since the
last time is looked at, and what has an intent counts as gone out. It runs while nothing is on its
way; should a record that was read be changed by somebody else in between, it stops, and begins
anew with the next pass.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from awayfs.core.concerned import concerned
from awayfs.core.optimise import Plan, optimise
from awayfs.core.positions import NodeTest
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId
from awayfs.store.store import Store
from awayfs.volume.fault import fault
from awayfs.volume.slices import Slices, in_slices

BATCH = 200
MOSTLY_NEW = 8
"""When one record in so many is new, the whole journal is read: that is faster."""


class Optimiser:
    """Optimises the journal of one store; ``discard`` drops a node that nothing refers to."""

    def __init__(
        self, store: Store, discard: Callable[[NodeId], object], is_directory: NodeTest
    ) -> None:
        self._store = store
        self._journal = store.journal
        self._discard = discard
        self._is_directory = is_directory
        self._done_to = 0
        self._changed: set[int] = set()
        self._at_work = False
        self._disturbed = False
        self._journal.on_change.append(self._note)

    async def run(self) -> None:
        """Drop and merge what has no net effect."""
        until = self._journal.last_seq()
        if until == self._done_to and not self._changed:
            return
        slices = Slices()
        self._disturbed = False
        changed, self._changed = self._changed, set()
        records = await self._read(until, changed, slices)
        if self._disturbed or not await self._carry_out(records, slices):
            self._changed |= changed
        else:
            self._done_to = until

    def _note(self, seq: int) -> None:
        """Somebody changed a record."""
        if not self._at_work:
            self._disturbed = True
            self._changed.add(seq)

    async def _read(self, until: int, changed: set[int], slices: Slices) -> list[Record]:
        """The records to look at; what has an intent is as good as gone."""
        new = await self._batches(self._done_to, until, slices)
        other, seqs = [], sorted(changed)
        for start in range(0, len(seqs), BATCH):
            other += self._journal.there(seqs[start : start + BATCH])
            await slices.pause()
        if (len(new) + len(other)) * MOSTLY_NEW >= self._journal.count():
            records = await self._batches(0, self._done_to, slices) + new
        else:
            nodes = {node for r in (*new, *other) for node in (r.node, r.replaced)}
            records = await in_slices(concerned(nodes, self._journal), slices)
        started = {seq for seq, _, _ in self._store.intents.all()}
        frozen = RecordState.FROZEN
        return [
            replace(r, state=frozen) if r.seq in started else r for r in records if r.seq <= until
        ]

    async def _batches(self, after: int, until: int, slices: Slices) -> list[Record]:
        found: list[Record] = []
        while after < until and (read := self._journal.all(limit=BATCH, after=after)):
            found += [record for record in read if record.seq <= until]
            after = read[-1].seq
            await slices.pause()
        return found

    async def _carry_out(self, records: list[Record], slices: Slices) -> bool:
        """Whether it came to its end."""
        plans = optimise(records, self._is_directory, self._has_names)
        stores = {r.seq: r.node for r in records if r.kind is RecordKind.STORE}
        nodes = {r.seq: r.node for r in records}
        ended = False
        while not ended:
            touched: set[NodeId] = set()
            with self._store.transaction():
                for plan in plans:
                    if plan:
                        self._apply(plan, stores)
                        touched.update(nodes[seq] for seq in plan.dropped)
                    if slices.over:
                        break
                else:
                    ended = True
            if touched:
                fault("replay.optimised")
                with self._store.transaction():
                    for node in touched:
                        self._discard(node)
            await slices.pause()
            if self._disturbed:
                return False
        return True

    def _apply(self, plan: Plan, stores: dict[int, NodeId]) -> None:
        self._at_work = True
        try:
            for rewritten in plan.rewritten:
                self._journal.replace(rewritten)
            self._journal.remove(plan.dropped)
        finally:
            self._at_work = False
        for seq in plan.dropped:
            if seq in stores:
                self._disown(stores[seq])

    def _disown(self, node: NodeId) -> None:
        """Content whose change is not sent, the file being gone, is no revision of the server's."""
        content = self._store.content
        if content.has(node) and not self._journal.has_store(node):
            content.set_token(node, None)

    def _has_names(self, node: NodeId) -> bool:
        return bool(self._store.nodes.names(node))

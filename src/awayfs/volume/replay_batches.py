"""Which records go together: contents that are small, nobody has open, and need no look first.

What they cost by themselves, tasks and messages and transactions, they share then. Over a weak link
each goes by itself: what is asked for meanwhile waits for one, not for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from awayfs.core.decide import Apply, Decision, Facts, decide
from awayfs.core.facts import if_as_known
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Kind
from awayfs.volume.context import Context
from awayfs.volume.puts import Load, Puts
from awayfs.volume.replay_facts import FactFinder

MOST = 16
"""The first is through only when the last is."""


class Member(Struct, frozen=True):
    """A record that may go with others, and what was decided on."""

    load: Load
    facts: Facts

    @property
    def record(self) -> Record:
        """As it was decided on."""
        return self.load.record

    @property
    def seq(self) -> int:
        return self.load.record.seq


class Batches:
    """Forms them."""

    def __init__(self, context: Context, finder: FactFinder, puts: Puts) -> None:
        self._context = context
        self._store = context.store
        self._finder = finder
        self._puts = puts

    def of(self, seqs: Sequence[int]) -> tuple[list[list[Member]], list[int]]:
        """Batches of some of these records, which may all go now, and those that go alone."""
        if self._context.link.weak or len(seqs) == 1:
            return [], list(seqs)
        members: list[Member] = []
        alone: list[int] = []
        for seq in seqs:
            member: Member | None = None
            with suppress(Exception):  # whoever sends it meets that again, and tells of it
                member = self._member(seq)
            if member is None:
                alone.append(seq)
            else:
                members.append(member)
        batches = [members[at : at + MOST] for at in range(0, len(members), MOST)]
        if batches and len(batches[-1]) == 1:
            alone.append(batches.pop()[0].seq)
        return batches, alone

    def _member(self, seq: int) -> Member | None:
        record = self._store.journal.get(seq)
        if record is None or record.state is not RecordState.PENDING:
            return None
        if record.kind not in (RecordKind.CREATE, RecordKind.STORE):
            return None
        node = self._context.node(record.node)
        if node is None or node.kind is not Kind.FILE or self._context.opened.get(node.id):
            return None
        whole = self._store.content.covers(node.id, 0, node.size)
        if not whole or not self._puts.goes_at_once(seq, node):
            return None
        if (found := self._finder.unseen(record)) is None:
            return None
        facts, places = found
        decided, path = decide(facts), places.target
        decision: Decision | None = decided
        if record.kind is RecordKind.STORE:
            decision, path = if_as_known(facts, decided), places.path
        if not isinstance(decision, Apply) or decision.unproven or path is None:
            return None
        return Member(Load(record, path, decision.expected), facts)

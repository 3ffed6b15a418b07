"""Which changes wait because their file is still being written (docs/adr/0006).

Short-lived and half-written states then never travel, unless somebody waits for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from awayfs.core.records import Record, RecordKind
from awayfs.core.types import NodeId
from awayfs.volume.context import SECOND_NS, Context

QUIET_NS = 2 * SECOND_NS


class BeingWritten:
    """Answers for one record whether it had better wait, and knows who cannot."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._journal = context.store.journal
        self._urgent: Counter[NodeId] = Counter()
        self._urgent_to: dict[NodeId, int] = {}
        self._hurried_to = 0
        self._hurried: set[int] = set()
        self._restless: set[int] = set()  # torn since: not hurried any more

    def hurry(self, seqs: Collection[int] | None = None) -> None:
        """These records are wanted, or all that are in the journal now."""
        if seqs is None:
            self._hurried_to = self._journal.last_seq()
            self._hurried.clear()
            self._restless.clear()
        else:
            self._hurried.update(seqs)
            self._restless.difference_update(seqs)

    @contextmanager
    def urgently(self, node: NodeId) -> Iterator[None]:
        """A node's changes are wanted meanwhile.

        Those of this moment: of a file that may be mapped there is always one more.
        """
        self._urgent[node] += 1
        self._urgent_to[node] = self._journal.last_seq()
        try:
            yield
        finally:
            self._urgent[node] -= 1
            if not self._urgent[node]:
                del self._urgent[node], self._urgent_to[node]

    def torn(self, seq: int) -> None:
        """The file changed while it was sent: one that never rests is not sent again and again."""
        self._restless.add(seq)

    def is_only_mapped(self, record: Record) -> bool:
        """Whether a store says no more than that its file may be written to through a mapping.

        It goes out when that is closed, with the next write that is seen, before whatever else
        is changed about the file, or when somebody waits for it.
        """
        opened = self._context.opened.get(record.node)
        if record.kind is not RecordKind.STORE or opened is None or not opened.mappers:
            return False
        if self._is_wanted(record) or opened.written_ns > record.at_ns:
            return False
        return self._journal.of_node(record.node)[-1].seq == record.seq

    def is_unfinished(self, record: Record) -> bool:
        """Whether more may come: content goes out when its file is closed or has been quiet."""
        if self._is_wanted(record):
            return False
        if record.kind not in (RecordKind.STORE, RecordKind.CREATE):
            return False
        opened = self._context.opened.get(record.node)
        if opened is None or not opened.writers:
            return False
        return self._context.now() - opened.written_ns < QUIET_NS

    def _is_wanted(self, record: Record) -> bool:
        """Whether somebody waits for this very change."""
        asked_for = record.seq <= self._hurried_to or record.seq in self._hurried
        hurried = asked_for and record.seq not in self._restless
        return hurried or record.seq <= self._urgent_to.get(record.node, 0)

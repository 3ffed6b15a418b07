"""The one write path: apply here, append to the journal, wake the replay.

Every change through the mount goes through ``Journaling``, so that no caller can forget the
record. Applying and appending are one transaction, committed before the caller is answered:
a killed daemon loses nothing that was acknowledged.
"""

from __future__ import annotations

from typing import Any

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId
from awayfs.volume.context import Context


class Journaling:
    """Appends records and knows which nodes have a store that has not gone out yet."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._journal = context.store.journal
        self._open_stores: set[NodeId] = {
            record.node
            for record in self._journal.all()
            if record.kind is RecordKind.STORE and record.state is RecordState.PENDING
        }

    def append(self, kind: RecordKind, node: NodeId, **fields: Any) -> Record:
        """Add one record; to be called inside the transaction that applies the change."""
        record = self._journal.append(kind, node, at_ns=self._context.now(), **fields)
        self._context.on_journal()
        return record

    def store_pending(self, node: NodeId) -> bool:
        """Whether a store of this node waits that later writes may still join."""
        return node in self._open_stores

    def store(self, node: NodeId) -> None:
        """Journal that a node's content changes, unless such a record still waits.

        A frozen or parked store does not count: what is in flight is never merged, only
        followed. The base is kept before the first change, so this comes before the write.
        """
        if node in self._open_stores:
            return
        context = self._context
        with context.store.transaction():
            if not self._journal.has_store(node) and context.store.server.get(node):
                context.store.content.keep_base(node, context.options.base_limit)
            self.append(RecordKind.STORE, node)
            context.store.content.mark_unsynced(node)
        self._open_stores.add(node)

    def frozen(self, node: NodeId) -> None:
        """The node's store went out or was parked: the next write starts a new record."""
        self._open_stores.discard(node)

    def thawed(self, node: NodeId) -> None:
        """The node's store came back unsent: later writes may join it again."""
        self._open_stores.add(node)

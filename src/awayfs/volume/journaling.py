"""The one write path: apply here, append to the journal, wake the replay.

Every change through the mount goes through ``Journaling``, so that no caller can forget the
record. Applying and appending are one transaction, committed before the caller is answered:
a killed daemon loses nothing that was acknowledged.
"""

from __future__ import annotations

import logging
from typing import Any

from msgspec.structs import replace

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId
from awayfs.volume.context import Context
from awayfs.volume.fault import fault

log = logging.getLogger(__name__)


class Journaling:
    """Appends records."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._journal = context.store.journal

    def append(self, kind: RecordKind, node: NodeId, **fields: Any) -> Record:
        """Add one record; to be called inside the transaction that applies the change."""
        record = self._journal.append(kind, node, at_ns=self._context.now(), **fields)
        fault("journal.appended")
        self._context.on_journal()
        return record

    def created(self, node: NodeId, parent: NodeId, name: bytes, *, stored: bool) -> int:
        """Journal that a file appeared, within the transaction that makes it.

        With ``stored`` a store, too: whoever opens a new file to write to it mostly does, and so
        the first write costs no transaction. Its seq, else 0; ``withdraw`` takes it back.
        """
        seq = self._journal.append_created(node, parent, name, self._context.now(), stored=stored)
        fault("journal.appended")
        self._context.on_journal()
        return seq if stored else 0

    def withdraw(self, node: NodeId, store: int) -> None:
        """No write came to join a store that was journaled along with the creation.

        What may have gone out stays. So does what there is no room to take back: it tells of the
        content that the file has.
        """
        records = self._journal.of_node(node)
        created, intents = records[0] if records else None, self._context.store.intents
        if created is None or created.kind is not RecordKind.CREATE or intents.get(created.seq):
            return
        states = {r.state for r in records if r.seq in (created.seq, store)}
        if states == {RecordState.PENDING}:
            try:
                self._journal.remove([store])
            except OSError as error:
                log.warning("a record without an effect stays: %s", error)

    def store_pending(self, node: NodeId) -> bool:
        """Whether a store of this node waits that later writes may still join."""
        return self._journal.has_open_store(node)

    def store(self, node: NodeId) -> None:
        """Journal that a node's content changes, unless such a record still waits.

        A frozen or parked store does not count: what is in flight is never merged, only
        followed. The base is kept before the first change, so this comes before the write.
        """
        if self._journal.has_open_store(node):
            return
        context = self._context
        content = context.store.content
        with context.store.transaction():
            if not self._journal.has_store(node):
                self._keep_base(node)
                self._bear_time(node)
            self.append(RecordKind.STORE, node)
            content.mark_unsynced(node)
        fault("files.journaled")

    def nameless(self, node: NodeId, *, changed: bool = False) -> None:
        """The content of a file that lost its last name here is about to change.

        There is no record to send. But the record that took the name away may still wait, and
        is decided by what the server has: so what was in step with it is kept as the base, and
        nobody takes the open file's content for it: that is of no revision. ``changed``: it is
        too late for a base.
        """
        store = self._context.store
        content, base = store.content, store.server.get(node)
        if base is None or self._journal.has_store(node):
            return
        if content.ranges(node) and content.token(node) is None:
            return  # begun already
        with store.transaction():
            if not content.ranges(node):
                content.set_token(node, base.token)  # what is not here has to come from it
            if content.base_token(node) != content.token(node):
                content.drop_base(node)
            if changed or not content.keep_base(node, self._context.options.base_limit):
                content.keep_no_base(node)
            content.set_token(node, None)

    def _keep_base(self, node: NodeId) -> None:
        """Keep the base's content, and have the base be what the change is made to.

        Content that is not (or not surely) of the revision last seen on the server was read,
        and is now changed, as the revision it belongs to: replay must find that the server
        has moved on, and not send an edit of the old one over the new one.
        """
        store = self._context.store
        base, content = store.server.get(node), store.content
        if base is None:
            return
        found = self._context.node(node)
        if not content.ranges(node):
            content.set_token(node, base.token)  # what is not here would have to come from it
        elif found is not None and content.token(node) != base.token:
            token = content.token(node) or b""
            older = replace(base.entry(), token=token, size=found.size, weak=True)
            store.server.set(node, older, seen_ns=0)
        content.keep_base(node, self._context.options.base_limit)

    def _bear_time(self, node: NodeId) -> None:
        """From the first store on the cache file tells the node's time (see ``opened``)."""
        found = self._context.node(node)
        if found is not None:
            self._context.store.content.stamp(node, found.mtime_ns)

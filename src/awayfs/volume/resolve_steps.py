"""Steps that several decisions take: asking the server, naming a copy, letting a record go."""

from __future__ import annotations

import time

from awayfs.core.errors import NotFound
from awayfs.core.naming import conflict_copy_name
from awayfs.core.records import Record, RecordState
from awayfs.core.types import Entry, NodeId
from awayfs.volume.context import Context
from awayfs.volume.observe import Observer


class Steps:
    """What is common to keeping one side, the other, or both."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer

    async def stat(self, path: bytes) -> Entry | None:
        try:
            return await self._context.link.call(lambda remote: remote.stat(path))
        except NotFound:
            return None

    def copy_name(self, parent: NodeId, name: bytes, there: set[bytes]) -> bytes:
        when = time.strftime("%Y-%m-%d", time.localtime(self._context.now() / 1e9))
        return conflict_copy_name(
            name,
            self._context.options.host,
            when,
            lambda n: n in there or self._store.nodes.child_id(parent, n) is not None,
        )

    def release(self, record: Record) -> None:
        with self._store.transaction():
            self._store.journal.set_state(record.seq, RecordState.PENDING)

    async def find_on_server(self, record: Record) -> None:
        """Where the server has the node now becomes the name that our rename starts from."""
        await self._observer.search(record.node)
        names = self._store.server.names(record.node)
        seen = self._context.seen_elsewhere.get(record.node)
        if names and seen is not None and self._store.server.child(*seen) is None:
            with self._store.transaction():
                self._store.server.move_name(*names[0], *seen)

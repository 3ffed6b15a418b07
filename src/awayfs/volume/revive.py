"""Directories that were removed on the server while something was created in them here.

Content beats deletion: the ancestors come back, empty, and what was created goes into them;
the deletion of everything else in them stands, which the next listing shows.
"""

from __future__ import annotations

from awayfs.core.records import Record, RecordKind
from awayfs.core.types import ROOT, Attributes, Committed, Entry, Kind, NodeId
from awayfs.volume.adopt import Adopter
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.observe import Observer
from awayfs.volume.op_ids import revive_op

TARGETING = (RecordKind.RENAME, RecordKind.EXCHANGE)


class Reviver:
    """Makes sure that the directory a record works in exists on the server."""

    def __init__(self, context: Context, observer: Observer, client: str) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._client = client
        self._adopter = Adopter(context)

    async def revive_for(self, record: Record) -> bool:
        """Bring back the directory of the name that a record wants; raises ``RemoteError``.

        False when something that is no directory stands in its place, or in an ancestor's.
        """
        if record.kind in (RecordKind.CREATE, RecordKind.LINK):
            return await self._revive(record.parent, record.seq)
        if record.kind in TARGETING:
            return await self._revive(record.to_parent, record.seq)
        return True

    async def _revive(self, directory: NodeId, seq: int) -> bool:
        path = self._store.server.path(directory)
        if directory == ROOT or path is None:
            return True
        entry = await self._context.link.find(path)
        if entry is not None:
            return entry.kind is Kind.DIRECTORY
        await self._observer.search(directory)
        if self._store.server.path(directory) != path:
            return True  # renamed on the server: the record works in it where it is now
        parent = self._store.server.names(directory)[0][0]
        if not await self._revive(parent, seq):
            return False
        there = await self._make(directory, path, seq)
        self._observer.committed(parent, directory)
        self._observer.look_again(directory)
        return there

    async def _make(self, directory: NodeId, path: bytes, seq: int) -> bool:
        """Whether a directory stands there then: somebody may have put something else there."""
        node = self._store.nodes.get(directory)
        mode = node.mode if node else 0o755
        op = revive_op(self._client, seq, directory)
        outcome = await self._context.link.call(
            lambda remote: remote.make(op, path, Kind.DIRECTORY, Attributes(mode=mode))
        )
        fault("replay.reviving")
        entry = outcome.entry if isinstance(outcome, Committed) else outcome.current
        if entry is not None and entry.kind is not Kind.DIRECTORY:
            return False
        if entry is not None:
            self._adopt(directory, entry)
        return True

    def _adopt(self, directory: NodeId, entry: Entry) -> None:
        if not self._store.server.names(directory):
            return  # given up meanwhile: a listing will tell of it
        with self._store.transaction():
            self._store.server.set(directory, entry, seen_ns=self._context.now())
            self._adopter.adopt_revision(directory, entry, None)  # with the rights it has there
            if self._store.server.listed_ns(directory) is not None:
                self._store.server.set_listed(directory, 0)

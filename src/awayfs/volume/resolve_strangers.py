"""Moving what the server has in the place of ours to a conflict copy beside it.

This is all that a decision does on the server by itself: under a visible name, guarded by the
revision that was decided about.
"""

from __future__ import annotations

import os

from awayfs.core.errors import UsageError
from awayfs.core.records import Record
from awayfs.core.types import ABSENT, Entry, Expected, Kind, Mismatch, NodeId
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.observe import Observer, join
from awayfs.volume.resolve_steps import Steps


class Strangers:
    """Frees names and directories for ours."""

    def __init__(self, context: Context, observer: Observer, steps: Steps, client: str) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._steps = steps
        self._client = client

    async def free_directory(self, record: Record, directory: NodeId) -> str | None:
        """What stands in the place of the directory that a record works in goes aside."""
        names = self._store.server.names(directory)
        if not names:
            return None
        copy = await self.free_directory(record, names[0][0])
        path = self._store.server.path(directory)
        entry = None if copy or path is None else await self._steps.stat(path)
        if entry is None or entry.kind is Kind.DIRECTORY:
            return copy
        above = self._store.server.path(names[0][0]) or b""
        return await self.move(record, names[0][0], above, names[0][1], entry)

    async def move(
        self, record: Record, parent: NodeId, directory: bytes, name: bytes, entry: Entry
    ) -> str:
        listed = await self._observer.listed(parent)
        copy = self._steps.copy_name(parent, name, {e.name for e in listed})
        expected = Expected(entry.token, entry.file_id, entry.kind)
        op = f"{self._client}m{record.seq}"
        outcome = await self._context.link.call(
            lambda r: r.rename(op, join(directory, name), join(directory, copy), expected, ABSENT)
        )
        if isinstance(outcome, Mismatch):
            raise UsageError("the server changed at this moment; look again and decide anew")
        fault("resolve.moved")
        known = self._store.server.child(parent, name)
        if known is not None and known not in (record.node, record.parent, record.to_parent):
            with self._store.transaction():
                self._store.server.remove_name(parent, name)
                if not self._store.server.names(known):
                    self._store.server.forget(known)
        self._observer.committed(parent)
        self._observer.look_again(record.node)
        await self._observer.directory(parent)
        return os.fsdecode(copy)

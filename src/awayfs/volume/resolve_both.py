"""Keeping both: one of the two gets a name of its own, the server's keeps its."""

from __future__ import annotations

import os

from msgspec.structs import replace

from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import NotFound, UsageError
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.journaling import Journaling
from awayfs.volume.observe import Observer
from awayfs.volume.resolve_local import CREATING, KeepLocal
from awayfs.volume.resolve_server import KeepServer
from awayfs.volume.resolve_steps import MovedOn, Steps
from awayfs.volume.resolve_strangers import Strangers
from awayfs.volume.returning import Returning

DISPLACING = (ConflictKind.UPDATE_UPDATE, ConflictKind.REMOVE_UPDATE)
"""With a rename: what it was to displace is the server's by now, and keeps the name."""


class KeepBoth:
    """Carries out ``--keep both``."""

    def __init__(
        self,
        context: Context,
        observer: Observer,
        journaling: Journaling,
        changes: Changes,
        steps: Steps,
        strangers: Strangers,
        local: KeepLocal,
        server: KeepServer,
    ) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._journaling = journaling
        self._changes = changes
        self._steps = steps
        self._strangers = strangers
        self._local = local
        self._server = server
        self._returning = Returning(context)

    async def keep(self, conflict: Conflict, record: Record) -> str | None:
        kind = conflict.kind
        if kind == ConflictKind.REFUSED:
            raise UsageError(
                "the server refused this change: --keep local tries again, --keep server drops it"
            )
        if kind == ConflictKind.UPDATE_REMOVE:
            return await self._local.keep(conflict, record)
        if kind in CREATING:
            record = self._local.as_creation(record)
            directory = record.to_parent if record.kind is RecordKind.RENAME else record.parent
            copy = await self._strangers.free_directory(record, directory) if directory else None
            if copy:
                self._steps.release(record)
                return copy
            return await self._rename_ours(record)
        if kind in DISPLACING and record.kind is RecordKind.RENAME:
            return await self._rename_ours(record)
        if kind == ConflictKind.UPDATE_UPDATE:
            made: list[str | None] = []
            await self._server.keep(
                conflict, record, lambda: made.append(self._copy_local(conflict))
            )
            fault("resolve.copied")
            return made[0]
        return await self._server.keep(conflict, record)

    async def _rename_ours(self, record: Record) -> str:
        """Our object takes the name of a conflict copy, here and in its record."""
        renaming = record.kind is RecordKind.RENAME
        parent = record.to_parent if renaming else record.parent
        name = record.to_name if renaming else record.name
        copy = self._steps.copy_name(parent, name, await self._names_in(parent))
        changed = replace(record, to_name=copy, replaced=0) if renaming else None
        nodes = self._store.nodes
        with self._store.transaction():
            home, place = (parent, copy), (parent, name)
            heir = record.replaced if renaming else 0
            standing = self._steps.start_from(home, place, record.node, record.seq, heir)
            if standing and nodes.child_id(*place) == standing:
                nodes.move_name(*place, *home)
            if not nodes.names(record.node) and not self._steps.is_taken_away(record.node):
                self._returning.name(*home, record.node)  # what displaced it displaces theirs
            self._store.journal.replace(changed or replace(record, name=copy))
            self._returning.again(parent, name)
        self._context.kernel.forget_entry(parent, name)
        self._context.kernel.forget_entry(parent, copy)
        self._steps.release(self._store.journal.get(record.seq) or record)
        await self._steps.look([parent])
        return os.fsdecode(copy)

    async def _names_in(self, directory: NodeId) -> set[bytes]:
        """What the server has in a directory; nothing in one that is to be made there yet."""
        if self._store.server.get(directory) is None:
            return set()
        try:
            return {entry.name for entry in await self._observer.listed(directory)}
        except NotFound:
            raise MovedOn from None  # and so is what was to keep its name there

    def _copy_local(self, conflict: Conflict) -> str | None:
        """The local content as a new file beside it, with its own records.

        Made in the transaction that gives the local change up: once, however often a daemon
        dies over the decision.
        """
        node = self._context.node(conflict.node)
        if node is None or node.kind is not Kind.FILE:
            return None
        if not self._store.content.covers(node.id, 0, node.size):
            raise UsageError("a part of the local content is not here; go online and try again")
        parent, name = self._steps.beside(conflict)
        copy = self._steps.copy_name(parent, name, set())
        with self._store.transaction():
            made = self._changes.create(parent, copy, Kind.FILE, node.mode, node.uid, node.gid)
            self._copy_content(node.id, made.id)
            self._store.nodes.update(made.id, size=node.size, mtime_ns=node.mtime_ns)
            self._store.content.add_range(made.id, 0, node.size)
            self._journaling.store(made.id)
        self._context.kernel.forget_entry(parent, copy)
        return os.fsdecode(copy)

    def _copy_content(self, source: NodeId, target: NodeId) -> None:
        source_fd = self._store.content.open(source)
        target_fd = self._store.content.open(target)
        try:
            size = os.fstat(source_fd).st_size
            offset = 0
            while offset < size:
                copied = os.copy_file_range(source_fd, target_fd, size - offset, offset, offset)
                if not copied:
                    break
                offset += copied
        finally:
            os.close(source_fd)
            os.close(target_fd)

"""Deciding for a content of its own: merged by a person, a tool or a rule, or the base's.

The content becomes the file's, and the record that waited goes out with it, based on the
server's revision that was looked at. All of that is one transaction. Should the server move on
before the record is out, replay finds the conflict anew.
"""

from __future__ import annotations

import os

from msgspec.structs import replace

from awayfs.core.deciding import takes_content
from awayfs.core.errors import UsageError
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Entry, Kind, NodeId, Range
from awayfs.store.conflicts import Conflict
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.journaling import Journaling
from awayfs.volume.replacing import Replacing
from awayfs.volume.resolve_local import KeepLocal

ONLY_KEEP = "this is not about what a file holds: decide it with --keep local, server or both"
REMOVED = "it was removed here meanwhile; decide it with --keep local, server or both"


class TakeContent:
    """Carries out ``--with FILE``, ``--tool``, ``--keep base`` and merges by rule."""

    def __init__(self, context: Context, journaling: Journaling, local: KeepLocal) -> None:
        self._context = context
        self._store = context.store
        self._journaling = journaling
        self._local = local
        self._replacing = Replacing(context)

    def witness(self, node: NodeId) -> str:
        """Another text once our variant was changed."""
        return self._replacing.witness(node)

    def check(self, conflict: Conflict, record: Record | None) -> None:
        """Raise ``UsageError`` where a content decides nothing."""
        entry = conflict.server_entry
        files = entry is None or entry.kind is Kind.FILE
        if not files or not takes_content(conflict.kind, record.kind if record else None):
            raise UsageError(ONLY_KEEP)
        if record is None or record.kind is RecordKind.RENAME:
            self._check_there(conflict.node)
        self._replacing.check(conflict.node)

    def _check_there(self, node: NodeId) -> None:
        """An edit of what was removed meanwhile would wait for ever."""
        if self._store.nodes.path(node) is None:
            raise UsageError(REMOVED)

    def take(
        self,
        conflict: Conflict,
        record: Record | None,
        staged: str,
        seen: Entry | None,
        digest: bytes | None,
    ) -> None:
        """A staged file is what was decided for.

        ``seen`` is what the server has at this moment, ``digest`` that of its content where it
        is known. Also takes the conflict away.
        """
        with self._store.transaction():
            if record is None:
                self._as_edit(conflict.node, staged)
            elif seen is None and record.kind is RecordKind.RENAME:
                self._under_free_name(record, staged)
            elif seen is None:
                self._as_new(record, staged)
            elif record.kind is RecordKind.CREATE:
                self._as_theirs(record, staged, seen, digest)
            else:
                self._over(conflict, record, staged, seen, digest)
            self._store.conflicts.remove(conflict.id)
        fault("resolve.taken")

    def to_displaced(
        self, conflict: Conflict, record: Record, staged: str, seen: Entry, digest: bytes | None
    ) -> None:
        """What a rename had displaced is shown again: the content is its own. Needs a transaction.

        Raises ``UsageError`` where it is not, or a program has it open.
        """
        displaced = record.replaced
        self._check_there(displaced)
        self._replacing.check(displaced)
        self._journaling.store(displaced)
        self._store.server.set(displaced, seen, seen_ns=self._context.now(), digest=digest)
        self._new_base(conflict, displaced, seen)
        self._replacing.replace(displaced, staged, seen.token)
        self._store.conflicts.remove(conflict.id)

    def _as_edit(self, node: NodeId, staged: str) -> None:
        """A change like any other, of what stands here and there."""
        self._check_there(node)
        self._journaling.store(node)
        self._replacing.replace(node, staged, self._store.content.token(node))

    def _under_free_name(self, record: Record, staged: str) -> None:
        """What it was renamed over is not there: an edit that goes out with the rename."""
        self._release(record)
        self._as_edit(record.node, staged)

    def _as_new(self, record: Record, staged: str) -> None:
        """The server has it no more: it is made anew."""
        self._local.recreate(record)
        self._release(record)
        self._replacing.replace(record.node, staged, None)

    def _as_theirs(self, record: Record, staged: str, seen: Entry, digest: bytes | None) -> None:
        """Made on both sides: from now on one file, and ours an edit of it."""
        server, node = self._store.server, record.node
        known = server.child(record.parent, record.name)
        if known is not None and known != node:
            server.remove_name(record.parent, record.name)
            if not server.names(known):
                server.forget(known)
        if known != node:
            server.add_name(record.parent, record.name, node)
        server.set(node, seen, seen_ns=self._context.now(), digest=digest)
        stored = replace(record, kind=RecordKind.STORE, parent=0, name=b"")
        self._store.journal.replace(replace(stored, state=RecordState.PENDING, reason=""))
        self._replacing.replace(node, staged, seen.token)

    def _over(
        self,
        conflict: Conflict,
        record: Record,
        staged: str,
        seen: Entry,
        digest: bytes | None,
    ) -> None:
        """Both changed it: what the server has is what our change is made to from now on."""
        renamed_over = record.kind is RecordKind.RENAME and record.replaced
        about = record.replaced if renamed_over else record.node
        self._store.server.set(about, seen, seen_ns=self._context.now(), digest=digest)
        self._release(record)
        if renamed_over:
            self._check_there(record.node)
            self._journaling.store(record.node)
        else:
            self._new_base(conflict, conflict.node, seen)
        self._replacing.replace(record.node, staged, seen.token)

    def _new_base(self, conflict: Conflict, node: NodeId, seen: Entry) -> None:
        """The server's variant is the base of the next merge."""
        content, variant = self._store.content, conflict.server_variant
        content.drop_base(node)
        if variant is None or not conflict.server_complete or not os.path.exists(variant):
            return
        limit = self._context.options.base_limit
        content.bases.keep(node, variant, [Range(0, seen.size)], seen.token, limit)

    def _release(self, record: Record) -> None:
        self._store.journal.set_state(record.seq, RecordState.PENDING)

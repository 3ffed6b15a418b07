"""Setting a record aside: in conflict, or refused by the server.

A parked record keeps its data and its place; what depends on it waits, everything else goes
on. The server's variant is fetched while the server still has it. Nothing is overwritten on
either side.
"""

from __future__ import annotations

import logging
import os

from awayfs.core.conflicts import ConflictKind
from awayfs.core.decide import Conflict, Facts
from awayfs.core.diff import Content
from awayfs.core.errors import Refused, RemoteError, Unreachable
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.ports.remote import Fetched
from awayfs.store.conflicts import Conflict as StoredConflict
from awayfs.store.files import unlink_quietly
from awayfs.volume.adopt import Adopter
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.replay_facts import FactFinder

log = logging.getLogger(__name__)

VARIANT_LIMIT = 256 << 20
CHUNK = 8 << 20


class Parking:
    """Parks records and keeps variants."""

    def __init__(self, context: Context, finder: FactFinder) -> None:
        self._context = context
        self._store = context.store
        self._finder = finder
        self._adopter = Adopter(context)

    async def conflict(self, record: Record, facts: Facts, conflict: Conflict) -> None:
        """Both sides changed: keep all variants, park the record, say so."""
        entry, path = self._server_side(record, facts, conflict)
        if self._is_removed_for_another(record, conflict):
            self._let_go(record)
            return
        staged: str | None = None
        if entry is not None and entry.kind is Kind.FILE and path is not None:
            staged = await self._fetch_variant(path, entry)
        fault("parking.kept")
        if conflict.kind is ConflictKind.REMOVE_UPDATE and record.kind is RecordKind.REMOVE:
            self._bring_back(record, entry)
            self._record_conflict(record, conflict.kind, conflict.detail, entry, staged, ())
        else:
            self._park(record, conflict.detail)
            seqs = (record.seq,)
            self._record_conflict(record, conflict.kind, conflict.detail, entry, staged, seqs)
        fault("parking.parked")
        self._context.kernel.forget_node(record.node)

    async def refused(self, record: Record, facts: Facts, code: int, reason: str) -> None:
        """A record that the server cannot take (a decision of ours)."""
        self._refuse(record, code, reason, facts.current)

    def refused_by_server(self, seq: int, error: Refused) -> None:
        """The server said no."""
        record = self._store.journal.get(seq)
        if record is not None and record.state is not RecordState.PARKED:
            self._refuse(record, error.errno, f"the server refused: {error}", None)

    def _refuse(self, record: Record, code: int, reason: str, current: Entry | None) -> None:
        self._park(record, reason)
        kind = ConflictKind.REFUSED
        self._record_conflict(record, kind, reason, current, None, (record.seq,))
        self._context.failures.note(record.node, code, reason, self._context.now())
        log.warning("record %d is parked: %s", record.seq, reason)

    def _park(self, record: Record, reason: str) -> None:
        with self._store.transaction():
            self._store.journal.set_state(record.seq, RecordState.PARKED, reason)
            self._store.intents.clear(record.seq)
            for other in self._store.journal.of_node(record.node):
                if other.state is RecordState.FROZEN and other.kind is RecordKind.STORE:
                    # it was to go along with the creation that is parked now
                    self._store.journal.set_state(other.seq, RecordState.PENDING)

    def _record_conflict(
        self,
        record: Record,
        kind: ConflictKind,
        detail: str,
        entry: Entry | None,
        staged: str | None,
        seqs: tuple[int, ...],
    ) -> StoredConflict:
        """One conflict a node and record; an older one of the same record is replaced."""
        parent, name = self._name_of(record)
        base = self._store.server.get(record.node)
        with self._store.transaction():
            for old in self._store.conflicts.of_node(record.node):
                if old.kind == kind and (not old.record_seqs or record.seq in old.record_seqs):
                    self._store.conflicts.remove(old.id)
            conflict = self._store.conflicts.add(
                record.node,
                kind,
                parent,
                name,
                self._context.now(),
                record_seqs=seqs,
                base_token=base.token if base else None,
                server_entry=entry,
                base_variant=self._store.content.base_path(record.node) is not None,
                note=detail,
            )
            if staged is not None:
                path = self._store.conflicts.variant_path(conflict.id, "server")
                os.rename(staged, path)
                self._store.conflicts.update(conflict.id, server_variant=path, server_complete=True)
        return conflict

    def _name_of(self, record: Record) -> tuple[NodeId, bytes]:
        """The name under which the conflict is shown: the node's own, or the recorded one."""
        names = self._store.nodes.names(record.node)
        if names:
            return names[0]
        if record.kind in (RecordKind.RENAME, RecordKind.EXCHANGE):
            return record.to_parent, record.to_name
        if record.parent:
            return record.parent, record.name
        server = self._store.server.names(record.node)
        return server[0] if server else (0, b"")

    def _server_side(
        self, record: Record, facts: Facts, conflict: Conflict
    ) -> tuple[Entry | None, bytes | None]:
        """What stands on the server in the way, and where."""
        places = self._finder.places(record)
        about_target = conflict.on_target or record.kind in (
            RecordKind.CREATE,
            RecordKind.LINK,
        )
        if about_target or (facts.current is None and facts.target_current is not None):
            return facts.target_current, places.target
        if conflict.kind is ConflictKind.NAME_NAME and facts.target_current is not None:
            return facts.target_current, places.target
        return facts.current, places.path

    async def _fetch_variant(self, path: bytes, entry: Entry) -> str | None:
        """The server's content in a staging file; None when it is too large or moved on."""
        if entry.size > VARIANT_LIMIT:
            return None
        staged = self._store.content.stage_path()
        fd = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        complete = False
        try:
            offset = 0
            while offset < entry.size:
                size = min(CHUNK, entry.size - offset)
                fetched = await self._fetch(path, offset, size, fd)
                if fetched.entry.token != entry.token or fetched.length != size:
                    return None
                offset += size
            complete = True
            return staged
        except Unreachable:
            raise
        except RemoteError as error:
            log.info("the server's variant of %r is not kept here: %s", path, error)
            return None
        finally:
            os.close(fd)
            if not complete:
                unlink_quietly(staged)

    async def _fetch(self, path: bytes, offset: int, size: int, fd: int) -> Fetched:
        return await self._context.link.call(lambda r: r.fetch(path, offset, size, fd))

    def _is_removed_for_another(self, record: Record, conflict: Conflict) -> bool:
        """Removed here, and something else has the name since: that meets what is there."""
        if conflict.kind is not ConflictKind.REMOVE_UPDATE or record.kind is not RecordKind.REMOVE:
            return False
        return self._store.nodes.child_id(record.parent, record.name) is not None

    def _let_go(self, record: Record) -> None:
        """What was removed here is a stranger on the server from now on."""
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            self._store.journal.remove([record.seq])
            self._store.server.remove_name(record.parent, record.name)
            if not self._store.server.names(record.node):
                self._store.server.forget(record.node)

    def _bring_back(self, record: Record, entry: Entry | None) -> None:
        """Content beats deletion: what the server changed meanwhile is shown again."""
        nodes = self._store.nodes
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            self._store.journal.remove([record.seq])
            if nodes.child_id(record.parent, record.name) is None and nodes.get(record.parent):
                nodes.add_name(record.parent, record.name, record.node)
            if entry is not None:
                content = Content.CHANGED
                self._adopter.adopt_revision(record.node, entry, content)
        self._context.kernel.forget_entry(record.parent, record.name)

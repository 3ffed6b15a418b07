"""Setting a record aside: in conflict, or refused by the server.

A parked record keeps its data and its place; what depends on it waits, everything else goes
on. The server's variant is fetched while the server still has it. Nothing is overwritten on
either side.
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from awayfs.core.conflicts import ConflictKind
from awayfs.core.decide import Conflict, Facts
from awayfs.core.diff import Content
from awayfs.core.errors import Refused, Unreachable
from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.standing import place_for
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict as StoredConflict
from awayfs.store.files import unlink_quietly
from awayfs.volume.adopt import Adopter
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.removed_versions import RemovedVersions
from awayfs.volume.removing import Remover
from awayfs.volume.replay_facts import FactFinder
from awayfs.volume.resolve_moved import MovedNodes
from awayfs.volume.server_variants import ServerVariants

log = logging.getLogger(__name__)

PARTIAL = "a part of the local version was never here, and the server has that version no more"


class Parking:
    """Parks records and keeps variants."""

    def __init__(
        self,
        context: Context,
        finder: FactFinder,
        server_variants: ServerVariants,
        moved: MovedNodes,
    ) -> None:
        self._context = context
        self._store = context.store
        self._finder = finder
        self._server_variants = server_variants
        self._moved = moved
        self._adopter = Adopter(context)
        self._remover = Remover(context)
        self._removed_versions = RemovedVersions(context)

    async def conflict(self, record: Record, facts: Facts, conflict: Conflict) -> None:
        """Both sides changed: keep all variants, park the record, say so."""
        entry, path = self._server_side(record, facts, conflict)
        if self._is_removed_for_another(record, conflict):
            self._let_go(record)
            return
        if entry is not None and self._is_parted(record, conflict, entry):
            with self._store.transaction():
                self._let_go(record)
                there = replace(entry, name=record.name)
                self._adopter.part(record.parent, there, record.node)
            return
        staged: str | None = None
        lost: Unreachable | None = None
        if entry is not None and entry.kind is Kind.FILE and path is not None:
            try:
                staged = await self._server_variants.fetch(path, entry)
            except Unreachable as error:
                lost = error  # what was found stands; the content is fetched when the link is back
        removed = _is_removal(record, conflict)
        base = await self._removed_versions.staged(record.node) if removed else None
        conflict = self._told(record, conflict)
        fault("parking.kept")
        if moved := self._is_directory_renamed_twice(record, conflict):
            await self._moved.look(record.node)
        given_up = self._store.journal.get(record.seq) is None
        if given_up or self._finder.meanwhile.again(record):  # while all that was looked at
            for unused in filter(None, (staged, base)):
                unlink_quietly(unused)
            return
        if removed:
            with self._store.transaction():
                self._bring_back(record, entry)
                told = (conflict.kind, conflict.detail)
                found = self._record_conflict(record, *told, entry, staged, ())
                if base is not None:
                    self._removed_versions.put(found.id, base)
        else:
            with self._store.transaction():
                self._park(record, conflict.detail)
                seqs = (record.seq,)
                self._record_conflict(record, conflict.kind, conflict.detail, entry, staged, seqs)
                if moved:
                    self._moved.take(record)
        fault("parking.parked")
        self._context.kernel.forget_node(record.node)
        if lost is not None:
            raise lost

    def _is_directory_renamed_twice(self, record: Record, conflict: Conflict) -> bool:
        """Here and on the server. Whatever is decided about it, what is done in it meanwhile goes
        to where the server has it.
        """
        if conflict.kind is not ConflictKind.RENAME_RENAME or record.kind is not RecordKind.RENAME:
            return False
        node = self._context.node(record.node)
        return node is not None and node.kind is Kind.DIRECTORY

    def _told(self, record: Record, conflict: Conflict) -> Conflict:
        """Also says where a part of the local variant is gone."""
        node = self._context.node(record.node)
        if record.kind is not RecordKind.STORE or node is None or self._finder.is_whole(node):
            return conflict
        return replace(conflict, detail=f"{conflict.detail}; {PARTIAL}")

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
                note=detail,
            )
            if staged is not None:
                self._server_variants.put(conflict.id, staged)
        return conflict

    def _name_of(self, record: Record) -> tuple[NodeId, bytes]:
        """The name under which the conflict is shown: the node's own, or the recorded one."""
        names = self._store.nodes.names(record.node)
        if (record.parent, record.name) in names and record.kind is RecordKind.REMOVE:
            return record.parent, record.name  # it is back under this very name
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
        removed = conflict.kind is ConflictKind.UPDATE_REMOVE
        about_target = conflict.on_target or record.kind is RecordKind.CREATE
        about_target |= record.kind is RecordKind.LINK and not removed
        if about_target or (facts.current is None and facts.target_current is not None):
            return facts.target_current, places.target
        if conflict.kind is ConflictKind.NAME_NAME and facts.target_current is not None:
            return facts.target_current, places.target
        return facts.current, places.path

    def _is_removed_for_another(self, record: Record, conflict: Conflict) -> bool:
        """Removed here, and something else has the name since: that meets what is there."""
        if not _is_removal(record, conflict):
            return False
        return self._store.nodes.child_id(record.parent, record.name) not in (None, record.node)

    def _is_parted(self, record: Record, conflict: Conflict, entry: Entry) -> bool:
        """Removed here: one of several names, over which another file was saved there; or any name
        that was given to another file there.

        What was removed lives on under its other names, if it has any; the other file is shown as
        what it is.
        """
        base = self._store.server.get(record.node)
        if not _is_removal(record, conflict):
            return False
        if base is None or base.file_id is None or entry.kind is not Kind.FILE:
            return False
        if self._adopter.is_link_to_another(record.node, entry):
            return True
        return base.file_id != entry.file_id and len(self._store.server.names(record.node)) > 1

    def _let_go(self, record: Record) -> None:
        """What was removed here is a stranger on the server from now on."""
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            self._store.journal.remove([record.seq])
            self._store.server.remove_name(record.parent, record.name)
            if not self._store.server.names(record.node):
                self._remover.let_go(record.node)

    def _bring_back(self, record: Record, entry: Entry | None) -> None:
        """Content beats deletion: what the server changed meanwhile is shown again."""
        nodes = self._store.nodes
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            self._store.journal.remove([record.seq])
            parent, name = self._place_of(record)
            if nodes.child_id(parent, name) is None:
                nodes.add_name(parent, name, record.node)
            if entry is not None:
                content = Content.CHANGED
                self._adopter.adopt_revision(record.node, entry, content)
        self._context.kernel.forget_entry(parent, name)

    def _place_of(self, record: Record) -> Slot:
        """Where what was removed is shown again: under the name that it had, or has on the server,
        unless that is inside of it by now. Another of its names will do for a file.
        """
        nodes, node = self._store.nodes, record.node

        def is_free(slot: Slot) -> bool:
            return nodes.get(slot[0]) is not None and nodes.child_id(*slot) in (None, node)

        recorded, now = (record.parent, record.name), nodes.names(node)
        found = nodes.get(node)
        here = [*now, recorded] if found and found.kind is Kind.DIRECTORY else [recorded, *now]
        wanted = [*here, *self._store.server.names(node)]
        return place_for(node, record.name, wanted, nodes.above, is_free)


def _is_removal(record: Record, conflict: Conflict) -> bool:
    """Whether it was removed here, and the server has it with a change."""
    return conflict.kind is ConflictKind.REMOVE_UPDATE and record.kind is RecordKind.REMOVE

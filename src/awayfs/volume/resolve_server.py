"""Keeping the server's: what was changed here is dropped, and what the server has is shown."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from awayfs.core.conflicts import ConflictKind
from awayfs.core.diff import Content
from awayfs.core.errors import UsageError
from awayfs.core.records import Record, RecordKind
from awayfs.core.sameness import same_object
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.adopt import Adopter
from awayfs.volume.context import Context
from awayfs.volume.giving_up import ATTRIBUTES, GivingUp
from awayfs.volume.observe import Observer
from awayfs.volume.resolve_other_names import set_apart
from awayfs.volume.resolve_steps import Steps
from awayfs.volume.returning import Returning

ABOUT_CONTENT = (ConflictKind.UPDATE_UPDATE, ConflictKind.TYPE)
"""Conflicts of which the history keeps what is here (``core.deciding``)."""
ABOUT_ATTRIBUTES = (ConflictKind.ATTRIBUTE, ConflictKind.REFUSED)
"""Conflicts that are about no more than that, where it is what waits: an edit meets by itself what
the server has in the meantime."""
TAKING = (RecordKind.RENAME, RecordKind.REMOVE)


class KeepServer:
    """Carries out ``--keep server``."""

    def __init__(
        self, context: Context, observer: Observer, giving_up: GivingUp, steps: Steps
    ) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._giving_up = giving_up
        self._steps = steps
        self._adopter = Adopter(context)
        self._returning = Returning(context)

    async def keep(
        self,
        conflict: Conflict,
        record: Record,
        saving: Callable[[], object] = lambda: None,
    ) -> str | None:
        """Drop what was changed here and show what the server has.

        ``saving`` is called in the transaction that drops it, before anything goes.
        """
        if not self._context.link.usable:
            await self._steps.stat(b"")  # says why not
        if record.kind is RecordKind.RENAME:
            await self.undo_rename(conflict, record, saving)
            return None
        node, parent = record.node, conflict.parent
        on_server = self._store.server.names(node)
        path = self._store.server.path(node)
        entry = await self._steps.stat(path) if path is not None else None
        with self._store.transaction():
            saving()
            self._give_up(conflict, record, entry)
        await self._steps.look([parent, *(p for p, _ in on_server)])
        return None

    def _give_up(self, conflict: Conflict, record: Record, entry: Entry | None) -> None:
        """What was decided against goes, all in one; the server's is ``entry``."""
        node = record.node
        if conflict.kind != ConflictKind.UPDATE_REMOVE and record.kind is RecordKind.LINK:
            self._giving_up.link(record)
            return
        if record.kind is RecordKind.CREATE or conflict.kind == ConflictKind.UPDATE_REMOVE:
            entry = None
        found = self._store.nodes.get(node)
        if entry is not None and found is not None and found.kind is not entry.kind:
            entry = None
        of_attributes = entry is not None or conflict.kind in ABOUT_ATTRIBUTES
        if of_attributes and record.kind in ATTRIBUTES:
            self._giving_up.attributes(record, entry)
            return
        if conflict.kind == ConflictKind.UPDATE_REMOVE:
            set_apart(self._store, record)
        journal = self._store.journal
        displaced = [r for r in journal.of_node(node) if r.kind in TAKING]
        names = self._store.nodes.names(node)
        with self._store.transaction():
            self._giving_up.changes(node, below=entry is None)
            dropped = [r for r in displaced if journal.get(r.seq) is None]
            self._names_as_on_server(node, dropped)
            if entry is None:
                self._giving_up.node(node)
                for place in names:
                    self._returning.again(*place)
            elif self._adopter.is_link_to_another(node, entry):
                self._part(node, entry)
            else:
                self._adopter.adopt_revision(node, entry, Content.CHANGED)

    def _part(self, node: NodeId, entry: Entry) -> None:
        """One more name of another file has taken the place of this one."""
        for directory, name in self._store.server.names(node)[:1]:
            self._adopter.part(directory, replace(entry, name=name), node)
        if not self._store.nodes.names(node):
            self._giving_up.node(node)

    def _names_as_on_server(self, node: NodeId, taking: list[Record]) -> None:
        """Removals and renames that were dropped are undone here, and what the latter displaced
        is shown again.
        """
        server = self._store.server
        renames = [record for record in taking if record.kind is RecordKind.RENAME]
        with self._store.transaction():
            for rename in reversed(renames):
                self._steps.inherit(rename)
            coming = {_place(r): r.replaced for r in renames if self._comes(r, node)}
            stays = any(
                self._returning.leads_nowhere(node, parent, coming.values())
                for parent, _ in server.names(node)[:1]
            )
            for rename in renames:
                if not stays and server.child(*_place(rename)) != node:
                    self._giving_up.name(*_place(rename), node)
            for place, owner in coming.items():
                self._returning.name(*place, owner)
            for place in server.names(node) if taking else ():
                self._returning.again(*place)  # but where something else takes the name away

    async def undo_rename(
        self,
        conflict: Conflict,
        record: Record,
        saving: Callable[[], object],
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """The node goes back to its name on the server; what it displaced is shown again.

        Where it has none any more it goes, with what was written to it since. So does, there, too,
        what was only made to be saved over another file. ``then`` is called at the end of the same
        transaction.
        """
        nodes, server = self._store.nodes, self._store.server
        await self._steps.moved.find(record)
        names = server.names(record.node)
        if conflict.kind == ConflictKind.RENAME_RENAME:
            self._check_home(record.node, names)
        elif not await self._stands(record.node):
            names = []
        is_save = conflict.kind in ABOUT_CONTENT and record.seq in self._store.saves
        with self._store.transaction():
            if not names or is_save:
                saving()
            if not names:
                self._steps.inherit(record)
            self._store.journal.remove([record.seq])
            self._go_home(record, names)
            if is_save and names and nodes.names(record.node) == names[:1]:
                self._giving_up.save(record.node, names[0])
            if not nodes.names(record.node) and not self._steps.is_taken_away(record.node):
                self._giving_up.changes(record.node, below=True)
                self._giving_up.node(record.node)
            then()
        await self._steps.look([record.parent, record.to_parent])

    async def _stands(self, node: NodeId) -> bool:
        """Whether the server has a node where it is known to be: no listing has told yet."""
        base, path = self._store.server.get(node), self._store.server.path(node)
        entry = await self._steps.stat(path) if path is not None else None
        if base is None or entry is None or entry.kind is not base.kind:
            return False
        return base.kind is not Kind.DIRECTORY or same_object(base.entry(), entry)

    def _go_home(self, record: Record, names: list[tuple[NodeId, bytes]]) -> None:
        """What stands where a rename had put its node goes to that node's name on the server, and
        what the rename displaced comes back, which may lead there.

        That is the node itself, or what a later exchange put in its place; a later rename or
        removal starts from there.
        """
        node, place, standing = record.node, _place(record), record.node
        if names:
            standing = self._steps.start_from(names[0], place, node, record.seq, record.replaced)
        coming = [record.replaced] if self._comes(record, standing) else []
        leaves = standing and self._store.nodes.child_id(*place) == standing
        if leaves and names:
            leaves = not self._returning.leads_nowhere(standing, names[0][0], coming)
        if leaves and names and standing != node:  # of which the decision says nothing
            self._check_home(standing, names)
        if leaves:
            self._giving_up.name(*place, standing)
        for displaced in coming:
            self._returning.name(*place, displaced)
        if leaves and names:
            self._returning.name(*names[0], standing)
        if names and not self._store.nodes.names(node) and not self._steps.is_taken_away(node):
            self._returning.name(*names[0], node)

    def _comes(self, rename: Record, leaving: NodeId) -> bool:
        """Whether what a rename displaced comes back once a node has left the place: the server
        has it there yet, and nothing else takes it away.
        """
        place, displaced = _place(rename), rename.replaced
        is_free = self._store.nodes.child_id(*place) in (None, leaving)
        stands = displaced and self._store.server.child(*place) == displaced
        return bool(is_free and stands and not self._steps.is_taken_away(displaced))

    def _check_home(self, node: NodeId, names: list[tuple[NodeId, bytes]]) -> None:
        """A node with unsent work in it is not dropped for want of a free name here."""
        if any(self._store.nodes.child_id(*name) in (None, node) for name in names[:1]):
            return
        journal = self._store.journal
        if journal.has_store(node) or any(map(journal.has_any, self._giving_up.below(node))):
            raise UsageError(
                "the changes inside would be lost, since another has its name here; "
                "rename that one, or use --keep local"
            )


def _place(rename: Record) -> tuple[NodeId, bytes]:
    return rename.to_parent, rename.to_name

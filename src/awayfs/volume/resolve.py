"""Deciding a conflict: ``awayfs resolve --keep local|server|both``.

A decision never acts on the server by itself (but for moving a stranger out of the way under
a visible name). It changes what the journal says: *local* makes what stands on the server now
the base of the parked record and lets it go out, guarded by exactly that revision; *server*
drops the local change and adopts; *both* first gives the local variant a name of its own. If
the server moves on before the record is out, the conflict is found anew.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.diff import Content
from awayfs.core.errors import NotFound, UsageError
from awayfs.core.naming import conflict_copy_name
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import ABSENT, Entry, Expected, Kind, Mismatch, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.adopt import Adopter
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.giving_up import ATTRIBUTES, GivingUp
from awayfs.volume.journaling import Journaling
from awayfs.volume.observe import Observer, join

CREATING = (ConflictKind.NAME_NAME, ConflictKind.TYPE)
TAKING = (RecordKind.RENAME, RecordKind.EXCHANGE, RecordKind.REMOVE)


class Resolver:
    """Carries decisions out. Most need the server: what it has at that moment is decided on."""

    def __init__(
        self,
        context: Context,
        observer: Observer,
        journaling: Journaling,
        changes: Changes,
        client: str,
    ) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._journaling = journaling
        self._changes = changes
        self._client = client
        self._adopter = Adopter(context)
        self._giving_up = GivingUp(context, changes)

    async def resolve(self, conflict: Conflict, keep: Resolution) -> str | None:
        """Decide one conflict; the path of a conflict copy, if one was made.

        Raises ``RemoteError`` when the server cannot be asked and ``UsageError`` when the
        choice makes no sense for this conflict.
        """
        records = [
            record
            for seq in conflict.record_seqs
            if (record := self._store.journal.get(seq)) is not None
        ]
        copy: str | None = None
        if conflict.kind == ConflictKind.REMOVE_UPDATE and not records:
            self._resolve_removed(conflict, keep)
        elif not records:
            pass  # settled by other means since
        elif keep is Resolution.LOCAL:
            copy = await self._keep_local(conflict, records[0])
        elif keep is Resolution.SERVER:
            copy = await self._keep_server(conflict, records[0])
        else:
            copy = await self._keep_both(conflict, records[0])
        fault("resolve.decided")
        with self._store.transaction():
            self._store.conflicts.remove(conflict.id)
        self._context.kernel.forget_node(conflict.node)
        self._context.failures.clear(conflict.node)
        self._context.on_journal()
        return copy

    def _resolve_removed(self, conflict: Conflict, keep: Resolution) -> None:
        """The server's version is back already; *local* removes it, as it is now, again."""
        if keep is not Resolution.LOCAL:
            return
        for parent, name in self._store.nodes.names(conflict.node):
            node = self._store.nodes.get(conflict.node)
            if node is not None and node.kind is Kind.DIRECTORY:
                raise UsageError(
                    "the directory holds files of the server's; remove them with rm -r"
                )
            self._changes.unlink(parent, name)
            self._context.kernel.forget_entry(parent, name)

    # -- local ----------------------------------------------------------------------------

    async def _keep_local(self, conflict: Conflict, record: Record) -> str | None:
        kind = conflict.kind
        if kind == ConflictKind.UPDATE_REMOVE:
            self._check_whole(record.node)
            self._recreate(record)
            return None
        if kind in CREATING:
            return await self._win_name(self._as_creation(record))
        if kind == ConflictKind.REMOVE_UPDATE and record.kind is RecordKind.RENAME:
            return await self._win_name(record)  # the directory to be displaced has been filled
        if kind == ConflictKind.RENAME_RENAME:
            await self._find_on_server(record)
        elif kind != ConflictKind.REFUSED:
            if record.kind is RecordKind.STORE:
                self._check_whole(record.node)  # the rest is the old revision's, which is gone
            await self._rebase(record)
        self._release(record)
        return None

    def _check_whole(self, node_id: NodeId) -> None:
        """What is to be made anew on the server must be here."""
        node = self._context.node(node_id)
        if node is None or node.kind is not Kind.FILE:
            return
        if not self._store.content.covers(node.id, 0, node.size):
            raise UsageError("its content is neither here nor on the server; use --keep server")

    def _as_creation(self, record: Record) -> Record:
        """A change of what the server replaced by another kind of thing: it is made anew."""
        if record.kind in (RecordKind.CREATE, RecordKind.LINK, RecordKind.RENAME):
            return record
        with self._store.transaction():
            for parent, name in self._store.server.names(record.node):
                self._store.server.remove_name(parent, name)
            self._recreate(record)
        return self._store.journal.get(record.seq) or record

    async def _rebase(self, record: Record) -> None:
        """What stands on the server now becomes the base of the parked record."""
        node = record.replaced if self._is_about_replaced(record) else record.node
        path = self._store.server.path(node)
        if path is None:
            return
        entry = await self._stat(path)
        if entry is None:
            self._recreate(record)
            return
        with self._store.transaction():
            self._store.server.set(node, entry, seen_ns=self._context.now())

    def _is_about_replaced(self, record: Record) -> bool:
        return record.kind is RecordKind.RENAME and bool(record.replaced)

    def _recreate(self, record: Record) -> None:
        """The server has it no more: the record becomes the creation of what is here."""
        names = self._store.nodes.names(record.node)
        with self._store.transaction():
            self._store.server.forget(record.node)
            if not names:
                self._store.journal.remove([record.seq])
                return
            for child in self._below(record.node):
                self._store.server.forget(child)
            parent, name = names[0]
            self._store.journal.replace(
                Record(
                    seq=record.seq,
                    kind=RecordKind.CREATE,
                    node=record.node,
                    parent=parent,
                    name=name,
                    at_ns=record.at_ns,
                )
            )
            self._link_further(record.node, names[1:])
            self._recreate_below(record.node)

    def _link_further(self, node: NodeId, names: list[tuple[NodeId, bytes]]) -> None:
        """The other hard links of what is made anew."""
        recorded = {
            (r.parent, r.name)
            for r in self._store.journal.of_node(node)
            if r.kind is RecordKind.LINK
        }
        for parent, name in names:
            if (parent, name) not in recorded:
                self._journaling.append(RecordKind.LINK, node, parent=parent, name=name)

    def _recreate_below(self, directory: NodeId) -> None:
        """What is whole here comes back with its directory; the rest's deletion stands."""
        for name, child in self._store.nodes.children(directory):
            records = self._store.journal.of_node(child.id)
            if not any(r.kind in (RecordKind.CREATE, RecordKind.LINK) for r in records):
                is_file = child.kind is Kind.FILE
                if is_file and not self._store.content.covers(child.id, 0, child.size):
                    self._giving_up.name(directory, name, child.id)
                    continue
                self._journaling.append(RecordKind.CREATE, child.id, parent=directory, name=name)
            if child.kind is Kind.DIRECTORY:
                self._recreate_below(child.id)

    def _below(self, node: NodeId) -> list[NodeId]:
        found: list[NodeId] = []
        pending = [node]
        while pending:
            for _, child in self._store.server.children(pending.pop()):
                found.append(child)
                pending.append(child)
        return found

    async def _win_name(self, record: Record) -> str | None:
        """Our object gets the name; the server's is moved to a conflict copy beside it."""
        renaming = record.kind is RecordKind.RENAME
        parent = record.to_parent if renaming else record.parent
        name = record.to_name if renaming else record.name
        directory = self._store.server.path(parent)
        if directory is None:
            self._release(record)
            return None
        copy = await self._free_directory(record, parent)
        entry = None if copy else await self._stat(join(directory, name))
        if entry is not None:
            copy = await self._move_stranger(record, parent, directory, name, entry)
        self._release(record)
        return copy

    async def _free_directory(self, record: Record, directory: NodeId) -> str | None:
        """What stands in the place of the directory that a record works in goes aside."""
        names = self._store.server.names(directory)
        if not names:
            return None
        copy = await self._free_directory(record, names[0][0])
        path = self._store.server.path(directory)
        entry = None if copy or path is None else await self._stat(path)
        if entry is None or entry.kind is Kind.DIRECTORY:
            return copy
        above = self._store.server.path(names[0][0]) or b""
        return await self._move_stranger(record, names[0][0], above, names[0][1], entry)

    async def _move_stranger(
        self, record: Record, parent: NodeId, directory: bytes, name: bytes, entry: Entry
    ) -> str:
        listed = await self._observer.listed(parent)
        copy = self._copy_name(parent, name, {e.name for e in listed})
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

    async def _find_on_server(self, record: Record) -> None:
        """Where the server has the node now becomes the name that our rename starts from."""
        await self._observer.search(record.node)
        names = self._store.server.names(record.node)
        seen = self._context.seen_elsewhere.get(record.node)
        if names and seen is not None and self._store.server.child(*seen) is None:
            with self._store.transaction():
                self._store.server.move_name(*names[0], *seen)

    def _release(self, record: Record) -> None:
        with self._store.transaction():
            self._store.journal.set_state(record.seq, RecordState.PENDING)

    # -- server ---------------------------------------------------------------------------

    async def _keep_server(self, conflict: Conflict, record: Record) -> str | None:
        """Drop what was changed here and show what the server has."""
        if not self._context.link.usable:
            await self._stat(b"")  # says why not
        if record.kind is RecordKind.RENAME:
            await self._undo_rename(conflict, record)
            return None
        node, parent = record.node, conflict.parent
        on_server = self._store.server.names(node)
        path = self._store.server.path(node)
        entry = await self._stat(path) if path is not None else None
        self._give_up(conflict, record, entry)
        for directory in {parent, *(p for p, _ in on_server)} - {0}:
            await self._observer.directory(directory)
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
        if entry is not None and record.kind in ATTRIBUTES:
            self._giving_up.attributes(record, entry)
            return
        journal = self._store.journal
        displaced = [r for r in journal.of_node(node) if r.kind is RecordKind.RENAME]
        with self._store.transaction():
            self._giving_up.changes(node, below=entry is None)
            self._names_as_on_server(node, displaced)
            if entry is None:
                self._giving_up.node(node)
            else:
                self._adopter.adopt_revision(node, entry, Content.CHANGED)

    def _names_as_on_server(self, node: NodeId, renames: list[Record]) -> None:
        """Renames that were dropped are undone here, and what they displaced is shown again."""
        nodes, server = self._store.nodes, self._store.server
        with self._store.transaction():
            for rename in renames:
                if server.child(rename.to_parent, rename.to_name) != node:
                    self._giving_up.name(rename.to_parent, rename.to_name, node)
            places = [(place, node) for place in server.names(node)] if renames else []
            for rename in renames:
                to = (rename.to_parent, rename.to_name)
                if rename.replaced and server.child(*to) == rename.replaced:
                    places.append((to, rename.replaced))
            for place, owner in places:
                if nodes.child_id(*place) is None:
                    nodes.add_name(*place, owner)
                    self._context.kernel.forget_entry(*place)

    async def _undo_rename(self, conflict: Conflict, record: Record) -> None:
        """The node goes back to its name on the server; what it displaced is shown again."""
        nodes, server = self._store.nodes, self._store.server
        await self._find_on_server(record)
        names = server.names(record.node)
        if conflict.kind == ConflictKind.RENAME_RENAME:
            self._check_home(record.node, names)
        with self._store.transaction():
            self._store.journal.remove([record.seq])
            self._giving_up.name(record.to_parent, record.to_name, record.node)
            if names and nodes.child_id(*names[0]) is None:
                nodes.add_name(*names[0], record.node)
                self._context.kernel.forget_entry(*names[0])
            replaced = record.replaced
            if replaced and server.child(record.to_parent, record.to_name) == replaced:
                nodes.add_name(record.to_parent, record.to_name, replaced)
                self._context.kernel.forget_entry(record.to_parent, record.to_name)
        if not nodes.names(record.node):
            self._giving_up.changes(record.node, below=True)
            self._giving_up.node(record.node)
        for directory in {record.parent, record.to_parent} - {0}:
            await self._observer.directory(directory)

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

    # -- both -----------------------------------------------------------------------------

    async def _keep_both(self, conflict: Conflict, record: Record) -> str | None:
        kind = conflict.kind
        if kind == ConflictKind.REFUSED:
            raise UsageError(
                "the server refused this change: --keep local tries again, --keep server drops it"
            )
        if kind == ConflictKind.UPDATE_REMOVE:
            return await self._keep_local(conflict, record)
        if kind in CREATING:
            record = self._as_creation(record)
            copy = await self._free_directory(record, record.parent) if record.parent else None
            if copy:
                self._release(record)
                return copy
            return await self._rename_ours(record)
        if kind == ConflictKind.UPDATE_UPDATE and record.kind is RecordKind.RENAME:
            return await self._rename_ours(record)
        if kind == ConflictKind.UPDATE_UPDATE:
            copy = self._copy_local(conflict)
            await self._keep_server(conflict, record)
            return copy
        return await self._keep_server(conflict, record)

    async def _rename_ours(self, record: Record) -> str:
        """Our object takes the name of a conflict copy, here and in its record."""
        renaming = record.kind is RecordKind.RENAME
        parent = record.to_parent if renaming else record.parent
        name = record.to_name if renaming else record.name
        listed = await self._observer.listed(parent) if self._store.server.get(parent) else []
        copy = self._copy_name(parent, name, {e.name for e in listed})
        changed = replace(record, to_name=copy, replaced=0) if renaming else None
        nodes = self._store.nodes
        with self._store.transaction():
            if nodes.child_id(parent, name) == record.node:
                nodes.move_name(parent, name, parent, copy)
            self._start_from(copy, parent, name, record)
            self._store.journal.replace(changed or replace(record, name=copy))
            replaced = record.replaced if renaming else 0
            free = nodes.child_id(parent, name) is None
            if free and replaced and self._store.server.child(parent, name) == replaced:
                nodes.add_name(parent, name, replaced)
        self._context.kernel.forget_entry(parent, name)
        self._context.kernel.forget_entry(parent, copy)
        self._release(self._store.journal.get(record.seq) or record)
        await self._observer.directory(parent)
        return os.fsdecode(copy)

    def _start_from(self, copy: bytes, parent: NodeId, name: bytes, record: Record) -> None:
        """What took the name away again since, by a rename or removal, takes ``copy`` away."""
        for later in self._store.journal.of_node(record.node):
            place = (later.node, later.parent, later.name)
            is_later = later.seq > record.seq and later.kind in TAKING
            if is_later and place == (record.node, parent, name):
                self._store.journal.replace(replace(later, name=copy))
                return

    def _copy_local(self, conflict: Conflict) -> str | None:
        """The local content as a new file beside it, with its own records."""
        node = self._context.node(conflict.node)
        if node is None or node.kind is not Kind.FILE:
            return None
        if not self._store.content.covers(node.id, 0, node.size):
            raise UsageError("a part of the local content is not here; go online and try again")
        copy = self._copy_name(conflict.parent, conflict.name, set())
        with self._store.transaction():
            made = self._changes.create(
                conflict.parent, copy, Kind.FILE, node.mode, node.uid, node.gid
            )
            self._copy_content(node.id, made.id)
            self._store.nodes.update(made.id, size=node.size, mtime_ns=node.mtime_ns)
            self._store.content.add_range(made.id, 0, node.size)
            self._journaling.store(made.id)
        fault("resolve.copied")
        self._context.kernel.forget_entry(conflict.parent, copy)
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

    def _copy_name(self, parent: NodeId, name: bytes, there: set[bytes]) -> bytes:
        when = time.strftime("%Y-%m-%d", time.localtime(self._context.now() / 1e9))
        return conflict_copy_name(
            name,
            self._context.options.host,
            when,
            lambda n: n in there or self._store.nodes.child_id(parent, n) is not None,
        )

    async def _stat(self, path: bytes) -> Entry | None:
        try:
            return await self._context.link.call(lambda remote: remote.stat(path))
        except NotFound:
            return None

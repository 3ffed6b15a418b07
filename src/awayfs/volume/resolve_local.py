"""Keeping ours: the parked record goes out, based on what the server has at this moment."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from awayfs.core.conflicts import ConflictKind
from awayfs.core.earlier_names import name_after, names_before, taken_out, without
from awayfs.core.errors import UsageError
from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind, brings_name
from awayfs.core.sameness import same_object
from awayfs.core.standing import place_for
from awayfs.core.types import ROOT, Attributes, Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume import known_xattrs
from awayfs.volume.adopt import OWN
from awayfs.volume.context import Context
from awayfs.volume.giving_up import GivingUp
from awayfs.volume.journaling import Journaling
from awayfs.volume.places import CHANGING
from awayfs.volume.resolve_other_names import set_apart
from awayfs.volume.resolve_steps import MovedOn, Steps, differs
from awayfs.volume.resolve_strangers import Strangers
from awayfs.volume.searching import join

FIELDS = ("mode", "uid", "gid", "mtime_ns")
CREATING = (ConflictKind.NAME_NAME, ConflictKind.TYPE)


class KeepLocal:
    """Carries out ``--keep local``."""

    def __init__(
        self,
        context: Context,
        journaling: Journaling,
        giving_up: GivingUp,
        steps: Steps,
        strangers: Strangers,
    ) -> None:
        self._context = context
        self._store = context.store
        self._journaling = journaling
        self._giving_up = giving_up
        self._steps = steps
        self._strangers = strangers

    async def base_attributes(self, conflict: Conflict, record: Record) -> None:
        """Neither side's: what an attribute was before goes out, over what the server has now."""
        based = self._as_before(record)
        await self._rebase(record, conflict)
        with self._store.transaction():
            if based.kind is RecordKind.SETXATTR:
                self._store.nodes.set_xattr(record.node, based.xattr_name, based.xattr_value)
            else:
                named = {f: getattr(based.attributes, f) for f in FIELDS}
                known = {f: value for f, value in named.items() if value is not None}
                self._store.nodes.update(record.node, **known)
            self._store.journal.replace(based)
            self._steps.release(based)

    def _as_before(self, record: Record) -> Record:
        """A record that sets what it has set to what that was; ``UsageError`` if not known."""
        base = self._store.server.get(record.node)
        before = self._store.nodes.base_xattrs(record.node)
        if record.kind is RecordKind.SETXATTR and record.xattr_name in before:
            return replace(record, xattr_value=before[record.xattr_name])
        if record.kind is not RecordKind.SETATTR or base is None:
            raise UsageError("what it was before both changes is not known; use another --keep")
        uid, gid = self._context.local_owner(base.entry())
        values = {"mode": base.mode, "uid": uid, "gid": gid, "mtime_ns": base.mtime_ns}
        set_here = {f: values[f] for f in FIELDS if getattr(record.attributes, f) is not None}
        return replace(record, attributes=Attributes(**set_here))

    async def keep(self, conflict: Conflict, record: Record) -> str | None:
        kind = conflict.kind
        if kind == ConflictKind.UPDATE_REMOVE:
            self.check_whole(record.node)
            with self._store.transaction():
                self.recreate(record)
                self._steps.release(record)
            return None
        if kind in CREATING:
            return await self._win_name(self.as_creation(record))
        if kind == ConflictKind.REMOVE_UPDATE and record.kind is RecordKind.RENAME:
            return await self._win_name(record)  # the directory to be displaced has been filled
        if kind == ConflictKind.RENAME_RENAME:
            await self._steps.moved.find(record)
            if self._steps.moved.is_known_as_another(record.node):
                self.check_whole(record.node)
                self.recreate(record)
        elif kind != ConflictKind.REFUSED:
            if record.kind is RecordKind.STORE:
                self.check_whole(record.node)  # the rest is the old revision's, which is gone
            await self._rebase(record, conflict)
        self._steps.release(record)
        return None

    def check_whole(self, node_id: NodeId) -> None:
        """What is to be made anew on the server must be here."""
        node = self._context.node(node_id)
        if node is None or node.kind is not Kind.FILE:
            return
        if not self._store.content.covers(node.id, 0, node.size):
            raise UsageError("its content is neither here nor on the server; use --keep server")

    def as_creation(self, record: Record) -> Record:
        """A change of what the server replaced by another kind of thing: it is made anew."""
        if record.kind in (RecordKind.CREATE, RecordKind.LINK, RecordKind.RENAME):
            return record
        with self._store.transaction():
            for parent, name in self._store.server.names(record.node):
                self._store.server.remove_name(parent, name)
            self.recreate(record)
        return self._store.journal.get(record.seq) or record

    async def _rebase(self, record: Record, conflict: Conflict) -> None:
        """What stands on the server now becomes the base of the parked record.

        Its digest, where its content is here, proves to replay that it still stands there:
        a weak token alone would not.
        """
        displaces = self._is_about_replaced(record)
        node = record.replaced if displaces else record.node
        places = self._steps.places
        path = places.displaced_by(record) if displaces else places.of(record).path
        if path is None:
            return
        entry = await self._steps.stat(path)
        if entry is None:
            if not displaces:  # else what is renamed has not gone, and finds its new name free
                self.recreate(record)
            return
        if conflict.kind == ConflictKind.UPDATE_UPDATE and differs(conflict.server_entry, entry):
            raise MovedOn  # nobody has seen that one, and the history does not have it
        digest = await self._steps.variant_digest(conflict, entry)
        there = await self._xattrs(record, path)
        if conflict.kind == ConflictKind.ATTRIBUTE:
            entry, digest = self._with_rights_of(node, entry, conflict.server_entry)
        with self._store.transaction():
            self._store.server.set(node, entry, seen_ns=self._context.now(), digest=digest)
            if there is not None:
                value = there.get(record.xattr_name)
                self._store.nodes.keep_base_xattr(node, record.xattr_name, value)
                known_xattrs.doubt(self._store, node)  # others may differ too

    def _with_rights_of(
        self, node: NodeId, entry: Entry, shown: Entry | None
    ) -> tuple[Entry, bytes | None]:
        """The base but for the server's rights: of its content now nothing was decided, and what
        is to go out yet may overwrite or remove no more of it than before.

        ``shown`` is what was decided about. By then another file may have taken the base's place.
        """
        base = self._store.server.get(node)
        if base is None or base.kind is not entry.kind:
            raise MovedOn
        if not any(one and same_object(one, entry) for one in (base.entry(), shown)):
            raise MovedOn
        rights = replace(base.entry(), mode=entry.mode, uid=entry.uid, gid=entry.gid)
        return rights, base.digest

    async def _xattrs(self, record: Record, path: bytes) -> dict[bytes, bytes] | None:
        """The server's extended attributes, where one of them is what is decided about."""
        if record.kind is not RecordKind.SETXATTR:
            return None
        return await self._context.link.call(lambda remote: remote.xattrs(path))

    def _is_about_replaced(self, record: Record) -> bool:
        return record.kind is RecordKind.RENAME and bool(record.replaced)

    def recreate(self, record: Record) -> None:
        """The server has it no more: the record becomes the creation of what is here.

        Under the name that it had after this record, since what was done with it later starts
        from there. A parked record stays parked.
        """
        set_apart(self._store, record)
        self._lead_to(record.node)
        now = self._store.nodes.names(record.node)
        later = [r for r in self._store.journal.of_node(record.node) if r.seq > record.seq]
        then = names_before(record.node, now, later) or now
        if now and not any(self._is_somewhere(directory) for directory, _ in then):
            then = self._as_named_now(record.node, now, later)
        # first one that it keeps, whatever it is called by now: it is never without a name
        names = sorted(then, key=lambda name: name_after(record.node, name, later) is None)
        with self._store.transaction():
            self._store.server.forget(record.node)
            if not now:
                self._remove_displaced(record)
                return
            self._forget_below(record.node)
            parent, name = names[0]
            self._store.journal.replace(
                Record(
                    seq=record.seq,
                    kind=RecordKind.CREATE,
                    node=record.node,
                    parent=parent,
                    name=name,
                    at_ns=record.at_ns,
                    state=record.state,
                    reason=record.reason,
                )
            )
            self._xattrs_anew(record.node)
            self._link_further(record.node, self._names_since(record.node, names[1:], later))
            self._remove_displaced_by_the_way(record)
            self._recreate_below(record.node)
            self._directories_anew(parent)

    def _is_somewhere(self, directory: NodeId) -> bool:
        """Whether there is a directory, here or there, or will be before it is removed again."""
        if self._store.nodes.path(directory) is not None:
            return True
        records = self._store.journal.of_node(directory)
        made = any(r.kind is RecordKind.CREATE for r in records)
        return made or self._store.server.path(directory) is not None

    def _lead_to(self, node: NodeId) -> None:
        """What has a name only in directories that are neither here nor on the server gets one that
        leads to it, in the root: nothing could be made in those, and nobody would find it.
        """
        nodes, server = self._store.nodes, self._store.server
        names = nodes.names(node)
        if not names or any(self._is_somewhere(directory) for directory, _ in names):
            return

        def is_free(slot: Slot) -> bool:
            return nodes.child_id(*slot) is None and server.child(*slot) is None

        with self._store.transaction():
            for name in names:
                self._giving_up.name(*name, node)
            nodes.add_name(*place_for(node, names[0][1], (), nodes.above, is_free), node)

    def _as_named_now(self, node: NodeId, now: list[Slot], later: list[Record]) -> list[Slot]:
        """The directory that it was in then is given up: how it came to be elsewhere is nothing
        that the server could be told. Of an exchange, the other's renaming is left.
        """
        journal = self._store.journal
        for record in later:
            removed = record.kind is RecordKind.REMOVE and record.node == node
            named = record.kind is RecordKind.LINK and (record.parent, record.name) == now[0]
            if removed or named:
                journal.remove([record.seq])
            elif record.kind is RecordKind.EXCHANGE:
                journal.replace(without(record, node))
        return now[:1]

    def _names_since(
        self, node: NodeId, names: Sequence[Slot], later: Sequence[Record]
    ) -> list[Slot]:
        """What its further names are by now. The server has none of them: how they came to that
        is not repeated, as it would be done to the one that is made.
        """
        journal, found = self._store.journal, []
        for name in names:
            since, left = taken_out(node, name, later)
            for seq, rest in left.items():
                journal.replace(rest) if rest is not None else journal.remove([seq])
            later = [r for r in journal.of_node(node) if any(r.seq == one.seq for one in later)]
            if since is not None:
                found.append(since)
        return found

    def _remove_displaced(self, record: Record) -> None:
        """It was removed here since, too: of a rename, what it displaced is left to go."""
        journal, place = self._store.journal, (record.to_parent, record.to_name)
        if record.replaced and self._store.server.child(*place) == record.replaced:
            removal = Record(
                seq=record.seq,
                kind=RecordKind.REMOVE,
                node=record.replaced,
                parent=place[0],
                name=place[1],
                at_ns=record.at_ns,
                state=record.state,
                reason=record.reason,
            )
            journal.replace(removal)
        else:
            journal.remove([record.seq])

    def _remove_displaced_by_the_way(self, record: Record) -> None:
        """What a rename displaced goes also where its node was renamed on from there."""
        node, place = record.replaced, (record.to_parent, record.to_name)
        free = self._store.nodes.child_id(*place) is None
        stands = record.kind is RecordKind.RENAME and self._store.server.child(*place) == node
        if node and free and stands and not self._steps.is_taken_away(node):
            self._journaling.append(RecordKind.REMOVE, node, parent=place[0], name=place[1])

    def _xattrs_anew(self, node: NodeId) -> None:
        """What is made anew has none of the extended attributes that it shows here."""
        records = self._store.journal.of_node(node)
        sent = {r.xattr_name for r in records if r.kind is RecordKind.SETXATTR}
        for name, value in self._store.nodes.xattrs(node).items():
            if name != known_xattrs.XATTRS_OF and not name.startswith(OWN) and name not in sent:
                self._journaling.append(
                    RecordKind.SETXATTR, node, xattr_name=name, xattr_value=value
                )

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
        """What is whole here comes back with its directory; the rest's deletion stands.

        What was renamed to here is brought by the record of that. A further name of what the server
        has, or gets, is linked. An edit of what is here only in part is a matter of its own.
        """
        for name, child in self._store.nodes.children(directory):
            place, records = (directory, name), self._store.journal.of_node(child.id)
            if self._is_edited_in_part(child.id) and not self._store.server.names(child.id):
                continue
            if child.kind is Kind.DIRECTORY and self._store.server.names(child.id):
                continue  # there it is elsewhere, with all in it, and will be here
            made = any(r.kind is RecordKind.CREATE for r in records)
            kind = RecordKind.CREATE
            known = made or self._store.server.get(child.id) is not None
            if known and child.kind is not Kind.DIRECTORY:
                kind = RecordKind.LINK
            if not any(brings_name(r, child.id, place) for r in records):
                whole = self._store.content.covers(child.id, 0, child.size)
                if child.kind is Kind.FILE and kind is RecordKind.CREATE and not whole:
                    self._giving_up.name(directory, name, child.id)
                    continue
                if kind is RecordKind.CREATE:
                    self._store.server.forget(child.id)
                    self._forget_below(child.id)
                    self._create(child.id, place, records)
                else:
                    self._journaling.append(kind, child.id, parent=directory, name=name)
            if child.kind is Kind.DIRECTORY:
                self._recreate_below(child.id)

    def _create(self, node: NodeId, place: Slot, records: Sequence[Record] = ()) -> None:
        """What is here is made anew on the server, before what was changed of it since: that of its
        ``records`` which came first becomes its creation.
        """
        changes = [r for r in records if r.node == node and r.kind in CHANGING]
        parent, name = place
        if changes:
            first = changes[0]
            made = Record(first.seq, RecordKind.CREATE, node, parent, name, at_ns=first.at_ns)
            self._store.journal.replace(made.in_state(first.state, first.reason))
        else:
            self._journaling.append(RecordKind.CREATE, node, parent=parent, name=name)
        self._xattrs_anew(node)

    def _directories_anew(self, directory: NodeId) -> None:
        """A directory that has no place on the server any more, and so cannot come back to it, is
        made where it is here; with those that it is in.
        """
        nodes, server = self._store.nodes, self._store.server
        while directory != ROOT and not server.names(directory):
            records, names = self._store.journal.of_node(directory), nodes.names(directory)
            if not names or any(brings_name(r, directory, names[0]) for r in records):
                return
            server.forget(directory)
            self._create(directory, names[0], records)
            directory = names[0][0]

    def _forget_below(self, node: NodeId) -> None:
        """What was in a lost directory on the server is not there any more; a file with names
        elsewhere, too, has those. What an edit is based on that cannot be sent stays known.
        """
        server, pending = self._store.server, [node]
        while pending:
            directory = pending.pop()
            for name, child in server.children(directory):
                server.remove_name(directory, name)
                if not server.names(child) and not self._is_edited_in_part(child):
                    server.forget(child)
                pending.append(child)

    def _is_edited_in_part(self, node: NodeId) -> bool:
        """Whether a file of the server's was changed here of which a part is not here."""
        found, known = self._context.node(node), self._store.server.get(node)
        if found is None or known is None or not self._store.journal.has_store(node):
            return False
        return not self._store.content.covers(node, 0, found.size)

    async def _win_name(self, record: Record) -> str | None:
        """Our object gets the name; the server's is moved to a conflict copy beside it."""
        renaming = record.kind is RecordKind.RENAME
        parent = record.to_parent if renaming else record.parent
        name = record.to_name if renaming else record.name
        directory = self._store.server.path(parent)
        if directory is None:
            self._steps.release(record)
            return None
        copy = await self._strangers.free_directory(record, parent)
        entry = None if copy else await self._steps.stat(join(directory, name))
        if entry is not None:
            copy = await self._strangers.move(record, parent, directory, name, entry)
        self._steps.release(record)
        return copy

"""Writing down that a record is on the server: server view, content tokens, journal.

One transaction for the records that come back together (``together``). What the server returned
is adopted as the new base, so that a server which rewrites what it stores never makes a conflict
with oneself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.decide import Facts
from awayfs.core.diff import Content, compare_entries
from awayfs.core.facts import known_after
from awayfs.core.records import Record, RecordKind, RecordState, fields_set
from awayfs.core.types import NEVER_SEEN, ROOT, Entry, Kind, NodeId
from awayfs.ports.remote import Intent
from awayfs.volume import known_xattrs
from awayfs.volume.adopt import SUSPECT, Adopter
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.decided_meanwhile import DecidedMeanwhile
from awayfs.volume.fault import fault
from awayfs.volume.freezing import Freezer
from awayfs.volume.left_names import Left, LeftNames
from awayfs.volume.observe import Observer
from awayfs.volume.removing import Remover
from awayfs.volume.together import Together

LEAVING = (RecordKind.REMOVE, RecordKind.RENAME)
"""What is taken from a directory may have been the last that was in it."""


class Found(Struct, frozen=True):
    """What a record wanted stood on the server already: a file with this content, if read."""

    digest: bytes | None


class Through(Struct, frozen=True):
    """A record whose change stands on the server; ``entry`` is the node there.

    ``found``: it stood there already, made by an earlier try or by somebody else.
    ``left``: a file that lost a name to it and has others.
    """

    record: Record
    facts: Facts
    entry: Entry | None
    found: Found | None = None
    left: Left | None = None


class Committer:
    """Commits outcomes of records."""

    def __init__(
        self,
        context: Context,
        observer: Observer,
        changes: Changes,
        freezer: Freezer,
        together: Together,
    ) -> None:
        self._together = together
        self._context = context
        self._store = context.store
        self._nodes = context.store.nodes
        self._server = context.store.server
        self._observer = observer
        self._changes = changes
        self._freezer = freezer
        self._adopter = Adopter(context)
        self._left_names = LeftNames(context)
        self._meanwhile = DecidedMeanwhile(context.store)
        self._remover = Remover(context)

    def discard_if_unused(self, node: NodeId) -> None:
        """Drop a node that nothing refers to any more."""
        self._changes.discard_if_unused(node)

    async def commit(self, *through: Through) -> None:
        """Write these down."""
        await self._together.do(lambda: self._commit(through))
        fault("replay.committed")

    def _commit(self, through: Sequence[Through]) -> None:
        with self._store.transaction():
            ours = [one for one in through if not self._goes_anew(one.record)]
            started = {one.record.seq: self._store.intents.get(one.record.seq) for one in ours}
            carried = {one.record.seq: self._carried(one) for one in ours}
            also = [store.seq for stores in carried.values() for store in stores]
            self._store.journal.remove([*started, *also])
            self._store.intents.clear_all(started)  # they go with records that were there
            for one in ours:
                self._outdate_times(carried[one.record.seq])
                self._note(one, started[one.record.seq])

    def _goes_anew(self, record: Record) -> bool:
        """Whether it was decided meanwhile that a record has to go again."""
        if not self._meanwhile.again(record):
            return False
        self._observer.committed(*{record.parent, record.to_parent, ROOT} - {0})
        return True

    def _note(self, one: Through, started: tuple[Intent, str] | None) -> None:
        """What the server has by one of them."""
        record, by_others = one.record, one.found is not None
        digest = self._digest_of(one.entry, started, one.found)
        self._apply(record, one.facts, one.entry, by_others, digest)
        if one.left is not None:
            self._left_names.adopt(one.left)
        elif record.kind is RecordKind.REMOVE:
            self._take_for_new(record.node)
        names = self._server.names(record.node)
        for place in names:
            self._server.seen(*place)
        directories = {record.parent, record.to_parent, ROOT, *(name[0] for name in names)}
        self._store.db.on_commit(lambda: self._tell(record.node, directories))
        for node in {record.node, record.replaced} - {0}:
            self._changes.discard_if_unused(node)
        if record.kind in LEAVING:
            self._remover.let_go_above(record.parent)

    def _tell(self, node: NodeId, directories: set[NodeId]) -> None:
        """It is committed at this moment: what was listed before is outdated."""
        if not self._store.journal.has_store(node):
            self._context.opened.sent(node)
        self._observer.committed(*directories - {0})

    def _outdate_times(self, carried: list[Record]) -> None:
        """A time that was set before a store which is out already is not set after it.

        The stores went out with the creation, past the records between.
        """
        journal = self._store.journal
        for record in journal.of_node(carried[-1].node) if carried else []:
            waits = record.kind is RecordKind.SETATTR and record.state is RecordState.PENDING
            if not waits or record.seq > carried[-1].seq or record.attributes.mtime_ns is None:
                continue
            left = replace(record.attributes, mtime_ns=None)
            if left:
                journal.replace(replace(record, attributes=left))
            else:
                journal.remove([record.seq])

    def _carried(self, one: Through) -> list[Record]:
        """The stores whose content is on the server with the file that was created.

        Of a file that an earlier, cut-off try left empty it is not: its store goes out yet.
        """
        record, facts = one.record, one.facts
        if record.kind is not RecordKind.CREATE or facts.kind is not Kind.FILE:
            return []
        sent = one.found is None or facts.local_digest is not None or self._same_as_staged(facts)
        return self._freezer.carried(record) if sent else []

    def _same_as_staged(self, facts: Facts) -> bool:
        there, ours = facts.target_current, facts.ours
        if there is None or ours is None:
            return False
        if ours.file_id is not None and ours.file_id == there.file_id:
            return True
        return there.size == ours.size == facts.local_size

    def _apply(
        self,
        record: Record,
        facts: Facts,
        entry: Entry | None,
        by_others: bool,
        digest: bytes | None,
    ) -> None:
        match record.kind:
            case RecordKind.CREATE:
                assert entry is not None
                self._created(record, facts, entry, by_others, digest)
            case RecordKind.STORE:
                assert entry is not None
                self._stored(record.node, entry, facts, by_others, digest)
            case RecordKind.LINK:
                self._name_there(record.parent, record.name, record.node)
                self._rebase(record, facts, entry)
            case RecordKind.REMOVE:
                self._removed(record.parent, record.name, record.node)
            case RecordKind.RENAME:
                parted = self._is_parted(record, entry)
                self._renamed(record)
                if parted and entry is not None:
                    there = replace(entry, name=record.to_name)
                    self._adopter.part(record.to_parent, there, record.node)
                else:
                    self._rebase(record, facts, entry)
            case RecordKind.EXCHANGE:
                self._exchanged(record, facts, entry)
            case RecordKind.SETATTR:
                self._rebase(record, facts, entry)
            case RecordKind.SETXATTR:  # a later change of the same attribute is based on this one
                self._nodes.keep_base_xattr(record.node, record.xattr_name, record.xattr_value)
                self._rebase(record, facts, entry)

    def _is_parted(self, record: Record, entry: Entry | None) -> bool:
        """Whether what was renamed there is a file that was saved over this name of ours, or one
        more name of another file that we know.

        The other names still are what they were, and so is our node.
        """
        base = self._server.get(record.node)
        if base is None or entry is None or entry.file_id is None or base.file_id is None:
            return False
        if base.file_id == entry.file_id:
            return False
        if self._nodes.child_id(record.to_parent, record.to_name) != record.node:
            return False
        if len(self._server.names(record.node)) > 1:
            return True
        clean = not self._store.journal.has_any(record.node)
        return clean and self._adopter.is_link_to_another(record.node, entry)

    def _created(
        self, record: Record, facts: Facts, entry: Entry, by_others: bool, digest: bytes | None
    ) -> None:
        self._name_there(record.parent, record.name, record.node)
        if record.parent == ROOT:
            self._store.brought.add(record.node)
        if facts.kind is Kind.DIRECTORY:
            self._server.set(record.node, entry, seen_ns=self._context.now())
            self._server.set_listed(record.node, 0 if by_others else self._context.now())
            if by_others:  # one directory from now on, with the rights that it has there
                self._adopter.adopt_revision(record.node, entry, None)
        else:
            self._stored(record.node, entry, facts, by_others, digest)

    def _stored(
        self, node: NodeId, entry: Entry, facts: Facts, by_others: bool, digest: bytes | None
    ) -> None:
        """The content here is the content there, of this revision or of one before it."""
        content = self._store.content
        base = _as_sent(facts.ours, entry) if by_others else entry
        known = digest if base is entry else None
        known_xattrs.carry(self._store, node, facts.current, base)
        seen = known_after(facts, base, fields_set(self._store.journal.of_node(node)))
        self._server.set(node, seen, seen_ns=self._context.now(), digest=known)
        if content.has(node):
            # Of a file without a name, changes after what was sent may have been dropped.
            named = self._store.journal.has_store(node) or self._nodes.names(node)
            content.set_token(node, base.token if named else None)
        content.drop_base(node)  # of an edit that is on its way already, this is not the base
        if base is not entry:
            self._adopter.adopt_revision(node, entry, compare_entries(base, entry))
        elif entry.kind is Kind.FILE:
            self._adopt_rewritten(node, entry, by_others)
            if facts.base is not None:
                self._take_rights(facts.record, facts.base, entry)
        self._adopt_returned(node, entry)

    def _adopt_rewritten(self, node: NodeId, entry: Entry, by_others: bool) -> None:
        """A server that rewrites what it stores (line endings, image metadata) has the last word.

        Another size is told by the entry. Another time is a sign: what is here is then compared
        before it is trusted.
        """
        local, connected = self._context.node(node), self._context.link.connected
        if local is None or connected is None or self._store.journal.has_any(node):
            return
        if local.size != entry.size:
            self._adopter.drop_content(node, entry.size, entry.token)
        elif connected.capabilities.set_mtime and not by_others:
            grain = max(connected.capabilities.time_granularity_ns, 1)
            if abs(local.mtime_ns - entry.mtime_ns) >= grain and self._store.content.ranges(node):
                self._store.content.set_token(node, SUSPECT)

    def _adopt_returned(self, node: NodeId, entry: Entry) -> None:
        """A mode or time that the server rewrote is what everybody sees from now on.

        A time that only lost its fraction keeps it here.
        """
        local = self._context.node(node)
        connected = self._context.link.connected
        if local is None or connected is None or self._store.journal.has_any(node):
            return
        values: dict[str, int] = {}
        if connected.capabilities.mode and local.mode != entry.mode:
            values["mode"] = entry.mode
        grain = max(connected.capabilities.time_granularity_ns, 1)
        if local.mtime_ns // grain != entry.mtime_ns // grain or entry.mtime_ns % grain:
            values["mtime_ns"] = entry.mtime_ns
        opened = self._context.opened.get(node)
        if opened is not None and (opened.unsaved or opened.passthrough or opened.mappable):
            return  # what is written to it meanwhile is not all seen yet
        if values and entry.kind is not Kind.DIRECTORY:
            self._nodes.update(node, **values)
            if opened is not None:
                opened.mtime_ns = values.get("mtime_ns", opened.mtime_ns)
            self._context.kernel.forget_node(node)

    def _rebase(self, record: Record, facts: Facts, after: Entry | None) -> None:
        """Our operation made a new revision of an object whose content it did not touch.

        If what stood there just before was our base, what stands there now is our base;
        otherwise somebody else's change is among it, and it is adopted like any other, but
        for what this very record set.
        """
        node, before = record.node, facts.current
        base = self._server.get(node)
        if base is None or after is None:
            if after is not None:
                self._server.set(node, after, seen_ns=self._context.now())
            return
        if self._part_link(node, after):
            return
        stood = (after,) if before is None else (before, after)  # None: others renamed it, too
        moved_on = base.token not in [entry.token for entry in stood]
        moved_on = moved_on or (before is not None and _is_edited(record, before, after))
        if moved_on and not _is_only_ours(facts, base.entry(), after, self._grain_ns()):
            difference = compare_entries(base.entry(), after)
            if difference is not Content.SAME or base.kind is not Kind.DIRECTORY:
                seen = {name: getattr(after, name) for name in _fields_set(record)}
                known = replace(base.entry(), **seen)
                self._server.set(node, known, seen_ns=self._context.now(), digest=base.digest)
                self._adopter.adopt_revision(node, after, difference, merged=True)
                return
        content = self._store.content
        owned = content.token(node) == base.token
        self._take_rights(record, base.entry(), after)
        written = self._store.journal.has_store(node)
        digest = base.digest or (None if written else facts.base_digest)
        known_xattrs.carry(self._store, node, before, after)
        self._server.set(node, after, seen_ns=self._context.now(), digest=digest)
        if content.base_token(node) == base.token:
            content.bases.set_token(node, after.token)
        if owned:
            timed = record.attributes.mtime_ns is not None
            unseen = moved_on and timed and not written  # the time that tells of edits was set
            content.set_token(node, SUSPECT if unseen else after.token)
        if after.kind is not Kind.DIRECTORY:
            self._adopt_returned(node, after)

    def _digest_of(
        self, entry: Entry | None, started: tuple[Intent, str] | None, found: Found | None
    ) -> bytes | None:
        """What was sent is known byte by byte, whatever becomes of the file here."""
        sent = started[0].staged if started is not None else None
        if started is None or sent is None or entry is None:
            return None
        digest = started[0].staged_digest
        if sent.token != NEVER_SEEN:
            return digest if sent.token == entry.token else None
        if found is not None:
            return digest if found.digest == digest else None
        return digest if self._is_as_sent(sent, entry) else None

    def _is_as_sent(self, sent: Entry, entry: Entry) -> bool:
        """Whether a server left what was put on it as it was, as far as a look tells."""
        able = self._context.link.capabilities
        timed = able is not None and able.set_mtime
        return sent.size == entry.size and (not timed or sent.mtime_ns == entry.mtime_ns)

    def _grain_ns(self) -> int:
        """How finely the server keeps times."""
        able = self._context.link.capabilities
        return max(able.time_granularity_ns, 1) if able else 1

    def _part_link(self, node: NodeId, after: Entry) -> bool:
        """Whether what stands in the node's place is a name of another file, which has it now."""
        names = self._server.names(node)
        if len(names) != 1 or self._nodes.names(node) != names:
            return False
        busy = self._store.journal.has_any(node)
        if busy or not self._adopter.is_link_to_another(node, after):
            return False
        (directory, name) = names[0]
        self._adopter.part(directory, replace(after, name=name), node)
        return True

    def _take_rights(self, record: Record, base: Entry, after: Entry) -> None:
        """Mode and owner that somebody else set meanwhile; no later look will show a difference."""
        ours = set(_fields_set(record))
        for later in self._store.journal.of_node(record.node):
            ours.update(_fields_set(later))
        uid, gid = self._context.local_owner(after)
        shown = {"mode": after.mode, "uid": uid, "gid": gid}
        theirs = {
            name: value
            for name, value in shown.items()
            if name not in ours and getattr(base, name) != getattr(after, name)
        }
        if theirs:
            self._nodes.update(record.node, **theirs)
            self._context.kernel.forget_node(record.node)

    def _removed(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        if self._server.child(parent, name) == node:
            self._server.remove_name(parent, name)
        if self._server.names(node):
            return
        if self._nodes.has_children(node) and not self._nodes.names(node):
            self._remover.let_go(node)  # with what came into it after it had gone here
        else:
            self._server.forget(node)

    def _take_for_new(self, node: NodeId) -> None:
        """What has no name here, and is not on its way to lose those that the server has for it,
        is shown when they are listed again: its rename to the name that was removed was given up.
        """
        if self._nodes.names(node) or self._store.journal.has_any(node):
            return
        for parent, name in self._server.names(node):
            self._removed(parent, name, node)
            if self._server.listed_ns(parent) is not None:
                self._server.set_listed(parent, 0)

    def _renamed(self, record: Record) -> None:
        standing = self._server.child(record.to_parent, record.to_name)
        if standing is not None and standing != record.node:
            self._removed(record.to_parent, record.to_name, standing)
        if self._server.child(record.parent, record.name) == record.node:
            source: tuple[NodeId, bytes] | None = (record.parent, record.name)
        else:
            names = self._server.names(record.node)
            source = names[0] if names else None
        if source == (record.to_parent, record.to_name):
            return
        if source is None:
            self._name_there(record.to_parent, record.to_name, record.node)
        elif self._server.child(record.to_parent, record.to_name) is None:
            self._server.move_name(*source, record.to_parent, record.to_name)
        else:
            self._server.remove_name(*source)

    def _exchanged(self, record: Record, facts: Facts, entry: Entry | None) -> None:
        here, there = (record.parent, record.name), (record.to_parent, record.to_name)
        for place, node in ((here, record.node), (there, record.replaced)):
            if self._server.child(*place) == node:
                self._server.remove_name(*place)
        for place, node in ((there, record.node), (here, record.replaced)):
            self._name_there(*place, node)
        # What stands at the name that was looked at is the other one, where that was found done.
        self._rebase(record, replace(facts, current=None) if facts.crossed else facts, entry)
        if entry is None:
            self._observer.look_again(record.node)
        self._observer.look_again(record.replaced)

    def _name_there(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        with suppress(FileExistsError):  # mostly it is free: to ask first would be a query more
            self._server.add_name(parent, name, node)
            return
        standing = self._server.child(parent, name)
        if standing == node:
            return
        if standing is not None and self._nodes.names(standing):
            self._server.remove_name(parent, name)  # what is elsewhere here goes from there
        elif standing is not None:  # it is gone, or will be found where it is
            self._removed(parent, name, standing)
            self._changes.discard_if_unused(standing)
        self._server.add_name(parent, name, node)


def _as_sent(staged: Entry | None, entry: Entry) -> Entry:
    """The revision that an earlier try of ours left, where it was edited since; else ``entry``."""
    if staged is None or staged.file_id is None or staged.file_id != entry.file_id:
        return entry
    if (staged.size, staged.mtime_ns) == (entry.size, entry.mtime_ns):
        return entry
    return replace(staged, name=entry.name)


def _fields_set(record: Record) -> list[str]:
    """The fields of an entry that a record sets."""
    names = ("mode", "uid", "gid", "mtime_ns")
    return [name for name in names if getattr(record.attributes, name) is not None]


def _is_edited(record: Record, before: Entry, after: Entry) -> bool:
    """Whether somebody changed a file's content between our look at it and our operation."""
    if before.kind is not Kind.FILE or after.kind is not Kind.FILE:
        return False
    timed = record.attributes.mtime_ns is not None  # guarded by the revision (core.decide)
    return before.size != after.size or (before.mtime_ns != after.mtime_ns and not timed)


def _is_only_ours(facts: Facts, base: Entry, after: Entry, grain_ns: int) -> bool:
    """A record that is retried finds its own work done: nothing else shows a difference.

    A time that it sets is that of the same content, as it was before.
    """
    if not facts.retried or base.kind is not Kind.FILE or after.kind is not Kind.FILE:
        return False
    if (after.file_id, after.size) != (base.file_id, base.size):
        return False
    set_ns = facts.record.attributes.mtime_ns
    if set_ns is None:
        return after.mtime_ns == base.mtime_ns
    return after.mtime_ns in (set_ns, set_ns - set_ns % grain_ns)

"""Gathering what a decision needs: what stands on the server now, and what we know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from msgspec.structs import replace

from awayfs.core.errors import NotFound
from awayfs.core.facts import Facts, Parent, may_assume_free, may_assume_known
from awayfs.core.naming import folded
from awayfs.core.records import Record, RecordKind
from awayfs.core.sameness import may_be_another, proved_same, same_object
from awayfs.core.types import Entry, Kind, NodeId, Range
from awayfs.ports.remote import Crossing, Intent
from awayfs.store.nodes import Node
from awayfs.store.server import ServerNode
from awayfs.volume.context import Context
from awayfs.volume.decided_meanwhile import DecidedMeanwhile
from awayfs.volume.fetch import Fetcher
from awayfs.volume.observe import Observer
from awayfs.volume.places import CHANGING, MOVING, PlaceFinder, Places
from awayfs.volume.suspects import CHUNK, digest_soon

ONE_NAME = (RecordKind.CREATE, RecordKind.LINK, RecordKind.REMOVE)


class FactFinder:
    """Observes for replay. All methods raise ``RemoteError`` when the server cannot be asked."""

    def __init__(self, context: Context, observer: Observer, fetcher: Fetcher) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._fetcher = fetcher
        self._places = PlaceFinder(context.store)
        self.meanwhile = DecidedMeanwhile(context.store)

    def places(self, record: Record) -> Places:
        """The paths a record works on, by the server's names of the nodes it names."""
        return self._places.of(record)

    def may_go_unseen(self, record: Record, earlier: tuple[Intent, str] | None) -> bool:
        """Whether a first try may do without a look at the server (``core.facts``)."""
        return self._may_go_unseen(record, self.places(record), earlier is not None)

    def unseen(self, record: Record) -> tuple[Facts, Places] | None:
        """All that a first try needs to be decided on without any look; None where it takes one."""
        places = self.places(record)
        is_there = record.kind is RecordKind.CREATE and places.path is not None
        if is_there or not self._may_go_unseen(record, places, retried=False):
            return None
        return self._unseen(record, places), places

    def _may_go_unseen(self, record: Record, places: Places, retried: bool) -> bool:
        node = self._context.node(record.node)
        if record.kind is RecordKind.CREATE:
            return node is not None and may_assume_free(record, node.kind, node.size, retried)
        able = self._context.link.capabilities
        if able is None or not able.acts_unseen:
            return False
        if record.kind is RecordKind.STORE and (
            node is None or node.size > able.put or not self.is_whole(node)
        ):
            return False
        server = self._store.server
        base, names = server.get(record.node), len(server.names(record.node))
        if places.path is None or places.path == places.target:
            return False
        return may_assume_known(record, base.entry() if base else None, names, retried)

    async def gather(
        self, record: Record, earlier: tuple[Intent, str] | None, *, unseen: bool = False
    ) -> Facts:
        """Everything ``decide`` looks at, digests left out.

        ``unseen``: without a look, all is taken for what it was, and a wanted name for free.
        """
        places = self.places(record)
        is_new = record.kind is RecordKind.CREATE
        if unseen and (places.path is None or not is_new):
            return self._unseen(record, places)
        target = None if unseen else places.target
        current, target_current = await self._stat_both(places.path, target)
        if self._is_elsewhere(record, places, current):
            places, current = await self._look_for(record, places, current)
            target_current = None if unseen else await self._stat(places.target)
        node = self._context.node(record.node)
        base = self._store.server.get(record.node)
        replaced = self._store.server.get(record.replaced) if record.replaced else None
        if _has_arrived(record, places, base, target_current):
            current = None
        kind = node.kind if node else base.kind if base else Kind.FILE
        facts = Facts(
            record=record,
            kind=kind,
            base=base.entry() if base else None,
            current=current,
            target_base=replaced.entry() if replaced else None,
            target_current=target_current,
            local_size=self._local_size(node),
            symlink_target=node.target if node else None,
            rdev=node.rdev if node else 0,
            ours=earlier[0].staged if earlier else None,
            ours_digest=earlier[0].staged_digest if earlier else None,
            sent=earlier[0].other_expected if earlier else None,
            sent_target=earlier[0].expected if earlier else None,
            went=earlier[0].moving if earlier else None,
            retried=earlier is not None,
            crossed=earlier is not None and earlier[0].crossing is Crossing.OVER,
            twin=self._twin(record, places),
            is_moved_one=self._is_moved_one(record, target_current),
            parent=self._parent_of(record, places),
            inside=_is_inside(places),
            complete=True,
            unsupported=self._is_unsupported(record, kind),
        )
        facts = await self._with_children(facts, places)
        facts = await self._with_other_names(facts, places)
        facts = await self._with_xattrs(facts, places)
        facts = await self._with_moved(facts)
        return await self._with_base_digests(facts, base, replaced)

    def _unseen(self, record: Record, places: Places) -> Facts:
        """All that there is to know before anybody has looked at the server."""
        node, base = self._context.node(record.node), self._store.server.get(record.node)
        kind = node.kind if node else base.kind if base else Kind.FILE
        known = base.entry() if base else None
        return Facts(
            record=record,
            kind=kind,
            base=known,
            current=None if record.kind is RecordKind.CREATE else known,
            twin=self._twin(record, places),
            parent=self._parent_of(record, places),
            unsupported=self._is_unsupported(record, kind),
        )

    async def with_digest(
        self, facts: Facts, which: Literal["current", "target", "local"]
    ) -> Facts:
        """The facts with one digest more."""
        if which == "local":
            file = self._store.content.fd_path(facts.record.node)
            return replace(facts, local_digest=await self._hash(file, facts.local_size))
        places = self.places(facts.record)
        path = places.path if which == "current" else places.target
        assert path is not None
        digest = await self._context.link.call(lambda remote: remote.digest(path))
        if which == "current":
            return replace(facts, current=digest.entry, current_digest=digest.blake2b)
        return replace(facts, target_current=digest.entry, target_digest=digest.blake2b)

    def where_now(self, record: Record, intent: Intent) -> Intent:
        """The intent of a record with the paths that its directories have by now.

        A directory above may have been renamed since the intent was stored, by a record of
        ours or by somebody else: what the operation left lies in the directory, not at the path.
        """
        places = self.places(record)
        path = self._named_then(record, intent.path, places)
        intent = replace(intent, path=_moved_with_directory(intent.path, path))
        if intent.other_path is None:
            return intent
        return replace(intent, other_path=_moved_with_directory(intent.other_path, places.path))

    def _named_then(self, record: Record, then: bytes, places: Places) -> bytes | None:
        """The path that a name has by now which was at ``then``: a change of a file with several
        may go by another at each try.
        """
        if record.kind not in CHANGING:
            return places.path if places.target is None else places.target
        paths = self._places.all_of(record.node)
        if then in paths:
            return then
        alike = [path for path in paths if _is_called(path, then)]
        return places.path if places.path in alike or not alike else alike[0]

    async def note_displaced(self, record: Record, path: bytes, current: Entry | None) -> None:
        """Without ids, an upload parts a file's other names from it, and gives them another token:
        what it displaces is compared with them by content, which is read while it is there.
        """
        base = self._store.server.get(record.node)
        if base is None or current is None or current.file_id is not None:
            return
        if current.ctime_ns is None or current.token != base.token:
            return  # it stays known by its token, or is another revision
        if len(self._store.server.names(record.node)) < 2 or await self.base_digest(base):
            return
        seen = await self._context.link.call(lambda remote: remote.digest(path))
        if seen.entry.token == base.token:
            now, entry = self._context.now(), base.entry()
            self._store.server.set(record.node, entry, seen_ns=now, digest=seen.blake2b)

    def is_whole(self, node: Node) -> bool:
        """Whether every byte of a file is here."""
        return self._fetcher.is_whole(node)

    async def unknown_names(self, node: NodeId, there: Entry | None) -> int:
        """How many names a file has on the server that are not known here, after looking."""
        known = len(self._store.server.names(node))
        if there is None or there.file_id is None or there.nlink <= known:
            return 0
        return max(0, there.nlink - await self._observer.find_names(node, there.nlink))

    def _local_size(self, node: Node | None) -> int | None:
        """The size, where it may be asked whether the server has the same content.

        What is only partly here, its gaps being holes, is like nothing that the server has.
        """
        if node is None or (node.kind is Kind.FILE and not self._fetcher.is_whole(node)):
            return None
        return node.size

    async def _stat(self, path: bytes | None) -> Entry | None:
        return None if path is None else await self._context.link.find(path)

    async def _stat_both(
        self, path: bytes | None, target: bytes | None
    ) -> tuple[Entry | None, Entry | None]:
        """What stands at either, in the time of one look."""
        if path is None or target is None:
            return await self._stat(path), await self._stat(target)
        current, there = await asyncio.gather(self._stat(path), self._stat(target))
        return current, there

    def _is_elsewhere(self, record: Record, places: Places, current: Entry | None) -> bool:
        """Whether the node may have been renamed on the server: its path shows it no more.

        A file in the place of another file is taken for an editor's save.
        """
        if record.kind in ONE_NAME:
            return False
        if places.path is None:  # another took its name there, which it left for nobody knows where
            return record.kind in MOVING and not self._store.server.names(record.node)
        if current is None:
            return True
        base = self._store.server.get(record.node)
        if base is None or (current.kind is base.kind is Kind.FILE):
            return False
        return not same_object(base.entry(), current)

    async def _look_for(
        self, record: Record, places: Places, current: Entry | None
    ) -> tuple[Places, Entry | None]:
        """The node is not where it was: look for it by its id.

        What stood nowhere is looked at again where it was, too: it may have been on its way from
        one name to another, or be what a late session moved aside, which a listing puts back.
        """
        await self._observer.search(record.node)
        again = self.places(record)
        if again.path is None or (again.path == places.path and current is not None):
            return again, current
        return again, await self._stat(again.path)

    def _parent_of(self, record: Record, places: Places) -> Parent:
        if record.kind not in (*ONE_NAME, *MOVING):
            return Parent.PRESENT
        directory = places.target_directory or record.parent
        if places.target is not None or self._store.server.path(directory) is not None:
            return Parent.PRESENT
        records = self._store.journal.of_node(directory)
        unborn = any(r.kind is RecordKind.CREATE for r in records)
        if not self._store.server.names(directory):  # another took its name: it is found by that
            unborn |= any(_moves(record, directory) for record in records)
        return Parent.UNBORN if unborn else Parent.GONE

    def _twin(self, record: Record, places: Places) -> bytes | None:
        """Another node's name beside the wanted one that the server takes for the same.

        What stands there is then that other node, equal content or not.
        """
        capabilities = self._context.link.capabilities
        if capabilities is None or capabilities.case_sensitive or places.target is None:
            return None
        wanted = places.target.rpartition(b"/")[2]
        beside = self._store.server.children(places.target_directory)
        return next(
            (
                name
                for name, node in beside
                if node != record.node and name != wanted and folded(name) == folded(wanted)
            ),
            None,
        )

    def _is_moved_one(self, record: Record, there: Entry | None) -> bool:
        """Whether what is made here meets a node of ours that got the name there by a rename, and
        another one here. The two would be one on the server, and stay two here.
        """
        if record.kind is not RecordKind.CREATE or there is None or there.file_id is None:
            return False
        known = self._store.server.by_file_id(there.file_id)
        if known is None or (there.kind is not Kind.DIRECTORY and there.nlink > 1):
            return False  # of several names one is no more than a further one
        return any(_moves(record, known) for record in self._store.journal.of_node(known))

    def _is_unsupported(self, record: Record, kind: Kind) -> bool:
        capabilities = self._context.link.capabilities
        if capabilities is None:
            return False
        if record.kind is RecordKind.CREATE and kind is Kind.SYMLINK:
            return not capabilities.symlinks
        if record.kind is RecordKind.CREATE and kind not in (Kind.FILE, Kind.DIRECTORY):
            return not capabilities.special_files
        if record.kind is RecordKind.LINK:
            return not capabilities.hard_links
        return record.kind is RecordKind.SETXATTR and not capabilities.xattrs

    async def _with_xattrs(self, facts: Facts, places: Places) -> Facts:
        """The attributes there now: one that is to go may never have been there."""
        path = places.path
        if facts.record.kind is not RecordKind.SETXATTR or facts.current is None or path is None:
            return facts
        if facts.unsupported:
            return facts
        try:
            there = await self._context.link.call(lambda remote: remote.xattrs(path))
        except NotFound:
            return facts
        name, before = facts.record.xattr_name, self._store.nodes.base_xattrs(facts.record.node)
        base = {name: before[name] or b""} if before.get(name) is not None else {}
        known = base if name in before else None
        return replace(facts, current_xattrs=there, base_xattrs=known)

    async def _with_children(self, facts: Facts, places: Places) -> Facts:
        """How much a directory that is to go holds on the server."""
        record = facts.record
        path: bytes | None = None
        current, there = facts.current, facts.target_current
        if record.kind is RecordKind.REMOVE and facts.kind is Kind.DIRECTORY:
            path = places.path if current and current.kind is Kind.DIRECTORY else None
        elif record.kind is RecordKind.RENAME and record.replaced:
            path = places.target if there and there.kind is Kind.DIRECTORY else None
        if path is None:
            return facts
        listed: Sequence[Entry] = []
        try:
            listed = await self._observer.entries(path)
        except NotFound:
            pass
        return replace(facts, unknown_children=len(listed))

    async def _with_other_names(self, facts: Facts, places: Places) -> Facts:
        """Whether a file that is to lose a name has another one there, after a look at it."""
        current = facts.current
        if facts.record.kind is not RecordKind.REMOVE or current is None or current.nlink < 2:
            return facts
        for name in self._store.server.names(facts.record.node):
            path = self._places.join(*name)
            there = await self._stat(path) if path != places.path else None
            if there is not None and _is_one_file(there, current):
                return replace(facts, other_names=True)
        return facts

    async def _with_moved(self, facts: Facts) -> Facts:
        """Whether the node stands under another name on the server."""
        base, seen = facts.base, self._context.seen_at(facts.record.node)
        if facts.record.kind in ONE_NAME or base is None or base.file_id is None or seen is None:
            return facts
        if len(self._store.server.names(facts.record.node)) > 1:
            return facts  # that was one of its other names
        if facts.current is not None and same_object(base, facts.current):
            return facts
        entry = await self._stat(self._places.join(*seen))
        return replace(facts, moved=entry is not None and entry.file_id == base.file_id)

    async def _with_base_digests(
        self, facts: Facts, base: ServerNode | None, replaced: ServerNode | None
    ) -> Facts:
        """Digests of what we started from, where tokens alone do not settle the matter."""
        here, there = facts.current, facts.target_current
        retried = facts.retried
        if base is not None and (
            _is_unsettled(base, here) or _may_have_moved(base, there, retried=retried)
        ):
            facts = replace(facts, base_digest=await self.base_digest(base))
        if replaced is not None and (
            _is_unsettled(replaced, there) or _may_have_moved(replaced, here, retried=retried)
        ):
            facts = replace(facts, target_base_digest=await self.base_digest(replaced))
        return facts

    async def base_digest(self, base: ServerNode) -> bytes | None:
        """Digest of the base: noted, or of the kept base file, or of clean whole content."""
        if base.digest is not None:
            return base.digest
        content = self._store.content
        path = content.base_path(base.node)
        if path is not None:
            whole = content.base_ranges(base.node) == [Range(0, base.size)]
            token = content.base_token(base.node)
        else:
            path = content.fd_path(base.node)
            whole = content.covers(base.node, 0, base.size)
            whole = whole and not self._store.journal.has_store(base.node)
            token = content.token(base.node)
        return await self._hash(path, base.size) if whole and token == base.token else None

    async def _hash(self, path: str, size: int | None) -> bytes | None:
        try:
            return await digest_soon(path, CHUNK if size is None else size)
        except FileNotFoundError:
            return None


def _is_unsettled(base: ServerNode, current: Entry | None) -> bool:
    """Whether the server's revision may or may not be the base, as far as tokens tell."""
    if current is None or current.kind is not Kind.FILE or base.kind is not Kind.FILE:
        return False
    if current.size != base.size or current.size == 0:
        return False
    return current.token != base.token or current.weak or base.weak


def _may_have_moved(base: ServerNode, elsewhere: Entry | None, *, retried: bool) -> bool:
    """Whether what has another name may be the base's file, and its content would tell."""
    return may_be_another(base.entry(), elsewhere, retried=retried)


def _moves(record: Record, node: NodeId) -> bool:
    """Whether a record is a rename or exchange of a node, not over it."""
    return record.kind is RecordKind.EXCHANGE or (
        record.kind is RecordKind.RENAME and record.node == node
    )


def _is_one_file(one: Entry, other: Entry) -> bool:
    """Whether two names show one object; without ids that cannot be known."""
    return one.file_id is not None and one.file_id == other.file_id


def _is_inside(places: Places) -> bool:
    """Whether a name that is wanted is inside of what is to have it."""
    if places.path is None or places.target is None:
        return False
    return places.target.startswith(places.path + b"/")


def _has_arrived(
    record: Record, places: Places, base: ServerNode | None, there: Entry | None
) -> bool:
    """Whether what is to be renamed is known, and stands, under its new name, and no other."""
    if record.kind is not RecordKind.RENAME or places.path != places.target:
        return False
    return base is not None and there is not None and proved_same(base.entry(), there)


def _moved_with_directory(then: bytes, now: bytes | None) -> bytes:
    """``now``, unless it is another name: what was left then lies beside the old one."""
    return now if now is not None and _is_called(now, then) else then


def _is_called(path: bytes, other: bytes) -> bool:
    """Whether two paths have the same last name."""
    return path.rpartition(b"/")[2] == other.rpartition(b"/")[2]

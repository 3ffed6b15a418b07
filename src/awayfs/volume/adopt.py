"""Taking over what the server shows, for nodes without unsent changes of that aspect.

Each aspect of a node is adopted apart: its name unless a record here touches names, its
content unless a store waits, each attribute unless it was set here. What is dirty is left to
replay, and the base of what is left stays as it was, so that replay can tell that the server
moved on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterator, Sequence

from msgspec.structs import replace

from awayfs.core import diff
from awayfs.core.diff import Content
from awayfs.core.records import (
    RecordKind,
    RecordState,
    fields_set,
    takes_away,
)
from awayfs.core.types import ROOT, Entry, Kind, NodeId
from awayfs.store.server import Seen, ServerNode
from awayfs.volume.adopted_attributes import AdoptedAttributes
from awayfs.volume.context import Context
from awayfs.volume.opened import OpenNode
from awayfs.volume.removing import Remover
from awayfs.volume.superseded import Superseded

log = logging.getLogger(__name__)

TAKING_NAMES = (
    RecordKind.CREATE,
    RecordKind.LINK,
    RecordKind.REMOVE,
    RecordKind.RENAME,
    RecordKind.EXCHANGE,
)
SUSPECT = b"?"
"""The token of content that must be compared with the server's before it is trusted."""
OWN = b"user.awayfs."
"""Attributes whose names begin so are ours, and no file's."""


class Adopter:
    """Applies changes found by ``diff_listing`` to the local tree and the server view.

    What ``outdated`` has is known in a newer state than the changes tell, and left alone.
    ``unchanged`` gets the nodes that were seen as they were; without it that is noted at once.
    """

    def __init__(
        self,
        context: Context,
        outdated: Container[Seen] = (),
        unchanged: list[NodeId] | None = None,
    ) -> None:
        self._outdated = outdated
        self._unchanged = unchanged
        self._context = context
        self._store = context.store
        self._nodes = context.store.nodes
        self._server = context.store.server
        self._journal = context.store.journal
        self._superseded = Superseded(context)
        self._remover = Remover(context)
        self._attributes = AdoptedAttributes(context)

    def adopt(
        self, directory: NodeId, changes: Sequence[diff.Change], listed_ns: int | None = None
    ) -> None:
        """Adopt what happened in one directory, all together."""
        with self._store.transaction():
            for _ in self.steps(directory, changes):
                pass
            if listed_ns is not None:
                self._server.set_listed(directory, listed_ns)

    def steps(self, directory: NodeId, changes: Sequence[diff.Change]) -> Iterator[None]:
        """Adopt what happened in one directory; there may be a pause after each step."""
        moved = [c for c in changes if isinstance(c, diff.Moved)]
        self._move_names(directory, [m for m in moved if not self._has_moved_since(directory, m)])
        yield
        for change in changes:
            yield from self._adopt_change(directory, change)
            yield

    def unchanged(self, directory: NodeId) -> None:
        """Nothing happened in a directory but, perhaps, to the times of those in it."""
        for node in self._server.directories_of_other_times(directory):
            base = self._server.get(node)
            if base is not None:
                self._attributes.directory_time(node, base.entry())

    def adopt_root(self, entry: Entry) -> None:
        """The root's own attributes."""
        with self._store.transaction():
            known = self._server.get(ROOT)
            self._server.set(ROOT, entry, seen_ns=self._context.now())
            if known is None or not self._journal.has_any(ROOT):
                self._attributes.show(ROOT, entry, frozenset())

    def is_link_to_another(self, node: NodeId, entry: Entry) -> bool:
        """Whether what stands in a node's place is one more name of another file that we know."""
        if entry.file_id is None or entry.nlink < 2 or entry.kind is Kind.DIRECTORY:
            return False
        return self._server.by_file_id(entry.file_id) not in (None, node)

    def part(self, directory: NodeId, entry: Entry, node: NodeId) -> None:
        """A name is another file's by now: that of a known one, or of one that becomes known."""
        with self._store.transaction():
            if self._server.child(directory, entry.name) == node:
                self._server.remove_name(directory, entry.name)
            if self._nodes.child_id(directory, entry.name) == node:
                self._nodes.remove_name(directory, entry.name)
            self._created(directory, entry)
            self._context.kernel.forget_entry(directory, entry.name)
            self._context.kernel.forget_node(node)

    def adopt_revision(
        self, node: NodeId, entry: Entry, content: Content | None, *, merged: bool = False
    ) -> None:
        """A node's new attributes and, where it changed, content.

        ``merged``: a change of ours to the same node has just been sent, or given up for it.
        """
        with self._store.transaction():
            self._updated(node, entry, content, merged)

    def drop_content(self, node: NodeId, size: int, token: bytes) -> None:
        """Cached content is not the server's any more: forget it, and what the kernel kept.

        A file that somebody has open keeps its cache file (descriptors refer to it), emptied
        of what is known; one that the kernel reads by itself keeps its content until closed.
        So does one with pages that were written to, until these are here: of this content, and
        not of the server's.
        """
        opened = self._context.opened.get(node)
        content = self._store.content
        with self._store.transaction():
            if opened is not None and opened.passthrough:
                opened.outdated = True
                return
            if opened is not None and self._are_pages_first(opened):
                return
            self._nodes.update(node, size=size)
            if opened is None:
                content.drop(node)
            else:
                content.drop_ranges(node)
                content.set_token(node, token)
                self._context.held.about_to_change(node)
                self._store.db.on_commit(lambda: _empty(opened, size))
        self._context.on_content_gone(node)
        self._context.kernel.forget_node(node)

    def _are_pages_first(self, opened: OpenNode) -> bool:
        """Whether an open content goes only once the kernel has no more of it.

        What programs wrote to it is an edit of it, which replay will find to be in conflict.
        """

        def drop() -> None:
            base, node = self._server.get(opened.node), opened.node
            if opened.outdated and base is not None and not self._journal.has_store(node):
                self.drop_content(node, base.size, base.token)
            opened.outdated = False

        wait = self._context.pages.first(opened, drop)
        opened.outdated = opened.outdated or wait
        return wait

    def _adopt_change(self, directory: NodeId, change: diff.Change) -> Iterator[None]:
        match change:
            case diff.Unchanged(node, entry):
                self._server.seen(directory, entry.name)
                if self._unchanged is None:
                    self._server.touch(node, self._context.now())
                else:
                    self._unchanged.append(node)
                if entry.kind is Kind.DIRECTORY:
                    self._attributes.directory_time(node, entry)
            case diff.Updated(node, entry, content):
                self._server.seen(directory, entry.name)
                self._updated(node, entry, content)
            case diff.Created(entry):
                self._created(directory, entry)
            case diff.Removed(node, name):
                if not self._is_name_outdated(directory, name, node):
                    yield from self._remover.steps(directory, name, node)
            case diff.Moved():
                pass  # done by _move_names
            case diff.MovedIn(_, entry) | diff.Linked(_, entry) if self._is_outdated(
                directory, entry.name
            ):
                pass
            case diff.MovedIn(node, entry) | diff.Linked(node, entry) if not self._server.get(node):
                self._created(directory, entry)  # removed where it was, a moment ago
            case diff.MovedIn(node, entry):
                self._moved_in(directory, node, entry)
            case diff.Linked(node, entry):
                self._linked(directory, node, entry)
            case diff.Joined(old_node, node, entry):
                yield from self._join(directory, old_node, node, entry)
            case diff.Replaced(name, old_node, entry):
                if not self._is_name_outdated(directory, name, old_node):
                    yield from self._remover.steps(directory, name, old_node)
                    self._created(directory, entry)

    def _join(self, directory: NodeId, old: NodeId, node: NodeId, entry: Entry) -> Iterator[None]:
        """A name goes from one node of a file to the other; while that one is used it stays."""
        used = self._context.opened.get(old) is not None or self._remover.is_dirty_below(old)
        if used or self._is_being_replaced(node):
            base = self._server.get(old)
            content = diff.compare_entries(base.entry(), entry) if base else None
            change = diff.Updated(old, entry, content) if content else diff.Unchanged(old, entry)
            yield from self._adopt_change(directory, change)
        elif not self._is_name_outdated(directory, entry.name, old):
            self._store.pins.join(node, old)
            self._store.node_settings.join(node, old)
            yield from self._remover.steps(directory, entry.name, old)
            self._linked(directory, node, entry)

    def _has_moved_since(self, directory: NodeId, move: diff.Moved) -> bool:
        names = (move.old_name, move.entry.name)
        return any(self._is_outdated(directory, name) for name in names)

    def _is_outdated(self, directory: NodeId, name: bytes) -> bool:
        return (directory, name) in self._outdated

    def _is_name_outdated(self, directory: NodeId, name: bytes, node: NodeId) -> bool:
        """Whether more is known of a name: of a file with several, of this one."""
        if len(self._server.names(node)) < 2 and node in self._outdated:
            return True
        return self._is_outdated(directory, name)

    def _created(self, directory: NodeId, entry: Entry) -> None:
        """A new object, or one more name of a known one.

        Under a name taken here it is left for replay to meet.
        """
        if self._is_outdated(directory, entry.name):
            return
        if self._nodes.child_id(directory, entry.name) is not None:
            return
        if self._server.child(directory, entry.name) is not None:
            return  # removed or renamed here, not yet there
        if self._journal.uses_name(directory, entry.name):
            return  # perhaps ours, by an operation that is under way
        if entry.nlink > 1 and entry.file_id is not None and entry.kind is not Kind.DIRECTORY:
            known = self._server.by_file_id(entry.file_id)
            if known is not None and not self._is_being_replaced(known):
                self._linked(directory, known, entry)
                return
        uid, gid = self._context.local_owner(entry)
        node = self._nodes.add(
            entry.kind,
            entry.mode,
            uid,
            gid,
            rdev=entry.rdev,
            size=entry.size,
            atime_ns=entry.mtime_ns,
            mtime_ns=entry.mtime_ns,
            ctime_ns=entry.ctime_ns if entry.ctime_ns is not None else entry.mtime_ns,
            btime_ns=entry.btime_ns if entry.btime_ns is not None else entry.mtime_ns,
            target=entry.target,
        )
        self._nodes.add_name(directory, entry.name, node.id)
        self._server.set(node.id, entry, seen_ns=self._context.now())
        self._server.add_name(directory, entry.name, node.id)
        self._context.kernel.forget_entry(directory, entry.name)

    def _updated(
        self, node: NodeId, entry: Entry, content: Content | None, merged: bool = False
    ) -> None:
        if node in self._outdated:
            return
        records = self._journal.of_node(node)
        if any(r.state is RecordState.FROZEN for r in records) or self._journal.has_store(node):
            return
        if content in (Content.CHANGED, Content.SUSPECT) and takes_away(records, node):
            return  # a removal goes out over the revision that was removed, and no other
        if content is Content.CHANGED and entry.kind is Kind.FILE and (merged or records):
            self._superseded.by_server(node)
        base = self._server.get(node)
        dirty = fields_set(records)
        adopted = entry
        if base is not None and dirty:
            adopted = replace(entry, **{f: getattr(base, f) for f in dirty if f != "atime_ns"})
        self._server.set(node, adopted, seen_ns=self._context.now())
        self._attributes.show(node, entry, dirty, content)
        if entry.kind is Kind.FILE:
            self._adopt_content(node, base, entry, content)
        elif entry.kind is Kind.DIRECTORY and content is Content.CHANGED:
            self._outdate_listing(node)
        self._context.kernel.forget_node(node)

    def _outdate_listing(self, node: NodeId) -> None:
        if self._server.listed_ns(node) is not None:
            self._server.set_listed(node, 0)

    def _adopt_content(
        self, node: NodeId, base: ServerNode | None, entry: Entry, content: Content | None
    ) -> None:
        cached = self._store.content
        if content is Content.CHANGED:
            self.drop_content(node, entry.size, entry.token)
        elif content is Content.SUSPECT:
            if cached.ranges(node):
                cached.set_token(node, SUSPECT)
                self._context.on_content_gone(node)
        elif base is not None and cached.token(node) == base.token:
            cached.set_token(node, entry.token)

    def _move_names(self, directory: NodeId, moves: list[diff.Moved]) -> None:
        """Renames within one directory, all old names going before new ones come (swaps)."""
        movable = [
            move
            for move in moves
            if not self.is_name_dirty(move.node, (directory, move.old_name))
            and self._nodes.child_id(directory, move.old_name) == move.node
        ]
        while taken := [m for m in movable if self._taken(directory, m.entry.name, movable)]:
            movable = [move for move in movable if move not in taken]  # and so on, in a ring
        for move in moves:
            if move not in movable:
                self._context.seen_elsewhere[move.node] = (directory, move.entry.name)
                self._remover.remove(directory, move.old_name, move.node)
        moves = movable
        for move in moves:
            self._nodes.remove_name(directory, move.old_name)
            self._server.remove_name(directory, move.old_name)
            self._context.kernel.forget_entry(directory, move.old_name)
        for move in moves:
            self._make_room(directory, move.entry.name)
            self._nodes.add_name(directory, move.entry.name, move.node)
            self._server.add_name(directory, move.entry.name, move.node)
            self._context.kernel.forget_entry(directory, move.entry.name)
            self._moved(move.node)
            self._updated(move.node, move.entry, move.content)

    def _moved(self, node: NodeId) -> None:
        """The server gave a node another name; an edit of ours will go out under that."""
        if self._journal.has_store(node):
            self._superseded.by_us(node)

    def _taken(self, directory: NodeId, name: bytes, moves: list[diff.Moved]) -> bool:
        """Whether a name is held here by something that is not itself moving or clean."""
        holder = self._nodes.child_id(directory, name)
        if holder is None:  # what was removed or renamed here has it yet, as far as is known
            return self._server.child(directory, name) is not None
        if any(m.node == holder and m.old_name == name for m in moves):
            return False
        return self._remover.is_dirty_below(holder) or self._server.child(directory, name) != holder

    def _make_room(self, directory: NodeId, name: bytes) -> None:
        """What the server renamed over is gone there; it is clean, so it goes here too."""
        holder = self._nodes.child_id(directory, name)
        if holder is not None:
            self._remover.remove(directory, name, holder)

    def _moved_in(self, directory: NodeId, node: NodeId, entry: Entry) -> None:
        if self._is_being_replaced(node):
            self._created(directory, entry)
            return
        names = self._server.names(node)
        if not names:
            if not self._nodes.names(node) and not self._journal.has_any(node):
                self._server.forget(node)  # left over of one that was given up
                self._created(directory, entry)
            else:
                self._context.seen_elsewhere[node] = (directory, entry.name)
            return
        clean = [name for name in names if not self.is_name_dirty(node, name)]
        old_parent, old_name = clean[0] if clean else names[0]
        stayed = self._nodes.child_id(directory, entry.name) == node  # until this made way for it
        if clean and stayed and self._server.child(directory, entry.name) is None:
            self._server.move_name(old_parent, old_name, directory, entry.name)
            self._updated_from(node, entry)
            return
        if (
            not clean
            or self._nodes.child_id(old_parent, old_name) != node
            or self._taken(directory, entry.name, [])
            or self._nodes.is_ancestor(node, directory)
            or self._would_vanish(directory, node)
        ):
            self._context.seen_elsewhere[node] = (directory, entry.name)
            return
        self._make_room(directory, entry.name)
        self._nodes.move_name(old_parent, old_name, directory, entry.name)
        self._server.move_name(old_parent, old_name, directory, entry.name)
        self._context.kernel.forget_entry(old_parent, old_name)
        self._context.kernel.forget_entry(directory, entry.name)
        self._moved(node)
        self._updated_from(node, entry)
        self._remover.let_go_above(old_parent)

    def _updated_from(self, node: NodeId, entry: Entry) -> None:
        base = self._server.get(node)
        content = diff.compare_entries(base.entry(), entry) if base else Content.CHANGED
        self._updated(node, entry, content)

    def _would_vanish(self, directory: NodeId, node: NodeId) -> bool:
        """Whether what is worked on would go into a directory that was removed here.

        That may come back yet, and where what was in it stands by now: inside this very node.
        """
        return self._nodes.path(directory) is None and self._remover.is_dirty_below(node)

    def _linked(self, directory: NodeId, node: NodeId, entry: Entry) -> None:
        if self._is_being_replaced(node):
            self._created(directory, entry)
            return
        if self._nodes.get(node) is None or self._taken(directory, entry.name, []):
            return
        if self._nodes.child_id(directory, entry.name) is not None:
            return
        if self._journal.uses_name(directory, entry.name):
            return
        self._forget_stray_names(node)
        self._nodes.add_name(directory, entry.name, node)
        self._server.add_name(directory, entry.name, node)
        self._context.kernel.forget_entry(directory, entry.name)
        base = self._server.get(node)
        if base is not None:
            self._updated(node, entry, diff.compare_entries(base.entry(), entry))

    def _forget_stray_names(self, node: NodeId) -> None:
        """Names in a directory that is nowhere any more: nobody can look whether they are there."""
        for parent, name in self._server.names(node):
            if self._server.path(parent) is None and not self.is_name_dirty(node, (parent, name)):
                self._server.remove_name(parent, name)
                if self._nodes.child_id(parent, name) == node and self._nodes.path(parent) is None:
                    self._nodes.remove_name(parent, name)
                    self._remover.let_go_above(parent)

    def _is_being_replaced(self, node: NodeId) -> bool:
        """Whether an upload is putting a new object in the place of the one we know.

        The old one, seen under another name (a hard link that we did not know of), is no
        longer this node: it has neither moved nor is it one more name of it. Once the server has
        refused to replace anything, it is.
        """
        records = self._journal.of_node(node) if self._journal.has_store(node) else []
        refused = self._store.intents.is_refused
        stores = [r for r in records if r.kind is RecordKind.STORE]
        return any(r.state is RecordState.FROZEN and not refused(r.seq) for r in stores)

    def is_name_dirty(self, node: NodeId, place: tuple[NodeId, bytes]) -> bool:
        """Whether an unsent record is about a node's name; of several names, about this one."""
        records = [r for r in self._journal.of_node(node) if r.kind in TAKING_NAMES]
        if len(self._server.names(node)) < 2:
            return bool(records)
        return any(place in ((r.parent, r.name), (r.to_parent, r.to_name)) for r in records)


def _empty(opened: OpenNode, size: int) -> None:
    """The open file follows what was committed: nothing of it is known any more."""
    try:
        os.ftruncate(opened.fd, size)
    except OSError as error:
        log.warning("the cache file of node %d keeps its old length: %s", opened.node, error)
    opened.size = size
    opened.whole = size == 0
    opened.unsaved = False
    opened.drops += 1

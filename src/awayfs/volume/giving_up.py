"""Giving up what was changed here, because the server's version was chosen.

Only what the decision is about goes: who takes the server's rights of a directory, or of a file,
has said nothing of the edits in it. Records and what they did to the local tree go together, in
one transaction, so that no content of ours is left behind that passes for the server's.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator

from msgspec.structs import replace

from awayfs.core.diff import compare_entries
from awayfs.core.earlier_names import name_after, without
from awayfs.core.errors import UsageError
from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.nodes import Node
from awayfs.volume import known_xattrs
from awayfs.volume.adopt import Adopter
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context

NAMING = (RecordKind.EXCHANGE, RecordKind.RENAME, RecordKind.LINK, RecordKind.REMOVE)
ATTRIBUTES = (RecordKind.SETATTR, RecordKind.SETXATTR)


class GivingUp:
    """Drops local changes. Nothing here waits: what the server has is known by then."""

    def __init__(self, context: Context, changes: Changes) -> None:
        self._context = context
        self._store = context.store
        self._changes = changes
        self._adopter = Adopter(context)

    def changes(self, node: NodeId, *, below: bool) -> None:
        """Every record of a node goes; with ``below`` those of all that is inside it, too.

        An exchange of names is not the node's alone. It stays with the node, and what was made
        of its names since; of one with a node that goes, the other's renaming is left. A further
        name that it was given stays with it likewise.
        """
        journal = self._store.journal
        within = self._directories(node) if below else set()
        inside = [child for child in self.below(node) if journal.has_any(child)] if below else []
        going = [child for child in inside if not self._elsewhere(child, within)]
        with self._store.transaction():
            for staying in set(inside).difference(going):
                self._unlink_inside(staying, within)
            for dropped in (node, *going):
                records = journal.of_node(dropped)
                exchanges = [r for r in records if r.kind is RecordKind.EXCHANGE]
                named = exchanges or any(r.kind is RecordKind.LINK for r in records)
                kept = NAMING if named and not below else (RecordKind.EXCHANGE,)
                own = [r for r in records if r.node == dropped and r.kind not in kept]
                journal.remove([r.seq for r in own])
                for exchange in exchanges if below else ():
                    journal.replace(without(exchange, dropped))
                self._store.content.drop_base(dropped)
                if dropped != node:
                    self._conflicts(dropped)

    def _conflicts(self, node: NodeId) -> None:
        """What is left of the records that they were about goes out: nobody is asked any more."""
        journal = self._store.journal
        for conflict in self._store.conflicts.of_node(node):
            self._store.conflicts.remove(conflict.id)
            for left in journal.there(conflict.record_seqs):
                journal.set_state(left.seq, RecordState.PENDING)

    def node(self, node: NodeId) -> None:
        """The node goes here, with all below it; open files live on until closed.

        What the server has of it, or gets again, is taken for new. A file inside that has names
        elsewhere, too, stays under those.
        """
        going = [*reversed(list(self.below(node))), node]
        within = self._directories(node)
        with self._store.transaction():
            for one in going:
                self._names(one, None if one == node else within)
                if one == node or not self._store.nodes.names(one):
                    self._store.server.forget(one)
                else:
                    self._forget_inside(one, within)
            for one in going:
                self._changes.discard_if_unused(one)

    def name(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        """One name of a node goes, if it still is the node's."""
        if self._store.nodes.child_id(parent, name) == node:
            self._store.nodes.remove_name(parent, name)
            self._context.kernel.forget_entry(parent, name)

    def save(self, node: NodeId, place: Slot) -> None:
        """What an editor wrote to, and the server has under that name already, goes there, too."""
        with self._store.transaction():
            self.changes(node, below=False)
            self._changes.unlink(*place)

    def link(self, record: Record) -> None:
        """One more name that was given here, wherever it was moved since; the node stays."""
        place: tuple[NodeId, bytes] | None = (record.parent, record.name)
        dropped = [record.seq]
        for later in self._store.journal.of_node(record.node):
            if later.seq < record.seq or later.node != record.node:
                continue
            if place is None or (later.parent, later.name) != place:
                continue
            if later.kind in (RecordKind.RENAME, RecordKind.REMOVE):
                moved = later.kind is RecordKind.RENAME
                place = (later.to_parent, later.to_name) if moved else None
                dropped.append(later.seq)
        with self._store.transaction():
            self._store.journal.remove(dropped)
            if place is not None:
                self.name(*place, record.node)

    def attributes(self, record: Record, entry: Entry | None) -> None:
        """Attributes that were set here; an edit of the content still goes out.

        Without an ``entry`` the server has the object no more: that is met like any removal.
        """
        node, journal = record.node, self._store.journal
        base = self._store.server.get(node)
        with self._store.transaction():
            journal.remove([r.seq for r in journal.of_node(node) if r.kind in ATTRIBUTES])
            if entry is None:
                return
            uid, gid = self._context.local_owner(entry)
            self._store.nodes.update(node, mode=entry.mode, uid=uid, gid=gid)
            if record.kind is RecordKind.SETXATTR:
                self._store.nodes.set_xattr(node, record.xattr_name, None)
                known_xattrs.doubt(self._store, node)
            if base is None:
                return
            if journal.has_store(node):  # what it is based on stays
                owned = replace(base.entry(), mode=entry.mode, uid=entry.uid, gid=entry.gid)
                self._store.server.set(node, owned, seen_ns=0, digest=base.digest)
            else:
                difference = compare_entries(base.entry(), entry)
                self._adopter.adopt_revision(node, entry, difference)

    def _names(self, node: NodeId, within: Container[NodeId] | None) -> None:
        for parent, name in self._store.nodes.names(node):
            if within is None or parent in within:
                self.name(parent, name, node)

    def _forget_inside(self, node: NodeId, within: Container[NodeId]) -> None:
        for parent, name in self._store.server.names(node):
            if parent in within:
                self._store.server.remove_name(parent, name)

    def _directories(self, node: NodeId) -> set[NodeId]:
        """A directory, with all that are below it."""
        nodes = self._store.nodes
        found = {one for one in self.below(node) if _is_directory(nodes.get(one))}
        return found | {node}

    def _elsewhere(self, node: NodeId, within: Container[NodeId]) -> list[tuple[NodeId, bytes]]:
        """The names of a node that are in none of these directories."""
        return [name for name in self._store.nodes.names(node) if name[0] not in within]

    def _unlink_inside(self, node: NodeId, within: Container[NodeId]) -> None:
        """The names that a file was given in these directories go; it has others.

        Raises ``UsageError`` where they are not what was added.
        """
        for record in self._store.journal.of_node(node):
            place = name_after(node, (record.parent, record.name), self._since(record))
            if record.kind is RecordKind.LINK and place is not None and place[0] in within:
                self.link(record)
        path = self._store.nodes.path
        left = [name for name in self._store.nodes.names(node) if name[0] in within]
        known = self._store.server.names(node)
        for parent, name in left:
            if (parent, name) in known:
                continue  # gone, or another's, on the server; nothing of ours
            ours = os.fsdecode((path(parent) or b"") + b"/" + name)
            other_parent, other = self._elsewhere(node, within)[0]
            others = os.fsdecode(os.path.join(path(other_parent) or b"", other))
            raise UsageError(
                f"{others} is one more name of {ours}, and would be lost with it;"
                " remove one of the two first"
            )

    def _since(self, record: Record) -> list[Record]:
        return [r for r in self._store.journal.of_node(record.node) if r.seq > record.seq]

    def below(self, node: NodeId) -> Iterator[NodeId]:
        """All that is inside a node here, directories before what is in them.

        Each directory once: one that came back may stand inside itself, until what the server
        refused to move into it goes home.
        """
        pending, seen = [node], {node}
        while pending:
            for _, child in self._store.nodes.children(pending.pop()):
                if child.id in seen:
                    continue
                yield child.id
                if child.kind is Kind.DIRECTORY:
                    seen.add(child.id)
                    pending.append(child.id)


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.kind is Kind.DIRECTORY

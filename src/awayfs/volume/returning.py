"""Giving a node a name again that was taken away here: a removal, or a rename over it, goes back.

Who had it open may have written to it meanwhile. That was never to be sent, so it must not pass
for what the server has: the base shows again, as far as it is here.

Whatever decisions, deaths and others' changes a name went through: where no record is left that
says otherwise, it is as on the server from the next listing on (``as_there``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from awayfs.core.diff import Created
from awayfs.core.records import fields_set, takes_name
from awayfs.core.types import Kind, NodeId
from awayfs.volume import known_xattrs
from awayfs.volume.adopt import Adopter
from awayfs.volume.context import Context
from awayfs.volume.removing import Remover


class Returning:
    """Brings names back. Needs a transaction around it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._adopter = Adopter(context)
        self._remover = Remover(context)

    def name(self, parent: NodeId, name: bytes, node: NodeId) -> None:
        """The name is the node's again, if it is free, and leads to it (``leads_nowhere``).

        A directory has one name: it loses the one that no record is about, and keeps any other.
        """
        nodes = self._store.nodes
        free = nodes.child_id(parent, name) is None and nodes.get(parent) is not None
        found = nodes.get(node) if free else None
        if found is None or self.leads_nowhere(node, parent):
            return
        if found.kind is Kind.DIRECTORY and (names := nodes.names(node)):
            if self._adopter.is_name_dirty(node, names[0]):
                return
            nodes.remove_name(*names[0])
            self._context.kernel.forget_entry(*names[0])
        nodes.add_name(parent, name, node)
        self._context.kernel.forget_entry(parent, name)
        self.content(node)
        self.attributes(node)

    def leads_nowhere(self, node: NodeId, parent: NodeId, coming: Collection[NodeId] = ()) -> bool:
        """Whether a name in a directory would take a node out of everybody's sight: inside itself,
        by what was moved here, or, while it has a name, in a directory that was removed here.

        It stays where it is then. Once the directory is back, or a decision about the move has made
        way, it goes there (``as_there``). What is ``coming`` back takes the place that the node
        leaves, so it counts as back: each would wait for the other.
        """
        nodes = self._store.nodes
        if nodes.is_ancestor(node, parent):
            return True
        if not nodes.names(node) or nodes.path(parent) is not None:
            return False
        return nodes.above(parent)[-1] not in coming

    def again(self, parent: NodeId, name: bytes) -> None:
        """A name was freed here: what the server has under it is shown, if it is known.

        What was taken away from the name here, and still waits to be sent, stays away.
        """
        node = self._store.server.child(parent, name)
        if node is None or self._store.nodes.get(node) is None:
            return
        if any(takes_name(r, node, (parent, name)) for r in self._store.journal.of_node(node)):
            return
        self.name(parent, name, node)

    def as_there(self, directory: NodeId, left: set[NodeId]) -> Iterator[None]:
        """What a directory has on the server and nothing takes away is shown; see above.

        A name that the server does not have goes where it shows the file under another, or what
        came from it and was not changed here is nowhere any more. There may be a pause after each
        step. ``left`` gets what could not be yet, though no record speaks of the name: the next
        listing has to look again.
        """
        server, nodes = self._store.server, self._store.nodes
        for page in server.not_here(directory):
            for name, node in page:
                if not self._adopter.is_name_dirty(node, (directory, name)):
                    yield from self._make_way(directory, name)
                    self._show(directory, name, node)
                    shown = nodes.child_id(directory, name)
                    if shown != node and (shown is None or server.get(shown) is not None):
                        left.add(node)
                yield
            yield
        for page in server.only_here(directory):
            for name, node in page:
                if not self._adopter.is_name_dirty(node, (directory, name)):
                    yield from self._drop(directory, name, node)
                    if nodes.child_id(directory, name) == node:
                        left.add(node)
                yield
            yield

    def _make_way(self, directory: NodeId, name: bytes) -> Iterator[None]:
        """What has the name here goes to the one that the server has it under."""
        other = self._store.nodes.child_id(directory, name)
        if other is None or self._store.server.get(other) is None:
            return
        if not self._adopter.is_name_dirty(other, (directory, name)):
            yield from self._drop(directory, name, other)

    def _show(self, directory: NodeId, name: bytes, node: NodeId) -> None:
        base = self._store.server.get(node)
        if self._store.nodes.get(node) is not None or base is None:
            self.name(directory, name, node)
            return
        self._store.server.purge(node)
        self._adopter.adopt(directory, [Created(base.entry(name))])

    def _drop(self, directory: NodeId, name: bytes, node: NodeId) -> Iterator[None]:
        nodes, there = self._store.nodes, self._store.server.names(node)
        if not there:
            yield from self._remover.steps(directory, name, node)
        for place in there:
            self.name(*place, node)
        here = nodes.child_id(directory, name) == node  # a directory has moved already
        if here and any(nodes.child_id(*place) == node for place in there):
            nodes.remove_name(directory, name)
            self._context.kernel.forget_entry(directory, name)
            self._context.kernel.forget_node(node)

    def attributes(self, node: NodeId) -> None:
        """What was set before is not sent any more, since the node was to go: the base's shows."""
        store = self._store
        base = store.server.get(node)
        if base is None:
            return
        dirty = fields_set(store.journal.of_node(node))
        uid, gid = self._context.local_owner(base.entry())
        values = {"mode": base.mode, "uid": uid, "gid": gid}
        if base.kind is Kind.FILE and not store.journal.has_store(node):
            values["mtime_ns"] = base.mtime_ns
        store.nodes.update(node, **{k: value for k, value in values.items() if k not in dirty})
        known_xattrs.doubt(store, node)
        self._context.kernel.forget_node(node)

    def content(self, node: NodeId) -> None:
        """What was written without a name goes (``Journaling.nameless``)."""
        store, content = self._store, self._store.content
        base = store.server.get(node)
        if base is None or base.kind is not Kind.FILE or store.journal.has_store(node):
            return
        if not content.has(node) or content.token(node) is not None:
            return
        opened = self._context.opened.get(node)
        if opened is None and content.base_token(node) == base.token:
            content.restore_base(node, node)
        else:
            content.drop_base(node)
            self._adopter.drop_content(node, base.size, base.token)
        store.nodes.update(node, size=base.size, mtime_ns=base.mtime_ns)
        if opened is not None:
            opened.mtime_ns = base.mtime_ns

"""Taking away here what is gone on the server, with all that was in it.

What carries unsent changes, or a conflict that waits for a decision, stays, and so does what
leads to it. A file that programs may have written to through a mapping stays until that is known.
A large tree goes name by name, from its leaves up, so that there may be a pause after each; what is
changed here meanwhile stays like what was changed before.
"""

from __future__ import annotations

from collections.abc import Iterator

from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.volume.context import Context


class Remover:
    """Removes names and nodes; needs a transaction around it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._nodes = context.store.nodes
        self._server = context.store.server
        self._journal = context.store.journal

    def remove(self, directory: NodeId, name: bytes, node: NodeId) -> None:
        """All steps at once."""
        for _ in self.steps(directory, name, node):
            pass

    def steps(self, directory: NodeId, name: bytes, node: NodeId) -> Iterator[None]:
        """A name is gone on the server; kept here while it carries unsent changes."""
        if self.is_dirty_below(node) or self._are_pages_first(directory, name, node):
            return
        if self._nodes.child_id(directory, name) == node or not self._nodes.names(node):
            yield from self._empty(node)
            if not self._may_go(node):
                return
        if self._server.child(directory, name) == node:  # or it is another's by now
            self._server.remove_name(directory, name)
        if self._nodes.child_id(directory, name) == node:
            self._take_name(directory, name, node)
            self._context.kernel.forget_entry(directory, name)
        if not self._server.names(node) and not self._nodes.names(node):
            self._forget(node)

    def let_go(self, node: NodeId) -> None:
        """What has no name on either side any more ceases to exist, with what is known of its
        inside, and was not changed here."""
        for _ in self._empty(node):
            pass
        if self._nodes.names(node) or not self._may_go(node):
            self._server.forget(node)
        else:
            self._forget(node)

    def let_go_above(self, node: NodeId) -> None:
        """A directory without a name on either side, which stayed for what was in it alone, goes
        once nothing in it is changed here or waits for a decision; so does all that leads there
        from a node.
        """
        top = self._nodes.above(node)[-1]
        found = self._nodes.get(top) if top != ROOT else None
        if found is None or found.kind is not Kind.DIRECTORY:
            return
        if not self._server.names(top) and not self.is_dirty_below(top):
            with self._store.transaction():
                self.let_go(top)

    def _empty(self, directory: NodeId) -> Iterator[None]:
        for name, child in self._nodes.children(directory):
            if child.kind is Kind.DIRECTORY:
                yield from self._empty(child.id)
            if self._are_pages_first(directory, name, child.id):
                pass
            elif self._nodes.child_id(directory, name) == child.id and self._may_go(child.id):
                if self._server.child(directory, name) is not None:
                    self._server.remove_name(directory, name)
                self._take_name(directory, name, child.id)
                if not self._nodes.names(child.id) and not self._server.names(child.id):
                    self._forget(child.id)
            yield

    def _take_name(self, directory: NodeId, name: bytes, node: NodeId) -> None:
        """Who has the file open did not take its last name, and must not write to it unawares."""
        self._nodes.remove_name(directory, name)
        opened = self._context.opened.get(node)
        if opened is not None and not self._nodes.names(node):
            opened.gone = True

    def _may_go(self, node: NodeId) -> bool:
        return not (self._is_dirty(node) or self._nodes.has_children(node))

    def _are_pages_first(self, directory: NodeId, name: bytes, node: NodeId) -> bool:
        """Whether a name goes only once it is known what was written to the kernel's pages.

        Unless the server was seen to have it again meanwhile. What leads to it goes when it is
        found to be gone the next time.
        """
        seen, there = self._server.get(node), self._server.names(node)

        def remove() -> None:
            if self._server.names(node) != there or self._server.get(node) != seen:
                return
            with self._store.transaction():
                self.remove(directory, name, node)
                self._look_again(directory)

        return self._context.pages.first(self._context.opened.get(node), remove)

    def _look_again(self, directory: NodeId) -> None:
        """What has the name by now was not taken over, nor has what leads to it gone."""
        seen: set[NodeId] = set()
        while directory not in seen:
            seen.add(directory)
            if self._server.listed_ns(directory) is not None:
                self._server.set_listed(directory, 0)
            names = self._nodes.names(directory)
            if not names:
                return
            directory = names[0][0]

    def _forget(self, node: NodeId) -> None:
        """The node ceases to exist, at once or when its last user closes it."""
        self._server.forget(node)
        if self._context.opened.get(node) is None and not self._store.conflicts.of_node(node):
            self._nodes.remove(node)
        self._context.kernel.forget_node(node)

    def is_dirty_below(self, node: NodeId) -> bool:
        """Whether the node or anything inside it has a record, or waits for a decision."""
        if not self._journal.count() and not self._store.conflicts.count():
            return False
        if self._is_dirty(node):
            return True
        found = self._nodes.get(node)
        if found is None or found.kind is not Kind.DIRECTORY:
            return False
        below = self._nodes.below(node)
        if any(self._journal.concerns(inner) for inner in below):
            return True
        return not self._store.conflicts.nodes().isdisjoint(below)

    def _is_dirty(self, node: NodeId) -> bool:
        return self._journal.concerns(node) or bool(self._store.conflicts.of_node(node))

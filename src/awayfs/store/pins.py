"""What the user wants to keep here. Pins are few, so all of them are in memory."""

from __future__ import annotations

from msgspec import Struct

from awayfs.core.types import ROOT, NodeId
from awayfs.store.db import Database
from awayfs.store.nodes import Nodes


class Pin(Struct, frozen=True):
    """``priority``: higher is fetched first; ``recursive``: everything below too."""

    node: NodeId
    priority: int
    recursive: bool


class Pins:
    """Pins by node. ``changes`` differs once a pin was set or removed."""

    def __init__(self, db: Database, nodes: Nodes) -> None:
        self._db = db
        self._nodes = nodes
        self._pins: dict[NodeId, Pin] = {}
        self.changes = 0
        for node, priority, recursive in db.rows("SELECT node, priority, recursive FROM pins"):
            self._pins[node] = Pin(node, priority, bool(recursive))
        nodes.on_remove.append(self.remove)

    def add(self, node: NodeId, priority: int, recursive: bool) -> None:
        """Set or change a pin."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO pins VALUES (?, ?, ?)", (node, priority, int(recursive))
            )
            self._remember(node, Pin(node, priority, recursive))

    def join(self, node: NodeId, other: NodeId) -> None:
        """What turned out to be the same as ``other`` is pinned as the stronger of the two."""
        theirs, own = self._pins.get(other), self._pins.get(node)
        if theirs is not None and (own is None or own.priority < theirs.priority):
            self.add(node, theirs.priority, theirs.recursive)

    def remove(self, node: NodeId) -> None:
        """Unpin; fine if it was not."""
        if node in self._pins:
            with self._db.transaction():
                self._db.execute("DELETE FROM pins WHERE node = ?", (node,))
                self._remember(node, None)

    def get(self, node: NodeId) -> Pin | None:
        """The node's own pin."""
        return self._pins.get(node)

    def all(self) -> list[Pin]:
        """All pins, the highest priority first."""
        return sorted(self._pins.values(), key=lambda pin: (-pin.priority, pin.node))

    def is_pinned(self, node: NodeId) -> bool:
        """Whether the node, or recursively a directory above any of its names, is pinned."""
        if not self._pins:
            return False
        if node in self._pins:
            return True
        seen: set[NodeId] = set()
        above = [parent for parent, _ in self._nodes.names(node)]
        while above:
            directory = above.pop()
            pin = self._pins.get(directory)
            if pin is not None and pin.recursive:
                return True
            if directory != ROOT and directory not in seen:
                seen.add(directory)
                above.extend(parent for parent, _ in self._nodes.names(directory))
        return False

    def _remember(self, node: NodeId, pin: Pin | None) -> None:
        self._db.on_rollback(self._put, node, self._pins.get(node))
        self._put(node, pin)

    def _put(self, node: NodeId, pin: Pin | None) -> None:
        self.changes += 1
        if pin is None:
            self._pins.pop(node, None)
        else:
            self._pins[node] = pin

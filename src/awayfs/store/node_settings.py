"""What was set for single nodes by extended attribute. They are few, so all are in memory."""

from __future__ import annotations

from awayfs.core.types import NodeId
from awayfs.store.db import Database
from awayfs.store.nodes import Nodes


class NodeSettings:
    """Texts by node and setting. ``changes`` differs once anything was set or removed."""

    def __init__(self, db: Database, nodes: Nodes) -> None:
        self._db = db
        self._values: dict[NodeId, dict[str, str]] = {}
        self.changes = 0
        for node, name, value in db.rows("SELECT node, name, value FROM node_settings"):
            self._values.setdefault(node, {})[name] = value
        nodes.on_remove.append(self.forget)

    def of(self, node: NodeId) -> dict[str, str]:
        """What is set for the very node."""
        return dict(self._values.get(node, {}))

    def all(self) -> dict[NodeId, dict[str, str]]:
        """Everything, not to be changed."""
        return self._values

    def set(self, node: NodeId, name: str, value: str | None) -> None:
        """Set one, or with None remove it."""
        with self._db.transaction():
            if value is None:
                self._db.execute(
                    "DELETE FROM node_settings WHERE node = ? AND name = ?", (node, name)
                )
            else:
                self._db.execute(
                    "INSERT OR REPLACE INTO node_settings VALUES (?, ?, ?)", (node, name, value)
                )
            self._db.on_rollback(self._put, node, name, self._values.get(node, {}).get(name))
            self._put(node, name, value)

    def inherit(self, node: NodeId, replaced: NodeId) -> None:
        """What took the name of ``replaced`` keeps its settings (an editor's save)."""
        for name, value in self.of(replaced).items():
            self.set(node, name, value)

    def join(self, node: NodeId, other: NodeId) -> None:
        """What turned out to be the same as ``other`` has its settings, too, but for its own."""
        own = self.of(node)
        for name, value in self.of(other).items():
            if name not in own:
                self.set(node, name, value)

    def forget(self, node: NodeId) -> None:
        """The node is gone."""
        for name in self.of(node):
            self.set(node, name, None)

    def _put(self, node: NodeId, name: str, value: str | None) -> None:
        self.changes += 1
        values = self._values.setdefault(node, {})
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value
        if not values:
            del self._values[node]

"""What the server refused to this account, by node. Few, so all are in memory."""

from __future__ import annotations

from awayfs.core.types import NodeId
from awayfs.store.db import Database
from awayfs.store.nodes import Nodes


class Refusals:
    """Bits by node, whose meaning is the volume's; a node that is removed is forgotten."""

    def __init__(self, db: Database, nodes: Nodes) -> None:
        self._db = db
        self._denied: dict[NodeId, int] = dict(db.rows("SELECT node, denied FROM refusals"))
        nodes.on_remove.append(lambda node: self.set(node, 0))

    def of(self, node: NodeId) -> int:
        """What is refused; 0 for nothing."""
        return self._denied.get(node, 0)

    def set(self, node: NodeId, denied: int) -> None:
        """What is refused from now on."""
        before = self.of(node)
        if denied == before:
            return
        with self._db.transaction():
            if denied:
                self._db.execute("INSERT OR REPLACE INTO refusals VALUES (?, ?)", (node, denied))
            else:
                self._db.execute("DELETE FROM refusals WHERE node = ?", (node,))
            self._db.on_rollback(self._remember, node, before)
            self._remember(node, denied)

    def _remember(self, node: NodeId, denied: int) -> None:
        if denied:
            self._denied[node] = denied
        else:
            self._denied.pop(node, None)

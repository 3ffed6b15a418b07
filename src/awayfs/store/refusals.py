"""Nodes whose content or names the server refused to this account. Few, so all are in memory."""

from __future__ import annotations

from awayfs.core.types import NodeId
from awayfs.store.db import Database
from awayfs.store.nodes import Nodes


class Refusals:
    """Nodes by id; a node that is removed is forgotten."""

    def __init__(self, db: Database, nodes: Nodes) -> None:
        self._db = db
        self._nodes: set[NodeId] = {row[0] for row in db.rows("SELECT node FROM refusals")}
        nodes.on_remove.append(self.discard)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._nodes

    def add(self, node: NodeId) -> None:
        """The server refused it."""
        if node in self._nodes:
            return
        with self._db.transaction():
            self._db.execute("INSERT OR IGNORE INTO refusals VALUES (?)", (node,))
            self._db.on_rollback(self._nodes.discard, node)
            self._nodes.add(node)

    def discard(self, node: NodeId) -> None:
        """The server did not refuse it this time; fine if it never had."""
        if node not in self._nodes:
            return
        with self._db.transaction():
            self._db.execute("DELETE FROM refusals WHERE node = ?", (node,))
            self._db.on_rollback(self._nodes.add, node)
            self._nodes.discard(node)

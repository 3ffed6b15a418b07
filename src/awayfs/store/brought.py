"""What we have put into the root since it was last listed.

An emptied root is not empty any more once a new file of ours has gone out to it. That has to be
known after a restart, too: whoever lists it then would take all the rest for removed.
"""

from __future__ import annotations

from typing import Final

from awayfs.core.types import NodeId
from awayfs.store.db import Database

_PREFIX: Final = "brought."


class Brought:
    """The nodes that were created there, until a listing of the root is believed."""

    def __init__(self, db: Database) -> None:
        self._db = db
        keys = db.rows("SELECT key FROM facts WHERE key GLOB 'brought.*'")
        self._nodes = {NodeId(int(key.removeprefix(_PREFIX))) for (key,) in keys}

    def __contains__(self, node: NodeId) -> bool:
        return node in self._nodes

    def add(self, node: NodeId) -> None:
        """It is in the root of the server by now. Needs a transaction around it."""
        if node not in self._nodes:
            self._db.execute("INSERT INTO facts VALUES (?, '')", (f"{_PREFIX}{node}",))
            self._nodes.add(node)
            self._db.on_rollback(self._nodes.discard, node)

    def clear(self) -> None:
        """The root was listed, and what is gone from it is gone. Needs a transaction around it."""
        if self._nodes:
            self._db.execute("DELETE FROM facts WHERE key GLOB 'brought.*'")
            self._db.on_rollback(self._nodes.update, frozenset(self._nodes))
            self._nodes.clear()

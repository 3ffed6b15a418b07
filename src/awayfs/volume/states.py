"""What a program can ask about one node: ``user.awayfs.*`` and ``awayfs status PATH``."""

from __future__ import annotations

from typing import Any

from awayfs.core.errors import DISCONNECTED_NAME
from awayfs.core.setting_table import TABLE, value_text
from awayfs.core.types import Kind, NodeId
from awayfs.volume.context import Context


class States:
    """Describes nodes; reads only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def of(self, node_id: NodeId) -> list[str]:
        """``clean``, or any of dirty, provisional, placeholder, partial, conflicted."""
        node = self._context.node(node_id)
        if node is None:
            return []
        states: list[str] = []
        if self._store.journal.has_any(node_id):
            states.append("dirty")
        if self._store.server.get(node_id) is None:
            states.append("provisional")
        if node.kind is Kind.FILE and not self._is_whole(node_id, node.size):
            states.append("partial" if self._store.content.ranges(node_id) else "placeholder")
        if node.kind is Kind.DIRECTORY and not self._store.server.children_known(node_id):
            states.append("placeholder")
        if self._store.conflicts.of_node(node_id):
            states.append("conflicted")
        return states or ["clean"]

    def attribute(self, node_id: NodeId, name: str) -> str | None:
        """The value of ``user.awayfs.NAME``; None where there is none."""
        if name == "state":
            return ",".join(self.of(node_id))
        if name == "pin":
            return self.pin(node_id)
        if name in TABLE and TABLE[name].xattr:
            return value_text(self._context.effective.of(node_id, name))
        if name == "version":
            server = self._store.server.get(node_id)
            return server.token.hex() if server else None
        if name == "error":
            return self.error(node_id)
        return None

    def pin(self, node_id: NodeId) -> str | None:
        """The node's own pin as its priority, ``inherited``, or None."""
        pin = self._store.pins.get(node_id)
        if pin is not None:
            return str(pin.priority)
        return "inherited" if self._context.effective.is_pinned(node_id) else None

    def error(self, node_id: NodeId) -> str | None:
        """The last failure on the node, or why its record is parked."""
        failure = self._context.failures.of(node_id)
        if failure is not None:
            return f"{DISCONNECTED_NAME.get(failure.code, failure.code)}: {failure.text}"
        for record in self._store.journal.of_node(node_id):
            if record.reason:
                return record.reason
        return None

    def describe(self, node_id: NodeId, path: str) -> dict[str, Any]:
        """All of it, for ``status PATH``."""
        return {
            "path": path,
            "state": self.of(node_id),
            "pin": self.pin(node_id),
            "version": self.attribute(node_id, "version"),
            "error": self.error(node_id),
        }

    def _is_whole(self, node_id: NodeId, size: int) -> bool:
        """Of an open file, what was written last may not be in the range map yet."""
        opened = self._context.opened.get(node_id)
        whole = opened is not None and opened.whole
        return whole or self._store.content.covers(node_id, 0, size)

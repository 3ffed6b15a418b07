"""Why the last operation on a path failed: what ``awayfs why`` tells."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from awayfs.core.types import NodeId

KEPT = 1000


class Failure(Struct, frozen=True):
    """One failed operation. ``code`` may be an awayfs errno (501 to 505)."""

    code: int
    text: str
    at_ns: int


class Failures:
    """The newest failures by node, bounded."""

    def __init__(self) -> None:
        self._by_node: OrderedDict[NodeId, Failure] = OrderedDict()

    def note(self, node: NodeId, code: int, text: str, at_ns: int) -> None:
        """Remember the newest failure of a node."""
        self._by_node.pop(node, None)
        self._by_node[node] = Failure(code, text, at_ns)
        while len(self._by_node) > KEPT:
            self._by_node.popitem(last=False)

    def of(self, node: NodeId) -> Failure | None:
        """The newest failure of a node, if it is still remembered."""
        return self._by_node.get(node)

    def clear(self, node: NodeId) -> None:
        """The node works again."""
        self._by_node.pop(node, None)

"""Whether the server has moved on from the revisions that an archive's changes were made to."""

from __future__ import annotations

from awayfs.control.manifest import BaseFacts
from awayfs.core.types import Kind, NodeId
from awayfs.store.server import ServerNode, ServerView


class ArchivedBases:
    """Asked of each node before an import changes anything, and again when its turn comes.

    What the import itself changes goes out while it is under way: a rename alone makes another
    token, and new content another size and time.
    """

    def __init__(self, server: ServerView) -> None:
        self._server = server
        self._first: dict[NodeId, bool] = {}
        self._rewritten: set[NodeId] = set()
        self._stored: set[NodeId] = set()

    def stored(self, node: NodeId) -> None:
        """The import brought its content: that waits, with the base it has, or is what is there."""
        self._stored.add(node)

    def rewritten(self, node: NodeId) -> None:
        """The import changed its content, or its time."""
        self._rewritten.add(node)

    def moved_on(self, node: NodeId, base: BaseFacts) -> bool:
        """Whether the server has another version than ``base``, by somebody else's change.

        Also where only its digest would tell: replay asks for that.
        """
        now = self._server.get(node)
        if now is None or now.kind is Kind.DIRECTORY or node in self._stored:
            return False
        same = _is_same(now, base)
        if self._first.setdefault(node, not same) or node in self._rewritten:
            return self._first[node]
        return not same and (now.size, now.mtime_ns) != (base.size, base.mtime_ns)

    def counts(self, node: NodeId, base: BaseFacts) -> bool:
        """Whether it moved on to something that a change of its content will be in conflict with.

        What has another token but the same size and time may have changed no more than its rights,
        or its name: of a file whose digest was archived, replay will ask for the server's.
        """
        now = self._server.get(node)
        if now is None or not self.moved_on(node, base):
            return False
        provable = now.kind is not Kind.FILE or base.digest is not None or not base.size
        proved = base.digest is not None and now.digest not in (None, base.digest)
        looks = (now.size, now.mtime_ns), (base.size, base.mtime_ns)
        return proved or not provable or looks[0] != looks[1]


def _is_same(now: ServerNode, base: BaseFacts) -> bool:
    """A weak token is that of any version of that moment: where a digest is known, that tells."""
    if base.digest is not None and now.digest is not None:
        return now.digest == base.digest
    return now.token == base.token and (base.digest is None or not (base.weak or now.weak))

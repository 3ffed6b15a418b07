"""The brakes on listings: a listing that looks like an accident is not adopted.

What is about to disappear is counted with all that is below it. A node that was only seen at
another place is not gone: before half of a volume counts as deleted, the directories around are
listed and searched for it (``Observer``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from awayfs.core import diff
from awayfs.core.errors import Implausible
from awayfs.core.safety import (
    MASS_DELETION_AT_LEAST,
    emptied_root,
    mass_change_of_type,
    mass_deletion,
)
from awayfs.core.types import ROOT, Entry, NodeId
from awayfs.volume.context import Context

Rule = Callable[[int, int], bool]
ACCEPT = "look at the server, then run: awayfs sync --accept-deletions MOUNTPOINT"


class Brakes:
    """Judges the changes of one listing before they are adopted."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._server = context.store.server

    def missing(self, changes: Sequence[diff.Change], known: int = 0) -> list[NodeId]:
        """The nodes that these changes remove, if they are too many to be believed at once.

        ``known``: how many nodes the volume had before anybody looked for these, if somebody did.
        """
        gone = [node for node in _gone(changes) if node not in self._context.seen_elsewhere]
        if self._context.deletions_accepted or not self._is_most(gone, known):
            return []
        return gone

    def check(
        self,
        directory: NodeId,
        changes: Sequence[diff.Change],
        known: int = 0,
        listed: Sequence[Entry] | None = None,
    ) -> None:
        """Stop the volume, and raise ``Implausible``, where a person has to look first.

        ``listed``: all that the directory holds, if it was listed.
        """
        if self._context.deletions_accepted:
            return
        if directory == ROOT and listed is not None and self._is_emptied(listed):
            self._stop("the volume is empty on the server, and was not before")
        if self._is_most(self._changed_type(changes), known, mass_change_of_type):
            self._stop("more than half of the volume became another kind of thing on the server")
        if self.missing(changes, known):
            self._stop("more than half of the volume is gone on the server")

    def believed(self, directory: NodeId) -> None:
        """A listing was adopted: the next one of the root is judged by what is there now.

        Needs a transaction around it.
        """
        if directory == ROOT:
            self._context.store.brought.clear()

    def _is_emptied(self, listed: Sequence[Entry]) -> bool:
        """Whether the root holds nothing, but for what we have put there since."""
        known, brought = dict(self._server.children(ROOT)), self._context.store.brought
        here = {entry.name for entry in listed}
        others = sum(name not in known or known[name] not in brought for name in here)
        return emptied_root(len(known.keys() - here), others)

    def _changed_type(self, changes: Sequence[diff.Change]) -> list[NodeId]:
        return [
            change.old_node
            for change in changes
            if isinstance(change, diff.Replaced)
            and (base := self._server.get(change.old_node)) is not None
            and base.kind is not change.entry.kind
        ]

    def _is_most(self, nodes: Iterable[NodeId], known: int, rule: Rule = mass_deletion) -> bool:
        """Whether these, with all below them, are too much of the volume."""
        count = sum(self._count_below(node) for node in nodes)
        if count < MASS_DELETION_AT_LEAST:
            return False  # and nobody has to count all nodes for it
        return rule(known or self._context.store.nodes.count(), count)

    def _count_below(self, node: NodeId) -> int:
        count, pending = 0, [node]
        while pending:
            count += 1
            pending.extend(child for _, child in self._server.children(pending.pop()))
        return count

    def _stop(self, cause: str) -> NoReturn:
        cause = f"{cause}; {ACCEPT}"
        self._context.link.stop(cause)
        raise Implausible(cause)


def _gone(changes: Iterable[diff.Change]) -> list[NodeId]:
    """Nodes whose name is gone, or holds something else now."""
    removed = [c.node for c in changes if isinstance(c, diff.Removed)]
    return removed + [c.old_node for c in changes if isinstance(c, diff.Replaced)]

"""Listings that are as they were: found by their fingerprint, without a look at each entry.

A directory has a fingerprint as long as all that is known of its entries is as a listing had it.
What changes in what is known takes it away (``store/schema``), so one that is there never stands
for something that was left to replay. To find it again says of each entry that it is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

from awayfs.core.diff import as_listed, is_open_question
from awayfs.core.types import ROOT, Entry, NodeId
from awayfs.ports.remote import Listing
from awayfs.store.server import Noted, Seen
from awayfs.volume.adopt import Adopter
from awayfs.volume.changes import RESERVED
from awayfs.volume.context import Context
from awayfs.volume.slices import Slices

AT_ONCE = 500
"""Nodes that are noted as seen before others have their turn."""


class Fingerprints:
    """What to do where nothing changed, and when that may be said again."""

    def __init__(self, context: Context, adopter: Adopter) -> None:
        self._context = context
        self._store = context.store
        self._adopter = adopter

    def found_again(self, node: NodeId, fingerprint: bytes, epoch: int) -> bool:
        """Adopt that a directory is as it was.

        False if what was known when it was asked about, in ``epoch``, is not what is known now.
        """
        server = self._store.server
        with self._store.transaction():
            if epoch != server.epoch:
                return False
            if not server.listed_again(node, self._context.now(), fingerprint):
                return False
            local = self._store.nodes.get(node)
            if local is not None and local.nlink > 2:  # there are directories in it
                self._adopter.unchanged(node)
            return True

    async def note_each(self, unchanged: Sequence[NodeId], seen_ns: int, slices: Slices) -> None:
        """Entries were seen as they were in a listing that has no fingerprint."""
        epoch = self._store.server.epoch
        for start in range(0, len(unchanged), AT_ONCE):
            if epoch != self._store.server.epoch:
                return
            self._store.server.touch_all(unchanged[start : start + AT_ONCE], seen_ns)
            await slices.pause()

    async def of_known(
        self,
        node: NodeId,
        listed: Sequence[Entry],
        found: Listing,
        noted: Noted,
        slices: Slices,
    ) -> bytes | None:
        """The fingerprint by which what is known of a directory will be found unchanged.

        None where not all of it is as listed: something was left to replay, or, as ``noted``
        tells, became otherwise since.
        """
        entries = {entry.name: entry for entry in listed}
        seen: set[Seen] = set()
        any_weak, exact = False, True
        for name, known in self._store.server.children_seen(node):
            base, entry = known.entry(name), entries.pop(name, None)
            if entry is None or not as_listed(base, entry):
                return None
            any_weak = any_weak or is_open_question(base)
            exact = exact and is_open_question(base) == is_open_question(entry)
            seen.update((known.node, (node, name)))
            await slices.pause()
        if node == ROOT:
            entries.pop(RESERVED, None)
        added = any(isinstance(one, tuple) and one[0] == node for one in noted)
        if entries or added or not noted.isdisjoint(seen):
            return None
        if not any_weak:
            return found.if_strong
        return found.fingerprint if exact else None

"""What was seen on the server, compared with what was known of it (``core.diff``)."""

from __future__ import annotations

from awayfs.core.diff import Change, KnownChild, diff_listing, diff_listing_steps
from awayfs.core.types import ROOT, Entry, NodeId
from awayfs.store.store import Store
from awayfs.volume.changes import RESERVED
from awayfs.volume.slices import Slices, in_slices


class Compared:
    """Tells what happened. Adopts nothing."""

    def __init__(self, store: Store) -> None:
        self._server = store.server

    def name(self, parent: NodeId, name: bytes, entry: Entry) -> list[Change]:
        """What a look at one name says that happened to it."""
        child = self._server.child(parent, name)
        base = self._server.get(child) if child is not None else None
        known = [KnownChild(name, base.node, base.entry(name))] if base is not None else []
        return diff_listing(known, [entry], self._server.by_file_id, self._count_names)

    async def listing(self, node: NodeId, listed: list[Entry], slices: Slices) -> list[Change]:
        """What a listing says that happened in a directory."""
        if node == ROOT:  # the name means our own directory there (DESIGN section 4)
            listed = [entry for entry in listed if entry.name != RESERVED]
        known: list[KnownChild] = []
        for name, base in self._server.children_seen(node):
            known.append(KnownChild(name, base.node, base.entry(name)))
            await slices.pause()
        steps = diff_listing_steps(known, listed, self._server.by_file_id, self._count_names)
        return await in_slices(steps, slices)

    def _count_names(self, node: NodeId) -> int:
        return len(self._server.names(node))

"""Keeping the cache below its limit.

Only clean, unpinned content that nobody has open may go; unsent work and pins never do. When
nothing may go, the one who asked for room is told ENOSPC before anything was accepted.
"""

from __future__ import annotations

from awayfs.core.errors import EDISCONFULL
from awayfs.core.types import NodeId
from awayfs.volume.context import Context

BATCH = 64


class Room:
    """Makes room in the cache, oldest use first."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def make(self, wanted: int, keep: NodeId) -> None:
        """Have ``wanted`` more bytes fit; raises EDISCONFULL when they cannot.

        ``keep`` is the node the bytes are for; its own content is never given up.
        """
        limit = self._context.options.cache_limit
        if limit is None:
            return
        content = self._context.store.content
        while (over := content.usage() + wanted - limit) > 0:
            if not self._cull(over, keep):
                raise OSError(EDISCONFULL, f"the cache limit of {limit} bytes is reached")

    def _cull(self, over: int, keep: NodeId) -> bool:
        """Drop the least recently used content until ``over`` bytes went; False if none may."""
        store = self._context.store
        freed = 0
        limit = BATCH
        while freed < over:
            candidates = store.content.eviction_order(limit)
            before = freed
            for node, size in candidates:
                if freed >= over:
                    break
                if node != keep and self._may_go(node):
                    with store.transaction():
                        store.content.drop(node)
                    freed += size
            if freed == before:
                if len(candidates) < limit:
                    break
                limit *= 4
        return freed > 0

    def _may_go(self, node: NodeId) -> bool:
        store = self._context.store
        return not (
            self._context.opened.get(node)
            or store.journal.has_any(node)
            or store.conflicts.of_node(node)
            or store.server.get(node) is None
            or store.pins.is_pinned(node)
        )

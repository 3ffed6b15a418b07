"""Keeping the cache below its limit.

Only clean, unpinned content that nobody has open may go; unsent work and pins never do. A file
larger than the cache can still be read from its server: it gives up what was read of it before.
When nothing may go, the one who asked for room waits for unsent work to be sent while the server
is there, and is otherwise told ENOSPC, before anything was accepted.
"""

from __future__ import annotations

import asyncio
import os

from awayfs.core.errors import EDISCONFULL
from awayfs.core.types import NodeId
from awayfs.volume.context import Context

BATCH = 64
DRAIN_S = 20.0
LOOK_S = 0.2
SMALLEST_WINDOW = 64 << 10


class Room:
    """Makes room in the cache, oldest use first."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def make(self, wanted: int, keep: NodeId) -> None:
        """Have ``wanted`` more bytes fit; raises EDISCONFULL when they cannot.

        ``keep`` is the node the bytes are for; its own content goes last.
        """
        limit = self._context.cache_limit
        if limit is None:
            return
        content = self._context.store.content
        while (over := content.usage() + wanted - limit) > 0:
            if not self._cull(over, keep) and not self._shed(keep):
                raise OSError(EDISCONFULL, f"the cache limit of {limit} bytes is reached")

    async def make_or_wait(self, wanted: int, keep: NodeId) -> None:
        """As ``make``; while connected, unsent work that takes the room is waited for."""
        for _ in range(int(DRAIN_S / LOOK_S)):
            try:
                self.make(wanted, keep)
                return
            except OSError:
                if not self._context.link.usable or not self._context.store.journal.count():
                    raise
            self._context.on_journal()
            await asyncio.sleep(LOOK_S)
        self.make(wanted, keep)

    def window(self) -> int | None:
        """How much may reasonably be fetched at once; None for as much as one likes."""
        limit = self._context.cache_limit
        return None if limit is None else max(SMALLEST_WINDOW, limit // 4)

    def _shed(self, node: NodeId) -> bool:
        """Give up what is cached of a clean file that is just being read; False if it may not."""
        store, opened = self._context.store, self._context.opened.get(node)
        if not store.content.ranges(node) or not self._is_expendable(node):
            return False
        if opened is None:
            with store.transaction():
                store.content.drop(node)
        elif opened.passthrough:
            return False  # the kernel reads the file by itself
        else:
            self._context.held.about_to_change(node)
            with store.transaction():
                store.content.drop_ranges(node)
            opened.whole = False
            os.ftruncate(opened.fd, 0)
            os.ftruncate(opened.fd, opened.size)
        return True

    def _cull(self, over: int, keep: NodeId) -> bool:
        """Drop the least recently used content until ``over`` bytes went; False if none may."""
        store = self._context.store
        freed = 0
        limit = BATCH
        while freed < over:
            candidates = store.content.eviction_order(limit)
            before = freed
            with store.transaction():
                for node, size in candidates:
                    if freed >= over:
                        break
                    if node != keep and self._may_go(node):
                        store.content.drop(node)
                        freed += size
            if freed == before:
                if len(candidates) < limit:
                    break
                limit *= 4
        return freed > 0

    async def empty(self) -> tuple[int, int]:
        """Drop all content that may go, in small steps; how many files and bytes went."""
        store, files, freed = self._context.store, 0, 0
        limit = BATCH
        while True:
            candidates = store.content.eviction_order(limit)
            going = [(node, size) for node, size in candidates if self._may_go(node)][:BATCH]
            with store.transaction():
                for node, _ in going:
                    store.content.drop(node)
            files, freed = files + len(going), freed + sum(size for _, size in going)
            if not going and len(candidates) < limit:
                return files, freed
            limit = limit if going else limit * 4
            await asyncio.sleep(0)

    def _may_go(self, node: NodeId) -> bool:
        return self._context.opened.get(node) is None and self._is_expendable(node)

    def _is_expendable(self, node: NodeId) -> bool:
        """Whether the server has all of it, and nobody asked for it to be kept."""
        store = self._context.store
        return not (
            store.journal.has_any(node)
            or store.conflicts.of_node(node)
            or store.server.get(node) is None
            or self._context.effective.stays(node)
        )

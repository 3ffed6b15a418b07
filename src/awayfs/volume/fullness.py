"""Noticing that the cache is getting full, before somebody is told so by an error.

A cache with a limit is full most of the time, of content that can be fetched again. What counts is
how much of it may not go: unsent, pinned, open. On the disk, what counts is what is free.
"""

from __future__ import annotations

import os
import time

from awayfs.core.events import EventKind
from awayfs.volume.context import Context
from awayfs.volume.culling import Culling
from awayfs.volume.room import Room

ROOM = 0.1
"""Of the cache's limit: with less than this free, or free to go, it is nearly full."""
DISK_ROOM = 0.05
"""Of the disk that the cache is on."""
COUNTED_S = 30.0
"""What may go is counted anew so often, at most: all files are looked at for that."""
DISK_FULL = "the disk that the cache is on is full"


class Fullness:
    """Looks now and then, and tells of each change for the worse once."""

    def __init__(self, context: Context, room: Room, culling: Culling) -> None:
        self._context = context
        self._culling = culling
        self._counted_at = float("-inf")
        self._nearly = False
        self._full = False
        room.on_full = self._is_full

    async def look(self) -> None:
        """Called from time to time; never asks the server."""
        if self._context.store.reserve.given_up:
            self._is_full(DISK_FULL)
            return
        text = await self._shortage()
        if text is not None and not self._nearly:
            self._context.tell(EventKind.CACHE_NEARLY_FULL, text)
        self._nearly = text is not None
        self._full = self._full and self._nearly

    def _is_full(self, text: str) -> None:
        """Each write that finds no room says so; it is told once, until there is room again."""
        if not self._full:
            self._context.tell(EventKind.CACHE_FULL, text)
        self._full = self._nearly = True

    async def _shortage(self) -> str | None:
        """What there is little of; None for nothing."""
        store, limit = self._context.store, self._context.cache_limit
        if limit is not None:
            free = limit - store.content.usage()
            wanted = int(limit * ROOM)
            if free < wanted and free + await self._may_go() < wanted:
                return f"unsent, pinned or open files take most of the cache ({limit} bytes)"
        status = os.statvfs(store.directory)
        if status.f_bavail < status.f_blocks * DISK_ROOM:
            free = status.f_bavail * status.f_frsize
            return f"only {free} bytes are free on the disk that the cache is on"
        return None

    async def _may_go(self) -> int:
        """Bytes that can be given up, as last counted."""
        if time.monotonic() - self._counted_at > COUNTED_S:
            await self._culling.count()
            self._counted_at = time.monotonic()
        return self._culling.cullable()

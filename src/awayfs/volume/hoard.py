"""Having the working set here: hoard walks over pinned trees, and what would be missing.

A walk lists each directory below its start and fetches every file that is not whole, several
at a time. Content goes from the server straight into the cache. A walk that is cut off leaves
what it has; the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count

from awayfs.core.errors import RemoteError, UsageError
from awayfs.core.types import Kind, NodeId
from awayfs.volume.context import Context
from awayfs.volume.fetch import Fetcher
from awayfs.volume.observe import Observer
from awayfs.volume.slices import Slices

TOGETHER = 8
AT_A_TIME = 100
"""Nodes that are looked at before the event loop gets its turn."""


@dataclass(slots=True)
class Walk:
    """One walk's account. ``failed`` and ``missing`` hold (path, why)."""

    done: int = 0
    total: int = 0
    bytes: int = 0
    path: str = ""
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Inventory:
    """What would be there offline: files and bytes that are, (path, why) of what is not."""

    files: int = 0
    bytes: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)


class Hoard:
    """Fetches trees, and tells what of them is not here."""

    def __init__(self, context: Context, observer: Observer, fetcher: Fetcher) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._fetcher = fetcher

    async def walk(self, start: NodeId) -> AsyncIterator[Walk]:
        """Fetch everything at and below a node; yields after each piece of progress.

        What cannot be fetched is in ``failed`` and does not stop the walk.
        """
        walk = Walk()
        files = await self._files_below(start, walk)
        walk.total = len(files)
        self._check_limit(files)
        pending = iter(files)
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                while len(running) < TOGETHER and (node := next(pending, None)) is not None:
                    running.add(asyncio.get_running_loop().create_task(self._fetch(node, walk)))
                if not running:
                    break
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                yield walk
        finally:
            for task in running:
                task.cancel()
        yield walk

    async def check(self, start: NodeId) -> Inventory:
        """What at and below a node would be there offline, and what not; asks nobody.

        Others get their turn in between: a tree may be large.
        """
        found = Inventory()
        pending = [start]
        for looked_at in count(1):
            if not pending:
                break
            if looked_at % AT_A_TIME == 0:
                await asyncio.sleep(0)
            node_id = pending.pop()
            node = self._context.node(node_id)
            if node is None:
                continue
            if node.kind is Kind.DIRECTORY:
                if not self._store.server.children_known(node_id):
                    found.missing.append((self.path(node_id), "the directory was never listed"))
                pending.extend(child.id for _, child in self._store.nodes.children(node_id))
            elif node.kind is Kind.FILE:
                self._check_file(node_id, node.size, found)
        return found

    def _check_file(self, node_id: NodeId, size: int, found: Inventory) -> None:
        if not self._store.content.covers(node_id, 0, size):
            found.missing.append((self.path(node_id), "the content is not all here"))
        elif self._observer.is_suspect(node_id):
            found.missing.append((self.path(node_id), "the server may have a newer version"))
        else:
            found.files += 1
            found.bytes += size

    def path(self, node_id: NodeId) -> str:
        """A node's path for a person."""
        return os.fsdecode(self._store.nodes.path(node_id) or b"") or "."

    async def _files_below(self, start: NodeId, walk: Walk) -> list[NodeId]:
        """List every directory, several at a time; the files that are not whole."""
        files: list[NodeId] = []
        seen: set[NodeId] = set()
        level = [start]
        gate, slices = asyncio.Semaphore(TOGETHER), Slices()
        while level:
            directories: list[NodeId] = []
            for node_id in level:
                node = self._context.node(node_id)
                if node is None or node_id in seen:
                    continue
                seen.add(node_id)
                if node.kind is Kind.DIRECTORY:
                    directories.append(node_id)
                elif node.kind is Kind.FILE:
                    files.append(node_id)
                await slices.pause()
            await asyncio.gather(*(self._list(d, walk, gate) for d in directories))
            level = [child.id for d in directories for _, child in self._store.nodes.children(d)]
        return files

    async def _list(self, node_id: NodeId, walk: Walk, gate: asyncio.Semaphore) -> None:
        server = self._store.server
        if server.get(node_id) is None and self._store.nodes.parent(node_id) is not None:
            return  # made here
        if self._context.link.usable and self._context.is_fresh(server.listed_ns(node_id), node_id):
            return
        try:
            async with gate:
                await self._observer.directory(node_id)
        except RemoteError as error:
            if not self._store.server.children_known(node_id):
                walk.failed.append((self.path(node_id), str(error)))

    async def _fetch(self, node_id: NodeId, walk: Walk) -> None:
        try:
            if self._observer.is_suspect(node_id):
                await self._observer.verify(node_id)
            fetched = await self._fetcher.whole(node_id, last=True)
            walk.bytes += fetched  # others add to it while we wait: never across an await
        except (OSError, RemoteError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            walk.failed.append((self.path(node_id), text or "failed"))
        walk.done += 1
        walk.path = self.path(node_id)

    def _check_limit(self, files: list[NodeId]) -> None:
        """A pinned file that can never fit is said before anything is fetched for it."""
        limit = self._context.cache_limit
        if limit is None:
            return
        for node_id in files:
            node = self._context.node(node_id)
            if node is not None and node.size > limit:
                raise UsageError(
                    f"{self.path(node_id)}: is larger ({node.size} bytes) than the cache limit"
                    f" ({limit} bytes); mount with a larger cache-size"
                )

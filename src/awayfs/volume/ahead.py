"""Looking ahead of a walk: who opens one directory after the other finds the next ones listed.

A walk (``find``, ``tar``, ``rsync``) asks for one directory at a time, and would wait for the
server at each. So the directories that come next are listed while it is busy with this one: in
the order of the walk, which is by name and from above to below, few at first, and twice as many
each time it is found where it was expected. Nothing is listed that still counts as fresh, and
not so much that it would be outdated when the walk comes there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from awayfs.core.errors import RemoteError
from awayfs.core.types import ROOT, NodeId
from awayfs.store.nodes import Nodes
from awayfs.volume.context import Context
from awayfs.volume.observe import Observer

FIRST = 2
MOST = 64
"""How many directories are looked at ahead of a walk, at first and at most."""
SHARE = 4
"""One in so many of the requests that the server takes at once may be for what comes next."""
SHORTEST_FRESH_S = 1.0
AT_ONCE = 64
"""Directories that are looked at here before others have their turn."""


class LookAhead:
    """Follows who opens directories, and has those listed that come next."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._coming: Iterator[NodeId] = iter(())
        self._expected: set[NodeId] = set()
        self._listing: set[NodeId] = set()
        self._window = FIRST
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until nobody walks through directories that are outdated."""
        await self._idle.wait()

    def opened(self, directory: NodeId, *, fresh: bool) -> None:
        """Somebody opens a directory; ``fresh``: its listing need not be waited for."""
        if directory in self._expected:
            self._expected.discard(directory)
            in_time = fresh or directory in self._listing
            self._window = min(2 * self._window, MOST) if in_time else FIRST
        elif fresh:
            return
        else:
            self._expected.clear()
            self._coming = coming(self._store.nodes, directory)
            self._window = max(FIRST, self._window // 2)
        self._go_on()

    def _go_on(self) -> None:
        link, fresh_s = self._context.link, self._context.fresh_s(ROOT)
        if not link.usable or fresh_s < SHORTEST_FRESH_S or link.capabilities is None:
            return
        together = max(1, link.capabilities.in_flight // SHARE)
        for _ in range(AT_ONCE):
            if len(self._listing) >= together or len(self._expected) >= self._window:
                return
            directory = next(self._coming, None)
            if directory is None:
                return
            if directory not in self._listing and self._is_outdated(directory):
                self._expected.add(directory)
                self._listing.add(directory)
                self._idle.clear()
                self._context.spawn(self._list(directory))

    def _is_outdated(self, directory: NodeId) -> bool:
        server = self._store.server
        on_server = directory == ROOT or server.get(directory) is not None
        return on_server and not self._context.is_fresh(server.listed_ns(directory), directory)

    async def _list(self, directory: NodeId) -> None:
        try:
            await self._observer.directory(directory)
        except (RemoteError, OSError):
            self._expected.discard(directory)  # whoever opens it will be told
        finally:
            self._listing.discard(directory)
            if not self._listing:
                self._idle.set()
        self._go_on()


def coming(nodes: Nodes, start: NodeId) -> Iterator[NodeId]:
    """The directories that a walk opens after ``start``, as they are known when asked for."""
    yield from _below(nodes, start)
    above = nodes.names(start)[:1]
    while above:
        parent, name = above[0]
        for directory in _directories(nodes, parent, name):
            yield directory
            yield from _below(nodes, directory)
        above = nodes.names(parent)[:1]


def _below(nodes: Nodes, directory: NodeId) -> Iterator[NodeId]:
    pending = [_directories(nodes, directory)]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        yield found
        pending.append(_directories(nodes, found))


def _directories(nodes: Nodes, parent: NodeId, after: bytes = b"") -> Iterator[NodeId]:
    """The directories in a directory, by name; its link count tells whether there are any."""
    node = nodes.get(parent)
    if node is None or node.nlink <= 2:
        return
    while found := nodes.directories(parent, after, AT_ONCE):
        yield from (directory for _, directory in found)
        after = found[-1][0]

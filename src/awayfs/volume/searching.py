"""Where the server has a node by now: the search for what is not where it was.

Directories are listed from near to far, a bounded number; each listing is adopted, so that what is
searched for is known to be there, or noted in ``Context.seen_elsewhere`` where a change here stands
against it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from awayfs.core.types import ROOT, Entry, Kind, NodeId
from awayfs.volume.context import SECOND_NS, Context

SEARCHED_DIRECTORIES = 200
JUST_NOW_NS = 2 * SECOND_NS


def join(directory: bytes, name: bytes) -> bytes:
    """A path on the server from a directory's path and a name in it."""
    return directory + b"/" + name if directory else name


class Searching:
    """Searches. ``directory`` lists one and adopts the difference, ``quietly`` hides its errors."""

    def __init__(
        self,
        context: Context,
        directory: Callable[[NodeId], Awaitable[None]],
        quietly: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        self._context = context
        self._store = context.store
        self._directory = directory
        self._quietly = quietly

    async def search(self, node: NodeId) -> None:
        """Look for a node that is not where it was; raises ``RemoteError``.

        Its own directory is listed first (the root, where it has no name there), then, since its
        id would be known again, all others that are known, from near to far (a bounded number):
        what is found is adopted, or noted in ``Context.seen_elsewhere`` where a change here stands
        against it.
        """
        place = self._store.server.names(node)[:1]
        base = self._store.server.get(node)
        if base is None:
            return
        start = place[0][0] if place else ROOT
        await self._directory(start)
        if base.file_id is None or await self._still_elsewhere(node, base.file_id):
            return
        await self._list_around(start, lambda: self._is_missing(node, place))

    async def find_names(self, node: NodeId, count: int) -> int:
        """Look for names of a hard-linked file that are not known; how many are known then.

        Bounded like ``search``, and over as soon as ``count`` are known. Raises ``RemoteError``.
        """
        names = self._store.server.names
        if names(node):
            await self._list_around(names(node)[0][0], lambda: len(names(node)) < count)
        return len(names(node))

    async def around(
        self,
        node: NodeId,
        missing: Sequence[NodeId],
        list_apart: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Before too much counts as deleted in a directory, the others are searched for it."""
        left = {n: self._store.server.names(n)[:1] for n in missing}
        pending, reached = deque(self._directories_beside(node)), {node, *missing}
        while pending and left and len(reached) < SEARCHED_DIRECTORIES:
            directory = pending.popleft()
            if directory not in reached:
                reached.add(directory)
                await list_apart(directory)
                left = {n: place for n, place in left.items() if self._is_missing(n, place)}
                pending.extend(self._directories_beside(directory))

    def place(self, node: NodeId) -> bytes | None:
        """The path where the server has a node: the one it was seen to be renamed to, though a
        change here stands against that name, or that of its name.
        """
        parent, name = self._context.seen_elsewhere.get(node, (None, b""))
        directory = self._store.server.path(parent) if parent is not None else None
        return self._store.server.path(node) if directory is None else join(directory, name)

    def places(self, nodes: Iterable[NodeId]) -> Iterator[tuple[NodeId, bytes]]:
        """As ``place``, of many in few directories; what has no place is left out."""
        server, directories = self._store.server, dict[NodeId, bytes | None]()
        for node in nodes:
            names = server.names(node)
            if node in self._context.seen_elsewhere or not names:
                path = self.place(node)
            else:
                parent, name = names[0]
                if parent not in directories:
                    directories[parent] = server.path(parent)
                directory = directories[parent]
                path = None if directory is None else join(directory, name)
            if path is not None:
                yield node, path

    def is_another(self, node: NodeId, path: bytes, entry: Entry) -> bool:
        """Whether what stands where a node was seen to be renamed to is not it; forgets the
        place then.
        """
        base = self._store.server.get(node)
        if path == self._store.server.path(node) or base is None or base.file_id == entry.file_id:
            return False
        self._context.seen_elsewhere.pop(node, None)
        return True

    async def _list_around(self, start: NodeId, goes_on: Callable[[], bool]) -> None:
        """List directories from near to far, a bounded number, as long as ``goes_on`` says so."""
        pending, reached, count = deque([start]), {start}, 0
        while pending and count < SEARCHED_DIRECTORIES and goes_on():
            directory = pending.popleft()
            if not self._just_listed(directory):
                count += 1
                await self._quietly(directory)
            near = [d for d in self._directories_beside(directory) if d not in reached]
            reached.update(near)
            pending.extend(near)

    async def _still_elsewhere(self, node: NodeId, file_id: bytes) -> bool:
        """Whether the node stands where it was last seen; forgets that place if not."""
        seen = self._context.seen_at(node)
        directory = self._store.server.path(seen[0]) if seen is not None else None
        if seen is not None and directory is not None:
            entry = await self._context.link.find(join(directory, seen[1]))
            if entry is not None and entry.file_id == file_id:
                return True
        self._context.seen_elsewhere.pop(node, None)
        return False

    def _directories_beside(self, directory: NodeId) -> list[NodeId]:
        """The directory's own one, and those in it: a search goes from near to far."""
        server = self._store.server
        parents = [parent for parent, _ in server.names(directory)]
        children = [child for _, child in server.children(directory)]
        return parents + [
            child
            for child in children
            if (seen := server.get(child)) is not None and seen.kind is Kind.DIRECTORY
        ]

    def _is_missing(self, node: NodeId, place: list[tuple[NodeId, bytes]]) -> bool:
        unmoved = self._store.server.names(node)[:1] == place
        return unmoved and node not in self._context.seen_elsewhere

    def _just_listed(self, directory: NodeId) -> bool:
        """A search right after another one need not look at the same directories."""
        listed = self._store.server.listed_ns(directory)
        return listed is not None and 0 <= self._context.now() - listed < JUST_NOW_NS

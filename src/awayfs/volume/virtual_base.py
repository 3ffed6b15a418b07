"""``.awayfs/base``: the whole tree as it was when this machine and the server were last in step."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from functools import partial

from awayfs.core.errors import EDISCONDATA, EDISCONNECTED, RemoteError
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.volume.context import Context
from awayfs.volume.revisions import Revisions, os_error
from awayfs.volume.virtual_node import (
    BASE_INODES,
    Listed,
    Listing,
    Looked,
    Path,
    VirtualNode,
    directory,
    of_entry,
    private,
)


class BaseTree:
    """What the server was last seen to have, as far as it was adopted: the base of all changes.

    ``learn`` lists a directory that was never listed, while the server can be asked.
    """

    def __init__(
        self,
        context: Context,
        revisions: Revisions,
        learn: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        self._context = context
        self._store = context.store
        self._revisions = revisions
        self._learn = learn

    def find(self, path: Path) -> Looked:
        """What stands at a path; waits only for a directory that was never listed."""
        if not path:
            return private(self.of_node(ROOT))
        above = self._walk(path[:-1])
        node = self._store.server.child(above, path[-1]) if above is not None else None
        if node is not None:
            return self.of_node(node)
        if above is not None and not self._is_listed(above):
            return self._find_learning(above, path)
        raise OSError(errno.ENOENT, "no such file or directory")

    def entries(self, path: Path) -> Listed:
        """Names in a directory, with what they are."""
        node = self._walk(path)
        if node is None:
            raise OSError(errno.ENOENT, "no such directory")
        if self._is_listed(node):
            return self._store.server.kinds(node)
        return self._entries_learning(node)

    def of_node(self, node: NodeId) -> VirtualNode:
        """The base of one node; ENOENT when the server never had it."""
        base = self._store.server.get(node)
        if base is None and node == ROOT:
            return directory(self._context.now())
        if base is None:
            raise OSError(errno.ENOENT, "the server never had it")
        entry = base.entry()
        if entry.kind is not Kind.FILE:
            return of_entry(self._context, entry, BASE_INODES | node)
        found = partial(self._revisions.of_token, node, entry.token)
        there = self._revisions.base_there(node, entry.token)
        return of_entry(self._context, entry, BASE_INODES | node, found, there)

    def _walk(self, path: Path) -> NodeId | None:
        node: NodeId | None = ROOT
        for name in path:
            node = self._store.server.child(node, name) if node is not None else None
        return node

    def _is_listed(self, node: NodeId) -> bool:
        return self._store.server.listed_ns(node) is not None

    async def _find_learning(self, above: NodeId, path: Path) -> VirtualNode:
        try:
            await self._ask(above)
        except OSError as error:
            if error.errno == EDISCONDATA:
                raise OSError(EDISCONNECTED, error.strerror) from error
            raise
        node = self._store.server.child(above, path[-1])
        if node is None:
            raise OSError(errno.ENOENT, "no such file or directory")
        return self.of_node(node)

    async def _entries_learning(self, node: NodeId) -> Listing:
        await self._ask(node)
        return self._store.server.kinds(node)

    async def _ask(self, node: NodeId) -> None:
        try:
            await self._learn(node)
        except RemoteError as error:
            raise os_error(error, errno.ENOENT) from error

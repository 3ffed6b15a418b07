"""Listings that wait for another one to prove what they found.

A directory that is found gone is really so when its parent's listing says so. That one may have
found itself gone, too, at a moment when it was below, and then the two wait for each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from awayfs.core.types import NodeId


class Proofs:
    """Which listing waits for which; never in a circle."""

    def __init__(self, list_directory: Callable[[NodeId], Awaitable[None]]) -> None:
        self._list = list_directory
        self._waiting: dict[NodeId, NodeId] = {}

    async def ask(self, node: NodeId, parent: NodeId) -> None:
        """Have ``parent`` listed for the listing of ``node``; raises what that raises.

        Not when it waits for that very listing: the directories changed places since it began.
        Nothing is proven then, and who asks next lists both where they are.
        """
        if self._waits_for(parent, node):
            return
        self._waiting[node] = parent
        try:
            await self._list(parent)
        finally:
            del self._waiting[node]

    def _waits_for(self, listing: NodeId, node: NodeId) -> bool:
        while listing != node and listing in self._waiting:
            listing = self._waiting[listing]
        return listing == node

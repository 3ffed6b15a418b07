"""How much may be fetched ahead of its use, and what not again. Pure.

A full cache gives a part of its room for what was fetched ahead and not used yet; that may push out
other content. What was pushed out itself, unused, is not fetched again for some hours: else a cache
that is too small would fetch without end. Times are seconds of any clock, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from awayfs.core.cull import LIMIT_END
from awayfs.core.learning import Wanted
from awayfs.core.types import NodeId

AHEAD_PART: Final = 0.1
AGAIN_S: Final = 6 * 3600.0
LARGEST: Final = 64 << 20
"""A larger file is worth being asked for."""


class Ahead:
    """What was fetched ahead of its use."""

    def __init__(self) -> None:
        self._waiting: dict[NodeId, int] = {}
        self._tried: dict[NodeId, float] = {}

    def used(self, node: NodeId) -> None:
        """It was worth it, or came some other way."""
        self._waiting.pop(node, None)
        self._tried.pop(node, None)

    def may_try(self, node: NodeId, size: int, now_s: float) -> bool:
        """Whether a file may be fetched ahead at all."""
        return size <= LARGEST and now_s - self._tried.get(node, -AGAIN_S) >= AGAIN_S

    def room(self, limit: int | None, usage: int, free: int) -> int:
        """Bytes that may be fetched ahead now: ``free`` are those of the disk, None: no limit."""
        if limit is None:
            return max(0, free)
        part = int(limit * AHEAD_PART) - sum(self._waiting.values())
        return max(0, min(max(int(limit * LIMIT_END) - usage, part), free))

    def choose(
        self, wanted: Iterable[Wanted], sizes: dict[NodeId, int], room: int, now_s: float
    ) -> list[NodeId]:
        """Of what is wanted, the best first, what fits into the room; counts as fetched."""
        self._tried = {n: at for n, at in self._tried.items() if now_s - at < AGAIN_S}
        self._waiting = {n: size for n, size in self._waiting.items() if n in self._tried}
        chosen: list[NodeId] = []
        for one in wanted:
            size = sizes[one.node]
            if size <= room:
                room -= size
                chosen.append(one.node)
                self._waiting[one.node], self._tried[one.node] = size, now_s
        return chosen

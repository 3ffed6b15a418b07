"""What to evict, how much, and when: as cachefilesd has it, with the cost of fetching again.

Content is evicted in the order of the time until which it is worth its room: its last use, and a
grace on top. The grace grows with how often it was used, and with what a byte of it costs to fetch
again. Over a link with some latency that is much more for a small file than for a large one: small
files are cheap to keep and dear to fetch one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from awayfs.core.types import Space

HOUR_NS = 3_600_000_000_000
MOST_COST = 64.0
"""So many times the cost of a byte in a large file is the most that counts."""
MOST_USES = 255
LIMIT_BEGIN, LIMIT_END = 0.95, 0.90
"""With a size limit, culling begins above the first part of it and goes on to the second."""
_LARGE = 256 << 10
_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class LinkCost:
    """What fetching costs, as measured: the time of an answer, and how fast bytes come then."""

    latency_s: float = 0.02
    bytes_per_s: float = 10e6

    def after(self, fetched: int, seconds: float) -> LinkCost:
        """With one more fetch taken into account; small ones tell of latency, large of speed."""
        seconds = max(seconds, 1e-6)
        if fetched < _LARGE:
            waited = max(seconds - fetched / self.bytes_per_s, 1e-6)
            return replace(self, latency_s=_mixed(self.latency_s, waited))
        moving = max(seconds - self.latency_s, seconds / 10)
        return replace(self, bytes_per_s=_mixed(self.bytes_per_s, fetched / moving))

    def seconds(self, size: int) -> float:
        """The time to fetch so many bytes of one file."""
        return self.latency_s + size / self.bytes_per_s


def _mixed(old: float, new: float) -> float:
    return old + (new - old) * _WEIGHT


def keep_until(used_ns: int, uses: int, size: int, cost: LinkCost) -> int:
    """Until when content is worth its room; what is lower goes first. Times in ns.

    Never before the last use. ``size`` in bytes, ``uses`` of lately.
    """
    size = max(size, 1)
    per_byte = cost.seconds(size) / (size / cost.bytes_per_s)
    weight = min(per_byte, MOST_COST) * math.log2(1 + min(max(uses, 1), MOST_USES))
    return used_ns + int(weight * HOUR_NS)


# -- how much ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shortage:
    """What has to go: bytes and files; ``stopped``: nothing new may be kept."""

    bytes: int = 0
    files: int = 0
    stopped: bool = False

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.files > 0


def shortage(disk: Space, marks: Mapping[str, float], culling: bool) -> Shortage:
    """What the disk that the cache is on lacks, in percent of it.

    Culling begins below ``bcull`` or ``fcull``; when it has begun it goes on until ``brun`` and
    ``frun``. A file system that does not count files (0) lacks none.
    """
    blocks, blocks_stop = _lack(disk.blocks, disk.blocks_available, marks, "b", culling)
    files, files_stop = _lack(disk.files, disk.files_free, marks, "f", culling)
    return Shortage(blocks * disk.block_size, files, blocks_stop or files_stop)


def _lack(
    total: int, free: int, marks: Mapping[str, float], kind: str, culling: bool
) -> tuple[int, bool]:
    if total <= 0:
        return 0, False
    percent = 100 * free / total
    begun = culling or percent < marks[kind + "cull"]
    lack = math.ceil(total * marks[kind + "run"] / 100) - free if begun else 0
    return max(lack, 0), percent < marks[kind + "stop"]


def over_limit(usage: int, limit: int | None, culling: bool) -> int:
    """Bytes that have to go so that a size limit is not met with in the middle of something."""
    if limit is None or usage <= limit * (LIMIT_END if culling else LIMIT_BEGIN):
        return 0
    return usage - int(limit * LIMIT_END)


# -- what is told of it ------------------------------------------------------------------------


def shown_space(server: Space | None, local: Space, room: int, unsent: int) -> Space:
    """What ``statfs`` of the mount says: what can really be written.

    ``room``: bytes that the cache can take, with what it would cull for them. ``unsent``: bytes
    that the server's free space has to take first. ``server`` None: it is away, and only the cache
    takes anything.
    """
    size = local.block_size
    if server is None:
        free = min(max(room, 0) // size, local.blocks)
        return replace(local, blocks_free=free, blocks_available=free)
    taken = -(-unsent // server.block_size)
    most = max(room, 0) // server.block_size
    files = [n for n in (server.files_free, local.files_free) if n]
    return replace(
        server,
        blocks_free=min(max(server.blocks_free - taken, 0), most),
        blocks_available=min(max(server.blocks_available - taken, 0), most),
        files_free=min(files) if server.files else 0,
    )

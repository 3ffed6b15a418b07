"""Which bytes of a file are here: a sorted list of ranges that neither overlap nor adjoin."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from awayfs.core.types import Range


class RangeMap:
    """``starts`` and ``ends`` run in parallel. No I/O: the store keeps rows in step."""

    __slots__ = ("ends", "starts")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in pairs:
            self.starts.append(start)
            self.ends.append(end)

    def covers(self, start: int, end: int) -> bool:
        """Whether all bytes of start to end are here; an empty range always is."""
        if start >= end:
            return True
        at = bisect_right(self.starts, start) - 1
        return at >= 0 and self.ends[at] >= end

    def missing(self, start: int, end: int) -> list[Range]:
        """The parts of start to end that are not here."""
        gaps: list[Range] = []
        at = bisect_right(self.ends, start)
        while start < end:
            if at == len(self.starts) or self.starts[at] >= end:
                gaps.append(Range(start, end))
                break
            if self.starts[at] > start:
                gaps.append(Range(start, self.starts[at]))
            start = self.ends[at]
            at += 1
        return gaps

    def add(self, start: int, end: int) -> tuple[list[tuple[int, int]], int, int]:
        """Merge a range in: the old ranges it swallowed, and the one that stands there now."""
        first = bisect_left(self.ends, start)
        last = bisect_right(self.starts, end)
        old = list(zip(self.starts[first:last], self.ends[first:last], strict=True))
        if old:
            start = min(start, old[0][0])
            end = max(end, old[-1][1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]
        return old, start, end

    def truncate(self, size: int) -> int:
        """Forget what lies at ``size`` and beyond; the number of bytes forgotten."""
        before = self.total()
        keep = bisect_left(self.starts, size)
        del self.starts[keep:], self.ends[keep:]
        if self.ends and self.ends[-1] > size:
            self.ends[-1] = size
        return before - self.total()

    def total(self) -> int:
        """Bytes that are here."""
        return sum(self.ends) - sum(self.starts)

    def ranges(self) -> list[Range]:
        return [Range(start, end) for start, end in zip(self.starts, self.ends, strict=True)]


def pack(ranges: Iterable[Range]) -> bytes:
    """Pairs of little-endian 64-bit integers."""
    edges = array("q", [edge for r in ranges for edge in (r.start, r.end)])
    if sys.byteorder == "big":
        edges.byteswap()
    return edges.tobytes()


def unpack(blob: bytes) -> list[Range]:
    """The opposite of ``pack``. Raises ValueError on a blob of another length."""
    edges = array("q")
    edges.frombytes(blob)
    if sys.byteorder == "big":
        edges.byteswap()
    return [Range(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]

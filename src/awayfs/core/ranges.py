"""Arithmetic on byte ranges: which parts of a file are here, and which to fetch.

A *range set* is a list of ``Range`` sorted by start, none empty, none touching the next. All
functions take and return such lists and change none of their arguments.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from awayfs.core.types import Range

BLOCK = 4096
"""Readahead begins and ends at multiples of this (the kernel's page)."""


def add(ranges: Sequence[Range], new: Range) -> list[Range]:
    """The union with ``new``; ranges that overlap or touch become one."""
    if new.end <= new.start:
        return list(ranges)
    first = bisect_left(ranges, new.start, key=lambda r: r.end)
    last = bisect_right(ranges, new.end, key=lambda r: r.start)
    start, end = new.start, new.end
    if first < last:
        start = min(start, ranges[first].start)
        end = max(end, ranges[last - 1].end)
    return [*ranges[:first], Range(start, end), *ranges[last:]]


def subtract(ranges: Sequence[Range], gone: Range) -> list[Range]:
    """What is left without ``gone``."""
    if gone.end <= gone.start:
        return list(ranges)
    left: list[Range] = []
    for r in ranges:
        if r.end <= gone.start or r.start >= gone.end:
            left.append(r)
            continue
        if r.start < gone.start:
            left.append(Range(r.start, gone.start))
        if r.end > gone.end:
            left.append(Range(gone.end, r.end))
    return left


def missing(ranges: Sequence[Range], wanted: Range) -> list[Range]:
    """The parts of ``wanted`` that are not in the set."""
    gaps: list[Range] = []
    position = wanted.start
    for r in ranges[bisect_right(ranges, wanted.start, key=lambda r: r.end) :]:
        if r.start >= wanted.end:
            break
        if r.start > position:
            gaps.append(Range(position, r.start))
        position = max(position, r.end)
    if position < wanted.end:
        gaps.append(Range(position, wanted.end))
    return gaps


def covers(ranges: Sequence[Range], wanted: Range) -> bool:
    """Whether all of ``wanted`` is in the set (an empty range always is)."""
    return not missing(ranges, wanted)


def truncate(ranges: Sequence[Range], size: int) -> list[Range]:
    """The set of a file cut to ``size``; growing a file adds nothing."""
    return [Range(r.start, min(r.end, size)) for r in ranges if r.start < size]


def length(ranges: Sequence[Range]) -> int:
    """Bytes in the set."""
    return sum(r.end - r.start for r in ranges)


def readahead(previous_end: int, offset: int, length: int, size: int, window: int) -> Range:
    """What to fetch for a read of ``length`` bytes at ``offset``.

    A read that goes on where the last one ended is taken for sequential and gets ``window``
    more bytes; any other gets its own blocks only. The answer lies inside the file.
    """
    start = min(offset, size)
    end = offset + length + (window if offset == previous_end else 0)
    start -= start % BLOCK
    end += -end % BLOCK
    return Range(start, max(start, min(end, size)))

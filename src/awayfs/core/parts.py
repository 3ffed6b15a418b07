"""How a large upload is cut into parts, each durable before the next: rules. Pure.

What a cut link costs is one part. A part costs some round trips and an fsync on the server, so
that a good link has large ones, and only of large files.
"""

from __future__ import annotations

from typing import Final

FIRST_PART: Final = 8 << 20
FIRST_WEAK_PART: Final = 1 << 20
SMALLEST_PART: Final = 256 << 10
LARGEST_PART: Final = 64 << 20
SHORT_S: Final = 2.0
LONG_S: Final = 10.0
"""A part that took less is followed by a larger one; one that took more, by a smaller."""


def first_part(weak: bool) -> int:
    """Bytes of the first part over a link; a file that is no larger goes out in one."""
    return FIRST_WEAK_PART if weak else FIRST_PART


def next_part(length: int, took_s: float) -> int:
    """Bytes of the next part, after one of ``length`` that took so long."""
    if took_s < SHORT_S:
        return min(LARGEST_PART, length * 2)
    if took_s > LONG_S:
        return max(SMALLEST_PART, length // 2)
    return length

"""How a hoard walk cuts its work. Pure.

A walk fetches small files many at a time and large ones in pieces, so that what a cut link costs
is one piece, and so that a user's read never waits for more than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from awayfs.core.types import NodeId

SMALL: Final = 64 << 10
"""A file of at most so many bytes is fetched together with others."""
BATCH_FILES: Final = 256
BATCH_BYTES: Final = 2 << 20
FIRST_PIECE: Final = 1 << 20
SMALLEST_PIECE: Final = 64 << 10
LARGEST_PIECE: Final = 8 << 20
SHORT_S: Final = 0.5
LONG_S: Final = 2.0
"""A piece that took less is followed by a larger one; one that took more, by a smaller."""


def batches(files: Iterable[tuple[NodeId, int]]) -> Iterator[list[NodeId]]:
    """Small files, (node, bytes), cut into what is fetched with one call, in their order."""
    batch: list[NodeId] = []
    held = 0
    for node, size in files:
        if batch and (len(batch) == BATCH_FILES or held + size > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(node)
        held += size
    if batch:
        yield batch


def next_piece(length: int, took_s: float) -> int:
    """How many bytes of a large file to ask for next, after ``length`` that took so long."""
    if took_s < SHORT_S:
        return min(LARGEST_PIECE, length * 2)
    if took_s > LONG_S:
        return max(SMALLEST_PIECE, length // 2)
    return length

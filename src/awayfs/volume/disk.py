"""The file system that the cache is on."""

from __future__ import annotations

import os

from awayfs.core.types import Space


def space_of(directory: str) -> Space:
    """Its space. What is kept for root, or for the file system's own needs, is nobody's here."""
    status = os.statvfs(directory)
    return Space(
        block_size=status.f_frsize,
        blocks=status.f_blocks,
        blocks_free=status.f_bfree,
        blocks_available=status.f_bavail,
        files=status.f_files,
        files_free=status.f_favail,
    )


def free_above(disk: Space, percent: float) -> int:
    """Bytes that may be used so that so much of the disk is left free; negative: too many are."""
    least = int(disk.blocks * percent / 100)
    return (disk.blocks_available - least) * disk.block_size

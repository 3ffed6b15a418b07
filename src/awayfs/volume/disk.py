"""The file system that the cache is on."""

from __future__ import annotations

import os

from awayfs.core.types import Space


def space_of(directory: str) -> Space:
    """Its space; what is free is what we may use of it."""
    status = os.statvfs(directory)
    root = os.geteuid() == 0
    return Space(
        block_size=status.f_frsize,
        blocks=status.f_blocks,
        blocks_free=status.f_bfree,
        blocks_available=status.f_bfree if root else status.f_bavail,
        files=status.f_files,
        files_free=status.f_ffree if root else status.f_favail,
    )

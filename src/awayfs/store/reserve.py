"""Room on the disk that is kept for what a full disk must not keep from happening.

A removal, the outcome of a replayed record and an orderly end all have to be written down before
they can free anything. So a file takes up some room that nobody uses; it is given up when the
disk is full and made again once there is room. Until then nothing else may grow.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final

SIZE: Final = 4 << 20
_PART: Final = 8
"""On a small disk the reserve is this part of what is free when it is made first."""
_SMALLEST: Final = 128 << 10
_AGAIN_S: Final = 1.0


class Reserve:
    """The file, and whether it was given up."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._looked = 0.0
        self._size = 0
        self.given_up = False

    def make(self) -> bool:
        """Have it, if there is room for it and as much again; whether it is there."""
        self._looked = time.monotonic()
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            there = os.fstat(fd).st_blocks * 512
            if there < _SMALLEST and not self._allocate(fd):
                return False
            self._size = self._size or there
        finally:
            os.close(fd)
        self.given_up = False
        return True

    def give_up(self) -> bool:
        """Free its room; False when there was none."""
        try:
            if not os.stat(self._path).st_blocks:
                return False
            os.truncate(self._path, 0)
        except OSError:
            return False
        self.given_up = True
        return True

    def check(self) -> None:
        """Before anything grows: ENOSPC while the reserve is given up and cannot be remade."""
        if not self.given_up:
            return
        if time.monotonic() - self._looked > _AGAIN_S and self.make():
            return
        raise OSError(errno.ENOSPC, "the disk that the cache is on is full")

    def _allocate(self, fd: int) -> bool:
        """Take up room, but never most of what is free; False, and nothing, if there is too little.

        What was given up must come back whole: else it would soon be nothing.
        """
        space = os.fstatvfs(fd)
        free = (space.f_bfree if os.geteuid() == 0 else space.f_bavail) * space.f_frsize
        size = self._size or min(SIZE, free // _PART)
        if size < _SMALLEST or free < 2 * size:
            return False
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.ftruncate(fd, 0)
            return False
        self._size = size
        return True

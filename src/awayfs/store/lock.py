"""One daemon a volume: an flock on the file ``lock``, which names the holder."""

from __future__ import annotations

import fcntl
import os

from awayfs.control.volumes import LOCK
from awayfs.core.errors import StoreInUse


class Lock:
    """Held as long as the descriptor is open, so a killed holder lets go by itself."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, directory: str) -> Lock:
        """Raises StoreInUse with the pid of the holder, and OSError."""
        fd = os.open(f"{directory}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreInUse(f"{directory} is in use by process {holder}") from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError:
            pass  # a full disk: the lock holds without the pid
        return cls(fd)

    def release(self) -> None:
        os.close(self._fd)

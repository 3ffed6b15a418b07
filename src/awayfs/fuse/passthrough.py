"""Let the kernel read and write an open file's backing file by itself.

`open_backing` registers a local file with the FUSE connection and gives a backing id.
An OPEN or CREATE answered with FOPEN_PASSTHROUGH and that id is served by the kernel:
no READ and no WRITE request comes. Needs CAP_SYS_ADMIN, Linux 6.9 with
CONFIG_FUSE_PASSTHROUGH, and `Negotiated.passthrough`.

The rules (``fs/fuse/iomode.c``; seen on Linux 6.18, and held by tests/mount):

* While an inode is open for passthrough, every other open of it must carry
  FOPEN_PASSTHROUGH and the same backing id. Another id, or none, fails with EIO
  (with FOPEN_DIRECT_IO alone, too).
* While it is open through the page cache (neither flag), a passthrough open fails with
  EIO. Opens with FOPEN_DIRECT_IO alone do not stand in the way of a later passthrough.
* FOPEN_KEEP_CACHE beside FOPEN_PASSTHROUGH fails with EIO.
* FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO: READ and WRITE requests come to the daemon, and a
  passthrough reader sees what the daemon writes into the backing file at once. Only
  a shared mapping of such a file goes past the daemon, to the backing file
  (``Files.note_mappable``).
* FOPEN_PASSTHROUGH alone, opened for writing: no write is told. The kernel asks for the
  attributes again after its own writes, so answer GETATTR from the backing file's size.
* FSYNC, FALLOCATE, LSEEK, SETATTR (truncation) and COPY_FILE_RANGE still come.
* The mode ends with the last such file's close, not with our answer to its RELEASE.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from awayfs.fuse import wire

_UNAVAILABLE = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS})
_available: dict[int, bool] = {}


def open_backing(fuse_fd: int, file_fd: int) -> int:
    """Register the open regular file `file_fd`; the backing id, greater than 0.

    The kernel keeps its own reference: `file_fd` may be closed. Raises OSError: EPERM
    without CAP_SYS_ADMIN or without passthrough in INIT, ELOOP if the file lies on a
    stacked file system deeper than `max_stack_depth`, EOPNOTSUPP or ENOTTY if the kernel
    has no passthrough.
    """
    backing_map = bytearray(wire.BACKING_MAP.pack(fd=file_fd))
    backing_id: int = fcntl.ioctl(fuse_fd, wire.DEV_IOC_BACKING_OPEN, backing_map)
    return backing_id


def close_backing(fuse_fd: int, backing_id: int) -> None:
    """Forget `backing_id`. Files opened with it stay open. OSError ENOENT if it is unknown."""
    fcntl.ioctl(fuse_fd, wire.DEV_IOC_BACKING_CLOSE, backing_id.to_bytes(4, sys.byteorder))


def probe(fuse_fd: int) -> bool:
    """Whether `open_backing` works on this connection; asked once, after INIT, then remembered."""
    known = _available.get(fuse_fd)
    if known is None:
        known = _available[fuse_fd] = _try(fuse_fd)
    return known


def forget_probe(fuse_fd: int) -> None:
    """Forget what `probe` found, when `fuse_fd` is closed and its number may come again."""
    _available.pop(fuse_fd, None)


def _try(fuse_fd: int) -> bool:
    memory = os.memfd_create("awayfs-probe", os.MFD_CLOEXEC)
    try:
        close_backing(fuse_fd, open_backing(fuse_fd, memory))
    except OSError as error:
        if error.errno in _UNAVAILABLE:
            return False
        raise
    finally:
        os.close(memory)
    return True

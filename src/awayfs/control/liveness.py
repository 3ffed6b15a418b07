"""Whether the daemon behind a mount is gone, where no description of it is found."""

from __future__ import annotations

import errno
import os
import select
import signal
import time

_WITHIN = 1.0
_GONE = (errno.ENOTCONN, errno.ECONNABORTED)


def is_dead(mountpoint: bytes) -> bool:
    """Whether the kernel has nobody to ask about this FUSE mount any more.

    It says so at once. Whoever only does not answer is alive. The question is asked in a child,
    which may hang in it; with nothing open that somebody waits for the end of.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _tell(mountpoint, writer)
    os.close(writer)
    try:
        if select.select([reader], [], [], _WITHIN)[0]:
            said = os.read(reader, 1)
            os.waitpid(child, 0)
            return said == b"x"
        os.kill(child, signal.SIGKILL)
        _wait_for_end(child)
        return False
    finally:
        os.close(reader)


def _wait_for_end(child: int) -> None:
    """Until a killed child is gone: while it is in there, the mount is in use.

    One that the kernel does not let go is not waited for.
    """
    until = time.monotonic() + _WITHIN
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)


def _tell(mountpoint: bytes, writer: int) -> None:
    """In the child: ask, say ``x`` for dead and ``.`` for anything else, and end."""
    said = b"."
    try:
        os.closerange(0, writer)
        os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
        os.statvfs(mountpoint)  # stat may be answered from the kernel's cache
    except OSError as error:
        said = b"x" if error.errno in _GONE else b"."
    finally:
        os.write(writer, said)
        os._exit(0)

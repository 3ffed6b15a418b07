"""Unix socket addresses of any length, and whether somebody listens at one.

The kernel takes 107 bytes; a deep state directory is longer. ``/proc/self/fd`` gives every
directory a short name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 107


@contextmanager
def short(path: str) -> Iterator[str]:
    """A name of the path that fits into a socket address, good inside the block."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)


def connectable(path: str) -> bool:
    """Whether somebody listens there; one that is too busy to accept counts, and never blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with short(path) as name:
                probe.connect(name)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True

"""``put`` for an adapter that has no step of its own for it: what is staged takes its name."""

from __future__ import annotations

import os

from awayfs.core.types import Attributes, Expected, OpId, Outcome, RemotePath
from awayfs.ports.remote import Remote

LARGEST_PUT = 32 << 10
"""So that what is under way fits into the memory of a small machine."""


async def put_in_steps(
    remote: Remote,
    op: OpId,
    path: RemotePath,
    content: bytes,
    attributes: Attributes,
    expected: Expected,
) -> Outcome:
    """See ``Remote.put``."""
    fd = os.memfd_create("awayfs-put", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        await remote.stage(op, path.rpartition(b"/")[0], fd, len(content), attributes)
    finally:
        os.close(fd)
    return await remote.replace(op, path, expected)

"""``put`` for an adapter that has no step of its own for it: what is staged takes its name.

And ``put_many`` for all of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from awayfs.core.types import Attributes, Expected, OpId, Outcome, RemotePath
from awayfs.ports.remote import Put, Remote
from awayfs.remotes import progress

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


async def put_each(remote: Remote, puts: Sequence[Put]) -> list[Outcome | Exception]:
    """See ``Remote.put_many``."""
    parts = zip(puts, progress.parts(len(puts)), strict=True)
    each = (_put_as_part(remote, one, part) for one, part in parts)
    outcomes: list[Outcome | Exception] = []
    for outcome in await asyncio.gather(*each, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        outcomes.append(outcome)
    return outcomes


async def _put_as_part(remote: Remote, put: Put, part: progress.Listener) -> Outcome:
    progress.listener.set(part)  # in the context of a task of its own
    try:
        return await remote.put(put.op, put.path, put.content, put.attributes, put.expected)
    finally:
        progress.tick()

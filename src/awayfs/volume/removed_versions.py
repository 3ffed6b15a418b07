"""What was removed here is the base of the conflict about it, and is kept with that.

The server's version is shown again, and the cache lets go of the one before. Without it nobody
could see what the server's change was made to, or decide for what was there before both.
"""

from __future__ import annotations

import asyncio
import logging
import os

from awayfs.core.types import Kind, NodeId, Range
from awayfs.store.files import clone_or_copy, fsync_path, rename_back, unlink_quietly
from awayfs.store.server import ServerNode
from awayfs.volume.context import Context
from awayfs.volume.revisions import Found, Revisions, is_whole

log = logging.getLogger(__name__)


class RemovedVersions:
    """Keeps them, where all of one is here and it is not too large to be copied."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._revisions = Revisions(context)

    async def staged(self, node: NodeId) -> str | None:
        """A durable copy of a removed file as it was last in step; None where there is none.

        The caller takes it (``put``) or deletes it.
        """
        found = self._found(node)
        if found is None:
            return None
        base, source = found
        change, staged = self._store.content.change(node), self._store.content.stage_path()
        loop, limit = asyncio.get_running_loop(), self._context.options.base_limit
        times = (base.mtime_ns, base.mtime_ns)
        if not await loop.run_in_executor(
            None, _copy, source.path, staged, base.size, limit, times
        ):
            return None
        if self._store.content.change(node) != change or self._found(node) != found:
            unlink_quietly(staged)  # who had it open wrote to it meanwhile
            return None
        return staged

    def put(self, number: int, staged: str) -> None:
        """Such a copy becomes the conflict's; inside the transaction that says so."""
        path = self._store.conflicts.variant_path(number, "base")
        os.rename(staged, path)
        self._store.db.on_rollback(rename_back, path, staged)
        self._store.conflicts.update(number, base_variant=True)

    def _found(self, node: NodeId) -> tuple[ServerNode, Found] | None:
        base = self._store.server.get(node)
        if base is None or base.kind is not Kind.FILE:
            return None
        for one in self._revisions.of_token(node, base.token):
            if is_whole([one], base.size):
                return base, one
        return None


def _copy(source: str, target: str, size: int, limit: int, times: tuple[int, int]) -> bool:
    """Blocking; whether there is a copy, which is durable then, and bears its time."""
    try:
        if clone_or_copy(source, target, [Range(0, size)], limit) is None:
            return False
        os.truncate(target, size)
        os.utime(target, ns=times)
        fsync_path(target)
    except OSError as error:
        log.warning("a removed version is not kept: %s", error)
        unlink_quietly(target)
        return False
    return True

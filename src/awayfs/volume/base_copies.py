"""Keeping the base of a large file before it is changed, without holding up the event loop.

Where the file system shares blocks a base costs nothing. Elsewhere it is a copy: made by a thread,
while the change that asked for it waits and everybody else goes on. The copy lies in ``staging/``,
and becomes the base in the transaction that journals the change (``Journaling.store``), if the
content is still what was copied; so a daemon that dies before that leaves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from awayfs.core.types import NodeId
from awayfs.volume.context import Context
from awayfs.volume.fault import fault

log = logging.getLogger(__name__)

TRIES = 3


class BaseCopies:
    """Copies under way, one a node."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._store = context.store
        self._copying: dict[NodeId, asyncio.Task[None]] = {}

    def before_change(self, node: NodeId) -> Coroutine[Any, Any, None] | None:
        """What a change of a node's content has to wait for; None, mostly, for nothing."""
        if self._store.journal.has_store(node):
            return None
        if node not in self._copying and not self._is_needed(node):
            return None
        return self._wait(node)

    def _is_needed(self, node: NodeId) -> bool:
        if self._store.server.get(node) is None:
            return False
        return self._store.content.base_copy(node, self.context.options.base_limit) is not None

    async def _wait(self, node: NodeId) -> None:
        task = self._copying.get(node)
        if task is None:
            task = self.context.spawn(self._copy(node))
            self._copying[node] = task
            task.add_done_callback(lambda _: self._copying.pop(node, None))
        await asyncio.shield(task)

    async def _copy(self, node: NodeId) -> None:
        """Until the copy is of what is there; what keeps changing is copied on the loop."""
        loop, limit = asyncio.get_running_loop(), self.context.options.base_limit
        for _ in range(TRIES):
            copy = self._store.content.base_copy(node, limit)
            if copy is None:
                return
            try:
                await loop.run_in_executor(None, copy.run)
            except OSError as error:
                log.warning("the base of node %d is not kept: %s", node, error)
                return
            fault("base.copied")
            self._store.content.bases.offer(copy)

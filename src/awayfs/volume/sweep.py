"""Looking at all directories that are known, once after each absence, while nobody asks.

What changed on the server meanwhile is then known before anybody comes to it, and known the next
time the server is away. Whoever does ask comes first: as long as a walk has directories listed
ahead of it, nothing is listed here. Nor is it where nothing stays fresh: who lists a directory that
is being listed shares that listing, and it would have begun before he asked.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

from awayfs.core.errors import RemoteError
from awayfs.core.types import ROOT, NodeId
from awayfs.volume.ahead import SHORTEST_FRESH_S, LookAhead, coming
from awayfs.volume.context import Context
from awayfs.volume.observe import Observer
from awayfs.volume.slices import Slices

log = logging.getLogger(__name__)

STEADY_S = 2.0
"""So long the link has to hold before anything is listed: one that comes and goes is of no use."""
TOGETHER = 2


class Sweep:
    """Lists what was listed before the absence, in the order of a walk."""

    def __init__(self, context: Context, observer: Observer, ahead: LookAhead) -> None:
        self._context = context
        self._server = context.store.server
        self._observer = observer
        self._ahead = ahead
        self._back = asyncio.Event()

    def wake(self) -> None:
        """The server is there again."""
        self._back.set()

    async def run(self) -> None:
        """Sweep after each absence; runs forever."""
        while True:
            await self._back.wait()
            self._back.clear()
            await asyncio.sleep(STEADY_S)
            if self._back.is_set() or self._context.fresh_s(ROOT) < SHORTEST_FRESH_S:
                continue
            try:
                await self._sweep(self._server.epoch)
            except OSError as error:
                log.warning("what was known before the absence is not all looked at: %s", error)

    async def _sweep(self, epoch: int) -> None:
        """All that is outdated, until it is known, or the server is away again."""
        directories = itertools.chain((ROOT,), coming(self._context.store.nodes, ROOT))
        gate, slices, count = asyncio.Semaphore(TOGETHER), Slices(), 0
        for directory in directories:
            await slices.pause()
            await self._ahead.idle()
            if not self._context.link.usable or epoch != self._server.epoch:
                return
            if self._server.listed_ns(directory) == 0:
                count += 1
                await gate.acquire()
                self._context.spawn(self._list(directory, gate))
        log.info("%d directories looked at after an absence", count)

    async def _list(self, directory: NodeId, gate: asyncio.Semaphore) -> None:
        try:
            await self._observer.directory(directory)
        except (RemoteError, OSError) as error:
            log.debug("directory %d could not be listed: %s", directory, error)
        finally:
            gate.release()

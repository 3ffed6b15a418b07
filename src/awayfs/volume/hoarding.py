"""When hoard walks begin by themselves.

Over everything pinned: when the server answers again, and from time to time. Over a single node
soon after it came to a pinned place, or its content went because the server has another one. A
weak or metered link is left alone: what is due waits until it is none any more, unless somebody
asks for a walk by command.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing

from awayfs.core.errors import AwayfsError
from awayfs.core.modes import Mode
from awayfs.core.types import NodeId
from awayfs.volume.context import Context
from awayfs.volume.hoard import Hoard, Walk

log = logging.getLogger(__name__)

SOON_S = 0.5
"""What comes to a pinned place rarely comes alone."""
MANY = 10_000
"""More single nodes than this are a reason to look at everything."""
AGAIN_S = 60.0
"""After a walk in which something failed, the next one comes no later than that."""


class Hoarding:
    """Walks as they become due."""

    def __init__(self, context: Context, hoard: Hoard) -> None:
        self._context = context
        self._hoard = hoard
        self._due: set[NodeId] = set()
        self._all = False
        self._next_s: float | None = None
        self._places: dict[NodeId, int] = {}
        self._wake = asyncio.Event()
        context.store.nodes.on_move.append(lambda node, _directory: self.look_at(node))
        context.on_content_gone = self.look_at
        context.effective.on_change.append(self._settings_changed)

    def begin(self) -> None:
        """Walk over everything pinned, soon."""
        self._all = True
        self._wake.set()

    def _settings_changed(self) -> None:
        places = self._hoard.places_by_setting()
        if places != self._places:
            self._places = places
            self.begin()

    def look_at(self, node: NodeId) -> None:
        """A node has another name, or lost its content: it may be pinned, and not here."""
        if self._all or len(self._due) > MANY:
            self._all = True
        else:
            self._due.add(node)
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._pause()
            await self._hoard.idle.wait()
            if not self._may_walk():
                continue
            due, self._due = self._due, set()
            everything, self._all = self._all, False
            if everything:
                starts = self._hoard.pinned_places()
            else:
                starts = await self._hoard.lacking(due)
            if everything:
                self._plan(self._interval_s())
            if starts and not await self._walk(starts):
                self._plan(AGAIN_S)

    async def _pause(self) -> None:
        """Until something is due that may be done."""
        left_s = None if self._next_s is None else max(0.0, self._next_s - time.monotonic())
        try:
            async with asyncio.timeout(left_s):  # wait_for of 3.11 may swallow a cancellation
                await self._wake.wait()
        except TimeoutError:
            self._all, self._next_s = True, None
        await asyncio.sleep(SOON_S)
        self._wake.clear()

    def _may_walk(self) -> bool:
        return may_fetch_unasked(self._context)

    async def _walk(self, starts: list[NodeId]) -> bool:
        """Whether all of it is here now."""
        walk = Walk()
        try:
            async with aclosing(self._hoard.walk(*starts, pinned_only=True)) as steps:
                async for walk in steps:  # noqa: B007
                    if not self._may_walk():
                        self._all = True
                        return False
        except (AwayfsError, OSError) as error:
            log.info("hoard walk: %s", error)
            return False
        for path, why in walk.failed[:5]:
            log.info("hoard walk: %s: %s", path, why)
        return not walk.failed

    def _interval_s(self) -> float | None:
        seconds = float(self._context.effective.value("walk-interval"))
        return seconds or None

    def _plan(self, after_s: float | None) -> None:
        """The next walk over everything comes no later than in so many seconds."""
        if after_s is not None:
            at = time.monotonic() + after_s
            self._next_s = at if self._next_s is None else min(self._next_s, at)


def may_fetch_unasked(context: Context) -> bool:
    """Whether the link is there and strong enough for what nobody waits for."""
    return context.link.usable and context.link.state.mode is not Mode.WRITE_BEHIND

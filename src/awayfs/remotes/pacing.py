"""How fast content may move: the volume's limits, kept in the process that moves it.

As with ``progress``, whoever runs a call sets ``pacer`` in its context; without one nothing is
held back. ``unasked`` marks what nobody waits for: it lets all others go first. Who waits here
ticks, so that a slow link of the user's own making is no dead server.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from awayfs.core.pacing import Pace
from awayfs.remotes import progress

LOOK_S = 0.2
"""Longest sleep: the limit may be another one by then, and a cancelled call has to end."""
SMALLEST_CHUNK = 16 << 10
CHUNK_S = 0.25
AHEAD_S = 0.5


class Flow:
    """Bytes in one direction; from any thread. ``limit``: bytes a second, None for no limit."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._pace = Pace()
        self._lock = threading.Lock()

    def wait_s(self, count: int, *, yields: bool) -> float:
        """Seconds to wait before ``count`` bytes move. With ``yields``, ask again after them."""
        with self._lock:
            pace = self._pace.yield_s if yields else self._pace.wait_s
            return pace(time.monotonic(), count, self.limit)

    def chunk(self, most: int) -> int:
        """Bytes worth moving at once: a short time's."""
        if self.limit is None:
            return most
        return max(1, min(most, max(SMALLEST_CHUNK, int(self.limit * CHUNK_S))))

    def ahead(self, most: int, chunk: int) -> int:
        """Chunks worth having on the way at once: others have their turn soon."""
        if self.limit is None:
            return most
        return max(2, min(most, int(self.limit * AHEAD_S / chunk)))


class Pacer:
    """The limits of one volume."""

    def __init__(self) -> None:
        self.up = Flow()
        self.down = Flow()

    def limit(self, up: int | None, down: int | None) -> None:
        """Bytes a second at most from now on."""
        self.up.limit, self.down.limit = up, down


_UNLIMITED = Pacer()
pacer: ContextVar[Pacer] = ContextVar("pacer", default=_UNLIMITED)
unasked: ContextVar[bool] = ContextVar("unasked", default=False)


@contextmanager
def nobody_waits() -> Iterator[None]:
    """What is called meanwhile yields to all others."""
    before = unasked.set(True)
    try:
        yield
    finally:
        unasked.reset(before)


async def up(count: int) -> None:
    """Wait until ``count`` bytes may be sent."""
    await _turn(pacer.get().up, count, yields=True)


async def down(count: int) -> None:
    """Wait until ``count`` bytes may be asked for."""
    await _turn(pacer.get().down, count, yields=unasked.get())


def up_in_thread(count: int) -> None:
    """As ``up``, where waiting blocks nobody else."""
    _turn_in_thread(pacer.get().up, count, yields=True)


def down_in_thread(count: int) -> None:
    """As ``down``, where waiting blocks nobody else."""
    _turn_in_thread(pacer.get().down, count, yields=unasked.get())


async def _turn(flow: Flow, count: int, *, yields: bool) -> None:
    if flow.limit is None:
        return
    left_s = flow.wait_s(count, yields=yields)
    while left_s > 0:
        step_s = min(left_s, LOOK_S)
        await asyncio.sleep(step_s)
        progress.tick()
        left_s = flow.wait_s(count, yields=True) if yields else left_s - step_s


def _turn_in_thread(flow: Flow, count: int, *, yields: bool) -> None:
    if flow.limit is None:
        return
    left_s = flow.wait_s(count, yields=yields)
    while left_s > 0:
        step_s = min(left_s, LOOK_S)
        time.sleep(step_s)
        progress.tick()
        left_s = flow.wait_s(count, yields=True) if yields else left_s - step_s

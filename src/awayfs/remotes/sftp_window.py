"""How many bytes of file data may be on the way over a connection."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from awayfs.remotes import progress

KIB = 1024
SMALLEST_WINDOW = 16 * KIB
LARGEST_WINDOW = 4096 * KIB
CHUNKS_AHEAD = 32
FIRST_WINDOW = 64 * KIB
LARGEST_FIRST = 256 * KIB
"""Two seconds of a link of 1 Mbit/s, which is when a silent one is given up."""

LARGEST_AGAIN = 1024 * KIB
"""Where answers take what they took: it is hardly that thin then."""

AS_LONG = 2
SLACK_S = 0.005
"""What an answer may take for that, compared with the last time."""

QUEUED_LITTLE_S = 0.1
QUEUED_MUCH_S = 0.25
TELL_EVERY_S = 0.05


class _Waiting(Struct):
    """Somebody who waits for so many bytes of room, and whom to tell that others move."""

    count: int
    turn: asyncio.Future[None]
    listener: progress.Listener | None


class Way(Struct, frozen=True):
    """What is known of a link that was used: its ends, what the first answers took, and how many
    bytes on their way it bore.
    """

    addresses: tuple[str, str] | None
    answered_s: float
    borne: int = 0


def first_window(now: Way, before: Way | None) -> int:
    """How many bytes to begin with: half of what the same link bore; it may be thinner now."""
    if before is None or now.addresses is None or now.addresses != before.addresses:
        return FIRST_WINDOW
    as_long = now.answered_s <= before.answered_s * AS_LONG + SLACK_S
    return max(FIRST_WINDOW, min(before.borne // 2, LARGEST_AGAIN if as_long else LARGEST_FIRST))


class Window:
    """How many bytes of file data may be on the way.

    A keepalive and a user's ``ls`` queue behind the data that was sent before them. On a slow
    link a fixed window of megabytes would hold the keepalive's answer back for longer than
    the three seconds after which the server counts as gone. So the window follows the time
    that data waits beyond the link's own round trip: it grows below QUEUED_LITTLE_S and
    halves above QUEUED_MUCH_S. What somebody waits for goes before the rest that waits for room.

    ``is_tried``: it was half full at least, answered or not, or too large. What a little question
    tells of it is nothing.
    """

    def __init__(self, largest_io: int, first: int = FIRST_WINDOW) -> None:
        self.allowed = first
        self.is_tried = False
        self._largest_io = largest_io
        self._used = 0
        self._fastest_s = float("inf")
        self._waiting: deque[_Waiting] = deque()
        self._first: deque[_Waiting] = deque()
        self._told_s = 0.0

    @property
    def chunk(self) -> int:
        """Bytes worth putting into one request now."""
        return max(SMALLEST_WINDOW, min(self._largest_io, self.allowed // 4))

    @property
    def ahead(self) -> int:
        """Requests of one file worth having on the way, or in wait for room: no more than fill it.

        What waits here is served in its order, and others would have to wait for all of it.
        """
        return min(CHUNKS_AHEAD, self.allowed // self.chunk + 1)

    @asynccontextmanager
    async def room(self, count: int, *, first: bool = False) -> AsyncIterator[None]:
        """Hold ``count`` bytes of the window for one request; its duration is the measure."""
        await self.enter(count, first=first)
        started = time.monotonic()
        took_s = None
        try:
            yield
            took_s = time.monotonic() - started
        finally:
            self.give(count, took_s)

    async def enter(self, count: int, *, first: bool = False) -> None:
        """Hold ``count`` bytes, as soon as there is room; ``give`` has to follow."""
        ahead = self._first or (not first and self._waiting)
        if not ahead and not self._is_full(count):
            self._hold(count)
            return
        one = _Waiting(count, asyncio.get_running_loop().create_future(), progress.listener.get())
        (self._first if first else self._waiting).append(one)
        try:
            await one.turn
        except asyncio.CancelledError:
            if one.turn.cancelled():
                self._wake()  # who comes next may fit where this one did not
            else:
                self.give(count, None)
            raise

    def give_after(self, count: int, answer: asyncio.Future[Any]) -> None:
        """Give ``count`` bytes back when the request that has just left is answered."""
        began = time.monotonic()

        def answered(answer: asyncio.Future[Any]) -> None:
            failed = answer.cancelled() or answer.exception() is not None
            self.give(count, None if failed else time.monotonic() - began)

        answer.add_done_callback(answered)

    def take(self, count: int) -> bool:
        """Hold ``count`` bytes, if there is room at this moment; ``give`` has to follow."""
        if self._is_full(count):
            return False
        self._hold(count)
        return True

    def give(self, count: int, took_s: float | None) -> None:
        """Give ``count`` bytes back; the request took so many seconds, None: it failed."""
        if took_s is not None:
            self._learn(took_s, count)
        self._used -= count
        self._wake()

    def _hold(self, count: int) -> None:
        self._used += count
        self.is_tried |= 2 * self._used >= self.allowed

    def _is_full(self, count: int) -> bool:
        return self._used > 0 and self._used + count > self.allowed

    def _learn(self, took_s: float, count: int) -> None:
        self._fastest_s = min(self._fastest_s, took_s)
        queued = took_s - self._fastest_s
        if queued < QUEUED_LITTLE_S:
            self.allowed = min(LARGEST_WINDOW, self.allowed + count)
        elif queued > QUEUED_MUCH_S:
            self.allowed = max(SMALLEST_WINDOW, self.allowed // 2)
            self.is_tried = True

    def _wake(self) -> None:
        """Give room to whom it fits, in order; the rest is told that something moves.

        Who lets others go first is no less alive.
        """
        for waiting in (self._first, self._waiting):
            while waiting and (waiting[0].turn.done() or not self._is_full(waiting[0].count)):
                one = waiting.popleft()
                if not one.turn.done():
                    self._hold(one.count)
                    one.turn.set_result(None)
            if waiting:
                break
        now = time.monotonic()
        if now - self._told_s >= TELL_EVERY_S:
            self._told_s = now
            for one in (*self._first, *self._waiting):
                if one.listener is not None:
                    one.listener(progress.KEEP)

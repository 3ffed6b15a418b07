"""The link to the server: who may use it, when it is given up, and how it comes back.

Nobody waits long: an adapter's call ends in bounded time (its worker is killed at the
deadline), the first caller to meet ``Unreachable`` takes the volume offline, and everybody
after that is answered at once. A task of its own tries to get back with a growing pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from awayfs.core.backoff import delay_ns
from awayfs.core.errors import (
    AuthenticationRequired,
    Implausible,
    RemoteError,
    Unreachable,
    WrongServer,
)
from awayfs.core.modes import Event, Mode, ModeState, step
from awayfs.ports.remote import Capabilities, Connected, Remote

log = logging.getLogger(__name__)
T = TypeVar("T")
HISTORY = 200
SECOND_NS = 1_000_000_000


class Link:
    """One volume's way to its server.

    ``admit`` is called with what ``connect`` found, before anything else may use the link:
    it raises ``WrongServer`` or ``Implausible`` to refuse it. ``on_change`` is called after each
    change of mode with the old and the new state.
    """

    def __init__(self, remote: Remote, now: Callable[[], int], state: ModeState) -> None:
        self.remote = remote
        self.state = state
        self.connected: Connected | None = None
        self.last_contact_ns: int | None = None
        self.history: deque[ModeState] = deque([state], maxlen=HISTORY)
        self.admit: Callable[[Connected], Awaitable[None]] = _admit_all
        self.on_change: Callable[[ModeState, ModeState], None] = lambda _old, _new: None
        self._now = now
        self._up = False
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._wake = asyncio.Event()

    @property
    def usable(self) -> bool:
        """Whether the server may be asked at this moment."""
        return self._up

    @property
    def capabilities(self) -> Capabilities | None:
        """What the server was last seen to be able to do; None before the first contact."""
        return self.connected.capabilities if self.connected else None

    async def call(self, operation: Callable[[Remote], Awaitable[T]]) -> T:
        """Ask the server.

        Raises ``Unreachable`` at once while the link is down, and takes it down when the
        operation finds that the server does not answer.
        """
        if not self._up:
            raise Unreachable(self.state.cause or "offline")
        try:
            result = await operation(self.remote)
        except Unreachable as error:
            self.lost(str(error))
            raise
        except AuthenticationRequired as error:
            self._down(Event.CREDENTIALS_REFUSED, str(error))
            raise
        except WrongServer as error:
            self._down(Event.BRAKE, str(error))
            raise
        except RemoteError:
            self.last_contact_ns = self._now()
            raise
        self.last_contact_ns = self._now()
        return result

    def lost(self, cause: str) -> None:
        """The server does not answer: go offline, and start to look for it."""
        if self._up:
            log.warning("link lost: %s", cause)
        self._down(Event.LOST, cause)

    def offline_by_hand(self) -> None:
        """Stay offline until told otherwise."""
        self._down(Event.GO_OFFLINE, "by hand")

    async def online_by_hand(self) -> None:
        """Forget that offline was asked for and try to connect now; raises what prevents it."""
        self._step(Event.GO_ONLINE, "by hand")
        await self.connect()

    def automatic(self) -> None:
        """Let the link decide again."""
        self._step(Event.GO_AUTOMATIC, "automatic")
        self._wake.set()

    def drained(self) -> None:
        """The journal is empty: reintegration is complete."""
        self._step(Event.DRAINED, "")

    def confirm(self) -> None:
        """Somebody looked at what the brake reported: go on."""
        self._step(Event.CONFIRMED, "confirmed")
        self._wake.set()

    def stop(self, cause: str) -> None:
        """A brake: nothing is replayed or adopted until somebody looked at it."""
        self._down(Event.BRAKE, cause)

    async def connect(self) -> None:
        """Open the session and admit the server; the volume may use it after that.

        Raises ``RemoteError``. Does nothing when the link is up, or was put offline by hand
        meanwhile.
        """
        async with self._connecting:
            if self._up:
                return
            try:
                connected = await self.remote.connect()
                await self.admit(connected)
            except AuthenticationRequired as error:
                self._down(Event.CREDENTIALS_REFUSED, str(error))
                raise
            except (WrongServer, Implausible) as error:
                self._down(Event.BRAKE, str(error))
                raise
            except RemoteError as error:
                self._down(Event.LOST, str(error))
                raise
            if self.state.by_hand and self.state.mode is Mode.DISCONNECTED:
                return
            self.connected = connected
            self.last_contact_ns = self._now()
            self._up = True
            self._step(Event.REACHED, "server answers")

    async def keep_trying(self) -> None:
        """Reconnect whenever the link is down for another reason than by hand; runs forever."""
        attempt = 0
        while True:
            if self._up or (self.state.by_hand and self.state.mode is Mode.DISCONNECTED):
                attempt = 0
                await self._pause(None)
                continue
            jitter = self._now() % 1000 / 1000  # volumes do not start at the same nanosecond
            await self._pause(delay_ns(attempt, jitter) / SECOND_NS)
            if self._up or self.state.by_hand:
                continue
            attempt += 1
            try:
                await self.connect()
            except RemoteError as error:
                log.info("still offline: %s", error)

    async def _pause(self, seconds: float | None) -> None:
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    def _down(self, event: Event, cause: str) -> None:
        self._up = False
        self._step(event, cause)
        self._wake.set()

    def _step(self, event: Event, cause: str) -> None:
        old = self.state
        self.state = step(old, event, cause, self._now())
        if (old.mode, old.by_hand) != (self.state.mode, self.state.by_hand):
            self.history.append(self.state)
            log.info("%s -> %s (%s)", old.mode, self.state.mode, self.state.cause)
            self.on_change(old, self.state)


async def _admit_all(_connected: Connected) -> None:
    return None

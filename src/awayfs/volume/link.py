"""The link to the server: who may use it, when it is given up, and how it comes back.

Nobody waits long: an adapter's call ends in bounded time (its worker is killed at the
deadline), the first caller to meet ``Unreachable`` takes the volume offline, and everybody
after that is answered at once. A task of its own tries to get back with a growing pause, and
looks whether the server is still there when nobody else asks it anything.
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
    NotFound,
    RemoteError,
    Unreachable,
    WrongServer,
)
from awayfs.core.modes import Event, Mode, ModeState, asks_server, step
from awayfs.core.types import Entry, RemotePath
from awayfs.ports.remote import Capabilities, Connected, Remote

log = logging.getLogger(__name__)
T = TypeVar("T")
HISTORY = 200
SECOND_NS = 1_000_000_000
PROBE_S = 15.0
"""An idle link is looked at so often, so that ``status`` does not tell of a server long gone."""
STEADY_NS = 10 * SECOND_NS
"""A link that held for less is no reason to try again without a pause."""


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
        self._up_since_ns = 0
        self._session = 0  # counts connections: an answer of an old one says nothing of the new
        self._orders = 0  # counts what a person said, so that the last word counts
        self._online_asked = False  # the attempt under way is a person's
        self._stranger = False  # stopped because of who answered, which looking again may end
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

    def require(self) -> None:
        """Raises ``Unreachable`` while the link is down."""
        if not self._up:
            raise Unreachable(self.state.cause or "offline")

    async def call(self, operation: Callable[[Remote], Awaitable[T]]) -> T:
        """Ask the server.

        Raises ``Unreachable`` at once while the link is down, and takes it down when the
        operation finds that the server does not answer.
        """
        self.require()
        session = self._session
        try:
            result = await operation(self.remote)
        except (Unreachable, AuthenticationRequired, WrongServer) as error:
            if session == self._session:
                self._failed(error)
            raise
        except RemoteError:
            self.last_contact_ns = self._now()
            raise
        self.last_contact_ns = self._now()
        return result

    async def find(self, path: RemotePath) -> Entry | None:
        """What stands at a path; None where the server says that nothing does."""
        try:
            return await self.call(lambda remote: remote.stat(path))
        except NotFound:
            return None

    def lost(self, cause: str) -> None:
        """The server does not answer: go offline, and start to look for it."""
        if self._up:
            log.warning("link lost: %s", cause)
        self._down(cause, Event.LOST)

    def offline_by_hand(self) -> None:
        """Stay offline until told otherwise."""
        self._orders += 1
        self._online_asked = False
        self._down("by hand", Event.GO_OFFLINE)

    async def online_by_hand(self) -> None:
        """Forget that offline was asked for and try to connect now; raises what prevents it.

        An attempt under way is given up for a new one: it may hang on a link that was dead.
        """
        if self._up:
            self._step("by hand", Event.GO_ONLINE)
            return
        self._orders += 1
        order = self._orders
        if self._connecting.locked():
            await self.remote.close()
        await self._connect(order)

    def automatic(self) -> None:
        """Let the link decide again."""
        cause = "looking for the server"
        if self._up:
            self._step("automatic", Event.GO_AUTOMATIC)
        else:
            self._step(cause, Event.GO_AUTOMATIC, Event.LOST)
        self._wake.set()

    def drained(self) -> None:
        """The journal is empty: reintegration is complete."""
        self._step("", Event.DRAINED)

    def confirm(self) -> None:
        """Somebody looked at what the brake reported: go on."""
        if self.state.mode is Mode.STOPPED:
            self._step("confirmed", Event.CONFIRMED, Event.LOST)
        self._wake.set()

    def stop(self, cause: str) -> None:
        """A brake: nothing is replayed or adopted until somebody looked at it."""
        self._stranger = False
        self._down(cause, Event.BRAKE)

    async def connect(self) -> None:
        """Open the session and admit the server; the volume may use it after that.

        Raises ``RemoteError``; ``Implausible`` while a brake is on, which only ``confirm``
        takes off. Does nothing when the link is up, or was put offline by hand meanwhile.
        """
        await self._connect(None)

    async def _connect(self, order: int | None) -> None:
        async with self._connecting:
            if self._up:
                return
            self._online_asked = order == self._orders
            if self.state.mode is Mode.STOPPED and not self._stranger:
                self._online_asked = False
                raise Implausible(self.state.cause)
            try:
                connected = await self.remote.connect()
                await self.admit(connected)
            except RemoteError as error:
                self._failed(error)
                raise
            if self._held_offline and not self._online_asked:
                return
            self._reached(connected)

    async def keep_trying(self) -> None:
        """Reconnect whenever the link is down for another reason than by hand; runs forever."""
        failures = 0
        while True:
            if self._up:
                since = self._up_since_ns
                await self._watch()
                steady = self._now() - since >= STEADY_NS
                failures = 0 if self._up or steady else failures
                continue
            if not self._may_try:
                failures = 0
                await self._pause(None)
                continue
            jitter = self._now() % 1000 / 1000  # volumes do not start at the same nanosecond
            await self._pause(delay_ns(failures, jitter) / SECOND_NS)
            if self._up or not self._may_try:
                continue
            failures += 1
            try:
                await self.connect()
            except (RemoteError, OSError) as error:  # OSError: the state here cannot be written
                log.info("still offline: %s", error)

    @property
    def _held_offline(self) -> bool:
        """Whether a person wants it offline, a stop on top of that included."""
        return self.state.by_hand and self.state.mode in (Mode.DISCONNECTED, Mode.STOPPED)

    @property
    def _may_try(self) -> bool:
        """Whether it makes sense to connect without being told to."""
        return not self._held_offline and (self.state.mode is not Mode.STOPPED or self._stranger)

    async def _watch(self) -> None:
        """Wait until the link goes down; when nobody has heard of the server, ask it."""
        await self._pause(PROBE_S)
        silent_ns = self._now() - (self.last_contact_ns or 0)
        if self._up and silent_ns >= PROBE_S * SECOND_NS:
            try:
                await self.call(lambda remote: remote.probe())
            except RemoteError as error:
                log.info("probe: %s", error)

    async def _pause(self, seconds: float | None) -> None:
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass

    def _reached(self, connected: Connected) -> None:
        """The right server answers: what that means depends on what kept us away."""
        events = [Event.GO_ONLINE] if self._online_asked else []
        if self.state.mode is Mode.STOPPED:
            events.append(Event.CONFIRMED)
        elif self.state.mode is Mode.AUTH_REQUIRED:
            events.append(Event.CREDENTIALS_GIVEN)
        self._online_asked = False
        self.connected = connected
        self.last_contact_ns = self._up_since_ns = self._now()
        self._session += 1
        self._up = True
        self._step("server answers", *events, Event.REACHED)
        self._up = asks_server(self.state.mode)

    def _failed(self, error: RemoteError) -> None:
        """Who or what was met instead of our server."""
        events = [Event.GO_ONLINE] if self._online_asked else []
        self._online_asked = False
        if isinstance(error, AuthenticationRequired):
            events.append(Event.CREDENTIALS_REFUSED)
        elif isinstance(error, WrongServer):
            self._stranger = True
            events.append(Event.BRAKE)
        else:
            events.append(Event.LOST)
        if self._up:
            log.warning("link lost: %s", error)
        self._down(str(error), *events)

    def _down(self, cause: str, *events: Event) -> None:
        self._up = False
        self._step(cause, *events)
        self._wake.set()

    def _step(self, cause: str, *events: Event) -> None:
        """Several events at one moment are one change to those who are told of it."""
        old = self.state
        for event in events:
            self.state = step(self.state, event, cause, self._now())
        if (old.mode, old.by_hand) != (self.state.mode, self.state.by_hand):
            self.history.append(self.state)
            log.info("%s -> %s (%s)", old.mode, self.state.mode, self.state.cause)
            self.on_change(old, self.state)


async def _admit_all(_connected: Connected) -> None:
    return None

"""The link to the server: who may use it, when it is given up, and how it comes back.

Nobody waits long: an adapter's call ends in bounded time (its worker is killed at the
deadline), the first caller to meet ``Unreachable`` takes the volume offline, and everybody
after that is answered at once. A task of its own tries to get back with a growing pause, and
looks whether the server is still there when nobody else asks it anything, or when somebody has
doubts: the machine's network changed, it slept, another volume of the server went offline. A
doubt is never believed, it makes us ask (``core/noticing.py``). That there is no way to the server
any more (``gone``), and that its connection ended (``lost``), is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
from awayfs.core.noticing import PROBES
from awayfs.core.types import Entry, RemotePath
from awayfs.ports.remote import Capabilities, Connected, Remote
from awayfs.volume.meter import Meter
from awayfs.volume.pulse import Pulse
from awayfs.volume.refusal_pause import RefusalPause

log = logging.getLogger(__name__)
T = TypeVar("T")
OUTAGES = (Unreachable, AuthenticationRequired, WrongServer)
"""What a call raises after which nothing more is asked."""
HISTORY = 100
SECOND_NS = 1_000_000_000
PROBE_S = 15.0
"""An idle link is looked at so often, so that ``status`` does not tell of a server long gone."""
MEASURE_S = 2.0
"""A new one is asked sooner, until it is known what answers take."""


class Link:
    """One volume's way to its server.

    ``admit`` is called with what ``connect`` found, before anything else may use the link:
    it raises ``WrongServer`` or ``Implausible`` to refuse it, and ``witnesses`` are the paths at
    which it wants to look. ``on_attempt`` are called when the link is about to be opened,
    ``on_change`` after each change of mode with the old and the new state, ``on_history`` when
    ``history`` has grown, ``on_news`` when the server itself came (True) or
    went (False), with the cause. ``give_up`` ends at once a session that is known to be dead, or
    that makes room for another, with what is under way on it; ``leave`` is how one ends by order.
    ``last_sign`` tells when anything moved on it, by ``clock``: a long upload is a sign of life,
    too, and may keep answers waiting.
    """

    def __init__(
        self,
        remote: Remote,
        now: Callable[[], int],
        state: ModeState,
        history: Iterable[ModeState] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.remote = remote
        self.state = state
        self.connected: Connected | None = None
        self.last_contact_ns: int | None = None
        self.history: deque[ModeState] = deque([*history, state], maxlen=HISTORY)
        self.on_history: Callable[[], None] = lambda: None
        self.on_news: Callable[[bool, str], None] = lambda _came, _cause: None
        self.give_up: Callable[[str], None] = lambda _why: None
        self.leave: Callable[[], Awaitable[None]] = remote.close
        self.last_sign: Callable[[], float] = lambda: 0.0
        self.admit: Callable[[Connected], Awaitable[None]] = _admit_all
        self.on_attempt: list[Callable[[], object]] = []
        self.witnesses: Callable[[], Sequence[RemotePath]] = tuple
        self.on_change: Callable[[ModeState, ModeState], None] = lambda _old, _new: None
        self._now = now
        self._clock = clock
        self._pulse = Pulse(clock, self._judge)
        self._refusals = RefusalPause(clock)
        self._up = False
        self._failures = 0  # attempts in a row that led to nothing
        self._session = 0  # counts connections: an answer of an old one says nothing of the new
        self._begun_anew = 0  # counts attempts that were given up for another
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

    @property
    def metered(self) -> bool:
        """Whether what goes over the network costs money, as far as NetworkManager knows."""
        return self._pulse.metered

    @property
    def weak(self) -> bool:
        """Whether the link should be spared: it is slow, thin, or metered."""
        return bool(self._pulse.weak)

    @property
    def why_weak(self) -> str:
        """What is wrong with a weak link; empty when it is not."""
        return self._pulse.weak

    @property
    def meter(self) -> Meter:
        """How fast content moves; who moves it says so."""
        return self._pulse.meter

    def weak_when(self, above_s: Callable[[], float], below: Callable[[], int | None]) -> None:
        """Where a link begins to be weak: above a round trip, below so many bytes a second."""
        self._pulse.slow_above_s = above_s
        self._pulse.meter.thin_below = below

    @property
    def round_trip_s(self) -> float | None:
        """What a short question takes, smoothed; None before one was measured."""
        return self._pulse.trips.smoothed_s if self._pulse.trips.recent else None

    @property
    def stopped_by_brake(self) -> bool:
        """Whether only a person ends the stop, and not the right server by being back."""
        return self.state.mode is Mode.STOPPED and not self._stranger

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
        except OUTAGES as error:
            if session == self._session:
                self._failed(error)
            raise
        except RemoteError:
            self._heard()
            raise
        self._heard()
        return result

    async def call_many(
        self, operation: Callable[[Remote], Awaitable[Sequence[T | Exception]]]
    ) -> Sequence[T | Exception]:
        """``call`` for several things at once, of which each has an answer, or what it raised.

        That the server is away, or another one, is heard from what one of them raised, too.
        """
        session, answers = self._session, await self.call(operation)
        for answer in answers:
            if isinstance(answer, OUTAGES) and session == self._session:
                self._failed(answer)
                break
        return answers

    def _heard(self, took_s: float | None = None) -> None:
        self.last_contact_ns = self._now()
        self._pulse.heard(took_s)

    async def find(self, path: RemotePath) -> Entry | None:
        """What stands at a path; None where the server says that nothing does."""
        try:
            return await self.call(lambda remote: remote.stat(path))
        except NotFound:
            return None

    def lost(self, cause: str) -> None:
        """The server does not answer: go offline, and start to look for it."""
        self._ended(cause)
        self._down(cause, Event.LOST)

    def gone(self, cause: str) -> None:
        """There is no way to the server: whatever waits for an answer waits in vain."""
        if self._up:
            self.lost(cause)
            self.give_up(cause)

    def doubt(self, cause: str) -> None:
        """Something makes it unlikely that the server is still there: ask it, soon."""
        if self._up:
            log.info("in doubt: %s", cause)
            self._pulse.doubt = cause
            self._wake.set()

    def hope(self, cause: str, *, moved: bool = False) -> None:
        """Something makes it likely that the server is there (again): try it now.

        ``moved``: the way there is another one, so what was measured before, and an attempt under
        way, are void.
        """
        if moved:
            self._pulse.moved()
        if not self._up and self._may_try and not self._refusals.lately:
            self._try_now(cause)
            if moved:  # an attempt may hang on a way that is no more
                self._begin_anew(cause)

    def credentials_changed(self, cause: str) -> None:
        """There is something else to show to a server that refused what there was."""
        if self.state.mode is Mode.AUTH_REQUIRED and self._refusals.news():
            self._try_now(cause)

    def _try_now(self, cause: str) -> None:
        log.info("trying now: %s", cause)
        self._failures = 0
        self._refusals.cut_short()
        self._wake.set()

    def _begin_anew(self, cause: str) -> None:
        """An attempt under way comes to nothing, also one whose answer is there already: what it
        was answered on ends here.
        """
        if self._connecting.locked():
            self._begun_anew += 1
            self.give_up(f"begun anew: {cause}")

    def set_metered(self, metered: bool) -> None:
        """What NetworkManager says of the network that we are in."""
        self._pulse.metered = metered
        self._judge()

    def offline_by_hand(self, cause: str = "by hand", until_ns: int | None = None) -> None:
        """Stay offline until told otherwise; ``until_ns`` is for showing only."""
        self._orders += 1
        self._online_asked = False
        self._down(cause, Event.GO_OFFLINE, until_ns=until_ns)

    async def online_by_hand(self) -> None:
        """Forget that offline was asked for and try to connect now; raises what prevents it.

        An attempt under way is given up for a new one: it may hang on a link that was dead.
        """
        if self._up:
            self._step("by hand", Event.GO_ONLINE)
            return
        self._orders += 1
        order = self._orders
        self._begin_anew("by hand")
        await self._connect(order)

    def automatic(self, cause: str = "automatic") -> None:
        """Let the link decide again."""
        if self._up:
            self._step(cause, Event.GO_AUTOMATIC)
        else:
            self._step(f"{cause}: looking for the server", Event.GO_AUTOMATIC, Event.LOST)
        self._failures = 0
        self._refusals.accepted()
        self._wake.set()

    def drained(self, cause: str = "everything is sent") -> None:
        """The journal is empty, or the rest waits to be asked for: reintegration is complete."""
        self._step(cause, Event.DRAINED)

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
            asked = order == self._orders
            if self._up:  # by an attempt that this one waited for
                if asked:
                    self._step("by hand", Event.GO_ONLINE)
                return
            self._online_asked, begun_anew = asked, self._begun_anew
            if self.state.mode is Mode.STOPPED and not self._stranger:
                self._online_asked = False
                raise Implausible(self.state.cause)
            for call in self.on_attempt:
                call()
            try:
                connected = await self.remote.connect(self.witnesses())
                await self.admit(connected)
                if begun_anew != self._begun_anew:
                    raise Unreachable("begun anew")
            except RemoteError as error:
                self._failed(error)
                raise
            if self.held_offline and not self._online_asked:
                return
            self._reached(connected)

    async def keep_trying(self) -> None:
        """Reconnect whenever the link is down for another reason than by hand; runs forever."""
        while True:
            if self._up:
                self._failures = 0
                await self._watch()
            elif not self._may_try:
                self._failures = 0
                await self._pause(None)
            elif not await self._pause(self._wait_s()):
                await self._try()

    def _wait_s(self) -> float:
        """How long to leave the server alone, in seconds."""
        backoff_s = delay_ns(self._failures, self._jitter()) / SECOND_NS
        return max(self._pulse.hold_s, self._refusals.left_s, backoff_s)

    def _jitter(self) -> float:
        return self._now() % 1000 / 1000  # volumes do not start at the same nanosecond

    async def _try(self) -> None:
        if self._connecting.locked():  # somebody else's attempt does for this one
            async with self._connecting:
                return
        self._failures += 1
        try:
            await self.connect()
        except (RemoteError, OSError) as error:  # OSError: the state here cannot be written
            log.info("still offline: %s", error)

    @property
    def held_offline(self) -> bool:
        """Whether a person wants it offline, a stop on top of that included."""
        return self.state.by_hand and self.state.mode in (Mode.DISCONNECTED, Mode.STOPPED)

    @property
    def _may_try(self) -> bool:
        """Whether it makes sense to connect without being told to."""
        if self.state.mode is Mode.STOPPED:
            return self._stranger and not self.state.by_hand
        return not self.held_offline

    async def _watch(self) -> None:
        """Wait until the link goes down; where nobody has heard of the server, or somebody
        doubts that it is there, ask it."""
        if not self._pulse.doubt:
            await self._pause(PROBE_S if self._pulse.measured else MEASURE_S)
        silent = self._pulse.silent_s >= PROBE_S
        if self._up and (self._pulse.doubt or silent or not self._pulse.measured):
            await self._ask()

    async def _ask(self) -> None:
        """One answer is enough; without one in time, several times in a row, it is gone."""
        session, doubt = self._session, self._pulse.doubt
        for unanswered in range(PROBES):
            asked = self._clock()
            wait_s = self._pulse.trips.wait_s(unanswered)
            try:
                await asyncio.wait_for(self.call(lambda remote: remote.probe()), wait_s)
            except TimeoutError:
                if max(self._pulse.heard_s, self.last_sign()) > asked:
                    self._pulse.heard()
                    return
                continue
            except RemoteError as error:
                log.info("probe: %s", error)
                return
            self._heard(self._clock() - asked)
            self._judge()
            return
        if self._up and session == self._session:
            self.gone("no answer" + (f" ({doubt})" if doubt else ""))

    def _judge(self) -> None:
        """Whether the link is to be spared from now on, or no more."""
        if not self._up:
            return
        if why := self._pulse.weak:
            self._step(why, Event.LINK_WEAK)
        elif self.state.mode is Mode.WRITE_BEHIND:
            self._step("the link is good again", Event.LINK_GOOD)

    async def _pause(self, seconds: float | None) -> bool:
        """Whether something happened meanwhile."""
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _reached(self, connected: Connected) -> None:
        """The right server answers: what that means depends on what kept us away."""
        events = [Event.GO_ONLINE] if self._online_asked else []
        if self.state.mode is Mode.STOPPED:
            events.append(Event.CONFIRMED)
        elif self.state.mode is Mode.AUTH_REQUIRED:
            events.append(Event.CREDENTIALS_GIVEN)
        self._online_asked = False
        self.connected = connected
        self.last_contact_ns = self._now()
        self._pulse.up()
        self._refusals.accepted()
        self._session += 1
        self._up = True
        self._step("server answers", *events, Event.REACHED)
        self._up = asks_server(self.state.mode)
        self._judge()
        self.on_news(True, self.state.cause)

    def _failed(self, error: RemoteError) -> None:
        """Who or what was met instead of our server."""
        events = [Event.GO_ONLINE] if self._online_asked else []
        self._online_asked = False
        if isinstance(error, AuthenticationRequired):
            self._refusals.refused(self._jitter())
            events.append(Event.CREDENTIALS_REFUSED)
        elif isinstance(error, WrongServer):
            self._stranger = True
            events.append(Event.BRAKE)
        else:
            events.append(Event.LOST)
        self._ended(str(error))
        self._down(str(error), *events)

    def _ended(self, cause: str) -> None:
        """The session is over, and nobody wanted that."""
        if self._up:
            log.warning("link lost: %s", cause)
            self._up = False
            self._pulse.down()
            self.on_news(False, cause)

    def _down(self, cause: str, *events: Event, until_ns: int | None = None) -> None:
        self._up = False
        self._step(cause, *events, until_ns=until_ns)
        self._wake.set()

    def _step(self, cause: str, *events: Event, until_ns: int | None = None) -> None:
        """Several events at one moment are one change to those who are told of it."""
        old = self.state
        for event in events:
            self.state = step(self.state, event, cause, self._now(), until_ns)
        changed = (old.mode, old.by_hand) != (self.state.mode, self.state.by_hand)
        if changed or old.until_ns != self.state.until_ns:
            self.history.append(self.state)
            self.on_history()
        if changed:
            log.info("%s -> %s (%s)", old.mode, self.state.mode, self.state.cause)
            self.on_change(old, self.state)


async def _admit_all(_connected: Connected) -> None:
    return None

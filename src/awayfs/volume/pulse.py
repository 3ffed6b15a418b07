"""How the link feels: what answers take, whether it is slow or metered, who has doubts about it.

Values only; ``Link`` asks the questions.
"""

from __future__ import annotations

from collections.abc import Callable

from awayfs.core.noticing import RECENT, RoundTrips, flaps_after, hold_s
from awayfs.volume.meter import Meter

SLOW_S = 0.4


class Pulse:
    """``clock`` gives seconds that never run backwards."""

    def __init__(self, clock: Callable[[], float], on_measured: Callable[[], None]) -> None:
        self.trips = RoundTrips()
        self.meter = Meter(clock, on_measured)
        self.slow_above_s: Callable[[], float] = lambda: SLOW_S
        self.slow = False
        self.metered = False
        self.doubt = ""
        self._clock = clock
        self.heard_s = 0.0  # when the server answered last
        self._up_since = 0.0
        self._flaps = 0
        self._hold_until = 0.0

    @property
    def weak(self) -> str:
        """Why the link is weak; empty when it is not."""
        if self.metered:
            return "the network is metered"
        if self.slow:
            return f"round trips take {min(self.trips.recent, default=0):.1f} s"
        return self.meter.thin

    @property
    def measured(self) -> bool:
        """Whether enough answers were timed to say what the link is like."""
        return len(self.trips.recent) >= RECENT

    @property
    def silent_s(self) -> float:
        """For how long nothing was heard of the server."""
        return self._clock() - self.heard_s

    @property
    def hold_s(self) -> float:
        """How long a link that flapped is to be left alone yet."""
        return max(0.0, self._hold_until - self._clock())

    def heard(self, took_s: float | None = None) -> None:
        """The server answered; ``took_s`` where that says something about the link."""
        self.heard_s = self._clock()
        self.doubt = ""
        if took_s is not None:
            self.trips = self.trips.after(took_s, self.meter.busy)
            self.slow = self.trips.slow(self.slow, self.slow_above_s())

    def up(self) -> None:
        """A session begins."""
        self._up_since = self._clock()
        self.heard()

    def down(self) -> None:
        """It has ended by itself."""
        self.doubt = ""
        self._flaps = flaps_after(self._flaps, self._clock() - self._up_since)
        self._hold_until = self._clock() + hold_s(self._flaps - 1)

    def moved(self) -> None:
        """The machine is in another network: what was measured tells nothing of this one."""
        self.meter.moved_on()
        self.trips = RoundTrips()
        self.slow = False

"""When a link counts as gone, as steady again, and as weak: rules without a clock.

Three things are kept apart. *How long to wait for an answer* follows what answers took so far,
as TCP does it (RFC 6298). *Whether one silence is enough*: it is not, a packet may be lost; who
does not answer ``PROBES`` times in a row is gone. *When to come back*: at once after a link that
had held, later and later after one that breaks every few seconds, so that the mode does not flap.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from msgspec import Struct, field

SHORTEST_S = 1.0
LONGEST_S = 1.5
"""Bounds of one wait for an answer. The lower one is RFC 6298's, since a busy machine is no dead
server; the upper one is below what an operation may take, which would end the session by itself."""

PROBES = 2
"""So many questions without an answer, one after the other, and the server is gone."""

STEADY_S = 10.0
"""A link that held for less was a flap."""

FIRST_HOLD_S = 1.0
LONGEST_HOLD_S = 30.0

CALM = 2
"""A link is slow above a round trip, and no more below this part of it; between them it stays what
it was. The same holds for a rate below which it is thin."""

RECENT = 4
"""Of so many round trips the shortest tells the link's; the others waited for something else."""

RESUMED_S = 3.0
"""Time that went by without the machine running: it was suspended."""


class RoundTrips(Struct, frozen=True):
    """What answers took: smoothed time and variation (RFC 6298, section 2), and the last ones."""

    smoothed_s: float = 0.0
    variation_s: float = 0.0
    recent: tuple[float, ...] = field(default=())

    def after(self, sample_s: float, loaded: bool = False) -> RoundTrips:
        """With one more. ``loaded``: it waited behind content of our own, and says how long to
        wait for answers, but not what the link is like.
        """
        recent = self.recent if loaded else (*self.recent, sample_s)[-RECENT:]
        if not self.smoothed_s:
            return RoundTrips(sample_s, sample_s / 2, recent)
        variation = 0.75 * self.variation_s + 0.25 * abs(self.smoothed_s - sample_s)
        return RoundTrips(0.875 * self.smoothed_s + 0.125 * sample_s, variation, recent)

    def wait_s(self, unanswered: int = 0) -> float:
        """How long to wait for the next answer; twice as long after each that did not come."""
        if not self.smoothed_s:
            return LONGEST_S
        plain = max(SHORTEST_S, self.smoothed_s + 4 * self.variation_s)
        return min(LONGEST_S, plain * (1 << min(unanswered, 8)))

    def slow(self, was_slow: bool, above_s: float) -> bool:
        """Whether this is a slow link, given what it was so far."""
        if len(self.recent) < RECENT:
            return was_slow
        return min(self.recent) > (above_s / CALM if was_slow else above_s)


class Throughput(Struct, frozen=True):
    """How many bytes a second moved in one direction, the last times that it could be told.

    The most of them tells the link's; the others waited for something else.
    """

    recent: tuple[float, ...] = field(default=())

    @property
    def bytes_s(self) -> float | None:
        """None before anything was measured."""
        return max(self.recent, default=None)

    def after(self, count: int, took_s: float, together: int) -> Throughput:
        """With ``count`` bytes that moved in so long, beside others that shared the link.

        ``together`` of them, this one included, as many as there were at its begin or its end:
        rather too many than too few, so that no link counts as thin that is not.
        """
        return Throughput((*self.recent, count * together / max(took_s, 1e-6))[-RECENT:])

    def thin(self, was_thin: bool, below: int | None) -> bool:
        """Whether this is a thin link, given what it was so far; ``below`` None: none ever is."""
        if below is None or self.bytes_s is None:
            return False
        if len(self.recent) < RECENT:
            return was_thin
        return self.bytes_s < (below * CALM if was_thin else below)


def flaps_after(flaps: int, held_s: float) -> int:
    """How many times in a row a link broke early, now that one broke that had held so long."""
    return flaps + 1 if held_s < STEADY_S else 0


def hold_s(flaps: int) -> float:
    """How long to stay offline for the sake of calm after so many flaps in a row."""
    return min(LONGEST_HOLD_S, FIRST_HOLD_S * (1 << min(flaps - 1, 16))) if flaps > 0 else 0.0


def suspended_s(before: Sequence[float], after: Sequence[float]) -> float:
    """For how long the machine slept between two looks at (CLOCK_BOOTTIME, CLOCK_MONOTONIC).

    Both run alike but for sleep, which only the first one counts (clock_gettime(2)). 0 for what
    may be the time between reading the two.
    """
    slept = (after[0] - before[0]) - (after[1] - before[1])
    return slept if slept >= RESUMED_S else 0.0


class Way(Struct, frozen=True):
    """How this machine would reach the server at a moment, as the kernel's tables say.

    ``blocked`` says why it would not; ``interface`` and ``source`` are what it would send from;
    ``ours`` tells whether the session's own address still belongs to this machine.
    """

    blocked: str = ""
    interface: str = ""
    source: str = ""
    ours: bool = True


class Sign(enum.StrEnum):
    """What a change of the way means."""

    NOTHING = "nothing"
    GONE = "gone"  # what is under way will never be answered
    DOUBT = "doubt"  # another way than before: ask whether the session still works
    BACK = "back"  # a way again, or another one: try now


def sign(before: Way | None, now: Way, own: str, up: bool) -> Sign:
    """What it means that the way was ``before`` (None: not looked at) and is as it is ``now``.

    ``own`` is the address that the session is sent from; empty when that is not known. A session
    outlives a change that leaves its own address and its way alone.
    """
    if up and (now.blocked or not now.ours):
        return Sign.GONE
    if now.blocked or now == before:
        return Sign.NOTHING
    if not up:
        return Sign.BACK
    moved = before is not None or (own != "" and now.source != own)
    return Sign.DOUBT if moved else Sign.NOTHING

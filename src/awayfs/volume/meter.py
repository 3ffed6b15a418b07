"""How fast content moves over the link, in each direction, as far as it can be told.

Small transfers tell of round trips and of the server's disk rather than of the link, and are left
out. So is a direction that is limited by a setting: it is as fast as it may be.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct, field

from awayfs.core.noticing import Throughput

FORGOTTEN_S = 600.0
"""A thin link over which nothing moved for so long is tried again: nothing else tells of it."""


class Way(enum.StrEnum):
    """A direction, as seen from here."""

    UP = "up"
    DOWN = "down"


LEAST: Mapping[Way, int] = {Way.UP: 256 << 10, Way.DOWN: 64 << 10}
"""Bytes of a transfer that tells anything."""


class Moved(Struct):
    """Filled in by who moves it."""

    bytes: int = 0


class _One(Struct):
    measured: Throughput = field(default_factory=Throughput)
    under_way: int = 0
    thin: bool = False
    at: float = 0.0
    limit: int | None = None


class Meter:
    """``clock`` gives seconds that never run backwards; ``on_measured`` hears of each measure."""

    def __init__(self, clock: Callable[[], float], on_measured: Callable[[], None]) -> None:
        self._clock = clock
        self._on_measured = on_measured
        self._ways = {way: _One() for way in Way}
        self.thin_below: Callable[[], int | None] = lambda: None

    @contextmanager
    def moving(self, way: Way) -> Iterator[Moved]:
        """A transfer; what fails tells nothing."""
        one, moved = self._ways[way], Moved()
        one.under_way += 1
        began, together = self._clock(), one.under_way
        try:
            yield moved
            together = max(together, one.under_way)
        finally:
            one.under_way -= 1
        if moved.bytes >= LEAST[way] and one.limit is None:
            now = self._clock()
            one.measured = one.measured.after(moved.bytes, now - began, together)
            one.thin = one.measured.thin(one.thin, self.thin_below())
            one.at = now
            self._on_measured()

    @property
    def busy(self) -> bool:
        """Whether content moves at this moment."""
        return any(one.under_way for one in self._ways.values())

    def limit(self, up: int | None, down: int | None) -> None:
        """Bytes a second at most, by setting."""
        for way, limit in ((Way.UP, up), (Way.DOWN, down)):
            self._ways[way].limit = limit

    def bytes_s(self, way: Way) -> float | None:
        """Bytes a second that may be expected; None before anything was measured."""
        one = self._ways[way]
        return one.limit if one.limit is not None else one.measured.bytes_s

    def moved_on(self) -> None:
        """Another network: what was measured tells nothing of it."""
        for one in self._ways.values():
            one.measured, one.thin = Throughput(), False

    @property
    def thin(self) -> str:
        """Why the link is thin; empty when it is not."""
        for way, one in self._ways.items():
            if one.thin and one.limit is None and self.thin_below() is not None:
                if self._clock() - one.at < FORGOTTEN_S:
                    speed = (one.measured.bytes_s or 0) / 1024
                    return f"{speed:.0f} KiB a second go {way}"
                one.measured, one.thin = Throughput(), False
        return ""

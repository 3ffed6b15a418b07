"""How long a server that refused what we can show is left alone.

Servers count failed logins, and lock accounts or shut addresses out after a few of them. So after
a refusal nothing is tried again soon, unless what we can show is something else by then.
"""

from __future__ import annotations

from collections.abc import Callable

from awayfs.core.backoff import REFUSED_CAP_NS, REFUSED_FIRST_NS, delay_ns

SECOND_NS = 1_000_000_000
MOST_NEWS = 5
"""So often in a row something else to show is worth an attempt: it may be no key that changes."""

LATELY_S = 300.0
"""A network that changes is no reason to try again what was refused less than so long ago."""


class RefusalPause:
    """``clock`` gives seconds that never run backwards."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._in_a_row = self._news = 0
        self._refused_s = self._until_s = float("-inf")

    def refused(self, jitter: float) -> None:
        """Once more; ``jitter`` as in ``core.backoff``."""
        self._in_a_row += 1
        self._refused_s = self._clock()
        pause_ns = delay_ns(self._in_a_row, jitter, REFUSED_FIRST_NS, REFUSED_CAP_NS)
        self._until_s = self._refused_s + pause_ns / SECOND_NS

    def accepted(self) -> None:
        """The server let us in, or a person wants it tried: begin anew."""
        self._in_a_row = self._news = 0
        self.cut_short()

    def news(self) -> bool:
        """There is something else to show: whether that is tried at once."""
        self._news += 1
        return self._news <= MOST_NEWS

    def cut_short(self) -> None:
        """Try once more now; what is refused then makes the next pause longer all the same."""
        self._until_s = float("-inf")

    @property
    def lately(self) -> bool:
        """Whether the last refusal is too fresh to be asked about again."""
        return self._clock() < self._refused_s + LATELY_S and self._until_s > self._clock()

    @property
    def left_s(self) -> float:
        """For how long to leave the server alone."""
        return max(0.0, self._until_s - self._clock())

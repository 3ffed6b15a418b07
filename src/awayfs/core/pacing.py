"""Holding a flow of bytes to a number of bytes a second: rules, with instants given. Pure."""

from __future__ import annotations

from typing import Final

BURST_S: Final = 0.25
"""What was not used up counts for so long."""


class Pace:
    """One flow. Instants are seconds of any steady clock."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait_s(self, now: float, count: int, bandwidth: int | None) -> float:
        """Seconds to wait before ``count`` bytes are asked for; they are counted as asked for.

        They have their turn after all that were counted before them.
        """
        if bandwidth is None:
            return 0.0
        begins = max(self._free_at, now - BURST_S)
        self._free_at = begins + count / bandwidth
        return max(0.0, begins - now)

    def yield_s(self, now: float, count: int, bandwidth: int | None) -> float:
        """The same for who lets others go first: 0 when it is their turn, else ask again after it.

        Nothing is counted before that, so that ``wait_s`` never waits for what nobody asked for.
        """
        if bandwidth is not None and self._free_at > now:
            return self._free_at - now
        return self.wait_s(now, count, bandwidth)

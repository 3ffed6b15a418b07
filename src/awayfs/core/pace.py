"""How fast changes get to the server, and how long what is left may take.

Counted is by how much there is less to send from one look to the next; what is changed meanwhile
only makes more of it. Of the last seconds only, since links come and go.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

WINDOW_S = 10.0
SHORTEST_S = 0.5
"""A rate from less than this says nothing."""


class Estimate(Struct, frozen=True):
    """Rates, and the seconds left at these rates; None where they tell nothing about it."""

    records_per_s: float
    bytes_per_s: float
    left_s: float | None


class _Look(Struct, frozen=True):
    at_s: float
    done_records: int
    done_bytes: int


class Pace:
    """Looks at what is left. Instants are passed in, of one clock that does not go back."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque()
        self._records = self._bytes = 0

    def look(self, at_s: float, records: int, size: int) -> None:
        """So many records, of so many bytes, are left at this moment."""
        self._forget(at_s)
        if self._looks:
            last = self._looks[-1]
            done_records = last.done_records + max(0, self._records - records)
            done_bytes = last.done_bytes + max(0, self._bytes - size)
            self._looks.append(_Look(at_s, done_records, done_bytes))
        else:
            self._looks.append(_Look(at_s, 0, 0))
        self._records, self._bytes = records, size

    def estimate(self, now_s: float, records: int, size: int) -> Estimate | None:
        """The rates of the last seconds, and how long so much takes.

        None if too little is known.
        """
        self._forget(now_s)
        if not self._looks or now_s - self._looks[0].at_s < SHORTEST_S:
            return None
        first, last = self._looks[0], self._looks[-1]
        span_s = now_s - first.at_s
        records_per_s = (last.done_records - first.done_records) / span_s
        bytes_per_s = (last.done_bytes - first.done_bytes) / span_s
        return Estimate(
            records_per_s, bytes_per_s, _left(records, size, records_per_s, bytes_per_s)
        )

    def _forget(self, now_s: float) -> None:
        while self._looks and now_s - self._looks[0].at_s > WINDOW_S:
            self._looks.popleft()


def _left(records: int, size: int, records_per_s: float, bytes_per_s: float) -> float | None:
    """Small changes cost round trips, large ones bytes: what takes longer counts."""
    if not records:
        return 0.0
    if not records_per_s or (size and not bytes_per_s):
        return None
    return max(records / records_per_s, size / bytes_per_s if size else 0.0)

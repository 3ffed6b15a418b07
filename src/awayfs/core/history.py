"""How long variants that lost are kept, and which of them an undo takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct

DAY_NS = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be kept: for so long, so much of all, and so much of one."""

    age_days: float = 30.0
    total: int = 1 << 30
    one: int = 256 << 20

    def holds(self, sizes: Iterable[int]) -> bool:
        """Whether what one decision gives up can stay, when all that is older goes for it."""
        return sum(sizes) <= self.total


class Weight(Struct, frozen=True):
    """One kept variant: its number, when it was kept, its bytes."""

    id: int
    kept_ns: int
    size: int


def to_cull(kept: Iterable[Weight], now_ns: int, limits: Limits) -> list[int]:
    """The variants that go: those beyond the age, then the oldest until the rest fits.

    A clock that was set back makes nothing old.
    """
    oldest = now_ns - int(limits.age_days * DAY_NS)
    newest_first = sorted(kept, key=lambda w: w.id, reverse=True)
    gone: list[int] = []
    total = 0
    for weight in newest_first:
        if weight.kept_ns < oldest or total + weight.size > limits.total:
            gone.append(weight.id)
        else:
            total += weight.size
    return sorted(gone)

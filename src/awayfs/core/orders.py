"""Who wants a volume to be offline: a person, about everything, a server, or the volume alone.

An order stands until it is taken back, or its time is over. The strictest counts: a volume is
offline as long as one order of the three holds. A person's ``online`` and ``auto`` take back the
order of their own scope and no other.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Scope(enum.StrEnum):
    """What an order is about, widest first."""

    ALL = "all"
    SERVER = "server"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Order:
    """To be offline since a moment, and until another one (None: until taken back)."""

    since_ns: int
    until_ns: int | None = None

    def holds(self, now_ns: int) -> bool:
        """Whether its time is not over."""
        return self.until_ns is None or now_ns < self.until_ns

    def as_dict(self) -> dict[str, Any]:
        """As it is kept; ``order_of`` reads it."""
        return {"since_ns": self.since_ns, "until_ns": self.until_ns}


Orders = Mapping[Scope, Order | None]
"""What stands in each scope."""


def order_of(values: object) -> Order | None:
    """An order as it was kept; None for anything else."""
    if not isinstance(values, Mapping):
        return None
    since, until = values.get("since_ns"), values.get("until_ns")
    if type(since) is not int or (until is not None and type(until) is not int):
        return None
    return Order(since, until)


def strictest(orders: Orders, now_ns: int) -> tuple[Scope, Order] | None:
    """The order that keeps a volume offline for longest, the widest of several; None: none does."""
    standing = [
        (scope, order) for scope in Scope if (order := orders.get(scope)) and order.holds(now_ns)
    ]
    for scope, order in standing:
        if order.until_ns is None:
            return scope, order
    return max(standing, key=lambda pair: pair[1].until_ns or 0, default=None)

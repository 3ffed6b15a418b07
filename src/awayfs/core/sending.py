"""Which records may go out now: all at once, just in time, or only when told to (``reintegrate``).

Beside the policy it counts what was asked for: ``awayfs sync`` asks for the journal up to its
last record, ``awayfs sync PATH`` for the records of a subtree, and with ``lazy`` a program that
touches an object for those of that object. What a record needs to go before it
(``core.order.Order.with_needs``) goes along, and nothing else.

What has gone out is never held back: until its outcome is known, nobody can tell what stands on
the server.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from awayfs.core.records import Record
from awayfs.core.types import NodeId


class Policy(enum.StrEnum):
    """When changes are sent that nobody asked for."""

    EAGER = "eager"  # at once
    LAZY = "lazy"  # when no program uses the mount
    MANUAL = "manual"  # never


IDLE_S: Final = 5.0
"""Without an operation of a program for so long, a mount is idle."""
LONGEST_S: Final = 300.0
"""For so long a mount that is never idle keeps changes back; what is there then goes."""
EVERYTHING: Final = (1 << 63) - 1
"""Not below any ``seq``."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What may go: before all others ``first``, with what it needs; else records up to ``rest_to``.

    All by ``seq``; ``first`` may name some that are gone. ``first_to`` is the latest of them.
    """

    first: frozenset[int] = frozenset()
    rest_to: int = EVERYTHING
    first_to: int = 0

    @property
    def holds_back(self) -> bool:
        """Whether there may be something that does not go by itself."""
        return self.rest_to < EVERYTHING


def rest_to(policy: Policy, asked_to: int, idle_s: float) -> int:
    """Up to which record all may go, when the journal was asked for up to ``asked_to``.

    ``idle_s``: for how long no program has used the mount.
    """
    if policy is Policy.EAGER or (policy is Policy.LAZY and idle_s >= IDLE_S):
        return EVERYTHING
    return asked_to


def is_overdue(policy: Policy, held_s: float) -> bool:
    """Whether what has been held back for so long goes now, idle or not."""
    return policy is Policy.LAZY and held_s >= LONGEST_S


def is_of_subtree(record: Record, is_inside: Callable[[NodeId], bool]) -> bool:
    """Whether a record concerns a subtree: a node in it, or a name in one of its directories.

    ``is_inside`` tells it for the tree as it is here now, of the subtree's top, too.
    """
    directories = (d for d in (record.parent, record.to_parent) if d)
    nodes = (n for n in (record.node, record.replaced) if n)
    return any(map(is_inside, directories)) or any(map(is_inside, nodes))

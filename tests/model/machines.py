"""All machines, by name."""

from __future__ import annotations

from tests.model.decided import Decided
from tests.model.machine import Apart, InTurns, Machine, Parts

MACHINES: dict[str, type[Machine]] = {
    "apart": Apart,
    "in-turns": InTurns,
    "parts": Parts,
    "decided": Decided,
}
BOTH = ("apart", "in-turns")
"""Those that are played in turn if nothing else is asked for."""

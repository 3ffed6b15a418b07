"""Signs of life from inside a long call.

An adapter calls ``tick()`` whenever something moved: a chunk of a file, a part of a listing.
Whoever watches the call (the worker, for the daemon's stall deadline) set a listener in the
context it runs the call in; without one a tick costs a lookup. Ticks may come as often as is
convenient, from any thread that runs in a copy of the context; the listener limits the rate.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

Listener = Callable[[float], None]
"""Gets the seconds that the step now beginning may take, or ``KEEP``; 0 is the usual deadline."""

KEEP = -1.0
"""Instead of seconds: what the step under way may take stays as it is."""

listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


def tick(allow: float = 0.0) -> None:
    """Something moved. ``allow``: seconds the next step may take (an fsync of much data)."""
    heard = listener.get()
    if heard is not None:
        heard(allow)


def parts(count: int) -> list[Listener]:
    """Listeners for steps that are taken at once within one call: as long as one of them may take,
    the call may. A step is over with a last tick without seconds.
    """
    whole, allowed = listener.get(), [0.0] * count

    def part(index: int) -> Listener:
        def hear(allow: float) -> None:
            if allow != KEEP:
                allowed[index] = allow
            if whole is not None:
                whole(KEEP if allow == KEEP else max(allowed))

        return hear

    return [part(index) for index in range(count)]

"""What an adapter has to tell without being asked: that its connection is gone.

Whoever runs the adapter in a process of its own (the worker) sets ``listener``; elsewhere nobody
listens. There is one adapter a process, so this is no part of a call's context.
"""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str], None]


def _nobody(_why: str) -> None:
    return None


listener: Listener = _nobody


def lost(why: str) -> None:
    """The connection to the server has ended, and nobody wanted that."""
    listener(why)

"""What one sequence may take. One that runs away is a failure with its seed, like any other.

Without a bound, it would take the memory of the machine and everything else that runs there.
"""

from __future__ import annotations

import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tests.model.world import Broken

WORDS = "it ran away"
SECONDS = 60.0
"""A sequence takes a tenth of a second on an idle core, and seldom more than two."""
CLOSING_S = 10.0
"""For the tidying up after it, which may meet the same."""
ADDRESS_SPACE = 1 << 30
"""All sequences of a process together stay below a tenth of it."""
LARGEST_FILE = 64 << 20
"""The share and the clients' states lie in memory, too."""


class _Rung(KeyboardInterrupt):
    """The event loop lets nothing pass but an interrupt or an exit."""


class RanAway(Broken):
    """It takes too long."""


def bound_memory() -> None:
    """Have this process fail where it would take too much; for the rest of its life."""
    for what, most in (
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
    ):
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


@contextmanager
def bounded_time(seconds: float) -> Iterator[None]:
    """Raises ``RanAway`` when the block is not over after so many seconds."""
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Rung:
        where = traceback.format_exc(limit=-6)
        raise RanAway(f"{where}\n{WORDS}: not over after {seconds:.0f} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ring(_number: int, _frame: object) -> None:
    raise _Rung

"""How long to wait before asking an unreachable server again.

Exponential with a cap, so that a server that comes back is found within the cap; jittered, so
that the volumes of one machine do not all ask at once. The jitter is an argument: the core has
no randomness, and a simulation with the same seed gives the same trace.
"""

from __future__ import annotations

FIRST_NS = 1_000_000_000
CAP_NS = 30_000_000_000
JITTER_PERCENT = 20

REFUSED_FIRST_NS = 60_000_000_000
REFUSED_CAP_NS = 1_800_000_000_000
"""The same for a server that answers, and refuses what we show: a minute, then up to half an hour.
Who shuts others out after five failures in ten minutes (fail2ban's default) sees four of us.
"""


def delay_ns(
    failures: int, jitter: float = 0.5, first_ns: int = FIRST_NS, cap_ns: int = CAP_NS
) -> int:
    """The pause after ``failures`` failures in a row (1 for the first), in nanoseconds.

    ``jitter`` in [0, 1] spreads the pause over ±20 %; 0.5 leaves it as it is. Never above the
    cap, and never 0 unless nothing has failed.
    """
    if failures <= 0:
        return 0
    doublings = min(failures - 1, 62)
    plain = min(first_ns << doublings, cap_ns)
    spread = plain * JITTER_PERCENT // 100
    clamped = min(max(jitter, 0.0), 1.0)
    return max(1, min(cap_ns, plain - spread + int(2 * spread * clamped)))

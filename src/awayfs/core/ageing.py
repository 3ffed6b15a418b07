"""When a change may go out over a weak link: what lived shortly never travels. Pure.

A change rests for a while first. What is undone meanwhile cancels in the journal
(``core.optimise``), and costs the link nothing.
"""

from __future__ import annotations

SECOND_NS = 1_000_000_000


def rests_s(at_ns: int, now_ns: int, window_s: float) -> float:
    """For how many seconds more a change of the moment ``at_ns`` rests; 0 when it may go out.

    Both instants are this machine's wall clock. One that lies in the future says that the clock
    was set back since: nothing is known of the change's age then, and it does not wait for it.
    """
    age_s = (now_ns - at_ns) / SECOND_NS
    return window_s - age_s if 0 <= age_s < window_s else 0.0

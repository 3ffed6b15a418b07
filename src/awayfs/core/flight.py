"""How many records may be on their way to the server at once.

Many, where the link is long and what is sent is small: a round trip then costs all of them
together what it costs one. Few, where they hold each other up: each has a deadline, and what is on
its way when the link is cut has to be settled afterwards. So the number follows how long records
take, as the window of a transfer does (``remotes.sftp_channel.Window``).
"""

from __future__ import annotations

FIRST = 32
"""What a link bears is not known yet: a thin one is busy with so many small files for seconds."""

FEWEST = 8
MOST = 512
MORE = 2
"""For each that was quick: three times as many after each time that they take."""

QUICK_S = 2.0
SLOW_S = 4.0
"""A record that takes so long waits for others, or is large: fewer at once lose nothing then."""


def at_most(limit: int, weak: bool) -> int:
    """How many of a limit a link takes: one that is known to be weak has others to carry, too."""
    return FEWEST if weak else limit


def after(limit: int, full: bool, took_s: float) -> int:
    """The next limit, when a record is through that took ``took_s`` seconds.

    ``full``: as many were under way as may be. A limit that is not reached says nothing.
    """
    if took_s > SLOW_S:
        return max(FEWEST, limit - max(1, limit // 8))
    if took_s < QUICK_S and full:
        return min(MOST, limit + MORE)
    return limit

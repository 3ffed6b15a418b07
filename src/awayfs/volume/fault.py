"""Named places where a test may kill the daemon.

``AWAYFS_FAULT=name`` or ``name:count`` in the environment ends the process with SIGKILL when
the place is reached (for the ``count``-th time). Without the variable a call costs one
comparison. ``docs/CRASH.md`` lists the names and what must hold at each.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "journal.appended",
    "changes.applied",
    "base.copied",
    "files.journaled",
    "files.written",
    "fetch.landed",
    "fetch.taken",
    "replay.optimised",
    "replay.settled",
    "replay.decided",
    "replay.intended",
    "replay.part",
    "replay.staged",
    "replay.frozen",
    "replay.aside",
    "replay.crossing",
    "replay.acted",
    "replay.relinking",
    "replay.relinked",
    "replay.reviving",
    "replay.committed",
    "parking.kept",
    "parking.parked",
    "resolve.kept",
    "resolve.found",
    "resolve.moving",
    "resolve.moved",
    "resolve.copied",
    "resolve.replacing",
    "resolve.taken",
    "resolve.undone",
    "resolve.decided",
    "discard.kept",
    "discard.applied",
    "import.applied",
    "sync.written",
)

_wanted, _, _count = os.environ.get("AWAYFS_FAULT", "").partition(":")
_left = int(_count or 1)


def fault(name: str) -> None:
    """Die here if a test asked for it."""
    global _left
    if name != _wanted:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)

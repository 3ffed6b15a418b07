"""Who asks: whether a request comes from an indexer or a thumbnailer.

Such a program reads whatever it finds. On a share it would pull everything into the cache, so what
is not here it is told at once, as if the server were away; what is here it may read.

It is known by the name of its process, or of the thread that asks. The kernel names the thread, as
seen from where we mounted; 0 is somebody whom we cannot see, and counts as a person's program. A
program may call itself what it likes: this is politeness, no protection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection

KNOWN_S = 2.0
"""For so long a thread's name is believed without looking; a number is used again much later."""
MOST = 1024


class Callers:
    """Answers for a thread's number. ``names`` gives the names of the programs meant."""

    def __init__(self, names: Callable[[], Collection[str]]) -> None:
        self._names = names
        self._known: dict[int, tuple[float, Collection[str], bool]] = {}

    def is_indexer(self, pid: int) -> bool:
        """Whether the thread belongs to one of them."""
        names = self._names()
        if not pid or not names:
            return False
        now = time.monotonic()
        known = self._known.get(pid)
        if known is not None and now - known[0] < KNOWN_S and known[1] is names:
            return known[2]
        if len(self._known) >= MOST:
            self._known.clear()
        found = any(name in names for name in names_of(pid))
        self._known[pid] = now, names, found
        return found


def names_of(pid: int) -> set[str]:
    """The name of a thread and that of its process; none if it is gone."""
    found = set()
    for number in {pid, _process_of(pid)}:
        try:
            with open(f"/proc/{number}/comm", "rb") as file:
                found.add(os.fsdecode(file.read(64).rstrip(b"\n")))
        except OSError:
            pass
    return found


def _process_of(pid: int) -> int:
    """The process that a thread belongs to; itself where that is not known."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Tgid:"):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return pid

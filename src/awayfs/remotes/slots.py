"""How many calls a worker has at once: more of what is short, and of each kind some.

What waits for its turn waits here, where no deadline runs. Uploads may have long to go, so what
somebody reads, and what hoard walks fetch, have slots of their own. So have the steps of changes,
where the adapter works on as many at once (``Capabilities.sending``); one with threads does not.
"""

from __future__ import annotations

import asyncio
import resource

from awayfs.remotes import pacing
from awayfs.remotes import protocol as p

BULK_IN_FLIGHT = 4
READS_IN_FLIGHT = 4
WALKS_IN_FLIGHT = 2
BACKGROUND_IN_FLIGHT = 8

OF_DESCRIPTORS = 4
"""One in so many of the descriptors that a process may have is for steps of changes: each small
upload has one here, and one in the worker."""


class Slots:
    """A semaphore for each kind of call."""

    def __init__(self) -> None:
        self._bulk = asyncio.Semaphore(BULK_IN_FLIGHT)
        self._reads = asyncio.Semaphore(READS_IN_FLIGHT)
        self._walks = asyncio.Semaphore(WALKS_IN_FLIGHT)
        self._background = asyncio.Semaphore(BACKGROUND_IN_FLIGHT)
        self._sending: asyncio.Semaphore | None = None
        self._metadata = asyncio.Semaphore(1)

    def allow(self, in_flight: int, sending: int) -> None:
        """So many questions, and steps of changes, at once is what the adapter takes."""
        self._metadata = asyncio.Semaphore(max(1, in_flight))
        most = max(BULK_IN_FLIGHT, _descriptors() // OF_DESCRIPTORS)
        self._sending = asyncio.Semaphore(min(sending, most)) if sending else None

    def of(self, call: p.Call) -> asyncio.Semaphore:
        """What a call waits for."""
        if isinstance(call, p.FetchCall):
            return self._walks if pacing.unasked.get() else self._reads
        if call.sends and self._sending is not None:
            return self._sending
        if call.background:
            return self._background
        return self._bulk if call.bulk else self._metadata


def _descriptors() -> int:
    """How many this process may have; the worker is started with the same limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft

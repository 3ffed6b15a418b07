"""A call to a worker that is under way."""

from __future__ import annotations

import asyncio
from typing import Any

from awayfs.remotes import protocol as p


class Pending:
    """What is known of it; ``deadline``: seconds without a sign of progress."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: p.Call, deadline: float) -> None:
        self.call = call
        self.future: asyncio.Future[Any] = loop.create_future()
        self.parts: list[Any] = []
        self.stall = deadline
        self.begun = loop.time()
        self.due = self.begun + deadline

    def once_more(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
        """Its end, to be waited for after the caller, and its future with it, was cancelled."""
        self.future = loop.create_future()
        self.future.add_done_callback(_seen)
        return self.future


def _seen(future: asyncio.Future[Any]) -> None:
    """Take note of an exception that the caller, cancelled, will not ask for."""
    if not future.cancelled():
        future.exception()

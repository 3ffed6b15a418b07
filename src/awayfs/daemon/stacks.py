"""Telling on SIGUSR2 where everything stands, for whoever looks at a daemon that seems to hang.

The log gets the stack of every thread at once, also while something holds the event loop, and what
each task waits for as soon as the loop comes to it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
from collections.abc import Iterator

log = logging.getLogger(__name__)

SIGNAL = signal.SIGUSR2


def tell_on_signal() -> None:
    """From now on; to be called on the running loop, which is the main thread's."""
    asyncio.get_running_loop().add_signal_handler(SIGNAL, _tell_tasks)
    faulthandler.register(SIGNAL, chain=True)  # before the loop's own handler, and in any case


def _tell_tasks() -> None:
    for task in asyncio.all_tasks():
        places = "\n".join(f"  {place}" for place in _awaited(task.get_coro()))
        log.warning("%r is at:\n%s", task, places)


def _awaited(awaitable: object) -> Iterator[str]:
    """Where a coroutine is, then what it awaits, and so on; of a task the library tells the first.

    The chain ends at a future, which the task itself shows, or at a step of an async generator.
    """
    while (frame := getattr(awaitable, "cr_frame", None)) is not None:
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
        awaitable = getattr(awaitable, "cr_await", None)

"""Telling when the event loop is held up, and by what.

Everybody waits for the loop, so nothing on it may take long. With ``AWAYFS_LOOP_WATCH=MS`` in
the daemon's environment a thread asks the loop for a sign of life again and again; when none
comes for that many milliseconds, the log gets what the loop is doing at that moment, and how
long it took in the end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

VARIABLE = "AWAYFS_LOOP_WATCH"
DEEPEST = 12
"""Frames of the stack that are told; what asyncio does above them is always the same."""


@contextmanager
def watched() -> Iterator[None]:
    """Watch the running loop if the environment asks for it."""
    text = os.environ.get(VARIABLE, "")
    if not text.isdecimal() or not int(text):
        if text:
            log.warning("%s=%s is no number of milliseconds", VARIABLE, text)
        yield
        return
    watch = LoopWatch(asyncio.get_running_loop(), int(text) / 1000)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


class LoopWatch:
    """Watches ``loop``, whose thread is the one that makes this."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._watched = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="awayfs-watch", daemon=True)
        self.worst_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; to be called on the loop's own thread, so it waits for nothing."""
        self._stopped.set()
        log.info("the event loop's longest wait: %d ms", self.worst_s * 1000)

    def _run(self) -> None:
        while not self._stopped.wait(self._limit_s / 4):
            try:
                self._look()
            except RuntimeError:  # the loop is closed
                return

    def _look(self) -> None:
        sign = threading.Event()
        began = time.monotonic()
        self._loop.call_soon_threadsafe(sign.set)
        stack = "" if sign.wait(self._limit_s) else self._stack()
        while not sign.wait(0.5):
            if self._stopped.is_set():
                return
        took = time.monotonic() - began
        self.worst_s = max(self.worst_s, took)
        if stack:
            log.warning("the event loop was held for %d ms, by:\n%s", took * 1000, stack)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return ""
        return "".join(traceback.format_stack(frame)[-DEEPEST:]).rstrip()

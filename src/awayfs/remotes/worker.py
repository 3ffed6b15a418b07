"""The process in which an adapter runs: ``python -m awayfs.remotes.worker --socket FD``.

It serves one volume to the daemon that started it, over the socket it inherited, and ends
when that is closed or the daemon's starting thread is gone, whichever it sees first. Threads
may be stuck in the kernel then, so it leaves without waiting for any.
"""

from __future__ import annotations

import asyncio
import gc
import getopt
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import msgspec

from awayfs.core.errors import AwayfsError
from awayfs.ports.remote import Listing, Remote
from awayfs.remotes import faults, linux, notices, pacing, progress
from awayfs.remotes.channel import Channel
from awayfs.remotes.failures import CANCELLED, Failure, failure_of
from awayfs.remotes.opening import build_adapter
from awayfs.remotes.protocol import (
    LIST_PART,
    Answer,
    Cancel,
    Limits,
    Lost,
    Open,
    Part,
    Request,
    Tick,
    decode_to_worker,
    encode,
)

TICK_INTERVAL_S = 0.1

Build = Callable[[str, Mapping[str, str]], Remote]
"""Makes the adapter for a URL and its options; nothing is contacted before ``connect``."""

log = logging.getLogger("awayfs.worker")


class Worker:
    """Serves requests from one socket until it is closed."""

    def __init__(self, sock: socket.socket, build: Build) -> None:
        self._loop = asyncio.get_running_loop()
        self._build = build
        self._remote: Remote | None = None
        self._refusal: AwayfsError | None = None
        self._pacer = pacing.Pacer()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._channel = Channel(sock, self._on_frame, _leave)
        self._tickers = Tickers(self._loop, self._channel)
        notices.listener = lambda why: self._send(Lost(why))

    def _on_frame(self, document: bytes) -> None:
        message = decode_to_worker(document)
        if isinstance(message, Request):
            fds = self._channel.take_descriptors(message.descriptors)
            task = self._loop.create_task(self._serve(message, fds))
            self._tasks[message.id] = task
            task.add_done_callback(lambda _: self._tasks.pop(message.id, None))
        elif isinstance(message, Cancel):
            running = self._tasks.get(message.id)
            if running is not None:
                self._loop.call_soon(running.cancel)  # one that has not begun would not answer
        elif isinstance(message, Limits):
            self._pacer.limit(message.up, message.down)
        elif isinstance(message, Open):
            try:
                self._remote = self._build(message.url, message.options)
                _look_less_for_garbage()
            except AwayfsError as error:
                self._refusal = error

    async def _serve(self, request: Request, fds: list[int]) -> None:
        ticker = Ticker(self._tickers, request.id)
        progress.listener.set(ticker)
        pacing.pacer.set(self._pacer)
        pacing.unasked.set(request.unasked)
        try:
            if self._remote is None:
                raise self._refusal or RuntimeError("a request came before its volume")
            value = await request.call.run(self._remote, fds)
            self._answer(request.id, value)
        except asyncio.CancelledError:
            self._send(Failure(request.id, CANCELLED, ""))
        except Exception as error:
            failure = failure_of(request.id, error)
            if not isinstance(error, AwayfsError | OSError):
                log.exception("%s failed", type(request.call).__name__)
            self._send(failure)
        finally:
            self._tickers.ended(ticker)
            for fd in fds:
                os.close(fd)

    def _answer(self, request: int, value: Any) -> None:
        if isinstance(value, list):
            value = self._last_part(request, value)
        elif isinstance(value, Listing) and value.entries is not None:
            value = replace(value, entries=self._last_part(request, value.entries))
        self._send(Answer(request, msgspec.Raw(encode(value))))

    def _last_part(self, request: int, entries: list[Any]) -> list[Any]:
        """Send what is too much for one frame; the rest."""
        start = 0
        while len(entries) - start > LIST_PART:
            part = entries[start : start + LIST_PART]
            self._send(Part(request, msgspec.Raw(encode(part))))
            start += LIST_PART
        return entries[start:]

    def _send(self, message: Answer | Failure | Part | Tick | Lost) -> None:
        self._channel.send(encode(message))


class Tickers:
    """Who of the calls under way has a tick to pass on that was held back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel) -> None:
        self._loop = loop
        self._channel = channel
        self._thread = threading.get_ident()
        self._held: set[Ticker] = set()
        self._turn: asyncio.TimerHandle | None = None

    def run(self, act: Callable[[Ticker], None], ticker: Ticker) -> None:
        """On the event loop, from whichever thread."""
        if threading.get_ident() == self._thread:
            act(ticker)
        else:
            self._loop.call_soon_threadsafe(act, ticker)

    def send(self, ticker: Ticker) -> None:
        """Pass on a tick now."""
        self._channel.send(encode(Tick(ticker.request, ticker.allowed)))

    def hold(self, ticker: Ticker) -> None:
        """Pass it on soon, with others; not at all if the call has ended by then."""
        self._held.add(ticker)
        if self._turn is None:
            self._turn = self._loop.call_later(TICK_INTERVAL_S, self._send_held)

    def ended(self, ticker: Ticker) -> None:
        """The call has its answer."""
        ticker.over = True
        self._held.discard(ticker)

    def _send_held(self) -> None:
        self._turn = None
        held, self._held = self._held, set()
        for ticker in held:
            if not ticker.over:
                self.send(ticker)


class Ticker:
    """Passes on the ticks of one call, not more often than is of use; from any thread.

    That a call has just begun is as good as a tick. A changed allowance is held back for a moment:
    most calls are over by then.
    """

    def __init__(self, tickers: Tickers, request: int) -> None:
        self._tickers = tickers
        self._last = time.monotonic()
        self.request = request
        self.allowed = 0.0
        self.over = False

    def __call__(self, allow: float) -> None:
        """One tick."""
        now = time.monotonic()
        changed = allow not in (progress.KEEP, self.allowed)
        if changed:
            self.allowed = allow
        if now - self._last >= TICK_INTERVAL_S:
            self._last = now
            self._tickers.run(self._tickers.send, self)
        elif changed:
            self._tickers.run(self._tickers.hold, self)


def _leave() -> NoReturn:
    # Not sys.exit: it would wait for threads that may be stuck in the kernel.
    os._exit(0)


def _look_less_for_garbage() -> None:
    """What was imported stays for ever, and thousands of small calls leave hardly a cycle: looking
    for some each 700 objects took a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(10_000)


def _close_all_but(kept: int) -> None:
    """Close what was inherited by accident, standard streams apart."""
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number > 2 and number != kept:
            try:
                os.close(number)
            except OSError:
                pass  # the one that listed the directory


async def _serve_for_ever(sock: socket.socket, build: Build) -> None:
    worker = Worker(sock, build)
    await asyncio.get_running_loop().create_future()
    del worker


def main(build: Build = build_adapter) -> None:
    """Entry point; ``--cut-at N`` (``faults``) and another ``build`` are for tests."""
    given = dict(getopt.getopt(sys.argv[1:], "", ["socket=", "cut-at="])[0])
    fd, cut_at = int(given["--socket"]), int(given.get("--cut-at", 0))
    linux.die_with_parent()
    _close_all_but(fd)
    logging.basicConfig(stream=sys.stderr, format="worker %(process)d: %(message)s")
    if cut_at:
        faults.arm(cut_at, kill=True)
    sock = socket.socket(fileno=fd)
    asyncio.run(_serve_for_ever(sock, build))


if __name__ == "__main__":
    main()

"""One worker process, as the daemon has it: requests out, answers in, deadlines, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from awayfs.core.errors import Unreachable
from awayfs.remotes import pacing
from awayfs.remotes import protocol as p
from awayfs.remotes.channel import Channel
from awayfs.remotes.failures import Failure, error_of
from awayfs.remotes.pending import Pending

LONGEST_QUEUE_S = 30.0
"""So long a transfer may wait behind others that move: a slow link is no dead server."""

log = logging.getLogger(__name__)


class WorkerProcess:
    """One worker process: requests out, answers in, and its end."""

    def __init__(
        self, popen: subprocess.Popen[bytes], sock: socket.socket, on_lost: Callable[[str], None]
    ) -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._popen = popen
        self._pending: dict[int, Pending] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._channel = Channel(sock, self._on_frame, self._on_end)
        self.pid = popen.pid
        self.sign = self._bulk_sign = 0.0
        self.alive = True
        self.reaped = False

    def open(self, url: str, options: Mapping[str, str]) -> None:
        """Say what to serve."""
        self._channel.send(p.encode(p.Open(url, dict(options))))

    def limit(self, limits: p.Limits) -> None:
        """How fast content may move."""
        self._channel.send(p.encode(limits))

    async def call(self, call: p.Call, deadline: float, fds: Sequence[int] = ()) -> Any:
        """Run one call; raises what it raised there, or ``Unreachable``."""
        if not self.alive:
            raise Unreachable("not connected")
        request, self._next_id = self._next_id, self._next_id + 1
        unasked = pacing.unasked.get()
        frame = p.encode(p.Request(request, call, len(fds), unasked))  # type: ignore[arg-type]
        self._channel.send(frame, list(fds))  # OSError: no descriptor to be had, and nothing asked
        pending = Pending(self._loop, call, deadline)
        self._pending[request] = pending
        self._watch(pending.due)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._channel.send(p.encode(p.Cancel(request)))
            if request in self._pending:
                over = pending.leave()
                if fds:  # the worker may write into the file: wait until it says it does not
                    await asyncio.wait([over])
            raise

    async def is_idle(self, wait_s: float) -> bool:
        """Whether nothing is under way, after so many seconds at most."""
        if self._pending:
            await asyncio.wait([one.future for one in self._pending.values()], timeout=wait_s)
        return self.alive and not self._pending

    def end(self, why: str) -> None:
        """Kill the process and fail what is under way. Does not wait for it to be gone."""
        if not self.alive:
            return
        self.alive = False
        self._channel.close()
        if self._timer is not None:
            self._timer.cancel()
        if not self.reaped:
            self._popen.kill()
        pending, self._pending = list(self._pending.values()), {}
        for one in pending:
            one.fail(Unreachable(why))

    def _watch(self, due: float) -> None:
        """Look at this time whether an answer is overdue, or earlier: one timer for all calls."""
        if self._timer is None or due < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer, now = None, self._loop.time()
        for one in list(self._pending.values()):
            if one.due <= now:
                self._on_due(one, now)
        if self._pending:
            self._watch(min(one.due for one in self._pending.values()))

    def _on_due(self, one: Pending, now: float) -> None:
        late = now - one.due
        if late > one.stall / 8:
            # The loop itself was held up, and the answer may lie in the socket: look first.
            one.due = now + one.stall / 8
        elif self._waits_its_turn(one, now):
            one.due = self._bulk_sign + one.stall
        if one.due <= now:
            name = type(one.call).__name__.removesuffix("Call").lower()
            self.end(f"no answer to {name} for {one.stall:.1f} s")

    def _waits_its_turn(self, one: Pending, now: float) -> bool:
        """Whether other transfers have moved meanwhile, behind which this one may have to wait."""
        moved = one.is_transfer and self._bulk_sign + one.stall > now
        return moved and now - one.begun < LONGEST_QUEUE_S

    def _on_frame(self, document: bytes) -> None:
        try:
            message = p.decode_from_worker(document)
            if isinstance(message, p.Lost):
                self._on_lost(message.why)
                return
            self.sign = self._loop.time()
            one = self._pending.get(message.id)
            if one is None:
                return
            if one.is_transfer:
                self._bulk_sign = self.sign
            self._on_message(message, one)
        except msgspec.DecodeError as error:
            log.warning("a worker sent what cannot be read: %s", error)
            self.end("the worker process sent what cannot be read")

    def _on_message(self, message: p.Part | p.Answer | Failure | p.Tick, one: Pending) -> None:
        if isinstance(message, p.Answer):
            one.answer(message.value)
            del self._pending[message.id]
        elif isinstance(message, p.Tick):
            one.due = self._loop.time() + max(one.stall, message.allow)
            self._watch(one.due)
        elif isinstance(message, p.Part):
            one.due = self._loop.time() + one.stall
            one.take_part(message.value)
        else:
            del self._pending[message.id]
            one.fail(error_of(message))

    def _on_end(self) -> None:
        """By itself: whoever has it ended made it dead before."""
        if self.alive:
            self._on_lost("the worker process ended")
            self.end("the worker process ended")

    def _on_exit(self) -> None:
        """The process is gone for good (pidfd_open(2)): collect it."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._popen.poll()
        self.reaped = True
        self._on_end()

"""One mounted file system: read requests, have them handled, write the replies.

A `Session` serves one ``/dev/fuse`` descriptor (or a fake kernel's socket) on the
event-loop thread. A handler gets a typed request and returns

* bytes, or a list of buffers that are sent without being joined: the reply;
* an awaitable: it becomes a task, and its result is the reply;
* None, for requests that are never answered (Forget, BatchForget).

An ``OSError`` that it raises becomes the errno of the reply. Anything else, and an
errno outside 1..511, is logged and answered EIO: nobody who called is left waiting.
A handler that needs no waiting should return bytes, not a coroutine: that saves the
making of a task, which costs more than everything else here together.

A request type without a handler is answered ENOSYS. The kernel remembers that for the
life of the mount, and does without: see fs/fuse for what that means for each operation
(ACCESS, FLUSH and FSYNC count as done; xattrs as unsupported; STATX falls back to GETATTR).
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
import os
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from awayfs.fuse import wire
from awayfs.fuse.decode import DECODERS, HEADER_SIZE, Decoder, MalformedRequest
from awayfs.fuse.negotiate import Negotiated, SessionError, SessionOptions, negotiate
from awayfs.fuse.wire import Opcode

log = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview
Reply = Buffer | Sequence[Buffer] | None
Result = Reply | Awaitable[Reply]
Handler = Callable[[Any], Result]

JOIN_BELOW = 16384
"""Replies up to this size are joined with their header: cheaper than writev(2)."""
BURST = 32
"""Requests handled before the event loop gets its turn."""

_NO_USE = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.STATFS)

_START = struct.Struct("=IIQ").unpack_from
_OUT = wire.OUT_HEADER.struct.pack
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.EBADF, errno.EPIPE, errno.ECONNRESET})


class Ended(enum.Enum):
    """Why a session is over."""

    UNMOUNTED = "unmounted"
    ABORTED = "aborted"
    CLOSED = "closed"


class Session:
    """Serves the file system behind `fd` with `handlers` (request type → handler).

    The descriptor stays the caller's: it is made non-blocking, and closed by nobody
    here. Close it after `wait_closed` and after the `Notifier` has been closed.
    """

    def __init__(
        self,
        fd: int,
        handlers: Mapping[type[Any], Handler],
        *,
        want: SessionOptions | None = None,
    ) -> None:
        self._fd = fd
        self._want = want or SessionOptions()
        self._table: dict[int, tuple[Decoder, Handler]] = {}
        self._handlers = handlers
        self._buffer = memoryview(bytearray(self._want.max_write + 4096 + HEADER_SIZE))
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._early = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[Ended] | None = None
        self._ready: asyncio.Future[Negotiated] | None = None
        self._negotiated: Negotiated | None = None
        self._counts = [0] * 64

    # life

    def attach(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin to serve, on `loop` or on the running one."""
        self._loop = loop or asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._ready = self._loop.create_future()
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._serve)

    @property
    def closed(self) -> asyncio.Future[Ended]:
        """Done when the session is over; a SessionError if the kernel is too old."""
        if self._ended is None:
            raise RuntimeError("the session was not attached")
        return self._ended

    @property
    def negotiated(self) -> Negotiated:
        """What INIT settled. Before that, a RuntimeError."""
        if self._negotiated is None:
            raise RuntimeError("the kernel has not sent INIT yet")
        return self._negotiated

    @property
    def requests(self) -> dict[str, int]:
        """How many requests of each operation came."""
        return {
            Opcode(number).name: count
            for number, count in enumerate(self._counts)
            if count and number in Opcode._value2member_map_
        }

    @property
    def used(self) -> int:
        """How many requests came of programs that use the mount: not of the kernel by itself, and
        not of those who ask for the free space of everything that is mounted."""
        return sum(self._counts) - sum(self._counts[number] for number in _NO_USE)

    @property
    def pending(self) -> int:
        """How many requests have a task that is not done."""
        return len(self._tasks)

    async def wait_ready(self) -> Negotiated:
        """Wait for INIT: what was settled. SessionError if the session ended before."""
        if self._ready is None:
            raise RuntimeError("the session was not attached")
        return await asyncio.shield(self._ready)

    async def wait_closed(self) -> Ended:
        """Wait for the end (unmounted, aborted, or `close`), and for the cancelled tasks."""
        try:
            return await asyncio.shield(self.closed)
        finally:
            if self.closed.done() and self._tasks:
                await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def close(self, why: Ended = Ended.CLOSED) -> None:
        """Stop serving and cancel what is pending. The mount stays, and answers nothing more."""
        self._end(why, None)

    def _end(self, why: Ended, error: SessionError | None) -> None:
        if self._loop is None or self.closed.done():
            return
        self._loop.remove_reader(self._fd)
        for task in self._tasks.values():
            self._cancel(task)
        assert self._ended is not None and self._ready is not None
        if not self._ready.done():
            self._ready.set_exception(error or SessionError(f"{why.value} before INIT"))
            self._ready.exception()  # nobody has to wait for it
        if error is None:
            self._ended.set_result(why)
        else:
            self._ended.set_exception(error)

    # the loop

    def _serve(self) -> None:
        """Handle what the kernel has for us, at most `BURST` requests."""
        fd, view = self._fd, self._buffer
        for _ in range(BURST):
            try:
                size = os.readv(fd, [view])
            except BlockingIOError:
                return
            except OSError as error:
                if self._read_failed(error):
                    return
                continue
            if not size:  # a fake kernel hung up
                self._end(Ended.UNMOUNTED, None)
                return
            self._dispatch(bytes(view[:size]))
            if self.closed.done():
                return

    def _read_failed(self, error: OSError) -> bool:
        """Whether to stop reading. ENOENT: the request was withdrawn while being read."""
        if error.errno in (errno.EINTR, errno.ENOENT):
            return False
        if error.errno == errno.ENODEV:
            self._end(Ended.UNMOUNTED, None)
        elif error.errno in (errno.ECONNABORTED, errno.ECONNRESET):
            self._end(Ended.ABORTED, None)
        else:
            self._end(Ended.ABORTED, SessionError(f"reading requests: {error.strerror}"))
        return True

    def _dispatch(self, message: bytes) -> None:
        try:
            length, opcode, unique = _START(message)
            if length != len(message) or length < HEADER_SIZE:
                raise MalformedRequest(f"{len(message)} bytes that say they are {length}")
            self._counts[opcode & 63] += 1
            known = self._table.get(opcode)
            if known is None:
                self._special(opcode, unique, message)
                return
            decoder, handler = known
            request = decoder(message)
        except (MalformedRequest, struct.error) as error:
            self._malformed(message, error)
            return
        try:
            result = handler(request)
            if type(result) is bytes:
                self._write(unique, result)
            else:
                self._answer(opcode, unique, result)
        except BaseException as error:
            self._failed(opcode, unique, error)

    def _answer(self, opcode: int, unique: int, result: Result) -> None:
        """Send what a handler returned, or the result of what it awaits, once that is there."""
        if isinstance(result, Awaitable):
            assert self._loop is not None
            self._tasks[unique] = self._loop.create_task(self._finish(opcode, unique, result))
        elif opcode not in wire.NO_REPLY:
            self._write(unique, result)

    async def _finish(self, opcode: int, unique: int, awaited: Awaitable[Reply]) -> None:
        """The body of a request's task."""
        try:
            result = await awaited
            if opcode not in wire.NO_REPLY:
                self._write(unique, result)
        except BaseException as error:
            self._failed(opcode, unique, error)
        finally:
            self._tasks.pop(unique, None)

    # what is not the handlers' business

    def _special(self, opcode: int, unique: int, message: bytes) -> None:
        if opcode == Opcode.INIT:
            self._init(unique, message)
        elif opcode == Opcode.INTERRUPT and self._negotiated:
            self._interrupt(unique, wire.INTERRUPT_IN.struct.unpack_from(message, HEADER_SIZE)[0])
        elif opcode == Opcode.DESTROY:
            self._write(unique, b"")
        elif opcode not in wire.NO_REPLY:
            self._write_error(unique, errno.ENOSYS if self._negotiated else errno.EIO)

    def _init(self, unique: int, message: bytes) -> None:
        try:
            reply, settled = negotiate(message[HEADER_SIZE:], self._want)
        except SessionError as error:
            self._write_error(unique, errno.EPROTO)
            self._end(Ended.CLOSED, error)
            return
        if settled is not None:
            self._negotiated = settled
            self._table = {
                number: (decoder, self._handlers[kind])
                for number, (kind, decoder) in DECODERS.items()
                if kind in self._handlers and number != Opcode.INTERRUPT
            }
        self._write(unique, reply)
        if settled is not None and self._ready is not None and not self._ready.done():
            self._ready.set_result(settled)

    def _interrupt(self, unique: int, target: int) -> None:
        """Cancel the task of `target`.

        One that we do not know has ended, or is not read yet. EAGAIN has the kernel ask
        again in the latter case, and is ignored (ENOENT) in the former; it is said once,
        so that the two of us do not spin.
        """
        task = self._tasks.get(target)
        if task is not None:
            self._cancel(task)
        elif self._early != target:
            self._early = target
            self._write_error(unique, errno.EAGAIN)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel `task` once it has begun: before, it would end without its clean-up."""
        assert self._loop is not None
        self._loop.call_soon(task.cancel)

    # replies

    def _malformed(self, message: bytes, error: Exception) -> None:
        if len(message) < 16:
            log.error("a request of %d bytes", len(message))
            return
        _, opcode, unique = _START(message)
        log.error("malformed request %d (opcode %d): %s", unique, opcode, error)
        if opcode not in wire.NO_REPLY:
            self._write_error(unique, errno.EIO)

    def _failed(self, opcode: int, unique: int, error: BaseException) -> None:
        """Answer with what `error` says; log it if it says nothing."""
        code = errno.EIO
        if isinstance(error, asyncio.CancelledError):
            if self.closed.done():
                return
            code = errno.EINTR
        elif isinstance(error, OSError) and 1 <= (error.errno or 0) <= wire.MAX_ERRNO:
            assert error.errno is not None
            code = error.errno
        else:
            log.error("request %d (opcode %d) failed", unique, opcode, exc_info=error)
        if opcode not in wire.NO_REPLY:
            self._write_error(unique, code)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error

    def _write_error(self, unique: int, code: int) -> None:
        try:
            os.write(self._fd, _OUT(16, -code, unique))
        except OSError as error:
            self._unwritten(unique, error)

    def _write(self, unique: int, payload: Reply) -> None:
        try:
            if type(payload) is bytes and len(payload) < JOIN_BELOW:
                os.write(self._fd, _OUT(16 + len(payload), 0, unique) + payload)
                return
            buffers = self._buffers(payload)
            total = 16 + sum(map(len, buffers))
            os.writev(self._fd, [_OUT(total, 0, unique), *buffers])
        except OSError as error:
            if self._unwritten(unique, error):
                # refused for its form: the request may still be waiting
                self._write_error(unique, errno.EIO)

    @staticmethod
    def _buffers(payload: Reply) -> list[Buffer]:
        if isinstance(payload, (bytes, bytearray, memoryview)):
            return [payload]
        if isinstance(payload, (list, tuple)):
            return list(payload)
        raise TypeError(f"{payload!r:.50} is no reply")

    def _unwritten(self, unique: int, error: OSError) -> bool:
        """Whether a reply was refused although somebody waits for it.

        ENOENT says that nobody waits any more (interrupted, aborted); ENODEV that the
        mount is gone.
        """
        if error.errno in _GONE:
            return False
        log.error("reply to request %d not taken: %s", unique, error.strerror)
        return True

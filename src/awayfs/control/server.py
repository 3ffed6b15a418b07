"""Answering commands: an asyncio server on a Unix socket that only its owner can use."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from awayfs.control.address import connectable, short
from awayfs.control.messages import (
    KEEPALIVE,
    MAX_REQUEST,
    ControlError,
    decode,
    encode,
    kind_of,
    one_line,
)
from awayfs.core.errors import AwayfsError

log = logging.getLogger(__name__)

_TOGETHER_MAX = 32
"""Requests of one connection that are worked on at a time; further ones wait."""


class Request(msgspec.Struct, frozen=True):
    """One request line."""

    id: int
    method: str
    params: dict[str, Any] = {}


class Done(Struct, frozen=True):
    """The last thing that a handler with progress yields: the result."""

    result: dict[str, Any] = field(default_factory=dict)


Handler = Callable[
    [dict[str, Any]], Awaitable[dict[str, Any]] | AsyncIterator[dict[str, Any] | Done]
]
"""``async def (params) -> result``, or an async generator of progress and at last ``Done``."""


class ControlServer:
    """Serves ``handlers`` at ``path``; start it only while holding the volume's store."""

    def __init__(
        self, path: str, handlers: Mapping[str, Handler], keepalive: float = KEEPALIVE
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._keepalive = keepalive
        self._server: asyncio.Server | None = None
        self._inode: Inode = (0, 0)
        self._connections: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; raises ``ControlError`` (``in-use``) when another process does."""
        listener, self._inode = listen(self._path)
        self._server = await asyncio.start_unix_server(
            self._accepted, sock=listener, limit=MAX_REQUEST
        )

    async def close(self, grace: float = 1.0) -> None:
        """Stop listening, give what is being answered a moment, then cut it off."""
        if self._server is None:
            return
        self._server.close()
        remove(self._path, self._inode)
        if busy := self._requests - {asyncio.current_task()}:
            await asyncio.wait(busy, timeout=grace)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._server = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _Connection(
                reader, writer, self._handlers, self._keepalive, self._requests
            ).serve()
        except ConnectionError:
            pass  # the command went away; whatever it asked for is cancelled
        except asyncio.CancelledError:
            pass  # close() ends connections this way, and nobody awaits this task but it
        finally:
            self._connections.discard(task)
            writer.close()


class _Connection:
    """One command's connection: requests in, and a task for each."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, Handler],
        keepalive: float,
        requests: set[asyncio.Task[None]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._keepalive = keepalive
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = requests
        self._room = asyncio.Semaphore(_TOGETHER_MAX)

    async def serve(self) -> None:
        """Until the other side closes; then cancel what is unfinished."""
        if not is_ours(self._writer.get_extra_info("socket")):
            await self._fail(None, ControlError("this mount is another user's", "forbidden"))
            return
        try:
            while line := await self._next_line():
                await self._room.acquire()
                task = asyncio.create_task(self._handle(line))
                self._tasks.add(task)
                self._requests.add(task)
                task.add_done_callback(self._finished)
        finally:
            for task in self._tasks:
                task.cancel()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._requests.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a reply could not be sent: %s", error)

    async def _next_line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ValueError:
            await self._fail(None, ControlError("the request is too long", "bad-request"))
            return b""

    async def _handle(self, line: bytes) -> None:
        number: int | None = None
        try:
            message = decode(line)
            number = message["id"] if isinstance(message.get("id"), int) else None
            request = _request(message)
            handler = self._handlers.get(request.method)
            if handler is None:
                raise ControlError(f"{request.method}: no such method", "unknown-method")
            result = await self._watched(request, handler)
            await self._send({"id": request.id, "result": result})
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            await self._fail(number, error)

    async def _watched(self, request: Request, handler: Handler) -> dict[str, Any]:
        """Run the handler, with a sign of life now and then."""
        alive = asyncio.create_task(self._stay_alive(request.id))
        try:
            answer = handler(request.params)
            if isinstance(answer, AsyncIterator):
                return await self._progressing(request.id, answer)
            return await answer
        finally:
            alive.cancel()

    async def _progressing(
        self, number: int, events: AsyncIterator[dict[str, Any] | Done]
    ) -> dict[str, Any]:
        try:
            async for event in events:
                if isinstance(event, Done):
                    return event.result
                await self._send({"id": number, "progress": event})
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        return {}

    async def _stay_alive(self, number: int) -> None:
        while True:
            await asyncio.sleep(self._keepalive)
            await self._send({"id": number, "alive": True})

    async def _fail(self, number: int | None, error: Exception) -> None:
        kind = kind_of(error)
        if kind == "internal":
            log.error("a request failed", exc_info=error)
        message = one_line(_message(error))
        await self._send({"id": number, "error": {"kind": kind, "message": message}})

    async def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(encode(message))
        await self._writer.drain()


def _request(message: dict[str, Any]) -> Request:
    try:
        return msgspec.convert(message, Request)
    except msgspec.ValidationError as error:
        raise ControlError(f"the request is not understood: {error}", "bad-request") from None


def _message(error: Exception) -> str:
    if isinstance(error, AwayfsError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        if isinstance(error.filename, bytes):
            return f"{os.fsdecode(error.filename)}: {error.strerror}"
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"the daemon failed: {type(error).__name__}: {error}; see daemon.log"


def is_ours(connection: socket.socket) -> bool:
    """Whether the other side runs as our user, or as root."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = struct.unpack("iII", credentials)
    return uid in (os.geteuid(), 0)


Inode = tuple[int, int]


def listen(path: str) -> tuple[socket.socket, Inode]:
    """A listening socket, usable by its owner alone from the first moment, and its file's inode.

    Raises ``ControlError`` (``in-use``) when another process listens there.
    """
    if os.path.lexists(path):
        if connectable(path):
            raise ControlError(f"{path}: another daemon listens there", "in-use")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # Linux makes the file with the socket's own mode
        with short(path) as name:
            listener.bind(name)
        os.chmod(path, 0o600)
        listener.listen(64)
        status = os.stat(path)
    except OSError as error:
        listener.close()
        raise ControlError(f"{path}: cannot listen: {error.strerror}", "os") from None
    return listener, (status.st_dev, status.st_ino)


def remove(path: str, inode: Inode) -> None:
    """Take a socket's file away, unless another daemon has put its own there."""
    try:
        status = os.stat(path)
        if (status.st_dev, status.st_ino) == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass

"""One SFTP session: typed requests, the port's errors, a window of bytes on the way.

Two such channels run over one connection (``sftp_connection``). A request is answered by a
value or raises one of the port's errors; FX_FAILURE comes as ``sftp_errors.Failed``.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import asyncssh
from asyncssh.sftp import SFTPClientHandler

from awayfs.core.errors import Implausible, NotFound, Refused
from awayfs.core.types import RemotePath
from awayfs.remotes import pacing, progress
from awayfs.remotes.sftp_entries import Named
from awayfs.remotes.sftp_errors import BadMessage, Failed, Unsupported, from_exception
from awayfs.remotes.sftp_names import decode_at_once

T = TypeVar("T")

READDIR_FIRST = 2
READDIR_AHEAD = 24
"""Readdir requests on the way at once, at first and in a directory that goes on and on.
OpenSSH answers each with at most 100 names."""

KIB = 1024
SMALLEST_WINDOW = 16 * KIB
LARGEST_WINDOW = 4096 * KIB
CHUNKS_AHEAD = 32
FIRST_WINDOW = 64 * KIB
QUEUED_LITTLE_S = 0.1
QUEUED_MUCH_S = 0.25

ALL_ATTRIBUTES = asyncssh.FILEXFER_ATTR_DEFINED_V4
"""Which attributes are wanted; v3 has no such field and ignores it."""


def raw(item: Named) -> bytes:
    """The name in a NAME reply, as it came."""
    name = item.filename
    assert isinstance(name, bytes), "asyncssh decoded a name that it was told not to"
    return name


class Window:
    """How many bytes of file data may be on the way.

    A keepalive and a user's ``ls`` queue behind the data that was sent before them. On a slow
    link a fixed window of megabytes would hold the keepalive's answer back for longer than
    the three seconds after which the server counts as gone. So the window follows the time
    that data waits beyond the link's own round trip: it grows below QUEUED_LITTLE_S and
    halves above QUEUED_MUCH_S. What somebody waits for goes before the rest that waits for room.
    """

    def __init__(self, largest_io: int) -> None:
        self.allowed = FIRST_WINDOW
        self._largest_io = largest_io
        self._used = 0
        self._fastest_s = float("inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._first: deque[asyncio.Future[None]] = deque()

    @property
    def chunk(self) -> int:
        """Bytes worth putting into one request now."""
        return max(SMALLEST_WINDOW, min(self._largest_io, self.allowed // 4))

    @property
    def ahead(self) -> int:
        """Requests of one file worth having on the way, or in wait for room: no more than fill it.

        What waits here is served in its order, and others would have to wait for all of it.
        """
        return min(CHUNKS_AHEAD, self.allowed // self.chunk + 1)

    @asynccontextmanager
    async def room(self, count: int, *, first: bool = False) -> AsyncIterator[None]:
        """Hold ``count`` bytes of the window for one request; its duration is the measure."""
        while self._is_full(count) or (self._first and not first):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            (self._first if first else self._waiting).append(future)
            try:
                await future
            except asyncio.CancelledError:
                self._wake()  # the turn given to us goes to the next one
                raise
            progress.tick(
                progress.KEEP
            )  # a request ended: who lets others go first is no less alive
        self._used += count
        started = time.monotonic()
        took_s = None
        try:
            yield
            took_s = time.monotonic() - started
        finally:
            self.give(count, took_s)

    def take(self, count: int) -> bool:
        """Hold ``count`` bytes, if there is room at this moment; ``give`` has to follow."""
        if self._is_full(count):
            return False
        self._used += count
        return True

    def give(self, count: int, took_s: float | None) -> None:
        """Give ``count`` bytes back; the request took so many seconds, None: it failed."""
        if took_s is not None:
            self._learn(took_s, count)
        self._used -= count
        self._wake()

    def _is_full(self, count: int) -> bool:
        return self._used > 0 and self._used + count > self.allowed

    def _learn(self, took_s: float, count: int) -> None:
        self._fastest_s = min(self._fastest_s, took_s)
        queued = took_s - self._fastest_s
        if queued < QUEUED_LITTLE_S:
            self.allowed = min(LARGEST_WINDOW, self.allowed + count)
        elif queued > QUEUED_MUCH_S:
            self.allowed = max(SMALLEST_WINDOW, self.allowed // 2)

    def _wake(self) -> None:
        # All are woken and look again: few wait at a time, since who asks keeps few requests.
        for waiting in (self._first, self._waiting):
            while waiting:
                future = waiting.popleft()
                if not future.done():
                    future.set_result(None)


class _Corked:
    """The writer of a session, through which all requests of one turn of the loop go out at once.

    asyncssh makes an SSH packet and a ``write(2)`` of each request; for small ones that is most
    of what they cost, at both ends.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._unsent: list[bytes] = []

    def write(self, data: bytes) -> None:
        """As ``asyncssh.SSHWriter``, a little later."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if not self._writer.channel.is_closing():
            self._writer.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class Channel:
    """Requests of one SFTP session below one root directory.

    ``largest_io`` bounds one read or write (limits@openssh.com), ``handles`` the handles that
    are open at once.
    """

    def __init__(self, client: asyncssh.SFTPClient, root: bytes, handles: int) -> None:
        # The handler is what SFTPClient itself calls. Its public face has no plain read at an
        # offset, no readdir on a handle that one can have several of on the way, and follows
        # symlinks where we must not.
        self._handler: SFTPClientHandler = client._handler
        decode_at_once(self._handler)
        if self._handler._writer is not None and not isinstance(self._handler._writer, _Corked):
            self._handler._writer = cast(Any, _Corked(self._handler._writer))
        self._client = client
        self._root = root
        self.handles = handles
        self._open_handles = asyncio.Semaphore(handles)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting = 0
        self._syncs_directories = True
        self._this_sync: dict[RemotePath, asyncio.Task[None]] = {}
        self._next_sync: dict[RemotePath, asyncio.Task[None]] = {}
        self._quiet_since = time.monotonic()
        self.largest_read = min(client.limits.max_read_len or 32 * KIB, 256 * KIB)
        self.largest_write = min(client.limits.max_write_len or 32 * KIB, 256 * KIB)
        self.window = Window(max(self.largest_read, self.largest_write))

    def absolute(self, path: RemotePath) -> bytes:
        """The server's path. ``sftp_paths.check`` keeps a NUL out, which OpenSSH dies of."""
        if not path:
            return self._root
        return self._root.rstrip(b"/") + b"/" + path

    def silent_for(self) -> float:
        """Seconds for which a request has been waiting without any reply; 0 when idle."""
        return time.monotonic() - self._quiet_since if self._waiting else 0.0

    async def ask(self, request: Coroutine[Any, Any, T], path: bytes = b"") -> T:
        """Await one request; ``path`` is for the error's text. Each reply is a sign of life."""
        if not self._waiting:
            self._quiet_since = time.monotonic()
        self._waiting += 1
        try:
            return await request
        except Exception as error:
            raise self._explained(from_exception(error, path), path) from error
        finally:
            self._waiting -= 1
            self._quiet_since = time.monotonic()
            progress.tick(progress.KEEP)

    @staticmethod
    def _explained(error: Exception, path: bytes) -> Exception:
        if isinstance(error, BadMessage) and any(len(name) > 255 for name in path.split(b"/")):
            return Refused(errno.ENAMETOOLONG, str(error))
        return error

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run to its end what the caller does not wait for; its errors are of no interest."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    # Requests by path. All are those of the draft, section 6, or of OpenSSH's PROTOCOL.

    async def lstat(self, path: RemotePath) -> asyncssh.SFTPAttrs:
        """LSTAT: attributes of the object itself."""
        return await self.ask(self._handler.lstat(self.absolute(path), ALL_ATTRIBUTES), path)

    async def readlink(self, path: RemotePath) -> bytes:
        """READLINK: a symlink's target, byte for byte."""
        names, _ = await self.ask(self._handler.readlink(self.absolute(path)), path)
        if len(names) != 1:
            raise Implausible("a symlink with other than one target")
        return raw(names[0])

    async def realpath(self, path: RemotePath) -> bytes:
        """REALPATH: the absolute path without symlinks."""
        names, _ = await self.ask(self._handler.realpath(self.absolute(path)), path)
        if len(names) != 1:
            raise Implausible("a path with other than one real path")
        return raw(names[0])

    async def setstat(self, path: RemotePath, attrs: asyncssh.SFTPAttrs, follow: bool) -> None:
        """SETSTAT, or lsetstat@openssh.com where ``follow`` is false."""
        request = self._handler.setstat(self.absolute(path), attrs, follow_symlinks=follow)
        await self.ask(request, path)

    async def mkdir(self, path: RemotePath, attrs: asyncssh.SFTPAttrs) -> None:
        """MKDIR; fails where anything stands."""
        await self.ask(self._handler.mkdir(self.absolute(path), attrs), path)

    async def rmdir(self, path: RemotePath) -> None:
        """RMDIR; fails unless empty."""
        await self.ask(self._handler.rmdir(self.absolute(path)), path)

    async def unlink(self, path: RemotePath) -> None:
        """REMOVE, of anything but a directory."""
        await self.ask(self._handler.remove(self.absolute(path)), path)

    async def symlink(self, target: bytes, path: RemotePath) -> None:
        """SYMLINK; asyncssh knows that OpenSSH swapped the arguments on the wire."""
        await self.ask(self._handler.symlink(target, self.absolute(path)), path)

    async def hard_link(self, source: RemotePath, path: RemotePath) -> None:
        """hardlink@openssh.com; exclusive, and on Linux a link to a symlink itself."""
        request = self._handler.link(self.absolute(source), self.absolute(path))
        await self.ask(request, path)

    async def rename_exclusive(self, source: RemotePath, path: RemotePath) -> None:
        """RENAME, which fails where anything stands.

        OpenSSH does it by link and unlink for files, by stat and rename for the rest.
        """
        request = self._handler.rename(self.absolute(source), self.absolute(path), 0)
        await self.ask(request, path)

    async def rename_over(self, source: RemotePath, path: RemotePath) -> None:
        """posix-rename@openssh.com: rename(2) at the server, atomic, replaces."""
        request = self._handler.posix_rename(self.absolute(source), self.absolute(path))
        await self.ask(request, path)

    async def statvfs(self, path: RemotePath) -> asyncssh.SFTPVFSAttrs:
        """statvfs@openssh.com."""
        return await self.ask(self._handler.statvfs(self.absolute(path)), path)

    # Requests by handle.

    async def fstat(self, handle: bytes) -> asyncssh.SFTPAttrs:
        """FSTAT."""
        return await self.ask(self._handler.fstat(handle, ALL_ATTRIBUTES))

    async def fsetstat(self, handle: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        """FSETSTAT."""
        await self.ask(self._handler.fsetstat(handle, attrs))

    async def fsync(self, handle: bytes) -> None:
        """fsync@openssh.com; nothing where the server does not offer it."""
        try:
            await self.ask(self._handler.fsync(handle))
        except Unsupported:
            pass

    async def read(self, handle: bytes, offset: int, count: int) -> bytes:
        """READ: at most ``count`` bytes; ``b""`` at the end of the file."""
        await pacing.down(count)
        async with self.window.room(count, first=not pacing.unasked.get()):
            data, _ = await self.ask(self._read(handle, offset, count))
        if len(data) > count:
            raise Implausible("more data than was asked for")
        return data

    async def _read(self, handle: bytes, offset: int, count: int) -> tuple[bytes, bool]:
        try:
            return await self._handler.read(handle, offset, count)
        except asyncssh.SFTPEOFError:
            return b"", True

    async def write(self, handle: bytes, offset: int, data: bytes) -> None:
        """WRITE of all of ``data``; a v3 server takes all or fails. The caller holds room."""
        await self.ask(self._handler.write(handle, offset, data))

    async def sync_directory(self, path: RemotePath) -> None:
        """Make names in a directory durable, where the server lets us ask for it.

        The draft has no such request, but OpenSSH opens a directory for reading like a file,
        and fsync@openssh.com takes that handle. A refusal is final for this session.
        """
        # Many files that go into one directory share a sync: each waits for one that began
        # after its own change, which is the next one, not the one under way.
        waiting = self._next_sync.get(path)
        if waiting is None:
            waiting = self.spawn(self._sync_after(path, self._this_sync.get(path)))
            self._next_sync[path] = waiting
        await asyncio.shield(waiting)

    async def _sync_after(self, path: RemotePath, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        task = self._next_sync.pop(path)
        self._this_sync[path] = task
        try:
            if self._syncs_directories:
                await self._sync_now(path)
        finally:
            if self._this_sync.get(path) is task:
                del self._this_sync[path]

    async def _sync_now(self, path: RemotePath) -> None:
        try:
            async with self.opened(path, asyncssh.FXF_READ) as handle:
                await self.fsync(handle)
        except Failed:
            self._syncs_directories = False
        except (Refused, NotFound):
            pass  # a directory that may be written but not read, or is gone

    async def close(self, handle: bytes) -> None:
        """CLOSE."""
        await self.ask(self._handler.close(handle))

    @asynccontextmanager
    async def opened(
        self, path: RemotePath, flags: int, attrs: asyncssh.SFTPAttrs | None = None
    ) -> AsyncIterator[bytes]:
        """A handle of a file, closed afterwards without waiting. Follows symlinks."""
        attrs = attrs or asyncssh.SFTPAttrs()
        request = self.ask(self._handler.open(self.absolute(path), flags, attrs), path)
        async with self._handle(request) as handle:
            yield handle

    @asynccontextmanager
    async def _handle(self, request: Coroutine[Any, Any, bytes]) -> AsyncIterator[bytes]:
        # The count is given back when the server has closed the handle, or never opened it,
        # and a handle that arrives after its caller was cancelled is closed as well.
        try:
            await self._open_handles.acquire()
        except BaseException:
            request.close()
            raise
        opening = self.spawn(request)
        try:
            yield await asyncio.shield(opening)
        finally:
            self.spawn(self._closed(opening))

    async def _closed(self, opening: asyncio.Task[bytes]) -> None:
        try:
            await self.close(await opening)
        finally:
            self._open_handles.release()

    async def readdir(self, path: RemotePath) -> AsyncGenerator[list[Named], None]:
        """OPENDIR and READDIR to the end: blocks of names. Raises if any request failed."""
        request = self.ask(self._handler.opendir(self.absolute(path)), path)
        async with self._handle(request) as handle:
            ahead: deque[asyncio.Task[list[Named] | None]] = deque()
            try:
                for _ in range(READDIR_FIRST):
                    ahead.append(self.spawn(self._block(handle, path)))
                ended = False
                while ahead:
                    block = await ahead.popleft()
                    ended = ended or block is None
                    for _ in range(0 if ended else min(2, READDIR_AHEAD - len(ahead))):
                        ahead.append(self.spawn(self._block(handle, path)))
                    if block:
                        yield block
            finally:
                for task in ahead:
                    task.cancel()

    async def _block(self, handle: bytes, path: RemotePath) -> list[Named] | None:
        return await self.ask(self._names(handle), path)

    async def _names(self, handle: bytes) -> list[Named] | None:
        try:
            names, _ = await self._handler.readdir(handle)
        except asyncssh.SFTPEOFError:
            return None
        return list(names)

    async def end(self) -> None:
        """Forget what still runs in the background; the connection is going."""
        for task in list(self._tasks):
            task.cancel()
        self._client.exit()

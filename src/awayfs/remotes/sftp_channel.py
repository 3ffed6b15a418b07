"""Typed requests of one SFTP session, and the port's errors.

Two such channels or more run over one connection (``sftp_connection``). A request has left when
its method returns; awaiting what that gives has the value, or raises one of the port's errors.
So requests that are made one after the other are on the way together. FX_FAILURE comes as
``sftp_errors.Failed``. All requests are those of the draft, section 6, or of OpenSSH's PROTOCOL.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

from awayfs.core.errors import Implausible, RemoteError, Unreachable
from awayfs.core.types import RemotePath
from awayfs.remotes import pacing, progress
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_errors import Unsupported, from_status
from awayfs.remotes.sftp_packets import Attributes, FileSystem, Name, Request
from awayfs.remotes.sftp_window import KIB, Window
from awayfs.remotes.sftp_wire import LOST, Wire

T = TypeVar("T")

READDIR_FIRST = 2
READDIR_AHEAD = 24
"""Readdir requests on the way at once, at first and in a directory that goes on and on.
OpenSSH answers each with at most 100 names."""

MOST_EMPTY = 100
"""So many answers in a row without a name are no listing: each would count as a sign of life."""

LARGEST_IO = 256 * KIB
USUAL_IO = 32 * KIB
"""Bytes of one read or write, at most and where the server does not tell (draft, section 6.4)."""

_OK = bytes(4)


class _Asked(Generic[T]):
    """One request on the way: makes a value of its reply, or an error."""

    __slots__ = ("_kind", "_listener", "_path", "_unpack", "_wire", "future")

    def __init__(
        self, wire: Wire, path: bytes, kind: int, unpack: Callable[[bytes], T] | None
    ) -> None:
        self.future: asyncio.Future[T] = wire.loop.create_future()
        self._wire = wire
        self._path = path
        self._kind = kind
        self._unpack = unpack
        self._listener = progress.listener.get()  # replies come in another context

    def __call__(self, kind: int, body: bytes) -> None:
        if self._listener is not None:
            self._listener(progress.KEEP)  # each reply is a sign of life
        if self.future.done():  # who asked was cancelled
            return
        try:
            self.future.set_result(self._value(kind, body))
        except RemoteError as error:
            self.future.set_exception(error)
            self.future.exception()  # it may be one of several, of which the first error counts

    def _value(self, kind: int, body: bytes) -> Any:
        if kind == self._kind:
            if self._unpack is not None:
                return self._unpack(body)
            if body[:4] == _OK:
                return None
        if kind == LOST:
            raise Unreachable(f"the connection was lost ({self._wire.ended})")
        if kind != packets.STATUS:
            raise Implausible(f"the server sent a reply of another kind ({kind})")
        code, text = packets.status(body)
        if code == packets.FX_OK:
            raise Implausible("the server says that it did what has an answer")
        raise from_status(code, text, self._path)


class Channel:
    """Requests of one SFTP session below one root directory.

    ``handles`` bounds the handles that are open at once.
    """

    def __init__(self, wire: Wire, root: bytes, handles: int) -> None:
        self.wire = wire
        self._root = root
        self._root_slash = root.rstrip(b"/") + b"/"
        self.handles = handles
        self._open_handles = asyncio.Semaphore(handles)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.largest_read = min(wire.limits.read or USUAL_IO, LARGEST_IO)
        self.largest_write = min(wire.limits.write or USUAL_IO, LARGEST_IO)
        self.window = Window(max(self.largest_read, self.largest_write))

    def absolute(self, path: RemotePath) -> bytes:
        """The server's path. ``sftp_paths.check`` keeps a NUL out, which OpenSSH dies of."""
        return self._root_slash + path if path else self._root

    def silent_for(self) -> float:
        """Seconds for which a request has been waiting without any reply; 0 when idle."""
        return self.wire.silent_for()

    def _ask(
        self,
        request: Request,
        path: RemotePath = b"",
        kind: int = packets.STATUS,
        unpack: Callable[[bytes], T] | None = None,
    ) -> asyncio.Future[T]:
        """Send a request; ``path`` is for the error's text. Without ``unpack``: it has no value."""
        asked = _Asked(self.wire, path, kind, unpack)
        self.wire.ask(request, asked)
        return asked.future

    def _ask_extended(
        self,
        name: bytes,
        *strings: bytes,
        path: RemotePath,
        attrs: Attributes | None = None,
    ) -> asyncio.Future[None]:
        if name not in self.wire.extensions:
            return _failed(Unsupported(f"the server does not offer {name.decode()}"))
        return self._ask(packets.extended(name, *strings, attrs=attrs), path)

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

    # Requests by path.

    def lstat(self, path: RemotePath) -> asyncio.Future[Attributes]:
        """LSTAT: attributes of the object itself."""
        request = packets.by_path(packets.LSTAT, self.absolute(path))
        return self._ask(request, path, packets.ATTRS, packets.attributes)

    def readlink(self, path: RemotePath) -> asyncio.Future[bytes]:
        """READLINK: a symlink's target, byte for byte."""
        request = packets.by_path(packets.READLINK, self.absolute(path))
        return self._ask(request, path, packets.NAME, _only_name)

    def realpath(self, path: RemotePath) -> asyncio.Future[bytes]:
        """REALPATH: the absolute path without symlinks."""
        request = packets.by_path(packets.REALPATH, self.absolute(path))
        return self._ask(request, path, packets.NAME, _only_name)

    def setstat(self, path: RemotePath, attrs: Attributes, follow: bool) -> asyncio.Future[None]:
        """SETSTAT, or lsetstat@openssh.com where ``follow`` is false."""
        place = self.absolute(path)
        if follow:
            return self._ask(packets.with_attributes(packets.SETSTAT, place, attrs), path)
        return self._ask_extended(packets.LSETSTAT, place, path=path, attrs=attrs)

    def mkdir(self, path: RemotePath, attrs: Attributes) -> asyncio.Future[None]:
        """MKDIR; fails where anything stands."""
        return self._ask(packets.with_attributes(packets.MKDIR, self.absolute(path), attrs), path)

    def rmdir(self, path: RemotePath) -> asyncio.Future[None]:
        """RMDIR; fails unless empty."""
        return self._ask(packets.by_path(packets.RMDIR, self.absolute(path)), path)

    def unlink(self, path: RemotePath) -> asyncio.Future[None]:
        """REMOVE, of anything but a directory."""
        return self._ask(packets.by_path(packets.REMOVE, self.absolute(path)), path)

    def symlink(self, target: bytes, path: RemotePath, swapped: bool) -> asyncio.Future[None]:
        """SYMLINK; the draft has the new path first, OpenSSH the target (``swapped``)."""
        both = target, self.absolute(path)
        one, other = both if swapped else reversed(both)
        return self._ask(packets.two_paths(packets.SYMLINK, one, other), path)

    def hard_link(self, source: RemotePath, path: RemotePath) -> asyncio.Future[None]:
        """hardlink@openssh.com; exclusive, and on Linux a link to a symlink itself."""
        both = self.absolute(source), self.absolute(path)
        return self._ask_extended(packets.HARD_LINK, *both, path=path)

    def rename_exclusive(self, source: RemotePath, path: RemotePath) -> asyncio.Future[None]:
        """RENAME, which fails where anything stands.

        OpenSSH does it by link and unlink for files, by stat and rename for the rest.
        """
        both = self.absolute(source), self.absolute(path)
        return self._ask(packets.two_paths(packets.RENAME, *both), path)

    def rename_over(self, source: RemotePath, path: RemotePath) -> asyncio.Future[None]:
        """posix-rename@openssh.com: rename(2) at the server, atomic, replaces."""
        both = self.absolute(source), self.absolute(path)
        return self._ask_extended(packets.POSIX_RENAME, *both, path=path)

    def statvfs(self, path: RemotePath) -> asyncio.Future[FileSystem]:
        """statvfs@openssh.com."""
        if packets.STATVFS not in self.wire.extensions:
            return _failed(Unsupported("the server does not tell of its file system"))
        request = packets.extended(packets.STATVFS, self.absolute(path))
        return self._ask(request, path, packets.EXTENDED_REPLY, packets.file_system)

    # Requests by handle.

    def fstat(self, handle: bytes) -> asyncio.Future[Attributes]:
        """FSTAT."""
        request = packets.by_handle(packets.FSTAT, handle)
        return self._ask(request, b"", packets.ATTRS, packets.attributes)

    def fsetstat(self, handle: bytes, attrs: Attributes) -> asyncio.Future[None]:
        """FSETSTAT."""
        return self._ask(packets.with_attributes(packets.FSETSTAT, handle, attrs))

    def fsync(self, handle: bytes) -> asyncio.Future[None]:
        """fsync@openssh.com; ``Unsupported`` where the server does not offer it."""
        return self._ask_extended(packets.FSYNC, handle, path=b"")

    async def read(self, handle: bytes, offset: int, count: int) -> bytes:
        """READ: at most ``count`` bytes; ``b""`` at the end of the file."""
        reading = await self.begin_to_read(handle, offset, count)
        return await reading or b""

    async def begin_to_read(
        self, handle: bytes, offset: int, count: int
    ) -> asyncio.Future[bytes | None]:
        """READ, on the way as soon as there is room for what it brings; None at the end."""

        def data(body: bytes) -> bytes:
            found = packets.string(body)
            if len(found) > count:
                raise Implausible("more data than was asked for")
            return found

        await pacing.down(count)
        await self.window.enter(count, first=not pacing.unasked.get())
        asked = _OrEnd(self.wire, b"", packets.DATA, data)
        self.wire.ask(packets.read(handle, offset, count), asked)
        self.window.give_after(count, asked.future)
        return asked.future

    def write(self, handle: bytes, offset: int, data: bytes) -> asyncio.Future[None]:
        """WRITE of all of ``data``; a v3 server takes all or fails. The caller holds room."""
        return self._ask(packets.write(handle, offset, data))

    def opened(self, path: RemotePath, flags: int, attrs: Attributes | None = None) -> _Opened:
        """A handle of a file, closed afterwards without waiting. Follows symlinks."""
        request = packets.open_file(self.absolute(path), flags, attrs)
        return _Opened(self.wire, self._open_handles, request, path)

    async def readdir(self, path: RemotePath) -> AsyncGenerator[list[Name], None]:
        """OPENDIR and READDIR to the end: blocks of names. Raises if any request failed."""
        request = packets.by_path(packets.OPENDIR, self.absolute(path))
        async with _Opened(self.wire, self._open_handles, request, path) as handle:
            ahead: deque[asyncio.Future[list[Name] | None]] = deque()
            try:
                for _ in range(READDIR_FIRST):
                    ahead.append(self.names(handle, path))
                ended, empty = False, 0
                while ahead:
                    block = await ahead.popleft()
                    ended = ended or block is None
                    empty = 0 if block else empty + 1
                    if not ended and empty > MOST_EMPTY:
                        raise Implausible("the server lists nothing, again and again, and no end")
                    for _ in range(0 if ended else min(2, READDIR_AHEAD - len(ahead))):
                        ahead.append(self.names(handle, path))
                    if block:
                        yield block
            finally:
                for future in ahead:
                    future.cancel()

    def names(self, handle: bytes, path: RemotePath) -> asyncio.Future[list[Name] | None]:
        """READDIR: some names more, None at the end."""
        asked = _OrEnd(self.wire, path, packets.NAME, packets.names)
        self.wire.ask(packets.by_handle(packets.READDIR, handle), asked)
        return asked.future

    async def end(self) -> None:
        """The connection is going: what is under way ends with ``Unreachable``, in the background
        as well. Who waits for a part of it would take a cancellation for its own.
        """
        self.wire.close()


class _OrEnd(_Asked[T | None]):
    """A request that may find the end: its value is None then."""

    __slots__ = ()

    def _value(self, kind: int, body: bytes) -> Any:
        if kind == packets.STATUS and packets.status(body)[0] == packets.FX_EOF:
            return None
        return super()._value(kind, body)


class _OpenAsked(_Asked[bytes]):
    """OPEN or OPENDIR. A handle that arrives after its caller was cancelled is closed as well."""

    __slots__ = ("_closed",)

    def __init__(self, wire: Wire, path: bytes, closed: Callable[[], None]) -> None:
        super().__init__(wire, path, packets.HANDLE, packets.handle)
        self._closed = closed

    def __call__(self, kind: int, body: bytes) -> None:
        late = self.future.done()
        super().__call__(kind, body)
        if late and kind == packets.HANDLE:
            self.close(packets.handle(body))
        elif late or self.future.exception() is not None:
            self._closed()  # it was never open

    def give_up(self) -> None:
        """The caller was cancelled; the handle may have come in that same moment."""
        if not self.future.cancelled() and self.future.exception() is None:
            self.close(self.future.result())

    def close(self, handle: bytes) -> None:
        """CLOSE; nobody waits for it, but the handle counts as open until it is answered."""
        request = packets.by_handle(packets.CLOSE, handle)
        self._wire.ask(request, lambda _kind, _body: self._closed())


class _Opened:
    """A handle while it is needed (``async with``), counted among those that are open."""

    __slots__ = ("_asked", "_count", "_path", "_request", "_wire")

    def __init__(
        self, wire: Wire, count: asyncio.Semaphore, request: Request, path: RemotePath
    ) -> None:
        self._wire = wire
        self._count = count
        self._request = request
        self._path = path

    async def __aenter__(self) -> bytes:
        await self._count.acquire()
        self._asked = _OpenAsked(self._wire, self._path, self._count.release)
        self._wire.ask(self._request, self._asked)
        try:
            return await self._asked.future
        except asyncio.CancelledError:
            self._asked.give_up()
            raise

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._asked.close(self._asked.future.result())


def _failed(error: RemoteError) -> asyncio.Future[Any]:
    """What a request gives that cannot be made."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    future.exception()  # nobody need await it
    return future


def _only_name(body: bytes) -> bytes:
    found = packets.names(body)
    if len(found) != 1:
        raise Implausible("a path or a target that is not one name")
    return found[0].filename

"""Paths stay inside the volume, and absence below a root that is gone proves nothing.

SFTP takes whole paths, and the server resolves them: with a symlink where a directory was, a
change would land wherever it points. There is no openat(2) to rule that out. REALPATH shows
where a directory really is; it is asked before a directory is used and believed for a second.
"""

from __future__ import annotations

import asyncio
import errno
import time

from awayfs.core.errors import NotFound, Refused, Unreachable
from awayfs.core.types import Kind, RemotePath
from awayfs.remotes.names import is_linux_name
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_entries import kind_of
from awayfs.remotes.sftp_errors import Failed

BELIEVED_S = 1.0
REMEMBERED = 4096


class Paths:
    """Checks of paths against one server. ``fsid`` is the file system seen when connecting."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._seen: dict[RemotePath, float] = {}
        self._moves = 0
        self._asking: dict[RemotePath, asyncio.Future[bytes]] = {}
        self.fsid: int | None = None
        self._next_look: asyncio.Future[None] | None = None

    async def inside(self, directory: RemotePath) -> None:
        """Raise unless ``directory`` is reached without a symlink.

        ``NotFound`` if there is one on the way: as on any file system, nothing can be below
        what is no directory.
        """
        if not directory or time.monotonic() - self._seen.get(directory, -9.0) < BELIEVED_S:
            return
        moves = self._moves
        if await asyncio.shield(self._asked(directory)) != self._channel.absolute(directory):
            raise NotFound("a symlink stands where a directory was")
        if moves != self._moves:
            return  # that was seen before a directory was moved
        while len(self._seen) >= REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[directory] = time.monotonic()

    def _asked(self, directory: RemotePath) -> asyncio.Future[bytes]:
        """Where a directory really is; many who want to know share the answer."""
        asking = self._asking.get(directory)
        if asking is None or asking.done():
            asking = self._asking[directory] = self._channel.realpath(directory)
            asking.add_done_callback(lambda _: self._asking.pop(directory, None))
        return asking

    def forget(self) -> None:
        """Believe nothing any more, when a directory is moved or removed: before and after it."""
        self._moves += 1
        self._seen.clear()
        self._asking.clear()

    async def root_is_there(self) -> None:
        """Raise ``Unreachable`` unless the root is the directory that we connected to.

        Called before an absence is believed: an export that is not mounted shows no root, or
        an empty one on another file system. Many absences share a look: one that begins after
        they were told.
        """
        loop = asyncio.get_running_loop()
        waiting = self._next_look
        if waiting is None:
            waiting = self._next_look = loop.create_future()
            waiting.add_done_callback(_seen)
            loop.call_soon(self._begin_look)
        await asyncio.shield(waiting)

    def _begin_look(self) -> None:
        told, self._next_look = self._next_look, None
        assert told is not None
        self._channel.spawn(self._look(told))

    async def _look(self, told: asyncio.Future[None]) -> None:
        try:
            await self._look_at_root()
        except asyncio.CancelledError:
            told.cancel()
            raise
        except Exception as error:
            told.set_exception(error)
        else:
            told.set_result(None)

    async def _look_at_root(self) -> None:
        attrs, fsid = await asyncio.gather(
            self._channel.lstat(b""), self._file_system(), return_exceptions=True
        )
        if isinstance(attrs, NotFound | Refused):
            text = "the volume's root is not there: is it mounted?"
            raise Unreachable(text) from attrs
        for answer in (attrs, fsid):
            if isinstance(answer, BaseException):
                raise answer
        assert not isinstance(attrs, BaseException) and not isinstance(fsid, BaseException)
        if kind_of(attrs) is not Kind.DIRECTORY:
            raise Unreachable("the volume's root is no directory any more")
        if self.fsid is None:
            self.fsid = fsid
        elif fsid is not None and fsid != self.fsid:
            raise Unreachable("another file system is mounted where the volume's root was")

    async def _file_system(self) -> int | None:
        try:
            return (await self._channel.statvfs(b"")).fsid
        except (Failed, Refused, NotFound):
            return None


def _seen(future: asyncio.Future[None]) -> None:
    """Take note of an exception that everybody who waited was cancelled before."""
    if not future.cancelled():
        future.exception()


def check(*paths: RemotePath) -> None:
    """Raise ``Refused(EINVAL)`` for what is no path of ours: ``a//b``, ``/a``, ``..``."""
    for path in paths:
        for name in path.split(b"/") if path else ():
            if not is_linux_name(name):
                long = len(name) > 255
                raise Refused(
                    errno.ENAMETOOLONG if long else errno.EINVAL,
                    "the name is too long" if long else "not a path inside the volume",
                )

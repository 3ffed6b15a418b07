"""Moving content: fetch, digest, stage. Many requests on the way, bounded memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import Struct

from awayfs.core.errors import Implausible, NotFound, Refused
from awayfs.core.types import Attributes, Digest, Entry, Kind, RemotePath
from awayfs.ports.remote import Fetched
from awayfs.remotes import faults, pacing
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.continuing import TAIL, continues
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_connection import READ_ONLY_FLAG
from awayfs.remotes.sftp_entries import SECOND, kind_of, parent, seconds
from awayfs.remotes.sftp_errors import Failed, Unsupported
from awayfs.remotes.sftp_view import View
from awayfs.remotes.sftp_window import SMALLEST_WINDOW

PRIVATE = 0o600
"""Mode of a staged file while its content comes in; its own mode is set at the end."""

FSYNC_S = 30.0
"""How long an fsync of a big file may take before the server counts as gone."""


class Begun(Struct, frozen=True):
    """What an earlier call staged of a content, and the token that the file had after it."""

    length: int
    token: bytes


NOT_BEGUN = Begun(0, b"")


STAMP_EVERY_S = 0.2
"""How often a file made here is asked for the time that the server's clock gave it."""


class Transfer:
    """Content in and out over one channel."""

    def __init__(
        self, channel: Channel, view: View, clock: ServerClock, tick: Callable[[float], None]
    ) -> None:
        self._channel = channel
        self._view = view
        self._clock = clock
        self._tick = tick
        self._stamped_s = 0.0
        self.own_uid: int | None = None  # of files that we make here; learned by ``stage``

    async def fetch(self, path: RemotePath, offset: int, length: int, fd: int) -> Fetched:
        """Copy up to ``length`` bytes from ``offset`` of a file to the same place of ``fd``."""
        await self._must_be_file(path)
        done = 0
        async with self._channel.opened(path, packets.FOR_READING) as handle:
            async for data in self._chunks(handle, offset, offset + length):
                _write_all(fd, data, offset + done)
                done += len(data)
            return Fetched(done, await self._entry_of(handle, path))

    async def digest(self, path: RemotePath) -> Digest:
        """BLAKE2b-256 of a whole file."""
        await self._must_be_file(path)
        hashed = hashlib.blake2b(digest_size=32)
        async with self._channel.opened(path, packets.FOR_READING) as handle:
            entry, data = await self._small(handle, path)
            length = len(data)
            hashed.update(data)
            if entry is None:
                async for data in self._chunks(handle, length, None):
                    hashed.update(data)
                    length += len(data)
                entry = await self._entry_of(handle, path)
        if entry.size != length:
            raise Implausible("the file changed its length while it was read")
        return Digest(entry, hashed.digest())

    async def _small(self, handle: bytes, path: RemotePath) -> tuple[Entry | None, bytes]:
        """The first bytes, and the entry after the read if these are all. In one round trip, where
        the server looks after it has read."""
        reading = await self._channel.begin_to_read(handle, 0, SMALLEST_WINDOW)
        look = self._look_at(handle) if self._channel.wire.is_in_order else None
        data = await reading or b""
        entry = await self._seen(look or self._look_at(handle), path)
        self._tick(0)
        return (entry if entry.size <= len(data) else None), data

    async def _must_be_file(self, path: RemotePath) -> None:
        """Refuse anything but a file before it is opened.

        OPEN follows symlinks, and opening a fifo hangs OpenSSH's single-threaded process.
        """
        kind = kind_of(await self._channel.lstat(path))
        if kind is not Kind.FILE:
            code = errno.EISDIR if kind is Kind.DIRECTORY else errno.EINVAL
            raise Refused(code, "not a regular file")

    async def _entry_of(self, handle: bytes, path: RemotePath) -> Entry:
        return await self._seen(self._look_at(handle), path)

    def _look_at(self, handle: bytes) -> tuple[int, asyncio.Future[packets.Attributes]]:
        """Ask for the entry of an open file."""
        return time.monotonic_ns(), self._channel.fstat(handle)

    async def _seen(
        self, look: tuple[int, asyncio.Future[packets.Attributes]], path: RemotePath
    ) -> Entry:
        """What came of ``_look_at``."""
        sent, attrs = look
        return self._view.entry(path, await attrs, sent)

    async def _chunks(self, handle: bytes, start: int, end: int | None) -> AsyncIterator[bytes]:
        """The bytes from ``start`` to ``end`` or the end of the file, in order."""
        ahead: deque[tuple[int, asyncio.Task[bytes]]] = deque()
        if end is None:  # asking far beyond the end would cost requests that find nothing
            end = (await self._channel.fstat(handle)).size or 0
        try:
            at, ended, flow = start, False, pacing.pacer.get().down
            while ahead or (at < end and not ended):
                chunk = flow.chunk(min(self._channel.largest_read, self._channel.window.chunk))
                while (
                    at < end
                    and not ended
                    and len(ahead) < flow.ahead(self._channel.window.ahead, chunk)
                ):
                    size = min(chunk, end - at)
                    ahead.append((size, self._channel.spawn(self._whole(handle, at, size))))
                    at += size
                size, task = ahead[0]
                data = await task
                ahead.popleft()
                self._tick(0)
                if data and not ended:
                    yield data
                # After the first short chunk nothing counts, even if the file grew meanwhile:
                # a gap must never pass for content.
                ended = ended or len(data) < size
        finally:
            for _, task in ahead:
                task.cancel()

    async def _whole(self, handle: bytes, offset: int, size: int) -> bytes:
        """``size`` bytes, fewer only at the end of the file: a short READ is not the end."""
        data = await self._channel.read(handle, offset, size)
        while 0 < len(data) < size:
            more = await self._channel.read(handle, offset + len(data), size - len(data))
            if not more:
                break
            data += more
        return data

    async def stage(
        self,
        staged: RemotePath,
        fd: int,
        size: int,
        attributes: Attributes,
        may_chown: bool,
        begun: Begun = NOT_BEGUN,
    ) -> Entry:
        """Write ``size`` bytes of ``fd`` to the file ``staged``, durable, attributes set.

        A new file, unless what ``begun`` says is there.
        """

        async def fill(handle: bytes, start: int) -> Entry:
            return await self._fill(handle, staged, fd, start, size, attributes, may_chown)

        private = attributes.mode is not None
        try:
            if begun.length and (entry := await self._continue(staged, fd, size, begun, fill)):
                return entry
            return await self._anew(staged, private, lambda handle: fill(handle, 0))
        except Failed as error:
            raise await self._why_not_written(staged, size, error) from error

    async def stage_part(self, staged: RemotePath, fd: int, end: int, begun: Begun) -> Entry | None:
        """Write ``fd`` up to ``end`` from where what is there ends; see the port."""

        async def fill(handle: bytes, start: int) -> Entry:
            return await self._fill_part(handle, staged, fd, start, end)

        try:
            if begun.length:
                most = os.fstat(fd).st_size
                return await self._continue(staged, fd, most, begun, fill)
            return await self._anew(staged, True, lambda handle: fill(handle, 0))
        except Failed as error:
            raise await self._why_not_written(staged, end - begun.length, error) from error

    async def _anew(
        self, staged: RemotePath, private: bool, fill: Callable[[bytes], Awaitable[Entry]]
    ) -> Entry:
        # Never truncate what is there: after a replace that was cut short it may be the
        # target itself under a second name. It is unlinked, and a new file made.
        flags = packets.FOR_WRITING | packets.CREATED | packets.EXCLUSIVE
        create = packets.Attributes(permissions=PRIVATE if private else None)
        made = False
        try:
            async with self._channel.opened(staged, flags, create) as handle:
                made = True
                return await fill(handle)
        except Failed:
            if made:
                raise
        await self._clear(staged)
        async with self._channel.opened(staged, flags, create) as handle:
            return await fill(handle)

    async def _continue(
        self,
        staged: RemotePath,
        fd: int,
        most: int,
        begun: Begun,
        fill: Callable[[bytes, int], Awaitable[Entry]],
    ) -> Entry | None:
        """Go on where an earlier try ended; None where what is there is not its, or is longer
        than the ``most`` bytes that there will be."""
        flags, found = packets.FOR_READING | packets.FOR_WRITING, False
        try:
            await self._must_be_file(staged)
            async with self._channel.opened(staged, flags) as handle:
                found = True
                if not await self._goes_on(handle, staged, fd, most, begun):
                    return None
                return await fill(handle, begun.length)
        except (NotFound, Refused):
            if found:
                raise
            return None  # an earlier try may have come as far as to give it a mode

    async def _goes_on(
        self, handle: bytes, staged: RemotePath, fd: int, most: int, begun: Begun
    ) -> bool:
        """Whether what is staged begins as it should.

        What a part that was cut off left behind that is written over, never cut off: a server
        that was held up would do that late, when another session has sent all of the file, and
        has given it its name.
        """
        there, start = await self._entry_of(handle, staged), begun.length
        count = min(TAIL, start)
        tail = await self._whole(handle, start - count, count)
        whole = len(tail) == count and there.size <= most
        return whole and continues(there, start, begun.token, fd, tail)

    async def _fill_part(
        self, handle: bytes, staged: RemotePath, fd: int, start: int, end: int
    ) -> Entry:
        faults.reach("part.begun")
        await self._send(handle, fd, start, end)
        faults.reach("part.written")
        self._tick(FSYNC_S)
        await _done(self._channel.fsync(handle))
        faults.reach("part.synced")
        entry = await self._entry_of(handle, staged)
        if entry.size < end:
            raise Implausible(f"sent {end} bytes, the server has {entry.size}")
        return entry

    async def _fill(
        self,
        handle: bytes,
        staged: RemotePath,
        fd: int,
        start: int,
        size: int,
        attributes: Attributes,
        may_chown: bool,
    ) -> Entry:
        faults.reach("stage.created")
        given = may_chown and self._is_anothers(attributes, is_new=not start)
        if given:
            await self._give(handle, attributes, is_new=not start)
        sent = await self._begin_to_send(handle, fd, start, size)
        for answer in () if self._channel.wire.is_in_order else sent:
            await answer  # else it may be made durable, dressed and looked at before it is written
        faults.reach("stage.written")
        self._tick(FSYNC_S)
        wanted = _settable(attributes)
        # All leave at once, in an order in which OpenSSH answers them: the stamp that the
        # server's clock gave, our own attributes over it, and both made durable.
        made = self._channel.fstat(handle) if self._wants_stamp() else None
        to_set = wanted.permissions is not None or wanted.mtime is not None
        done = [self._channel.fsetstat(handle, wanted)] if to_set else []
        synced, looked = self._channel.fsync(handle), self._look_at(handle)
        entry = await self._seen(looked, staged)  # the last answer: awaiting the others is no wait
        for answer in (*sent, *done):
            await answer
        await _done(synced)
        if entry.size != size:
            raise Implausible(f"staged {size} bytes, the server has {entry.size}")
        if made is not None:
            self._learn(await made, wanted, is_own=not start and not given)
        if wanted.mtime is not None and entry.mtime_ns // SECOND != wanted.mtime:
            entry = await self._entry_of(handle, staged)  # a server with another order
        faults.reach("stage.synced")
        return entry

    def _wants_stamp(self) -> bool:
        """Whether to ask for attributes as the server made them: not where one of the last moment
        told enough."""
        now = time.monotonic()
        if self._clock.known and now - self._stamped_s < STAMP_EVERY_S:
            return False
        self._stamped_s = now
        return True

    def _learn(self, made: packets.Attributes, wanted: packets.Attributes, *, is_own: bool) -> None:
        """From a file that the server has just stamped, and made just now if it ``is_own``."""
        if is_own:
            self.own_uid = made.uid
        stamp = made.mtime or 0
        if wanted.mtime is None or stamp != wanted.mtime:
            self._clock.stamped(stamp, time.monotonic_ns())

    async def _clear(self, staged: RemotePath) -> None:
        try:
            await self._channel.unlink(staged)
        except NotFound:
            pass

    async def _send(self, handle: bytes, fd: int, start: int, size: int) -> None:
        """Write ``fd`` from ``start`` to ``size``; all of it or an error."""
        ahead: deque[asyncio.Task[None]] = deque()
        at, flow = start, pacing.pacer.get().up
        try:
            while at < size or ahead:
                chunk = flow.chunk(min(self._channel.largest_write, self._channel.window.chunk))
                while at < size and len(ahead) < flow.ahead(self._channel.window.ahead, chunk):
                    count = min(chunk, size - at)
                    ahead.append(self._channel.spawn(self._copy(handle, fd, at, count)))
                    at += count
                await ahead.popleft()
                self._tick(0)
        finally:
            for task in ahead:
                task.cancel()

    async def _begin_to_send(
        self, handle: bytes, fd: int, start: int, size: int
    ) -> list[asyncio.Future[None]]:
        """Write ``fd`` from ``start`` to ``size``: what fits into one request is on the way, and
        its answer to be awaited; of more all was answered."""
        count, channel = size - start, self._channel
        if count > pacing.pacer.get().up.chunk(min(channel.largest_write, channel.window.chunk)):
            await self._send(handle, fd, start, size)
            return []
        if not count:
            return []
        await pacing.up(count)
        window = channel.window
        await window.enter(count)
        try:
            write = channel.write(handle, start, _read_all(fd, count, start))
        except BaseException:
            window.give(count, None)
            raise
        window.give_after(count, write)
        return [write]

    async def _copy(self, handle: bytes, fd: int, offset: int, count: int) -> None:
        await pacing.up(count)
        async with self._channel.window.room(count):  # read no sooner than it can go out
            await self._channel.write(handle, offset, _read_all(fd, count, offset))

    def _is_anothers(self, wanted: Attributes, *, is_new: bool) -> bool:
        """Whether the owner is another one than whoever makes a file here has anyway."""
        owned = (None, self.own_uid) if is_new else (None,)  # an earlier try may have given it away
        return wanted.gid is not None or wanted.uid not in owned

    async def _give(self, handle: bytes, wanted: Attributes, *, is_new: bool) -> None:
        """Set the owner where we may; before the mode, as chown(2) clears setuid bits."""
        made = await self._channel.fstat(handle)
        if is_new:
            self.own_uid = made.uid
        uid = made.uid if wanted.uid is None else wanted.uid
        gid = made.gid if wanted.gid is None else wanted.gid
        try:
            await self._channel.fsetstat(handle, packets.Attributes(uid=uid, gid=gid))
        except Refused:
            pass  # the content is worth having under another owner

    async def _why_not_written(self, staged: RemotePath, size: int, error: Failed) -> Refused:
        """What a plain failure to write most likely was, by a look at the file system."""
        try:
            space = await self._channel.statvfs(parent(staged))
        except (Refused, NotFound):
            return error
        if space.flags & READ_ONLY_FLAG:
            return Refused(errno.EROFS, str(error))
        if space.bavail * space.frsize < size or (space.files and not space.favail):
            return Refused(errno.ENOSPC, str(error))
        return error  # a quota, a broken disk: v3 does not say


async def _done(synced: asyncio.Future[None]) -> None:
    """Wait for an fsync; nothing where the server does not offer it."""
    try:
        await synced
    except Unsupported:
        pass


def _read_all(fd: int, count: int, offset: int) -> bytes:
    data = os.pread(fd, count, offset)
    if len(data) != count:
        raise Implausible("the cache file is shorter than what was to be sent")
    return data


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def _settable(wanted: Attributes) -> packets.Attributes:
    """Mode and times for a new file. v3 sets both times together; one may stand for both."""
    attrs = packets.Attributes(permissions=wanted.mode)
    mtime, atime = wanted.mtime_ns, wanted.atime_ns
    if mtime is not None:
        attrs.mtime = seconds(mtime)
        attrs.atime = seconds(mtime if atime is None else atime)
    return attrs

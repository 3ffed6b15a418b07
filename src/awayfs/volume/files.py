"""Content of files: open, read, write, truncate, allocate, seek, copy.

A cached range is served at once; one that is not is fetched first, so ``read`` may return a
coroutine. A write is journaled before it is made (``Journaling.store``), then goes to the
cache file, and is answered.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from awayfs.core.types import Kind, NodeId, Range
from awayfs.store.files import zero_range
from awayfs.store.nodes import Node
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.fetch import Fetcher
from awayfs.volume.journaling import Journaling
from awayfs.volume.opened import OpenNode
from awayfs.volume.rest import Rest
from awayfs.volume.room import Room

COPY_CHUNK = 1 << 20
COPY_MOST = 8 << 20
"""One call copies no more, since it copies on the event loop; the caller asks again."""
CUT = "volume.cut"
"""The fact that tells of the last truncation of a partly cached file: node, size, time."""
FALLOC_KEEP_SIZE = 0x01
FALLOC_PUNCH_HOLE = 0x02
FALLOC_COLLAPSE_RANGE = 0x08
FALLOC_ZERO_RANGE = 0x10


class FileHandle(Struct):
    """One open file description."""

    opened: OpenNode
    writing: bool
    append: bool
    mapping: bool = False  # it may write through a mapping that is not seen
    direct: bool = False  # its writes pass by the kernel's page cache
    mappable: bool = False  # it may write to pages of the kernel's, which come here later
    paged: bool = True  # the kernel reads whole pages through it, and locks them meanwhile


class Files:
    """Everything that touches content on behalf of the mount."""

    def __init__(
        self, context: Context, journaling: Journaling, fetcher: Fetcher, room: Room, rest: Rest
    ) -> None:
        self._context = context
        self._store = context.store
        self._journaling = journaling
        self._fetcher = fetcher
        self._room = room
        self._rest = rest

    def open(self, node: Node, *, writing: bool, append: bool = False) -> FileHandle:
        """Open a regular file; EROFS, ENOSPC and EIO come from the cache file system."""
        if node.kind is not Kind.FILE:
            raise OSError(errno.EISDIR if node.kind is Kind.DIRECTORY else errno.ENXIO, "no file")
        if writing:
            self._writable()
        opened = self._context.opened.acquire(node, writing=writing)
        self._store.content.last_used.mark(node.id, self._context.now())
        return FileHandle(opened, writing, append)

    def close(self, handle: FileHandle) -> bool:
        """Release a handle; True when it was the last one of its node."""
        last = False
        opened = handle.opened
        try:
            if opened.blank and handle.writing and opened.writers == 1:
                self._journaling.withdraw(opened.node, opened.blank)
                opened.blank = 0
            if handle.writing and handle.opened.passthrough:
                self._notice_mapped_writes(handle.opened)
        finally:  # whoever closes has closed, whatever could not be written down
            handle.opened.mappers -= handle.mapping
            self._end_direct(handle)
            handle.opened.mappable -= handle.mappable
            last = self._context.opened.release(handle.opened, writing=handle.writing)
        return last

    def pass_by(self, handle: FileHandle) -> None:
        """What is written to a file that was just made passes by the kernel's page cache.

        So must all that is read of it until this writer has closed: the kernel drops a page
        before such a write, and a read that is under way would bring the old one back for good.
        """
        handle.direct = True
        handle.opened.direct += 1

    def _end_direct(self, handle: FileHandle) -> None:
        """A mapping may have brought such a page back all the same; it goes at last."""
        opened = handle.opened
        opened.direct -= handle.direct
        if handle.direct and opened.beside_direct and not opened.direct:
            opened.beside_direct = False
            self._context.kernel.forget_node(opened.node)

    def is_here(self, handle: FileHandle, offset: int, size: int) -> bool:
        """Whether a read needs nothing to be fetched."""
        opened = handle.opened
        end = min(offset + size, opened.size)
        return opened.whole or self._store.content.covers(opened.node, offset, end)

    def read(
        self, handle: FileHandle, offset: int, size: int
    ) -> bytes | Coroutine[Any, Any, bytes]:
        """Up to ``size`` bytes; short only at the end of the file."""
        opened = handle.opened
        if opened.asking is not None and handle.paged:
            pages, here = Range(offset, offset + size), self.is_here(handle, offset, size)
            if self._context.pages.holds_up(opened, pages, here):
                late = self._read_after(handle, offset, size)
                return self._context.pages.reading(opened, pages, late)
        if opened.whole:
            return os.pread(opened.fd, size, offset)
        end = min(offset + size, opened.size)
        if end <= offset:
            return b""
        if self._store.content.covers(opened.node, offset, end):
            return os.pread(opened.fd, end - offset, offset)
        fetched = self._read_fetched(opened, offset, end)
        if not handle.paged:
            return fetched
        return self._context.pages.reading(opened, Range(offset, offset + size), fetched)

    async def _read_after(self, handle: FileHandle, offset: int, size: int) -> bytes:
        """Once the kernel is not asked for pages any more."""
        await self._context.pages.over(handle.opened)
        found = self.read(handle, offset, size)
        return found if isinstance(found, bytes) else await found

    async def _read_fetched(self, opened: OpenNode, offset: int, end: int) -> bytes:
        found, drops = b"", -1

        def read() -> None:
            nonlocal found, drops
            found = os.pread(opened.fd, max(min(end, opened.size) - offset, 0), offset)
            drops = opened.drops

        while drops != opened.drops:  # it may go again before it is answered
            await self._with_fetched(opened.node, offset, end, read, ahead=True)
        return found

    async def _with_fetched(
        self,
        node: NodeId,
        start: int,
        end: int,
        use: Callable[[], None] = lambda: None,
        *,
        ahead: bool = False,
    ) -> None:
        """Have a range here, and use it before it can go again.

        Who is interrupted waits no more, and uses nothing; what was asked for comes still.
        """
        waiting = True

        def used() -> None:
            if waiting:
                use()

        wanted = self._fetcher.ensure(node, start, end, ahead=ahead, use=used)
        fetch = self._context.spawn(wanted)
        try:
            await asyncio.shield(fetch)
        except asyncio.CancelledError:
            waiting = False
            fetch.add_done_callback(_let_be)
            raise

    def before_write(
        self, handle: FileHandle, offset: int, size: int, *, mapped: bool = False
    ) -> Coroutine[Any, Any, None] | None:
        """What a write has to wait for before it is accepted; None for nothing.

        The first one waits a moment for the rest of a file that is only partly here. The
        coroutine raises EDISCONFULL when there is no room and nothing that takes it can be sent.
        What was ``mapped`` is written already, for all that the program knows: it needs none
        within the file.
        """
        opened = handle.opened
        mapped = mapped and offset + size <= opened.size
        start = opened.size if handle.append else offset
        rest = self._rest.before_write(opened, start, start + size)
        if rest is None:
            return None if mapped else self._room_for(opened, start, start + size)
        return rest if mapped else self._after_rest(rest, handle, offset, size)

    async def _after_rest(
        self, rest: Coroutine[Any, Any, None], handle: FileHandle, offset: int, size: int
    ) -> None:
        await rest
        start = handle.opened.size if handle.append else offset
        room = self._room_for(handle.opened, start, start + size)
        if room is not None:
            await room

    def before_growth(self, node: Node, size: int) -> Coroutine[Any, Any, None] | None:
        """What truncate(2) to a larger size has to wait for, as with ``before_write``.

        A hole takes no room on the disk, but it is content of ours and goes out as such.
        """
        if size <= node.size or self._context.cache_limit is None:
            return None
        self._count_unsaved()
        return self._room.make_or_wait(size - node.size, node.id, on_disk=0)

    def _count_unsaved(self) -> None:
        """What open files hold by now counts, whoever writes to them."""
        for opened in self._context.opened.all():
            self._context.opened.save(opened)

    def _room_for(self, opened: OpenNode, start: int, end: int) -> Coroutine[Any, Any, None] | None:
        """Room for what the range takes that is not taken up yet; a hole before it is content."""
        if opened.whole:
            if end <= opened.size:
                return None
            wanted, on_disk = end - opened.size, end - max(opened.size, start)
        else:
            missing = self._store.content.missing(opened.node, start, end)
            on_disk = sum(gap.end - gap.start for gap in missing)
            wanted = on_disk + max(start - opened.size, 0)
            if not wanted:
                return None
        if self._context.cache_limit is not None:
            self._count_unsaved()
        try:
            self._room.make(wanted, opened.node, on_disk=on_disk)
        except OSError:
            return self._room.make_or_wait(wanted, opened.node, on_disk=on_disk)
        return None

    def write_mapped(self, handle: FileHandle, offset: int, data: bytes | memoryview) -> int:
        """Take what a program wrote through a mapping: it was told long ago that it is written.

        So no limit is in the way, and on a full disk the reserve is given up for it.
        """
        return self._store.insist(lambda: self._write(handle.opened, offset, data))

    def write(self, handle: FileHandle, offset: int, data: bytes | memoryview) -> int:
        """Write; journaled before the first byte changes. O_APPEND writes at the end we know."""
        opened = handle.opened
        if handle.append:
            offset = opened.size
        self._store.reserve.check()
        return self._write(opened, offset, data)

    def _write(self, opened: OpenNode, offset: int, data: bytes | memoryview) -> int:
        self._store_record(opened)
        written = os.pwrite(opened.fd, data, offset)
        fault("files.written")
        self._changed(opened, offset, offset + written)
        return written

    def truncate(self, node: Node, size: int) -> None:
        """Set the size (truncate(2)); growing makes a hole, which is content of ours.

        Cutting off frees room, so it must come through on a full disk.
        """
        self._writable()
        if size >= node.size:
            self._store.reserve.check()
        self._store.insist(lambda: self._truncate(node, size))

    def _truncate(self, node: Node, size: int) -> None:
        opened = self._context.opened.acquire(node, writing=True)
        try:
            self._store_record(opened)
            if size < opened.size:
                self._shrink(opened, size)
            else:
                self._grow(opened, size)
            opened.whole = self._store.content.covers(opened.node, 0, size)
        finally:
            self._context.opened.release(opened, writing=True)

    def before_allocate(
        self, handle: FileHandle, mode: int, offset: int, length: int
    ) -> Coroutine[Any, Any, None] | None:
        """What fallocate(2) has to wait for, as with ``before_write``."""
        if mode & ~FALLOC_ZERO_RANGE:
            return None
        opened, end = handle.opened, offset + length
        wanted = max(end - opened.size, 0)
        on_disk = max(end - max(opened.size, offset), 0) if opened.whole else length
        if self._context.cache_limit is not None:
            self._count_unsaved()
        try:
            self._room.make(wanted, opened.node, on_disk=on_disk)
        except OSError:
            return self._room.make_or_wait(wanted, opened.node, on_disk=on_disk)
        return None

    def allocate(self, handle: FileHandle, mode: int, offset: int, length: int) -> None:
        """fallocate(2): plain, KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE.

        Punching and zeroing a range makes it ours, whatever the server had there.
        """
        opened = handle.opened
        if mode & ~(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
            raise OSError(errno.EOPNOTSUPP, "this fallocate mode is not supported")
        if mode == FALLOC_KEEP_SIZE:
            return  # room beyond the end is all that it asks for
        end = offset + length
        self._store.reserve.check()
        self._store_record(opened)
        if mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
            stop = min(end, opened.size) if mode & FALLOC_KEEP_SIZE else end
            zero_range(opened.fd, offset, stop)
            self._changed(opened, offset, stop)
        else:
            os.posix_fallocate(opened.fd, offset, length)
            self._changed(opened, min(opened.size, end), end)

    def seek(self, handle: FileHandle, offset: int, whence: int) -> int:
        """lseek(2) with SEEK_DATA or SEEK_HOLE. What is not cached counts as data."""
        opened = handle.opened
        if offset >= opened.size:
            raise OSError(errno.ENXIO, "beyond the end")
        if opened.whole:
            return os.lseek(opened.fd, offset, whence)
        return offset if whence == os.SEEK_DATA else opened.size

    async def copy(
        self, source: FileHandle, offset: int, target: FileHandle, to_offset: int, length: int
    ) -> int:
        """copy_file_range(2) inside the volume; the source is fetched first where needed.

        Less than was asked for, where that would keep everybody else waiting.
        """
        end = min(offset + min(length, COPY_MOST), source.opened.size)
        if end <= offset:
            return 0
        if not source.opened.whole:
            await self._with_fetched(source.opened.node, offset, end)
        self._store.reserve.check()
        room = self._room_for(target.opened, to_offset, to_offset + end - offset)
        if room is not None:
            await room
        done = 0

        def copy() -> None:
            nonlocal done
            stop = min(end, source.opened.size)
            done = self._copy_here(source.opened, offset, target.opened, to_offset, stop - offset)

        if source.opened.whole:
            copy()
        else:  # it may have gone meanwhile: a hole is no content
            await self._with_fetched(source.opened.node, offset, end, copy)
        return done

    def _copy_here(
        self, source: OpenNode, offset: int, target: OpenNode, to_offset: int, length: int
    ) -> int:
        """Copy what is here; how many bytes that were."""
        if length <= 0:
            return 0
        self._store_record(target)
        done = 0
        while done < length:
            chunk = min(COPY_CHUNK, length - done)
            copied = os.copy_file_range(
                source.fd, target.fd, chunk, offset + done, to_offset + done
            )
            if copied == 0:
                break
            done += copied
        self._changed(target, to_offset, to_offset + done)
        return done

    def note_mappable(self, handle: FileHandle) -> None:
        """A writer beside passthrough readers may map the cache file itself (iomode.c).

        What it writes through the mapping is not seen, so there is a STORE from now on until it
        closes: one that goes out before is followed by another (``Actor.freeze``).
        """
        self._store_record(handle.opened)
        handle.mapping = True
        handle.opened.mappers += 1

    def note_pages(self, handle: FileHandle) -> None:
        """Whoever may read and write may map it: what is written so comes here late, a page at a
        time, unless the kernel is asked for it.
        """
        handle.mappable = True
        handle.opened.mappable += 1
        self._rest.foresee(handle.opened)

    def _notice_mapped_writes(self, opened: OpenNode) -> None:
        """What was written through a mapping shows in the cache file's time."""
        status = os.fstat(opened.fd)
        if status.st_mtime_ns > opened.mtime_ns:
            self._store_record(opened, changed=True)
            self._changed(opened, 0, 0)

    def _store_record(self, opened: OpenNode, *, changed: bool = False) -> None:
        node = opened.node
        opened.blank = 0
        pending = self._journaling.store_pending(node)
        named = pending or self._is_named(node)
        if not named:
            if opened.gone and not changed:
                raise OSError(errno.ESTALE, "the file was removed on the server")
            self._journaling.nameless(node, changed=changed)
        if named and not pending:
            self._journaling.store(node)
            opened.unsynced = True
            if not opened.whole:
                self._rest.begin(node)
        elif not opened.unsynced:
            self._store.content.mark_unsynced(node)
            opened.unsynced = True
        self._context.opened.edited(node)

    def _is_named(self, node: NodeId) -> bool:
        """Open-but-unlinked files keep working and are never uploaded (DESIGN section 5).

        That is for whoever unlinked the file. One that went on the server takes no more writes
        (``OpenNode.gone``): they would be lost, and a program could not know.
        """
        return bool(self._store.nodes.names(node))

    def _changed(self, opened: OpenNode, start: int, end: int) -> None:
        """Content of ``start`` to ``end`` is ours now; size and times follow."""
        if opened.whole:
            self._touched(opened, max(opened.size, end))
            return
        content = self._store.content
        with self._context.opened.changing(opened):
            if start < end:  # a hole before it is ours too
                content.add_range(opened.node, min(start, opened.size), start)
                content.add_range(opened.node, start, end)
            self._touched(opened, max(opened.size, end))
            self._context.opened.save(opened)
        opened.whole = content.covers(opened.node, 0, opened.size)

    def _touched(self, opened: OpenNode, size: int) -> None:
        """Size and times after a change; the time is the cache file's, which is its witness."""
        opened.size = size
        opened.mtime_ns = opened.ctime_ns = os.fstat(opened.fd).st_mtime_ns
        opened.written_ns = self._context.now()
        opened.unsaved = True

    def _shrink(self, opened: OpenNode, size: int) -> None:
        """The database first: should it be full, nothing is cut off.

        What lies beyond, of a partly cached file, is no content: so that a daemon which dies
        here does not take it for that, it is on record that it is to go (``recover``).
        """
        with self._context.opened.changing(opened):
            self._store.content.truncate_ranges(opened.node, size)
            opened.size = size
            opened.mtime_ns = opened.ctime_ns = opened.written_ns = self._context.now()
            opened.unsaved = True
            self._context.opened.save(opened)
            if not opened.whole:
                self._store.facts.set(CUT, f"{opened.node} {size} {opened.mtime_ns}")
        fault("files.written")
        os.ftruncate(opened.fd, size)
        os.utime(opened.fd, ns=(opened.mtime_ns, opened.mtime_ns))

    def _grow(self, opened: OpenNode, size: int) -> None:
        """The file first: the range map never tells of more than there is."""
        os.ftruncate(opened.fd, size)
        fault("files.written")
        with self._context.opened.changing(opened):
            self._store.content.add_range(opened.node, opened.size, size)
            self._touched(opened, size)
            self._context.opened.save(opened)

    def _writable(self) -> None:
        if self._context.options.read_only:
            raise OSError(errno.EROFS, "mounted read-only")


def _let_be(task: asyncio.Task[None]) -> None:
    """Nobody asks for the outcome any more."""
    if not task.cancelled():
        task.exception()

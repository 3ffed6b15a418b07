"""Handlers for open files.

Which way the kernel reads is settled at open: a file that is whole in the cache and large
enough to be worth it is read by the kernel itself (passthrough). One that may have to be waited
for is read directly, so that a signal ends the wait, and so is one whose maker is still writing
it (``Files.pass_by``). All others go through the page cache. While one descriptor of a node is in
passthrough, every further one must name the same backing file, and writers take the direct way so
that their writes are seen (fs/fuse/iomode.c).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable

from awayfs.core.permissions import READ, WRITE
from awayfs.core.types import Attributes, NodeId
from awayfs.fuse import requests as rq
from awayfs.fuse import wire
from awayfs.fuse.bridge_names import PERMISSIONS, without_set_id
from awayfs.fuse.bridge_shared import READY, Shared
from awayfs.fuse.passthrough import close_backing, open_backing
from awayfs.fuse.replies import (
    copy_file_range_out,
    create_out,
    lseek_out,
    open_out,
    poll_out,
    write_out,
)
from awayfs.fuse.session import Handler, Reply, Result
from awayfs.store.nodes import Node
from awayfs.volume.files import FileHandle

log = logging.getLogger(__name__)

WORTH_PASSTHROUGH = 64 << 10
"""Smaller files are served from the page cache: registering them costs more than it saves."""

_ACCESS = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE}
"""What the ways to open a file need."""


class FileHandlers:
    """OPEN to LSEEK."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._volume = shared.volume
        self._files = shared.volume.files

    def table(self) -> dict[type[rq.Request], Handler]:
        """Request type → handler."""
        return {
            rq.Open: self.open,
            rq.Create: self.create,
            rq.Tmpfile: self.tmpfile,
            rq.Read: self.read,
            rq.Write: self.write,
            rq.Flush: self.flush,
            rq.Release: self.release,
            rq.Fsync: self.fsync,
            rq.Fallocate: self.fallocate,
            rq.Lseek: self.lseek,
            rq.CopyFileRange: self.copy_file_range,
            rq.Poll: self.poll,
        }

    def open(self, request: rq.Open) -> Result:
        """open(2) of what exists; waits only for a stale observation to be renewed."""
        self._shared.used(request, request.nodeid)
        wait = self._volume.tree.freshen(request.nodeid)
        if request.flags & os.O_ACCMODE == os.O_RDONLY:
            self._check_indexer(request, doubtful=wait is not None)
        return self._open(request) if wait is None else self._open_later(request, wait)

    def _check_indexer(self, request: rq.Open, *, doubtful: bool) -> None:
        """An indexer gets EDISCONDATA for what it would have to wait for: a mapping knows none."""
        node, content = self._volume.context.node(request.nodeid), self._volume.store.content
        if node is None or not node.size:
            return
        doubtful = doubtful and self._volume.observer.is_suspect(node.id)
        if doubtful or not (content.ranges(node.id) or self._volume.fetcher.is_whole(node)):
            self._shared.not_for_indexers(request, "the content")

    async def _open_later(self, request: rq.Open, wait: Awaitable[None]) -> bytes:
        await wait
        return self._open(request)

    def _open(self, request: rq.Open) -> bytes:
        node = self._volume.context.node(request.nodeid)
        if node is None:
            raise OSError(errno.ESTALE, "the file is gone")
        mode = request.flags & os.O_ACCMODE
        writing = mode != os.O_RDONLY
        truncates = WRITE if request.flags & os.O_TRUNC else 0
        self._volume.check_allowed(node.id, _ACCESS.get(mode, READ | WRITE) | truncates)
        self._volume.shown.check_open(node, writing=writing or bool(request.flags & os.O_TRUNC))
        if request.flags & os.O_TRUNC:
            node = self._truncated(node)
            if request.kill_suidgid:
                self._drop_set_id(node)
        reply = open_out(*self._handle(node, request.flags, writing))
        self._volume.learning.note((node.id, request.pid, self._volume.context.now()))
        return reply

    def _truncated(self, node: Node) -> Node:
        """O_TRUNC; the node as it is then: opened by its old size, that would come back."""
        self._files.truncate(node, 0)
        return self._volume.context.node(node.id) or node

    def _handle(self, node: Node, flags: int, writing: bool) -> tuple[int, int, int]:
        """Handle number, FOPEN flags and backing id of a new open file."""
        handle = self._files.open(node, writing=writing, append=bool(flags & os.O_APPEND))
        return self._registered(handle, flags)

    def _registered(self, handle: FileHandle, flags: int) -> tuple[int, int, int]:
        """See ``_handle``."""
        try:
            fopen, backing = self._way(handle, flags)
        except OSError:
            self._files.close(handle)  # an open that fails is never released
            raise
        handle.paged = not fopen & (wire.FOPEN_DIRECT_IO | wire.FOPEN_PASSTHROUGH)
        if not handle.writing or not self._volume.writes_on_close:
            fopen |= wire.FOPEN_NOFLUSH  # close(2) has nothing to wait for
        return self._shared.new_handle(handle), fopen, backing

    def _way(self, handle: FileHandle, flags: int) -> tuple[int, int]:
        """FOPEN flags and backing id: passthrough or page cache."""
        opened = handle.opened
        kept_back = handle.writing and self._volume.context.pages.kept_back
        if flags & os.O_ACCMODE == os.O_RDWR or kept_back:
            self._files.note_pages(handle)
        if opened.passthrough:
            if flags & os.O_ACCMODE == os.O_RDWR:  # mmap(2) needs a file that may be read
                self._files.note_mappable(handle)
            fopen = wire.FOPEN_PASSTHROUGH | (wire.FOPEN_DIRECT_IO if handle.writing else 0)
            return fopen, opened.passthrough
        if (
            self._shared.passthrough
            and not handle.writing
            and opened.users == 1
            and opened.whole
            and opened.size >= WORTH_PASSTHROUGH
            and not self._volume.shown.is_servers(opened.node)
        ):
            try:
                opened.passthrough = open_backing(self._shared.fuse_fd, opened.fd)
                return wire.FOPEN_PASSTHROUGH, opened.passthrough
            except OSError as error:
                log.warning("passthrough is not available: %s", error.strerror)
                self._shared.passthrough = False
        if opened.direct:
            opened.beside_direct = True
            return wire.FOPEN_DIRECT_IO, 0
        fopen = self._shared.keep_cache(opened.node)
        if self._shared.direct and not (handle.writing or opened.whole) and self._may_wait():
            fopen |= wire.FOPEN_DIRECT_IO
        return fopen, 0

    def _may_wait(self) -> bool:
        """Whether reads may have to wait for the server.

        The kernel fills its page cache in the background, and no signal but a fatal one ends the
        wait for that. A read that comes to us directly is interrupted by any.
        """
        return self._volume.link.usable

    def create(self, request: rq.Create) -> bytes:
        """open(2) with O_CREAT. The kernel thinks the name is free; if not, it is opened."""
        self._volume.check_writable()
        writing = request.flags & os.O_ACCMODE != os.O_RDONLY
        mode = request.mode & PERMISSIONS & ~request.umask
        try:
            node, opened = self._volume.changes.create_open(
                request.nodeid, request.name, mode, request.uid, request.gid, writing=writing
            )
        except FileExistsError:
            if request.flags & os.O_EXCL:
                raise
            return self._create_existing(request)
        handle = FileHandle(opened, writing, bool(request.flags & os.O_APPEND))
        fh, fopen, backing = self._registered(handle, request.flags)
        if self._shared.direct and request.flags & os.O_ACCMODE == os.O_WRONLY:
            self._files.pass_by(handle)
            fopen |= wire.FOPEN_DIRECT_IO
            handle.paged = False
        return create_out(self._shared.looked_up(node), fh, fopen, backing)

    def _create_existing(self, request: rq.Create) -> bytes:
        node = self._volume.store.nodes.child(request.nodeid, request.name)
        if node is None:
            raise OSError(errno.EEXIST, "exists")
        self._volume.shown.check_open(
            node, writing=request.flags & (os.O_ACCMODE | os.O_TRUNC) != os.O_RDONLY
        )
        if request.flags & os.O_TRUNC:
            node = self._truncated(node)
        return self._created(node, request.flags)

    def tmpfile(self, request: rq.Tmpfile) -> bytes:
        """open(2) with O_TMPFILE."""
        self._volume.check_writable()
        mode = request.mode & PERMISSIONS & ~request.umask
        node = self._volume.changes.unnamed(request.nodeid, mode, request.uid, request.gid)
        return self._created(node, request.flags)

    def _created(self, node: Node, flags: int) -> bytes:
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        fh, fopen, backing = self._handle(node, flags, writing)
        current = self._volume.context.node(node.id) or node
        return create_out(self._shared.looked_up(current), fh, fopen, backing)

    def read(self, request: rq.Read) -> Result:
        """read(2)."""
        if self._volume.shown.server:
            shown = self._volume.shown.read(request.nodeid, request.offset, request.size)
            if shown is not None:
                return shown
        handle = self._file(request.fh)
        if not self._files.is_here(handle, request.offset, request.size):
            self._shared.not_for_indexers(request, "this part")
        return self._files.read(handle, request.offset, request.size)

    def write(self, request: rq.Write) -> Result:
        """write(2); waits for room below the cache limit, and for the rest of a small file."""
        handle = self._file(request.fh)
        mapped = request.from_page_cache
        if not mapped:  # what was mapped before the conflict goes on being kept
            self._volume.shown.check_change(request.nodeid)
        wait = self._files.before_write(handle, request.offset, len(request.data), mapped=mapped)
        return self._write(request, handle) if wait is None else self._write_later(request, wait)

    async def _write_later(self, request: rq.Write, wait: Awaitable[None]) -> Reply:
        await wait
        result = self._write(request, self._file(request.fh))
        return await result if isinstance(result, Awaitable) else result

    def _write(self, request: rq.Write, handle: FileHandle) -> Result:
        write = self._files.write_mapped if request.from_page_cache else self._files.write
        written = write(handle, request.offset, request.data)
        if request.kill_suidgid:
            node = self._volume.context.node(request.nodeid)
            if node is not None:
                self._drop_set_id(node)
        if self._volume.writes_through:
            return self._write_through(request.nodeid, written)
        return write_out(written)

    async def _write_through(self, nodeid: int, written: int) -> bytes:
        """Who is interrupted waits no more, but has written: told EINTR, he would do so again."""
        try:
            await self._volume.sent(nodeid)
        except asyncio.CancelledError:
            pass
        return write_out(written)

    def flush(self, request: rq.Flush) -> Result:
        """close(2): waits for the server with ``writes=close`` while connected."""
        if self._volume.writes_on_close:
            return self._flush_through(request.nodeid)
        return b""

    async def _flush_through(self, nodeid: int) -> bytes:
        await self._volume.sent(nodeid)
        return b""

    def release(self, request: rq.Release) -> bytes:
        """The last descriptor is closed."""
        handle = self._shared.handles.pop(request.fh, None)
        if isinstance(handle, FileHandle):
            try:
                self._files.close(handle)
            finally:  # nobody closes it once more
                self._released(request.nodeid, handle)
        return b""

    def _released(self, node: NodeId, handle: FileHandle) -> None:
        opened = handle.opened
        if not opened.users:
            if opened.passthrough:
                self._close_backing(opened.passthrough)
                opened.passthrough = 0  # it may be opened again as it is (``OpenNodes``)
            self._volume.closed(node, opened)
        elif handle.mapping or (handle.writing and not opened.writers):
            self._volume.written(node)

    def _close_backing(self, backing: int) -> None:
        try:
            close_backing(self._shared.fuse_fd, backing)
        except OSError as error:
            log.warning("backing file %d: %s", backing, error.strerror)

    async def fsync(self, request: rq.Fsync) -> bytes:
        """fsync(2): file and journal durable here; on the server too where asked for."""
        await self._volume.durable(request.nodeid)
        if self._volume.writes_on_close:
            await self._volume.sent(request.nodeid)
        return b""

    def fallocate(self, request: rq.Fallocate) -> Result:
        """fallocate(2); waits for room as write(2) does."""
        self._volume.shown.check_change(request.nodeid)
        handle = self._file(request.fh)
        wait = self._files.before_allocate(handle, request.mode, request.offset, request.length)
        return self._allocate(request) if wait is None else self._allocate_later(request, wait)

    async def _allocate_later(self, request: rq.Fallocate, wait: Awaitable[None]) -> bytes:
        await wait
        return self._allocate(request)

    def _allocate(self, request: rq.Fallocate) -> bytes:
        handle = self._file(request.fh)
        self._files.allocate(handle, request.mode, request.offset, request.length)
        return b""

    def lseek(self, request: rq.Lseek) -> bytes:
        """lseek(2) with SEEK_DATA and SEEK_HOLE; what the server has counts as data."""
        if self._volume.shown.is_servers(request.nodeid):
            return lseek_out(self._seek_servers(request))
        return lseek_out(self._files.seek(self._file(request.fh), request.offset, request.whence))

    def _seek_servers(self, request: rq.Lseek) -> int:
        node = self._volume.context.node(request.nodeid)
        size = self._volume.shown.attributes(node).size if node is not None else 0
        if request.offset >= size:
            raise OSError(errno.ENXIO, "beyond the end")
        return request.offset if request.whence == os.SEEK_DATA else size

    async def copy_file_range(self, request: rq.CopyFileRange) -> bytes:
        """copy_file_range(2)."""
        self._volume.shown.check_change(self._file(request.new_fh).opened.node)
        if self._volume.shown.is_servers(request.nodeid):
            raise OSError(errno.EOPNOTSUPP, "to be copied by reading")
        copied = await self._files.copy(
            self._file(request.fh),
            request.offset,
            self._file(request.new_fh),
            request.new_offset,
            request.length,
        )
        return copy_file_range_out(copied, request.wide)

    def poll(self, _request: rq.Poll) -> bytes:
        """Regular files are always ready (poll(2))."""
        return poll_out(READY)

    def _drop_set_id(self, node: Node) -> None:
        mode = without_set_id(node.mode)
        if mode is not None:
            self._volume.changes.set_attributes(node.id, Attributes(mode=mode))

    def _file(self, fh: int) -> FileHandle:
        handle = self._shared.handles.get(fh)
        if not isinstance(handle, FileHandle):
            raise OSError(errno.EBADF, "not an open file")
        return handle

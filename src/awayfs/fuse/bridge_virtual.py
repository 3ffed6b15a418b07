"""Handlers for the ``.awayfs`` tree: read only, nothing cached by the kernel.

An open file holds what it showed when it was opened, and its attributes, whatever becomes of
the conflict meanwhile. ``events`` alone grows, and wakes those who wait for it in poll(2).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable

from msgspec import Struct, field

from awayfs.core.events import EventFile
from awayfs.core.types import Kind
from awayfs.fuse import requests as rq
from awayfs.fuse import wire
from awayfs.fuse.bridge_shared import READABLE, READY, Shared
from awayfs.fuse.replies import (
    Attr,
    DirectoryBuffer,
    Entry,
    attr_out,
    entry_out,
    lseek_out,
    open_out,
    poll_out,
    statx_out,
    xattr_size_out,
)
from awayfs.fuse.session import Handler, Reply, Result
from awayfs.volume.revisions import Revision
from awayfs.volume.virtual_node import Listing, Looked, Path, VirtualNode

STATE = b"user.awayfs.state"
FOUND = Callable[[VirtualNode], bytes]


class VirtualHandle(Struct):
    """An open virtual file or directory: as it was when it was opened."""

    path: Path
    node: VirtualNode
    revision: Revision | EventFile | None = None
    entries: Listing = field(default_factory=list)
    poller: int | None = None
    """The kernel's number of those who wait in poll(2) for it."""


class VirtualHandlers:
    """What can be done in ``.awayfs``."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._tree = shared.volume.virtual
        self._open: dict[int, list[VirtualHandle]] = {}
        self._waiting: set[int] = set()
        # numbers begin anew with each mount: a file handle of an earlier one must not fit
        self._generation = shared.volume.context.now() // 1000 & 0xFFFFFFFF
        shared.volume.context.events.on_event.append(self._wake)

    def table(self) -> dict[type[rq.Request], Handler]:
        """Request type → handler; everything else is refused with EROFS."""
        return {
            rq.Lookup: self.lookup,
            rq.Forget: self.forget,
            rq.Getattr: self.getattr,
            rq.Statx: self.statx,
            rq.Readlink: self.readlink,
            rq.Open: self.open,
            rq.Read: self.read,
            rq.Flush: _nothing,
            rq.Release: self.release,
            rq.Fsync: _nothing,
            rq.Fsyncdir: _nothing,
            rq.Lseek: self.lseek,
            rq.CopyFileRange: _elsewhere,
            rq.Ioctl: _no_ioctl,
            rq.Poll: self.poll,
            rq.Opendir: self.opendir,
            rq.Readdir: self.readdir,
            rq.Readdirplus: self.readdirplus,
            rq.Releasedir: self.release,
            rq.Getxattr: self.getxattr,
            rq.Listxattr: self.listxattr,
        }

    def root_entry(self) -> Result:
        """The reply to a lookup of ``.awayfs`` in the root."""
        return self._looked_up(())

    def lookup(self, request: rq.Lookup) -> Result:
        """A name in the tree."""
        path = self._tree.path_of(request.nodeid)
        if request.name in (b".", b".."):  # from file handles (EXPORT_SUPPORT)
            return self._looked_up(path if request.name == b"." else path[:-1])
        return self._looked_up((*path, request.name))

    def forget(self, request: rq.Forget) -> None:
        """The kernel lets go of a node."""
        self.let_go(request.nodeid, request.nlookup)

    def let_go(self, nodeid: int, count: int) -> None:
        """Of one node, ``count`` lookups."""
        if not self._shared.lookups.forget(nodeid, count):
            self._tree.forget(nodeid)

    def getattr(self, request: rq.Getattr) -> Result:
        """Attributes."""
        return self._with_node(request.nodeid, lambda node: attr_out(self._attr(request, node)))

    def statx(self, request: rq.Statx) -> Result:
        """Attributes."""
        return self._with_node(request.nodeid, lambda node: statx_out(self._attr(request, node)))

    def readlink(self, request: rq.Readlink) -> Result:
        """The target of a symbolic link."""
        return self._with_node(request.nodeid, _target)

    # -- files ----------------------------------------------------------------------------

    def open(self, request: rq.Open) -> Result:
        """Read only."""
        if request.flags & os.O_ACCMODE != os.O_RDONLY or request.flags & os.O_TRUNC:
            raise OSError(errno.EROFS, "variants cannot be changed; see awayfs resolve")
        path = self._tree.path_of(request.nodeid)
        if path[:1] == (b"variant",) and len(path) > 1:
            self._tree.tickets.check(path[1:], request.uid)
        return _then(self._tree.get(path), lambda node: self._opened(request.nodeid, path, node))

    def _opened(self, nodeid: int, path: Path, node: VirtualNode) -> bytes:
        handle = VirtualHandle(path, node)
        if node.data is None and node.open is not None:
            handle.revision = node.open()
        self._open.setdefault(nodeid, []).append(handle)
        return open_out(self._shared.new_handle(handle), wire.FOPEN_DIRECT_IO)

    def read(self, request: rq.Read) -> Result:
        """From what was opened."""
        handle = self._handle(request.fh)
        if handle.revision is not None:
            return handle.revision.read(request.offset, request.size)
        data = handle.node.data or b""
        return data[request.offset : request.offset + request.size]

    def release(self, request: rq.Release | rq.Releasedir) -> bytes:
        """Closed."""
        handle = self._shared.handles.pop(request.fh, None)
        if isinstance(handle, VirtualHandle):
            if handle.revision is not None:
                handle.revision.close()
            if handle.poller is not None:
                self._waiting.discard(handle.poller)
            others = [h for h in self._open.pop(request.nodeid, []) if h is not handle]
            if others:
                self._open[request.nodeid] = others
        return b""

    def lseek(self, request: rq.Lseek) -> bytes:
        """SEEK_DATA and SEEK_HOLE: there are no holes to tell."""
        size = self._handle(request.fh).node.size
        if request.offset >= size:
            raise OSError(errno.ENXIO, "beyond the end")
        return lseek_out(request.offset if request.whence == os.SEEK_DATA else size)

    def poll(self, request: rq.Poll) -> bytes:
        """``events`` is ready when there is more than was read of it; all else always is."""
        handle = self._handle(request.fh)
        if not isinstance(handle.revision, EventFile):
            return poll_out(READY)
        if handle.revision.ready:
            return poll_out(READABLE)
        if request.wants_wakeup:
            handle.poller = request.kh
            self._waiting.add(request.kh)
        return poll_out(0)

    def _wake(self) -> None:
        """Who was woken asks anew."""
        for poller in self._waiting:
            self._shared.volume.context.kernel.wake(poller)
        self._waiting.clear()

    # -- directories ----------------------------------------------------------------------

    def opendir(self, request: rq.Opendir) -> Result:
        """A snapshot of the names."""
        path = self._tree.path_of(request.nodeid)
        return _then(self._tree.get(path), lambda node: self._listed(path, node))

    def _listed(self, path: Path, node: VirtualNode) -> Result:
        if node.kind is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "not a directory")
        listed = self._tree.entries(path)
        if isinstance(listed, Awaitable):
            return self._listed_later(path, node, listed)
        return self._opened_directory(path, node, listed)

    async def _listed_later(
        self, path: Path, node: VirtualNode, listed: Awaitable[Listing]
    ) -> bytes:
        return self._opened_directory(path, node, await listed)

    def _opened_directory(self, path: Path, node: VirtualNode, entries: Listing) -> bytes:
        dots = [(b".", Kind.DIRECTORY), (b"..", Kind.DIRECTORY)]
        return open_out(self._shared.new_handle(VirtualHandle(path, node, None, dots + entries)))

    def readdir(self, request: rq.Readdir) -> bytes:
        """Names."""
        return self._list(request.fh, request.offset, DirectoryBuffer(request.size))

    def readdirplus(self, request: rq.Readdirplus) -> bytes:
        """Names, without attributes: they would have to be asked for one by one."""
        return self._list(request.fh, request.offset, DirectoryBuffer(request.size, plus=True))

    def _list(self, fh: int, offset: int, buffer: DirectoryBuffer) -> bytes:
        entries = self._handle(fh).entries
        for index in range(offset, len(entries)):
            name, kind = entries[index]
            if not buffer.add(name, UNKNOWN_INODE, kind >> 12, index + 1):
                break
        return buffer.finish()

    # -- attributes -----------------------------------------------------------------------

    def getxattr(self, request: rq.Getxattr) -> Result:
        """``user.awayfs.state`` tells how much of a file is here: clean, partial, placeholder."""
        if request.name != STATE:
            raise OSError(errno.ENODATA, "no such attribute")
        return self._with_node(request.nodeid, lambda node: _sized(request.size, node.state))

    def listxattr(self, request: rq.Listxattr) -> bytes:
        """There are none to be copied along."""
        return xattr_size_out(0) if request.size == 0 else b""

    def _handle(self, fh: int) -> VirtualHandle:
        handle = self._shared.handles.get(fh)
        if not isinstance(handle, VirtualHandle):
            raise OSError(errno.EBADF, "not open")
        return handle

    def _with_node(self, nodeid: int, answer: FOUND) -> Result:
        """``answer`` of what stands there, or of what is open of what stood there."""
        path = self._tree.path_of(nodeid)
        opened = self._open.get(nodeid)
        try:
            looked = self._tree.get(path)
        except OSError:
            if not opened:
                raise
            looked = opened[-1].node
        if opened and isinstance(looked, Awaitable):
            looked = opened[-1].node
        return _then(looked, answer)

    def _looked_up(self, path: Path) -> Result:
        return _then(self._tree.get(path), lambda node: self._entry(path, node))

    def _entry(self, path: Path, node: VirtualNode) -> bytes:
        nodeid = self._tree.node_id(path)  # only now: what is not there gets no number
        self._shared.lookups.add(nodeid)
        return entry_out(Entry(nodeid, self._attributes(nodeid, node), generation=self._generation))

    def _attr(self, request: rq.Request, node: VirtualNode) -> Attr:
        return self._attributes(request.nodeid, node)

    def _attributes(self, nodeid: int, node: VirtualNode) -> Attr:
        options = self._shared.volume.context.options
        uid, gid = node.owner or (options.uid, options.gid)
        return Attr(
            ino=node.inode or nodeid,
            size=node.size,
            blocks=(node.size + 511) >> 9,
            atime_ns=node.mtime_ns,
            mtime_ns=node.mtime_ns,
            ctime_ns=node.ctime_ns,
            btime_ns=node.mtime_ns,
            mode=node.kind | node.mode,
            nlink=node.nlink,
            uid=uid,
            gid=gid,
            rdev=node.rdev,
        )


UNKNOWN_INODE = 0xFFFFFFFF
"""In listings, the number of a name whose number nobody has asked for (as in libfuse)."""


def _then(looked: Looked, answer: Callable[[VirtualNode], Result]) -> Result:
    """The answer, at once where nothing has to be awaited."""
    return _later(looked, answer) if isinstance(looked, Awaitable) else answer(looked)


async def _later(looked: Awaitable[VirtualNode], answer: Callable[[VirtualNode], Result]) -> Reply:
    result = answer(await looked)
    return await result if isinstance(result, Awaitable) else result


def _nothing(_request: rq.Request) -> bytes:
    return b""


def _no_ioctl(_request: rq.Request) -> bytes:
    raise OSError(errno.ENOTTY, "no such ioctl")


def _elsewhere(_request: rq.Request) -> bytes:
    """The kernel then copies by reading and writing."""
    raise OSError(errno.EOPNOTSUPP, "copied by reading")


def _target(node: VirtualNode) -> bytes:
    if node.kind is not Kind.SYMLINK:
        raise OSError(errno.EINVAL, "not a symbolic link")
    return node.target


def _sized(size: int, value: str) -> bytes:
    if size == 0:
        return xattr_size_out(len(value))
    if len(value) > size:
        raise OSError(errno.ERANGE, "the buffer is too small")
    return value.encode()

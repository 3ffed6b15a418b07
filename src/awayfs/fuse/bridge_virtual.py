"""Handlers for the ``.awayfs`` tree: read only, nothing cached."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from awayfs.core.types import Kind
from awayfs.fuse import requests as rq
from awayfs.fuse import wire
from awayfs.fuse.bridge_shared import Shared
from awayfs.fuse.replies import (
    Attr,
    DirectoryBuffer,
    Entry,
    attr_out,
    entry_out,
    open_out,
    statx_out,
)
from awayfs.fuse.session import Handler
from awayfs.volume.virtual import Path, VirtualNode


@dataclass(slots=True)
class VirtualHandle:
    """An open virtual file (a snapshot of small ones) or directory."""

    path: Path
    node: VirtualNode
    names: list[bytes]


class VirtualHandlers:
    """What can be done in ``.awayfs``."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._tree = shared.volume.virtual

    def table(self) -> dict[type[rq.Request], Handler]:
        """Request type → handler; everything else is refused with EPERM."""
        return {
            rq.Lookup: self.lookup,
            rq.Forget: lambda _request: None,
            rq.BatchForget: lambda _request: None,
            rq.Getattr: self.getattr,
            rq.Statx: self.statx,
            rq.Readlink: self.readlink,
            rq.Open: self.open,
            rq.Read: self.read,
            rq.Flush: lambda _request: b"",
            rq.Release: self.release,
            rq.Opendir: self.opendir,
            rq.Readdir: self.readdir,
            rq.Readdirplus: self.readdirplus,
            rq.Releasedir: self.release,
            rq.Getxattr: self.no_xattr,
            rq.Listxattr: self.listxattr,
        }

    def root_entry(self) -> bytes:
        """The reply to a lookup of ``.awayfs`` in the root."""
        return self._entry(())

    def lookup(self, request: rq.Lookup) -> bytes:
        """A name in the tree."""
        return self._entry((*self._tree.path_of(request.nodeid), request.name))

    def getattr(self, request: rq.Getattr) -> bytes:
        """Attributes."""
        return attr_out(self._attr(self._tree.path_of(request.nodeid)))

    def statx(self, request: rq.Statx) -> bytes:
        """Attributes."""
        return statx_out(self._attr(self._tree.path_of(request.nodeid)))

    def readlink(self, request: rq.Readlink) -> bytes:
        """The target of a variant that is a symbolic link."""
        return self._tree.get(self._tree.path_of(request.nodeid)).target

    def open(self, request: rq.Open) -> bytes:
        """Read only."""
        if request.flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, "variants cannot be changed; see awayfs resolve")
        path = self._tree.path_of(request.nodeid)
        handle = VirtualHandle(path, self._tree.get(path), [])
        return open_out(self._shared.new_handle(handle), wire.FOPEN_DIRECT_IO)

    def read(self, request: rq.Read) -> bytes:
        """From the snapshot, or from the variant's file."""
        node = self._handle(request.fh).node
        if node.path is None:
            return node.data[request.offset : request.offset + request.size]
        with open(node.path, "rb") as file:
            return os.pread(file.fileno(), request.size, request.offset)

    def release(self, request: rq.Release | rq.Releasedir) -> bytes:
        """Closed."""
        self._shared.handles.pop(request.fh, None)
        return b""

    def opendir(self, request: rq.Opendir) -> bytes:
        """A snapshot of the names."""
        path = self._tree.path_of(request.nodeid)
        handle = VirtualHandle(path, self._tree.get(path), self._tree.children(path))
        return open_out(self._shared.new_handle(handle))

    def readdir(self, request: rq.Readdir) -> bytes:
        """Names."""
        return self._list(request.fh, request.offset, DirectoryBuffer(request.size))

    def readdirplus(self, request: rq.Readdirplus) -> bytes:
        """Names, without attributes: they are not worth caching."""
        return self._list(request.fh, request.offset, DirectoryBuffer(request.size, plus=True))

    def _list(self, fh: int, offset: int, buffer: DirectoryBuffer) -> bytes:
        handle = self._handle(fh)
        for index, name in enumerate([b".", b"..", *handle.names]):
            if index < offset:
                continue
            path = (*handle.path, name)
            kind = Kind.DIRECTORY if index < 2 else self._tree.get(path).kind
            number = self._tree.node_id(handle.path if index < 2 else path)
            if not buffer.add(name, number, kind >> 12, index + 1):
                break
        return buffer.finish()

    def no_xattr(self, _request: rq.Getxattr) -> bytes:
        """There are none."""
        raise OSError(errno.ENODATA, "no such attribute")

    def listxattr(self, request: rq.Listxattr) -> bytes:
        """There are none."""
        return b"\0" * 8 if request.size == 0 else b""

    def _handle(self, fh: int) -> VirtualHandle:
        handle = self._shared.handles.get(fh)
        if not isinstance(handle, VirtualHandle):
            raise OSError(errno.EBADF, "not open")
        return handle

    def _entry(self, path: Path) -> bytes:
        attr = self._attr(path)  # first: what is not there gets no number
        return entry_out(Entry(attr.ino, attr))

    def _attr(self, path: Path) -> Attr:
        node = self._tree.get(path)
        options = self._shared.volume.context.options
        mode = 0o500 if node.kind is Kind.DIRECTORY else 0o400
        return Attr(
            ino=self._tree.node_id(path),
            size=node.size,
            blocks=(node.size + 511) >> 9,
            atime_ns=node.mtime_ns,
            mtime_ns=node.mtime_ns,
            ctime_ns=node.mtime_ns,
            btime_ns=node.mtime_ns,
            mode=node.kind | mode,
            nlink=2 if node.kind is Kind.DIRECTORY else 1,
            uid=options.uid,
            gid=options.gid,
        )

"""Handlers for names, attributes and directories."""

from __future__ import annotations

import errno
import stat
from collections.abc import Awaitable, Callable
from typing import Any

from awayfs.core.permissions import WRITE
from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.fuse import requests as rq
from awayfs.fuse import wire
from awayfs.fuse.bridge_shared import Shared
from awayfs.fuse.replies import (
    DirectoryBuffer,
    attr_out,
    entry_out,
    negative_entry_out,
    open_out,
    statfs_out,
    statx_out,
)
from awayfs.fuse.session import Handler, Result
from awayfs.store.nodes import Node
from awayfs.volume.changes import RESERVED
from awayfs.volume.tree import DirectoryHandle
from awayfs.volume.virtual_node import VIRTUAL_BASE

PERMISSIONS = 0o7777


class NameHandlers:
    """LOOKUP to STATFS: everything that needs no content."""

    def __init__(
        self,
        shared: Shared,
        virtual_root: Callable[[], Result],
        virtual_forget: Callable[[int, int], None],
    ) -> None:
        self._virtual_root = virtual_root
        self._virtual_forget = virtual_forget
        self._shared = shared
        self._volume = shared.volume
        self._tree = shared.volume.tree
        self._changes = shared.volume.changes

    def table(self) -> dict[type[rq.Request], Handler]:
        """Request type → handler."""
        return {
            rq.Lookup: self.lookup,
            rq.Forget: self.forget,
            rq.BatchForget: self.batch_forget,
            rq.Getattr: self.getattr,
            rq.Statx: self.statx,
            rq.Setattr: self.setattr,
            rq.Readlink: self.readlink,
            rq.Symlink: self.symlink,
            rq.Mknod: self.mknod,
            rq.Mkdir: self.mkdir,
            rq.Unlink: self.unlink,
            rq.Rmdir: self.rmdir,
            rq.Rename: self.rename,
            rq.Link: self.link,
            rq.Opendir: self.opendir,
            rq.Readdir: self.readdir,
            rq.Readdirplus: self.readdirplus,
            rq.Releasedir: self.releasedir,
            rq.Fsyncdir: self.fsyncdir,
            rq.Syncfs: self.fsyncdir,
            rq.Statfs: self.statfs,
        }

    def lookup(self, request: rq.Lookup) -> Result:
        """Names ``.`` and ``..`` come from file handles (EXPORT_SUPPORT)."""
        if request.name == RESERVED and request.nodeid == ROOT:
            return self._virtual_root()
        if request.name in (b".", b".."):
            return self._dot(request)
        try:
            found = self._tree.lookup(request.nodeid, request.name)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return negative_entry_out(self._shared.absence_left_s(request.nodeid))
            raise
        if isinstance(found, Node):
            return self._looked_up(request, found)
        return self._lookup_later(request, found)

    async def _lookup_later(self, request: rq.Lookup, found: Awaitable[Node]) -> bytes:
        try:
            node = await found
        except OSError as error:
            if error.errno == errno.ENOENT:  # asked about just now
                return negative_entry_out(self._shared.valid_s(request.nodeid))
            raise
        return self._looked_up(request, node)

    def _looked_up(self, request: rq.Lookup, node: Node) -> bytes:
        self._shared.used(request, node.id)
        return entry_out(self._shared.looked_up(node))

    def _dot(self, request: rq.Lookup) -> bytes:
        """What a file handle names; ESTALE when it was removed and nobody has it open."""
        wanted = request.nodeid
        if wanted != ROOT and not self._is_there(wanted):
            raise OSError(errno.ESTALE, "the file is gone")
        if request.name == b".." and wanted != ROOT:
            wanted = self._volume.store.nodes.parent(wanted) or ROOT
        return entry_out(self._shared.looked_up(self._present(wanted)))

    def _is_there(self, nodeid: int) -> bool:
        named = bool(self._volume.store.nodes.names(nodeid))
        return named or self._volume.context.opened.get(nodeid) is not None

    def forget(self, request: rq.Forget) -> None:
        """The kernel lets go of a node."""
        self._forget(request.nodeid, request.nlookup)

    def batch_forget(self, request: rq.BatchForget) -> None:
        """The kernel lets go of many."""
        for nodeid, count in request.items:
            self._forget(nodeid, count)

    def _forget(self, nodeid: int, count: int) -> None:
        if nodeid >= VIRTUAL_BASE:
            self._virtual_forget(nodeid, count)
        elif not self._shared.lookups.forget(nodeid, count):
            self._shared.forgotten(nodeid)
            self._volume.forgotten(nodeid)

    def getattr(self, request: rq.Getattr) -> Result:
        """Attributes; of an open file they are ours and need no look at the server."""
        if request.by_handle:
            return self._attributes(self._present(request.nodeid))
        found = self._tree.attributes(request.nodeid)
        if isinstance(found, Node):
            return self._looked_at(request, found)
        return self._getattr_later(request, found)

    async def _getattr_later(self, request: rq.Getattr, found: Awaitable[Node]) -> bytes:
        return self._looked_at(request, await found)

    def _looked_at(self, request: rq.Getattr, node: Node) -> bytes:
        """Of a directory the kernel asks by itself, to check what may be done in it."""
        if node.kind is not Kind.DIRECTORY:
            self._shared.used(request, node.id)
        return self._attributes(node)

    def _attributes(self, node: Node) -> bytes:
        return attr_out(self._shared.attr(node), self._shared.left_s(node.id))

    async def statx(self, request: rq.Statx) -> bytes:
        """Attributes with the birth time, which only a program asks for."""
        self._shared.used(request, request.nodeid)
        found = self._tree.attributes(request.nodeid)
        node = found if isinstance(found, Node) else await found
        return statx_out(self._shared.attr(node), self._shared.left_s(node.id))

    def setattr(self, request: rq.Setattr) -> Result:
        """chmod, chown, truncate, utimensat in one; set-id bits go as chown(2) says."""
        if request.valid & wire.FATTR_SIZE:
            node = self._present(request.nodeid)
            wait = self._volume.files.before_growth(node, request.size)
            if wait is not None:
                return self._setattr_later(request, wait)
        return self._setattr(request)

    async def _setattr_later(self, request: rq.Setattr, wait: Awaitable[None]) -> bytes:
        await wait
        return self._setattr(request)

    def _setattr(self, request: rq.Setattr) -> bytes:
        node = self._present(request.nodeid)
        valid = request.valid
        self._volume.shown.check_change(node.id)
        if valid & wire.FATTR_SIZE:
            if not valid & wire.FATTR_FH:  # truncate(2) by name is what open(2) is
                self._volume.check_allowed(node.id, WRITE)
                self._volume.shown.check_open(node, writing=True)
            self._volume.files.truncate(node, request.size)
        attributes = Attributes(
            mode=self._new_mode(request, node),
            uid=request.new_uid if valid & wire.FATTR_UID else None,
            gid=request.new_gid if valid & wire.FATTR_GID else None,
            mtime_ns=self._time(valid, wire.FATTR_MTIME, wire.FATTR_MTIME_NOW, request.mtime_ns),
            atime_ns=self._time(valid, wire.FATTR_ATIME, wire.FATTR_ATIME_NOW, request.atime_ns),
        )
        if valid & wire.FATTR_SIZE and not valid & (wire.FATTR_MTIME_NOW | wire.FATTR_MTIME):
            pass  # truncate has set the time already
        if attributes:
            self._volume.check_writable()
            self._changes.set_attributes(request.nodeid, attributes)
        return self._attributes(self._present(request.nodeid))

    def _new_mode(self, request: rq.Setattr, node: Node) -> int | None:
        if request.valid & wire.FATTR_MODE:
            return request.mode & PERMISSIONS
        owner = request.valid & (wire.FATTR_UID | wire.FATTR_GID)
        if (owner or request.kill_suidgid) and node.kind is Kind.FILE:
            return without_set_id(node.mode)
        return None

    def _time(self, valid: int, given: int, now: int, value: int) -> int | None:
        if valid & now:
            return self._volume.context.now()
        return value if valid & given else None

    def readlink(self, request: rq.Readlink) -> bytes:
        """The target."""
        node = self._present(request.nodeid)
        self._volume.shown.check_open(node, writing=False)
        node = self._volume.shown.attributes(node)
        if node.target is None:
            raise OSError(errno.EINVAL, "not a symbolic link")
        return node.target

    def symlink(self, request: rq.Symlink) -> bytes:
        """symlink(2)."""
        node = self._changes.create(
            request.nodeid,
            request.name,
            Kind.SYMLINK,
            0o777,
            request.uid,
            request.gid,
            target=request.target,
        )
        return entry_out(self._shared.looked_up(node))

    def mknod(self, request: rq.Mknod) -> bytes:
        """mknod(2); type 0 is a regular file."""
        kind = Kind(stat.S_IFMT(request.mode) or stat.S_IFREG)
        mode = request.mode & PERMISSIONS & ~request.umask
        node = self._changes.create(
            request.nodeid,
            request.name,
            kind,
            mode,
            request.uid,
            request.gid,
            rdev=request.rdev,
        )
        return entry_out(self._shared.looked_up(node))

    def mkdir(self, request: rq.Mkdir) -> bytes:
        """mkdir(2)."""
        mode = request.mode & PERMISSIONS & ~request.umask
        node = self._changes.create(
            request.nodeid, request.name, Kind.DIRECTORY, mode, request.uid, request.gid
        )
        return entry_out(self._shared.looked_up(node))

    def unlink(self, request: rq.Unlink) -> bytes:
        """unlink(2)."""
        self._volume.check_writable()
        node = self._changes.unlink(request.nodeid, request.name)
        self._volume.unlinked(node.id)
        return b""

    def rmdir(self, request: rq.Rmdir) -> Result:
        """rmdir(2); whether the directory is empty may have to be asked."""
        self._volume.check_writable()
        node = self._volume.store.nodes.child(request.nodeid, request.name)
        if node is None or self._tree.directory_is_fresh(node.id):
            self._changes.rmdir(request.nodeid, request.name)
            return b""
        return self._rmdir_later(request, node.id)

    async def _rmdir_later(self, request: rq.Rmdir, node: int) -> bytes:
        await self._tree.open_directory(node)
        self._changes.rmdir(request.nodeid, request.name)
        return b""

    def rename(self, request: rq.Rename) -> bytes:
        """rename(2), renameat2(2)."""
        self._volume.check_writable()
        replaced = self._volume.store.nodes.child_id(request.new_parent, request.new_name)
        self._changes.rename(
            request.nodeid, request.name, request.new_parent, request.new_name, request.flags
        )
        if replaced is not None:
            self._volume.unlinked(replaced)
        return b""

    def link(self, request: rq.Link) -> bytes:
        """link(2)."""
        self._volume.check_writable()
        node = self._changes.link(request.target, request.nodeid, request.name)
        return entry_out(self._shared.looked_up(node))

    def opendir(self, request: rq.Opendir) -> Result:
        """The kernel may keep the listing until it is told otherwise."""
        self._shared.used(request, request.nodeid, listed=True)
        if self._tree.directory_is_fresh(request.nodeid):
            return self._opened_directory(self._tree.opened_directory(request.nodeid))
        if not self._volume.store.server.children_known(request.nodeid):
            self._shared.not_for_indexers(request, "the listing")
        return self._opendir_later(request.nodeid)

    async def _opendir_later(self, nodeid: int) -> bytes:
        return self._opened_directory(await self._tree.open_directory(nodeid))

    def _opened_directory(self, handle: DirectoryHandle) -> bytes:
        self._shared.listed.add(handle.node)
        flags = wire.FOPEN_CACHE_DIR | self._shared.keep_cache(handle.node)
        return open_out(self._shared.new_handle(handle), flags)

    def readdir(self, request: rq.Readdir) -> Result:
        """Names only."""
        return self._from_start(request, self._names)

    def readdirplus(self, request: rq.Readdirplus) -> Result:
        """Names with attributes as they are now; each counts as a lookup."""
        return self._from_start(request, self._names_with_attributes)

    def _from_start(self, request: Any, answer: Callable[[Any], bytes]) -> Result:
        """The answer; one who begins anew (rewinddir(3)) sees what opening anew would show."""
        handle = self._shared.handles.get(request.fh)
        rewound = isinstance(handle, DirectoryHandle) and handle.entries is not None
        if request.offset == 0 and rewound and not self._tree.directory_is_fresh(request.nodeid):
            return self._listed_anew(request, answer)
        return answer(request)

    async def _listed_anew(self, request: Any, answer: Callable[[Any], bytes]) -> bytes:
        await self._tree.open_directory(request.nodeid)
        return answer(request)

    def _names(self, request: rq.Readdir) -> bytes:
        handle, entries = self._directory(request.fh, request.offset)
        buffer = DirectoryBuffer(request.size)
        if not self._dots(handle, request.offset, buffer):
            return buffer.finish()
        for index in range(max(0, request.offset - 2), len(entries)):
            name, node = entries[index]
            if not buffer.add(name, node.id, node.kind >> 12, index + 3):
                break
        return buffer.finish()

    def _names_with_attributes(self, request: rq.Readdirplus) -> bytes:
        handle, entries = self._directory(request.fh, request.offset)
        buffer = DirectoryBuffer(request.size, plus=True)
        if not self._dots(handle, request.offset, buffer):
            return buffer.finish()
        for index in range(max(0, request.offset - 2), len(entries)):
            name = entries[index][0]
            node = self._tree.entry_now(handle, index)
            if node is None:
                continue
            entry = self._shared.entry(node)
            if not buffer.add(name, node.id, node.kind >> 12, index + 3, entry):
                break
        self._shared.lookups.add_all(buffer.looked_up)
        return buffer.finish()

    def _directory(self, fh: int, offset: int) -> tuple[DirectoryHandle, list[tuple[bytes, Node]]]:
        """The handle and its entries as they were when reading began: cookies count in them."""
        handle = self._shared.handles.get(fh)
        if not isinstance(handle, DirectoryHandle):
            raise OSError(errno.EBADF, "not an open directory")
        if offset == 0 or handle.entries is None:  # opened, or rewound (rewinddir(3))
            return handle, self._tree.load(handle)
        return handle, handle.entries

    def _dots(self, handle: DirectoryHandle, offset: int, buffer: DirectoryBuffer) -> bool:
        if offset < 1 and not buffer.add(b".", handle.node, stat.S_IFDIR >> 12, 1):
            return False
        return offset >= 2 or buffer.add(b"..", handle.parent, stat.S_IFDIR >> 12, 2)

    def releasedir(self, request: rq.Releasedir) -> bytes:
        """closedir(3)."""
        self._shared.handles.pop(request.fh, None)
        return b""

    async def fsyncdir(self, _request: rq.Request) -> bytes:
        """fsync(2) of a directory and syncfs(2): journal and content become durable."""
        await self._volume.durable(None)
        return b""

    async def statfs(self, _request: rq.Statfs) -> bytes:
        """What can be written."""
        space = await self._volume.space()
        return statfs_out(
            blocks=space.blocks,
            bfree=space.blocks_free,
            bavail=space.blocks_available,
            files=space.files,
            ffree=space.files_free,
            bsize=space.block_size,
            frsize=space.block_size,
            namelen=space.name_max,
        )

    def _present(self, nodeid: int) -> Node:
        node = self._volume.context.node(nodeid)
        if node is None:
            raise OSError(errno.ESTALE, "the file is gone")
        return node


def without_set_id(mode: int) -> int | None:
    """The mode after a write or a change of owner (chown(2)); None if it stays as it is."""
    new = mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        new &= ~stat.S_ISGID
    return new if new != mode else None

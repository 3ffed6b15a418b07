"""A small file system in memory, to try the FUSE layer with and without a kernel.

It does every operation, keeps lookup counts, and has some names with a meaning:

* ``slow`` is looked up for half a minute, which only an interrupt ends;
* ``error-N`` fails with errno N, ``broken`` with an exception;
* ``pollable`` has nothing to read until `wake` is called;
* with `backing`, a name that starts with ``pt`` is kept in a file there, and opened with
  passthrough; for writing, with FOPEN_DIRECT_IO besides, so that writes come here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import time
from dataclasses import dataclass, field
from typing import Any

from awayfs.fuse import passthrough, requests, wire
from awayfs.fuse.lookups import LookupCounts
from awayfs.fuse.notify import Notifier
from awayfs.fuse.replies import (
    Attr,
    DirectoryBuffer,
    Entry,
    attr_out,
    copy_file_range_out,
    create_out,
    entry_out,
    ioctl_out,
    lseek_out,
    open_out,
    poll_out,
    statfs_out,
    statx_out,
    write_out,
    xattr_size_out,
)
from awayfs.fuse.session import Handler

IOCTL_INCREMENT = 0xC0087701
"""_IOWR('w', 1, u64): gives back the number plus one."""


@dataclass
class Node:
    """One file, directory, symlink or device."""

    attr: Attr
    children: dict[bytes, Node] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    parent: int = wire.ROOT_ID
    backing: str = ""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.attr.mode)


class MemoryFS:
    """The file system; `handlers` is what a `Session` wants. Validities are in seconds."""

    def __init__(self, *, valid: float = 60.0, backing: str = "", open_flags: int = 0) -> None:
        self.valid = valid
        self.backing = backing
        self.open_flags = open_flags
        self.forced: int | None = None
        """FOPEN_* flags for all opens, whatever would be right."""
        self.fresh_backing = False
        """Whether each open registers the backing file anew, under another id."""
        self.fuse_fd = -1
        self.notifier: Notifier | None = None
        self.lookups = LookupCounts()
        self.log: list[str] = []
        self._next = wire.ROOT_ID
        self._handles: dict[int, Node] = {}
        self._backing_ids: dict[int, int] = {}
        self._next_handle = 0
        self._waiters: list[int] = []
        self.ready = False
        self.nodes: dict[int, Node] = {}
        self.root = self._new(stat.S_IFDIR | 0o755, os.getuid(), os.getgid())

    @property
    def handlers(self) -> dict[type[Any], Handler]:
        """Request type → the method of the same name."""
        found: dict[type[Any], Handler] = {}
        for name, kind in vars(requests).items():
            method = getattr(self, f"on_{name.lower()}", None)
            if isinstance(kind, type) and method is not None:
                found[kind] = method
        return found

    def wake(self) -> None:
        """Make ``pollable`` readable, and tell those who wait."""
        self.ready = True
        for kh in self._waiters:
            assert self.notifier is not None
            self.notifier.poll_wakeup(kh)
        self._waiters.clear()

    # nodes

    def _new(self, mode: int, uid: int, gid: int, parent: int = wire.ROOT_ID) -> Node:
        nodeid, now = self._next, time.time_ns()
        self._next += 1
        nlink = 2 if stat.S_ISDIR(mode) else 1
        attr = Attr(nodeid, 0, 0, now, now, now, now, mode, nlink, uid, gid)
        node = self.nodes[nodeid] = Node(attr, parent=parent)
        return node

    def _node(self, nodeid: int) -> Node:
        try:
            return self.nodes[nodeid]
        except KeyError:
            raise OSError(errno.ESTALE, "no such node") from None

    def _child(self, parent: int, name: bytes) -> Node:
        try:
            return self._node(parent).children[name]
        except KeyError:
            raise OSError(errno.ENOENT, "no such name") from None

    def _make(self, request: Any, mode: int, name: bytes) -> Node:
        parent = self._node(request.nodeid)
        if name in parent.children:
            raise OSError(errno.EEXIST, "exists")
        node = self._new(mode, request.uid, request.gid, request.nodeid)
        parent.children[name] = node
        if self.backing and name.startswith(b"pt") and stat.S_ISREG(mode):
            node.backing = os.path.join(self.backing, name.decode())
            with open(node.backing, "wb"):
                pass
        return node

    def _entry(self, node: Node) -> Entry:
        self.lookups.add(node.attr.ino)
        return Entry(node.attr.ino, self._fresh(node), self.valid, self.valid)

    def _fresh(self, node: Node) -> Attr:
        if stat.S_ISREG(node.attr.mode):
            size = os.stat(node.backing).st_size if node.backing else len(node.data)
            node.attr.size = size
            node.attr.blocks = -(-size // 512)
        return node.attr

    def _handle(self, node: Node) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = node
        return self._next_handle

    # names

    def on_lookup(self, request: requests.Lookup) -> Any:
        name = request.name
        if name == b"slow":
            return self._slow()
        if name == b"broken":
            raise RuntimeError("broken on purpose")
        if name.startswith(b"error-"):
            raise OSError(int(name[6:]), "on purpose")
        if name in (b".", b".."):
            node = self._node(request.nodeid)
            return entry_out(self._entry(node if name == b"." else self._node(node.parent)))
        return entry_out(self._entry(self._child(request.nodeid, name)))

    async def _slow(self) -> bytes:
        self.log.append("slow begins")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.log.append("slow cancelled")
            raise
        raise OSError(errno.ETIMEDOUT, "slept through")

    def on_forget(self, request: requests.Forget) -> None:
        self.lookups.forget(request.nodeid, request.nlookup)

    def on_batchforget(self, request: requests.BatchForget) -> None:
        for nodeid, nlookup in request.items:
            self.lookups.forget(nodeid, nlookup)

    def on_symlink(self, request: requests.Symlink) -> bytes:
        node = self._make(request, stat.S_IFLNK | 0o777, request.name)
        node.target = request.target
        node.attr.size = len(request.target)
        return entry_out(self._entry(node))

    def on_readlink(self, request: requests.Readlink) -> bytes:
        return self._node(request.nodeid).target

    def on_mknod(self, request: requests.Mknod) -> bytes:
        node = self._make(request, request.mode & ~request.umask, request.name)
        node.attr.rdev = request.rdev
        return entry_out(self._entry(node))

    def on_mkdir(self, request: requests.Mkdir) -> bytes:
        mode = stat.S_IFDIR | request.mode & ~request.umask
        node = self._make(request, mode, request.name)
        self._node(request.nodeid).attr.nlink += 1
        return entry_out(self._entry(node))

    def on_unlink(self, request: requests.Unlink) -> bytes:
        self._child(request.nodeid, request.name).attr.nlink -= 1
        del self._node(request.nodeid).children[request.name]
        return b""

    def on_rmdir(self, request: requests.Rmdir) -> bytes:
        if self._child(request.nodeid, request.name).children:
            raise OSError(errno.ENOTEMPTY, "not empty")
        del self._node(request.nodeid).children[request.name]
        self._node(request.nodeid).attr.nlink -= 1
        return b""

    def on_rename(self, request: requests.Rename) -> bytes:
        node = self._child(request.nodeid, request.name)
        target = self._node(request.new_parent).children
        there = target.get(request.new_name)
        if request.flags & wire.RENAME_NOREPLACE and there is not None:
            raise OSError(errno.EEXIST, "exists")
        if request.flags & wire.RENAME_EXCHANGE:
            if there is None:
                raise OSError(errno.ENOENT, "nothing to exchange with")
            self._node(request.nodeid).children[request.name] = there
            there.parent = request.nodeid
        else:
            del self._node(request.nodeid).children[request.name]
            if there is not None:
                there.attr.nlink -= 1
        target[request.new_name] = node
        node.parent = request.new_parent
        return b""

    def on_link(self, request: requests.Link) -> bytes:
        node = self._node(request.target)
        self._node(request.nodeid).children[request.name] = node
        node.attr.nlink += 1
        return entry_out(self._entry(node))

    # attributes

    def on_getattr(self, request: requests.Getattr) -> bytes:
        return attr_out(self._fresh(self._node(request.nodeid)), self.valid)

    def on_statx(self, request: requests.Statx) -> bytes:
        return statx_out(self._fresh(self._node(request.nodeid)), self.valid)

    def on_setattr(self, request: requests.Setattr) -> bytes:
        node, valid, now = self._node(request.nodeid), request.valid, time.time_ns()
        if valid & wire.FATTR_MODE:
            node.attr.mode = stat.S_IFMT(node.attr.mode) | stat.S_IMODE(request.mode)
        if valid & wire.FATTR_UID:
            node.attr.uid = request.new_uid
        if valid & wire.FATTR_GID:
            node.attr.gid = request.new_gid
        if valid & wire.FATTR_SIZE:
            self._resize(node, request.size)
        if valid & wire.FATTR_ATIME:
            node.attr.atime_ns = now if valid & wire.FATTR_ATIME_NOW else request.atime_ns
        if valid & wire.FATTR_MTIME:
            node.attr.mtime_ns = now if valid & wire.FATTR_MTIME_NOW else request.mtime_ns
        node.attr.ctime_ns = request.ctime_ns if valid & wire.FATTR_CTIME else now
        return attr_out(self._fresh(node), self.valid)

    def _resize(self, node: Node, size: int) -> None:
        if node.backing:
            os.truncate(node.backing, size)
        elif size < len(node.data):
            del node.data[size:]
        else:
            node.data.extend(bytes(size - len(node.data)))

    def on_access(self, request: requests.Access) -> bytes:
        self._node(request.nodeid)
        return b""

    def on_statfs(self, request: requests.Statfs) -> bytes:
        return statfs_out(blocks=1000, bfree=600, bavail=500, files=100, ffree=50)

    # open files

    def on_open(self, request: requests.Open) -> bytes:
        node = self._node(request.nodeid)
        if request.flags & os.O_TRUNC:
            self._resize(node, 0)
        return open_out(self._handle(node), *self._open_mode(node, request.flags))

    def _open_mode(self, node: Node, flags: int) -> tuple[int, int]:
        """The FOPEN_* flags and the backing id for opening `node`."""
        how = self.open_flags
        if node.backing and passthrough.probe(self.fuse_fd):
            writing = flags & os.O_ACCMODE != os.O_RDONLY
            how = wire.FOPEN_PASSTHROUGH | (wire.FOPEN_DIRECT_IO if writing else 0)
        if self.forced is not None:
            how = self.forced
        return how, self._backing_id(node) if how & wire.FOPEN_PASSTHROUGH else 0

    def _backing_id(self, node: Node) -> int:
        """The id under which the kernel knows the node's backing file."""
        known = self._backing_ids.get(node.attr.ino)
        if known is None or self.fresh_backing:
            fd = os.open(node.backing, os.O_RDWR)
            known = self._backing_ids[node.attr.ino] = passthrough.open_backing(self.fuse_fd, fd)
            os.close(fd)
        return known

    def on_create(self, request: requests.Create) -> bytes:
        mode = request.mode & ~request.umask
        node = self._make(request, mode, request.name)
        how = self._open_mode(node, request.flags)
        return create_out(self._entry(node), self._handle(node), *how)

    def on_tmpfile(self, request: requests.Tmpfile) -> bytes:
        node = self._new(request.mode & ~request.umask, request.uid, request.gid)
        node.attr.nlink = 0
        return create_out(self._entry(node), self._handle(node), self.open_flags)

    async def on_read(self, request: requests.Read) -> Any:
        node = self._handles[request.fh]
        if node.backing:
            fd = os.open(node.backing, os.O_RDONLY)
            try:
                return os.pread(fd, request.size, request.offset)
            finally:
                os.close(fd)
        end = request.offset + request.size
        half = request.offset + request.size // 2
        return [bytes(node.data[request.offset : half]), bytes(node.data[half:end])]

    def on_write(self, request: requests.Write) -> bytes:
        node, end = self._handles[request.fh], request.offset + request.size
        self.log.append(f"write {request.offset}+{request.size}")
        if node.backing:
            with open(node.backing, "r+b") as file:
                os.pwrite(file.fileno(), request.data, request.offset)
            return write_out(request.size)
        if request.flags & os.O_APPEND:
            pass  # the kernel has set the offset to the size that it knows
        if len(node.data) < request.offset:
            self._resize(node, request.offset)
        node.data[request.offset : end] = request.data
        if request.kill_suidgid:
            node.attr.mode &= ~stat.S_ISUID
        return write_out(request.size)

    def on_flush(self, request: requests.Flush) -> bytes:
        return b""

    def on_release(self, request: requests.Release) -> bytes:
        self._handles.pop(request.fh, None)
        return b""

    def on_fsync(self, request: requests.Fsync) -> bytes:
        return b""

    def on_syncfs(self, request: requests.Syncfs) -> bytes:
        return b""

    def on_fallocate(self, request: requests.Fallocate) -> bytes:
        if request.mode:
            raise OSError(errno.EOPNOTSUPP, "only plain allocation")
        node, end = self._handles[request.fh], request.offset + request.length
        self._resize(node, max(end, len(node.data)))
        return b""

    def on_lseek(self, request: requests.Lseek) -> bytes:
        size = len(self._handles[request.fh].data)
        if request.offset >= size:
            raise OSError(errno.ENXIO, "beyond the end")
        return lseek_out(request.offset if request.whence == os.SEEK_DATA else size)

    def on_copyfilerange(self, request: requests.CopyFileRange) -> bytes:
        source, target = self._handles[request.fh], self._handles[request.new_fh]
        data = source.data[request.offset : request.offset + request.length]
        target.data[request.new_offset : request.new_offset + len(data)] = data
        return copy_file_range_out(len(data), request.wide)

    def on_ioctl(self, request: requests.Ioctl) -> bytes:
        if request.cmd != IOCTL_INCREMENT:
            raise OSError(errno.ENOTTY, "no such ioctl")
        number = int.from_bytes(request.data, "little") + 1
        return ioctl_out(0, number.to_bytes(8, "little"))

    def on_poll(self, request: requests.Poll) -> bytes:
        if self.ready:
            return poll_out(select.POLLIN)
        if request.wants_wakeup:
            self._waiters.append(request.kh)
        return poll_out(0)

    # directories

    def on_opendir(self, request: requests.Opendir) -> bytes:
        return open_out(self._handle(self._node(request.nodeid)))

    def on_readdir(self, request: requests.Readdir) -> bytes:
        return self._list(request, plus=False)

    def on_readdirplus(self, request: requests.Readdirplus) -> bytes:
        return self._list(request, plus=True)

    def _list(self, request: Any, plus: bool) -> bytes:
        node = self._handles[request.fh]
        names: list[tuple[bytes, Node]] = [(b".", node), (b"..", self._node(node.parent))]
        names += sorted(node.children.items(), key=lambda item: item[1].attr.ino)
        buffer = DirectoryBuffer(request.size, plus=plus)
        for cookie, (name, child) in enumerate(names[request.offset :], request.offset + 1):
            attr = self._fresh(child)
            entry = None
            if plus and cookie > 2:
                entry = Entry(attr.ino, attr, self.valid, self.valid)
            if not buffer.add(name, attr.ino, attr.mode >> 12, cookie, entry):
                break
        self.lookups.add_all(buffer.looked_up)
        return buffer.finish()

    def on_releasedir(self, request: requests.Releasedir) -> bytes:
        self._handles.pop(request.fh, None)
        return b""

    def on_fsyncdir(self, request: requests.Fsyncdir) -> bytes:
        return b""

    # extended attributes

    def on_setxattr(self, request: requests.Setxattr) -> bytes:
        self._node(request.nodeid).xattrs[request.name] = request.value
        return b""

    def on_getxattr(self, request: requests.Getxattr) -> bytes:
        value = self._node(request.nodeid).xattrs.get(request.name)
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return _sized(value, request.size)

    def on_listxattr(self, request: requests.Listxattr) -> bytes:
        names = b"".join(name + b"\0" for name in self._node(request.nodeid).xattrs)
        return _sized(names, request.size)

    def on_removexattr(self, request: requests.Removexattr) -> bytes:
        if self._node(request.nodeid).xattrs.pop(request.name, None) is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return b""


def _sized(value: bytes, size: int) -> bytes:
    if not size:
        return xattr_size_out(len(value))
    if len(value) > size:
        raise OSError(errno.ERANGE, "does not fit")
    return value

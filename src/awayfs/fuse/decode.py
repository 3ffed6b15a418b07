"""From the kernel's bytes to a typed request.

`decode` takes one message as read from ``/dev/fuse``. `DECODERS` has the parts, for
`session`, which reads the header itself. Each decoder makes its request straight from
what `struct` unpacks, so that decoding costs about a microsecond.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from awayfs.fuse import wire
from awayfs.fuse.requests import (
    Access,
    BatchForget,
    CopyFileRange,
    Create,
    Destroy,
    Fallocate,
    Flush,
    Forget,
    Fsync,
    Fsyncdir,
    Getattr,
    Getxattr,
    Interrupt,
    Ioctl,
    Link,
    Listxattr,
    Lookup,
    Lseek,
    Mkdir,
    Mknod,
    Open,
    Opendir,
    Poll,
    Read,
    Readdir,
    Readdirplus,
    Readlink,
    Release,
    Releasedir,
    Removexattr,
    Rename,
    Request,
    Rmdir,
    Setattr,
    Setxattr,
    Statfs,
    Statx,
    Symlink,
    Syncfs,
    Tmpfile,
    Unlink,
    Write,
)
from awayfs.fuse.wire import Opcode


class MalformedRequest(Exception):
    """The bytes are not a request of the kind that their opcode says."""


R = TypeVar("R", bound=Request)
Decoder = Callable[[bytes], Request]
"""From one whole message to its request. Raises MalformedRequest or struct.error."""

_PREFIX = "=8xQQIII4x"
"""The header less length and opcode: unique, nodeid, uid, gid, pid."""
HEADER_SIZE = wire.IN_HEADER.size
NS = 1_000_000_000


def _struct(layout: wire.Layout | None) -> struct.Struct:
    return struct.Struct(_PREFIX + (layout.format if layout else ""))


def _fixed(kind: Callable[..., R], layout: wire.Layout | None = None) -> Callable[[bytes], R]:
    """A decoder of requests that have no part of variable length."""
    unpack = _struct(layout).unpack_from

    def decode(message: bytes) -> R:
        return kind(*unpack(message))

    return decode


def _named(
    kind: Callable[..., R], layout: wire.Layout | None = None, *, slash: bool = False
) -> Callable[[bytes], R]:
    """A decoder of requests that end in one name, which may have a slash only if so said."""
    whole = _struct(layout)
    unpack, start = whole.unpack_from, whole.size

    def decode(message: bytes) -> R:
        name = message[start:-1]
        if not name or message[-1] or b"\0" in name or (b"/" in name and not slash):
            raise MalformedRequest("not one NUL-terminated name")
        return kind(*unpack(message), name)

    return decode


def _two_strings(message: bytes, start: int) -> tuple[bytes, bytes]:
    first, _, rest = message[start:].partition(b"\0")
    if not first or b"/" in first or not rest.endswith(b"\0") or 0 in rest[:-1]:
        raise MalformedRequest("not two NUL-terminated strings")
    return first, rest[:-1]


def _symlink(message: bytes) -> Symlink:
    name, target = _two_strings(message, _PLAIN.size)
    return Symlink(*(*_PLAIN.unpack_from(message), name, target))


def _rename(layout: wire.Layout, flagged: bool) -> Callable[[bytes], Rename]:
    whole = _struct(layout)

    def decode(message: bytes) -> Rename:
        fixed = whole.unpack_from(message)
        name, new_name = _two_strings(message, whole.size)
        if not new_name or b"/" in new_name:
            raise MalformedRequest("the new name is not a name")
        flags = fixed[6] if flagged else 0
        return Rename(*(*fixed[:6], flags, name, new_name))

    return decode


def _batch_forget(message: bytes) -> BatchForget:
    *caller, count = _BATCH_FORGET.unpack_from(message)
    items = message[_BATCH_FORGET.size :]
    if count * wire.FORGET_ONE.size != len(items):
        raise MalformedRequest(f"{count} forgets in {len(items)} bytes")
    pairs = [(nodeid, nlookup) for nodeid, nlookup in wire.FORGET_ONE.struct.iter_unpack(items)]
    return BatchForget(*(*caller, pairs))


def _setattr(message: bytes) -> Setattr:
    *head, atime, mtime, ctime, a_rest, m_rest, c_rest, mode, uid, gid = _SETATTR.unpack_from(
        message
    )
    times = (atime * NS + a_rest, mtime * NS + m_rest, ctime * NS + c_rest)
    return Setattr(*(*head, *times, mode, uid, gid))


def _tmpfile(message: bytes) -> Tmpfile:
    # a name follows; it is "/" and means nothing
    return Tmpfile(*_TMPFILE.unpack_from(message))


def _write(message: bytes) -> Write:
    fixed = _WRITE.unpack_from(message)
    data = memoryview(message)[_WRITE.size :]
    if fixed[7] != len(data):
        raise MalformedRequest(f"a write of {fixed[7]} bytes with {len(data)}")
    return Write(*(*fixed, data))


def _setxattr(message: bytes) -> Setxattr:
    fixed = _SETXATTR.unpack_from(message)
    name, nul, value = message[_SETXATTR.size :].partition(b"\0")
    if not name or not nul or fixed[5] != len(value):
        raise MalformedRequest("not an xattr's name and value")
    return Setxattr(*(*fixed, name, value))


def _ioctl(message: bytes) -> Ioctl:
    fixed = _IOCTL.unpack_from(message)
    data = message[_IOCTL.size :]
    if fixed[9] != len(data):
        raise MalformedRequest(f"an ioctl of {fixed[9]} bytes with {len(data)}")
    return Ioctl(*(*fixed, data))


def _copy_file_range(wide: bool) -> Callable[[bytes], CopyFileRange]:
    unpack = _struct(wire.COPY_FILE_RANGE_IN).unpack_from

    def decode(message: bytes) -> CopyFileRange:
        return CopyFileRange(*(*unpack(message), wide))

    return decode


_PLAIN = _struct(None)
_BATCH_FORGET = _struct(wire.BATCH_FORGET_IN)
_SETATTR = _struct(wire.SETATTR_IN)
_TMPFILE = _struct(wire.CREATE_IN)
_WRITE = _struct(wire.WRITE_IN)
_SETXATTR = _struct(wire.SETXATTR_IN)
_IOCTL = _struct(wire.IOCTL_IN)

DECODERS: dict[int, tuple[type[Request], Decoder]] = {
    Opcode.LOOKUP: (Lookup, _named(Lookup)),
    Opcode.FORGET: (Forget, _fixed(Forget, wire.FORGET_IN)),
    Opcode.BATCH_FORGET: (BatchForget, _batch_forget),
    Opcode.GETATTR: (Getattr, _fixed(Getattr, wire.GETATTR_IN)),
    Opcode.STATX: (Statx, _fixed(Statx, wire.STATX_IN)),
    Opcode.SETATTR: (Setattr, _setattr),
    Opcode.READLINK: (Readlink, _fixed(Readlink)),
    Opcode.SYMLINK: (Symlink, _symlink),
    Opcode.MKNOD: (Mknod, _named(Mknod, wire.MKNOD_IN)),
    Opcode.MKDIR: (Mkdir, _named(Mkdir, wire.MKDIR_IN)),
    Opcode.UNLINK: (Unlink, _named(Unlink)),
    Opcode.RMDIR: (Rmdir, _named(Rmdir)),
    Opcode.RENAME: (Rename, _rename(wire.RENAME_IN, flagged=False)),
    Opcode.RENAME2: (Rename, _rename(wire.RENAME2_IN, flagged=True)),
    Opcode.LINK: (Link, _named(Link, wire.LINK_IN)),
    Opcode.OPEN: (Open, _fixed(Open, wire.OPEN_IN)),
    Opcode.OPENDIR: (Opendir, _fixed(Opendir, wire.OPEN_IN)),
    Opcode.CREATE: (Create, _named(Create, wire.CREATE_IN)),
    Opcode.TMPFILE: (Tmpfile, _tmpfile),
    Opcode.READ: (Read, _fixed(Read, wire.READ_IN)),
    Opcode.READDIR: (Readdir, _fixed(Readdir, wire.READ_IN)),
    Opcode.READDIRPLUS: (Readdirplus, _fixed(Readdirplus, wire.READ_IN)),
    Opcode.WRITE: (Write, _write),
    Opcode.FLUSH: (Flush, _fixed(Flush, wire.FLUSH_IN)),
    Opcode.RELEASE: (Release, _fixed(Release, wire.RELEASE_IN)),
    Opcode.RELEASEDIR: (Releasedir, _fixed(Releasedir, wire.RELEASE_IN)),
    Opcode.FSYNC: (Fsync, _fixed(Fsync, wire.FSYNC_IN)),
    Opcode.FSYNCDIR: (Fsyncdir, _fixed(Fsyncdir, wire.FSYNC_IN)),
    Opcode.STATFS: (Statfs, _fixed(Statfs)),
    Opcode.SETXATTR: (Setxattr, _setxattr),
    Opcode.GETXATTR: (Getxattr, _named(Getxattr, wire.GETXATTR_IN, slash=True)),
    Opcode.LISTXATTR: (Listxattr, _fixed(Listxattr, wire.GETXATTR_IN)),
    Opcode.REMOVEXATTR: (Removexattr, _named(Removexattr, slash=True)),
    Opcode.ACCESS: (Access, _fixed(Access, wire.ACCESS_IN)),
    Opcode.IOCTL: (Ioctl, _ioctl),
    Opcode.POLL: (Poll, _fixed(Poll, wire.POLL_IN)),
    Opcode.FALLOCATE: (Fallocate, _fixed(Fallocate, wire.FALLOCATE_IN)),
    Opcode.LSEEK: (Lseek, _fixed(Lseek, wire.LSEEK_IN)),
    Opcode.COPY_FILE_RANGE: (CopyFileRange, _copy_file_range(wide=False)),
    Opcode.COPY_FILE_RANGE_64: (CopyFileRange, _copy_file_range(wide=True)),
    Opcode.SYNCFS: (Syncfs, _fixed(Syncfs, wire.SYNCFS_IN)),
    Opcode.INTERRUPT: (Interrupt, _fixed(Interrupt, wire.INTERRUPT_IN)),
    Opcode.DESTROY: (Destroy, _fixed(Destroy)),
}
"""Opcode → the type that its requests have, and the decoder that makes them."""


def decode(message: bytes) -> Request:
    """The request in one message from the kernel.

    Raises MalformedRequest if the message is truncated, its length is not what it
    says, its opcode is not known here, or its names are not names.
    """
    if len(message) < HEADER_SIZE:
        raise MalformedRequest("shorter than a header")
    header = wire.IN_HEADER.unpack(message)
    if header["len"] != len(message):
        raise MalformedRequest(f"{len(message)} bytes that say they are {header['len']}")
    known = DECODERS.get(header["opcode"])
    if known is None:
        raise MalformedRequest(f"no operation has the number {header['opcode']}")
    try:
        return known[1](message)
    except struct.error as error:
        raise MalformedRequest(str(error)) from error

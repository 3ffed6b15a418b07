"""From values to the bytes of a reply (what follows the 16-byte reply header).

Seconds of validity may be fractions: for that long the kernel trusts a name or
attributes without asking. Source: ``include/uapi/linux/fuse.h``.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from awayfs.fuse import wire

NS = 1_000_000_000
FOREVER = 4.0e9
"""A validity that never ends (127 years)."""


class Attr(Struct):
    """What stat(2) tells. Times are in nanoseconds since 1970 and may be negative.

    `mode` includes the file's type, `blocks` counts 512 bytes, `rdev` is as
    `os.makedev` makes it.
    """

    ino: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int = 0
    blksize: int = 4096


class Entry(Struct):
    """A name's node: its id, its attributes, and for how many seconds each may be trusted.

    (nodeid, generation) must never name two nodes in one mount.
    """

    nodeid: int
    attr: Attr
    entry_valid: float = 0.0
    attr_valid: float = 0.0
    generation: int = 0


_ATTR_OUT = struct.Struct("=" + wire.ATTR_OUT.format + wire.ATTR.format)
_ENTRY_OUT = struct.Struct("=" + wire.ENTRY_OUT.format + wire.ATTR.format)
_STATX_OUT = struct.Struct("=" + wire.STATX_OUT.format + wire.STATX.format)
_NO_ATTR = bytes(wire.ATTR.size)
_DIRENT = wire.DIRENT.struct
_NO_ENTRY = bytes(_ENTRY_OUT.size)


def _nanoseconds(seconds: float) -> int:
    """The fraction of `seconds`, in nanoseconds."""
    return int(seconds % 1 * NS)


def attr_out(attr: Attr, valid_seconds: float = 0.0) -> bytes:
    """The reply to GETATTR and SETATTR."""
    atime, atime_rest = divmod(attr.atime_ns, NS)
    mtime, mtime_rest = divmod(attr.mtime_ns, NS)
    ctime, ctime_rest = divmod(attr.ctime_ns, NS)
    return _ATTR_OUT.pack(
        int(valid_seconds),
        _nanoseconds(valid_seconds),
        attr.ino,
        attr.size,
        attr.blocks,
        atime,
        mtime,
        ctime,
        atime_rest,
        mtime_rest,
        ctime_rest,
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.rdev,
        attr.blksize,
        0,
    )


def entry_out(entry: Entry) -> bytes:
    """The reply to LOOKUP, MKNOD, MKDIR, SYMLINK and LINK. It counts as one lookup."""
    attr = entry.attr
    atime, atime_rest = divmod(attr.atime_ns, NS)
    mtime, mtime_rest = divmod(attr.mtime_ns, NS)
    ctime, ctime_rest = divmod(attr.ctime_ns, NS)
    return _ENTRY_OUT.pack(
        entry.nodeid,
        entry.generation,
        int(entry.entry_valid),
        int(entry.attr_valid),
        _nanoseconds(entry.entry_valid),
        _nanoseconds(entry.attr_valid),
        attr.ino,
        attr.size,
        attr.blocks,
        atime,
        mtime,
        ctime,
        atime_rest,
        mtime_rest,
        ctime_rest,
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.rdev,
        attr.blksize,
        0,
    )


def negative_entry_out(valid_seconds: float) -> bytes:
    """The reply to LOOKUP that says "no such name", remembered for `valid_seconds`.

    It counts as no lookup. Without remembering, raise ENOENT instead.
    """
    seconds, rest = int(valid_seconds), _nanoseconds(valid_seconds)
    return wire.ENTRY_OUT.struct.pack(0, 0, seconds, 0, rest, 0) + _NO_ATTR


def open_out(fh: int, open_flags: int = 0, backing_id: int = 0) -> bytes:
    """The reply to OPEN and OPENDIR: our handle and FOPEN_* flags."""
    return wire.OPEN_OUT.struct.pack(fh, open_flags, backing_id)


def create_out(entry: Entry, fh: int, open_flags: int = 0, backing_id: int = 0) -> bytes:
    """The reply to CREATE and TMPFILE. It counts as one lookup."""
    return entry_out(entry) + wire.OPEN_OUT.struct.pack(fh, open_flags, backing_id)


def write_out(size: int) -> bytes:
    """The reply to WRITE: how many bytes were taken."""
    return wire.WRITE_OUT.struct.pack(size)


def copy_file_range_out(size: int, wide: bool = False) -> bytes:
    """The reply to COPY_FILE_RANGE, or with `wide` to COPY_FILE_RANGE_64."""
    return (wire.COPY_FILE_RANGE_OUT if wide else wire.WRITE_OUT).struct.pack(size)


def statfs_out(
    *,
    blocks: int,
    bfree: int,
    bavail: int,
    files: int = 0,
    ffree: int = 0,
    bsize: int = 4096,
    namelen: int = 255,
    frsize: int = 4096,
) -> bytes:
    """The reply to STATFS. Blocks count `frsize` bytes."""
    return wire.STATFS_OUT.struct.pack(blocks, bfree, bavail, files, ffree, bsize, namelen, frsize)


def xattr_size_out(size: int) -> bytes:
    """The reply to GETXATTR and LISTXATTR of size 0: how much room is needed."""
    return wire.GETXATTR_OUT.struct.pack(size)


def lseek_out(offset: int) -> bytes:
    """The reply to LSEEK."""
    return wire.LSEEK_OUT.struct.pack(offset)


def poll_out(revents: int) -> bytes:
    """The reply to POLL: POLLIN and so on."""
    return wire.POLL_OUT.struct.pack(revents)


def ioctl_out(result: int = 0, data: bytes = b"") -> bytes:
    """The reply to IOCTL: what ioctl(2) returns, and at most `out_size` bytes for the caller."""
    return wire.IOCTL_OUT.struct.pack(result, 0, 0, 0) + data


def statx_out(
    attr: Attr,
    valid_seconds: float = 0.0,
    *,
    attributes: int = 0,
    attributes_mask: int = 0,
) -> bytes:
    """The reply to STATX. Linux 6.18 hands the birth time on, but no `attributes`."""
    times: list[int] = []
    for time_ns in (attr.atime_ns, attr.btime_ns, attr.ctime_ns, attr.mtime_ns):
        times.extend(divmod(time_ns, NS))
    major = attr.rdev >> 8 & 0xFFF
    minor = attr.rdev & 0xFF | attr.rdev >> 12 & 0xFFF00
    return _STATX_OUT.pack(
        int(valid_seconds),
        _nanoseconds(valid_seconds),
        0,
        wire.STATX_BASIC_STATS | wire.STATX_BTIME,
        attr.blksize,
        attributes,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.mode,
        attr.ino,
        attr.size,
        attr.blocks,
        attributes_mask,
        *times,
        major,
        minor,
        0,
        0,
    )


class DirectoryBuffer:
    """The reply to READDIR, or with `plus` to READDIRPLUS, within the `size` asked for.

    Add names until `add` says no, then send `finish()`. A name's `offset` is the
    cookie from which reading goes on *after* it; it must not be 0.
    """

    __slots__ = ("_left", "_parts", "_plus", "looked_up")

    def __init__(self, size: int, *, plus: bool = False) -> None:
        self._left = size
        self._plus = plus
        self._parts: list[bytes] = []
        self.looked_up: list[int] = []
        """The node ids whose lookup count this reply adds one to."""

    def add(
        self, name: bytes, ino: int, kind: int, offset: int, entry: Entry | None = None
    ) -> bool:
        """Append a name; False, and nothing changed, if there is no room for it.

        `kind` is a DT_* value, that is a mode's type bits shifted right by 12. In a
        READDIRPLUS, a name without `entry` is listed without attributes, which "."
        and ".." must be.
        """
        length = len(name)
        record = 24 + (length + 7 & ~7)
        if self._plus:
            record += _ENTRY_OUT.size
        if record > self._left:
            return False
        self._left -= record
        if self._plus:
            self._parts.append(_NO_ENTRY if entry is None else entry_out(entry))
            if entry is not None:
                self.looked_up.append(entry.nodeid)
        self._parts.append(_DIRENT.pack(ino, offset, length, kind))
        self._parts.append(name.ljust(length + 7 & ~7, b"\0"))
        return True

    def finish(self) -> bytes:
        """The payload. Empty means the end of the directory."""
        return b"".join(self._parts)

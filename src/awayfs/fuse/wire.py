"""The kernel's FUSE protocol as data: numbers, flags and struct layouts.

Source: ``include/uapi/linux/fuse.h`` up to protocol 7.45 (Linux 6.18). Everything
is in the byte order of the host. Nothing here does I/O; `requests` decodes with
these layouts, `replies` encodes with them, and the fake kernel does the reverse.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 45
"""The newest protocol that this code knows."""
OLDEST_MINOR: Final = 31
"""The oldest that it accepts (Linux 5.4)."""

ROOT_ID: Final = 1
NAME_MAX: Final = 1024
"""The longest name that the kernel takes in a directory listing (FUSE_NAME_MAX)."""
MAX_ERRNO: Final = 511
"""The kernel drops a reply with a greater errno, and its caller waits for ever."""
MIN_READ_BUFFER: Final = 8192
IOCTL_MAX_IOV: Final = 256


class Opcode(enum.IntEnum):
    """What a request asks for (``enum fuse_opcode``)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


NO_REPLY: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.NOTIFY_REPLY})
"""Requests that are never answered."""


class Notify(enum.IntEnum):
    """What the daemon tells the kernel unasked (``enum fuse_notify_code``)."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7
    INC_EPOCH = 8
    PRUNE = 9


class Init(enum.IntFlag):
    """Capabilities settled in INIT; bits 32 and up travel in ``flags2``."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    INIT_RESERVED = 1 << 31
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


# setattr_in.valid: which fields of a SETATTR count
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_LOCKOWNER: Final = 1 << 9
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11

# open_out.open_flags: how the kernel treats an open file
FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6
FOPEN_PASSTHROUGH: Final = 1 << 7

OPEN_KILL_SUIDGID: Final = 1 << 0
GETATTR_FH: Final = 1 << 0
RELEASE_FLUSH: Final = 1 << 0
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
WRITE_CACHE: Final = 1 << 0
WRITE_LOCKOWNER: Final = 1 << 1
WRITE_KILL_SUIDGID: Final = 1 << 2
READ_LOCKOWNER: Final = 1 << 1
FSYNC_FDATASYNC: Final = 1 << 0
IOCTL_COMPAT: Final = 1 << 0
IOCTL_UNRESTRICTED: Final = 1 << 1
IOCTL_RETRY: Final = 1 << 2
IOCTL_32BIT: Final = 1 << 3
IOCTL_DIR: Final = 1 << 4
IOCTL_COMPAT_X32: Final = 1 << 5
POLL_SCHEDULE_NOTIFY: Final = 1 << 0
ATTR_SUBMOUNT: Final = 1 << 0
ATTR_DAX: Final = 1 << 1
EXPIRE_ONLY: Final = 1 << 0
INTERRUPT_BIT: Final = 1
"""Set in the unique of an INTERRUPT: the interrupted request's unique plus one."""

RENAME_NOREPLACE: Final = 1 << 0
RENAME_EXCHANGE: Final = 1 << 1
RENAME_WHITEOUT: Final = 1 << 2

STATX_BASIC_STATS: Final = 0x7FF
STATX_BTIME: Final = 0x800

DEV_IOC_CLONE: Final = 0x8004E500
DEV_IOC_BACKING_OPEN: Final = 0x4010E501
DEV_IOC_BACKING_CLOSE: Final = 0x4004E502


class Layout:
    """One C struct: a name, its fields, and the ``struct`` format that carries them.

    A layout is written as ``"field:code ..."``; a code alone (``4x``) is padding.
    ``pack`` takes fields by name, and what is not named is zero. ``unpack`` gives a
    dict. Hot paths use ``format`` and ``struct`` directly.
    """

    __slots__ = ("fields", "format", "name", "size", "struct")

    def __init__(self, name: str, spec: str) -> None:
        names: list[str] = []
        codes: list[str] = []
        for item in spec.split():
            field, colon, code = item.rpartition(":")
            codes.append(code)
            if colon:
                names.append(field)
        self.name = name
        self.fields = tuple(names)
        self.format = "".join(codes)
        self.struct = struct.Struct("=" + self.format)
        self.size = self.struct.size

    def pack(self, **values: int) -> bytes:
        """The struct as bytes. An unknown field name is a ValueError."""
        unknown = values.keys() - set(self.fields)
        if unknown:
            raise ValueError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        return self.struct.pack(*[values.get(field, 0) for field in self.fields])

    def unpack(self, buffer: bytes | bytearray | memoryview, offset: int = 0) -> dict[str, int]:
        """The fields found at `offset`. A buffer that is too short is a struct.error."""
        return dict(zip(self.fields, self.struct.unpack_from(buffer, offset), strict=True))

    def __repr__(self) -> str:
        return f"Layout({self.name!r}, {self.size} bytes)"


IN_HEADER = Layout(
    "fuse_in_header",
    "len:I opcode:I unique:Q nodeid:Q uid:I gid:I pid:I total_extlen:H 2x",
)
OUT_HEADER = Layout("fuse_out_header", "len:I error:i unique:Q")

ATTR = Layout(
    "fuse_attr",
    "ino:Q size:Q blocks:Q atime:q mtime:q ctime:q atimensec:I mtimensec:I ctimensec:I"
    " mode:I nlink:I uid:I gid:I rdev:I blksize:I flags:I",
)
STATX = Layout(
    "fuse_statx",
    "mask:I blksize:I attributes:Q nlink:I uid:I gid:I mode:H 2x ino:Q size:Q blocks:Q"
    " attributes_mask:Q atime:q atimensec:I 4x btime:q btimensec:I 4x ctime:q ctimensec:I 4x"
    " mtime:q mtimensec:I 4x rdev_major:I rdev_minor:I dev_major:I dev_minor:I 112x",
)

# Requests, without the header and without what follows of variable length
INIT_IN = Layout("fuse_init_in", "major:I minor:I max_readahead:I flags:I")
INIT_IN_EXT = Layout(
    "fuse_init_in (since 7.36)", "major:I minor:I max_readahead:I flags:I flags2:I 44x"
)
FORGET_IN = Layout("fuse_forget_in", "nlookup:Q")
FORGET_ONE = Layout("fuse_forget_one", "nodeid:Q nlookup:Q")
BATCH_FORGET_IN = Layout("fuse_batch_forget_in", "count:I 4x")
GETATTR_IN = Layout("fuse_getattr_in", "getattr_flags:I 4x fh:Q")
STATX_IN = Layout("fuse_statx_in", "getattr_flags:I 4x fh:Q sx_flags:I sx_mask:I")
SETATTR_IN = Layout(
    "fuse_setattr_in",
    "valid:I 4x fh:Q size:Q lock_owner:Q atime:q mtime:q ctime:q atimensec:I mtimensec:I"
    " ctimensec:I mode:I 4x uid:I gid:I 4x",
)
MKNOD_IN = Layout("fuse_mknod_in", "mode:I rdev:I umask:I 4x")
MKDIR_IN = Layout("fuse_mkdir_in", "mode:I umask:I")
RENAME_IN = Layout("fuse_rename_in", "newdir:Q")
RENAME2_IN = Layout("fuse_rename2_in", "newdir:Q flags:I 4x")
LINK_IN = Layout("fuse_link_in", "oldnodeid:Q")
OPEN_IN = Layout("fuse_open_in", "flags:I open_flags:I")
CREATE_IN = Layout("fuse_create_in", "flags:I mode:I umask:I open_flags:I")
READ_IN = Layout("fuse_read_in", "fh:Q offset:Q size:I read_flags:I lock_owner:Q flags:I 4x")
WRITE_IN = Layout("fuse_write_in", "fh:Q offset:Q size:I write_flags:I lock_owner:Q flags:I 4x")
FLUSH_IN = Layout("fuse_flush_in", "fh:Q 8x lock_owner:Q")
RELEASE_IN = Layout("fuse_release_in", "fh:Q flags:I release_flags:I lock_owner:Q")
FSYNC_IN = Layout("fuse_fsync_in", "fh:Q fsync_flags:I 4x")
SETXATTR_IN = Layout("fuse_setxattr_in (without SETXATTR_EXT)", "size:I flags:I")
GETXATTR_IN = Layout("fuse_getxattr_in", "size:I 4x")
ACCESS_IN = Layout("fuse_access_in", "mask:I 4x")
INTERRUPT_IN = Layout("fuse_interrupt_in", "unique:Q")
IOCTL_IN = Layout("fuse_ioctl_in", "fh:Q flags:I cmd:I arg:Q in_size:I out_size:I")
POLL_IN = Layout("fuse_poll_in", "fh:Q kh:Q flags:I events:I")
FALLOCATE_IN = Layout("fuse_fallocate_in", "fh:Q offset:Q length:Q mode:I 4x")
LSEEK_IN = Layout("fuse_lseek_in", "fh:Q offset:Q whence:I 4x")
COPY_FILE_RANGE_IN = Layout(
    "fuse_copy_file_range_in",
    "fh_in:Q off_in:Q nodeid_out:Q fh_out:Q off_out:Q len:Q flags:Q",
)
SYNCFS_IN = Layout("fuse_syncfs_in", "8x")

# Replies, without the header
INIT_OUT = Layout(
    "fuse_init_out",
    "major:I minor:I max_readahead:I flags:I max_background:H congestion_threshold:H"
    " max_write:I time_gran:I max_pages:H map_alignment:H flags2:I max_stack_depth:I"
    " request_timeout:H 22x",
)
ATTR_OUT = Layout("fuse_attr_out", "attr_valid:Q attr_valid_nsec:I 4x")
"""Followed by an ATTR."""
ENTRY_OUT = Layout(
    "fuse_entry_out",
    "nodeid:Q generation:Q entry_valid:Q attr_valid:Q entry_valid_nsec:I attr_valid_nsec:I",
)
"""Followed by an ATTR."""
STATX_OUT = Layout("fuse_statx_out", "attr_valid:Q attr_valid_nsec:I flags:I 16x")
"""Followed by a STATX."""
OPEN_OUT = Layout("fuse_open_out", "fh:Q open_flags:I backing_id:i")
WRITE_OUT = Layout("fuse_write_out", "size:I 4x")
COPY_FILE_RANGE_OUT = Layout("fuse_copy_file_range_out", "bytes_copied:Q")
STATFS_OUT = Layout(
    "fuse_statfs_out",
    "blocks:Q bfree:Q bavail:Q files:Q ffree:Q bsize:I namelen:I frsize:I 4x 24x",
)
GETXATTR_OUT = Layout("fuse_getxattr_out", "size:I 4x")
LSEEK_OUT = Layout("fuse_lseek_out", "offset:Q")
POLL_OUT = Layout("fuse_poll_out", "revents:I 4x")
IOCTL_OUT = Layout("fuse_ioctl_out", "result:i flags:I in_iovs:I out_iovs:I")
IOCTL_IOVEC = Layout("fuse_ioctl_iovec", "base:Q len:Q")
DIRENT = Layout("fuse_dirent", "ino:Q off:Q namelen:I type:I")
"""Followed by the name, padded with zeros to a multiple of 8."""

# Notifications, after an OUT_HEADER with unique 0 and the code in `error`
NOTIFY_POLL_OUT = Layout("fuse_notify_poll_wakeup_out", "kh:Q")
NOTIFY_INVAL_INODE_OUT = Layout("fuse_notify_inval_inode_out", "ino:Q off:q len:q")
NOTIFY_INVAL_ENTRY_OUT = Layout("fuse_notify_inval_entry_out", "parent:Q namelen:I flags:I")
NOTIFY_DELETE_OUT = Layout("fuse_notify_delete_out", "parent:Q child:Q namelen:I 4x")
NOTIFY_STORE_OUT = Layout("fuse_notify_store_out", "nodeid:Q offset:Q size:I 4x")
NOTIFY_PRUNE_OUT = Layout("fuse_notify_prune_out", "count:I 4x 8x")

BACKING_MAP = Layout("fuse_backing_map", "fd:i flags:I 8x")


def align8(size: int) -> int:
    """`size` rounded up to the 8-byte boundary of variable-length records."""
    return (size + 7) & ~7

"""System calls that Python does not offer: statx(2), name_to_handle_at(2), renameat2(2), ...

Everything works on descriptors and single names, never on long paths. Errors are ``OSError``
with the errno of the call. All calls release the interpreter lock.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
import threading

from msgspec import Struct

AT_EACCESS = 0x200
SYS_FACCESSAT2 = 439
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_STATX_FORCE_SYNC = 0x2000
STATX_BASIC_AND_BTIME = 0xFFF
STATX_BTIME = 0x800
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
UTIME_OMIT = (1 << 30) - 2
FALLOC_KEEP_AND_PUNCH = 0x01 | 0x02
SYNC_FILE_RANGE_ALL = 1 | 2 | 4
FICLONE = 0x40049409
FS_IOC_GETFLAGS = 0x80086601
FS_CASEFOLD_FL = 0x40000000
MAX_HANDLE_SZ = 128
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
# struct statx (statx(2)): mask blksize attributes nlink uid gid mode ino size blocks
# attributes_mask, then atime btime ctime mtime (s64 seconds, u32 ns, pad), then rdev and dev.
_STATX = struct.Struct("=IIQIIIHxxQQQQ" + "qIxxxx" * 4 + "IIII")
_STATX_SIZE = 256
_HANDLE = struct.Struct("=Ii")
_TIMES = struct.Struct("=qqqq")
_INT64 = ctypes.c_int64
_LENGTH = struct.Struct("=I")
_CACHED = AT_EMPTY_PATH | AT_NO_AUTOMOUNT
_FRESH = _CACHED | AT_STATX_FORCE_SYNC
_NO_HANDLE = frozenset({errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENOSYS, errno.EPERM})
_statx = _libc.statx
_name_to_handle_at = _libc.name_to_handle_at


class _Buffers(threading.local):
    """What a thread has the kernel write to, again and again."""

    def __init__(self) -> None:
        self.statx = ctypes.create_string_buffer(_STATX_SIZE)
        self.handle = ctypes.create_string_buffer(_HANDLE.size + MAX_HANDLE_SZ)
        self.mount = ctypes.create_string_buffer(ctypes.sizeof(ctypes.c_int))


_buffers = _Buffers()


class Statx(Struct):
    """What statx(2) tells; times in ns since the epoch, ``btime_ns`` None where unknown."""

    mode: int
    nlink: int
    uid: int
    gid: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int | None
    rdev: int
    dev: int


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def statx(fd: int, fresh: bool) -> Statx:
    """The object behind ``fd`` (O_PATH will do); ``fresh`` asks the server, not its cache."""
    buffer = _buffers.statx
    if _statx(fd, b"", _FRESH if fresh else _CACHED, STATX_BASIC_AND_BTIME, buffer) < 0:
        _check(-1)
    f = _STATX.unpack_from(buffer)
    return Statx(
        mode=f[6],
        nlink=f[3],
        uid=f[4],
        gid=f[5],
        ino=f[7],
        size=f[8],
        btime_ns=f[13] * 1_000_000_000 + f[14] if f[0] & STATX_BTIME else None,
        ctime_ns=f[15] * 1_000_000_000 + f[16],
        mtime_ns=f[17] * 1_000_000_000 + f[18],
        rdev=os.makedev(f[19], f[20]),
        dev=os.makedev(f[21], f[22]),
    )


def access(fd: int) -> int | None:
    """What the process may do with an object (O_PATH will do), in the bits of access(2).

    A network file system asks its server. A bit is missing only where that is a matter of
    permission. None where it cannot be asked: an old kernel, or a sandbox that forbids the call,
    which then fails for mere existence as well.
    """
    allowed = 0
    for bit in (os.F_OK, os.R_OK, os.W_OK, os.X_OK):
        if _libc.syscall(SYS_FACCESSAT2, fd, b"", bit, AT_EMPTY_PATH | AT_EACCESS) == 0:
            allowed |= bit
        elif bit == os.F_OK:
            return None
        elif ctypes.get_errno() not in (errno.EACCES, errno.EPERM):
            allowed |= bit  # read-only, busy: not for want of permission
    return allowed


def file_handle(fd: int) -> bytes | None:
    """Type and bytes of the persistent handle of ``fd``, None where the fs has none."""
    buffer, mount = _buffers.handle, _buffers.mount
    _HANDLE.pack_into(buffer, 0, MAX_HANDLE_SZ, 0)
    if _name_to_handle_at(fd, b"", buffer, mount, AT_EMPTY_PATH) < 0:
        if ctypes.get_errno() in _NO_HANDLE:
            return None
        _check(-1)
    length = _LENGTH.unpack_from(buffer)[0]
    return buffer.raw[_LENGTH.size : _HANDLE.size + length]


def filesystem(fd: int) -> tuple[int, bytes]:
    """Magic number and file system id (fstatfs(2)); an id of zeros says nothing."""
    buffer = ctypes.create_string_buffer(128)
    _check(_libc.fstatfs(fd, buffer))
    magic = int.from_bytes(buffer.raw[0:8], "little") & 0xFFFFFFFF
    return magic, buffer.raw[56:64]


def renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int = 0) -> None:
    """renameat2(2); EINVAL where the file system does not know the flags."""
    _check(_libc.renameat2(old_dir, old, new_dir, new, flags))


def chown(fd: int, uid: int, gid: int) -> None:
    """Owner of the object behind an O_PATH descriptor, symlinks included; -1 leaves one."""
    _check(_libc.fchownat(fd, b"", uid, gid, AT_EMPTY_PATH))


def set_times(directory: int, name: bytes, atime_ns: int | None, mtime_ns: int | None) -> None:
    """utimensat(2) without following symlinks; None leaves a time as it is."""
    times = _TIMES.pack(*_timespec(atime_ns), *_timespec(mtime_ns))
    _check(_libc.utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW))


def set_times_of(fd: int, atime_ns: int | None, mtime_ns: int | None) -> None:
    """The same for what is behind a descriptor, an O_PATH one included."""
    times = _TIMES.pack(*_timespec(atime_ns), *_timespec(mtime_ns))
    if _libc.utimensat(fd, b"", times, AT_EMPTY_PATH) == 0:
        return
    # AT_EMPTY_PATH came with Linux 5.8.
    _check(_libc.utimensat(-100, b"/proc/self/fd/%d" % fd, times, 0))


def _timespec(ns: int | None) -> tuple[int, int]:
    return (0, UTIME_OMIT) if ns is None else divmod(ns, 10**9)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros without storing it (fallocate(2))."""
    _check(_libc.fallocate64(fd, FALLOC_KEEP_AND_PUNCH, _INT64(offset), _INT64(length)))


def push_out(fd: int, offset: int, length: int) -> None:
    """Write a range to the disk or server now and wait (sync_file_range(2)), data only."""
    _check(_libc.sync_file_range(fd, _INT64(offset), _INT64(length), SYNC_FILE_RANGE_ALL))


def die_with_parent() -> None:
    """Get SIGKILL when the thread that started this process ends (PR_SET_PDEATHSIG(2const))."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def inode_flags(directory: int) -> int:
    """Flags of a directory (ioctl_iflags(2)); 0 where there are none or it cannot be read."""
    try:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return 0
    try:
        flags = fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))
        return int.from_bytes(flags[:4], "little")
    except OSError:
        return 0
    finally:
        os.close(fd)


def held_by_a_writer(fd: int) -> bool:
    """Whether a regular file, open for reading as ``fd``, is open for writing anywhere here.

    A read lease is granted only where nobody has the file open for writing (F_SETLEASE in
    fcntl(2)); it is given back at once. False also where leases are not to be had: on network
    file systems, and for files of others. SIGURG, which is ignored by default, takes the
    place of SIGIO, which would end the process if someone came in that very moment.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False

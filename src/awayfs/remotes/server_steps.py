"""Looks and steps that ``server_operations`` is made of; part of ``server_program``.

Here also stands what both ends have to know of frames and answers.
"""

# Runs on the server: see ``server_program``. No future annotations, no "|": Python 3.6 reads this.

import errno
import functools
import hashlib
import os
import stat
import struct
import threading
from typing import Callable  # noqa: UP035

HEAD = struct.Struct(">IIB")
ENTRY = struct.Struct(">IQIII")  # mode, size, mtime, uid, gid
PUT = struct.Struct(">BHHqqqqBBBB")
REMOVE = struct.Struct(">BHBBB")
RENAME = struct.Struct(">BHHBBB")
MAKE = struct.Struct(">BHHqqqq")
FENCE = struct.Struct(">BQQ")
ROOT = struct.Struct(">I")
SPENT = struct.Struct(">QI")
OWNED = struct.Struct(">III")  # mode, uid, gid

ASKED_PUT, ASKED_REMOVE, ASKED_RENAME, ASKED_DIGEST, ASKED_MAKE, ASKED_FENCE = range(1, 7)
DONE, NO, MISMATCH, FAILED, ABSENT, UNKNOWN, BATCH = range(7)
PUT_BACK, KEEP, SOURCE_BACK = 0x10, 0x20, 0x40
"""Beside a status: what lies at O is to be put back or kept, or put back to a rename's old name."""

NOTHING, GIVEN, TAKEN = range(3)
"""How content is compared: not at all, with a digest that came along, or with one taken now."""

RIGHTS = 0x10
"""Beside that: the mode, uid and gid that it must have came along as well."""

INHERIT = 1
MOST_REQUESTS = 128
MOST_BYTES = 4 << 20
THREADS = 8
LARGEST_READ = 4 << 20
LARGEST_FRAME = 1 << 20
AT_ONCE = 1 << 20
MUCH = 8 << 10
MORE_COMES_MS = 3
SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
"""What SFTP would only find again, and tell less of."""

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

LETTERS = {
    stat.S_IFREG: b"f",
    stat.S_IFDIR: b"d",
    stat.S_IFLNK: b"l",
    stat.S_IFIFO: b"p",
    stat.S_IFSOCK: b"s",
    stat.S_IFCHR: b"c",
    stat.S_IFBLK: b"b",
}


def reach(name: str) -> None:
    """A point between two steps; tests put something else here."""


class Unusual(Exception):
    """Left to SFTP; nothing was touched."""


# -- what Python has no function for ----------------------------------------------------------

RENAME_NOREPLACE = 1
SYNC_WRITE = 2
_libc = None
_get_errno = None
try:
    import ctypes

    _libc = ctypes.CDLL(None, use_errno=True)
    _get_errno = ctypes.get_errno
    _libc.sync_file_range.argtypes = [
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_uint,
    ]
    _libc.renameat2.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
except (ImportError, OSError, AttributeError):
    _libc = None


def begin_writeback(fd: int) -> None:
    """Have the disk begin, before anybody waits for it."""
    if _libc is not None:
        _libc.sync_file_range(fd, 0, 0, SYNC_WRITE)


def rename_exclusive(directory: int, name: bytes, to: bytes) -> "bool | None":
    """One step. False: ``to`` is taken; None: that cannot be done here."""
    if _libc is None:
        return None
    if not _libc.renameat2(directory, name, directory, to, RENAME_NOREPLACE):
        return True
    code = _get_errno()  # type: ignore[misc]
    if code == errno.EEXIST:
        return False
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return None
    raise OSError(code, os.strerror(code))


# -- looking ----------------------------------------------------------------------------------


def look(directory: int, name: bytes) -> "os.stat_result | None":
    """What stands there, a symlink not followed."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def shown_seconds(found: os.stat_result) -> int:
    """The mtime as SFTP v3 has it."""
    return found.st_mtime_ns // 1000000000 & 0xFFFFFFFF


def entry(found: os.stat_result) -> bytes:
    """Attributes, for an answer."""
    mtime = shown_seconds(found)
    return ENTRY.pack(found.st_mode, found.st_size, mtime, found.st_uid, found.st_gid)


def entry_at(directory: int, name: bytes) -> bytes:
    """What stands there, for an answer; nothing for nothing."""
    found = look(directory, name)
    if found is None:
        return b""
    if stat.S_ISLNK(found.st_mode):
        return entry(found) + os.readlink(name, dir_fd=directory)
    return entry(found)


class Wanted:
    """The revision that may be destroyed: kind, token, the digest of its content, and rights."""

    __slots__ = ("digest", "kind", "rights", "takes_digest", "token")

    def __init__(self, kind: int, token: bytes, how: int, rest: bytes) -> None:
        self.kind = kind << 12
        self.token = token
        self.takes_digest = how & ~RIGHTS == TAKEN
        self.digest, at = (rest[:32], 32) if how & ~RIGHTS == GIVEN else (b"", 0)
        self.rights = OWNED.unpack_from(rest, at) if how & RIGHTS else None

    @staticmethod
    def rest(how: int) -> int:
        """How many bytes of a request tell more of it."""
        return (32 if how & ~RIGHTS == GIVEN else 0) + (OWNED.size if how & RIGHTS else 0)

    def matches(self, directory: int, name: bytes, found: os.stat_result) -> bool:
        """Whether this may be it; ``sftp_entries.matches``."""
        kind = stat.S_IFMT(found.st_mode)
        if self.kind and kind != self.kind:
            return False
        if self.rights is not None:
            there = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
            if there != self.rights:
                return False
        if not self.token:
            return True
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=directory)
            hashed = hashlib.blake2b(target, digest_size=16).hexdigest()
            return self.token == b"l:" + hashed.encode()
        told = LETTERS.get(kind, b"?"), found.st_size, shown_seconds(found)
        return self.token == b"%s:%d:%d" % told

    def is_known(self, directory: int, name: bytes) -> bool:
        """Take the digest where none came along; False where that is not of this revision."""
        if self.takes_digest and not self.digest:
            self.digest = self.content(directory, name)
            return bool(self.digest)
        return True

    def is_it(self, directory: int, name: bytes) -> bool:
        """Whether it stands at a name of ours; also False where that cannot be told."""
        try:
            found = look(directory, name)
            if found is None or not self.matches(directory, name, found):
                return False
            return not self.digest or self.content(directory, name) == self.digest
        except OSError:
            return False

    def content(self, directory: int, name: bytes) -> bytes:
        """The digest of what stands there, nothing where that is another revision."""
        try:
            fd = os.open(name, READ, dir_fd=directory)
        except OSError:
            return b""
        try:
            found, digest = hashed(fd)
            return digest if self.matches(directory, name, found) else b""
        except (OSError, Unusual):
            return b""
        finally:
            os.close(fd)


def hashed(fd: int) -> "tuple[os.stat_result, bytes]":
    """An open file after it was read, and its digest."""
    if os.fstat(fd).st_size > LARGEST_READ:
        raise Unusual
    digest = hashlib.blake2b(digest_size=32)
    length = 0
    while True:
        data = os.read(fd, AT_ONCE)
        if not data:
            break
        length += len(data)
        if length > LARGEST_READ:
            raise Unusual
        digest.update(data)
    found = os.fstat(fd)
    if found.st_size != length or not stat.S_ISREG(found.st_mode):
        raise Unusual
    return found, digest.digest()


def in_parallel(work: "list[Callable[[], None]]") -> None:
    """Wait for the disk with several threads: what they ask of it at once, it does at once."""
    count = min(THREADS, len(work))

    def some(first: int) -> None:
        for one in work[first::count]:
            one()

    threads = [threading.Thread(target=some, args=(first,)) for first in range(1, count)]
    for thread in threads:
        thread.start()
    if work:
        some(0)
    for thread in threads:
        thread.join()


class Fence:
    """A file in the root. The other side sees by it, over SFTP, that this is the same directory; a
    later session removes it before it settles anything, and has this program's way closed by that.
    """

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._path = b""
        self._made = (0, 0, 0, 0)

    def made(self, name: bytes, found: os.stat_result) -> None:
        """It stands."""
        self._path = os.path.join(self._root, name)
        self._made = _identity(found)

    def stands(self) -> bool:
        """Whether it still does, and is not a later session's."""
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return _identity(found) == self._made

    def remove(self) -> None:
        """Away with it, if it is there."""
        if self.stands():
            try:
                os.unlink(self._path)
            except OSError:
                pass


def _identity(found: os.stat_result) -> "tuple[int, int, int, int]":
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Directories:
    """The directories of one batch, and which of them changed."""

    def __init__(self, root: int) -> None:
        self._known = {b"": root}
        self.changed = {}  # type: dict[int, None]

    def of(self, path: bytes) -> int:
        """An open directory, reached without a symlink."""
        found = self._known.get(path)
        if found is not None:
            return found
        above, at = self._known[b""], b""
        for name in path.split(b"/"):
            at = at + b"/" + name if at else name
            found = self._known.get(at)
            if found is None:
                found = self._known[at] = os.open(name, DIRECTORY, dir_fd=above)
            above = found
        return above

    def sync(self) -> None:
        """Make durable what changed; where that cannot be asked for, it is as it is over SFTP."""

        def sync(fd: int) -> None:
            try:
                os.fsync(fd)
            except OSError:
                pass

        in_parallel([functools.partial(sync, fd) for fd in self.changed])

    def close(self) -> None:
        """Keep none."""
        for fd in self._known.values():
            os.close(fd)


# -- steps of operations: ``sftp_moves`` --------------------------------------------------------


def place(directory: int, own: bytes, path: bytes) -> bool:
    """What is at our name takes another one, if that is free: then ours is gone."""
    moved = rename_exclusive(directory, own, path)
    if moved is not None:
        return moved
    if not link(directory, own, directory, path):
        return False
    reach("linked")
    os.unlink(own, dir_fd=directory)
    return True


def link(directory: int, name: bytes, to_directory: int, to: bytes) -> bool:
    """A second name for the object itself; False if that is taken."""
    try:
        os.link(
            *(name, to),
            src_dir_fd=directory,
            dst_dir_fd=to_directory,
            follow_symlinks=False,
        )
    except FileExistsError:
        return False
    return True


def take(directory: int, path: bytes, aside: bytes) -> bool:
    """Move what stands there aside, where nothing is; False if nothing stood there."""
    try:
        moved = rename_exclusive(directory, path, aside)
        if moved is None:
            os.rename(path, aside, src_dir_fd=directory, dst_dir_fd=directory)
    except FileNotFoundError:
        return False
    if moved is False:
        raise Unusual
    return True


def drop(directory: int, name: bytes) -> None:
    """Unlink a name of ours; fine if it is gone."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def back(directory: int, aside: bytes, path: bytes) -> bool:
    """Give a revision its name back; False where that is for the other side to do."""
    try:
        return place(directory, aside, path)
    except OSError:
        return False


def allowed(step: "Callable[..., None]", *given: int) -> None:
    """Take a step that nothing depends on, if that may be."""
    try:
        step(*given)
    except OSError:
        pass


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are of one object."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def is_simple(found: os.stat_result) -> bool:
    """A file or a symlink."""
    return stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)


def names_of(op: bytes) -> "tuple[bytes, bytes]":
    """N and O."""
    return b".awayfs-" + op + b".new", b".awayfs-" + op + b".old"


def cut(body: bytes, at: int, *lengths: int) -> "list[bytes]":
    """The strings of a request, and what follows them."""
    found = []
    for length in lengths:
        found.append(body[at : at + length])
        at += length
    found.append(body[at:])
    return found

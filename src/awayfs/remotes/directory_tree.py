"""Paths of a ``dir:`` volume, resolved so that no name can lead out of it.

Each component is opened by itself with ``O_PATH | O_NOFOLLOW | O_DIRECTORY`` relative to the
one before, so a symlink that the server swaps in is an error, ``..`` is refused, and a path
may be longer than PATH_MAX (path_resolution(7)). The object itself is pinned with an O_PATH
descriptor before it is looked at: identity, kind and times are then those of one object.

The root is opened by its path for every operation and compared with what ``connect`` saw.
That costs a few microseconds and means that an export that was unmounted (another directory
is there, or none) never looks like an empty volume, and that the volume can be unmounted
while nothing is under way.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from awayfs.core.errors import (
    AuthenticationRequired,
    NotFound,
    Refused,
    RemoteError,
    Unreachable,
    WrongServer,
)
from awayfs.core.types import Entry, Kind, RemotePath
from awayfs.remotes import linux
from awayfs.remotes.directory_facts import FileSystem, Version, discover

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

NO_ANSWER = frozenset(
    {
        errno.ESTALE,
        errno.EIO,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENONET,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.ESHUTDOWN,
        errno.EREMOTEIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOMEDIUM,
        errno.ENOLINK,
        errno.ECOMM,
        errno.EPIPE,
        errno.EAGAIN,
    }
)
"""Errnos with which a kernel's client says that its server, or a disk, does not answer."""

KEYS = frozenset({errno.EKEYEXPIRED, errno.EKEYREJECTED, errno.EKEYREVOKED, errno.ENOKEY})
"""What kernel AFS, NFS and CIFS say when a ticket is missing or has run out."""

ABSENT_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def translate(error: OSError) -> RemoteError:
    """The remote error that an errno from the volume stands for."""
    code = error.errno or errno.EIO
    if code in NO_ANSWER:
        return Unreachable(os.strerror(code))
    if code in KEYS:
        return AuthenticationRequired(os.strerror(code))
    if code == errno.ENOENT:
        return NotFound(os.strerror(code))
    return Refused(code, os.strerror(code))


class Tree:
    """The directory at ``root`` (absolute) and the objects below it."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.root_id: bytes | None = None
        self.root_ino: int | None = None
        self._file_systems: dict[int, FileSystem] = {}
        self._root_dev = -1

    def adopt_root(self) -> tuple[Entry, FileSystem]:
        """Take what is at the root's path now for the volume; its entry and file system.

        A root of another identity than before is ``WrongServer``.
        """
        with self._bare_root() as fd:
            st = linux.statx(fd, fresh=True)
            facts = discover(fd, st, of_root=True)
            identity = facts.file_id(fd, st)
            if self.root_ino is not None:
                self._compare(identity, st.ino)
            self._root_dev = st.dev
            self._file_systems.clear()
            self._file_systems[st.dev] = facts
            self.root_id, self.root_ino = identity, st.ino
            return self.entry(fd, b"", st), facts

    @contextmanager
    def open_root(self) -> Iterator[int]:
        """An O_PATH descriptor of the root, known to be the one ``connect`` saw."""
        with self._bare_root() as fd:
            st = linux.statx(fd, fresh=False)
            # The number of a device is the kernel's, and may change with a remount.
            facts = self._file_systems.get(st.dev) or discover(fd, st, of_root=True)
            self._compare(facts.file_id(fd, st), st.ino)
            self._root_dev = st.dev
            self._file_systems.setdefault(st.dev, facts)
            yield fd

    @contextmanager
    def directory(self, path: RemotePath) -> Iterator[int]:
        """An O_PATH descriptor of the directory at ``path``; ``NotFound`` if it is not one."""
        with self.open_root() as root:
            fd = self._walk(root, path.split(b"/") if path else [])
            try:
                yield fd
            finally:
                os.close(fd)

    @contextmanager
    def parent(self, path: RemotePath) -> Iterator[tuple[int, bytes]]:
        """An O_PATH descriptor of the directory that ``path`` is in, and its last name."""
        if not path:
            raise Refused(errno.EBUSY, "the root of the volume cannot be changed")
        above, slash, name = path.rpartition(b"/")
        _check_name(name)
        if slash and not above:
            raise Refused(errno.EINVAL, "a path is relative to the root of the volume")
        with self.directory(above) as fd:
            yield fd, name

    @contextmanager
    def pinned(self, path: RemotePath) -> Iterator[tuple[int, bytes]]:
        """An O_PATH descriptor of the object itself, and its name; ``NotFound``."""
        if not path:
            with self.open_root() as root:
                yield root, b""
            return
        with self.parent(path) as (directory, name):
            fd = self.pin(directory, name)
            try:
                yield fd, name
            finally:
                os.close(fd)

    @staticmethod
    def pin(directory: int, name: bytes) -> int:
        """An O_PATH descriptor of one name, symlinks not followed."""
        return os.open(name, _PIN, dir_fd=directory)

    def entry_at(self, directory: int, name: bytes, fresh: bool = True) -> Entry | None:
        """What stands at one name, None when the file system says that nothing does."""
        try:
            fd = self.pin(directory, name)
        except FileNotFoundError:
            return None
        try:
            return self.entry(fd, name, linux.statx(fd, fresh))
        finally:
            os.close(fd)

    def entry(self, fd: int, name: bytes, st: linux.Statx) -> Entry:
        """The entry of an object that is open, as ``st`` shows it."""
        facts = self.facts(fd, st)
        kind = Kind(stat.S_IFMT(st.mode))
        return Entry(
            name=name,
            kind=kind,
            mode=stat.S_IMODE(st.mode),
            uid=st.uid,
            gid=st.gid,
            size=st.size,
            mtime_ns=st.mtime_ns,
            token=Version.of(st).token(),
            weak=facts.settled_in_ns(st) > 0,
            file_id=facts.file_id(fd, st),
            nlink=st.nlink,
            rdev=st.rdev,
            target=os.readlink(b"", dir_fd=fd) if kind is Kind.SYMLINK else None,
            ctime_ns=st.ctime_ns,
            btime_ns=st.btime_ns,
        )

    def facts(self, fd: int, st: linux.Statx) -> FileSystem:
        """The file system that an open object is on."""
        known = self._file_systems.get(st.dev)
        if known is None:
            known = discover(fd, st, of_root=st.dev == self._root_dev)
            self._file_systems[st.dev] = known
        return known

    @contextmanager
    def _bare_root(self) -> Iterator[int]:
        try:
            # The user chose this path: symlinks in it are followed.
            fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Unreachable(
                f"{os.fsdecode(self.root)} is not there: not mounted, or moved"
            ) from error
        except NotADirectoryError as error:
            raise Refused(errno.ENOTDIR, f"{os.fsdecode(self.root)} is not a directory") from error
        except PermissionError as error:
            why = f"{os.fsdecode(self.root)} cannot be entered: permission denied"
            raise Refused(errno.EACCES, why) from error
        try:
            yield fd
        except FileNotFoundError:
            # In a directory that was removed itself, every name is absent: no proof.
            if linux.statx(fd, fresh=True).nlink == 0:
                raise Unreachable(f"{os.fsdecode(self.root)} was removed") from None
            raise
        finally:
            os.close(fd)

    def _compare(self, identity: bytes | None, ino: int) -> None:
        if self.root_ino is None:
            raise Unreachable("not connected")
        same = ino == self.root_ino if self.root_id is None else identity == self.root_id
        if not same:
            raise WrongServer(
                f"{os.fsdecode(self.root)} is another directory than before: "
                "unmounted, or another volume is mounted there"
            )

    @staticmethod
    def _walk(root: int, names: list[bytes]) -> int:
        """An O_PATH descriptor, the caller's to close, of the directory below ``root``."""
        fd = os.dup(root)
        try:
            for name in names:
                _check_name(name)
                below = os.open(name, _STEP, dir_fd=fd)
                os.close(fd)
                fd = below
        except OSError as error:
            os.close(fd)
            if error.errno in ABSENT_ERRNOS:
                raise FileNotFoundError(errno.ENOENT, "no such directory") from error
            raise
        except RemoteError:
            os.close(fd)
            raise
        return fd


def _check_name(name: bytes) -> None:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Refused(errno.EINVAL, "not a name that can be in a directory")

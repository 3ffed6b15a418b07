"""The files of a volume beside its database: where they are, and how they go.

A file is deleted after the commit that makes it unneeded, never before. What a crash leaves
over is in ``staging/``, which is emptied at open, or is found by fsck.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Final

from awayfs.core.types import NodeId, Range
from awayfs.store.db import Database

FOLDERS: Final = ("content", "base", "variants", "history", "staging")
_FANNED: Final = ("content", "base")
_FICLONE: Final = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_LARGE: Final = 32 * 1024 * 1024
"""Deleting more than this takes long enough to be left to the next sync's thread."""
_CHUNK: Final = 8 * 1024 * 1024
_PUNCH_HOLE: Final = 0x01 | 0x02  # linux/falloc.h: KEEP_SIZE, which it must go with
_RANGE_WRITE: Final = 2  # linux/fs.h: SYNC_FILE_RANGE_WRITE
_libc = ctypes.CDLL(None, use_errno=True)


class Files:
    """Paths, and the queue of deletions."""

    def __init__(self, directory: str, db: Database) -> None:
        self.directory = directory
        self._db = db
        self._doomed: list[str] = []
        self._doomed_for_good: list[str] = []
        self._serial = count(1)
        self.to_unlink: list[str] = []
        self.unlink_all: Callable[[list[str]], object] = unlink_all
        """Deletes what nothing else will take the place of while the store is open; whoever may
        not wait has it done in a thread, and waits for that before the store is closed."""

    def path(self, folder: str, node: NodeId, version: int) -> str:
        """``content`` or ``base`` file of a node; version 0 has no suffix."""
        name = f"{node}.{version}" if version else str(node)
        return f"{self.directory}/{folder}/{node & 0xFF:02x}/{name}"

    def variant(self, conflict: int, which: str) -> str:
        return f"{self.directory}/variants/{conflict}.{which}"

    def history(self, number: int) -> str:
        return f"{self.directory}/history/{number}"

    def stage_path(self) -> str:
        """A free name in ``staging/``."""
        return f"{self.directory}/staging/{os.getpid()}-{next(self._serial)}"

    def delete_after_commit(self, path: str) -> None:
        """Queue a deletion; dropped when the transaction rolls back."""
        if not self._doomed:
            self._db.on_commit(self._delete_doomed)
            self._db.on_rollback(self._doomed.clear)
        self._doomed.append(path)

    def delete_for_good_after_commit(self, path: str) -> None:
        """The same for a path that is not used again as long as this store is open."""
        if not self._doomed_for_good:
            self._db.on_commit(self._hand_over)
            self._db.on_rollback(self._doomed_for_good.clear)
        self._doomed_for_good.append(path)

    def _hand_over(self) -> None:
        paths, self._doomed_for_good = self._doomed_for_good, []
        self.unlink_all(paths)

    def _delete_doomed(self) -> None:
        for path in self._doomed:
            self._delete(path)
        self._doomed.clear()

    def _delete(self, path: str) -> None:
        """Never raises: the commit stands, and fsck finds what is left over."""
        try:
            if os.stat(path).st_blocks * 512 > _LARGE:
                aside = self.stage_path()
                os.rename(path, aside)
                self.to_unlink.append(aside)
            else:
                os.unlink(path)
        except OSError:
            pass


def keep_lost(directory: str, path: str, name: str) -> str:
    """Move a file into ``lost+found/`` under a free name; the path it has there."""
    folder = f"{directory}/lost+found"
    os.makedirs(folder, 0o700, exist_ok=True)
    for serial in count():
        target = f"{folder}/{name}.{serial}" if serial else f"{folder}/{name}"
        if not os.path.lexists(target):
            os.rename(path, target)
            return target
    raise AssertionError("count() does not end")


def unlink_quietly(path: str) -> None:
    """Delete a file that nothing needs; one that stays is found by fsck."""
    try:
        os.unlink(path)
    except OSError:
        pass


def unlink_all(paths: Iterable[str]) -> None:
    """``unlink_quietly`` for many; blocking, any thread."""
    for path in paths:
        unlink_quietly(path)


def rename_back(path: str, staged_path: str) -> None:
    """After a rollback: where it came from. Should it be gone the caller stages anew."""
    try:
        os.rename(path, staged_path)
    except OSError:
        pass


def mtime_of(path: str) -> int:
    """The file's mtime in ns; -1 without a file."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def cache_files(directory: str, folder: str) -> Iterator[tuple[NodeId, int, str]]:
    """(node, version, path) of all files in ``content`` or ``base``; other names are skipped."""
    for fan in sorted(os.listdir(f"{directory}/{folder}")):
        for name in sorted(os.listdir(f"{directory}/{folder}/{fan}")):
            node, _, version = name.partition(".")
            if node.isdecimal() and (version or "0").isdecimal():
                yield int(node), int(version or 0), f"{directory}/{folder}/{fan}/{name}"


def make_folders(directory: str) -> None:
    """Create what is missing of the layout, 0700, and make it durable."""
    for folder in FOLDERS:
        os.makedirs(f"{directory}/{folder}", 0o700, exist_ok=True)
    for folder in _FANNED:
        with os.scandir(f"{directory}/{folder}") as entries:
            there = {entry.name for entry in entries if entry.is_dir()}
        for fan in range(256):
            if (name := f"{fan:02x}") not in there:
                os.mkdir(f"{directory}/{folder}/{name}", 0o700)
        fsync_path(f"{directory}/{folder}")
    fsync_path(directory)


def empty_staging(directory: str) -> None:
    """Remove what an earlier process left unfinished."""
    with os.scandir(f"{directory}/staging") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def begin_writeback(path: str) -> None:
    """Have the kernel write a file's pages soon; nothing is durable by that.

    Of many files the fsyncs then find most of the work done, and one commit of the file system
    covers several.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _RANGE_WRITE)
    finally:
        os.close(fd)


def fsync_path(path: str) -> None:
    """Make a file or directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def clone_or_copy(source: str, target: str, ranges: Iterable[Range], limit: int) -> int | None:
    """Make ``target`` a copy of ``source``: a reflink, else the given ranges.

    Returns the bytes copied (0 for a reflink), or None when it would be more than ``limit``;
    then, and on an error, there is no ``target``. Not durable.
    """
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        write = os.open(target, flags, 0o600)
        try:
            copied = _clone_or_copy(read, write, list(ranges), limit)
        except BaseException:
            os.unlink(target)
            raise
        finally:
            os.close(write)
    finally:
        os.close(read)
    if copied is None:
        os.unlink(target)
    return copied


def _clone_or_copy(read: int, write: int, ranges: list[Range], limit: int) -> int | None:
    try:
        fcntl.ioctl(write, _FICLONE, read)
        return 0
    except OSError:
        pass  # not a file system that shares blocks
    total = sum(r.end - r.start for r in ranges)
    if total > limit:
        return None
    os.ftruncate(write, os.fstat(read).st_size)
    for r in ranges:
        _copy(read, write, r)
    return total


def zero_range(fd: int, start: int, end: int) -> None:
    """Have ``start`` to ``end`` read as zeros, a hole where there can be one; may extend."""
    if start >= end:
        return
    size = os.fstat(fd).st_size
    if end > size:
        os.ftruncate(fd, end)
    count = ctypes.c_int64(end - start)
    if _libc.fallocate64(fd, _PUNCH_HOLE, ctypes.c_int64(start), count) == 0:
        return
    if ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    while start < end:
        start += os.pwrite(fd, bytes(min(_CHUNK, end - start)), start)


def _copy(read: int, write: int, part: Range) -> None:
    at = part.start
    while at < part.end:
        data = os.pread(read, min(_CHUNK, part.end - at), at)
        if not data:
            raise OSError(errno.EIO, "a cache file is shorter than its range map says")
        view = memoryview(data)
        while view:
            written = os.pwrite(write, view, at)
            view = view[written:]
            at += written

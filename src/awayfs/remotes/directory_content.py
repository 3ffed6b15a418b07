"""Moving file content between a ``dir:`` volume and cache files, in chunks.

A failure of the cache file is not the server's: it is raised as ``LocalFailure``, an
``OSError``, and passes by the translation of errnos into remote errors.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable

from awayfs.core.errors import Implausible
from awayfs.remotes import linux, pacing, progress
from awayfs.remotes.continuing import TAIL

CHUNK = 4 << 20
SMALL = 1 << 20
FSYNC_ALLOWANCE_S = 15.0

_NO_RANGE_COPY = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO, errno.EPERM, errno.EBADF}
)
_LOCAL_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LocalFailure(OSError):
    """The cache file, not the server, failed."""


Copied = Callable[[int, int], None]
"""Told the offset and length of each chunk that was copied."""


def fetch_range(source: int, fd: int, offset: int, length: int) -> int:
    """Copy up to ``length`` bytes from the volume to the cache file; how many there were.

    Holes are punched into the cache file, which may hold something else there.
    """
    end = min(offset + length, os.fstat(source).st_size)
    if end <= offset:
        return 0
    position = offset
    try:
        if os.fstat(fd).st_size < end:
            os.ftruncate(fd, end)
    except OSError as error:
        raise LocalFailure(error.errno, error.strerror) from error
    while position < end:
        data, stop = _next_data(source, position, end)
        _blank(fd, position, data)
        position = _copy(source, fd, data, stop, to_cache=True)
        if position < stop:
            break  # the file was cut short while it was read
    return position - offset


def fetch_small(source: int, fd: int, offset: int, length: int) -> int:
    """Copy the first ``length`` bytes of a small file to ``offset`` of the landing file."""
    pacing.down_in_thread(length)
    data = os.pread(source, length, 0)
    try:
        _write_all(fd, memoryview(data), offset)
    except OSError as error:
        raise LocalFailure(error.errno, error.strerror) from error
    return len(data)


def stage_content(fd: int, target: int, start: int, size: int) -> None:
    """Copy the cache file from ``start`` to ``size`` to a file of the volume that ends there.

    All of it is on its way to the server at the end, so that writing it does not undo an
    mtime that is set then (NFS and CIFS clients write late).
    """
    if os.fstat(fd).st_size < size:
        raise Implausible("the cache file is shorter than what is to be sent")
    position = start
    while position < size:
        data, stop = _next_data(fd, position, size)
        position = _copy(fd, target, data, stop, to_cache=False)
        if position < stop:
            raise Implausible("the cache file was cut short while it was sent")
    os.ftruncate(target, size)
    progress.tick(FSYNC_ALLOWANCE_S)
    _push_out(target, 0, 0)


def make_durable(target: int, size: int) -> None:
    """fsync(2) a staged file and see that the server has all of it."""
    sync(target)
    if os.fstat(target).st_size != size:
        raise Implausible("the server kept another number of bytes than were sent")


def sync(target: int) -> None:
    """fsync(2), which may take long after much was written."""
    progress.tick(FSYNC_ALLOWANCE_S)
    os.fsync(target)
    progress.tick()


def tail_of(target: int, end: int) -> bytes:
    """What an upload that is to go on at ``end`` is known again by."""
    count = min(TAIL, end)
    return os.pread(target, count, end - count)


def digest_content(source: int) -> bytes:
    """BLAKE2b-256 of everything from offset 0 to the end."""
    digest, position = hashlib.blake2b(digest_size=32), 0
    flow = pacing.pacer.get().down
    while block := _paced(source, flow.chunk(SMALL), position):
        digest.update(block)
        position += len(block)
        progress.tick()
    return digest.digest()


def _paced(source: int, length: int, position: int) -> bytes:
    pacing.down_in_thread(length)
    return os.pread(source, length, position)


def _next_data(source: int, position: int, end: int) -> tuple[int, int]:
    """The next range up to ``end`` that is not known to be a hole (lseek(2), SEEK_DATA)."""
    try:
        data = os.lseek(source, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end, end
        return position, end
    if data >= end:
        return end, end
    try:
        return data, min(end, os.lseek(source, data, os.SEEK_HOLE))
    except OSError:
        return data, end


def _blank(fd: int, start: int, end: int) -> None:
    """Make a range of the cache file read as zeros."""
    if start >= end:
        return
    try:
        linux.punch_hole(fd, start, end - start)
        return
    except OSError:
        pass
    zeros = bytes(SMALL)
    try:
        for position in range(start, end, SMALL):
            _write_all(fd, memoryview(zeros)[: min(SMALL, end - position)], position)
            progress.tick()
    except OSError as error:
        raise LocalFailure(error.errno, error.strerror) from error


def _copy(source: int, target: int, start: int, end: int, to_cache: bool) -> int:
    """Copy a range to the same offset; the position reached, less than ``end`` at the end."""
    position, in_kernel = start, True
    flow = pacing.pacer.get().down if to_cache else pacing.pacer.get().up
    while position < end:
        length = flow.chunk(min(CHUNK if in_kernel else SMALL, end - position))
        (pacing.down_in_thread if to_cache else pacing.up_in_thread)(length)
        try:
            if in_kernel:
                moved = os.copy_file_range(source, target, length, position, position)
            else:
                moved = _through_memory(source, target, length, position, to_cache)
        except LocalFailure:
            raise
        except OSError as error:
            if in_kernel and error.errno in _NO_RANGE_COPY:
                in_kernel = False
                continue
            if to_cache and error.errno in _LOCAL_FULL:
                raise LocalFailure(error.errno, error.strerror) from error
            raise
        if moved == 0 and in_kernel:
            in_kernel = False  # some file systems copy nothing rather than say that they cannot
            continue
        if moved == 0:
            break
        if not to_cache and position >= CHUNK:
            _push_out(target, position - CHUNK, CHUNK)
        position += moved
        progress.tick()
    return position


def _push_out(target: int, offset: int, length: int) -> None:
    """Have data written out now, so that the final fsync is short; length 0 is to the end."""
    try:
        linux.push_out(target, offset, length)
    except OSError as error:
        if error.errno not in (errno.ESPIPE, errno.EINVAL, errno.ENOSYS):
            raise


def _through_memory(source: int, target: int, length: int, position: int, to_cache: bool) -> int:
    try:
        block = os.pread(source, length, position)
    except OSError as error:
        if to_cache:
            raise
        raise LocalFailure(error.errno, error.strerror) from error
    try:
        _write_all(target, memoryview(block), position)
    except OSError as error:
        if not to_cache:
            raise
        raise LocalFailure(error.errno, error.strerror) from error
    return len(block)


def _write_all(fd: int, block: memoryview, position: int) -> None:
    while block:
        written = os.pwrite(fd, block, position)
        block, position = block[written:], position + written

"""The packets of SFTP v3 and of OpenSSH's extensions, packed and unpacked; no I/O.

A ``Request`` is a packet's kind and what follows its number. What comes from a server is checked
where it is unpacked: lengths, counts, that nothing is missing. Sources:
draft-ietf-secsh-filexfer-02, sections 3 to 7; PROTOCOL of OpenSSH, section 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import Struct

from awayfs.core.errors import Implausible

INIT = struct.pack(">IBI", 5, 1, 3)
VERSION = 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH = range(13, 17)
RENAME, READLINK, SYMLINK = range(18, 21)
EXTENDED = 200
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED_REPLY = 201

FX_OK, FX_EOF = 0, 1
FOR_READING, FOR_WRITING, CREATED, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
"""``pflags`` of OPEN."""

LARGEST = 4 << 20
"""Bytes of a reply that is believed; ours are never asked to be larger."""

LONGEST_HANDLE = 256

POSIX_RENAME = b"posix-rename@openssh.com"
HARD_LINK = b"hardlink@openssh.com"
FSYNC = b"fsync@openssh.com"
LSETSTAT = b"lsetstat@openssh.com"
STATVFS = b"statvfs@openssh.com"
LIMITS = b"limits@openssh.com"
KNOWN = {POSIX_RENAME: b"1", HARD_LINK: b"1", FSYNC: b"1", LSETSTAT: b"1", STATVFS: b"2"} | {
    LIMITS: b"1"
}
"""The extensions that are used, with the version that is meant."""

_HEAD = struct.Struct(">IBI")
_U32 = struct.Struct(">I")
_U32_PAIR = struct.Struct(">II")
_U64 = struct.Struct(">Q")
_READ_TAIL = struct.Struct(">QI")
_SIZE, _OWNER, _MODE, _TIMES, _MORE = 1, 2, 4, 8, 0x8000_0000
_USUAL = _SIZE | _OWNER | _MODE | _TIMES
_USUAL_ATTRS = struct.Struct(">IQIIIII")
_STATVFS = struct.Struct(">11Q")
_NO_ATTRIBUTES = bytes(4)

Request = tuple[int, bytes]


@dataclass(slots=True)
class Attributes:
    """The ATTRS structure, as it is sent and as ``sftp_entries.Attrs`` reads it; None: not there.

    Owner and group are sent together, and so are the times: both or none.
    """

    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None
    atime: int | None = None
    mtime: int | None = None


@dataclass(slots=True)
class Name:
    """One name of a NAME reply."""

    filename: bytes
    attrs: Attributes


class FileSystem(Struct, frozen=True):
    """What statvfs@openssh.com tells, by the names of statvfs(3)."""

    bsize: int
    frsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    favail: int
    fsid: int
    flags: int
    namemax: int


class Limits(Struct, frozen=True):
    """What limits@openssh.com tells; 0: nothing."""

    read: int
    write: int
    handles: int


def pack(number: int, request: Request) -> bytes:
    """The packet of a request."""
    kind, body = request
    return _HEAD.pack(5 + len(body), kind, number) + body


def _string(value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


def by_path(kind: int, path: bytes) -> Request:
    """A request that has a path and nothing else: LSTAT, OPENDIR, REMOVE, RMDIR, READLINK …"""
    return kind, _U32.pack(len(path)) + path


def by_handle(kind: int, handle: bytes) -> Request:
    """A request that has a handle and nothing else: CLOSE, FSTAT, READDIR."""
    return kind, _U32.pack(len(handle)) + handle


def open_file(path: bytes, flags: int, attrs: Attributes | None = None) -> Request:
    """OPEN; follows symlinks."""
    shown = _NO_ATTRIBUTES if attrs is None else _packed(attrs)
    return OPEN, _string(path) + _U32.pack(flags) + shown


def read(handle: bytes, offset: int, count: int) -> Request:
    """READ."""
    return READ, _string(handle) + _READ_TAIL.pack(offset, count)


def write(handle: bytes, offset: int, data: bytes) -> Request:
    """WRITE."""
    return WRITE, b"".join((_string(handle), _U64.pack(offset), _U32.pack(len(data)), data))


def with_attributes(kind: int, target: bytes, attrs: Attributes) -> Request:
    """SETSTAT and MKDIR (``target`` is a path), FSETSTAT (a handle)."""
    return kind, _string(target) + _packed(attrs)


def two_paths(kind: int, one: bytes, other: bytes) -> Request:
    """RENAME and SYMLINK."""
    return kind, _string(one) + _string(other)


def extended(name: bytes, *strings: bytes, attrs: Attributes | None = None) -> Request:
    """A request of an extension."""
    parts = [_string(name), *map(_string, strings)]
    if attrs is not None:
        parts.append(_packed(attrs))
    return EXTENDED, b"".join(parts)


def _packed(attrs: Attributes) -> bytes:
    flags, parts = 0, []
    if attrs.size is not None:
        flags |= _SIZE
        parts.append(_U64.pack(attrs.size))
    if attrs.uid is not None and attrs.gid is not None:
        flags |= _OWNER
        parts.append(_U32_PAIR.pack(attrs.uid, attrs.gid))
    if attrs.permissions is not None:
        flags |= _MODE
        parts.append(_U32.pack(attrs.permissions))
    if attrs.atime is not None and attrs.mtime is not None:
        flags |= _TIMES
        parts.append(_U32_PAIR.pack(attrs.atime, attrs.mtime))
    return _U32.pack(flags) + b"".join(parts)


def extensions(body: bytes) -> frozenset[bytes]:
    """Those of ``KNOWN`` that a VERSION packet announces. Raises ``Implausible``."""
    found, at = set(), 0
    while at < len(body):
        name, at = _string_at(body, at)
        version, at = _string_at(body, at)
        if KNOWN.get(name) == version:
            found.add(name)
    return frozenset(found)


def limits(body: bytes) -> Limits:
    """The answer to limits@openssh.com. Raises ``Implausible``."""
    if len(body) < 32:
        raise Implausible("the server sent limits that are cut short")
    _, most_read, most_written, handles = struct.unpack_from(">4Q", body)
    return Limits(most_read, most_written, handles)


def file_system(body: bytes) -> FileSystem:
    """The answer to statvfs@openssh.com. Raises ``Implausible``."""
    if len(body) < _STATVFS.size:
        raise Implausible("what the server tells of its file system is cut short")
    return FileSystem(*_STATVFS.unpack_from(body))


def status(body: bytes) -> tuple[int, str]:
    """The code of a STATUS reply, and its text. Raises ``Implausible``."""
    if len(body) < 4:
        raise Implausible("the server sent a status without a code")
    (code,) = _U32.unpack_from(body)
    if code == FX_OK or len(body) == 4:  # some old servers send no text
        return code, ""
    return code, _string_at(body, 4)[0].decode(errors="backslashreplace")


def attributes(body: bytes) -> Attributes:
    """The ATTRS structure that is all of ``body``. Raises ``Implausible``."""
    if len(body) == _USUAL_ATTRS.size:
        flags, size, uid, gid, permissions, atime, mtime = _USUAL_ATTRS.unpack(body)
        if flags == _USUAL:
            return Attributes(size, uid, gid, permissions, atime, mtime)
    attrs, at = _attributes_at(body, 0)
    if at != len(body):
        raise Implausible("the server sent attributes with something behind them")
    return attrs


def _attributes_at(body: bytes, at: int) -> tuple[Attributes, int]:
    size = uid = gid = permissions = atime = mtime = None
    try:
        (flags,) = _U32.unpack_from(body, at)
        at += 4
        if flags & _SIZE:
            (size,) = _U64.unpack_from(body, at)
            at += 8
        if flags & _OWNER:
            uid, gid = _U32_PAIR.unpack_from(body, at)
            at += 8
        if flags & _MODE:
            (permissions,) = _U32.unpack_from(body, at)
            at += 4
        if flags & _TIMES:
            atime, mtime = _U32_PAIR.unpack_from(body, at)
            at += 8
        pairs = 0
        if flags & _MORE:
            (pairs,) = _U32.unpack_from(body, at)
            at += 4
    except struct.error as error:
        raise Implausible("the server sent attributes that are cut short") from error
    for _ in range(2 * pairs):  # of each at least its length has to be there
        _, at = _string_at(body, at)
    return Attributes(size, uid, gid, permissions, atime, mtime), at


def _string_at(body: bytes, at: int) -> tuple[bytes, int]:
    start = at + 4
    if start > len(body):
        raise Implausible("the server sent a packet that is cut short")
    end = start + _U32.unpack_from(body, at)[0]
    if end > len(body):
        raise Implausible("the server sent a packet that is cut short")
    return body[start:end], end


def string(body: bytes) -> bytes:
    """The string that is all of ``body``: a handle, or data. Raises ``Implausible``."""
    if len(body) < 4 or _U32.unpack_from(body)[0] != len(body) - 4:
        raise Implausible("the server sent a string of another length than it says")
    return body[4:]


def handle(body: bytes) -> bytes:
    """The handle of an open file. Raises ``Implausible``."""
    found = string(body)
    if len(found) > LONGEST_HANDLE:  # draft-ietf-secsh-filexfer-02, section 6.2
        raise Implausible(f"the server sent a handle of {len(found)} bytes")
    return found


def names(body: bytes) -> list[Name]:
    """The names of a NAME reply. Raises ``Implausible``."""
    found = _usual_names(body)
    if found is not None:
        return found
    found, at = [], 4
    for _ in range(_U32.unpack_from(body)[0] if len(body) >= 4 else 0):
        filename, at = _string_at(body, at)
        _, at = _string_at(body, at)  # the long name, for people
        attrs, at = _attributes_at(body, at)
        found.append(Name(filename, attrs))
    if at != len(body):
        raise Implausible("the server sent names in another number than it says")
    return found


def _usual_names(body: bytes) -> list[Name] | None:
    """Names that have the attributes that all servers send, unpacked in one go: a listing is
    little else. None where there are others, or something is wrong."""
    found: list[Name] = []
    try:
        (count,), at = _U32.unpack_from(body), 4
        for _ in range(count):
            (length,) = _U32.unpack_from(body, at)
            start, at = at + 4, at + 4 + length
            filename = body[start:at]
            (length,) = _U32.unpack_from(body, at)
            at += 4 + length
            flags, size, uid, gid, mode, atime, mtime = _USUAL_ATTRS.unpack_from(body, at)
            if flags != _USUAL:
                return None
            at += _USUAL_ATTRS.size
            found.append(Name(filename, Attributes(size, uid, gid, mode, atime, mtime)))
    except struct.error:
        return None
    return found if at == len(body) else None


class Replies:
    """Cuts what a server sends into packets."""

    def __init__(self) -> None:
        self._unread = bytearray()  # of a packet that has not come as a whole
        self._needed = 0  # bytes from its start on before there is anything to do

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(kind, request number, body) of each reply that is complete by now.

        Raises ``Implausible`` for what is no packet of ours.
        """
        if self._unread:
            self._unread += data
            if len(self._unread) < self._needed:
                return
            data = bytes(self._unread)
            self._unread.clear()
        at, end = 0, len(data)
        while at < end:
            self._needed = _HEAD.size
            if end - at >= _HEAD.size:
                length, kind, number = _HEAD.unpack_from(data, at)
                if not 5 <= length <= LARGEST:
                    raise Implausible(f"the server sent a packet of {length} bytes")
                self._needed = 4 + length
            if end - at < self._needed:
                self._unread += data[at:]
                return
            at += self._needed
            yield kind, number, data[at - length + 5 : at]

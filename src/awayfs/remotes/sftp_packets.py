"""The few packets of SFTP v3 with which small files are read, packed and unpacked.

asyncssh's own client makes a future, a packet and a write(2) of each request. That is as good as
anything for a file at a time; of thousands it is most of the time. Source:
draft-ietf-secsh-filexfer-02, sections 3 to 7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from awayfs.core.errors import Implausible

OPEN, CLOSE, READ, LSTAT, FSTAT, EXTENDED = 3, 4, 5, 7, 8, 200
STATUS, HANDLE, DATA, ATTRS, VERSION, EXTENDED_REPLY = 101, 102, 103, 105, 2, 201
INIT = struct.pack(">IBI", 5, 1, 3)
FOR_READING = 1
LARGEST = 1 << 20
"""Bytes of a reply that is believed; ours are never asked to be larger."""

LONGEST_HANDLE = 256

_HEAD = struct.Struct(">IBI")
_U32 = struct.Struct(">I")
_READ_TAIL = struct.Struct(">QI")
_SIZE, _OWNER, _MODE, _TIMES = 1, 2, 4, 8
_WITHOUT_ATTRIBUTES = struct.pack(">II", FOR_READING, 0)


def _string(value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


def _packet(kind: int, number: int, body: bytes) -> bytes:
    return _HEAD.pack(5 + len(body), kind, number) + body


def lstat(number: int, path: bytes) -> bytes:
    """LSTAT: attributes of what stands at a path, symlinks not followed."""
    return _packet(LSTAT, number, _string(path))


def open_for_reading(number: int, path: bytes) -> bytes:
    """OPEN; follows symlinks."""
    return _packet(OPEN, number, _string(path) + _WITHOUT_ATTRIBUTES)


def read(number: int, handle: bytes, offset: int, count: int) -> bytes:
    """READ."""
    return _packet(READ, number, _string(handle) + _READ_TAIL.pack(offset, count))


def fstat(number: int, handle: bytes) -> bytes:
    """FSTAT."""
    return _packet(FSTAT, number, _string(handle))


def close(number: int, handle: bytes) -> bytes:
    """CLOSE."""
    return _packet(CLOSE, number, _string(handle))


def limits(number: int) -> bytes:
    """limits@openssh.com (OpenSSH, PROTOCOL, section 4.8)."""
    return _packet(EXTENDED, number, _string(b"limits@openssh.com"))


def most_handles(body: bytes) -> int | None:
    """How many files may be open at once by the answer to ``limits``; None: it does not say."""
    if len(body) < 32:
        return None
    (handles,) = struct.unpack_from(">Q", body, 24)
    return handles or None


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes that a server sends, as ``sftp_entries.Attrs`` reads them."""

    size: int | None
    uid: int | None
    gid: int | None
    permissions: int | None
    mtime: int | None


def attributes(body: bytes) -> Attributes:
    """The ATTRS structure at the start of ``body``; raises ``Implausible``."""
    try:
        (flags,) = _U32.unpack_from(body)
        at = 4
        size = uid = gid = permissions = mtime = None
        if flags & _SIZE:
            (size,) = struct.unpack_from(">Q", body, at)
            at += 8
        if flags & _OWNER:
            uid, gid = struct.unpack_from(">II", body, at)
            at += 8
        if flags & _MODE:
            (permissions,) = _U32.unpack_from(body, at)
            at += 4
        if flags & _TIMES:
            _, mtime = struct.unpack_from(">II", body, at)
    except struct.error as error:
        raise Implausible("the server sent attributes that are cut short") from error
    return Attributes(size, uid, gid, permissions, mtime)


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


class Replies:
    """Cuts what a server sends into packets."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(kind, request number, body) of each reply that is complete by now.

        Raises ``Implausible`` for what is no packet of ours.
        """
        self._unread += data
        at = 0
        try:
            while len(self._unread) - at >= _HEAD.size:
                length, kind, number = _HEAD.unpack_from(self._unread, at)
                if not 5 <= length <= LARGEST:
                    raise Implausible(f"the server sent a packet of {length} bytes")
                if len(self._unread) - at < 4 + length:
                    return
                body = bytes(self._unread[at + _HEAD.size : at + 4 + length])
                at += 4 + length
                yield kind, number, body
        finally:
            del self._unread[:at]

"""An SFTP server on a real directory, without SSH: its ways and faults are a test's to choose."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_transfer import Transfer
from awayfs.remotes.sftp_view import View
from awayfs.remotes.sftp_wire import Wire

HEAD = struct.Struct(">IBI")
CODES = {errno.ENOENT: 2, errno.EBADF: 2, errno.EACCES: 3, errno.EPERM: 3, errno.EINVAL: 5}

Reply = tuple[int, bytes]


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def status(code: int, text: bytes = b"no") -> Reply:
    return packets.STATUS, struct.pack(">I", code) + string(text) + string(b"en")


def attributes(found: os.stat_result) -> bytes:
    attrs = packets.Attributes(
        *(found.st_size, found.st_uid, found.st_gid, found.st_mode),
        *(int(found.st_atime), int(found.st_mtime)),
    )
    return packets.with_attributes(packets.ATTRS, b"", attrs)[1][4:]


class Strings:
    """What a request consists of."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._body)
        self._body = self._body[struct.calcsize(form) :]
        return int(value)

    def one(self) -> bytes:
        length = self.number(">I")
        found, self._body = self._body[:length], self._body[length:]
        return found

    def attributes(self) -> packets.Attributes:
        return packets.attributes(self._body)


class SmallServer:
    """In asyncssh's place. ``name`` is its version, ``swaps`` how it takes SYMLINK's paths.

    ``late`` are kinds of requests that it does a moment after the others, ``refuses`` are codes by
    kind, or by an extension's name, that it answers instead of doing anything.
    """

    def __init__(self, wire: Wire, name: str = "SSH-2.0-OpenSSH_9", swaps: bool = True) -> None:
        self.wire = wire
        self.swaps = swaps
        self.late: set[int] = set()
        self.refuses: dict[int | bytes, int] = {}
        self.asked: list[int | bytes] = []
        self.pieces = 0
        self.shortest = 1 << 20
        self.handles: dict[bytes, int] = {}
        self._name = name
        self._made = 0
        wire.connection_made(self)
        known = b"".join(string(name) + string(v) for name, v in packets.KNOWN.items())
        self._send(packets.VERSION, 3, known)

    def get_extra_info(self, _name: str, _default: str) -> str:
        return self._name

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        if data == packets.INIT:
            return  # it has answered already
        self.pieces += 1
        for kind, number, body in packets.Replies().feed(data):
            loop = asyncio.get_running_loop()
            if kind in self.late:
                loop.call_later(0.005, self._serve, kind, number, body)
            else:
                loop.call_soon(self._serve, kind, number, body)

    def abort(self) -> None:
        pass

    close = abort

    def _send(self, kind: int, number: int, body: bytes) -> None:
        self.wire.data_received(HEAD.pack(5 + len(body), kind, number) + body, None)

    def _serve(self, kind: int, number: int, body: bytes) -> None:
        request = Strings(body)
        what: int | bytes = request.one() if kind == packets.EXTENDED else kind
        self.asked.append(what)
        if what in self.refuses:
            if what == packets.CLOSE:
                os.close(self.handles.pop(request.one()))
            self._answer(number, status(self.refuses[what]))
            return
        try:
            reply = self._done(what, request)
        except OSError as error:
            reply = status(CODES.get(error.errno or 0, 4))
        self._answer(number, reply)

    def _answer(self, number: int, reply: Reply) -> None:
        self._send(reply[0], number, reply[1])

    def _done(self, what: int | bytes, request: Strings) -> Reply:
        first = request.one()
        match what:
            case packets.OPEN:
                return self._opened(first, request.number(">I"))
            case packets.CLOSE:
                os.close(self.handles.pop(first))
            case packets.READ:
                offset, count = request.number(">Q"), request.number(">I")
                data = os.pread(self.handles[first], min(count, self.shortest), offset)
                return (packets.DATA, string(data)) if data else status(1)
            case packets.WRITE:
                os.pwrite(self.handles[first], request_data(request), 0)
            case packets.LSTAT:
                return packets.ATTRS, attributes(os.lstat(first))
            case packets.FSTAT:
                return packets.ATTRS, attributes(os.fstat(self.handles[first]))
            case packets.FSETSTAT:
                self._set(self.handles[first], request.attributes())
            case packets.REMOVE:
                os.unlink(first)
            case packets.READLINK:
                return packets.NAME, struct.pack(">I", 1) + string(os.readlink(first)) + bytes(8)
            case packets.SYMLINK:
                target, name = (first, request.one())[:: 1 if self.swaps else -1]
                os.symlink(target, name)
            case packets.FSYNC:
                os.fsync(self.handles[first])
            case _:
                return status(8)
        return status(0)

    def _opened(self, path: bytes, flags: int) -> Reply:
        creates = os.O_CREAT | os.O_EXCL if flags & packets.CREATED else 0
        writes = os.O_RDWR if flags & packets.FOR_WRITING else os.O_RDONLY
        self._made += 1
        handle = b"%d" % self._made
        self.handles[handle] = os.open(path, writes | creates, 0o600)
        return packets.HANDLE, string(handle)

    @staticmethod
    def _set(fd: int, wanted: packets.Attributes) -> None:
        if wanted.permissions is not None:
            os.fchmod(fd, stat.S_IMODE(wanted.permissions))
        if wanted.atime is not None and wanted.mtime is not None:
            os.utime(fd, (wanted.atime, wanted.mtime))


def request_data(request: Strings) -> bytes:
    """What a WRITE at the beginning of a file writes."""
    assert request.number(">Q") == 0
    return request.one()


class Parts:
    """What works on such a server, over one channel."""

    def __init__(self, root: Path, name: str, swaps: bool, handles: int = 4) -> None:
        self.wire = Wire()
        self.server = SmallServer(self.wire, name, swaps)
        self.channel = Channel(self.wire, os.fsencode(root), handles)
        self.clock = ServerClock()
        self.view = View(self.channel, self.clock, Paths(self.channel), lambda _allow: None)
        self.transfer = Transfer(self.channel, self.view, self.clock, lambda _allow: None)


def served(
    root: Path,
    test: Callable[[Parts], Coroutine[Any, Any, None]],
    name: str = "SSH-2.0-OpenSSH_9",
    swaps: bool = True,
) -> None:
    """Play a test, and see that the server has nothing open in the end."""

    async def whole() -> None:
        parts = Parts(root, name, swaps)
        await test(parts)
        await asyncio.sleep(0.02)
        assert not parts.server.handles
        assert parts.channel._open_handles._value == parts.channel.handles

    asyncio.run(whole())

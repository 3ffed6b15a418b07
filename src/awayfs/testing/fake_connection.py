"""The transport of the fake kernel: requests out, replies and notifications in, each checked."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from types import TracebackType
from typing import Self

from awayfs.fuse import wire
from awayfs.fuse.replies import Attr
from awayfs.fuse.wire import Init, Notify, Opcode
from awayfs.testing.fake_replies import (
    NOTIFICATIONS,
    EntryReply,
    Notification,
    ProtocolViolation,
    attr_of,
    entry_of,
    require,
)

EVERYTHING = Init((1 << 43) - 1) & ~Init.INIT_RESERVED


class FakeConnection:
    """One connection. `uid`, `gid`, `pid` and `umask` are the caller's; change them freely."""

    def __init__(
        self, *, minor: int = wire.MINOR, offered: Init = EVERYTHING, max_io: int = 1 << 16
    ) -> None:
        self.minor, self.offered, self.max_io = minor, offered, max_io
        self.uid, self.gid, self.pid, self.umask = 1000, 1000, 4242, 0o022
        self.lookups: Counter[int] = Counter()
        self.notifications: list[Notification] = []
        self.violations: list[ProtocolViolation] = []
        self.settled: dict[str, int] = {}
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self._theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            end.setblocking(False)
        self._unique = 0
        self._waiting: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._reader: asyncio.Task[None] | None = None

    @property
    def fd(self) -> int:
        """The daemon's end."""
        return self._theirs.fileno()

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read_replies())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unmount()
        await asyncio.sleep(0)
        if self._reader is not None:
            self._reader.cancel()
        if self.violations and error is None:
            raise self.violations[0]

    def unmount(self) -> None:
        """Hang up, as when the file system is unmounted."""
        self._ours.close()

    def close_daemon_end(self) -> None:
        """Close the daemon's end, when its session is over."""
        self._theirs.close()

    # messages

    def next_unique(self) -> int:
        """A number for a request; even, as the kernel's are."""
        self._unique += 2
        return self._unique

    def message(self, opcode: int, nodeid: int, body: bytes, unique: int) -> bytes:
        """A request as the daemon reads it."""
        header = wire.IN_HEADER.pack(
            len=wire.IN_HEADER.size + len(body),
            opcode=opcode,
            unique=unique,
            nodeid=nodeid,
            uid=self.uid,
            gid=self.gid,
            pid=self.pid,
        )
        return header + body

    async def send_raw(self, message: bytes) -> None:
        """Send any bytes, without waiting for a reply."""
        await asyncio.get_running_loop().sock_sendall(self._ours, message)

    def expect(self, unique: int) -> asyncio.Future[tuple[int, bytes]]:
        """A future for the reply to `unique`: its errno (0 if none) and its payload."""
        return self._waiting.setdefault(unique, asyncio.get_running_loop().create_future())

    async def start(self, opcode: int, nodeid: int, body: bytes = b"") -> int:
        """Send a request; its unique, for `finish` or `interrupt`."""
        unique = self.next_unique()
        self.expect(unique)
        await self.send_raw(self.message(opcode, nodeid, body, unique))
        return unique

    async def finish(self, unique: int) -> bytes:
        """The payload of the reply to `unique`, or its OSError."""
        code, payload = await self._waiting[unique]
        del self._waiting[unique]
        if code:
            raise OSError(code, os.strerror(code))
        return payload

    async def call(
        self, opcode: int, nodeid: int, body: bytes = b"", *, size: int | None = None
    ) -> bytes:
        """One request and the payload of its reply, of exactly `size` bytes if given."""
        payload = await self.finish(await self.start(opcode, nodeid, body))
        if size is not None:
            name = Opcode(opcode).name
            require(len(payload) == size, f"{name}: {len(payload)} bytes, not {size}")
        return payload

    async def _read_replies(self) -> None:
        loop = asyncio.get_running_loop()
        while message := await loop.sock_recv(self._ours, 1 << 21):
            try:
                self._take(message)
            except ProtocolViolation as violation:
                self._complain(violation)

    def _complain(self, violation: ProtocolViolation) -> None:
        self.violations.append(violation)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(violation)
                waiting.exception()  # perhaps nobody looks at it

    def _take(self, message: bytes) -> None:
        require(len(message) >= wire.OUT_HEADER.size, "a reply shorter than its header")
        head, payload = wire.OUT_HEADER.unpack(message), message[wire.OUT_HEADER.size :]
        require(head["len"] == len(message), f"a reply of {len(message)} bytes says {head['len']}")
        if head["unique"] == 0:
            self._take_notification(head["error"], payload)
            return
        code = -head["error"]
        require(0 <= code <= wire.MAX_ERRNO, f"errno {code}")
        require(not (code and payload), "an error with a payload")
        waiting = self._waiting.get(head["unique"])
        require(waiting is not None, f"a reply to {head['unique']}, which nobody awaits")
        assert waiting is not None
        require(not waiting.done(), f"two replies to {head['unique']}")
        waiting.set_result((code, payload))

    def _take_notification(self, code: int, payload: bytes) -> None:
        require(code in Notify._value2member_map_, f"notification {code}")
        layout = NOTIFICATIONS[Notify(code)]
        require(len(payload) >= layout.size, f"{Notify(code).name} is too short")
        fields, rest = layout.unpack(payload), payload[layout.size :]
        if "namelen" in fields:
            require(rest[-1:] == b"\0" and len(rest) == fields["namelen"] + 1, "bad name")
            rest = rest[:-1]
        self.notifications.append(Notification(Notify(code), fields, rest))

    def _count(self, entry: EntryReply) -> EntryReply:
        if entry.nodeid:
            self.lookups[entry.nodeid] += 1
        return entry

    async def _entry(self, opcode: int, nodeid: int, body: bytes) -> EntryReply:
        size = wire.ENTRY_OUT.size + wire.ATTR.size
        return self._count(entry_of(await self.call(opcode, nodeid, body, size=size)))

    async def _attr(self, opcode: int, nodeid: int, body: bytes) -> Attr:
        size = wire.ATTR_OUT.size + wire.ATTR.size
        return attr_of(await self.call(opcode, nodeid, body, size=size), wire.ATTR_OUT.size)

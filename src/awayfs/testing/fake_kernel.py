"""The other end of ``/dev/fuse`` for tests, without a kernel and without root.

    async with FakeKernel() as kernel:
        session = Session(kernel.fd, handlers)
        session.attach()
        await kernel.init()
        entry = await kernel.lookup(1, b"name")

Each method sends one request and gives the decoded reply, or raises the OSError that
the daemon answered. A reply that a kernel would refuse is a ProtocolViolation: a wrong
length, an unknown or repeated unique, an errno beyond 511, a listing that is misaligned
or too long. `lookups` counts what the daemon has handed out, as the kernel would.

Messages travel over a SOCK_SEQPACKET socket, whose buffers limit them: reads and writes
longer than `max_io` are split, as the kernel splits them at max_write.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from awayfs.fuse import wire
from awayfs.fuse.replies import Attr
from awayfs.fuse.wire import Init, Layout, Notify, Opcode

ROOT = wire.ROOT_ID
EVERYTHING = Init((1 << 43) - 1) & ~Init.INIT_RESERVED


class ProtocolViolation(Exception):
    """A reply that a real kernel would have refused."""


@dataclass(slots=True)
class EntryReply:
    """What LOOKUP and its like gave; `nodeid` 0 is a remembered absence."""

    nodeid: int
    generation: int
    entry_valid: float
    attr_valid: float
    attr: Attr


@dataclass(slots=True)
class OpenReply:
    """A handle, FOPEN_* flags, and a backing id if it is a passthrough."""

    fh: int
    flags: int
    backing_id: int


@dataclass(slots=True)
class DirectoryEntry:
    """A name in a listing; `entry` only in a READDIRPLUS, and not for "." and ".."."""

    name: bytes
    ino: int
    kind: int
    offset: int
    entry: EntryReply | None = None


@dataclass(slots=True)
class Notification:
    """What the daemon told unasked: the fields of its struct, and the name or data after it."""

    code: Notify
    fields: dict[str, int]
    rest: bytes


_NOTIFICATIONS = {
    Notify.POLL: wire.NOTIFY_POLL_OUT,
    Notify.INVAL_INODE: wire.NOTIFY_INVAL_INODE_OUT,
    Notify.INVAL_ENTRY: wire.NOTIFY_INVAL_ENTRY_OUT,
    Notify.DELETE: wire.NOTIFY_DELETE_OUT,
    Notify.STORE: wire.NOTIFY_STORE_OUT,
    Notify.INC_EPOCH: Layout("nothing", ""),
    Notify.PRUNE: wire.NOTIFY_PRUNE_OUT,
}


def attr_of(payload: bytes, offset: int = 0) -> Attr:
    """The fuse_attr at `offset`. There is no birth time in it: 0."""
    f = wire.ATTR.unpack(payload, offset)
    return Attr(
        ino=f["ino"],
        size=f["size"],
        blocks=f["blocks"],
        atime_ns=_time(f, "atime"),
        mtime_ns=_time(f, "mtime"),
        ctime_ns=_time(f, "ctime"),
        btime_ns=0,
        mode=f["mode"],
        nlink=f["nlink"],
        uid=f["uid"],
        gid=f["gid"],
        rdev=f["rdev"],
        blksize=f["blksize"],
    )


def statx_of(payload: bytes, offset: int = 0) -> Attr:
    """The fuse_statx at `offset`."""
    f = wire.STATX.unpack(payload, offset)
    return Attr(
        ino=f["ino"],
        size=f["size"],
        blocks=f["blocks"],
        atime_ns=_time(f, "atime"),
        mtime_ns=_time(f, "mtime"),
        ctime_ns=_time(f, "ctime"),
        btime_ns=_time(f, "btime"),
        mode=f["mode"],
        nlink=f["nlink"],
        uid=f["uid"],
        gid=f["gid"],
        rdev=os.makedev(f["rdev_major"], f["rdev_minor"]),
        blksize=f["blksize"],
    )


def entry_of(payload: bytes, offset: int = 0) -> EntryReply:
    """The fuse_entry_out at `offset`."""
    f = wire.ENTRY_OUT.unpack(payload, offset)
    return EntryReply(
        f["nodeid"],
        f["generation"],
        _valid(f, "entry_valid"),
        _valid(f, "attr_valid"),
        attr_of(payload, offset + wire.ENTRY_OUT.size),
    )


def _time(fields: dict[str, int], name: str) -> int:
    rest = fields[f"{name}nsec"]
    _require(rest < 1_000_000_000, f"{name} has {rest} nanoseconds")
    return fields[name] * 1_000_000_000 + rest


def _valid(fields: dict[str, int], name: str) -> float:
    rest = fields[f"{name}_nsec"]
    _require(rest < 1_000_000_000, f"{name} has {rest} nanoseconds")
    return fields[name] + rest / 1e9


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ProtocolViolation(otherwise)


def directory_of(payload: bytes, size: int, plus: bool) -> list[DirectoryEntry]:
    """The names in a reply to READDIR or READDIRPLUS of `size`, checked strictly."""
    _require(len(payload) <= size, f"{len(payload)} bytes of listing for {size}")
    found, at = [], 0
    while at < len(payload):
        entry = None
        if plus:
            entry = entry_of(payload, at)
            at += wire.ENTRY_OUT.size + wire.ATTR.size
        head = wire.DIRENT.unpack(payload, at)
        start = at + wire.DIRENT.size
        end = start + head["namelen"]
        name, at = payload[start:end], at + wire.align8(wire.DIRENT.size + head["namelen"])
        _require(at <= len(payload), "a listing ends amid a name")
        _require(0 < len(name) <= wire.NAME_MAX and b"/" not in name, f"bad name {name!r}")
        _require(not any(payload[end:at]), f"padding after {name!r} is not zero")
        _require(head["off"] != 0, f"{name!r} has the cookie 0")
        if entry is not None and not entry.nodeid:
            entry = None
        _require(entry is None or name not in (b".", b".."), f"{name!r} has an entry")
        found.append(DirectoryEntry(name, head["ino"], head["type"], head["off"], entry))
    return found


class FakeKernel:
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
            _require(len(payload) == size, f"{name}: {len(payload)} bytes, not {size}")
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
        _require(len(message) >= wire.OUT_HEADER.size, "a reply shorter than its header")
        head, payload = wire.OUT_HEADER.unpack(message), message[wire.OUT_HEADER.size :]
        _require(head["len"] == len(message), f"a reply of {len(message)} bytes says {head['len']}")
        if head["unique"] == 0:
            self._take_notification(head["error"], payload)
            return
        code = -head["error"]
        _require(0 <= code <= wire.MAX_ERRNO, f"errno {code}")
        _require(not (code and payload), "an error with a payload")
        waiting = self._waiting.get(head["unique"])
        _require(waiting is not None, f"a reply to {head['unique']}, which nobody awaits")
        assert waiting is not None
        _require(not waiting.done(), f"two replies to {head['unique']}")
        waiting.set_result((code, payload))

    def _take_notification(self, code: int, payload: bytes) -> None:
        _require(code in Notify._value2member_map_, f"notification {code}")
        layout = _NOTIFICATIONS[Notify(code)]
        _require(len(payload) >= layout.size, f"{Notify(code).name} is too short")
        fields, rest = layout.unpack(payload), payload[layout.size :]
        if "namelen" in fields:
            _require(rest[-1:] == b"\0" and len(rest) == fields["namelen"] + 1, "bad name")
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

    # life

    async def init(self) -> dict[str, int]:
        """INIT: the fields of the reply, with `flags` of all 64 bits."""
        body = wire.INIT_IN_EXT.pack(
            major=wire.MAJOR,
            minor=self.minor,
            max_readahead=1 << 17,
            flags=self.offered & 0xFFFFFFFF,
            flags2=self.offered >> 32,
        )
        if self.minor < 36:
            body = body[: wire.INIT_IN.size]
        payload = await self.call(Opcode.INIT, 0, body, size=wire.INIT_OUT.size)
        self.settled = wire.INIT_OUT.unpack(payload)
        self.settled["flags"] |= self.settled.pop("flags2") << 32
        unwanted = Init(self.settled["flags"]) & ~self.offered
        _require(not unwanted, f"not offered: {unwanted!r}")
        self.max_io = min(self.max_io, self.settled["max_write"])
        return self.settled

    async def interrupt(self, unique: int) -> None:
        """Say that the caller of `unique` has a signal. Nothing answers but, perhaps, EAGAIN."""
        message = self.message(
            Opcode.INTERRUPT, 0, wire.INTERRUPT_IN.pack(unique=unique), unique | wire.INTERRUPT_BIT
        )
        await self.send_raw(message)

    async def forget(self, nodeid: int, nlookup: int | None = None) -> None:
        """Give `nlookup` lookups of the node back (by default, all that there were)."""
        count = self.lookups[nodeid] if nlookup is None else nlookup
        self.lookups[nodeid] -= count
        body = wire.FORGET_IN.pack(nlookup=count)
        await self.send_raw(self.message(Opcode.FORGET, nodeid, body, 0))

    async def forget_all(self) -> None:
        """Give every lookup back, in one BATCH_FORGET."""
        items = [(nodeid, count) for nodeid, count in self.lookups.items() if count]
        self.lookups.clear()
        body = wire.BATCH_FORGET_IN.pack(count=len(items))
        body += b"".join(wire.FORGET_ONE.pack(nodeid=n, nlookup=c) for n, c in items)
        await self.send_raw(self.message(Opcode.BATCH_FORGET, 0, body, 0))

    # names

    async def lookup(self, parent: int, name: bytes) -> EntryReply:
        return await self._entry(Opcode.LOOKUP, parent, name + b"\0")

    async def walk(self, path: bytes) -> EntryReply:
        """Look a path up from the root, name by name."""
        nodeid, entry = ROOT, None
        for name in path.strip(b"/").split(b"/"):
            entry = await self.lookup(nodeid, name)
            nodeid = entry.nodeid
        assert entry is not None
        return entry

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> EntryReply:
        body = wire.MKNOD_IN.pack(mode=mode, rdev=rdev, umask=self.umask)
        return await self._entry(Opcode.MKNOD, parent, body + name + b"\0")

    async def mkdir(self, parent: int, name: bytes, mode: int = 0o777) -> EntryReply:
        body = wire.MKDIR_IN.pack(mode=mode, umask=self.umask)
        return await self._entry(Opcode.MKDIR, parent, body + name + b"\0")

    async def symlink(self, parent: int, name: bytes, target: bytes) -> EntryReply:
        return await self._entry(Opcode.SYMLINK, parent, name + b"\0" + target + b"\0")

    async def link(self, nodeid: int, parent: int, name: bytes) -> EntryReply:
        body = wire.LINK_IN.pack(oldnodeid=nodeid) + name + b"\0"
        return await self._entry(Opcode.LINK, parent, body)

    async def readlink(self, nodeid: int) -> bytes:
        return await self.call(Opcode.READLINK, nodeid)

    async def unlink(self, parent: int, name: bytes) -> None:
        await self.call(Opcode.UNLINK, parent, name + b"\0", size=0)

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self.call(Opcode.RMDIR, parent, name + b"\0", size=0)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        names = name + b"\0" + new_name + b"\0"
        if flags:
            body = wire.RENAME2_IN.pack(newdir=new_parent, flags=flags)
            await self.call(Opcode.RENAME2, parent, body + names, size=0)
        else:
            body = wire.RENAME_IN.pack(newdir=new_parent)
            await self.call(Opcode.RENAME, parent, body + names, size=0)

    # attributes

    async def getattr(self, nodeid: int, fh: int | None = None) -> Attr:
        flags = 0 if fh is None else wire.GETATTR_FH
        return await self._attr(
            Opcode.GETATTR, nodeid, wire.GETATTR_IN.pack(getattr_flags=flags, fh=fh or 0)
        )

    async def statx(self, nodeid: int) -> Attr:
        """Attributes with the birth time."""
        mask = wire.STATX_BASIC_STATS | wire.STATX_BTIME
        size = wire.STATX_OUT.size + wire.STATX.size
        body = wire.STATX_IN.pack(sx_mask=mask)
        payload = await self.call(Opcode.STATX, nodeid, body, size=size)
        return statx_of(payload, wire.STATX_OUT.size)

    async def setattr(self, nodeid: int, *, fh: int | None = None, **changes: int) -> Attr:
        """Change mode, uid, gid, size (bytes), atime_ns, mtime_ns or ctime_ns."""
        values: dict[str, int] = {}
        valid = 0
        for name, value in changes.items():
            field = name.removesuffix("_ns")
            valid |= getattr(wire, f"FATTR_{field.upper()}")
            if field == name:
                values[field] = value
            else:
                values[field], values[f"{field}nsec"] = divmod(value, 1_000_000_000)
        if fh is not None:
            valid |= wire.FATTR_FH
            values["fh"] = fh
        return await self._attr(Opcode.SETATTR, nodeid, wire.SETATTR_IN.pack(valid=valid, **values))

    async def access(self, nodeid: int, mask: int) -> None:
        await self.call(Opcode.ACCESS, nodeid, wire.ACCESS_IN.pack(mask=mask), size=0)

    async def statfs(self, nodeid: int = ROOT) -> dict[str, int]:
        payload = await self.call(Opcode.STATFS, nodeid, size=wire.STATFS_OUT.size)
        return wire.STATFS_OUT.unpack(payload)

    # extended attributes

    async def getxattr(self, nodeid: int, name: bytes, size: int = 65536) -> bytes:
        body = wire.GETXATTR_IN.pack(size=size) + name + b"\0"
        payload = await self.call(Opcode.GETXATTR, nodeid, body)
        _require(len(payload) <= size, f"{len(payload)} bytes of xattr for {size}")
        return payload

    async def getxattr_size(self, nodeid: int, name: bytes) -> int:
        body = wire.GETXATTR_IN.pack() + name + b"\0"
        payload = await self.call(Opcode.GETXATTR, nodeid, body, size=wire.GETXATTR_OUT.size)
        return wire.GETXATTR_OUT.unpack(payload)["size"]

    async def listxattr(self, nodeid: int, size: int = 65536) -> list[bytes]:
        payload = await self.call(Opcode.LISTXATTR, nodeid, wire.GETXATTR_IN.pack(size=size))
        _require(len(payload) <= size, f"{len(payload)} bytes of xattr names for {size}")
        _require(not payload or payload.endswith(b"\0"), "the last xattr name has no NUL")
        return payload.split(b"\0")[:-1]

    async def setxattr(self, nodeid: int, name: bytes, value: bytes, flags: int = 0) -> None:
        body = wire.SETXATTR_IN.pack(size=len(value), flags=flags) + name + b"\0" + value
        await self.call(Opcode.SETXATTR, nodeid, body, size=0)

    async def removexattr(self, nodeid: int, name: bytes) -> None:
        await self.call(Opcode.REMOVEXATTR, nodeid, name + b"\0", size=0)

    # open files

    async def open(self, nodeid: int, flags: int = os.O_RDONLY) -> OpenReply:
        return await self._open(Opcode.OPEN, nodeid, flags)

    async def opendir(self, nodeid: int) -> OpenReply:
        return await self._open(Opcode.OPENDIR, nodeid, os.O_RDONLY | os.O_DIRECTORY)

    async def _open(self, opcode: int, nodeid: int, flags: int) -> OpenReply:
        body = wire.OPEN_IN.pack(flags=flags)
        payload = await self.call(opcode, nodeid, body, size=wire.OPEN_OUT.size)
        return OpenReply(*wire.OPEN_OUT.unpack(payload).values())

    async def create(
        self, parent: int, name: bytes, mode: int = 0o666, flags: int = os.O_RDWR
    ) -> tuple[EntryReply, OpenReply]:
        return await self._create(Opcode.CREATE, parent, name, mode, flags | os.O_CREAT)

    async def tmpfile(self, parent: int, mode: int = 0o600) -> tuple[EntryReply, OpenReply]:
        return await self._create(Opcode.TMPFILE, parent, b"/", mode, os.O_RDWR | os.O_TMPFILE)

    async def _create(
        self, opcode: int, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[EntryReply, OpenReply]:
        fields = {"flags": flags, "mode": mode | 0o100000, "umask": self.umask}
        size = wire.ENTRY_OUT.size + wire.ATTR.size
        payload = await self.call(
            opcode,
            parent,
            wire.CREATE_IN.pack(**fields) + name + b"\0",
            size=size + wire.OPEN_OUT.size,
        )
        opened = OpenReply(*wire.OPEN_OUT.unpack(payload, size).values())
        return self._count(entry_of(payload)), opened

    async def read(self, nodeid: int, fh: int, offset: int = 0, size: int = 1 << 30) -> bytes:
        """Up to `size` bytes, split as needed; a short reply is the end of the file."""
        parts = []
        while size:
            length = min(size, self.max_io)
            body = wire.READ_IN.pack(fh=fh, offset=offset, size=length)
            payload = await self.call(Opcode.READ, nodeid, body)
            _require(len(payload) <= length, f"READ: {len(payload)} bytes for {length}")
            parts.append(payload)
            if len(payload) < length:
                break
            offset, size = offset + length, size - length
        return b"".join(parts)

    async def write(
        self,
        nodeid: int,
        fh: int,
        data: bytes,
        offset: int = 0,
        flags: int = 0,
        *,
        cached: bool = False,
    ) -> int:
        """Write all of `data`, split as needed; how many bytes were taken.

        `cached`: as the kernel writes back what was changed through a mapping.
        """
        how = wire.WRITE_CACHE if cached else 0
        taken = 0
        while taken < len(data):
            part = data[taken : taken + self.max_io]
            body = wire.WRITE_IN.pack(
                fh=fh, offset=offset + taken, size=len(part), write_flags=how, flags=flags
            )
            payload = await self.call(Opcode.WRITE, nodeid, body + part, size=wire.WRITE_OUT.size)
            size = wire.WRITE_OUT.unpack(payload)["size"]
            _require(size <= len(part), f"WRITE: {size} bytes taken of {len(part)}")
            taken += size
            if size < len(part):
                break
        return taken

    async def flush(self, nodeid: int, fh: int) -> None:
        await self.call(Opcode.FLUSH, nodeid, wire.FLUSH_IN.pack(fh=fh), size=0)

    async def release(self, nodeid: int, fh: int, flags: int = 0) -> None:
        await self.call(Opcode.RELEASE, nodeid, wire.RELEASE_IN.pack(fh=fh, flags=flags), size=0)

    async def releasedir(self, nodeid: int, fh: int) -> None:
        await self.call(Opcode.RELEASEDIR, nodeid, wire.RELEASE_IN.pack(fh=fh), size=0)

    async def fsync(self, nodeid: int, fh: int, data_only: bool = False) -> None:
        body = wire.FSYNC_IN.pack(fh=fh, fsync_flags=wire.FSYNC_FDATASYNC if data_only else 0)
        await self.call(Opcode.FSYNC, nodeid, body, size=0)

    async def fsyncdir(self, nodeid: int, fh: int) -> None:
        await self.call(Opcode.FSYNCDIR, nodeid, wire.FSYNC_IN.pack(fh=fh), size=0)

    async def syncfs(self) -> None:
        await self.call(Opcode.SYNCFS, ROOT, wire.SYNCFS_IN.pack(), size=0)

    async def fallocate(
        self, nodeid: int, fh: int, offset: int, length: int, mode: int = 0
    ) -> None:
        body = wire.FALLOCATE_IN.pack(fh=fh, offset=offset, length=length, mode=mode)
        await self.call(Opcode.FALLOCATE, nodeid, body, size=0)

    async def lseek(self, nodeid: int, fh: int, offset: int, whence: int) -> int:
        body = wire.LSEEK_IN.pack(fh=fh, offset=offset, whence=whence)
        payload = await self.call(Opcode.LSEEK, nodeid, body, size=wire.LSEEK_OUT.size)
        return wire.LSEEK_OUT.unpack(payload)["offset"]

    async def copy_file_range(
        self,
        source: tuple[int, int, int],
        target: tuple[int, int, int],
        length: int,
        *,
        wide: bool = True,
    ) -> int:
        """Copy between (nodeid, fh, offset) and another such; how many bytes were."""
        body = wire.COPY_FILE_RANGE_IN.pack(
            fh_in=source[1],
            off_in=source[2],
            nodeid_out=target[0],
            fh_out=target[1],
            off_out=target[2],
            len=length,
        )
        opcode = Opcode.COPY_FILE_RANGE_64 if wide else Opcode.COPY_FILE_RANGE
        payload = await self.call(opcode, source[0], body, size=8)
        if wide:
            return wire.COPY_FILE_RANGE_OUT.unpack(payload)["bytes_copied"]
        return wire.WRITE_OUT.unpack(payload)["size"]

    async def ioctl(
        self, nodeid: int, fh: int, cmd: int, data: bytes = b"", out_size: int = 0, flags: int = 0
    ) -> tuple[int, bytes]:
        """What ioctl(2) returns, and the bytes that come back."""
        body = wire.IOCTL_IN.pack(fh=fh, flags=flags, cmd=cmd, in_size=len(data), out_size=out_size)
        payload = await self.call(Opcode.IOCTL, nodeid, body + data)
        _require(len(payload) >= wire.IOCTL_OUT.size, "IOCTL: truncated")
        rest = payload[wire.IOCTL_OUT.size :]
        _require(len(rest) <= out_size, f"IOCTL: {len(rest)} bytes for {out_size}")
        return wire.IOCTL_OUT.unpack(payload)["result"], rest

    async def poll(self, nodeid: int, fh: int, events: int, kh: int = 0) -> int:
        """What is ready; with `kh`, a wake-up is wanted."""
        body = wire.POLL_IN.pack(
            fh=fh, kh=kh, flags=wire.POLL_SCHEDULE_NOTIFY if kh else 0, events=events
        )
        payload = await self.call(Opcode.POLL, nodeid, body, size=wire.POLL_OUT.size)
        return wire.POLL_OUT.unpack(payload)["revents"]

    # directories

    async def readdir(
        self, nodeid: int, fh: int, offset: int = 0, size: int = 4096, *, plus: bool = False
    ) -> list[DirectoryEntry]:
        """One READDIR or READDIRPLUS; an empty list is the end."""
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
        body = wire.READ_IN.pack(fh=fh, offset=offset, size=size)
        found = directory_of(await self.call(opcode, nodeid, body), size, plus)
        for name in found:
            if name.entry is not None:
                self._count(name.entry)
        return found

    async def listdir(
        self, nodeid: int, *, plus: bool = True, size: int = 4096
    ) -> list[DirectoryEntry]:
        """Open, read to the end in steps of `size`, and close a directory."""
        opened = await self.opendir(nodeid)
        found: list[DirectoryEntry] = []
        offset = 0
        while part := await self.readdir(nodeid, opened.fh, offset, size, plus=plus):
            found += part
            offset = part[-1].offset
        await self.releasedir(nodeid, opened.fh)
        return found

    # whole files, for tests that want no more

    async def read_file(self, nodeid: int) -> bytes:
        """Open, read and close."""
        opened = await self.open(nodeid)
        data = await self.read(nodeid, opened.fh)
        await self.flush(nodeid, opened.fh)
        await self.release(nodeid, opened.fh)
        return data

    async def write_file(self, parent: int, name: bytes, data: bytes) -> EntryReply:
        """Create, write and close."""
        entry, opened = await self.create(parent, name)
        await self.write(entry.nodeid, opened.fh, data)
        await self.flush(entry.nodeid, opened.fh)
        await self.release(entry.nodeid, opened.fh)
        return entry

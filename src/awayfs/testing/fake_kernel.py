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

import os

from awayfs.fuse import wire
from awayfs.fuse.replies import Attr
from awayfs.fuse.wire import Init, Opcode
from awayfs.testing.fake_connection import FakeConnection
from awayfs.testing.fake_replies import (
    DirectoryEntry,
    EntryReply,
    OpenReply,
    directory_of,
    entry_of,
    require,
    statx_of,
)

ROOT = wire.ROOT_ID


class FakeKernel(FakeConnection):
    """One connection, with a method for each request."""

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
        require(not unwanted, f"not offered: {unwanted!r}")
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
        require(len(payload) <= size, f"{len(payload)} bytes of xattr for {size}")
        return payload

    async def getxattr_size(self, nodeid: int, name: bytes) -> int:
        body = wire.GETXATTR_IN.pack() + name + b"\0"
        payload = await self.call(Opcode.GETXATTR, nodeid, body, size=wire.GETXATTR_OUT.size)
        return wire.GETXATTR_OUT.unpack(payload)["size"]

    async def listxattr(self, nodeid: int, size: int = 65536) -> list[bytes]:
        payload = await self.call(Opcode.LISTXATTR, nodeid, wire.GETXATTR_IN.pack(size=size))
        require(len(payload) <= size, f"{len(payload)} bytes of xattr names for {size}")
        require(not payload or payload.endswith(b"\0"), "the last xattr name has no NUL")
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
            require(len(payload) <= length, f"READ: {len(payload)} bytes for {length}")
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
            require(size <= len(part), f"WRITE: {size} bytes taken of {len(part)}")
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
        require(len(payload) >= wire.IOCTL_OUT.size, "IOCTL: truncated")
        rest = payload[wire.IOCTL_OUT.size :]
        require(len(rest) <= out_size, f"IOCTL: {len(rest)} bytes for {out_size}")
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

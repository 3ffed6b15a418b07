"""What a daemon answered, taken apart and held to what a kernel would accept."""

from __future__ import annotations

import os
from dataclasses import dataclass

from awayfs.fuse import wire
from awayfs.fuse.replies import Attr
from awayfs.fuse.wire import Layout, Notify


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


NOTIFICATIONS = {
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
        valid_of(f, "entry_valid"),
        valid_of(f, "attr_valid"),
        attr_of(payload, offset + wire.ENTRY_OUT.size),
    )


def _time(fields: dict[str, int], name: str) -> int:
    rest = fields[f"{name}nsec"]
    require(rest < 1_000_000_000, f"{name} has {rest} nanoseconds")
    return fields[name] * 1_000_000_000 + rest


def valid_of(fields: dict[str, int], name: str) -> float:
    """For how many seconds something may be believed."""
    rest = fields[f"{name}_nsec"]
    require(rest < 1_000_000_000, f"{name} has {rest} nanoseconds")
    return fields[name] + rest / 1e9


def require(holds: bool, otherwise: str) -> None:
    """Raise what breaks the protocol."""
    if not holds:
        raise ProtocolViolation(otherwise)


def directory_of(payload: bytes, size: int, plus: bool) -> list[DirectoryEntry]:
    """The names in a reply to READDIR or READDIRPLUS of `size`, checked strictly."""
    require(len(payload) <= size, f"{len(payload)} bytes of listing for {size}")
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
        require(at <= len(payload), "a listing ends amid a name")
        require(0 < len(name) <= wire.NAME_MAX and b"/" not in name, f"bad name {name!r}")
        require(not any(payload[end:at]), f"padding after {name!r} is not zero")
        require(head["off"] != 0, f"{name!r} has the cookie 0")
        if entry is not None and not entry.nodeid:
            entry = None
        require(entry is None or name not in (b".", b".."), f"{name!r} has an entry")
        found.append(DirectoryEntry(name, head["ino"], head["type"], head["off"], entry))
    return found

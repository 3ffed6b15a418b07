"""INIT: what the kernel offers, what we want, what holds.

Flags that are always wanted, with the reason where it is not plain:

* ATOMIC_O_TRUNC: OPEN carries O_TRUNC; no SETATTR follows.
* EXPORT_SUPPORT: LOOKUP of "." and ".." comes, for name_to_handle_at(2) and NFS.
* DONT_MASK: `mode` comes unmasked with the umask beside it, so that a directory's
  default ACL could overrule it, and so that the daemon's view is complete.
* EXPLICIT_INVAL_DATA, and not AUTO_INVAL_DATA: cached pages go when we say so, not
  whenever a GETATTR shows another mtime. A changed *size* still truncates the cache.
* HANDLE_KILLPRIV_V2: without it the kernel asks for ``security.capability`` before each
  write(2) (measured: one GETXATTR a write, until answered ENOSYS). With it, the handlers
  must clear set-user-id and set-group-id where `kill_suidgid` says so (Write, Setattr,
  Open with O_TRUNC), and on every change of owner.
* DIRECT_IO_ALLOW_MMAP: shared mappings of files opened with FOPEN_DIRECT_IO work.
* ABORT_ERROR: an aborted connection reads as ECONNABORTED and an unmounted one as ENODEV.

Never: POSIX_LOCKS and FLOCK_LOCKS (locks are local), POSIX_ACL, SUBMOUNTS, NO_OPEN_SUPPORT
(each open is told), SECURITY_CTX, CREATE_SUPP_GROUP, SETXATTR_EXT (only for ACLs),
OVER_IO_URING, REQUEST_TIMEOUT (bounded times are the volume's business).

Source: ``fs/fuse/inode.c`` (process_init_reply, fuse_new_init).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from awayfs.core.errors import AwayfsError
from awayfs.fuse import wire
from awayfs.fuse.wire import Init

PAGE = 4096

ALWAYS = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.EXPORT_SUPPORT
    | Init.BIG_WRITES
    | Init.DONT_MASK
    | Init.HAS_IOCTL_DIR
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.EXPLICIT_INVAL_DATA
    | Init.HANDLE_KILLPRIV_V2
    | Init.INIT_EXT
    | Init.HAS_EXPIRE_ONLY
    | Init.DIRECT_IO_ALLOW_MMAP
)


class SessionError(AwayfsError):
    """The kernel and this program cannot work together, or the connection broke."""


@dataclass(frozen=True)
class SessionOptions:
    """What to ask of the kernel.

    `writeback`: let the kernel keep writes back; a killed daemon then loses writes that
    write(2) acknowledged. `passthrough`: let files be opened with a backing file; needs
    CAP_SYS_ADMIN and Linux 6.9, and excludes writeback. `max_stack_depth`: 1, or 2 if the
    backing files lie on an overlay. Sizes are in bytes.
    """

    max_write: int = 1 << 20
    max_readahead: int = 1 << 20
    readdirplus: bool = True
    readdirplus_auto: bool = False
    writeback: bool = False
    passthrough: bool = False
    max_stack_depth: int = 1
    max_background: int = 64

    def __post_init__(self) -> None:
        if self.writeback and self.passthrough:
            raise ValueError("passthrough and writeback exclude each other")
        if self.max_write < PAGE:
            raise ValueError("max_write is less than a page")


@dataclass(frozen=True)
class Negotiated:
    """What INIT settled: the protocol's minor, the flags in force, sizes in bytes."""

    minor: int
    flags: Init
    max_write: int
    max_readahead: int
    offered: Init

    @property
    def passthrough(self) -> bool:
        """Whether files may be opened with FOPEN_PASSTHROUGH (if the daemon may, too)."""
        return Init.PASSTHROUGH in self.flags

    @property
    def writeback(self) -> bool:
        return Init.WRITEBACK_CACHE in self.flags

    @property
    def direct(self) -> bool:
        """Whether files may be opened with FOPEN_DIRECT_IO while others use the page cache.

        A kernel that offers DIRECT_IO_ALLOW_MMAP (Linux 6.6) lets such a file be mapped as any
        other, and drops the pages that a direct write makes outdated.
        """
        return Init.DIRECT_IO_ALLOW_MMAP in self.flags and not self.writeback

    @property
    def expire_only(self) -> bool:
        """Whether `Notifier.inval_entry` may just expire a name."""
        return Init.HAS_EXPIRE_ONLY in self.offered

    @property
    def epoch(self) -> bool:
        """Whether `Notifier.bump_epoch` exists."""
        return self.minor >= 44


def wanted(options: SessionOptions) -> Init:
    """The flags to ask for."""
    flags = ALWAYS
    if options.readdirplus:
        flags |= Init.DO_READDIRPLUS
        if options.readdirplus_auto:
            flags |= Init.READDIRPLUS_AUTO
    if options.writeback:
        flags |= Init.WRITEBACK_CACHE
    if options.passthrough:
        flags |= Init.PASSTHROUGH
    return flags


def negotiate(body: bytes, options: SessionOptions) -> tuple[bytes, Negotiated | None]:
    """The reply to an INIT request (`body`: without header), and what it settles.

    None is settled if the kernel has a newer major version: it asks again with ours.
    Raises SessionError if the kernel is older than protocol 7.31 (Linux 5.4), and
    struct.error if `body` is truncated.
    """
    major, minor, readahead, low = wire.INIT_IN.struct.unpack_from(body)
    if major > wire.MAJOR:
        return wire.INIT_OUT.pack(major=wire.MAJOR, minor=wire.MINOR), None
    if major < wire.MAJOR or minor < wire.OLDEST_MINOR:
        raise SessionError(
            f"the kernel speaks FUSE {major}.{minor};"
            f" awayfs needs 7.{wire.OLDEST_MINOR} (Linux 5.4)"
        )
    offered = Init(low)
    if Init.INIT_EXT in offered and len(body) >= wire.INIT_IN_EXT.size:
        offered |= Init(struct.unpack_from("=I", body, wire.INIT_IN.size)[0] << 32)
    settled = _settle(min(minor, wire.MINOR), readahead, offered, options)
    return _reply(settled, options), settled


def _settle(minor: int, readahead: int, offered: Init, options: SessionOptions) -> Negotiated:
    flags = wanted(options) & offered
    max_write = options.max_write
    if Init.MAX_PAGES not in flags:
        max_write = min(max_write, 32 * PAGE)  # FUSE_DEFAULT_MAX_PAGES_PER_REQ
    return Negotiated(
        minor=minor,
        flags=flags,
        max_write=max_write,
        max_readahead=min(readahead, options.max_readahead),
        offered=offered,
    )


def _reply(settled: Negotiated, options: SessionOptions) -> bytes:
    flags = int(settled.flags)
    return wire.INIT_OUT.pack(
        major=wire.MAJOR,
        minor=settled.minor,
        max_readahead=settled.max_readahead,
        flags=flags & 0xFFFFFFFF,
        flags2=flags >> 32,
        max_background=options.max_background,
        congestion_threshold=options.max_background * 3 // 4,
        max_write=settled.max_write,
        time_gran=1,
        max_pages=-(-settled.max_write // PAGE),
        max_stack_depth=options.max_stack_depth if settled.passthrough else 0,
    )

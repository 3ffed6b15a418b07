"""What is known of the file systems below a ``dir:`` root: identities, clocks, granularity.

**Identity.** A file handle (name_to_handle_at(2)) names a file for good: those of ext4, xfs,
btrfs and tmpfs carry a generation, an NFS client's is the server's own. Handles of FUSE, CIFS
and FAT are numbers that the client made up for this mount, so they are not taken. Where there
is no handle, inode number and birth time together are as good; FUSE and FAT make up inode
numbers too, so nothing survives there and ``file_id`` is None. Neither device numbers nor
mount ids are in it. Below a mount point inside the volume, the file system's id goes in front.

**Weak tokens.** A kernel stamps changes with a clock of its own: a jiffy (up to 10 ms) on
local file systems before Linux 6.13, 2 s on FAT, the server's on a network. And write(2)
stamps the file first and copies the data after that, so content read within moments of the
stamp may be older than the stamp. A token is therefore weak while its change time is within
``margin_ns`` of now by the clock of the file system. For a network file system "now" is the
local clock plus an offset learnt from the change time of each file we create there; until one
was created the offset is 0, which is why the margin is wider then.

Residual risk: stores through a shared memory mapping move the change time when a page is
first dirtied, not with each store (mmap(2), MAP_SHARED), so a token older than the margin may
still cover up to one writeback interval (30 s) of such stores.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass

from msgspec import Struct

from awayfs.remotes import linux

EXT, XFS, BTRFS, TMPFS, F2FS = 0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0xF2F52010
FUSE, FAT, EXFAT, CIFS, SMB2 = 0x65735546, 0x4D44, 0x2011BAB0, 0xFF534D42, 0xFE534D42

WELL_KNOWN = frozenset({EXT, XFS, BTRFS, TMPFS, F2FS})
"""Local file systems that have everything: exchange, links, symlinks, xattrs, ns times."""

NO_HANDLE = frozenset({FUSE, FAT, EXFAT, CIFS, SMB2})
NO_INODE = frozenset({FUSE, FAT, EXFAT})

LOCAL_MARGIN_NS = 20_000_000
UNKNOWN_MARGIN_NS = 2_500_000_000
NETWORK_SLACK_NS = 250_000_000
TOKEN_FORM = 1

_TOKEN = struct.Struct("<BQqqQ")
_INODE = struct.Struct("<Qq")


@dataclass(frozen=True, slots=True)
class Version:
    """What is in a token."""

    ino: int
    ctime_ns: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, st: linux.Statx) -> Version:
        """The version that ``st`` shows."""
        return cls(st.ino, st.ctime_ns, st.mtime_ns, st.size)

    def token(self) -> bytes:
        """As an opaque token."""
        return _TOKEN.pack(TOKEN_FORM, self.ino, self.ctime_ns, self.mtime_ns, self.size)


def version_of(token: bytes | None) -> Version | None:
    """What a token says, None for one that is not of this adapter."""
    if token is None or len(token) != _TOKEN.size or token[0] != TOKEN_FORM:
        return None
    _, *rest = _TOKEN.unpack(token)
    return Version(*rest)


class FileSystem(Struct):
    """One mounted file system (one ``st_dev``) of the volume."""

    magic: int
    id_prefix: bytes | None  # None: ids of this file system cannot be told from others'
    margin_ns: int
    clock_offset_ns: int = 0
    granularity_ns: int = 1

    def file_id(self, fd: int, st: linux.Statx) -> bytes | None:
        """The identity of what ``fd`` is open on, None where nothing survives a remount."""
        if self.id_prefix is None:
            return None
        handle = None if self.magic in NO_HANDLE else linux.file_handle(fd)
        if handle is not None:
            return self.id_prefix + b"h" + handle
        if self.magic in NO_INODE or st.btime_ns is None:
            return None
        return self.id_prefix + b"b" + _INODE.pack(st.ino, st.btime_ns)

    def now_ns(self) -> int:
        """The file system's own time, as far as known."""
        return time.time_ns() + self.clock_offset_ns

    def settled_in_ns(self, st: linux.Statx) -> int:
        """How long until the token of ``st`` stops being weak; 0 when it is strong.

        A change time far ahead of the clock (a clock was set back) stays weak.
        """
        return max(0, st.ctime_ns + self.margin_ns - self.now_ns())

    def learn_clock(self, stamped_ns: int) -> None:
        """Note that the file system stamped something just now, with ``stamped_ns``.

        Local file systems use our clock; the offset stays 0 for them.
        """
        if self.magic in WELL_KNOWN:
            return
        self.clock_offset_ns = stamped_ns - time.time_ns()
        self.margin_ns = LOCAL_MARGIN_NS + NETWORK_SLACK_NS + self.granularity_ns


def discover(fd: int, st: linux.Statx, of_root: bool) -> FileSystem:
    """Facts of the file system that ``fd`` is on, without writing to it."""
    magic, fsid = linux.filesystem(fd)
    prefix: bytes | None = b""
    if not of_root:
        prefix = b"f" + fsid if any(fsid) else None
    margin = LOCAL_MARGIN_NS if is_well_known(magic, st) else UNKNOWN_MARGIN_NS
    granularity = {FAT: 2 * 10**9, EXFAT: 10**7}.get(magic, 1)
    return FileSystem(magic, prefix, margin, granularity_ns=granularity)


def is_well_known(magic: int, st: linux.Statx) -> bool:
    """ext2 and ext3 share ext4's magic; without a birth time the inode is small, times are 1 s."""
    return magic in WELL_KNOWN and st.btime_ns is not None

"""One typed request for each operation that the kernel asks for.

Every request carries `unique` (what the reply names), `nodeid` (the node it is about;
for operations on a name, the directory), `uid`, `gid` and `pid` (the caller's; pid is
0 when it is not visible from here), then its own fields. Names are bytes without the
NUL. Times are in nanoseconds since 1970 and may be negative. "Reply" names the encoder
in `replies` whose result answers the request.

Extensions (security contexts, supplementary groups) are not negotiated and so never
come. Source: ``include/uapi/linux/fuse.h``, ``fs/fuse/dir.c``, ``fs/fuse/file.c``.
"""

from __future__ import annotations

from msgspec import Struct

from awayfs.fuse import wire


class Request(Struct):
    """What every request has."""

    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int


class Lookup(Request):
    """Find `name` in a directory. Reply: entry_out; it adds one to the lookup count."""

    name: bytes


class Forget(Request):
    """Take `nlookup` from the node's lookup count. Never answered."""

    nlookup: int


class BatchForget(Request):
    """Many forgets at once: `items` are (nodeid, nlookup). Never answered."""

    items: list[tuple[int, int]]


class Getattr(Request):
    """Attributes, of the open file `fh` if `by_handle`. Reply: attr_out."""

    flags: int
    fh: int

    @property
    def by_handle(self) -> bool:
        return bool(self.flags & wire.GETATTR_FH)


class Statx(Request):
    """Attributes with the birth time. Sent only when somebody asks for that. Reply: statx_out."""

    flags: int
    fh: int
    sx_flags: int
    mask: int

    @property
    def by_handle(self) -> bool:
        return bool(self.flags & wire.GETATTR_FH)


class Setattr(Request):
    """Change the attributes whose FATTR_* bit is in `valid`. Reply: attr_out."""

    valid: int
    fh: int
    size: int
    lock_owner: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    new_uid: int
    new_gid: int

    @property
    def by_handle(self) -> bool:
        return bool(self.valid & wire.FATTR_FH)

    @property
    def kill_suidgid(self) -> bool:
        """Whether set-user-id and set-group-id must go (HANDLE_KILLPRIV_V2)."""
        return bool(self.valid & wire.FATTR_KILL_SUIDGID)


class Readlink(Request):
    """Reply: the target, at most 4095 bytes, without a NUL."""


class Symlink(Request):
    """Reply: entry_out."""

    name: bytes
    target: bytes


class Mknod(Request):
    """Make a file, pipe, socket or device. `mode` is not yet masked. Reply: entry_out."""

    mode: int
    rdev: int
    umask: int
    name: bytes


class Mkdir(Request):
    """Make a directory. `mode` is not yet masked. Reply: entry_out."""

    mode: int
    umask: int
    name: bytes


class Unlink(Request):
    """Reply: nothing (b"")."""

    name: bytes


class Rmdir(Request):
    """Reply: nothing (b"")."""

    name: bytes


class Rename(Request):
    """Rename, with RENAME_* `flags` (0 for the plain one). Reply: nothing (b"")."""

    new_parent: int
    flags: int
    name: bytes
    new_name: bytes


class Link(Request):
    """A further name in directory `nodeid` for the node `target`. Reply: entry_out."""

    target: int
    name: bytes


class Open(Request):
    """Open a file; `flags` as in open(2), O_TRUNC among them. Reply: open_out."""

    flags: int
    open_flags: int

    @property
    def kill_suidgid(self) -> bool:
        """Whether set-user-id and set-group-id must go, with O_TRUNC (HANDLE_KILLPRIV_V2)."""
        return bool(self.open_flags & wire.OPEN_KILL_SUIDGID)


class Opendir(Request):
    """Open a directory. Reply: open_out."""

    flags: int
    open_flags: int


class Create(Request):
    """Make and open a file, or open it if it exists and O_EXCL is not set. Reply: create_out."""

    flags: int
    mode: int
    umask: int
    open_flags: int
    name: bytes


class Tmpfile(Request):
    """Make and open a file without a name (O_TMPFILE). Reply: create_out."""

    flags: int
    mode: int
    umask: int
    open_flags: int


class Read(Request):
    """Reply: at most `size` bytes; fewer mean the end of the file."""

    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Readdir(Request):
    """Names after the cookie `offset` (0: from the start). Reply: a DirectoryBuffer of `size`."""

    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Readdirplus(Request):
    """As Readdir, with attributes: each name but "." and ".." counts as a lookup."""

    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Write(Request):
    """Write `data` at `offset`. Reply: write_out.

    `data` views the message it came in, which nothing changes afterwards: it may be
    kept as long as wanted, at the price of keeping the whole message in memory.
    """

    fh: int
    offset: int
    size: int
    write_flags: int
    lock_owner: int
    flags: int
    data: memoryview

    @property
    def from_page_cache(self) -> bool:
        """Whether this is delayed write-back: `fh` is guessed, the caller is nobody."""
        return bool(self.write_flags & wire.WRITE_CACHE)

    @property
    def kill_suidgid(self) -> bool:
        """Whether set-user-id and set-group-id must go (HANDLE_KILLPRIV_V2)."""
        return bool(self.write_flags & wire.WRITE_KILL_SUIDGID)


class Flush(Request):
    """A descriptor of the open file was closed; comes once for each. Reply: nothing (b"")."""

    fh: int
    lock_owner: int


class Release(Request):
    """The last descriptor of the open file is gone. Nobody waits for the reply (b"")."""

    fh: int
    flags: int
    release_flags: int
    lock_owner: int


class Releasedir(Request):
    """As Release, of a directory."""

    fh: int
    flags: int
    release_flags: int
    lock_owner: int


class Fsync(Request):
    """Make the file durable. Reply: nothing (b"")."""

    fh: int
    flags: int

    @property
    def data_only(self) -> bool:
        return bool(self.flags & wire.FSYNC_FDATASYNC)


class Fsyncdir(Request):
    """Make the directory durable. Reply: nothing (b"")."""

    fh: int
    flags: int

    @property
    def data_only(self) -> bool:
        return bool(self.flags & wire.FSYNC_FDATASYNC)


class Statfs(Request):
    """Reply: statfs_out."""


class Setxattr(Request):
    """Set an extended attribute; `flags` XATTR_CREATE or XATTR_REPLACE. Reply: nothing (b"")."""

    size: int
    flags: int
    name: bytes
    value: bytes


class Getxattr(Request):
    """Reply: the value, or ERANGE if longer than `size`; for size 0 xattr_size_out."""

    size: int
    name: bytes


class Listxattr(Request):
    """Reply: the names, each with a NUL, or ERANGE; for size 0 xattr_size_out."""

    size: int


class Removexattr(Request):
    """Reply: nothing (b"")."""

    name: bytes


class Access(Request):
    """May the caller? Not sent with default_permissions. Reply: nothing (b"") or EACCES."""

    mask: int


class Ioctl(Request):
    """An ioctl whose number says its sizes: `data` goes in, at most `out_size` bytes come back.

    Reply: ioctl_out. `arg` is the caller's pointer, of no use here.
    """

    fh: int
    flags: int
    cmd: int
    arg: int
    in_size: int
    out_size: int
    data: bytes

    @property
    def is_directory(self) -> bool:
        return bool(self.flags & wire.IOCTL_DIR)


class Poll(Request):
    """What is ready of `events`? Reply: poll_out.

    With `wants_wakeup`, keep `kh` and send `Notifier.poll_wakeup(kh)` once when that changes.
    """

    fh: int
    kh: int
    flags: int
    events: int

    @property
    def wants_wakeup(self) -> bool:
        return bool(self.flags & wire.POLL_SCHEDULE_NOTIFY)


class Fallocate(Request):
    """Reply: nothing (b"")."""

    fh: int
    offset: int
    length: int
    mode: int


class Lseek(Request):
    """SEEK_DATA or SEEK_HOLE only; the kernel does the others. Reply: lseek_out or ENXIO."""

    fh: int
    offset: int
    whence: int


class CopyFileRange(Request):
    """Copy `length` bytes to another open file. Reply: copy_file_range_out(copied, self.wide)."""

    fh: int
    offset: int
    new_nodeid: int
    new_fh: int
    new_offset: int
    length: int
    flags: int
    wide: bool


class Syncfs(Request):
    """Make the whole volume durable. Reply: nothing (b"").

    Linux up to 6.18 sends it to virtiofs and fuseblk only, not to a plain FUSE mount.
    """


class Interrupt(Request):
    """The caller of request `target` has a signal pending. `Session` deals with it."""

    target: int


class Destroy(Request):
    """The mount goes away. Comes for fuseblk only."""

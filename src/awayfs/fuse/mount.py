"""Mount and unmount: directly as root, through ``fusermount3`` otherwise.

The mount table is read from ``/proc/self/mountinfo``, never by looking into a mount
point: behind one, there may be a daemon that is dead (every access gives ENOTCONN) or
stuck (every access waits). Source: mount(2), fuse(4), fusermount3(1),
``fs/fuse/inode.c`` (fuse_parse_param).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import socket
import stat
import subprocess
import threading
from typing import NamedTuple

from awayfs.core.errors import AwayfsError

DEVICE = "/dev/fuse"
HELPER = "fusermount3"

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME = 1, 2, 4, 8, 1024
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_DEAD_AFTER = 1.0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


class MountError(AwayfsError):
    """The file system could not be mounted or unmounted; one line says why."""


class AlreadyMounted(MountError):
    """An awayfs is mounted there."""


class DeadMount(AlreadyMounted):
    """An awayfs is mounted there whose daemon is gone; `unmount(path, lazy=True)` cleans up."""


class NotMounted(MountError):
    """Nothing is mounted there."""


class MountBusy(MountError):
    """Somebody uses the mount: an open file, or a working directory."""


class Mounted(NamedTuple):
    """A line of mountinfo: where, what type (``fuse.awayfs``), what name, which device."""

    mountpoint: bytes
    kind: bytes
    source: bytes
    device: bytes


Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def mounts() -> list[Mounted]:
    """What is mounted, in the order of mounting."""
    found = []
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            before, _, after = line.rstrip(b"\n").partition(b" - ")
            fields, rest = before.split(b" "), after.split(b" ")
            found.append(Mounted(_unescape(fields[4]), rest[0], _unescape(rest[1]), fields[2]))
    return found


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


def find_mount(path: Path) -> Mounted | None:
    """What is mounted exactly at `path`, if anything (the topmost)."""
    here = resolve(path)
    found = None
    for mounted in mounts():
        if mounted.mountpoint == here:
            found = mounted
    return found


def resolve(path: Path) -> bytes:
    """The absolute path, without symlinks, of a mount point that is itself not looked at."""
    whole = os.path.abspath(os.fsencode(path))
    parent, name = os.path.split(whole)
    here = os.path.join(os.path.realpath(parent), name)
    if any(mounted.mountpoint == here for mounted in mounts()):
        return here
    return os.path.realpath(whole)


def is_dead_mount(path: Path) -> bool:
    """Whether a FUSE file system is mounted at `path` and its daemon is gone.

    One whose daemon only does not answer (within a second) is not dead.
    """
    mounted = find_mount(path)
    if mounted is None or not mounted.kind.startswith(b"fuse"):
        return False
    dead = threading.Event()

    def look() -> None:
        try:
            os.statvfs(mounted.mountpoint)  # stat(2) may be answered from the kernel's cache
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                dead.set()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_DEAD_AFTER)
    return dead.is_set()


def mount(
    mountpoint: Path,
    *,
    fsname: str,
    subtype: str = "awayfs",
    allow_other: bool = False,
    default_permissions: bool = True,
    read_only: bool = False,
    max_read: int = 0,
    suid: bool = False,
    dev: bool = False,
    noexec: bool = False,
    noatime: bool = False,
    nonempty: bool = False,
    use_helper: bool | None = None,
) -> int:
    """Mount at `mountpoint`; the connection's descriptor, which a `Session` must now serve.

    `fsname` is what df(1) shows. `max_read` limits READ requests, in bytes (0: no limit).
    `use_helper` chooses between mount(2) and fusermount3; by default that is whether the
    caller is root. Without `default_permissions`, whoever gets in may do what the handlers
    let him. Raises MountError, AlreadyMounted, DeadMount.
    """
    here = _check(mountpoint, subtype, nonempty)
    options = [name for name, given in _named(allow_other, default_permissions) if given]
    if max_read:
        options.append(f"max_read={max_read}")
    flags = {
        "ro": read_only,
        "suid": suid,
        "dev": dev,
        "noexec": noexec,
        "noatime": noatime,
    }
    if use_helper if use_helper is not None else os.geteuid() != 0:
        options += [name for name, given in flags.items() if given]
        return _mount_with_helper(here, fsname, subtype, options)
    return _mount_directly(here, fsname, subtype, options, _mount_flags(flags))


def _named(allow_other: bool, default_permissions: bool) -> list[tuple[str, bool]]:
    return [("allow_other", allow_other), ("default_permissions", default_permissions)]


def _mount_flags(flags: dict[str, bool]) -> int:
    return (
        (MS_RDONLY if flags["ro"] else 0)
        | (0 if flags["suid"] else MS_NOSUID)
        | (0 if flags["dev"] else MS_NODEV)
        | (MS_NOEXEC if flags["noexec"] else 0)
        | (MS_NOATIME if flags["noatime"] else 0)
    )


def _check(mountpoint: Path, subtype: str, nonempty: bool) -> bytes:
    """The resolved mount point, if one can mount there."""
    here = resolve(mountpoint)
    shown = os.fsdecode(here)
    present = find_mount(here)
    if present is not None and present.kind == b"fuse." + subtype.encode():
        if is_dead_mount(here):
            raise DeadMount(
                f"{shown}: a mount whose daemon is gone is in the way;"
                f" remove it with 'awayfs umount {shown}'"
            )
        raise AlreadyMounted(f"{shown}: already mounted ({os.fsdecode(present.source)})")
    if present is not None and is_dead_mount(here):
        raise MountError(f"{shown}: a dead {os.fsdecode(present.kind)} mount is in the way")
    try:
        if not stat.S_ISDIR(os.stat(here).st_mode):
            raise MountError(f"{shown}: not a directory")
        if not nonempty and os.listdir(here):
            raise MountError(f"{shown}: not empty (mount with nonempty to hide what is there)")
    except OSError as error:
        raise MountError(f"{shown}: {_reason(error)}") from error
    return here


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such directory"
    return (error.strerror or str(error)).lower()


def _mount_directly(here: bytes, fsname: str, subtype: str, options: list[str], flags: int) -> int:
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "; is the fuse module loaded?" if error.errno in (errno.ENOENT, errno.ENXIO) else ""
        raise MountError(f"{DEVICE}: {_reason(error)}{hint}") from error
    rootmode = os.stat(here).st_mode
    data = ",".join(
        [
            f"fd={fd}",
            f"rootmode={stat.S_IFMT(rootmode):o}",
            f"user_id={os.getuid()}",
            f"group_id={os.getgid()}",
            *options,
        ]
    )
    kind = f"fuse.{subtype}".encode()
    if _libc.mount(fsname.encode(), here, kind, flags, data.encode()) != 0:
        code = ctypes.get_errno()
        os.close(fd)
        raise MountError(f"{os.fsdecode(here)}: cannot mount: {os.strerror(code)}")
    return fd


def _mount_with_helper(here: bytes, fsname: str, subtype: str, options: list[str]) -> int:
    """Have fusermount3 mount, and receive the descriptor over the socket that it is given."""
    escaped = fsname.replace("\\", "\\\\").replace(",", "\\,")
    words = [f"fsname={escaped}", f"subtype={subtype}", *options]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = _run_helper(
            ["-o", ",".join(words), "--", os.fsdecode(here)],
            environment={"_FUSE_COMMFD": str(theirs.fileno())},
            pass_fd=theirs.fileno(),
        )
        theirs.close()
        if done.returncode == 0:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
            if fds:
                return fds[0]
    raise MountError(f"{os.fsdecode(here)}: {_said(done) or 'fusermount3 gave no descriptor'}")


def _run_helper(
    arguments: list[str], *, environment: dict[str, str] | None = None, pass_fd: int | None = None
) -> subprocess.CompletedProcess[str]:
    program = shutil.which(HELPER)
    if program is None:
        raise MountError(f"{HELPER} is missing; install the fuse3 package, or mount as root")
    return subprocess.run(
        [program, *arguments],
        env={**os.environ, "LC_ALL": "C", **(environment or {})},
        pass_fds=() if pass_fd is None else (pass_fd,),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """What the helper complained of, on one line."""
    return " ".join(done.stderr.split())


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount; `lazy` takes it out of sight at once, and really when nobody uses it any more.

    Works on a dead mount. Raises MountBusy, NotMounted or another MountError.
    """
    here = resolve(mountpoint)
    shown = os.fsdecode(here)
    present = find_mount(here)
    if present is None:
        raise NotMounted(f"{shown}: not mounted")
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    if _libc.umount2(here, flags) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EPERM and present.kind.startswith(b"fuse"):
        done = _run_helper(["-u", *(["-z"] if lazy else []), "--", shown])
        if done.returncode == 0:
            return
        said = _said(done)
        code = errno.EBUSY if "busy" in said.lower() else 0
    else:
        said = os.strerror(code)
    if code == errno.EBUSY:
        raise MountBusy(f"{shown}: in use; close what is open there, or unmount lazily")
    raise (
        NotMounted(f"{shown}: not mounted")
        if code == errno.EINVAL
        else MountError(f"{shown}: cannot unmount: {said}")
    )

"""``/proc/self/mountinfo``, and finding the mount that a path is in without touching it.

Reading that file never hangs, while ``stat`` on a mount whose daemon is stuck may. So a path
is followed one component at a time: symlinks are read only outside awayfs mounts, and the
walk knows from the table alone when it enters one.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

FSTYPE = "fuse.awayfs"
"""The file system type under which awayfs mounts appear."""

_LINKS_MAX = 40
_NETWORK = frozenset(
    ("9p", "afs", "ceph", "cifs", "glusterfs", "nfs", "nfs4", "smb3", "virtiofs", "autofs", "fuse")
)
_SOURCE = re.compile(
    r"(?:[a-z]+:)?(?://|\\\\)(?:[^@/]*@)?(?P<at>\[[^\]]+\]|[^/\\:,]+)"  # //host/share, https://host
    r"|(?:[^@/]*@)?(?P<before>\[[^\]]+\]|[^/:,\[\]]+)[,:]"  # host:/export, user@host:path
)


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo."""

    device: str  # "0:45"; the same for every place a file system is bound to
    root: bytes  # the directory of the file system that is mounted here
    mountpoint: bytes
    fstype: str
    source: bytes
    options: str  # of the file system, for example "rw,user_id=1000"

    @property
    def is_awayfs(self) -> bool:
        return self.fstype == FSTYPE

    @property
    def may_hang(self) -> bool:
        """Whether whoever looks into it may have to wait for another machine, or a daemon."""
        return self.fstype.partition(".")[0] in _NETWORK

    @property
    def server(self) -> str | None:
        """The host that a network file system comes from; None where the source tells of none."""
        text = self.source.decode("utf-8", "replace")
        found = _SOURCE.match(text) if self.may_hang else None
        return (found["at"] or found["before"]).strip("[]").lower() if found else None

    @property
    def server_address(self) -> str:
        """The address that the kernel speaks to (nfs(5), mount.cifs(8)); empty where unknown."""
        match = re.search(r"(?:^|,)addr=([0-9A-Fa-f.:%\w]+)", self.options)
        return match[1] if match and self.may_hang else ""

    @property
    def user(self) -> int | None:
        """The uid of who mounted a FUSE file system."""
        match = re.search(r"(?:^|,)user_id=(\d+)", self.options)
        return int(match[1]) if match else None


def parse(text: bytes) -> list[MountEntry]:
    """The entries, in order; of two at one place the later one is on top."""
    entries = []
    for line in text.splitlines():
        before, separator, after = line.partition(b" - ")
        fields, tail = before.split(b" "), after.split(b" ")
        if not separator or len(fields) < 6 or len(tail) < 2:
            continue
        entries.append(
            MountEntry(
                device=fields[2].decode("ascii", "replace"),
                root=unescape(fields[3]),
                mountpoint=unescape(fields[4]),
                fstype=unescape(tail[0]).decode("utf-8", "replace"),
                source=unescape(tail[1]),
                options=tail[2].decode("utf-8", "replace") if len(tail) > 2 else "",
            )
        )
    return entries


def unescape(field: bytes) -> bytes:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    return re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), field)


def read() -> list[MountEntry]:
    """The mounts that this process sees."""
    with open("/proc/self/mountinfo", "rb") as file:
        return parse(file.read())


def absolute(path: bytes) -> bytes:
    """The path with the current directory in front; nothing is looked up."""
    return path if path.startswith(b"/") else os.path.join(os.getcwdb(), path)


def locate(
    path: bytes,
    entries: list[MountEntry],
    readlink: Callable[[bytes], bytes] = os.readlink,
) -> tuple[bytes, MountEntry | None]:
    """The path with symlinks outside awayfs mounts followed, and the awayfs mount it is in.

    Inside a mount nothing is looked up, so ``..`` there counts lexically and the last
    component may be anything. Raises ``OSError`` (ELOOP) for symlinks in a circle.
    """
    at = {entry.mountpoint: entry for entry in entries}
    here = _followed(path, {place for place, entry in at.items() if entry.is_awayfs}, readlink)
    return b"/" + b"/".join(here), _mount_above(here, at)


def file_system_of(
    path: bytes,
    entries: list[MountEntry],
    readlink: Callable[[bytes], bytes] = os.readlink,
) -> MountEntry | None:
    """What is mounted where a path leads; nothing is asked of a network or FUSE file system."""
    at = {entry.mountpoint: entry for entry in entries}
    closed = {place for place, entry in at.items() if entry.may_hang}
    parts = _followed(path, closed, readlink)
    places = (b"/" + b"/".join(parts[:length]) for length in range(len(parts), -1, -1))
    return next((at[place] for place in places if place in at), None)


def _followed(path: bytes, closed: set[bytes], readlink: Callable[[bytes], bytes]) -> list[bytes]:
    """The parts of a path with its symlinks followed, but for those at and below ``closed``."""
    todo = [part for part in absolute(path).split(b"/") if part]
    links = 0
    here: list[bytes] = []
    while todo:
        part = todo.pop(0)
        if part == b".":
            continue
        if part == b"..":
            del here[-1:]
            continue
        here.append(part)
        place = b"/" + b"/".join(here)
        if _passes_through(here, closed):
            continue
        target = _target(place, readlink)
        if target is None:
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        here = [] if target.startswith(b"/") else here[:-1]
        todo = [piece for piece in target.split(b"/") if piece] + todo
    return here


def inner_path(path: bytes, entry: MountEntry) -> bytes:
    """The located path relative to the root of the file system that is mounted there."""
    below = path[len(entry.mountpoint) :] if entry.mountpoint != b"/" else path
    return b"/".join(part for part in (entry.root + b"/" + below).split(b"/") if part)


def _mount_above(parts: list[bytes], at: dict[bytes, MountEntry]) -> MountEntry | None:
    """The awayfs mount that holds a place; None where another mount is nearer."""
    for length in range(len(parts), -1, -1):
        entry = at.get(b"/" + b"/".join(parts[:length]))
        if entry is not None:
            return entry if entry.is_awayfs else None
    return None


def _passes_through(parts: list[bytes], closed: set[bytes]) -> bool:
    """Whether looking a place up would ask one of ``closed``, also on the way to another mount."""
    prefixes = (b"/" + b"/".join(parts[:length]) for length in range(len(parts) + 1))
    return any(prefix in closed for prefix in prefixes)


def _target(place: bytes, readlink: Callable[[bytes], bytes]) -> bytes | None:
    try:
        return readlink(place)
    except OSError:
        return None  # no symlink, or not there: taken as it is

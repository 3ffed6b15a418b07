"""Whether a directory can be mounted on, found out without hanging on a dead mount."""

from __future__ import annotations

import os
import select
import signal
import stat

from awayfs.cli.ask import Failed
from awayfs.control import mountinfo, mounts
from awayfs.control.messages import text_of

_LOCAL = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "rootfs", "overlay", "zfs", "f2fs")
)
_PROBE_WITHIN = 5.0


def check(place: bytes) -> bytes:
    """The absolute path of a directory to mount on; raises ``Failed`` where it is not fit."""
    shown = text_of(place)
    entries = mountinfo.read()
    resolved, inside = mountinfo.locate(place, entries)
    if inside is not None and inside.mountpoint == resolved:
        _refuse_mounted(shown, resolved)
    if inside is not None:
        raise Failed(f"{shown}: is inside another awayfs mount; choose a directory outside it")
    why = _examine(resolved) if _is_local(resolved, entries) else _probe(resolved)
    if why:
        raise Failed(f"{shown}: {why}")
    return resolved


def _refuse_mounted(shown: str, place: bytes) -> None:
    for mount in mounts.find_mounts():
        if mount.mountpoint == place and (mount.running or mount.elsewhere):
            raise Failed(f"{shown}: {mount.url} is already mounted there; see 'awayfs status'")
    raise Failed(f"{shown}: a dead mount is there; run 'awayfs umount {shown}' first")


def _is_local(path: bytes, entries: list[mountinfo.MountEntry]) -> bool:
    entry = mountinfo.file_system_of(path, entries)
    return entry is not None and entry.fstype in _LOCAL


def _examine(path: bytes) -> str:
    """Why it is not fit, or nothing."""
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return "is not a directory; give a directory"
        with os.scandir(path) as entries:
            if next(entries, None) is not None:
                return "is not empty; mount on an empty directory"
    except FileNotFoundError:
        return f"does not exist; run: mkdir -p {text_of(path)}"
    except OSError as error:
        return f"cannot be used: {error.strerror}; choose another directory"
    return ""


def _probe(path: bytes) -> str:
    """``_examine`` in a child, since a network file system may never answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"." + _examine(path).encode("utf-8", "surrogateescape"))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], _PROBE_WITHIN)[0]:
            os.kill(child, signal.SIGKILL)
            return "its file system does not answer; choose another directory"
        answer = os.read(reader, 4096)
        os.waitpid(child, 0)
    finally:
        os.close(reader)
    return answer[1:].decode("utf-8", "surrogateescape") if answer else "cannot be examined"

"""Which mounts of ours there are, and which of them a path is in."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property

from awayfs.control import mountinfo, paths, volumes
from awayfs.control.address import connectable
from awayfs.control.liveness import is_dead
from awayfs.control.messages import ControlError, bytes_of, text_of
from awayfs.control.urls import server_of


@dataclass(frozen=True)
class MountInfo:
    """One mount, as far as it can be known without asking its daemon."""

    volume: str  # the volume's id; empty for a mount that left no description
    url: str
    mountpoint: bytes
    pid: int
    started: int  # wall time, nanoseconds
    socket: str  # the control socket
    running: bool  # somebody listens on the socket, and is no daemon that was killed
    mounted: bool  # it is in this process's mount table

    @cached_property
    def elsewhere(self) -> bool:
        """Whether a live daemon serves it, whose socket is not where we look.

        The kernel is asked only about a mount that matters: while somebody looks into one that
        does not answer, it cannot be unmounted.
        """
        return not self.volume and self.mounted and not is_dead(self.mountpoint)


def announce(volume: str, url: str, mountpoint: bytes) -> None:
    """In the daemon: describe this process's mount for the commands to find."""
    paths.ensure_runtime()
    values = {
        "pid": os.getpid(),
        "mountpoint": text_of(mountpoint),
        "url": url,
        "started": time.time_ns(),
    }
    volumes.write_json(paths.info_file(volume), values)


def withdraw(volume: str) -> None:
    """In the daemon, as the last thing, with the store closed: take the description away.

    ``awayfs umount`` waits for this, and a new mount of the volume may follow at once.
    """
    try:
        os.unlink(paths.info_file(volume))
    except FileNotFoundError:
        pass


def find_mounts() -> list[MountInfo]:
    """All mounts of this user, by mount point: running ones and dead ones.

    A description whose daemon is gone and whose mount is gone is passed over.
    """
    entries = mountinfo.read()
    here = {entry.mountpoint for entry in entries if entry.is_awayfs}
    found: dict[bytes, MountInfo] = {}
    for directory in paths.runtime_dirs():
        for name in sorted(os.listdir(directory)):
            info = _described(directory, name, here)
            if info is not None and (info.running or info.mounted):
                present = found.get(info.mountpoint)
                if present is None or info.running > present.running:
                    found[info.mountpoint] = info
    described = {entry.device for entry in entries if entry.mountpoint in found}
    for entry in entries:
        if entry.is_awayfs and entry.user == os.getuid() and entry.device not in described:
            found.setdefault(entry.mountpoint, _undescribed(entry))
    return sorted(found.values(), key=lambda info: info.mountpoint)


def of_server(server: str, but: str) -> list[str]:
    """The control sockets of daemons that serve volumes of a server, but for one volume."""
    found = []
    for directory in paths.runtime_dirs():
        for name in sorted(os.listdir(directory)):
            info = _described(directory, name, set())
            if info is not None and info.volume != but and info.running:
                found += [info.socket] if server_of(info.url) == server else []
    return found


def mount_of(path: bytes) -> tuple[MountInfo, bytes]:
    """The mount that a path is in, and the path from the volume's root (``b""`` is the root).

    Raises ``ControlError`` (kind ``usage``) where it is in no mount of ours.
    """
    shown = text_of(path)
    entries = mountinfo.read()
    try:
        place, entry = mountinfo.locate(path, entries)
    except OSError as error:
        raise ControlError(f"{shown}: {error.strerror}; give another path", "usage") from None
    if entry is None:
        raise ControlError(
            f"{shown}: not inside an awayfs mount; see 'awayfs status' for the mounts there are",
            "usage",
        )
    inner = mountinfo.inner_path(place, entry)
    mount = _of_entry(entry, entries)
    if mount is None:
        raise ControlError(
            f"{shown}: is in a mount of uid {entry.user}; run this as that user", "usage"
        )
    return mount, inner


def _of_entry(entry: mountinfo.MountEntry, entries: list[mountinfo.MountEntry]) -> MountInfo | None:
    """Our mount behind an entry, which may be a bind mount of it."""
    places = {other.mountpoint for other in entries if other.device == entry.device}
    for mount in find_mounts():
        if mount.mountpoint in places:
            return mount
    return None


def _described(directory: str, name: str, here: set[bytes]) -> MountInfo | None:
    volume, suffix = os.path.splitext(name)
    if suffix != ".json":
        return None
    values = volumes.read_json(os.path.join(directory, name))
    mountpoint, url = values.get("mountpoint"), values.get("url")
    if not isinstance(mountpoint, str) or not isinstance(url, str):
        return None
    pid, started = values.get("pid"), values.get("started")
    address = os.path.join(directory, volume + ".sock")
    return MountInfo(
        volume=volume,
        url=url,
        mountpoint=bytes_of(mountpoint),
        pid=pid if isinstance(pid, int) else 0,
        started=started if isinstance(started, int) else 0,
        socket=address,
        running=connectable(address) and not (isinstance(pid, int) and _is_killed(pid)),
        mounted=bytes_of(mountpoint) in here,
    )


def _undescribed(entry: mountinfo.MountEntry) -> MountInfo:
    """A mount that only the mount table tells of: of other XDG directories, or left behind."""
    url = entry.source.decode("utf-8", "surrogateescape")
    return MountInfo("", url, entry.mountpoint, 0, 0, "", running=False, mounted=True)


def is_served(mount: MountInfo) -> bool:
    """Whether the mount's daemon is there and has not withdrawn its description yet."""
    if not os.path.exists(_description(mount)):
        return False
    return os.path.exists(f"/proc/{mount.pid}/stat") and not _is_killed(mount.pid)


def lingers(mount: MountInfo) -> bool:
    """Whether the mount's daemon was killed, and a thread of it is still in the kernel.

    With that, all that it had open is: the lock of the volume, and the connection.
    """
    try:
        return _is_killed(mount.pid) and len(os.listdir(f"/proc/{mount.pid}/task")) > 1
    except OSError:
        return False


def _is_killed(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return False


def is_described(mount: MountInfo) -> bool:
    """Whether the description of this mount is there, and not that of a later one."""
    return volumes.read_json(_description(mount)).get("pid") == mount.pid


def _description(mount: MountInfo) -> str:
    return os.path.splitext(mount.socket)[0] + ".json"


def clear_leftovers(mount: MountInfo) -> None:
    """Remove what a daemon that was killed left in the runtime directory."""
    if not mount.socket or (connectable(mount.socket) and not _is_killed(mount.pid)):
        return
    base = os.path.splitext(mount.socket)[0]
    for path in (mount.socket, base + ".events", base + ".json"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

"""``volume.json``: what is known of a volume while its daemon does not run.

The daemon writes it, with ``pending`` null from the moment it mounts until it has unmounted
in good order: a daemon that was killed leaves "unknown" behind, never a false "nothing".
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from awayfs.control import paths
from awayfs.core.errors import StoreInUse

LOCK = "lock"
"""A file in a volume's directory: an flock on it is held by whoever uses the state there."""

LOST = "lost+found"
"""A directory in there: content that may be unsent, and that nothing else tells of."""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume that this machine has state of. Times are integer nanoseconds, 0 is unknown."""

    volume: str
    url: str
    created: int = 0
    last_mounted: int = 0
    pending: int | None = None  # records in the journal; None: not known


def read(volume: str) -> VolumeInfo | None:
    """What is written of a volume; fields that cannot be read count as unknown.

    A directory with nothing but a log in it belongs to a mount that never came about.
    """
    directory = paths.volume_dir(volume)
    if not os.path.isdir(directory) or set(os.listdir(directory)) <= {"daemon.log"}:
        return None
    values = read_json(os.path.join(directory, "volume.json"))
    url, pending = values.get("url"), values.get("pending")
    return VolumeInfo(
        volume=volume,
        url=url if isinstance(url, str) else "",
        created=_time(values.get("created")),
        last_mounted=_time(values.get("last_mounted")),
        pending=pending if isinstance(pending, int) and not isinstance(pending, bool) else None,
    )


def known() -> list[VolumeInfo]:
    """All volumes of the state directory, by id."""
    try:
        names = sorted(os.listdir(paths.volumes_dir()))
    except FileNotFoundError:
        return []
    found = [read(name) for name in names if not name.startswith(".")]
    return [info for info in found if info is not None]


def note_mounted(volume: str, url: str) -> None:
    """In the daemon, before anything is acknowledged: what is pending is not known from now on."""
    now = time.time_ns()
    before = read(volume)
    created = before.created if before and before.created else now
    _write(VolumeInfo(volume, url, created, last_mounted=now, pending=None))


def note_unmounted(volume: str, url: str, pending: int) -> None:
    """In the daemon, after the store is closed: so many records wait for the next mount."""
    before = read(volume) or VolumeInfo(volume, url)
    _write(VolumeInfo(volume, url, before.created, before.last_mounted, pending))


@contextmanager
def unused(volume: str) -> Iterator[None]:
    """Keep daemons away from a volume's state; raises ``StoreInUse`` where one has it."""
    with open(os.path.join(paths.volume_dir(volume), LOCK), "ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(32).decode("ascii", "replace").strip() or "unknown"
            raise StoreInUse(f"{volume}: is in use by process {holder}") from None
        yield


def lost_and_found(volume: str) -> int:
    """How many contents a salvage, or a repair, has put aside there."""
    try:
        return len(os.listdir(os.path.join(paths.volume_dir(volume), LOST)))
    except FileNotFoundError:
        return 0


def read_json(path: str) -> dict[str, Any]:
    """The object in a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: str, values: dict[str, Any]) -> None:
    """Replace a file by an object, durably and at once."""
    staged = f"{path}.new"
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        json.dump(values, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write(info: VolumeInfo) -> None:
    values = asdict(info)
    values.pop("volume")
    directory = paths.ensure_volume(info.volume)
    write_json(os.path.join(directory, "volume.json"), values)


def _time(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0

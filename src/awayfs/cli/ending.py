"""Waiting for the end of a daemon whose mount is gone.

It makes durable what it has, which takes a slow disk as long as it takes: like ``umount(8)``,
``awayfs umount`` returns when that is done. Whoever does not want to wait for it may leave.
"""

from __future__ import annotations

import os
import time

from awayfs.cli import show
from awayfs.cli.ask import Failed, shown
from awayfs.control import mounts
from awayfs.control.client import MountInfo

_STEP = 0.02
_TOLD_AFTER = 10.0
_IDLE_FOR = 30.0
"""So long a daemon may do nothing, and wait for no disk, before it is taken to be stuck."""

Work = tuple[bytes, ...]


def until_ended(target: MountInfo) -> None:
    """Wait until the daemon has let go of the volume, so that it can be mounted again at once.

    One line tells of it where that takes long. Raises ``Failed`` when the daemon died before all
    was durable, or is stuck.
    """
    begun = moved = time.monotonic()
    done, told, served = work_of(target.pid), False, False
    while mounts.is_served(target):
        served, now = True, time.monotonic()
        if not told and now - begun > _TOLD_AFTER:
            told = True
            show.complain(f"{shown(target)}: unmounted; what is kept is still being saved {_LEAVE}")
        if (more := work_of(target.pid)) != done or waits_for_disk(target.pid):
            done, moved = more, now
        elif now - moved > _IDLE_FOR:
            raise Failed(f"{shown(target)}: unmounted, but {_daemon(target)} does not end; {_LOG}")
        time.sleep(_STEP)
    if served and mounts.is_described(target):
        raise Failed(f"{shown(target)}: unmounted, but {_daemon(target)} died on the way; {_LOG}")


_LEAVE = "(it goes on when this command is interrupted)"
_LOG = "what was not sent is kept; see its daemon.log"


def _daemon(target: MountInfo) -> str:
    return f"its daemon (process {target.pid})"


def work_of(pid: int) -> Work:
    """What a process has used of the processor and moved so far; to be compared with later.

    See proc_pid_stat(5), fields 14 and 15, and proc_pid_io(5).
    """
    return (*_fields(f"/proc/{pid}/stat")[11:13], _read(f"/proc/{pid}/io"))


def waits_for_disk(pid: int) -> bool:
    """Whether one of a process's threads is in the kernel and cannot be interrupted there."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(_fields(f"/proc/{pid}/task/{thread}/stat")[:1] == [b"D"] for thread in threads)


def _fields(path: str) -> list[bytes]:
    """Those after the name, which may contain anything: the state is the first."""
    return _read(path).rpartition(b") ")[2].split()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""

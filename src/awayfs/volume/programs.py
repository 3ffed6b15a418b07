"""Running a program for a rule: bounded in time and output, and gone afterwards with its group.

No shell. It gets a session, and so a process group, of its own; the group is killed when the
time is up, when the daemon ends, and also after the program ended, before its number can be
given to another group. What makes a session of its own (setsid) stays: it is the user's program.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OUTPUT_NAME = "output"
SAID = 2000
"""Bytes of what it said that are looked at."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended. ``status`` is negative for a signal, None when the time was up."""

    status: int | None
    said: str


async def run(
    command: Sequence[str],
    directory: str,
    environment: Mapping[str, str],
    limit_s: float,
    largest: int,
) -> Ended:
    """Run ``command`` in ``directory``; no file it writes is longer than ``largest``.

    Raises OSError when it cannot be started.
    """
    output = os.path.join(directory, OUTPUT_NAME)
    fd = os.open(output, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(  # noqa: ASYNC220
            list(command),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            start_new_session=True,
        )
        try:
            _bound(process.pid, largest)
            in_time = await _ended(process.pid, limit_s)
        finally:
            _kill_group(process.pid)
            status = process.wait()
        return Ended(status if in_time else None, _last_line(fd))
    finally:
        os.close(fd)


def _bound(pid: int, largest: int) -> None:
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, largest))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        pass  # it has ended by now, or is bound more tightly already


async def _ended(pid: int, limit_s: float) -> bool:
    """Wait for the end without taking note of it: the number stays taken until ``wait``."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    pidfd = os.pidfd_open(pid)
    loop.add_reader(pidfd, over.set)
    try:
        await asyncio.wait_for(over.wait(), limit_s)
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # nobody is left


def _last_line(fd: int) -> str:
    size = os.fstat(fd).st_size
    text = os.pread(fd, SAID, max(0, size - SAID)).decode("utf-8", "replace").strip()
    line = text.splitlines()[-1] if text else ""
    return "".join(char if char.isprintable() else "?" for char in line)[:200]

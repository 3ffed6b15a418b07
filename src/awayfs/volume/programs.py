"""Running a program for a rule: bounded in time and output, and gone afterwards with all it began.

No shell. A keeper (``program_keeper``) runs it and has all that comes of it for its descendants,
in whatever session. When the program ended, when the time is up, and when the daemon is gone, the
keeper kills them and ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from msgspec import Struct

from awayfs.volume import program_keeper

OUTPUT_NAME = "output"
SAID = 2000
"""Bytes of what it said that are looked at."""
KEEPER = (sys.executable, "-I", "-S", program_keeper.__file__)
GONE_S = program_keeper.PATIENCE_S + 2.0
"""So long the end of what was killed is waited for: it may be waiting for our own mount."""


class Ended(Struct, frozen=True):
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
        keeper = subprocess.Popen(  # noqa: ASYNC220
            [*KEEPER, str(largest), *command],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=fd,
            start_new_session=True,
        )
        assert keeper.stdin is not None and keeper.stdout is not None
        with keeper.stdout:
            try:
                in_time = await _ended(keeper.pid, limit_s)
            finally:
                keeper.stdin.close()
                gone = await _ended(keeper.pid, GONE_S) and keeper.wait() is not None
            told = keeper.stdout.read().split() if gone else []
        return Ended(_status(told) if in_time else None, _last_line(fd))
    finally:
        os.close(fd)


def _status(told: list[bytes]) -> int:
    """The program's status by what the keeper said; OSError when it was not started."""
    match told:
        case [b"ended", status]:
            return int(status)
        case [b"failed", number]:
            raise OSError(int(number), os.strerror(int(number)))
    return -signal.SIGKILL  # the keeper was killed


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


def _last_line(fd: int) -> str:
    size = os.fstat(fd).st_size
    text = os.pread(fd, SAID, max(0, size - SAID)).decode("utf-8", "replace").strip()
    line = text.splitlines()[-1] if text else ""
    return "".join(char if char.isprintable() else "?" for char in line)[:200]

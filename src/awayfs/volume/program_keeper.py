"""Runs a program, and ends with it all that it started: a process between it and the daemon.

    python -I -S program_keeper.py LARGEST COMMAND...

Whatever the program leaves behind becomes a child of this process (PR_SET_CHILD_SUBREAPER), also
what has a session of its own. All of it is killed when the program has ended, and when standard
input ends: the time is up, or the daemon is gone. The program gets standard error for its output,
and writes no file longer than LARGEST bytes. Standard output then says ``ended STATUS`` (negative
for a signal), or ``failed ERRNO`` when it could not be started. Nothing of awayfs is imported.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 10.0
"""For so long what was killed may take to be gone; another user's process never is."""
PAUSE_S = 0.01


def main(arguments: list[str]) -> int:
    """Run the command; the exit status."""
    largest, *command = arguments
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    bound(resource.RLIMIT_FSIZE, int(largest))
    bound(resource.RLIMIT_CORE, 0)
    children = told_of_children()
    try:
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
    except OSError as error:
        print("failed", error.errno)
        return 1
    status = wait(program.pid, children)
    kill_all()
    if status is not None:
        print("ended", status)
    return 0


def bound(what: int, limit: int) -> None:
    """Set a limit for all that is started from now on, unless a lower one holds already."""
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


def told_of_children() -> int:
    """A descriptor that can be read when a child has ended."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


def wait(program: int, children: int) -> int | None:
    """The program's status once it has ended; None when standard input ended first."""
    while True:
        ready = select.select([0, children], [], [])[0]
        if children in ready:
            os.read(children, 4096)
            ended = reaped()
            if program in ended:
                return ended[program]
        if 0 in ready and not os.read(0, 1):
            return None


def reaped() -> dict[int, int]:
    """The children that have ended, with their status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_all() -> None:
    """Kill every descendant, until there is none: what one of them starts meanwhile, too."""
    until = time.monotonic() + PATIENCE_S
    while (found := descendants()) and time.monotonic() < until:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # gone by now, or another user's
        time.sleep(PAUSE_S)
        reaped()


def descendants() -> list[int]:
    """Our children, their children and so on; those that wait to be reaped by us left out."""
    reaped()
    inside: dict[int, list[int]] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
        inside.setdefault(parent, []).append(int(pid))
    found: list[int] = []
    pending = [os.getpid()]
    while pending:
        children = inside.get(pending.pop(), [])
        found += children
        pending += children
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

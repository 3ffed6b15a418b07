"""The checks of ``awayfs doctor``; each answers with what it found and what would help."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from awayfs.cli.ask import shown
from awayfs.control import mountinfo, mounts, paths
from awayfs.core.errors import AwayfsError

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``level`` is ok, warn or fail."""

    name: str
    level: str
    text: str
    advice: str = ""


def findings_of(checks: Iterable[Callable[[], Finding]]) -> list[Finding]:
    """What each check found; one that breaks is itself a warning."""
    findings = []
    for check in checks:
        try:
            findings.append(check())
        except (OSError, ValueError, AwayfsError, subprocess.SubprocessError) as error:
            findings.append(Finding(check.__name__, "warn", f"could not be checked: {error}"))
    return findings


def python() -> Finding:
    """Its version."""
    version = platform.python_version()
    if sys.version_info < (3, 11):  # noqa: UP036  (the point of the check)
        return Finding("python", "fail", version, "use Python 3.11 or newer")
    return Finding("python", "ok", version)


def sqlite() -> Finding:
    """The library's version, asked in another process: only the store opens databases."""
    code = "import sqlite3; print(sqlite3.sqlite_version)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    version = done.stdout.strip()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version))
    if not numbers:
        return Finding("sqlite", "fail", "Python has no sqlite3", "install Python's sqlite3 module")
    if numbers < (3, 35):
        return Finding("sqlite", "fail", version, "use SQLite 3.35 or newer")
    return Finding("sqlite", "ok", version)


def kernel() -> Finding:
    """Its version, and which FUSE features come with it."""
    release = platform.release()
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if numbers < (5, 4):
        return Finding("kernel", "warn", release, "Linux 5.4 or newer is better tested")
    if numbers < (6, 9):
        return Finding("kernel", "ok", f"{release}, without FUSE passthrough (Linux 6.9)")
    if os.geteuid() != 0:
        return Finding("kernel", "ok", f"{release}; FUSE passthrough is for root only")
    return Finding("kernel", "ok", f"{release}, with FUSE passthrough")


def fuse_device() -> Finding:
    """/dev/fuse is there and may be opened."""
    device = "/dev/fuse"
    try:
        status = os.stat(device)
    except FileNotFoundError:
        return Finding("fuse", "fail", f"{device} is missing", "run: modprobe fuse")
    if not stat.S_ISCHR(status.st_mode):
        return Finding("fuse", "fail", f"{device} is no device", "recreate it: mknod, c 10 229")
    if not os.access(device, os.R_OK | os.W_OK):
        mode = stat.S_IMODE(status.st_mode)
        text = f"{device} may not be opened (mode {mode:04o})"
        return Finding("fuse", "fail", text, "run as root: chmod 666 /dev/fuse")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        text = f"{device}: {error.strerror}"
        return Finding("fuse", "fail", text, "in a container, pass the device in")
    return Finding("fuse", "ok", f"{device} can be opened")


def fusermount() -> Finding:
    """Needed by everybody but root."""
    tool = shutil.which("fusermount3")
    if tool is None:
        level = "ok" if os.geteuid() == 0 else "fail"
        advice = "" if level == "ok" else "install the package fuse3"
        return Finding("fusermount3", level, "not installed (root does without)", advice)
    status = os.stat(tool)
    if os.geteuid() != 0 and not (status.st_mode & stat.S_ISUID and status.st_uid == 0):
        return Finding("fusermount3", "fail", f"{tool} is not setuid root", "reinstall fuse3")
    return Finding("fusermount3", "ok", tool)


def allow_other() -> Finding:
    """``-o allow_other`` is root's unless the machine allows it to all."""
    if os.geteuid() == 0:
        return Finding("allow_other", "ok", "root may use it")
    try:
        with open("/etc/fuse.conf", encoding="utf-8", errors="replace") as file:
            allowed = any(line.strip() == "user_allow_other" for line in file)
    except OSError:
        allowed = False
    if allowed:
        return Finding("allow_other", "ok", "allowed by /etc/fuse.conf")
    advice = "where it is wanted, put user_allow_other into /etc/fuse.conf"
    return Finding("allow_other", "ok", "not allowed to users", advice)


def state() -> Finding:
    """The state directory is private, writable, local, durable and has room."""
    try:
        directory = paths.ensure_state()
        probe = os.path.join(directory, f".doctor-{os.getpid()}")
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(probe)
    except AwayfsError as error:
        return Finding("state", "fail", str(error))
    except OSError as error:
        text = f"{paths.state_dir()} is not writable: {error.strerror}"
        return Finding("state", "fail", text, "set XDG_STATE_HOME to a writable place")
    entry = mountinfo.file_system_of(os.fsencode(directory), mountinfo.read())
    fstype = entry.fstype if entry else ""
    if entry and entry.may_hang:
        advice = "set XDG_STATE_HOME to a local disk"
        return Finding("state", "warn", f"{directory} is on {fstype}", advice)
    if fstype in ("tmpfs", "ramfs"):
        advice = "unsent changes do not survive a reboot: set XDG_STATE_HOME to a disk"
        return Finding("state", "warn", f"{directory} is on {fstype}", advice)
    return _room(directory, fstype)


def _room(directory: str, fstype: str) -> Finding:
    free = shutil.disk_usage(directory).free
    text = f"{directory} on {fstype or 'an unknown file system'}, {free // _MIB} MiB free"
    if free < 64 * _MIB:
        return Finding("state", "fail", text, "make room: changes could not be kept")
    if free < 1024 * _MIB:
        return Finding("state", "warn", text, "make room for the cache")
    return Finding("state", "ok", text)


def runtime() -> Finding:
    """The directory of the control sockets is private."""
    try:
        return Finding("runtime", "ok", paths.ensure_runtime())
    except AwayfsError as error:
        return Finding("runtime", "fail", str(error))


def clock() -> Finding:
    """Right enough: versions and certificates go by it."""
    now = time.gmtime()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", now)
    if not 2024 <= now.tm_year < 2100:
        return Finding("clock", "fail", text, "set the clock: timedatectl set-ntp true")
    if time.time() < os.stat(__file__).st_mtime - 86400:
        text += ", before awayfs was installed"
        return Finding("clock", "warn", text, "set the clock: timedatectl set-ntp true")
    return Finding("clock", "ok", text)


def dead_mounts() -> Finding:
    """Mounts whose daemon is gone."""
    found = mounts.find_mounts()
    dead = [shown(mount) for mount in found if not (mount.running or mount.elsewhere)]
    if dead:
        advice = f"mount it again, or run: awayfs umount {dead[0]}"
        return Finding("mounts", "warn", f"dead: {', '.join(dead)}", advice)
    here = sum(mount.running for mount in found)
    foreign = [shown(mount) for mount in found if mount.elsewhere]
    others = f", with their state elsewhere: {', '.join(foreign)}" if foreign else ""
    return Finding("mounts", "ok", f"{here} running, none dead{others}")


def orphans() -> Finding:
    """Adapters' processes whose daemon is gone. A daemon is never one of them.

    They end with their daemon, unless they hang in the kernel; who takes them over is init, or
    a service manager, which is in another session than they are.
    """
    lost = [str(process.pid) for process in _processes() if _is_lost_worker(process)]
    if lost:
        advice = f"run: kill {' '.join(lost)}"
        return Finding("processes", "warn", f"left over: {', '.join(lost)}", advice)
    return Finding("processes", "ok", "none left over")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    session: int
    uid: int
    command: list[bytes]

    def runs(self, module: bytes) -> bool:
        """Whether it was started with ``-m MODULE``."""
        return any(pair == (b"-m", module) for pair in pairwise(self.command))


def _is_lost_worker(process: _Process) -> bool:
    if not process.runs(b"awayfs.remotes.worker"):
        return False
    parent = _process(process.parent)
    return parent is not None and parent.session != process.session


def _processes() -> list[_Process]:
    """This user's processes."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = [process for pid in pids if (process := _process(pid)) is not None]
    return [process for process in found if process.uid == os.geteuid()]


def _process(pid: int) -> _Process | None:
    """One process; None when it ended meanwhile."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().split(b"\0")
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return _Process(pid, int(fields[1]), int(fields[3]), uid, command)


CHECKS: tuple[Callable[[], Finding], ...] = (
    kernel,
    fuse_device,
    fusermount,
    allow_other,
    state,
    runtime,
    clock,
    python,
    sqlite,
    dead_mounts,
    orphans,
)

"""Real mounts of real servers for tests: start, cut, kill, compare, and always clean up.

Nothing here looks into a mount from the test process without a time limit being possible:
programs run as subprocesses with a timeout, and ``tree`` runs in one too when asked to.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from awayfs.control.client import Client as ControlClient
from awayfs.control.client import ControlError
from tests.preforked import preforked
from tests.sshd import SSHD, Sshd

PATIENCE_S = 60.0

COMMAND = (sys.executable, "-m", "awayfs")

can_mount = os.access("/dev/fuse", os.R_OK | os.W_OK) and (
    os.geteuid() == 0 or shutil.which("fusermount3") is not None
)
needs_fuse = [
    pytest.mark.fuse,
    pytest.mark.skipif(not can_mount, reason="no /dev/fuse, or no right to mount"),
]


def eventually(check: Callable[[], Any], what: str, timeout: float = PATIENCE_S) -> Any:
    """The first true value of ``check``; fails after ``timeout`` seconds.

    Generous, since waiting ends early: a busy machine starts a daemon in ten seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.05)


def run(*command: str, timeout: float = PATIENCE_S, check: bool = True, **more: Any) -> str:
    """Run a program with a time limit; its output. Hanging is a failure like any other."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", timeout=timeout, **more
    )
    return _output(command, done) if check else done.stdout


def _output(command: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        raise AssertionError(f"{command} gave {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class DirServer:
    """``dir:`` on a local directory; cutting it makes the directory disappear."""

    scheme = "dir"
    time_grain_ns = 1
    special_files = True

    def __init__(self, base: str) -> None:
        self.root = os.path.join(base, "server")
        os.makedirs(self.root, exist_ok=True)
        self.url = f"dir:{self.root}"
        self.options = ""

    def cut(self) -> None:
        """The share is gone, as when an export is unmounted."""
        os.rename(self.root, self.root + ".away")

    def restore(self) -> None:
        """The share is back."""
        os.rename(self.root + ".away", self.root)

    @property
    def files(self) -> str:
        """Where the server's files are now, cut or not."""
        return self.root if os.path.isdir(self.root) else self.root + ".away"

    def close(self) -> None:
        """Nothing runs."""


class SftpServer:
    """``sftp:`` on a real sshd; cutting it kills the server and its sessions."""

    scheme = "sftp"
    time_grain_ns = 1_000_000_000
    special_files = False

    def __init__(self, base: str) -> None:
        self.root = self.files = os.path.join(base, "server")
        os.makedirs(self.root, exist_ok=True)
        self.sshd = Sshd(os.path.join(base, "sshd"))
        self.sshd.start()
        self.url = f"sftp://{self.sshd.user}@127.0.0.1:{self.sshd.port}{self.root}"
        self.options = ",".join(f"{name}={value}" for name, value in self.sshd.options.items())

    def cut(self) -> None:
        """The server dies."""
        self.sshd.kill()

    def restore(self) -> None:
        """The server is back on the same port."""
        self.sshd.start()

    def close(self) -> None:
        """Stop the server."""
        self.sshd.kill()


Server = DirServer | SftpServer


@dataclass
class Client:
    """One user's awayfs: state and runtime directories of its own, and a mount."""

    base: str
    server: Server
    name: str = "client"
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = COMMAND
    anew: bool = False
    """Whether ``mount`` begins interpreters anew, too, as ``awayfs`` does."""

    def __post_init__(self) -> None:
        self.home = os.path.join(self.base, self.name)
        self.mountpoint = os.path.join(self.home, "mnt")
        self.state = os.path.join(self.home, "state")
        self.runtime = os.path.join(self.home, "run")
        for path in (self.mountpoint, self.state, self.runtime):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, 0o700)

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "XDG_STATE_HOME": self.state,
            "XDG_RUNTIME_DIR": self.runtime,
            "AWAYFS_LOG": os.environ.get("AWAYFS_LOG", "DEBUG"),
            "SSH_ASKPASS_REQUIRE": "never",  # nobody at this machine is asked anything
            "DBUS_SESSION_BUS_ADDRESS": "",
            **self.environment,
        }

    def awayfs(self, *args: str, check: bool = True, timeout: float = PATIENCE_S) -> str:
        """Run a command; its standard output."""
        return run(
            *self.command,
            *args,
            check=check,
            timeout=timeout,
            env=self.env,
        )

    def fails(self, *args: str, code: int = 1, timeout: float = PATIENCE_S) -> str:
        """Run a command that must fail with ``code`` and say why in one line; that line."""
        done = subprocess.run(
            [*self.command, *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.env,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        lines = done.stderr.strip().splitlines()
        if code == 1:
            assert len(lines) == 1, done.stderr
        assert lines, "nothing was said"
        return lines[-1]

    def mount(self, options: str = "", *, fault: str = "") -> None:
        """Mount; ``fault`` names a crash point (``volume/fault.py``) for the daemon."""
        self.environment["AWAYFS_FAULT"] = fault
        given = ",".join(part for part in (self.server.options, options) if part)
        extra = ["-o", given] if given else []
        self._forked("mount", self.server.url, self.mountpoint, *extra)

    def _forked(self, *args: str) -> str:
        """As ``awayfs``, and what is started with it, without interpreters that begin anew."""
        if self.anew or self.command != COMMAND:
            return self.awayfs(*args)
        return _output(args, preforked.run(args, self.env, PATIENCE_S))

    def ask(self, method: str, timeout: float = PATIENCE_S, **params: Any) -> dict[str, Any]:
        """What the daemon tells the command, without a process that is started to ask.

        That takes longer than most answers; the commands themselves have tests of their own.
        """
        running = [path for path, told in self.told() if told["mountpoint"] == self.mountpoint]
        assert running, f"{self.mountpoint}: no daemon runs"
        try:
            with ControlClient(running[0].removesuffix(".json") + ".sock") as control:
                return control.call(method, {"path": "", **params}, timeout)
        except ControlError as error:
            raise AssertionError(f"{method}: {error}") from error

    def status(self) -> dict[str, Any]:
        """What ``awayfs status --json MOUNTPOINT`` says."""
        return self.ask("status")

    def told(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The descriptions that daemons left of themselves."""
        for directory in (os.path.join(self.runtime, "awayfs"), f"{self.state}/awayfs/run"):
            for path in glob.glob(f"{glob.escape(directory)}/*.json"):
                with contextlib.suppress(FileNotFoundError), open(path) as file:
                    yield path, json.load(file)

    @property
    def pid(self) -> int:
        """The daemon's pid, from its description (works while it does not answer)."""
        return next((int(told["pid"]) for _, told in self.told()), 0)

    @property
    def log(self) -> str:
        """The daemon's log."""
        volumes = os.path.join(self.state, "awayfs", "volumes")
        for entry in os.listdir(volumes):
            with open(os.path.join(volumes, entry, "daemon.log"), errors="replace") as file:
                return file.read()
        return ""

    def conflicts(self) -> list[dict[str, Any]]:
        """What ``awayfs conflicts --json`` lists."""
        found = self.ask("conflicts")["conflicts"]
        return [{"mountpoint": self.mountpoint, **conflict} for conflict in found]

    def sync(self, *, check: bool = True) -> None:
        """Replay and wait until the journal is empty or stuck, which fails with ``check``."""
        try:
            reply = self.ask("sync", timeout=300, wait=True)
        except AssertionError:
            if check:
                raise
            return
        left = {name: reply.get(name) for name in ("stuck", "pending", "parked")}
        assert not check or not any(left.values()), f"not all is sent: {reply}"

    def offline(self) -> None:
        """Go offline by hand."""
        self.ask("offline")

    def online(self) -> None:
        """Go online by hand."""
        self.ask("online")

    def kill(self) -> None:
        """kill -9 the daemon and clear the dead mount away, as the next mount would have to."""
        pid = self.pid
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.clear()
        eventually(lambda: not (pid and alive(pid)), "the daemon's end")

    def clear(self) -> None:
        """Take a dead mount away, and with it whoever waits in there, as ``awayfs mount`` does."""
        for _ in range(5):
            if not self.is_mounted():
                return
            subprocess.run(
                ["umount", "-f", "-l", self.mountpoint], capture_output=True, check=False
            )

    def is_mounted(self) -> bool:
        """Whether the mount is in the mount table."""
        with open("/proc/self/mountinfo") as file:
            return any(line.split()[4] == self.mountpoint for line in file)

    def umount(self) -> str:
        """Unmount in good order; what was said."""
        return self._forked("umount", self.mountpoint)

    def path(self, *parts: str) -> str:
        """A path in the mount."""
        return os.path.join(self.mountpoint, *parts)

    def on_server(self, *parts: str) -> Path:
        """A path on the server, past the mount."""
        return Path(self.server.root, *parts)

    def close(self) -> None:
        """End everything, also after a failure."""
        self.kill()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has collected does not.

    A thread that waits for the disk outlives SIGKILL and the thread that was first for a while, and
    with it do the sockets and locks of the process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ended = file.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
        return not ended or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def make_server(kind: str, base: str) -> Server:
    """``dir`` or ``sftp``; skips by name where there is no sshd."""
    if kind == "dir":
        return DirServer(base)
    if not os.access(SSHD, os.X_OK):
        pytest.skip("no OpenSSH server here (Debian: apt install openssh-server)")
    return SftpServer(base)


@contextlib.contextmanager
def mounted(kind: str, base: str, options: str = "") -> Iterator[Client]:
    """A server of ``kind`` and a client that has it mounted."""
    server = make_server(kind, base)
    client = Client(base, server)
    try:
        client.mount(options)
        yield client
    finally:
        client.close()
        server.close()


def tree(root: str, *, mtime_grain_ns: int = 1, directories_mtime: bool = True) -> dict[str, Any]:
    """A whole tree as a value: type, mode, size and digest, mtime, target, hard-link group.

    Two trees are equal when these values are. Hard-link groups are named by their first path. A
    fence of a program on the server (``remotes.names``) is in none.
    """
    found: dict[str, Any] = {}
    groups: dict[int, str] = {}
    for directory, names, files in os.walk(os.fsencode(root)):
        names.sort()
        for name in sorted([*names, *files]):
            if name.startswith(b".awayfs-") and name.endswith(b".fence"):
                continue
            path = os.path.join(directory, name)
            shown = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            found[shown] = _facts(path, shown, groups, mtime_grain_ns, directories_mtime)
    return found


def _facts(
    path: bytes, shown: str, groups: dict[int, str], grain: int, directories_mtime: bool
) -> tuple[Any, ...]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    mtime: int | None = status.st_mtime_ns // grain * grain
    if kind == stat.S_IFDIR:
        return (kind, stat.S_IMODE(status.st_mode), mtime if directories_mtime else None)
    group = groups.setdefault(status.st_ino, shown)
    if kind == stat.S_IFLNK:
        return (kind, os.readlink(path), group)
    digest = None
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()
    return (kind, stat.S_IMODE(status.st_mode), status.st_size, digest, mtime, group)


def assert_same_tree(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Compare two ``tree`` values, naming the differences."""
    differences = [
        f"{path}: {left.get(path)} != {right.get(path)}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]
    assert not differences, "\n".join(differences[:20])

"""A real OpenSSH server on 127.0.0.1, of one's own: keys, config, port and processes.

Works as root and as a plain user; serves the account that runs the tests. Everything lies in
a directory that the caller gives (and removes).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
SFTP_SERVER = "internal-sftp"
"""Served by sshd itself: an external server is started by the account's shell, and what that does
at login (a rehash of shims, a mail check) may take seconds, or wait for a lock.
"""

_libc = ctypes.CDLL(None, use_errno=True)

needs_sshd = [
    pytest.mark.sshd,
    pytest.mark.skipif(
        not os.access(SSHD, os.X_OK) or shutil.which("ssh-keygen") is None,
        reason="no OpenSSH server here (Debian: apt install openssh-server)",
    ),
]


class Sshd:
    """One server. ``directory`` holds its files; ``sftp_only`` forbids a shell.

    ``extra`` are lines for sshd_config; ``sftp_arguments`` go to the SFTP server.
    """

    authentication: tuple[str, ...] = ("PasswordAuthentication no",)
    ways: tuple[str, ...] = ("KbdInteractiveAuthentication no", "UsePAM no")

    def __init__(
        self,
        directory: str,
        *,
        sftp_only: bool = False,
        sftp_arguments: str = "",
        extra: str = "",
    ) -> None:
        self.directory = directory
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.port = free_port()
        self.command: list[str] = []
        self._frozen: list[int] = []  # descriptors (pidfd_open(2)): a pid may be another's by then
        self.identity = self._path("user_key")
        self.known_hosts = self._path("known_hosts")
        self._process: subprocess.Popen[bytes] | None = None
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.new_host_key()
        self.trust()
        make_key(self.identity)
        shutil.copy(self.identity + ".pub", self._path("authorized_keys"))
        self._configure(sftp_only, sftp_arguments, extra)

    @property
    def options(self) -> dict[str, str]:
        """Options with which ``SftpRemote`` can log in here."""
        return {
            "identity": self.identity,
            "known_hosts": self.known_hosts,
            "ssh_config": os.devnull,
        }

    def new_host_key(self) -> None:
        """Give the server a (new) host key; ``trust`` makes it known."""
        for suffix in ("", ".pub"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path("host_key") + suffix)
        make_key(self._path("host_key"))

    def trust(self) -> None:
        """Write known_hosts for the present key."""
        with open(self._path("host_key.pub")) as file:
            key = " ".join(file.read().split()[:2])
        with open(self.known_hosts, "w") as file:
            file.write(f"[127.0.0.1]:{self.port} {key}\n")

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert self._process is None, "already started"
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        # stderr goes to a file: a pipe that nobody reads would stop the server in the end
        with open(self._path("log"), "ab") as log:
            self._process = subprocess.Popen(
                [*self.command, SSHD, "-D", "-e", "-f", self._path("sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                with open(self._path("log"), errors="replace") as log_text:
                    text = log_text.read()
                self.kill()
                raise RuntimeError(f"sshd did not start:\n{text}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill the server and all its sessions at once, as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            for pid in [process.pid, *descendants(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        self._signal_frozen(signal.SIGKILL)

    stop = kill

    def restart(self) -> None:
        """Kill, then start again on the same port."""
        self.kill()
        self.start()

    def sessions(self) -> list[int]:
        """Pids of everything below the listening process."""
        return descendants(self._process.pid) if self._process else []

    def freeze(self, pids: Sequence[int] | None = None) -> list[int]:
        """Stop all sessions, or these processes, as a black hole does: connected, but silent.

        ``thaw`` resumes, ``kill`` ends them. That needs to know them: one whose session has ended
        while it was stopped belongs to nobody, and would stay so for ever.
        """
        pids = self.sessions() if pids is None else list(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                self._frozen.append(fd)
                signal.pidfd_send_signal(fd, signal.SIGSTOP)
        return pids

    def thaw(self) -> None:
        """What was stopped goes on, if it is there still."""
        self._signal_frozen(signal.SIGCONT)

    def _signal_frozen(self, number: int) -> None:
        frozen, self._frozen = self._frozen, []
        for fd in frozen:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
            os.close(fd)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                return link.recv(4) == b"SSH-"
        except OSError:
            return False

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _configure(self, sftp_only: bool, sftp_arguments: str, extra: str) -> None:
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self._path('host_key')}",
            f"AuthorizedKeysFile {self._path('authorized_keys')}",
            "PidFile none",
            "StrictModes no",
            *self.authentication,
            *self.ways,
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
            f"SetEnv SHLVL=9 PATH={_programs()}",
            f"Subsystem sftp {SFTP_SERVER} {sftp_arguments}",
        ]
        if sftp_only:
            lines.append(f"ForceCommand internal-sftp {sftp_arguments}")
        with open(self._path("sshd_config"), "w") as file:
            file.write("\n".join([*lines, extra, ""]))


def seeing(files: dict[str, str]) -> list[str]:
    """Runs what follows in a mount namespace where files (values) stand at other paths (keys).

    Copies of our own mounts are dropped there: else they would live as long as the server.
    """
    steps = ["umount --all --lazy --types fuse.awayfs"]
    steps += [f"mount --bind {ours} {theirs}" for theirs, ours in files.items()]
    return ["unshare", "-m", "sh", "-ec", f'{"; ".join(steps)}; exec "$@"', "sshd"]


class PasswordSshd(Sshd):
    """A server with an account of its own, which passwords let in, and no key.

    The account is in a passwd and a shadow file that only this server sees, bound over those
    of the machine in a mount namespace; so it needs root. Without PAM, sshd reads them itself.
    """

    authentication = (
        *("PasswordAuthentication yes", "PubkeyAuthentication no"),
        *("MaxAuthTries 2", "PermitRootLogin yes"),  # by its uid the account is root
    )

    def __init__(self, directory: str, password: str, user: str = "awayguest") -> None:
        super().__init__(directory)
        self.user = user
        self._files = [self._path("passwd"), self._path("shadow")]
        account = f"{user}:x:{os.geteuid()}:{os.getegid()}::{directory}:/bin/sh"
        with open("/etc/passwd") as theirs, open(self._files[0], "w") as ours:
            ours.write(f"{theirs.read()}{account}\n")
        self.set_password(password)
        self.command = seeing({f"/etc/{os.path.basename(path)}": path for path in self._files})

    @property
    def options(self) -> dict[str, str]:
        return {"known_hosts": self.known_hosts, "ssh_config": os.devnull}

    def set_password(self, password: str, *, expired: bool = False) -> None:
        """From now on this is the account's password; seen by the next login.

        ``expired``: it lets in nobody who does not change it.
        """
        since = 0 if expired else 19000
        made = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"],
            input=password,
            capture_output=True,
            text=True,
            check=True,
        )
        with open("/etc/shadow") as theirs:
            others = theirs.read()
        with open(os.open(self._files[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(f"{others}{self.user}:{made.stdout.strip()}:{since}:0:99999:7:::\n")

    def attempts(self) -> int:
        """How many passwords were shown to the server, right or wrong."""
        with open(self._path("log"), errors="replace") as file:
            lines = [line for line in file if " password for " in line]
        return len(lines)


class PamSshd(PasswordSshd):
    """The same with PAM, as distributions have it: it refuses a password that has expired only
    after the login, and asks for it by keyboard-interactive if that is all there is.
    """

    ways = ("KbdInteractiveAuthentication no", "UsePAM yes")


class AskingSshd(PamSshd):
    """The same, asking by keyboard-interactive."""

    authentication = (
        *("PasswordAuthentication no", "PubkeyAuthentication no"),
        *("MaxAuthTries 2", "PermitRootLogin yes"),
    )
    ways = ("KbdInteractiveAuthentication yes", "UsePAM yes")

    def attempts(self) -> int:
        with open(self._path("log"), errors="replace") as file:
            lines = [line for line in file if re.search("interactive/pam for|authenticating", line)]
        return len(lines)


@contextlib.contextmanager
def serving(directory: str, **settings: object) -> Iterator[Sshd]:
    """A running server, stopped by pid whatever happens."""
    server = Sshd(directory, **settings)  # type: ignore[arg-type]
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _programs() -> str:
    """Where programs are found, so that the account's start-up files need not say it.

    bash takes itself for a login by network if it is the first (``SHLVL``), and reads them then:
    what they do may take seconds, or wait for a lock.
    """
    python = os.path.dirname(os.path.realpath(sys.executable))
    return f"{python}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def _die_with_parent() -> None:
    """PR_SET_PDEATHSIG: no server outlives a test run that was killed."""
    _libc.prctl(1, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: str) -> None:
    """An ed25519 key pair without a passphrase."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True
    )


def descendants(pid: int) -> list[int]:
    """Pids of all processes below ``pid``, parents first, from /proc."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found

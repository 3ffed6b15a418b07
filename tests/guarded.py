"""A share behind a password: a real sshd with an account of its own in a mount namespace."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import Client, eventually, needs_fuse, run
from tests.sshd import PasswordSshd, Sshd, needs_sshd

RIGHT = "Correct-Horse-9"
WRONG = "Battery-Staple-7"

needs_guard = [
    *needs_fuse,
    *needs_sshd,
    pytest.mark.skipif(os.geteuid() != 0, reason="an account for the server needs root"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to hash a password"),
]


@dataclass
class Guarded:
    """A share behind a password, and one user's awayfs."""

    sshd: PasswordSshd
    client: Client
    root: str

    scheme = "sftp"

    @property
    def url(self) -> str:
        return f"sftp://{self.sshd.user}@127.0.0.1:{self.sshd.port}{self.root}"

    @property
    def options(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.sshd.options.items())

    def credentials(self, password: str, mode: int = 0o600) -> str:
        """The usual credentials file, with this password for the account."""
        path = f"{self.client.home}/config/awayfs/credentials.toml"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        place = f"{self.sshd.user}@127.0.0.1:{self.sshd.port}"
        Path(path).write_text(f'["{place}"]\npassword = "{password}"\n')
        os.chmod(path, mode)
        return path

    def mount_words(self) -> list[str]:
        return ["mount", self.url, self.client.mountpoint, "-o", self.options]

    def at_terminal(self, *words: str, answers: list[str]) -> tuple[int, str]:
        """Run a command on a terminal of its own and type; its status and all that was shown."""
        pid, terminal = pty.fork()
        if pid == 0:
            command = [sys.executable, "-m", "awayfs", *words]
            os.execve(sys.executable, command, self.client.env)
        shown, typed = b"", list(answers)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    more = os.read(terminal, 65536)
                except OSError:
                    break
                if not more:
                    break
                shown += more
            if typed and re.search(rb"(Password|Passphrase)[^\r\n]*: $", shown):
                time.sleep(0.1)  # getpass turns the echo off before it writes its prompt
                os.write(terminal, typed.pop(0).encode() + b"\n")
                shown += b"\n"
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()

    def mounted_again(self, answer: str) -> str:
        """Mount a known volume at a terminal; what was shown, which asked.

        It is mounted without a question when the server is slower than a mount waits for it, as on
        a busy machine: then once more.
        """
        deadline = time.monotonic() + 90
        while True:
            status, shown = self.at_terminal(*self.mount_words(), answers=[answer])
            assert (status, answer in shown) == (0, False), shown
            if "Password for sftp://awayguest@" in shown:
                return shown
            assert "(disconnected)" in shown and time.monotonic() < deadline, shown
            self.client.umount()

    def login(self, password: str, *words: str, code: int = 0) -> str:
        """``awayfs login`` from a script; what was said."""
        done = subprocess.run(
            [sys.executable, "-m", "awayfs", "login", *words, self.client.mountpoint],
            input=password + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            env=self.client.env,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def secrets_seen(self) -> list[str]:
        """Where a password can be found that must be nowhere but in memory and on the wire."""
        found = []
        for directory, _, names in os.walk(self.client.home):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and name != "credentials.toml":
                    content = Path(path).read_bytes()
                    found += [path] * any(word.encode() in content for word in (RIGHT, WRONG))
        for name in filter(str.isdecimal, os.listdir("/proc")):
            for part in ("cmdline", "environ"):
                try:
                    content = Path(f"/proc/{name}/{part}").read_bytes()
                except OSError:
                    continue
                found += [f"{name}/{part}"] * any(w.encode() in content for w in (RIGHT, WRONG))
        return found


@contextmanager
def guarded_share(base: str, kind: type[PasswordSshd] = PasswordSshd) -> Iterator[Guarded]:
    """Such a share with one file, and a client that has not mounted it."""
    root = f"{base}/share"
    os.makedirs(root)
    Path(root, "f").write_text("of the server\n")
    sshd = kind(f"{base}/sshd", RIGHT)
    sshd.start()
    client = Client(base, None, anew=True)  # type: ignore[arg-type]
    client.environment = {
        "XDG_CONFIG_HOME": f"{client.home}/config",
        "HOME": client.home,
        "SSH_AUTH_SOCK": "",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    guarded = Guarded(sshd, client, root)
    client.server = guarded  # type: ignore[assignment]
    try:
        yield guarded
    finally:
        client.close()
        sshd.kill()


@contextmanager
def locked_key(guarded: Guarded, base: str) -> Iterator[tuple[str, list[str]]]:
    """The same share by a key whose passphrase is ``RIGHT``: the account, and how to mount it."""
    sshd = Sshd(base)
    sshd.start()
    try:
        run("ssh-keygen", "-q", "-p", "-P", "", "-N", RIGHT, "-f", sshd.identity)
        options = ",".join(f"{name}={value}" for name, value in sshd.options.items())
        account = f"{sshd.user}@127.0.0.1:{sshd.port}"
        url = f"sftp://{account}{guarded.root}"
        yield account, ["mount", url, guarded.client.mountpoint, "-o", options]
    finally:
        sshd.kill()


def mode_is(client: Client, *modes: str) -> None:
    """Wait until it is one of them."""
    eventually(lambda: client.status()["mode"] in modes, f"one of {modes}")

"""Passwords: asked for once, shown once, kept in memory, and never a reason to lose anything.

The server is a real sshd with an account of its own in a mount namespace. A terminal is a
pseudo-terminal.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import Client, eventually, needs_fuse, run
from tests.sshd import PasswordSshd, needs_sshd

RIGHT = "Correct-Horse-9"
WRONG = "Battery-Staple-7"

pytestmark = [
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

    def login(self, password: str, *, code: int = 0) -> str:
        """``awayfs login`` from a script; what was said."""
        import subprocess

        done = subprocess.run(
            [sys.executable, "-m", "awayfs", "login", self.client.mountpoint],
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


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    root = str(tmp_path / "share")
    os.makedirs(root)
    Path(root, "f").write_text("of the server\n")
    sshd = PasswordSshd(str(tmp_path / "sshd"), RIGHT)
    sshd.start()
    client = Client(str(tmp_path), None)  # type: ignore[arg-type]
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


def mode_is(client: Client, mode: str) -> None:
    eventually(lambda: client.status()["mode"] == mode, f"mode {mode}")


def test_a_credentials_file(guarded: Guarded) -> None:
    guarded.credentials(RIGHT)
    guarded.client.mount()
    assert Path(guarded.client.path("f")).read_text() == "of the server\n"
    assert guarded.secrets_seen() == []
    guarded.client.umount()


def test_a_credentials_file_that_others_can_read(guarded: Guarded) -> None:
    path = guarded.credentials(RIGHT, 0o640)
    line = guarded.client.fails(*guarded.mount_words(), code=2)
    assert f"chmod 600 {path}" in line and RIGHT not in line
    os.chmod(path, 0o600)
    os.chown(path, 65534, 65534)
    assert "belongs to uid 65534" in guarded.client.fails(*guarded.mount_words(), code=2)
    assert guarded.sshd.attempts() == 0


def test_without_a_person_nobody_is_asked(guarded: Guarded) -> None:
    line = guarded.client.fails(*guarded.mount_words())
    assert "wants a password" in line and "awayfs login" in line
    assert not guarded.client.is_mounted()


def test_asked_on_the_terminal(guarded: Guarded) -> None:
    """A first mount, and later one that is mounted before it is asked for."""
    status, shown = guarded.at_terminal(*guarded.mount_words(), answers=[RIGHT])
    assert (status, RIGHT in shown) == (0, False), shown
    assert "Password for sftp://awayguest@" in shown and "(connected)" in shown
    assert Path(guarded.client.path("f")).read_text() == "of the server\n"
    assert guarded.secrets_seen() == []
    guarded.client.umount()
    guarded.mounted_again(RIGHT)
    mode_is(guarded.client, "connected")
    guarded.client.umount()
    shown = guarded.mounted_again(WRONG)
    assert "refuses the password" in shown and "(auth-required)" in shown
    guarded.client.umount()


def test_a_wrong_password_is_shown_once(guarded: Guarded) -> None:
    """The volume tries again by itself, for a key may have come; the password stays away."""
    guarded.credentials(RIGHT)
    client = guarded.client
    client.mount()
    client.umount()
    guarded.credentials(WRONG)
    before = guarded.sshd.attempts()
    client.mount()
    mode_is(client, "auth-required")
    time.sleep(4)
    assert guarded.sshd.attempts() == before + 1
    assert "refuses the password" in guarded.login(WRONG, code=1)
    assert guarded.sshd.attempts() == before + 2
    assert "logged in" in guarded.login(RIGHT)
    assert client.status()["mode"] in ("connected", "reintegrating")
    assert guarded.secrets_seen() == []


def test_a_password_that_runs_out_in_the_middle_of_work(guarded: Guarded) -> None:
    client = guarded.client
    guarded.credentials(RIGHT)
    client.mount()
    assert Path(client.path("f")).read_text() == "of the server\n"
    guarded.sshd.set_password("Something-Else-1")
    guarded.sshd.restart()
    mode_is(client, "auth-required")
    assert Path(client.path("f")).read_text() == "of the server\n"
    Path(client.path("f")).write_text("changed meanwhile\n")
    Path(client.path("new")).write_text("made meanwhile\n")
    assert "auth-required" in client.awayfs("sync", client.mountpoint, "--wait", check=False) or (
        client.status()["pending"]["records"] > 0
    )
    assert client.conflicts() == []
    guarded.login("Something-Else-1")
    client.sync()
    assert Path(guarded.root, "f").read_text() == "changed meanwhile\n"
    assert Path(guarded.root, "new").read_text() == "made meanwhile\n"
    assert client.conflicts() == []
    told = [one["mode"] for one in client.status()["history"]]
    assert "auth-required" in told


def test_another_account_sends_nothing_of_this_one(guarded: Guarded, tmp_path: Path) -> None:
    """The user comes from the SSH configuration, which changes between two mounts."""
    client, sshd = guarded.client, guarded.sshd
    config = tmp_path / "ssh_config"
    url = f"sftp://127.0.0.1:{sshd.port}{guarded.root}"
    options = f"known_hosts={sshd.known_hosts},ssh_config={config}"
    path = guarded.credentials(RIGHT)
    Path(path).write_text(f'["127.0.0.1:{sshd.port}"]\npassword = "{RIGHT}"\n')
    config.write_text(f"Host *\n  User {sshd.user}\n")
    client.awayfs("mount", url, client.mountpoint, "-o", options)
    client.offline()
    Path(client.path("mine")).write_text("of one account\n")
    client.umount()
    other = PasswordSshd(str(tmp_path / "other"), RIGHT, "othername")
    for name in ("passwd", "shadow"):  # the same server now knows both
        with open(f"{sshd.directory}/{name}", "a") as file:
            file.write(Path(f"{other.directory}/{name}").read_text().splitlines()[-1] + "\n")
    config.write_text("Host *\n  User othername\n")
    client.awayfs("mount", url, client.mountpoint, "-o", options)
    client.awayfs("auto", client.mountpoint)
    mode_is(client, "stopped")
    cause = client.status()["cause"]
    assert "belongs to awayguest@127.0.0.1" in cause and "othername@127.0.0.1" in cause
    assert not os.path.exists(f"{guarded.root}/mine")
    line = client.fails("online", client.mountpoint, "--accept-server")
    assert "belongs to awayguest" in line
    assert not os.path.exists(f"{guarded.root}/mine")
    config.write_text(f"Host *\n  User {sshd.user}\n")
    client.umount()
    client.awayfs("mount", url, client.mountpoint, "-o", options)
    client.sync()
    assert Path(guarded.root, "mine").read_text() == "of one account\n"


def test_the_same_state_with_another_account(guarded: Guarded) -> None:
    guarded.credentials(RIGHT)
    guarded.client.mount("volume-id=work")
    guarded.client.umount()
    url = guarded.url.replace("awayguest", "somebody")
    words = ["mount", url, guarded.client.mountpoint, "-o", f"{guarded.options},volume-id=work"]
    assert "holds the state of sftp://awayguest@" in guarded.client.fails(*words)


def test_a_key_with_a_passphrase(guarded: Guarded, tmp_path: Path) -> None:
    from tests.sshd import Sshd

    sshd = Sshd(str(tmp_path / "keys"))
    sshd.start()
    try:
        run("ssh-keygen", "-q", "-p", "-P", "", "-N", RIGHT, "-f", sshd.identity)
        options = ",".join(f"{name}={value}" for name, value in sshd.options.items())
        url = f"sftp://{sshd.user}@127.0.0.1:{sshd.port}{guarded.root}"
        words = ["mount", url, guarded.client.mountpoint, "-o", options]
        assert "passphrase" in guarded.client.fails(*words)
        status, shown = guarded.at_terminal(*words, answers=[RIGHT])
        assert status == 0 and "Passphrase of the key" in shown and RIGHT not in shown, shown
        assert json.loads(guarded.client.awayfs("status", "--json"))
        assert Path(guarded.client.path("f")).read_text() == "of the server\n"
        guarded.client.umount()
    finally:
        sshd.kill()

"""Where passwords come from, in which order, and that a refused one is not offered again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from awayfs.control import credentials, keyring_process
from awayfs.control.handshake import StartRequest
from awayfs.core.errors import (
    AuthenticationRequired,
    PassphraseRequired,
    PasswordRequired,
    UsageError,
)
from awayfs.core.secrets import Secrets
from awayfs.daemon.wallet import KEYRING_AGAIN_S, UserWallet
from awayfs.remotes.failures import error_of, failure_of

URL = "sftp://alice@nas/data"


def file_with(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    path = tmp_path / "credentials.toml"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


SECTIONS = """
["nas"]
password = "host"
passphrase = "key"
["alice@nas"]
password = "account"
["alice@nas:2222"]
password = "port"
["sftp://alice@nas/data"]
password = "volume"
"""


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("sftp://alice@nas/data", "volume"),
        ("sftp://alice@nas/other", "account"),
        ("sftp://alice@nas:2222/data", "port"),
        ("sftp://alice@nas:2223/data", "account"),
        ("sftp://bob@nas/data", "host"),
        ("sftp://nas/data", "host"),
        ("sftp://alice@elsewhere/data", ""),
    ],
)
def test_the_most_exact_section_counts(tmp_path: Path, url: str, password: str) -> None:
    found = credentials.read(file_with(tmp_path, SECTIONS), url)
    assert found == Secrets(password, "key" if "nas" in url else "")


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ('["nas"]\npassword = "geheim"\n', 0o604, "chmod 600"),
        ('["nas"]\npassword = "geheim"\n', 0o620, "chmod 600"),
        ('["nas"]\npassword = "geheim\n', 0o600, "line 2: is not TOML"),
        ('password = geheim"\n', 0o600, "line 1: is not TOML"),
        ('["nas"]\npassword = 12\n', 0o600, "text in quotes"),
        ('nas = "geheim"\n', 0o600, "must be a section"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        credentials.read(file_with(tmp_path, text, mode), URL)
    assert said in str(caught.value) and "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert credentials.read("", URL) == Secrets()
    with pytest.raises(UsageError, match="no such credentials file"):
        credentials.read(str(tmp_path / "none"), URL)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(UsageError, match="is not a file"):
        credentials.read(str(tmp_path / "fifo"), URL)


def test_secrets_do_not_show() -> None:
    secrets = Secrets("geheim", "auch geheim")
    request = StartRequest(URL, b"/m", "v", secrets=secrets)
    assert "geheim" not in repr(request) + repr(secrets) + str(secrets)
    assert StartRequest.decode(request.encode()) == request


@pytest.mark.parametrize("kind", [PasswordRequired, PassphraseRequired, AuthenticationRequired])
def test_the_kinds_of_refusal_come_through_from_the_worker(kind: type[Exception]) -> None:
    assert type(error_of(failure_of(1, kind("no")))) is kind


class Keyring:
    """A keyring that counts how often it is asked."""

    def __init__(self, password: str = "", complaint: str = "") -> None:
        self.password = password
        self.complaint = complaint
        self.asked: list[tuple[str, str]] = []

    def __call__(self, service: str, user: str) -> tuple[str, str]:
        self.asked.append((service, user))
        return (self.password if service == "awayfs" else "", self.complaint)


def test_one_source_after_the_other_and_each_secret_once(tmp_path: Path) -> None:
    keyring = Keyring("from the keyring")
    now = [0.0]
    path = file_with(tmp_path, '["nas"]\npassword = "from the file"\n')
    wallet = UserWallet(URL, path, Secrets("typed"), keyring, lambda: now[0])
    refusal = PasswordRequired("no")

    async def play() -> None:
        for password in ("typed", "from the file"):
            assert (await wallet.offer()).password == password
            assert await wallet.refused(Secrets(password), refusal)
        assert keyring.asked == [("awayfs", "alice@nas"), ("awayfs-passphrase", "alice@nas")]
        assert (await wallet.offer()).password == "from the keyring"
        assert not await wallet.refused(Secrets("from the keyring"), refusal)
        assert await wallet.offer() == Secrets()
        assert not await wallet.refused(Secrets(), refusal)
        assert wallet.wants == "password"
        file_with(tmp_path, '["nas"]\npassword = "changed"\n')
        assert (await wallet.offer()).password == "changed"
        assert not await wallet.refused(Secrets("changed"), refusal)
        wallet.give(Secrets("typed"))
        assert (await wallet.offer()).password == "typed"
        assert len(keyring.asked) == 2
        keyring.password = "changed in the keyring"
        now[0] = KEYRING_AGAIN_S
        assert await wallet.refused(Secrets("typed"), refusal)
        wallet.accepted()
        assert wallet.wants == ""

    asyncio.run(play())


def test_a_passphrase_is_not_taken_for_a_refused_password(tmp_path: Path) -> None:
    wallet = UserWallet(URL, "", Secrets("p", "k"), Keyring())

    async def play() -> None:
        assert not await wallet.refused(Secrets("p", "k"), PassphraseRequired("wrong"))
        assert (await wallet.offer(), wallet.wants) == (Secrets("p"), "passphrase")
        assert not await wallet.refused(Secrets("p"), AuthenticationRequired("keys only"))
        assert (await wallet.offer(), wallet.wants) == (Secrets("p"), "key")

    asyncio.run(play())


def test_a_login_that_is_given_up_does_not_lose_the_keyrings_answer() -> None:
    asked = threading.Event()

    def slow(service: str, user: str) -> tuple[str, str]:
        assert asked.wait(10)
        return ("late" if service == "awayfs" else "", "")

    async def play() -> None:
        wallet = UserWallet(URL, "", Secrets(), slow)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wallet.refused(Secrets(), PasswordRequired("no")), 0.1)
        asked.set()
        assert (await wallet.offer()).password == "late"

    asyncio.run(play())


def test_complaints_are_kept_for_whoever_asks(tmp_path: Path) -> None:
    path = file_with(tmp_path, "", 0o644)
    wallet = UserWallet(URL, path, Secrets(), Keyring(complaint="no answer in 3 s: is it locked?"))

    async def play() -> None:
        assert not await wallet.refused(Secrets(), PasswordRequired("wants one"))

    asyncio.run(play())
    assert "chmod 600" in wallet.complaints["credentials file"]
    assert "is it locked" in wallet.complaints["keyring"]


BACKENDS = """
import time
import keyring.backend
class Open(keyring.backend.KeyringBackend):
    priority = 1
    def get_password(self, service, user):
        return f"{service} of {user}"
    def set_password(self, service, user, password):
        raise NotImplementedError
class Locked(Open):
    def get_password(self, service, user):
        raise keyring.errors.KeyringLocked("Failed to unlock the collection!")
class Hanging(Open):
    def get_password(self, service, user):
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("backend", "answer"),
    [
        ("Open", ("awayfs of alice@nas", "")),
        ("Locked", ("", "KeyringLocked: Failed to unlock the collection!")),
        ("Hanging", ("", "no answer in 0.8 s: is it locked?")),
    ],
)
def test_the_real_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, answer: tuple[str, str]
) -> None:
    pytest.importorskip("keyring", reason="the extra 'keyring' is not installed")
    (tmp_path / "backends_of_test.py").write_text(BACKENDS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", f"backends_of_test.{backend}")
    monkeypatch.setattr(keyring_process, "WITHIN_S", 0.8 if backend == "Hanging" else 20.0)
    assert keyring_process.look_up("awayfs", "alice@nas") == answer


def test_without_the_library() -> None:
    code = (
        "import sys; sys.modules['keyring'] = None\n"
        "from awayfs.control.keyring_process import _answer\n"
        "import json; print(json.dumps(_answer('awayfs', 'alice@nas')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == {"error": keyring_process.NOT_INSTALLED}

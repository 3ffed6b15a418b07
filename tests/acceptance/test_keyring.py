"""Passwords in a real Secret Service: kept there by command, found at a login, behind a lock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from awayfs.control import keyring_lock, keyring_process
from awayfs.control.keyring_lock import Lock
from tests.guarded import (
    RIGHT,
    WRONG,
    Guarded,
    guarded_share,
    locked_key,
    mode_is,
    needs_guard,
)
from tests.harness import eventually
from tests.programs import attempt
from tests.secret_service import MASTER, SecretService, needs_secret_service, secret_service

pytestmark = [*needs_guard, *needs_secret_service]


@pytest.fixture
def keyring(tmp_path: Path) -> Iterator[SecretService]:
    pytest.importorskip("secretstorage", reason="the extra 'keyring' is not installed")
    with secret_service(str(tmp_path / "client" / "keyring")) as service:
        yield service


@pytest.fixture
def guarded(tmp_path: Path, keyring: SecretService) -> Iterator[Guarded]:
    with guarded_share(str(tmp_path)) as guarded:
        guarded.client.environment |= keyring.environment
        yield guarded


def account(guarded: Guarded) -> str:
    return f"{guarded.sshd.user}@127.0.0.1:{guarded.sshd.port}"


def kept_in(keyring: SecretService, guarded: Guarded) -> None:
    """Mounted once by a person, who has it kept; and unmounted."""
    status, shown = guarded.at_terminal(*guarded.mount_words(), answers=[RIGHT])
    assert status == 0, shown
    assert Path(guarded.client.path("f")).read_text() == "of the server\n"
    guarded.login(RIGHT, "--keep")
    assert keyring.secret("awayfs", account(guarded)) == RIGHT
    guarded.client.umount()


def test_kept_by_command_and_found_at_the_next_mount(
    keyring: SecretService, guarded: Guarded
) -> None:
    kept_in(keyring, guarded)
    guarded.client.mount()
    mode_is(guarded.client, "connected")
    assert Path(guarded.client.path("f")).read_text() == "of the server\n"
    assert guarded.secrets_seen() == []
    assert MASTER not in guarded.client.log


def test_what_the_server_refused_is_not_kept(keyring: SecretService, guarded: Guarded) -> None:
    kept_in(keyring, guarded)
    guarded.client.mount()
    guarded.sshd.set_password("Something-Else-1")
    guarded.sshd.restart()
    mode_is(guarded.client, "auth-required")
    attempts = guarded.sshd.attempts()
    assert "refuses the password" in guarded.login(WRONG, "--keep", code=1)
    assert keyring.secret("awayfs", account(guarded)) == RIGHT
    assert guarded.sshd.attempts() == attempts + 1
    guarded.login("Something-Else-1", "--keep")
    mode_is(guarded.client, "connected")
    assert keyring.secret("awayfs", account(guarded)) == "Something-Else-1"


def test_locked(keyring: SecretService, guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says so, what is here can be used, nobody is asked; unlocking brings it back."""
    kept_in(keyring, guarded)
    client = guarded.client
    keyring.lock()
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", keyring.address)
    assert keyring_lock.look() is Lock.LOCKED
    began = time.monotonic()
    client.mount()
    assert time.monotonic() - began < 20.0
    mode_is(client, "auth-required")
    cause = client.status()["cause"]
    assert "keyring: it is locked; unlock it" in cause and "\n" not in cause
    assert "it is locked" in client.awayfs("status", client.mountpoint)
    assert attempt("read", client.path("f")).text == "of the server\n"
    assert attempt("write", client.path("f"), "changed meanwhile\n").code == 0
    os.rename(client.path("f"), client.path("g"))
    time.sleep(6)
    assert guarded.sshd.attempts() == 1, "more than the password of the first mount was shown"
    assert not keyring.asked_for_a_person(), "a dialogue that nobody called for"
    keyring.unlock()
    mode_is(client, "connected", "reintegrating")
    client.sync()
    assert os.listdir(guarded.root) == ["g"] and client.conflicts() == []
    assert Path(guarded.root, "g").read_text() == "changed meanwhile\n"
    assert guarded.secrets_seen() == []


def test_locked_at_the_first_mount(keyring: SecretService, guarded: Guarded) -> None:
    keyring.lock()
    line = guarded.client.fails(*guarded.mount_words())
    assert "wants a password" in line and "keyring: it is locked; unlock it" in line


def test_locked_when_it_is_to_keep_something(keyring: SecretService, guarded: Guarded) -> None:
    """Nobody is there to open it: the volume is logged in all the same, and told is why."""
    guarded.credentials(RIGHT)
    guarded.client.mount()
    keyring.lock()
    said = guarded.login(RIGHT, "--keep", code=1)
    assert "the keyring does not keep it" in said and RIGHT not in said
    assert len(said.strip().splitlines()) == 1
    assert keyring.asked_for_a_person(), "this time a person has called for it"
    mode_is(guarded.client, "connected")


def test_the_passphrase_of_a_key(keyring: SecretService, guarded: Guarded) -> None:
    with locked_key(guarded, f"{guarded.client.base}/keys") as (user, words):
        status, shown = guarded.at_terminal(*words, answers=[RIGHT])
        assert status == 0, shown
        guarded.login(RIGHT, "--keep", "--passphrase")
        assert keyring.secret("awayfs-passphrase", user) == RIGHT
        guarded.client.umount()
        guarded.client.awayfs(*words)
        eventually(lambda: guarded.client.status()["mode"] == "connected", "the login")
        assert guarded.secrets_seen() == []


def test_a_keyring_that_nobody_has_ever_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make a first collection it would ask for a password of its own: not for a look."""
    pytest.importorskip("secretstorage", reason="the extra 'keyring' is not installed")
    with secret_service(str(tmp_path / "fresh"), fresh=True) as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(keyring_process, "WITHIN_S", 20.0)
        assert keyring_lock.look() is Lock.MISSING
        assert keyring_process.look_up("awayfs", "alice@nas") == ("", "")
        assert not service.asked_for_a_person()

"""Passwords: asked for once, shown once, kept in memory, and never a reason to lose anything.

The server is a real sshd with an account of its own in a mount namespace. A terminal is a
pseudo-terminal.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guarded import (
    RIGHT,
    WRONG,
    Guarded,
    guarded_share,
    locked_key,
    mode_is,
    needs_guard,
)
from tests.harness import assert_same_tree, eventually, tree
from tests.sshd import AskingSshd, PamSshd, PasswordSshd

pytestmark = needs_guard


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with guarded_share(str(tmp_path)) as guarded:
        yield guarded


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


def test_another_password_in_the_file_is_tried_by_itself(guarded: Guarded) -> None:
    guarded.credentials(RIGHT)
    guarded.client.mount()
    guarded.client.umount()
    guarded.credentials(WRONG)
    before = guarded.sshd.attempts()
    guarded.client.mount()
    mode_is(guarded.client, "auth-required")
    guarded.credentials(RIGHT)
    mode_is(guarded.client, "connected")
    assert guarded.sshd.attempts() == before + 2


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


@pytest.mark.parametrize("kind", [PasswordSshd, PamSshd, AskingSshd])
def test_a_password_that_has_expired(tmp_path: Path, kind: type[PasswordSshd]) -> None:
    """It is still the right one, and lets nobody in who does not change it."""
    with guarded_share(str(tmp_path), kind) as guarded:
        work_while_expired(guarded)


def work_while_expired(guarded: Guarded) -> None:
    client = guarded.client
    guarded.credentials(RIGHT)
    client.mount()
    assert Path(client.path("f")).read_text() == "of the server\n"
    guarded.sshd.set_password(RIGHT, expired=True)
    guarded.sshd.restart()
    mode_is(client, "auth-required")
    assert "password of awayguest@127.0.0.1" in client.status()["cause"]
    assert "has expired: change it there" in client.awayfs("why", client.path("f"))
    shown = guarded.sshd.attempts()
    Path(client.path("f")).write_text("changed meanwhile\n")
    assert Path(client.path("f")).read_text() == "changed meanwhile\n"
    time.sleep(4)
    assert guarded.sshd.attempts() == shown, "shown again"
    guarded.sshd.set_password("Something-Else-1")
    guarded.login("Something-Else-1")
    client.sync()
    assert Path(guarded.root, "f").read_text() == "changed meanwhile\n"
    assert client.conflicts() == []


def test_a_password_that_runs_out_during_replay(guarded: Guarded) -> None:
    """Some changes are on the server by then, one may be under way, the others wait."""
    client, number = guarded.client, 150
    guarded.credentials(RIGHT)
    client.mount()
    client.offline()
    os.mkdir(client.path("new"))
    for name in range(number):
        Path(client.path(f"new/{name}")).write_bytes(os.urandom(20_000))
    Path(client.path("f")).write_text("changed offline\n")
    os.rename(client.path("f"), client.path("g"))
    client.awayfs("auto", client.mountpoint)
    sent = Path(guarded.root, "new")
    eventually(lambda: sent.is_dir() and len(os.listdir(sent)) > 5, "replay under way")
    guarded.sshd.set_password("Something-Else-1")
    guarded.sshd.restart()
    left = client.status()["pending"]["records"]
    mode_is(client, "auth-required")
    assert left > 0, "too late"
    assert len(os.listdir(client.path("new"))) == number
    assert Path(client.path("g")).read_text() == "changed offline\n"
    Path(client.path("new/0")).write_text("changed while it waits\n")
    line = client.fails("sync", client.mountpoint, "--wait")
    assert "auth-required" in line or "password" in line
    assert client.conflicts() == [] and client.status()["pending"]["parked"] == 0
    guarded.login("Something-Else-1")
    client.sync()
    assert client.conflicts() == []
    assert_same_tree(
        tree(client.mountpoint, mtime_grain_ns=10**9, directories_mtime=False),
        tree(guarded.root, mtime_grain_ns=10**9, directories_mtime=False),
    )
    told = [(one["mode"], one["cause"]) for one in client.status()["history"]]
    assert any(mode == "auth-required" and "password" in cause for mode, cause in told), told


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
    with locked_key(guarded, str(tmp_path / "keys")) as (_, words):
        assert "passphrase" in guarded.client.fails(*words)
        status, shown = guarded.at_terminal(*words, answers=[RIGHT])
        assert status == 0 and "Passphrase of the key" in shown and RIGHT not in shown, shown
        assert json.loads(guarded.client.awayfs("status", "--json"))
        assert Path(guarded.client.path("f")).read_text() == "of the server\n"
        guarded.client.umount()

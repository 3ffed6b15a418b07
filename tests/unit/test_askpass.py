"""Who asks at the desktop, by ssh's rules, and what counts as an answer."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from awayfs.control import askpass
from awayfs.core.errors import PassphraseRequired, PasswordRequired, Unreachable
from awayfs.core.secrets import Secrets
from awayfs.daemon import desktop_notice
from awayfs.daemon.asking import Asking
from awayfs.daemon.wallet import UserWallet

URL = "sftp://alice@nas/data"


def script(directory: Path, text: str, name: str = "ask") -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    os.chmod(path, stat.S_IRWXU)
    return str(path)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"SSH_ASKPASS": "ask", "DISPLAY": ":0"}, "ask"),
        ({"SSH_ASKPASS": "ask", "WAYLAND_DISPLAY": "wayland-0"}, "ask"),
        ({"DISPLAY": ":0"}, "ssh-askpass"),
        ({"SSH_ASKPASS": "ask", "SSH_ASKPASS_REQUIRE": "force"}, "ask"),
        ({"SSH_ASKPASS": "ask", "SSH_ASKPASS_REQUIRE": "prefer"}, ""),
        ({"SSH_ASKPASS": "ask", "DISPLAY": ":0", "SSH_ASKPASS_REQUIRE": "prefer"}, "ask"),
        ({"SSH_ASKPASS": "ask", "DISPLAY": ":0", "SSH_ASKPASS_REQUIRE": "never"}, ""),
        ({"SSH_ASKPASS": "ask"}, ""),
        ({"SSH_ASKPASS": "none", "DISPLAY": ":0"}, ""),
        ({}, ""),
    ],
)
def test_which_program(tmp_path: Path, environment: dict[str, str], found: str) -> None:
    for name in ("ask", "ssh-askpass"):
        script(tmp_path, "", name)
    expected = str(tmp_path / found) if found else ""
    assert askpass.program({**environment, "PATH": str(tmp_path)}) == expected


@pytest.mark.parametrize(
    ("output", "status", "answer"),
    [
        (b"geheim\n", 0, "geheim"),
        (b"geheim", 0, "geheim"),
        (b"ge heim \r\nmore\n", 0, "ge heim "),
        (b"geheim\n", 1, ""),
        (b"\n", 0, ""),
        (b"", 0, ""),
        (b"\xff\n", 0, ""),
        (b"x" * 5000 + b"\n", 0, ""),
    ],
)
def test_what_counts_as_an_answer(output: bytes, status: int, answer: str) -> None:
    assert askpass.typed(output, status) == answer


def test_a_question_is_one_line() -> None:
    assert askpass.question("password", "sftp://a@b/c\nd") == "Password for sftp://a@b/c d: "
    assert askpass.question("passphrase", URL).startswith("Passphrase of the key for sftp://")


class Server:
    """Answers attempts to connect as a plan says; keeps what it was offered."""

    def __init__(self, wallet: UserWallet, *plan: Exception | None) -> None:
        self.offered: list[Secrets] = []
        self._wallet = wallet
        self._plan = list(plan)

    async def connect(self) -> None:
        offer = await self._wallet.offer()
        self.offered.append(offer)
        outcome = self._plan.pop(0)
        if outcome is None:
            self._wallet.accepted()
            return
        if isinstance(outcome, PasswordRequired | PassphraseRequired):
            await self._wallet.refused(offer, outcome)
        raise outcome


def played(
    program: str, wants: Exception, *plan: Exception | None, looks: int = 3
) -> tuple[list[Secrets], str]:
    """What was offered after somebody was asked, looked at several times; what is still wanted."""

    async def play() -> tuple[list[Secrets], str]:
        wallet = UserWallet(URL, "", Secrets(), lambda _service, _user: ("", ""))
        server = Server(wallet, wants, *plan)
        with pytest.raises(type(wants)):
            await server.connect()
        environment = {**os.environ, "SSH_ASKPASS": program, "SSH_ASKPASS_REQUIRE": "force"}
        asking = Asking(URL, "/m", wallet, server.connect, environment)
        for _ in range(looks):
            await asking.needed()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        asking.put_away()
        return server.offered[1:], wallet.wants

    return asyncio.run(play())


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)


def test_a_passphrase_goes_where_it_belongs(tmp_path: Path) -> None:
    program = script(tmp_path, "echo geheim")
    offered, wants = played(program, PassphraseRequired("locked"), None)
    assert (offered, wants) == ([Secrets(passphrase="geheim")], "")


def test_a_passphrase_first_and_then_a_password(tmp_path: Path) -> None:
    program = script(tmp_path, 'case "$1" in Pass*key*) echo key;; *) echo word;; esac')
    refusal = PasswordRequired("and a password")
    offered, wants = played(program, PassphraseRequired("locked"), refusal, None)
    assert (offered, wants) == ([Secrets(passphrase="key"), Secrets("word", "key")], "")


def test_a_server_that_is_gone_meanwhile(tmp_path: Path) -> None:
    """What was typed is kept for the next login, and nobody is asked again."""
    offered, wants = played(script(tmp_path, "echo word"), PasswordRequired("no"), Unreachable("x"))
    assert (offered, wants) == ([Secrets("word")], "password")


@pytest.mark.parametrize("text", ["exit 1", "echo", "kill -9 $$", "head -c 200000 /dev/zero"])
def test_no_answer(tmp_path: Path, text: str) -> None:
    assert played(script(tmp_path, text), PasswordRequired("no")) == ([], "password")


def test_a_notice_shows_no_markup_of_others() -> None:
    summary, body = desktop_notice.login_needed("passphrase", URL, "/home/me/<b>")
    assert summary == "A share needs a passphrase"
    assert body == f"{URL}: run 'awayfs login --passphrase /home/me/<b>'"
    desktop_notice.show(summary, body)  # without a bus, nothing happens

"""Ways to ask for a password that a real sshd has only with PAM; asyncssh's server plays them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncssh
import pytest

from awayfs.core.errors import AuthenticationRequired, PasswordRequired, WrongServer
from awayfs.remotes.opening import parse_url
from awayfs.remotes.sftp import SftpRemote


class Door(asyncssh.SSHServer):
    """Lets in who gives "right"; ``questions`` makes it keyboard-interactive."""

    questions: tuple[str, ...] = ()
    expired = False
    takes_passwords = True
    shown: list[str]

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return self.takes_passwords and not self.questions

    def validate_password(self, username: str, password: str) -> bool:
        self.shown.append(password)
        if self.expired:
            raise asyncssh.PasswordChangeRequired("expired")
        return password == "right"

    def kbdint_auth_supported(self) -> bool:
        return bool(self.questions)

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        return "", "", "", [(question, False) for question in self.questions]

    def validate_kbdint_response(self, username: str, responses: list[str]) -> bool:
        self.shown += responses
        return responses == ["right"]


def log_in(tmp_path: Path, door: type[Door], trusted: bool = True, **options: str) -> list[str]:
    """Connect to such a server; what it was shown. Raises what ``connect`` raises."""
    door.shown = shown = []

    async def play() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=door, server_host_keys=[key], sftp_factory=True
        )
        port = server.get_port()
        known = key if trusted else asyncssh.generate_private_key("ssh-ed25519")
        line = f"[127.0.0.1]:{port} {known.export_public_key().decode()}"
        hosts = tmp_path / "hosts"
        hosts.write_text(line)
        url = parse_url(f"sftp://alice@127.0.0.1:{port}{tmp_path}")
        given = {"known_hosts": str(hosts), "ssh_config": os.devnull, **options}
        remote = SftpRemote(url, given)
        try:
            connected = await remote.connect()
            assert connected.account == "alice@127.0.0.1"
        finally:
            await remote.close()
            server.close()

    asyncio.run(play())
    return shown


def door(**facts: object) -> type[Door]:
    return type("ThisDoor", (Door,), facts)


@pytest.fixture(autouse=True)
def no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.mark.parametrize(
    "question", ["Password: ", "To change your password, see http://nas\npassword:", "PASSCODE?"]
)
def test_a_single_question_for_a_password_is_answered(tmp_path: Path, question: str) -> None:
    assert log_in(tmp_path, door(questions=(question,)), password="right") == ["right"]


@pytest.mark.parametrize("question", ["New password: ", "Enter a new UNIX password:"])
def test_a_question_for_another_password_is_not_answered(tmp_path: Path, question: str) -> None:
    asked = door(questions=(question,))
    with pytest.raises(PasswordRequired, match="has expired"):
        log_in(tmp_path, asked, password="right")
    assert asked.shown == []


@pytest.mark.parametrize("questions", [("Token code: ",), ("Password: ", "Token: ")])
def test_other_questions_are_not(tmp_path: Path, questions: tuple[str, ...]) -> None:
    asked = door(questions=questions)
    with pytest.raises(PasswordRequired):
        log_in(tmp_path, asked, password="right")
    assert asked.shown == []


@pytest.mark.parametrize("facts", [{}, {"questions": ("Password: ",)}])
def test_a_wrong_password_is_shown_once(tmp_path: Path, facts: dict[str, object]) -> None:
    asked = door(**facts)
    with pytest.raises(PasswordRequired, match=r"alice@127.0.0.1:[0-9]+ refuses the password"):
        log_in(tmp_path, asked, password="wrong")
    assert asked.shown == ["wrong"]


@pytest.mark.parametrize(
    ("facts", "options", "error", "said"),
    [
        ({}, {}, PasswordRequired, "wants a password"),
        ({"expired": True}, {"password": "right"}, PasswordRequired, "has expired"),
        ({"takes_passwords": False}, {"password": "right"}, AuthenticationRequired, "ssh-add"),
    ],
)
def test_what_is_said(
    tmp_path: Path,
    facts: dict[str, object],
    options: dict[str, str],
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error) as caught:
        log_in(tmp_path, door(**facts), **options)
    assert type(caught.value) is error and said in str(caught.value)
    assert "right" not in str(caught.value)


def test_a_stranger_is_shown_no_password(tmp_path: Path) -> None:
    stranger = door()
    with pytest.raises(WrongServer):
        log_in(tmp_path, stranger, trusted=False, password="right")
    assert stranger.shown == []

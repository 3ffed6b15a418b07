"""What happens while a connection is made, and when it ends: asked and told by asyncssh.

The host key is checked before any of this: a password goes to no machine that is not known.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import asyncssh

from awayfs.core.errors import AuthenticationRequired, PasswordRequired
from awayfs.core.secrets import Secrets
from awayfs.remotes import notices, sftp_expiry

_KINDS_OF_PASSWORD = ("password", "passcode")
"""What a single question of keyboard-interactive must ask for, to be answered with one."""


class Witness(asyncssh.SSHClient):
    """Keeps the host key that known_hosts did not vouch for, to tell the user about it; and tells
    of the end of a session that nobody has closed, which a server that dies sends at once.

    It shows the password once a connection, by whichever way the server asks first: a wrong one
    that is shown twice counts twice where accounts are locked.
    """

    def __init__(self, secrets: Secrets, user: str = "") -> None:
        self.refused: tuple[str, str, int, asyncssh.SSHKey] | None = None
        self.waits_for_end = False
        self._connection: asyncssh.SSHClientConnection | None = None
        self._password = secrets.password
        self._user = user
        self._asked = self._shown = self._expired = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    @property
    def met_no_ssh(self) -> bool:
        """Whether somebody took the connection and did not say that he speaks SSH."""
        met = self._connection
        return met is not None and not met.get_extra_info("server_version")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waits_for_end:
            self.waits_for_end = False
            notices.lost(f"the connection was lost ({exc or 'the server closed it'})")

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.refused = (host, addr, port, key)
        return False

    def password_auth_requested(self) -> str | None:
        return self._show()

    def password_change_requested(self, prompt: str, lang: str) -> Any:
        self._expired = True
        return NotImplemented

    def kbdint_auth_requested(self) -> str | None:
        self._asked = True
        return None if self._shown or not self._password else ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """A single question for a password is answered; a one-time code is no password."""
        told = [instructions, *(asked for asked, _ in prompts)]
        if sftp_expiry.asks_for_new(told) or (self._shown and sftp_expiry.says_so(told)):
            self._expired = True
            return None
        if not prompts:
            return []
        question = prompts[0][0].lower()
        if len(prompts) > 1 or not any(word in question for word in _KINDS_OF_PASSWORD):
            return None
        password = self._show()
        return None if password is None else [password]

    def _show(self) -> str | None:
        self._asked = True
        if self._shown or not self._password:
            return None
        self._shown = True
        return self._password

    def expired(self, place: str) -> AuthenticationRequired:
        """What it means that the server wants another password before anything else."""
        whom = f"{self._user}@{place}" if self._user else place
        return PasswordRequired(
            f"the password of {whom} has expired: change it there (log in with ssh), "
            "then run 'awayfs login' with the new one"
        )

    def denied(self, place: str, reason: str) -> AuthenticationRequired:
        """What it means that the server let us in with nothing that we have."""
        whom = f"{self._user}@{place}" if self._user else place
        if self._expired:
            return self.expired(place)
        if self._shown:
            return PasswordRequired(
                f"{whom} refuses the password, which is not tried again: "
                "give the right one with 'awayfs login'"
            )
        if self._asked:
            return PasswordRequired(
                f"{whom} accepts none of the keys we have, and wants a password: "
                f"give it with 'awayfs login', or in a credentials file{_or_ticket()}"
            )
        return AuthenticationRequired(
            f"{place} accepts none of the keys we have ({reason}): add one with ssh-add, name it "
            "with identity=FILE, or give a key's passphrase with 'awayfs login --passphrase'"
            f"{_or_ticket()}"
        )


def _or_ticket() -> str:
    """Advice for who has the module that logs in with tickets."""
    return ", or get a ticket with kinit" if importlib.util.find_spec("gssapi") else ""

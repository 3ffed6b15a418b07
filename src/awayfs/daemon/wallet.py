"""The passwords and passphrases of one mount: where they come from, and which were refused.

In this order: what a person gave (``awayfs mount`` and ``awayfs login`` ask for it), the
credentials file, the keyring. The keyring is looked into only when a login has failed without
it, for it may have to ask a person to open it.

A secret that was refused is not offered again until a person gives it again, for many servers
lock an account after a few wrong passwords. All of it is in memory only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from awayfs.control import credentials, keyring_process
from awayfs.control.urls import parse_url
from awayfs.core.errors import (
    AuthenticationRequired,
    PassphraseRequired,
    PasswordRequired,
    UsageError,
)
from awayfs.core.secrets import Secrets

log = logging.getLogger(__name__)

KEYRING_AGAIN_S = 10.0
"""What it said counts so long: for one attempt, or the next if that was given up meanwhile."""

_NO_KEYRING = (keyring_process.NOT_INSTALLED, keyring_process.NOT_RUNNING)

LookUp = Callable[[str, str], tuple[str, str]]


class UserWallet:
    """Implements ``ports.wallet.Wallet`` for the volume at ``url``.

    ``file`` is the credentials file, empty for the usual one; ``given`` came with the mount.
    """

    def __init__(
        self,
        url: str,
        file: str,
        given: Secrets,
        look_up: LookUp = keyring_process.look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wants = ""
        self.complaints: dict[str, str] = {}
        self._url = url
        self._file = file
        self._given = given
        self._refused: set[tuple[str, str]] = set()
        self._look_up = look_up
        self._clock = clock
        self._looked_up = float("-inf")
        self._looking: asyncio.Task[Secrets] | None = None
        self._failed = False

    def give(self, secrets: Secrets) -> None:
        """What a person says, who may also say again what was refused before."""
        named = {**self._given.named(), **secrets.named()}
        self._given = Secrets(**named)
        self._refused -= set(secrets.named().items())

    def has_refused(self, secrets: Secrets) -> bool:
        """Whether any of them was refused since it was given."""
        return not self._refused.isdisjoint(secrets.named().items())

    async def offer(self) -> Secrets:
        """See ``Wallet``. Files and the keyring are read beside the loop."""
        sources = [self._given, await self._from_file()]
        if self._failed:
            sources.append(await self._from_keyring())
        offered: dict[str, str] = {}
        for source in sources:
            for name, value in source.named().items():
                if (name, value) not in self._refused:
                    offered.setdefault(name, value)
        return Secrets(**offered)

    async def refused(self, secrets: Secrets, error: AuthenticationRequired) -> bool:
        """See ``Wallet``."""
        self._failed = True
        if isinstance(error, PassphraseRequired):
            self.wants = "passphrase"
        else:
            self.wants = "password" if isinstance(error, PasswordRequired) else "key"
        value = secrets.named().get(self.wants)
        if value is not None:
            self._refused.add((self.wants, value))
        others = await self.offer()
        return not others.named().items() <= secrets.named().items()

    def accepted(self) -> None:
        """See ``Wallet``."""
        self.wants = ""
        self._failed = False

    async def _from_file(self) -> Secrets:
        try:
            found = await asyncio.to_thread(credentials.read, self._file, self._url)
        except UsageError as error:
            self._complain("credentials file", str(error))
            return Secrets()
        self.complaints.pop("credentials file", None)
        return found

    @property
    def complaint(self) -> str:
        """See ``Wallet``. Who has no keyring is not told of it each time."""
        if self.wants == "key":
            return ""
        worth = [text for text in self.complaints.values() if not text.endswith(_NO_KEYRING)]
        return "; ".join(worth)

    async def _from_keyring(self) -> Secrets:
        """What the keyring has. To look asks nobody, so it is done at each attempt that needs it.

        A login that is given up does not end the look into it: the next login has the answer.
        """
        failed = self._looking and self._looking.done() and "keyring" in self.complaints
        if not self._looking or failed or self._clock() >= self._looked_up + KEYRING_AGAIN_S:
            self._looked_up = self._clock()
            self._looking = asyncio.create_task(asyncio.to_thread(self._ask_keyring))
        return await asyncio.shield(self._looking)

    def _ask_keyring(self) -> Secrets:
        url = parse_url(self._url)
        if not url.user:
            return Secrets()  # whose secret it would be is not known before the login
        account = keyring_process.account(url.user, url.host, url.port)
        password, complaint = self._look_up(keyring_process.PASSWORDS, account)
        if complaint:
            self._complain("keyring", f"keyring: {complaint}")
            return Secrets()
        self.complaints.pop("keyring", None)
        passphrase, _ = self._look_up(keyring_process.PASSPHRASES, account)
        return Secrets(password, passphrase)

    def _complain(self, about: str, complaint: str) -> None:
        """Once, however often it is tried."""
        if self.complaints.get(about) != complaint:
            self.complaints[about] = complaint
            log.warning("%s", complaint)

"""Where a remote gets passwords and passphrases from."""

from __future__ import annotations

from typing import Protocol

from awayfs.core.errors import AuthenticationRequired
from awayfs.core.secrets import Secrets


class Wallet(Protocol):
    """Asked before each login, and told how it went."""

    @property
    def complaint(self) -> str:
        """One line on what could not be looked into for want of a person; empty: nothing."""
        ...

    async def offer(self) -> Secrets:
        """What to log in with now; never a secret that was refused since it was given."""
        ...

    async def refused(self, secrets: Secrets, error: AuthenticationRequired) -> bool:
        """The server does not let us in with ``secrets``: whether there are others to try."""
        ...

    def accepted(self) -> None:
        """The server let us in."""
        ...


class NoWallet:
    """Nothing but keys and tickets."""

    complaint = ""

    async def offer(self) -> Secrets:
        """See ``Wallet``."""
        return Secrets()

    async def refused(self, secrets: Secrets, error: AuthenticationRequired) -> bool:
        """See ``Wallet``."""
        return False

    def accepted(self) -> None:
        """See ``Wallet``."""

"""Whose journal it is: a volume belongs to the account that it was first used with.

The changes of one account are never sent as another one's. The URL names a volume, so another
user in the URL is another volume; but a URL without a user leaves it to the SSH configuration,
which may change between two mounts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from awayfs.core.errors import WrongServer
from awayfs.ports.remote import Connected
from awayfs.store.facts import Facts

FACT = "volume.account"


class Account:
    """Looks at the account before ``admit`` looks at the server; remembers a first one after."""

    def __init__(self, facts: Facts, admit: Callable[[Connected], Awaitable[None]]) -> None:
        self._facts = facts
        self._admit = admit

    async def admit(self, connected: Connected) -> None:
        """Raises ``WrongServer`` for another account than the volume's; see ``Link.admit``."""
        known = self._facts.get(FACT)
        if known and connected.account and connected.account != known:
            raise WrongServer(
                f"this volume belongs to {known}, and the login was as {connected.account}: "
                "nothing is sent as somebody else; put the user back into the SSH configuration, "
                "or mount with the other user in the URL, which is a volume of its own"
            )
        await self._admit(connected)
        if connected.account and not known:
            self._facts.set(FACT, connected.account)

"""A volume that waits for credentials: when it is worth to try again, and when a person is asked.

While the mode is "authentication required", what could be shown is looked at every few seconds
(``proofs``). What is another one than before is tried at once; the rest is up to the link, which
leaves the server alone for long, and to a person.
"""

from __future__ import annotations

import asyncio

from awayfs.core.modes import Mode
from awayfs.daemon.proofs import Look, Proofs, changed
from awayfs.volume.link import Link

LOOK_S = 5.0


class LoginWatch:
    """Tells ``link`` when there is something else to show."""

    def __init__(self, link: Link, proofs: Proofs) -> None:
        self._link = link
        self._proofs = proofs
        self._before: Look | None = None

    async def run(self) -> None:
        """For ever. Looks are taken beside the loop."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._link.state.mode is Mode.AUTH_REQUIRED:
                await self._look()
            else:
                self._before = None

    async def _look(self) -> None:
        """The first look is no news: what came before it is tried when the first pause is over."""
        before, self._before = self._before, await asyncio.to_thread(self._proofs.look)
        if before is not None and (what := changed(before, self._before)):
            self._link.credentials_changed(f"{what}: not as before")

"""A volume that waits for credentials: when it is worth to try again, and when a person is asked.

While the mode is "authentication required", what could be shown is looked at every few seconds
(``proofs``). What is another one than before is tried at once; the rest is up to the link, which
leaves the server alone for long, and to the person, who is asked soon, and once (``asking``).
"""

from __future__ import annotations

import asyncio

from awayfs.core.modes import Mode
from awayfs.daemon.asking import Asking
from awayfs.daemon.proofs import Look, Proofs, changed
from awayfs.volume.link import Link

TICK_S = 1.0
LOOK_EVERY = 5
ASK_AFTER = 3
"""Ticks: whoever has just mounted at a terminal is asked there, and another source may do."""


class LoginWatch:
    """Tells ``link`` when there is something else to show; it tells us when an attempt begins."""

    def __init__(self, link: Link, proofs: Proofs, asking: Asking) -> None:
        self._link = link
        self._proofs = proofs
        self._asking = asking
        self._shown: asyncio.Task[Look] | None = None
        self._waited = 0

    def attempt_begins(self) -> None:
        """What there is now is what will have been shown."""
        self._shown = asyncio.create_task(asyncio.to_thread(self._proofs.look))

    async def run(self) -> None:
        """For ever. Looks are taken beside the loop."""
        try:
            while True:
                await asyncio.sleep(TICK_S)
                if self._link.state.mode is Mode.AUTH_REQUIRED:
                    await self._tick()
                else:
                    self._rest()
        finally:
            self._asking.put_away()

    async def _tick(self) -> None:
        if self._waited % LOOK_EVERY == 0:
            await self._look()
        self._waited += 1
        if self._waited >= ASK_AFTER:
            await self._asking.needed()

    def _rest(self) -> None:
        self._waited = 0
        self._asking.put_away()
        if self._link.usable:
            self._asking.connected()

    async def _look(self) -> None:
        """A difference is worth one attempt, before which it is looked again."""
        if self._shown is None:
            return
        shown, now = await self._shown, await asyncio.to_thread(self._proofs.look)
        if what := changed(shown, now):
            self._link.credentials_changed(f"{what}: not as before")

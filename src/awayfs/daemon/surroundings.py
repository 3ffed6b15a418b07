"""What happens around a volume's link: the machine's network changes, it sleeps, it wakes up.

Nothing here decides: the link is told, and asks (``Link.doubt``, ``hope``), or believes what the
kernel knows for sure (``gone``). What a machine lacks is not listened to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from awayfs.core.noticing import Sign, Way, sign, suspended_s
from awayfs.daemon import rtnetlink
from awayfs.volume.link import Link

log = logging.getLogger(__name__)

Clocks = Callable[[], tuple[float, float]]
"""CLOCK_BOOTTIME and CLOCK_MONOTONIC, in seconds."""

CLOCK_LOOK_S = 1.0
WITHOUT_ADDRESS_S = 2.0
"""A server without an address here (not reached yet, or by a proxy) is asked, or tried, after any
change, but not more often than that."""


def clocks() -> tuple[float, float]:
    """The machine's."""
    return time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_MONOTONIC)


class Surroundings:
    """Tells ``link`` what happens around it, from ``start`` to ``close``.

    ``mounted_from`` gives the server's address where the kernel, not our session, knows it.
    """

    def __init__(
        self,
        link: Link,
        mounted_from: Callable[[], str] = lambda: "",
        look: Callable[[str, str], Way] = rtnetlink.look,
        read: Clocks = clocks,
    ) -> None:
        self._link = link
        self._mounted_from = mounted_from
        self._look = look
        self._read = read
        self._way: Way | None = None
        self._changes: rtnetlink.Changes | None = None
        self._tried = -WITHOUT_ADDRESS_S

    def start(self) -> None:
        """Listen to the kernel, where it lets us."""
        try:
            self._changes = rtnetlink.Changes(self.network_changed)
        except OSError as error:
            log.info("changes of the network are not told: %s", error)

    def close(self) -> None:
        """Listen no more."""
        if self._changes is not None:
            self._changes.close()
            self._changes = None

    def network_changed(self) -> None:
        """Something did; whether it matters to this link is looked at."""
        addresses = self._addresses()
        if addresses is None:
            self._changed_somewhere()
            return
        own, server = addresses
        up = self._link.usable
        try:
            now = self._look(server, own if up else "")
        except (OSError, ValueError) as error:
            log.info("the way to %s is not known: %s", server, error)
            return
        before, self._way = self._way, now
        self._tell(sign(before, now, own, up), now, own)

    def _addresses(self) -> tuple[str, str] | None:
        """Ours (empty: not known) and the server's."""
        connected = self._link.connected
        if connected is not None and connected.addresses is not None:
            return connected.addresses
        server = self._mounted_from()
        return ("", server) if server else None

    def _tell(self, meaning: Sign, now: Way, own: str) -> None:
        if meaning is Sign.GONE:
            self._link.gone(now.blocked or f"the address {own} of this machine is gone")
            if not now.blocked:
                self._link.hope("another network", moved=True)
        elif meaning is Sign.DOUBT:
            self._link.doubt(f"the network changed: now by {now.interface}")
        elif meaning is Sign.BACK:
            self._link.hope(f"there is a way again, by {now.interface}", moved=True)

    def _changed_somewhere(self) -> None:
        """No address to look for: not reached yet, or not by us (a proxy, a mounted directory)."""
        if time.monotonic() - self._tried < WITHOUT_ADDRESS_S:
            return
        self._tried = time.monotonic()
        self._link.doubt("the network changed")
        self._link.hope("the network changed")

    def metered(self, metered: bool) -> None:
        """Told by NetworkManager."""
        self._link.set_metered(metered)

    def connectivity(self, full: bool, portal: bool) -> None:
        """Told by NetworkManager; a server may be nearer than what it tries."""
        if portal:
            self._link.doubt("NetworkManager sees a captive portal")
        elif full:
            self._link.hope("NetworkManager sees the network")
        else:
            self._link.doubt("NetworkManager sees no full connectivity")

    async def watch_clocks(self) -> None:
        """Notice that the machine slept, also where nobody tells; runs forever."""
        before = self._read()
        while True:
            await asyncio.sleep(CLOCK_LOOK_S)
            now = self._read()
            if slept := suspended_s(before, now):
                self.resumed(f"this machine slept for {slept:.0f} s")
            before = now

    def resumed(self, cause: str) -> None:
        """The machine is awake again: connections may have died without a word meanwhile."""
        self._link.doubt(cause)
        self._link.hope(cause, moved=True)

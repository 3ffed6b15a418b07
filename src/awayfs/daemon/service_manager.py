"""Telling systemd how we are: sd_notify(3), and its watchdog.

The protocol is a datagram of ``NAME=value`` lines to the socket that ``$NOTIFY_SOCKET`` names.
The sign of life comes from the event loop, at half the time that the watchdog allows: a loop
that hangs gives none, and the daemon is ended and started again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, MutableMapping

log = logging.getLogger(__name__)

LOOK_S = 15.0
"""Without a watchdog, the status line is looked at so often."""


class ServiceManager:
    """Whoever started us and wants to hear of us; does nothing where nobody does.

    The variables are taken out of the environment: they are not meant for the processes that we
    start. ``pid`` is ours; a watchdog that is meant for another process is none for us.
    """

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", str(pid))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = 0.0
        if microseconds.isdecimal() and meant == str(pid):
            self.watchdog_s = int(microseconds) / 1_000_000

    def ready(self, status: str) -> None:
        """The mount can be used."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    async def keep_telling(self, status: Callable[[], str]) -> None:
        """Signs of life, and the status line when it has changed; runs until it is cancelled."""
        if not self._address:
            return
        told = ""
        while True:
            now = status()
            lines = ["WATCHDOG=1"] if self.watchdog_s else []
            if now != told:
                lines.append(f"STATUS={now}")
                told = now
            if lines:
                self._send("\n".join(lines))
            await asyncio.sleep(self.watchdog_s / 2 if self.watchdog_s else LOOK_S)

    def _send(self, text: str) -> None:
        """One datagram, without waiting: the loop has more to do than this."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            log.debug("the service manager cannot be told: %s", error)

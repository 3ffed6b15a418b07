"""The daemons of other volumes on the same server: what one notices, the others look at at once.

A word from a neighbour is a hint. It makes a link ask its server, or try it; nothing more. Sockets
are in a directory of ours, and a daemon hears only its own user (``control/server.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from awayfs.control import mounts
from awayfs.control.address import short
from awayfs.control.messages import ControlError, encode, one_line
from awayfs.control.server import Handler
from awayfs.control.urls import LOCAL, server_of
from awayfs.volume.link import Link

log = logging.getLogger(__name__)

TOLD_WITHIN_S = 5.0
LONGEST_CAUSE = 200


class Neighbours:
    """``volume`` and ``url`` are our own; ``link`` is told what neighbours say."""

    def __init__(self, link: Link, volume: str, url: str) -> None:
        self._link = link
        self._volume = volume
        self._server = server_of(url)

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {"hint": self._hint}

    async def _hint(self, params: dict[str, Any]) -> dict[str, Any]:
        came, server = params.get("came"), params.get("server")
        if not isinstance(came, bool) or not isinstance(server, str):
            raise ControlError("came, server: needed", "usage")
        if not self._worth_telling or server != self._server:
            raise ControlError(f"{server}: this volume is on another server", "usage")
        cause = one_line(str(params.get("cause") or ""))[:LONGEST_CAUSE]
        if came:
            self._link.hope(f"another volume has reached {server}")
        else:
            self._link.doubt(f"another volume lost {server}: {cause}")
        return {}

    @property
    def _worth_telling(self) -> bool:
        """Directories of this machine share nothing but the machine."""
        return self._server not in ("", LOCAL)

    async def tell(self, came: bool, cause: str) -> None:
        """Tell those of the same server; who does not listen at once is passed over."""
        if not self._worth_telling:
            return
        loop = asyncio.get_running_loop()
        others = await loop.run_in_executor(None, mounts.of_server, self._server, self._volume)
        params = {"came": came, "server": self._server, "cause": cause}
        message = encode({"id": 1, "method": "hint", "params": params})
        await asyncio.gather(*(self._send(address, message) for address in others))

    async def _send(self, address: str, message: bytes) -> None:
        try:
            async with asyncio.timeout(TOLD_WITHIN_S):
                with short(address) as name:
                    reader, writer = await asyncio.open_unix_connection(name)
                try:
                    writer.write(message)
                    await reader.readline()
                finally:
                    writer.close()
        except (OSError, ValueError, TimeoutError) as error:
            log.info("%s is not told: %s", address, error)

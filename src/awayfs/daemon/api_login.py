"""What commands can say about passwords: which one is missing, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from awayfs.control.messages import ControlError
from awayfs.control.server import Handler
from awayfs.core.secrets import Secrets
from awayfs.daemon.wallet import UserWallet
from awayfs.volume.link import Link


class LoginApi:
    """Answers ``login``. What it is given stays in memory, and goes to the worker alone.

    ``on_asked`` is told that a person is being asked.
    """

    def __init__(self, link: Link, wallet: UserWallet, on_asked: Callable[[], None]) -> None:
        self._link = link
        self._wallet = wallet
        self._on_asked = on_asked

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {"login": self._login, "login_wanted": self._wanted}

    async def _wanted(self, _params: dict[str, Any]) -> dict[str, Any]:
        state = self._link.state
        self._on_asked()
        return {
            "mode": str(state.mode),
            "cause": state.cause,
            "wants": self._wallet.wants,
            "complaints": list(self._wallet.complaints.values()),
        }

    async def _login(self, params: dict[str, Any]) -> dict[str, Any]:
        """Raises what the server says to it, so that the person who typed it hears of it."""
        secrets = Secrets(_text(params, "password"), _text(params, "passphrase"))
        if not secrets:
            raise ControlError("a password or a passphrase is needed", "usage")
        self._wallet.give(secrets)
        used = not self._link.usable and not self._link.held_offline
        if used:
            await self._link.connect()
        state = self._link.state
        refused = self._wallet.has_refused(secrets)
        return {"mode": str(state.mode), "cause": state.cause, "used": used, "refused": refused}


def _text(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name, "")
    if not isinstance(value, str):
        raise ControlError(f"{name}: text is needed", "usage")
    return value

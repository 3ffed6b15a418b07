"""What commands can ask about the mode: offline, online, auto."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from awayfs.control.messages import ControlError
from awayfs.control.server import Handler
from awayfs.core.orders import Scope
from awayfs.daemon.standing_orders import StandingOrders
from awayfs.volume.volume import Volume


class ModeApi:
    """Answers the commands that switch one volume's mode."""

    def __init__(self, volume: Callable[[], Volume], orders: Callable[[], StandingOrders]) -> None:
        self._volume = volume
        self._orders = orders

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {"offline": self._offline, "online": self._online, "auto": self._auto}

    async def _offline(self, params: dict[str, Any]) -> dict[str, Any]:
        until_ns = params.get("until_ns")
        if until_ns is not None and not isinstance(until_ns, int):
            raise ControlError("until_ns: a time in nanoseconds is needed", "usage")
        await self._orders().offline(_scope(params), until_ns)
        return self._reply()

    async def _online(self, params: dict[str, Any]) -> dict[str, Any]:
        accept = bool(params.get("accept_server"))
        await self._orders().online(_scope(params), accept_server=accept)
        return self._reply()

    async def _auto(self, params: dict[str, Any]) -> dict[str, Any]:
        await self._orders().auto(_scope(params))
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        state = self._volume().link.state
        answer = {"mode": str(state.mode), "by_hand": state.by_hand, "cause": state.cause}
        return answer if state.until_ns is None else {**answer, "until_ns": state.until_ns}


def _scope(params: Mapping[str, Any]) -> Scope:
    try:
        return Scope(params.get("scope") or Scope.VOLUME)
    except ValueError:
        raise ControlError(f"{params['scope']}: no such scope", "usage") from None

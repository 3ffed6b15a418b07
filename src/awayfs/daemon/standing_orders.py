"""What people ordered of this volume, its server and everything, and that the link obeys."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from awayfs.control import orders as files
from awayfs.control.messages import ControlError
from awayfs.core.errors import RemoteError
from awayfs.core.modes import ModeState
from awayfs.core.orders import Order, Scope, order_of, strictest
from awayfs.volume.volume import Volume

log = logging.getLogger(__name__)

OWN = "volume.order"
LONGEST_NAP_S = 30.0
"""A clock that is set, a machine that slept, and an order that nobody could tell us of (we did not
answer at that moment) are noticed within that."""


class StandingOrders:
    """``server`` is the host that the volume is on, ``mountpoint`` what to call the volume."""

    def __init__(self, volume: Volume, server: str, mountpoint: str) -> None:
        self._volume = volume
        self._link = volume.link
        self._facts = volume.store.facts
        self._server = server
        self._mountpoint = mountpoint
        self._changed = asyncio.Event()
        self._going_online = 0  # a person's attempts under way

    def standing(self) -> tuple[Scope, Order] | None:
        """The order that holds at this moment; None when nobody wants the volume offline."""
        orders = {
            Scope.VOLUME: self._own(),
            Scope.SERVER: files.read(Scope.SERVER, self._server) if self._server else None,
            Scope.ALL: files.read(Scope.ALL),
        }
        return strictest(orders, self._volume.context.now())

    def begin(self) -> None:
        """Before the first contact: offline from the start, if somebody wants it."""
        if (standing := self.standing()) is not None:
            self._hold(*standing)

    async def offline(self, scope: Scope, until_ns: int | None) -> None:
        """Somebody said so; of a wider scope than the volume, the order is written already."""
        if scope is Scope.VOLUME:
            self._set(Order(self._volume.context.now(), until_ns))
        await self.look()

    async def online(self, scope: Scope, *, accept_server: bool = False) -> None:
        """Take the order of the scope back and connect; raises what prevents that.

        ``accept_server``: whoever answers to this attempt is our server.
        """
        if scope is Scope.VOLUME:
            self._set(None)
        if (standing := self.standing()) is not None:
            self._hold(*standing)
            raise ControlError(
                f"{self._mountpoint}: stays offline {self._cause(standing[0])}; to end that: "
                f"awayfs auto{self._named(standing[0])}",
                "held",
            )
        if accept_server:
            self._volume.accept_server()
        self._going_online += 1
        try:
            await self._link.online_by_hand()
        finally:
            self._going_online -= 1
            self._changed.set()

    async def auto(self, scope: Scope) -> None:
        """Take the order of the scope back, and let the link decide unless another one holds."""
        if scope is Scope.VOLUME:
            self._set(None)
        self._changed.set()
        if (standing := self.standing()) is not None:
            self._hold(*standing)
            return
        self._link.automatic()
        await self._connect()

    async def look(self) -> None:
        """Obey what stands by now."""
        self._changed.set()
        standing = self.standing()
        if standing is not None:
            self._hold(*standing)
            await self._link.leave()
        elif self._link.held_offline:
            self._link.automatic("the time for being offline is over")
            await self._connect()

    async def keep_time(self) -> None:
        """End what was to end at a certain time; runs forever."""
        while True:
            standing = self.standing()
            if (standing is not None) != self._link.held_offline and not self._going_online:
                await self.look()
            left_s = LONGEST_NAP_S
            if standing is not None and (until_ns := standing[1].until_ns) is not None:
                left_s = min(left_s, (until_ns - self._volume.context.now()) / 1e9 + 0.001)
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                pass

    def shown(self) -> dict[str, Any]:
        """What ``status`` tells of it."""
        state: ModeState = self._link.state
        standing = self.standing() if self._link.held_offline else None
        if standing is None:
            return {"until_ns": state.until_ns, "scope": None}
        scope, order = standing
        return {"until_ns": order.until_ns, "scope": self._named(scope).strip() or "all"}

    def _hold(self, scope: Scope, order: Order) -> None:
        self._link.offline_by_hand(self._cause(scope), order.until_ns)

    def _cause(self, scope: Scope) -> str:
        if scope is Scope.ALL:
            return "by hand, for everything"
        return f"by hand, for server:{self._server}" if scope is Scope.SERVER else "by hand"

    def _named(self, scope: Scope) -> str:
        """The scope as a command takes it, with a space before it."""
        if scope is Scope.ALL:
            return ""
        return f" server:{self._server}" if scope is Scope.SERVER else f" {self._mountpoint}"

    async def _connect(self) -> None:
        try:
            await self._link.connect()
        except RemoteError as error:
            log.info("still offline: %s", error)  # it goes on trying

    def _own(self) -> Order | None:
        try:
            return order_of(json.loads(self._facts.get(OWN) or "null"))
        except ValueError:
            return None

    def _set(self, order: Order | None) -> None:
        if order is not None or self._facts.get(OWN) is not None:
            self._facts.set(OWN, json.dumps(order.as_dict() if order is not None else None))

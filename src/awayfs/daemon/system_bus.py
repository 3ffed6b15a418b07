"""NetworkManager and logind, over the system bus, where they run.

NetworkManager tells whether the network is metered, and that there is one (again) or a captive
portal in the way; logind that the machine wakes up. Without a bus, or without them, nothing
happens. A bus that restarts is looked for again.

Names and values: NetworkManager's and logind's D-Bus API references. Anybody may send us signals,
so only those of the names' owners count.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageType,
    Properties,
    message_bus,
)
from jeepney.io.asyncio import DBusConnection, open_dbus_connection

log = logging.getLogger(__name__)

NM = "org.freedesktop.NetworkManager"
NM_OBJECT = DBusAddress("/org/freedesktop/NetworkManager", bus_name=NM, interface=NM)
LOGIND = "org.freedesktop.login1"
BUS = "org.freedesktop.DBus"

UNKNOWN, PORTAL, FULL = 0, 2, 4  # NM_CONNECTIVITY_...
METERED = (1, 3)  # NM_METERED_YES, NM_METERED_GUESS_YES

AGAIN_S = 30.0


class Listener(Protocol):
    """Who is told."""

    def metered(self, metered: bool) -> None:
        """Whether traffic costs money, as far as NetworkManager knows."""
        ...

    def connectivity(self, full: bool, portal: bool) -> None:
        """The network changed: all of it can be reached, or a captive portal is in the way."""
        ...

    def resumed(self, cause: str) -> None:
        """The machine is awake again."""
        ...


def bus_address() -> str:
    """The socket of the system bus; empty where there is none that could be used."""
    told = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    kind, _, rest = told.partition(";")[0].partition(":")
    path = dict(part.partition("=")[::2] for part in rest.split(",")).get("path", "")
    return path if kind == "unix" and os.path.exists(path) else ""


async def listen(to: Listener) -> None:
    """Pass on what the bus tells, for ever; a bus that is not there is looked for now and then."""
    while True:
        if bus_address():
            try:
                async with await open_dbus_connection("SYSTEM") as connection:
                    await _Session(connection, to).run()
            except Exception as error:  # whatever a bus says: it is no reason to fail
                log.info("the system bus is not listened to: %s: %s", type(error).__name__, error)
        await asyncio.sleep(AGAIN_S)


class _Session:
    """One connection to the bus."""

    def __init__(self, connection: DBusConnection, to: Listener) -> None:
        self._connection = connection
        self._to = to
        self._owners: dict[str, str] = {}
        self._expected: dict[int, Callable[[tuple[Any, ...]], None]] = {}

    async def run(self) -> None:
        """Until the bus ends; raises ``EOFError`` then."""
        for rule in _rules():
            await self._ask(message_bus.AddMatch(rule))
        for name in (NM, LOGIND):
            await self._ask_owner(name)
        await self._ask_network()
        while True:
            message = await self._connection.receive()
            fields = message.header.fields
            if message.header.message_type is MessageType.signal:
                sender = str(fields.get(HeaderFields.sender, ""))
                await self._signal(sender, str(fields.get(HeaderFields.member)), message.body)
            else:
                then = self._expected.pop(fields.get(HeaderFields.reply_serial, 0), None)
                if then is not None and message.header.message_type is MessageType.method_return:
                    then(message.body)

    async def _ask(
        self, message: Message, then: Callable[[tuple[Any, ...]], None] | None = None
    ) -> None:
        """Send a request; errors (nobody there) are passed over."""
        serial = next(self._connection.outgoing_serial)
        if then is not None:
            self._expected[serial] = then
        await self._connection.send(message, serial=serial)

    async def _ask_owner(self, name: str) -> None:
        def then(body: tuple[Any, ...]) -> None:
            self._owners[name] = body[0]

        await self._ask(message_bus.GetNameOwner(name), then)

    async def _ask_network(self) -> None:
        await self._ask(Properties(NM_OBJECT).get_all(), lambda body: self._network(body[0]))

    async def _signal(self, sender: str, member: str, body: tuple[Any, ...]) -> None:
        if sender == BUS and member == "NameOwnerChanged":
            name, _, owner = body
            self._owners[name] = owner
            if name == NM and owner:
                await self._ask_network()
        elif sender == self._owners.get(LOGIND) and member == "PrepareForSleep":
            if body[0] is False:
                self._to.resumed("the machine was suspended")
        elif sender == self._owners.get(NM) and member == "PropertiesChanged" and body[0] == NM:
            self._network(body[1])

    def _network(self, values: Mapping[str, tuple[str, Any]]) -> None:
        """Properties of NetworkManager, with their types as D-Bus has them."""
        if "Metered" in values:
            self._to.metered(values["Metered"][1] in METERED)
        known = values.get("Connectivity", ("u", UNKNOWN))[1]
        if known != UNKNOWN:
            self._to.connectivity(known == FULL, known == PORTAL)


def _rules() -> list[MatchRule]:
    changes = MatchRule(
        type="signal",
        sender=NM,
        interface="org.freedesktop.DBus.Properties",
        path=NM_OBJECT.object_path,
    )
    sleep = MatchRule(
        type="signal", sender=LOGIND, interface=f"{LOGIND}.Manager", member="PrepareForSleep"
    )
    rules = [changes, sleep]
    for name in (NM, LOGIND):
        owner = MatchRule(type="signal", sender=BUS, interface=BUS, member="NameOwnerChanged")
        owner.add_arg_condition(0, name)
        rules.append(owner)
    return rules

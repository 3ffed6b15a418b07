"""A private bus of Debian's ``dbus-daemon``, and services on it that say what a test wants."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import Any

import pytest
from jeepney import (
    DBusAddress,
    HeaderFields,
    MessageType,
    message_bus,
    new_method_return,
    new_signal,
)
from jeepney.io.asyncio import open_dbus_connection

from awayfs.daemon import system_bus

needs_bus = pytest.mark.skipif(
    shutil.which("dbus-daemon") is None, reason="no dbus-daemon here (Debian: dbus-daemon)"
)


def start_bus(path: str) -> subprocess.Popen[bytes]:
    """A bus at a socket, with nobody on it; anybody may own any name."""
    command = ["dbus-daemon", "--session", "--nofork", "--nopidfile"]
    return subprocess.Popen([*command, f"--address=unix:path={path}"])


class Fake:
    """A service on the bus that answers ``GetAll`` and sends signals."""

    def __init__(self, connection: Any, **values: int) -> None:
        self.values = values
        self._connection = connection
        self._serving = asyncio.ensure_future(self._serve())

    @classmethod
    async def at(cls, name: str, **values: int) -> Fake:
        connection = await open_dbus_connection("SYSTEM")
        await connection.send(message_bus.RequestName(name))
        return cls(connection, **values)

    async def _serve(self) -> None:
        while True:
            try:
                call = await self._connection.receive()
            except EOFError:
                return
            if call.header.message_type is MessageType.method_call:
                assert call.header.fields[HeaderFields.member] == "GetAll"
                answer = new_method_return(call, "a{sv}", (self._typed(self.values),))
                await self._connection.send(answer)

    def _typed(self, values: dict[str, int]) -> dict[str, tuple[str, int]]:
        return {name: ("u", value) for name, value in values.items()}

    async def changed(self, **values: int) -> None:
        where = DBusAddress(
            "/org/freedesktop/NetworkManager", interface="org.freedesktop.DBus.Properties"
        )
        body = (system_bus.NM, self._typed(values), [])
        await self._connection.send(new_signal(where, "PropertiesChanged", "sa{sv}as", body))

    async def sleeps(self, begins: bool) -> None:
        where = DBusAddress("/org/freedesktop/login1", interface=f"{system_bus.LOGIND}.Manager")
        await self._connection.send(new_signal(where, "PrepareForSleep", "b", (begins,)))

    async def close(self) -> None:
        self._serving.cancel()
        await self._connection.close()

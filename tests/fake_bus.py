"""A private bus of Debian's ``dbus-daemon``, and services on it that say what a test wants."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self

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

from awayfs.daemon import desktop_notice, system_bus
from tests.harness import eventually

needs_bus = pytest.mark.skipif(
    shutil.which("dbus-daemon") is None, reason="no dbus-daemon here (Debian: dbus-daemon)"
)


def start_bus(path: str, *how: str) -> subprocess.Popen[bytes]:
    """A bus at a socket, with nobody on it; anybody may own any name."""
    command = ["dbus-daemon", *(how or ("--session",)), "--nofork", "--nopidfile"]
    return subprocess.Popen([*command, f"--address=unix:path={path}"])


@contextmanager
def bus_at(path: str, *how: str) -> Iterator[None]:
    """A bus that takes connections, until the end."""
    process = start_bus(path, *how)
    try:
        eventually(lambda: os.path.exists(path), "the bus")
        yield
    finally:
        process.kill()
        process.wait()


class Fake:
    """A service on the bus that answers ``GetAll`` and sends signals."""

    def __init__(self, connection: Any, **values: int) -> None:
        self.values = values
        self._connection = connection
        self._serving = asyncio.ensure_future(self._serve())

    @classmethod
    async def at(cls, name: str, bus: str = "SYSTEM", **values: int) -> Self:
        connection = await open_dbus_connection(bus)
        await connection.send(message_bus.RequestName(name))
        return cls(connection, **values)

    async def _serve(self) -> None:
        while True:
            try:
                call = await self._connection.receive()
            except EOFError:
                return
            if call.header.message_type is MessageType.method_call:
                await self._connection.send(self.answer(call))

    def answer(self, call: Any) -> Any:
        """The answer to a call."""
        assert call.header.fields[HeaderFields.member] == "GetAll"
        return new_method_return(call, "a{sv}", (self._typed(self.values),))

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


class OnThread:
    """Runs a ``Fake`` on a thread of its own, for who has no event loop."""

    fake: Any

    def __init__(self, begin: Coroutine[Any, Any, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.fake = self.run(begin)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something there; what comes of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        """It leaves the bus."""
        self.run(self.fake.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class NetworkManager(OnThread):
    """A ``Fake`` of that name."""

    def __init__(self, **values: int) -> None:
        super().__init__(Fake.at(system_bus.NM, **values))

    def says(self, **values: int) -> None:
        """Its properties change."""
        self.fake.values |= values
        self.run(self.fake.changed(**values))


class _Shown(Fake):
    """Remembers summary and body of each notice."""

    notices: list[tuple[str, str]]

    def answer(self, call: Any) -> Any:
        assert call.header.fields[HeaderFields.member] == "Notify"
        self.notices.append((call.body[3], call.body[4]))
        return new_method_return(call, "u", (len(self.notices),))


class Desktop(OnThread):
    """What shows notices, on the bus at ``address``."""

    def __init__(self, address: str) -> None:
        self.notices: list[tuple[str, str]] = []
        super().__init__(_Shown.at(desktop_notice.NAME, address))
        self.fake.notices = self.notices

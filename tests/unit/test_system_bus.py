"""NetworkManager and logind as fakes on a private bus of Debian's ``dbus-daemon``."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.fake_bus import Fake, needs_bus, start_bus

from awayfs.daemon import system_bus

pytestmark = needs_bus


class Told:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def metered(self, metered: bool) -> None:
        self.all.append("metered" if metered else "free")

    def connectivity(self, full: bool, portal: bool) -> None:
        self.all.append("full" if full else "portal" if portal else "little")

    def resumed(self, cause: str) -> None:
        self.all.append("resumed")


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = f"{tmp_path}/bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
    monkeypatch.setattr(system_bus, "AGAIN_S", 0.05)
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        processes.append(start_bus(path))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


Play = Callable[[Told], Coroutine[Any, Any, None]]


def scenario(play: Play) -> None:
    async def run() -> None:
        told = Told()
        listening = asyncio.ensure_future(system_bus.listen(told))
        try:
            await asyncio.wait_for(play(told), 90)
        finally:
            listening.cancel()

    asyncio.run(run())


async def until(check: Callable[[], object]) -> None:
    while not check():
        await asyncio.sleep(0.01)


async def there() -> None:
    await until(system_bus.bus_address)
    await asyncio.sleep(0.2)


def test_what_networkmanager_knows_and_what_changes(bus: Any) -> None:
    async def play(told: Told) -> None:
        await there()
        manager = await Fake.at(system_bus.NM, Metered=1, Connectivity=4)
        await until(lambda: told.all == ["metered", "full"])
        await manager.changed(Metered=2)
        await manager.changed(Connectivity=0)
        await manager.changed(Connectivity=2)
        await manager.changed(Connectivity=1, Metered=3)
        await until(lambda: told.all[2:] == ["free", "portal", "metered", "little"])
        await manager.close()
        await (await Fake.at(system_bus.NM, Metered=4)).changed(State=70)
        await until(lambda: told.all[6:] == ["free"])

    bus()
    scenario(play)


def test_a_machine_that_wakes_up(bus: Any) -> None:
    async def play(told: Told) -> None:
        await there()
        logind = await Fake.at(system_bus.LOGIND)
        await asyncio.sleep(0.3)
        await logind.sleeps(True)
        await logind.sleeps(False)
        await until(lambda: told.all == ["resumed"])

    bus()
    scenario(play)


def test_signals_of_others_do_not_count(bus: Any) -> None:
    async def play(told: Told) -> None:
        await there()
        logind = await Fake.at(system_bus.LOGIND)
        manager = await Fake.at(system_bus.NM, Metered=2)
        await until(lambda: told.all == ["free"])
        await logind.changed(Metered=1)
        await manager.sleeps(False)
        await asyncio.sleep(0.3)
        assert told.all == ["free"]

    bus()
    scenario(play)


def test_a_bus_that_comes_and_goes(bus: Any) -> None:
    async def play(told: Told) -> None:
        await asyncio.sleep(0.2)
        assert told.all == []
        first = bus()
        await there()
        await Fake.at(system_bus.NM, Metered=1)
        await until(lambda: told.all == ["metered"])
        first.kill()
        first.wait()
        os.unlink(system_bus.bus_address())
        bus()
        await there()
        await Fake.at(system_bus.NM, Metered=2)
        await until(lambda: told.all == ["metered", "free"])

    scenario(play)


@pytest.mark.parametrize(
    "address", ["unix:path=/nowhere/at/all", "tcp:host=127.0.0.1,port=1", "", "unix:abstract=x"]
)
def test_no_bus_no_trouble(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    assert system_bus.bus_address() in ("", "/run/dbus/system_bus_socket")

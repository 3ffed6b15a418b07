"""The event socket without a mount: slow readers, readers that go, and who may not read."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from awayfs.control.event_socket import MOST, EventSocket
from awayfs.control.messages import ControlError
from awayfs.core.events import EventKind, EventLog


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.setblocking(False)
    return connection


async def received(connection: socket.socket) -> list[dict[str, Any]]:
    """All that comes until nothing more does."""
    loop, found = asyncio.get_running_loop(), b""
    while True:
        try:
            more = await asyncio.wait_for(loop.sock_recv(connection, 1 << 16), 0.3)
        except TimeoutError:
            return [json.loads(line) for line in found.splitlines()]
        if not more:
            return [json.loads(line) for line in found.splitlines()]
        found += more


def test_a_reader_that_is_too_slow_is_told_what_he_missed(tmp_path: Path) -> None:
    async def body() -> None:
        log = EventLog(most=100)
        served = EventSocket(str(tmp_path / "s"), log)
        served.start()
        slow, quick = connected(served._path), connected(served._path)
        await asyncio.sleep(0.05)
        for _ in range(50):
            for _ in range(100):
                log.tell(EventKind.MODE, 0, "x" * 900)
            await asyncio.sleep(0)
        seen = await received(quick)
        found = await received(slow)
        missed = sum(event.get("missed", 0) for event in found)
        told = [event for event in found if event["kind"] == "mode"]
        assert missed > 0
        assert missed + len(told) == 5000
        assert found[-1]["seq"] == seen[-1]["seq"] == 5000
        served.close()
        slow.close()
        quick.close()

    asyncio.run(body())


def test_readers_that_go_are_forgotten_and_many_are_turned_away(tmp_path: Path) -> None:
    async def body() -> None:
        log = EventLog()
        served = EventSocket(str(tmp_path / "s"), log)
        served.start()
        first = connected(served._path)
        first.send(b"what a reader says means nothing\n")
        await asyncio.sleep(0.05)
        assert len(served._readers) == 1
        first.close()
        await asyncio.sleep(0.05)
        log.tell(EventKind.MODE, 0, "nobody hears it")
        assert not served._readers
        many = []
        for _ in range(MOST + 3):
            many.append(connected(served._path))
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert len(served._readers) == MOST
        assert many[-1].recv(10) == b""
        served.close()
        for connection in many:
            connection.close()

    asyncio.run(body())


def test_its_file(tmp_path: Path) -> None:
    """0600, one daemon's at a time, and gone at the end, but not another one's."""

    async def body() -> None:
        path = str(tmp_path / "s")
        served = EventSocket(path, EventLog())
        served.start()
        assert os.stat(path).st_mode & 0o777 == 0o600
        with pytest.raises(ControlError, match="another daemon"):
            EventSocket(path, EventLog()).start()
        os.rename(path, path + ".old")
        os.close(os.open(path, os.O_CREAT))
        served.close()
        assert os.path.exists(path)

    asyncio.run(body())

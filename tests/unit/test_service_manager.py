"""What is sent to a service manager, when, and that nobody waits for one."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from awayfs.daemon.service_manager import ServiceManager


def listening(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(address)
    return sock


def heard(sock: socket.socket) -> list[str]:
    lines: list[str] = []
    while True:
        try:
            lines += sock.recv(65536).decode().splitlines()
        except BlockingIOError:
            return lines


@pytest.mark.parametrize("abstract", [False, True])
def test_both_kinds_of_address(tmp_path: Path, abstract: bool) -> None:
    name = f"awayfs-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": f"@{name}" if abstract else name, "HOME": "/"}
    with listening(f"\0{name}" if abstract else name) as sock:
        manager = ServiceManager(environment, 7)
        manager.ready("connected")
        manager.stopping()
        assert heard(sock) == ["READY=1", "STATUS=connected", "STOPPING=1"]
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_whose_watchdog_it_is(variables: dict[str, str], watchdog_s: float) -> None:
    assert ServiceManager(dict(variables), 7).watchdog_s == watchdog_s


def test_a_loop_that_hangs_gives_no_sign(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}

    async def play(sock: socket.socket) -> None:
        statuses = iter(["connected"] * 4 + ["disconnected"] * 1000)
        manager = ServiceManager(environment, 7)
        telling = asyncio.create_task(manager.keep_telling(lambda: next(statuses)))
        lines: list[str] = []
        while "STATUS=disconnected" not in lines:
            await asyncio.sleep(0.05)
            lines += heard(sock)
        assert lines.count("WATCHDOG=1") >= 5
        assert [one for one in lines if "STATUS" in one] == [
            "STATUS=connected",
            "STATUS=disconnected",
        ]
        time.sleep(0.3)
        assert heard(sock) == []
        while "WATCHDOG=1" not in heard(sock):
            await asyncio.sleep(0.05)
        telling.cancel()

    with listening(address) as sock:
        asyncio.run(play(sock))


def test_nobody_is_there_or_nobody_listens(tmp_path: Path) -> None:
    silent = ServiceManager({}, 7)
    silent.ready("x")
    asyncio.run(silent.keep_telling(lambda: "x"))
    address = str(tmp_path / "notify")
    gone = ServiceManager({"NOTIFY_SOCKET": address}, 7)
    gone.ready("x")
    with listening(address):
        for _ in range(1000):  # more than the socket holds
            gone.ready("x")

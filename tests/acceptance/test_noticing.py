"""How a volume notices that its server, its network or its machine went away and came back.

Nobody asks the server for anything while it is looked for: what is noticed is noticed by itself.
How short the times are is measured by ``bench/noticing.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import Client, SftpServer, eventually, mounted, needs_fuse
from tests.netns import CLIENT_ADDRESS, needs_netns, wired
from tests.programs import attempt
from tests.sshd import needs_sshd
from tests.unit.test_sftp_link import SlowLink

pytestmark = [*needs_fuse, *needs_sshd]

SOON_S = 10.0
"""For a loaded machine; looking now and then at an idle link alone would take longer."""
BACK_S = 30.0


def prepare(client: Client) -> None:
    for name in ("cached", "uncached", "never"):
        with open(f"{client.server.files}/{name}", "w") as file:
            file.write(f"{name}\n")
    client.mount()
    assert attempt("read", client.path("cached")).code == 0
    os.listdir(client.mountpoint)


def in_mode(client: Client, *modes: str, within: float = SOON_S) -> dict[str, Any]:
    """The status once the volume is in one of these modes."""

    def look() -> dict[str, Any] | None:
        status = client.status()
        return status if status["mode"] in modes else None

    found: dict[str, Any] = eventually(look, f"{modes}", within)
    return found


def check_away(client: Client, uncached: str = "uncached") -> None:
    """What is cached is here, what is not fails at once."""
    assert attempt("read", client.path("cached")).text == "cached\n"
    missing = attempt("read", client.path(uncached))
    assert (missing.code, missing.seconds < 1) == (errno.ENODATA, True)


def check_back(client: Client) -> None:
    """It is back by itself; what was written meanwhile is on the server, without a conflict."""
    in_mode(client, "connected", within=BACK_S)
    assert attempt("read", client.path("uncached")).text == "uncached\n"
    eventually(lambda: client.status()["pending"]["records"] == 0, "all sent", BACK_S)
    assert client.conflicts() == []


@contextlib.contextmanager
def changed_meanwhile(client: Client) -> Iterator[None]:
    """A change that is made here while the server is away gets there afterwards."""
    with open(client.path("meanwhile"), "w") as file:
        file.write("made offline\n")
    yield
    check_back(client)
    with open(f"{client.server.files}/meanwhile") as file:
        assert file.read() == "made offline\n"


def test_a_server_that_dies_is_noticed_by_an_idle_volume(tmp_path: object) -> None:
    with mounted("sftp", str(tmp_path)) as client:
        client.umount()
        prepare(client)
        client.server.cut()
        status = in_mode(client, "disconnected")
        assert "connection" in status["cause"] or "refuses" in status["cause"]
        check_away(client)
        with changed_meanwhile(client):
            client.server.restore()


def test_a_server_that_hangs_is_noticed_by_an_idle_volume(tmp_path: object) -> None:
    """Its sessions do not answer; new ones do, so that it is away for a moment only."""
    with mounted("sftp", str(tmp_path)) as client:
        client.umount()
        prepare(client)
        sshd = client.server.sshd  # type: ignore[union-attr]
        sshd.freeze()
        try:
            eventually(lambda: told(client, "connection was lost"), "the notice", SOON_S)
        finally:
            sshd.thaw()
        with changed_meanwhile(client):
            pass


class TestNetwork:
    pytestmark = needs_netns

    def test_black_hole(self, tmp_path: object) -> None:
        with wired(str(tmp_path), mount=False) as client:
            prepare(client)
            client.server.cut()
            in_mode(client, "disconnected")
            check_away(client)
            with changed_meanwhile(client):
                client.server.restore()

    def test_cable_pulled_here_and_there(self, tmp_path: object) -> None:
        with wired(str(tmp_path), mount=False) as client:
            prepare(client)
            wire = client.server.wire  # type: ignore[union-attr]
            for end, words, uncached in (
                ("", ("no route", "no connection"), "uncached"),
                (wire.server, ("no connection",), "never"),
            ):
                pulled = time.time_ns()
                wire.unplug(end)
                status = in_mode(client, "disconnected")
                assert any(
                    word in entry["cause"]
                    for word in words
                    for entry in status["history"]
                    if entry["since_ns"] > pulled - 10**9
                ), status["history"]
                check_away(client, uncached)
                with changed_meanwhile(client):
                    wire.plug(end)

    def test_another_address(self, tmp_path: object) -> None:
        """The old connection would never answer: it is given up, and a new one made at once."""
        with wired(str(tmp_path), mount=False) as client:
            prepare(client)
            wire = client.server.wire  # type: ignore[union-attr]
            wire.readdress(CLIENT_ADDRESS, "192.0.2.77")
            eventually(lambda: told(client, "no route", "the address"), "the notice", SOON_S)
            with changed_meanwhile(client):
                pass

    def test_other_networks_are_none_of_its_business(self, tmp_path: object) -> None:
        with wired(str(tmp_path), mount=False) as client:
            prepare(client)
            before = in_mode(client, "connected")["history"]
            inside = client.server.wire.inside(client.server.wire.client)  # type: ignore[union-attr]
            for command in ("add other type dummy", "set other up", "del other"):
                os.spawnvp(os.P_WAIT, inside[0], [*inside, "ip", "link", *command.split()])
            time.sleep(2)
            assert client.status()["history"] == before
            assert "other" not in client.log


def told(client: Client, *words: str) -> bool:
    causes = [entry["cause"] for entry in client.status()["history"]]
    return any(word in cause for word in words for cause in causes)


@pytest.mark.slow
def test_a_slow_link_is_not_a_dead_one(tmp_path: object) -> None:
    """An upload fills it for a quarter of a minute; the link asks meanwhile, and is not lost."""
    with narrow(SftpServer(str(tmp_path))) as server:
        client = Client(str(tmp_path), server)
        try:
            prepare(client)
            with open(client.path("large"), "wb") as file:
                file.write(os.urandom(900_000))
            for _ in range(10):
                time.sleep(1.0)
                assert attempt("read", client.path("cached")).text == "cached\n"
            client.sync()
            check_back(client)
            assert os.path.getsize(f"{server.files}/large") == 900_000
            told = [entry["mode"] for entry in client.status()["history"]]
            assert told.count("disconnected") == 1, "the first one is the start"
        finally:
            client.close()


@contextlib.contextmanager
def narrow(server: SftpServer, rate: int = 60_000) -> Iterator[SftpServer]:
    """The server through a proxy that lets so many bytes a second pass."""

    async def serve() -> None:
        async with SlowLink(server.sshd.port, rate) as link:
            port.append(link.port)
            await asyncio.to_thread(ended.wait)

    port: list[int] = []
    ended = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        eventually(lambda: port, "the proxy")
        known = server.sshd.options["known_hosts"]
        with open(known) as file:
            text = file.read()
        with open(known, "a") as file:
            file.write(text.replace(f":{server.sshd.port} ", f":{port[0]} "))
        server.url = server.url.replace(f":{server.sshd.port}/", f":{port[0]}/")
        yield server
    finally:
        ended.set()
        thread.join(5)
        server.close()

"""Days of a laptop: undocked, asleep, in tunnels, at a captive portal, while the server reboots.

After each: no program hung, no conflict came of it, every change is on the server, and the
history of the volume tells the story.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from awayfs.daemon import system_bus
from tests.fake_bus import Fake, needs_bus, start_bus
from tests.harness import Client, assert_same_tree, eventually, mounted, needs_fuse, run, tree
from tests.netns import CLIENT_ADDRESS, WiredServer, needs_netns, wired
from tests.programs import attempt
from tests.sshd import descendants, needs_sshd

pytestmark = [*needs_fuse, *needs_sshd]

BACK_S = 60.0
WAIT_S = 3.5
"""What anybody may wait on a loaded machine; the promise is 2 s."""

WORKER = """
import os, signal, sys, time
directory, going, worst, number = sys.argv[1], True, 0.0, 0
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while going:
    began = time.monotonic()
    with open(f"{directory}/file{number % 20}", "a") as file:
        file.write(f"{number}\\n")
    if number % 20 == 19:
        os.rename(f"{directory}/file7", f"{directory}/moved{number}")
    with open(f"{directory}/file{number % 5}") as file:
        file.read()
    worst = max(worst, time.monotonic() - began)
    number += 1
    time.sleep(0.05)
print(number, worst, flush=True)
"""


@contextmanager
def somebody_works(client: Client) -> Iterator[None]:
    """A program that writes, renames and reads all the while, and never waits long."""
    os.makedirs(client.path("work"), exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WORKER, client.path("work")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
        process.send_signal(signal.SIGTERM)
        number, worst = process.stdout.readline().split()
    finally:
        process.kill()
        process.wait()
    assert int(number) > 5
    assert float(worst) < WAIT_S, "a program waited"


def check_home(client: Client) -> None:
    """Connected, in step, and no conflict."""
    eventually(lambda: client.status()["mode"] == "connected", "being connected", BACK_S)
    eventually(lambda: client.status()["pending"]["records"] == 0, "all sent", BACK_S)
    assert client.conflicts() == []
    grain = client.server.time_grain_ns
    here, there = (
        tree(root, mtime_grain_ns=grain, directories_mtime=False)
        for root in (client.mountpoint, client.server.files)
    )
    assert_same_tree(here, there)


def story(client: Client) -> list[str]:
    """Modes and causes, in their order."""
    return [f"{entry['mode']}: {entry['cause']}" for entry in client.status()["history"]]


def wire_of(client: Client) -> WiredServer:
    assert isinstance(client.server, WiredServer)
    return client.server


class TestOnTheMove:
    pytestmark = needs_netns

    def test_undocked_and_in_another_network(self, tmp_path: object) -> None:
        """While an upload is under way; the next network gives another address."""
        with wired(str(tmp_path)) as client:
            wire = wire_of(client).wire
            with somebody_works(client):
                with open(client.path("large"), "wb") as file:
                    file.write(os.urandom(24 << 20))
                wire.unplug()
                eventually(lambda: client.status()["mode"] == "disconnected", "the notice")
                wire.plug()
                wire.readdress(CLIENT_ADDRESS, "192.0.2.88")
                time.sleep(3.0)
            check_home(client)
            told = [line for line in story(client) if "no route" in line or "no connection" in line]
            assert told, story(client)

    @pytest.mark.slow
    def test_a_train_with_ten_tunnels(self, tmp_path: object) -> None:
        """Nothing gets through for a while, again and again; the mode does not follow each."""
        with wired(str(tmp_path)) as client:
            with somebody_works(client):
                for _ in range(10):
                    time.sleep(2.0)
                    wire_of(client).cut()
                    time.sleep(1.5)
                    wire_of(client).restore()
            check_home(client)
            assert len(story(client)) < 30

    @pytest.mark.slow
    def test_a_cable_that_wobbles(self, tmp_path: object) -> None:
        """Each loss is certain, so each is followed; coming back takes longer and longer."""
        with wired(str(tmp_path)) as client:
            wire = wire_of(client).wire
            with somebody_works(client):
                for _ in range(15):
                    wire.unplug()
                    time.sleep(0.3)
                    wire.plug()
                    time.sleep(1.0)
            losses = sum("disconnected" in line for line in story(client))
            assert losses < 8, story(client)
            check_home(client)

    def test_the_server_reboots_during_replay(self, tmp_path: object) -> None:
        """It goes without a word and comes back knowing nothing of us."""
        with wired(str(tmp_path)) as client:
            client.offline()
            os.mkdir(client.path("new"))
            for number in range(60):
                with open(client.path(f"new/{number}"), "wb") as file:
                    file.write(os.urandom(20_000))
            client.awayfs("auto", client.mountpoint)
            server = wire_of(client)
            new = pathlib.Path(server.root, "new")
            eventually(lambda: len(list(new.glob("*"))) > 5, "replay under way")
            server.cut()
            server.sshd.kill()
            inside = server.wire.inside(server.wire.server)
            run(*inside, "ss", "-K", "state", "all", "dport", "!=", ":1")
            assert client.status()["pending"]["records"] > 0, "too late"
            server.sshd.start()
            server.restore()
            check_home(client)


@needs_bus
@needs_netns[1]
def test_asleep_for_an_hour(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server forgets the connection meanwhile; logind tells that the machine is awake."""
    bus = start_bus(f"{tmp_path}/bus")
    try:
        with wired(str(tmp_path), mount=False) as client:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
            eventually(lambda: os.path.exists(f"{tmp_path}/bus"), "the bus")
            with open(f"{client.server.files}/seen", "w") as file:
                file.write("seen\n")
            client.mount()
            assert attempt("read", client.path("seen")).text == "seen\n"
            asyncio.run(_sleep(client))
            check_home(client)
    finally:
        bus.kill()
        bus.wait()


async def _sleep(client: Client) -> None:
    logind = await Fake.at(system_bus.LOGIND)
    await asyncio.sleep(1.0)
    await logind.sleeps(True)
    asleep = [client.pid, *descendants(client.pid)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    server = wire_of(client)
    server.cut()
    server.sshd.kill()
    run(*server.wire.inside(server.wire.server), "ss", "-K", "state", "all", "dport", "!=", ":1")
    server.sshd.start()
    with open(f"{server.root}/unseen", "w") as file:
        file.write("made meanwhile\n")
    server.restore()
    await asyncio.sleep(1.0)
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    await logind.sleeps(False)
    known = await asyncio.to_thread(attempt, "read", client.path("seen"))
    assert (known.text, known.seconds < WAIT_S) == ("seen\n", True)
    await asyncio.to_thread(
        eventually, lambda: attempt("read", client.path("unseen")).code == 0, "its content", BACK_S
    )
    await logind.close()


PORTAL = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    guest, _ = listener.accept()
    guest.settimeout(2)
    try:
        guest.recv(1000)
        guest.sendall(b"HTTP/1.1 511 Pay First\\r\\n\\r\\n<html>pay</html>\\n")
    except OSError:
        pass
    guest.close()
"""


def test_a_captive_portal(tmp_path: object) -> None:
    """Something answers at the server's address, and it is no server."""
    with mounted("sftp", str(tmp_path)) as client:
        sshd = client.server.sshd  # type: ignore[union-attr]
        with open(client.path("before"), "w") as file:
            file.write("before\n")
        client.sync()
        sshd.kill()
        portal = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PORTAL, str(sshd.port)],
            stdout=subprocess.PIPE,
        )
        try:
            assert portal.stdout is not None
            assert portal.stdout.readline() == b"ready\n"
            eventually(lambda: "captive portal" in client.status()["cause"], "the cause", BACK_S)
            assert client.status()["mode"] == "disconnected"
            assert attempt("read", client.path("before")).text == "before\n"
            os.rename(client.path("before"), client.path("after"))
            assert "captive portal" in client.awayfs("why", client.path("after"))
        finally:
            portal.kill()
            portal.wait()
        sshd.start()
        check_home(client)
        assert os.listdir(client.server.files) == ["after"]

"""What happens, told to programs: ``.awayfs/events``, the event socket, ``awayfs events``."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from awayfs.control.address import short
from tests.harness import Client, eventually, make_server, mounted, needs_fuse, run

pytestmark = needs_fuse
WITHIN_S = 15.0


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with mounted("dir", str(tmp_path)) as client:
        yield client


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def events(client: Client, kind: str | None = None) -> list[dict[str, Any]]:
    with open(client.path(".awayfs", "events")) as file:
        found = parsed(file.read())
    return [event for event in found if kind is None or event["kind"] == kind]


def event_socket(client: Client) -> str:
    return str(client.status()["event_socket"])


def connected(client: Client) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(WITHIN_S)
    with short(event_socket(client)) as name:
        connection.connect(name)
    return connection


@contextlib.contextmanager
def following(*command: str) -> Iterator[list[dict[str, Any]]]:
    """A program that prints events, and what it has printed so far."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said: list[dict[str, Any]] = []

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(json.loads(line))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield said
    finally:
        process.kill()
        process.wait()
        listener.join(5)


# -- what is told -------------------------------------------------------------------------------


def test_modes_with_their_cause(client: Client) -> None:
    client.offline()
    client.online()
    modes = [(e["was"], e["mode"], e["by_hand"]) for e in events(client, "mode")]
    assert ("connected", "disconnected", True) in modes
    assert modes[-1][1] == "connected"
    assert "connected -> disconnected: by hand" in [e["text"] for e in events(client, "mode")]
    numbers = [event["seq"] for event in events(client)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert abs(events(client)[-1]["at_ns"] / 1e9 - time.time()) < 60


def test_a_conflict_is_found_and_over(client: Client) -> None:
    write(client.path("f"), "base")
    client.sync()
    client.offline()
    write(client.path("f"), "here")
    write(f"{client.server.root}/f", "there, and longer")
    client.online()
    client.sync(check=False)
    (found,) = events(client, "conflict")
    assert (found["path"], found["conflict_kind"]) == ("f", "update/update")
    assert not events(client, "resolved")
    client.awayfs("resolve", client.path("f"), "--keep", "local")
    client.sync()
    (over,) = events(client, "resolved")
    assert (over["path"], over["conflict"]) == ("f", found["conflict"])


def test_a_cache_that_is_full(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "cache-size=1M") as client:
        write(client.path("small"), "x")
        client.sync()
        client.offline()
        write(client.path("large"), "x" * 950_000)
        eventually(lambda: events(client, "cache-nearly-full"), "the warning")
        assert not events(client, "cache-full")
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                write(client.path("more"), "x" * 500_000)
        (full,) = events(client, "cache-full")
        assert "1048576" in full["text"]


def test_what_cannot_be_fetched_is_told_sparingly(client: Client) -> None:
    for number in range(30):
        write(f"{client.server.root}/{number}", "never read")
    assert len(os.listdir(client.mountpoint)) == 30
    client.offline()
    for number in range(30):
        with pytest.raises(OSError, match="No data"), open(client.path(str(number))) as file:
            file.read()
    failed = events(client, "fetch-failed")
    assert len(failed) == 20
    assert {event["path"] for event in failed} <= {str(number) for number in range(30)}


def test_hoard_walks_and_pins(client: Client) -> None:
    write(f"{client.server.root}/f", "content")
    client.awayfs("pin", client.mountpoint)
    (ended,) = events(client, "hoard-ended")
    assert (ended["files"], ended["failed"], ended["path"]) == (1, 0, "")
    client.offline()
    assert not events(client, "pins-incomplete")
    client.online()
    client.umount()
    write(f"{client.server.root}/large", "content" * 2_000_000)
    client.mount("bandwidth=100K")  # so that no walk has it all before going offline
    eventually(lambda: os.path.exists(client.path("large")), "the new file")
    client.offline()
    (incomplete,) = eventually(lambda: events(client, "pins-incomplete"), "a look at pins")
    assert incomplete["missing"] == 1


# -- the file -----------------------------------------------------------------------------------


def test_tail_follows_it(client: Client) -> None:
    client.offline()
    with following("tail", "-f", "-s", "0.1", "-n", "1", client.path(".awayfs/events")) as said:
        eventually(lambda: said, "the last line")
        assert (said[0]["kind"], said[0]["mode"]) == ("mode", "disconnected")
        client.online()
        eventually(lambda: said[-1].get("mode") == "connected", "what came after")
        assert [e["seq"] for e in said] == list(range(said[0]["seq"], said[-1]["seq"] + 1))


@pytest.mark.parametrize("how", ["select", "poll", "epoll"])
def test_it_can_be_waited_for(client: Client, how: str) -> None:
    fd = os.open(client.path(".awayfs/events"), os.O_RDONLY)
    try:
        assert _wait(how, fd, 0), "what is there already"
        while os.read(fd, 1 << 16):
            pass
        assert not _wait(how, fd, 0.3)
        switch = threading.Timer(0.5, client.offline)
        switch.start()
        assert _wait(how, fd, WITHIN_S), "nobody was woken"
        (event,) = parsed(os.read(fd, 1 << 16).decode())
        assert event["mode"] == "disconnected"
        assert not _wait(how, fd, 0)
        switch.join()
    finally:
        os.close(fd)


def _wait(how: str, fd: int, seconds: float) -> bool:
    if how == "select":
        return bool(select.select([fd], [], [], seconds)[0])
    if how == "poll":
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))
    with select.epoll() as several:
        several.register(fd, select.EPOLLIN)
        return bool(several.poll(seconds))


def test_its_size_and_time_grow_and_it_cannot_be_written(client: Client) -> None:
    path = client.path(".awayfs/events")
    before = os.stat(path)
    client.offline()
    after = os.stat(path)
    assert after.st_size > before.st_size
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ino == before.st_ino
    assert stat.S_IMODE(after.st_mode) == 0o400
    with open(path, "rb") as file:
        assert len(file.read()) == after.st_size
    with pytest.raises(OSError, match="Read-only"):
        os.open(path, os.O_WRONLY)
    assert "events" in os.listdir(client.path(".awayfs"))


# -- the socket ---------------------------------------------------------------------------------


def test_the_socket_tells_what_happens_from_then_on(client: Client) -> None:
    path = event_socket(client)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with connected(client) as connection:
        client.offline()
        (event,) = parsed(connection.recv(1 << 16).decode())
        assert (event["kind"], event["mode"]) == ("mode", "disconnected")
        client.umount()
        assert connection.recv(1 << 16) == b"", "the mount ended"
    assert not os.path.exists(path)


_SIGNALLED = """
import fcntl, json, os, signal, socket, sys, time
os.chdir(os.path.dirname(sys.argv[1]))  # a socket's path may be 107 bytes long, no more
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.path.basename(sys.argv[1]))
told = []
def arrived(number, frame):
    told.append(number)
signal.signal(signal.SIGIO, arrived)
fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(connection, fcntl.F_SETFL,
            fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
print("ready", flush=True)
deadline = time.monotonic() + 15
while not told and time.monotonic() < deadline:
    time.sleep(0.05)  # nobody looks at the socket before the signal came
assert told, "no signal came"
print(connection.recv(1 << 16).splitlines()[0].decode(), flush=True)
"""


def test_sigio(client: Client) -> None:
    """Set O_ASYNC, with an owner: a signal handler runs when something happens."""
    program = subprocess.Popen(
        [sys.executable, "-c", _SIGNALLED, event_socket(client)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        begun = time.monotonic()
        client.offline()
        event = json.loads(program.stdout.readline())
        assert (event["kind"], event["mode"]) == ("mode", "disconnected")
        assert time.monotonic() - begun < 10
        assert program.wait(10) == 0
    finally:
        program.kill()


def test_one_who_does_not_read_stops_nobody(client: Client) -> None:
    with connected(client) as idle:
        for _ in range(3):
            client.offline()
            client.online()
        write(client.path("f"), "still works")
        client.sync()
        assert parsed(idle.recv(1 << 20).decode())[0]["kind"] == "mode"


# -- the command --------------------------------------------------------------------------------


def test_the_command(client: Client) -> None:
    client.offline()
    said = client.awayfs("events", client.mountpoint)
    assert "connected -> disconnected: by hand" in said
    assert parsed(client.awayfs("events", client.mountpoint, "--json")) == events(client)
    assert "not inside an awayfs mount" in client.fails("events", "/")


def test_the_command_follows(client: Client) -> None:
    command = (sys.executable, "-m", "awayfs", "events", "-f", "--json", client.mountpoint)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=client.env)
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["seq"] == 1
        client.offline()
        for line in process.stdout:
            if json.loads(line).get("by_hand"):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()


def test_a_refused_change_is_told_once(tmp_path: Path) -> None:
    """Also when it is tried again and again, and over when it is sent."""
    server = make_server("dir", str(tmp_path))
    if os.geteuid() != 0:
        pytest.skip("wants root to mount a tmpfs")
    run("mount", "-t", "tmpfs", "-o", "size=1m", "awayfs-test", server.root)
    client = Client(str(tmp_path), server)
    try:
        client.mount()
        run("mount", "-o", "remount,ro", server.root)
        write(client.path("f"), "made here")
        client.sync(check=False)
        client.sync(check=False)
        (refused,) = events(client, "refused")
        assert refused["path"] == "f"
        assert not events(client, "resolved"), "it was tried again, and refused again"
        assert "read-only" in refused["text"].lower()
        run("mount", "-o", "remount,rw", server.root)
        client.sync()
        eventually(lambda: events(client, "resolved"), "the end of the refusal")
        assert [event["path"] for event in events(client, "resolved")] == ["f"]
        assert len(events(client, "refused")) == 1
    finally:
        client.close()
        server.close()
        run("umount", "-l", server.root)

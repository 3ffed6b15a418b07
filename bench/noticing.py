"""How soon a volume notices that its server is gone, and what programs wait for meanwhile.

Each accident is made on a real server behind a wire of its own (network namespaces, as root). Two
programs go on reading: one a file that is cached, the other files that are not. Told are the time
from the accident to the mode that the daemon wrote into its history, and the longest that each of
the two waited for one read; and, with nobody reading, the time alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.harness import eventually, run
from tests.netns import CLIENT_ADDRESS, WiredClient, WiredServer, wired
from tests.sshd import descendants

FILES = 2000
WATCH_S = 6.0
STARTED_S = 1.0

READER = """
import json, os, signal, sys, time
directory, names, worst, failed, going = sys.argv[1], sys.argv[2:], 0.0, 0, True
names = names or [str(number) for number in range(2000)]
def end(*_):
    global going
    going = False
def from_now_on(*_):
    global worst, failed, number
    worst, failed, number = 0.0, 0, 0
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, from_now_on)
print("ready", flush=True)
number = 0
while going:
    began = time.perf_counter()
    try:
        fd = os.open(directory + "/" + names[number % len(names)], os.O_RDONLY)
        try:
            os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        failed += 1
    worst = max(worst, time.perf_counter() - began)
    number += 1
    time.sleep(0.02)
print(json.dumps([number, failed, worst]))
"""


@dataclass(slots=True)
class Reader:
    """What one program saw since ``begin``: reads, failed ones, the longest wait in seconds."""

    reads: int = 0
    failed: int = 0
    worst: float = 0.0
    pid: int = 0

    def begin(self) -> None:
        """Count from now on; a read under way counts."""
        os.kill(self.pid, signal.SIGUSR1)


@contextlib.contextmanager
def reading(directory: str, *names: str) -> Iterator[Reader]:
    """A program that reads all the while; the numbers are there at the end."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", READER, directory, *names],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        reader = Reader(pid=process.pid)
        yield reader
        process.send_signal(signal.SIGTERM)
        reader.reads, reader.failed, reader.worst = json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Accident:
    """Something happens to the server, and is undone; ``wanted_s`` is the time to notice it."""

    name: str
    happen: Callable[[WiredServer], None]
    undo: Callable[[WiredServer], None]
    wanted_s: float | None = None


def _freeze(server: WiredServer) -> None:
    server.sshd.freeze(_processes(server))


def _thaw(server: WiredServer) -> None:
    server.sshd.thaw()


def _processes(server: WiredServer) -> list[int]:
    process = server.sshd._process
    assert process is not None
    return [process.pid, *descendants(process.pid)]


def _reboot(server: WiredServer) -> None:
    """The machine goes without a word, and comes back knowing nothing of old connections."""
    _half_open(server)
    server.sshd.start()


def _half_open(server: WiredServer) -> None:
    """The server's end is gone while nothing gets through; then everything does again."""
    server.cut()
    server.sshd.kill()
    # without this the kernel would go on saying goodbye for the processes that are gone
    run(*server.wire.inside(server.wire.server), "ss", "-K", "state", "all", "dport", "!=", ":1")
    server.restore()


ACCIDENTS = [
    Accident("link down here", lambda s: s.wire.unplug(), lambda s: s.wire.plug(), 0.05),
    Accident(
        "link down there",
        lambda s: s.wire.unplug(s.wire.server),
        lambda s: s.wire.plug(s.wire.server),
        0.05,
    ),
    Accident("server killed", lambda s: s.sshd.kill(), lambda s: s.sshd.start(), 0.1),
    Accident("black hole", lambda s: s.cut(), lambda s: s.restore(), 3.0),
    Accident("server stopped (SIGSTOP)", _freeze, _thaw, 3.0),
    Accident("half-open: server lost it", _half_open, lambda s: s.sshd.start(), 3.0),
    Accident("reboot", _reboot, lambda s: None, 3.0),
    Accident(
        "another address",
        lambda s: s.wire.readdress(CLIENT_ADDRESS, "192.0.2.77"),
        lambda s: s.wire.readdress("192.0.2.77", CLIENT_ADDRESS),
        0.05,
    ),
]


def noticing_cases(base: str) -> Iterator[str]:
    """One line an accident."""
    with wired(base, mount=False) as client:
        os.makedirs(f"{client.server.files}/uncached")
        for number in range(FILES):
            with open(f"{client.server.files}/uncached/{number}", "w") as file:
                file.write(f"{number}\n")
        with open(f"{client.server.files}/cached", "w") as file:
            file.write("cached\n")
        client.mount()
        with open(client.path("cached")) as file:
            file.read()
        for accident in ACCIDENTS:
            _steady(client)
            idle = _time_to_notice(client, accident)
            yield _line(client, accident, idle)


def _line(client: WiredClient, accident: Accident, idle: float | None) -> str:
    _steady(client)
    client.awayfs("cull", client.mountpoint)
    with open(client.path("cached")) as file:
        file.read()
    os.listdir(client.path("uncached"))
    with (
        reading(client.mountpoint, "cached") as cached,
        reading(client.path("uncached")) as uncached,
    ):
        time.sleep(STARTED_S)
        cached.begin()
        uncached.begin()
        busy = _time_to_notice(client, accident)
    wanted = accident.wanted_s
    verdict = ""
    if wanted is not None:
        well = idle is not None and idle <= wanted and max(cached.worst, uncached.worst) <= 2.0
        verdict = f"  wanted {wanted:g} s, 2 s  {'reached' if well else 'NOT REACHED'}"
    return (
        f"{accident.name:<26} noticed idle {_seconds(idle)}  busy {_seconds(busy)}   "
        f"worst wait: cached {cached.worst * 1e3:7.1f} ms  uncached {uncached.worst * 1e3:7.1f} ms"
        f"{verdict}"
    )


def _seconds(value: float | None) -> str:
    return "   never  " if value is None else f"{value * 1e3:7.0f} ms"


def _time_to_notice(client: WiredClient, accident: Accident) -> float | None:
    """Seconds from the accident to the mode "disconnected"; all is as before at the end."""
    server = client.server
    assert isinstance(server, WiredServer)
    began = time.time_ns()
    accident.happen(server)
    time.sleep(WATCH_S)
    noticed = [
        entry["since_ns"]
        for entry in client.status()["history"]
        if entry["since_ns"] >= began and entry["mode"] == "disconnected"
    ]
    accident.undo(server)
    return (noticed[0] - began) / 1e9 if noticed else None


def _steady(client: WiredClient) -> None:
    """Connected for so long that the next loss is no flap."""
    client.awayfs("auto", client.mountpoint)
    eventually(lambda: client.status()["mode"] == "connected", "being connected", 60)
    time.sleep(11)

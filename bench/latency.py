"""How long a program waits for cached files while the daemon has much to do.

A program of its own opens and reads cached files all the time, each open being a question to the
daemon; what it waited at worst is told, and what the daemon's own watch saw.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.harness import Client, DirServer

CACHED = 20
WATCH_MS = 20

PROBE = """
import json, os, signal, sys, time
paths, times, going = sys.argv[1:], [], True
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while going:
    for path in paths:
        began = time.perf_counter()
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 4096)
        os.fstat(fd)
        os.close(fd)
        times.append(time.perf_counter() - began)
        time.sleep(0.001)
times.sort()
print(json.dumps([len(times), times[len(times) // 2], times[int(len(times) * 0.99)], times[-1]]))
"""


@dataclass(slots=True)
class Waits:
    """What the probe measured, in seconds."""

    count: int = 0
    median: float = 0.0
    most: float = 0.0
    worst: float = 0.0

    def line(self, name: str, watch: str) -> str:
        """One row of the report."""
        return (
            f"{name:<46} {self.count:6} opens   median {self.median * 1e3:6.1f} ms   "
            f"99 % {self.most * 1e3:6.1f} ms   worst {self.worst * 1e3:7.1f} ms   loop {watch}"
        )


@contextlib.contextmanager
def probing(paths: list[str]) -> Iterator[Waits]:
    """Read files all the while; the numbers are there at the end."""
    waits = Waits()
    probe = subprocess.Popen(
        [sys.executable, "-c", PROBE, *paths], stdout=subprocess.PIPE, text=True
    )
    assert probe.stdout is not None
    try:
        probe.stdout.readline()
        yield waits
        probe.terminate()
        waits.count, waits.median, waits.most, waits.worst = json.loads(probe.stdout.readline())
    finally:
        probe.kill()
        probe.wait()


class Watch:
    """What the daemon's watch has written into the log since the last look."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen = 0

    def told(self) -> str:
        """The longest hold, and how many there were above the limit."""
        log = self._client.log
        new, self._seen = log[self._seen :], len(log)
        held = [int(ms) for ms in re.findall(r"the event loop was held for (\d+) ms", new)]
        return f"{max(held, default=0)} ms at worst, {len(held)} above {WATCH_MS} ms"


def latency_cases(base: str, many: int = 20_000, seconds: float = 30.0) -> Iterator[str]:
    """A large directory listed, a long journal made, sent behind a conflict, and more of both."""
    server = DirServer(base)
    os.makedirs(f"{server.root}/cached")
    os.makedirs(f"{server.root}/many")
    for number in range(CACHED):
        with open(f"{server.root}/cached/{number}", "wb") as file:
            file.write(os.urandom(4096))
    for number in range(many):
        with open(f"{server.root}/many/{number}", "wb"):
            pass
    client = Client(
        base,
        server,
        environment={"AWAYFS_LOG": "INFO", "AWAYFS_LOOP_WATCH": str(WATCH_MS)},
        anew=True,
    )
    try:
        client.mount()
        paths = [client.path("cached", str(number)) for number in range(CACHED)]
        for path in paths:
            with open(path, "rb") as file:
                file.read()
        yield from _phases(client, paths, many, seconds)
    finally:
        client.close()


def _phases(client: Client, paths: list[str], many: int, seconds: float) -> Iterator[str]:
    watch, server = Watch(client), client.server
    watch.told()
    with probing(paths) as waits:
        assert len(os.listdir(client.path("many"))) == many
    yield waits.line(f"while a directory of {many} is listed", watch.told())

    os.mkdir(client.path("held"))
    client.sync()
    client.offline()
    with open(client.path("held", "both"), "wb") as file:
        file.write(b"here")
    with open(f"{server.files}/held/both", "wb") as file:
        file.write(b"there")
    os.mkdir(client.path("new"))
    with probing(paths) as waits:
        for number in range(many // 2):
            with open(client.path("new", str(number)), "wb") as file:
                file.write(b"x")
    yield waits.line(f"while {many // 2} files are written offline", watch.told())
    with probing(paths) as waits:
        client.online()
        time.sleep(seconds)
    yield waits.line(f"{seconds:g} s of sending {many} records", watch.told())

    with probing(paths) as waits:
        for entry in os.scandir(f"{server.files}/many"):
            os.chmod(entry.path, 0o600)
        time.sleep(4)
        os.listdir(client.path("many"))
        time.sleep(1)
    yield waits.line(f"while changes of {many} files are taken over", watch.told())

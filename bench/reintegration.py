"""Bringing many small changes to a server over a long link, against ``rsync -a --delete`` over ssh.

Also against rsync with ``--fsync``, which like awayfs makes each file durable over there.

The same difference each time: files made, edited, renamed and removed in a tree that both ends
have. awayfs made it offline; what is measured is from going online, connecting included, until the
journal is empty. rsync has a copy of the tree in which the same was done. After each run the
server's tree must be the wanted one.
"""

from __future__ import annotations

import glob
import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.harness import Client
from tests.sshd import free_port

from awayfs import cachectl
from awayfs.control.client import Client as Daemon
from bench.delay import delayed
from bench.far import Far
from bench.timing import Result

SIZE = 4 << 10
A_DIRECTORY = 100
OLD, NEW, EDITED, RENAMED, REMOVED = 1_000, 2_000, 500, 200, 100
CHANGES = NEW + EDITED + RENAMED + REMOVED
ONE_WAY_S = 0.010
RUNS = 3
SETTLED_S = 3.0
"""As after any absence: over SFTP, a time that has hardly passed proves nothing of a content, and
each is compared when it is read here, byte by byte."""
YESTERDAY = int(time.time()) - 86_400
"""When the tree was made: rsync takes equal times and sizes for equal content."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What is done to a tree: content by path, and names."""

    edited: dict[str, bytes]
    renamed: dict[str, str]
    removed: list[str]
    new: dict[str, bytes]

    def apply(self, root: str) -> None:
        """Do it, below ``root``."""
        for path, content in {**self.edited, **self.new}.items():
            os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
            with open(f"{root}/{path}", "wb") as file:
                file.write(content)
        for old, name in self.renamed.items():
            os.rename(f"{root}/{old}", f"{root}/{name}")
        for path in self.removed:
            os.unlink(f"{root}/{path}")


def _paths(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n // A_DIRECTORY:02}/f{n % A_DIRECTORY:02}" for n in range(count)]


def _difference() -> Difference:
    old = _paths("d", OLD)
    edited, rest = old[:EDITED], old[EDITED:]
    renamed, rest = rest[:RENAMED], rest[RENAMED:]
    return Difference(
        edited={path: os.urandom(SIZE) for path in edited},
        renamed={path: path.replace("/f", "/renamed") for path in renamed},
        removed=rest[:REMOVED],
        new={path: os.urandom(SIZE) for path in _paths("n", NEW)},
    )


def _make_tree(root: str) -> None:
    for path in _paths("d", OLD):
        os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
        with open(f"{root}/{path}", "wb") as file:
            file.write(os.urandom(SIZE))
        os.utime(f"{root}/{path}", (YESTERDAY, YESTERDAY))


def _contents(root: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


class _Sides:
    """All ways, each in a directory of its own on the server for each run."""

    def __init__(self, base: str, far: Far, client: Client) -> None:
        self._base = base
        self._far = far
        self._client = client

    @property
    def _socket(self) -> str:
        (path,) = glob.glob(f"{self._client.runtime}/awayfs/*.sock")
        return path

    def prepare(self, names: list[str]) -> None:
        """Make the trees for ``ours``; the mount does not look for new ones."""
        for name in names:
            _make_tree(f"{self._far.server.root}/{name}")

    def ours(self, name: str) -> float:
        """Seconds for awayfs."""
        there, here = f"{self._far.server.root}/{name}", self._client.path(name)
        fd = os.open(here, os.O_RDONLY | os.O_DIRECTORY)
        try:
            cachectl.fetch(fd)
        finally:
            os.close(fd)
        self._client.offline()
        _difference().apply(here)
        os.sync()
        time.sleep(SETTLED_S)
        with Daemon(self._socket) as daemon:
            started = time.perf_counter()
            daemon.call("online", timeout=60)
            answer = daemon.call("sync", {"wait": True}, timeout=60)
            seconds = time.perf_counter() - started
        assert not answer["pending"] and not answer["parked"], answer
        assert _contents(there) == _contents(here)
        return seconds

    def rsync(self, name: str, *more: str) -> float:
        """Seconds for rsync with ``more`` options, which it gives to the receiving side, too."""
        there, here = f"{self._far.server.root}/{name}", f"{self._base}/{name}"
        _make_tree(there)
        subprocess.run(["cp", "-a", there, here], check=True)
        _difference().apply(here)
        os.sync()
        target = f"{self._far.login}:{there}/"
        ssh = shlex.join(self._far.ssh)
        order = ["rsync", "-a", "--delete", *more, "-e", ssh, f"{here}/", target]
        started = time.perf_counter()
        subprocess.run(order, check=True)
        seconds = time.perf_counter() - started
        assert _contents(there) == _contents(here)
        return seconds  # nothing is deleted: for minutes ext4 goes around such inodes, one by one


def reintegration_cases(base: str) -> Iterator[Result]:
    """All in turn: the first of a daemon, and the median of the ratios of ``RUNS`` after that.

    By SFTP alone, and with a program of ours on the server.
    """
    for program, how in (("never", "SFTP alone"), ("auto", "server_program=auto")):
        times = _times(f"{base}/{program}", program)
        for column, peer in enumerate(("rsync", "rsync --fsync"), 1):
            pairs = [(one[0], one[column]) for one in times]
            yield _result(f"{CHANGES} small changes, {how}: first", peer, pairs[:1], None)
            wanted = 1.0 if peer == "rsync" else None
            yield _result(f"{CHANGES} small changes, {how}", peer, pairs[1:], wanted)


def _times(base: str, program: str) -> list[tuple[float, float, float]]:
    """Seconds for awayfs, rsync, and rsync with ``--fsync``, of each run."""
    os.makedirs(base)
    port = free_port()
    far = Far(base, port)
    client = Client(base, far.server, environment={"AWAYFS_LOG": "INFO"}, anew=True)
    sides = _Sides(base, far, client)
    with delayed(port, far.server.sshd.port, ONE_WAY_S):
        try:
            names = [f"ours{number}" for number in range(RUNS + 1)]
            sides.prepare(names)
            client.mount(f"fresh=3600,server_program={program}")
            return [
                (
                    sides.ours(name),
                    sides.rsync(f"peer-of-{name}"),
                    sides.rsync(f"durable-peer-of-{name}", "--fsync"),
                )
                for name in names
            ]
        finally:
            client.close()
            far.server.close()


def _result(name: str, peer: str, times: list[tuple[float, float]], wanted: float | None) -> Result:
    ours, theirs = zip(*times, strict=True)
    ratio = statistics.median(theirs / ours for ours, theirs in times)
    return Result(name, peer, statistics.median(ours), statistics.median(theirs), ratio, wanted)

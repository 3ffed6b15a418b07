"""Comparing two ways of doing the same thing: in turn, several times, by the median ratio."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

RUNS = 7


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison. ``ratio`` is peer time divided by awayfs time: above 1 awayfs is faster."""

    name: str
    peer: str
    awayfs_s: float
    peer_s: float
    ratio: float
    wanted: float | None

    def line(self) -> str:
        """One row of the report."""
        verdict = ""
        if self.wanted is not None:
            verdict = "reached" if self.ratio >= self.wanted else "NOT REACHED"
            verdict = f"  wanted {self.wanted:.2f}  {verdict}"
        return (
            f"{self.name:<44} awayfs {self.awayfs_s * 1e3:9.1f} ms   "
            f"{self.peer:<7} {self.peer_s * 1e3:9.1f} ms   ratio {self.ratio:5.2f}{verdict}"
        )


def compare(
    name: str,
    ours: Callable[[], None],
    theirs: Callable[[], None],
    *,
    peer: str = "native",
    wanted: float | None = None,
    runs: int = RUNS,
    before: Callable[[], None] = lambda: None,
) -> Result:
    """Run both in turn ``runs`` times, ``before`` each (not timed); the median of the ratios."""
    ours_s: list[float] = []
    theirs_s: list[float] = []
    for number in range(runs + 1):
        for times, work in ((ours_s, ours), (theirs_s, theirs)):
            before()
            started = time.perf_counter()
            work()
            if number:  # the first round warms both up
                times.append(time.perf_counter() - started)
    ratio = statistics.median(b / a for a, b in zip(ours_s, theirs_s, strict=True))
    return Result(name, peer, statistics.median(ours_s), statistics.median(theirs_s), ratio, wanted)


def read_sequentially(path: str, block: int = 1 << 17) -> None:
    """Read a file from start to end."""
    fd = os.open(path, os.O_RDONLY)
    try:
        while os.read(fd, block):
            pass
    finally:
        os.close(fd)


def read_at(path: str, offsets: list[int], block: int = 4096) -> None:
    """Read blocks at given places."""
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in offsets:
            os.pread(fd, block, offset)
    finally:
        os.close(fd)


def read_files(paths: list[str]) -> None:
    """Open, read and close each."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 8192)
        os.close(fd)


def stat_files(paths: list[str]) -> None:
    """stat each."""
    for path in paths:
        os.stat(path)


def create_files(directory: str, count: int, data: bytes) -> None:
    """Create, write and close ``count`` new files in a new directory."""
    os.mkdir(directory)
    for number in range(count):
        fd = os.open(f"{directory}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, data)
        os.close(fd)


def find(directory: str) -> None:
    """``find`` with an attribute test, so that it must stat."""
    subprocess.run(
        ["find", directory, "-newermt", "2100-01-01"], check=True, stdout=subprocess.DEVNULL
    )

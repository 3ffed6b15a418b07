"""``make bench``: measure awayfs against the native file system and against sshfs.

Prints one line a case; ``docs/BENCHMARKS.md`` records what was reached, and where.
Needs root or fusermount3, an sshd and sshfs; a case whose peer is missing says so.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from tests.harness import Client, DirServer, SftpServer

from bench import timing
from bench.absence import absence_cases
from bench.culling import culling_case
from bench.hoarding import hoarding_cases
from bench.latency import latency_cases
from bench.learned import learned_cases
from bench.noticing import noticing_cases
from bench.reintegration import reintegration_cases
from bench.shares import make_tree, sshfs
from bench.timing import Result, compare

TREE = 20_000
SMALL = 500
BIG = 256 << 20
NODES = 100_000


def content_cases(base: str) -> Iterator[Result]:
    """Cached content, against the same file on the native file system."""
    server = DirServer(base)
    with open(f"{server.root}/big", "wb") as file:
        for _ in range(BIG >> 20):
            file.write(os.urandom(1 << 20))
    client = Client(base, server, anew=True)
    try:
        client.mount()
        client.awayfs("pin", client.mountpoint, timeout=300)
        client.offline()
        ours, native = client.path("big"), f"{server.root}/big"
        draw = random.Random(1)
        offsets = [draw.randrange(BIG // 4096) * 4096 for _ in range(20_000)]
        for path in (ours, native):
            timing.read_sequentially(path)
        yield compare(
            f"second sequential read, {BIG >> 20} MiB",
            lambda: timing.read_sequentially(ours),
            lambda: timing.read_sequentially(native),
            wanted=0.9,
        )
        yield compare(
            f"second random 4 KiB reads, {len(offsets)}",
            lambda: timing.read_at(ours, offsets),
            lambda: timing.read_at(native, offsets),
            wanted=0.9,
        )
    finally:
        client.close()


def metadata_cases(base: str) -> Iterator[Result]:
    """Names and attributes once known, against the native file system."""
    server = DirServer(base)
    paths = make_tree(server.root, TREE, 100)
    client = Client(base, server, anew=True)
    try:
        client.mount()
        timing.find(client.mountpoint)
        client.offline()
        timing.find(client.mountpoint)
        ours = [client.path(path) for path in paths]
        native = [f"{server.root}/{path}" for path in paths]
        yield compare(
            f"second stat of {TREE} files",
            lambda: timing.stat_files(ours),
            lambda: timing.stat_files(native),
            wanted=0.6,
        )
        yield compare(
            f"second find over {TREE} entries",
            lambda: timing.find(client.mountpoint),
            lambda: timing.find(server.root),
            wanted=0.6,
        )
    finally:
        client.close()


def small_file_cases(base: str) -> Iterator[Result]:
    """Small files, against sshfs on the same server."""
    server = SftpServer(base)
    paths = make_tree(server.root, SMALL, 4096)
    client = Client(base, server, anew=True)
    try:
        client.mount()
        client.awayfs("pin", client.mountpoint, timeout=300)
        client.offline()
        with sshfs(server, base) as peer:
            ours = [client.path(path) for path in paths]
            theirs = [f"{peer}/{path}" for path in paths]
            yield compare(
                f"open+read+close of {SMALL} cached 4 KiB files",
                lambda: timing.read_files(ours),
                lambda: timing.read_files(theirs),
                peer="sshfs",
                wanted=1.0,
            )
            yield compare(
                f"create {SMALL} files of 4 KiB, offline",
                _fresh(client.mountpoint),
                _fresh(peer),
                peer="sshfs",
                wanted=1.0,
            )
    finally:
        client.close()
        server.close()


def _fresh(root: str) -> Callable[[], None]:
    """Creating files in a directory that is new each time."""
    counter = iter(range(1000))
    data = os.urandom(4096)
    return lambda: timing.create_files(f"{root}/new{next(counter)}", SMALL, data)


def large_volume_case(base: str) -> Iterator[str]:
    """How soon a known volume of 100,000 nodes answers, and what its daemon takes."""
    server = DirServer(base)
    make_tree(server.root, NODES, 0)
    client = Client(base, server, anew=True)
    try:
        client.mount()
        timing.find(client.mountpoint)
        client.umount()
        times: list[float] = []
        memory = 0
        for _ in range(5):
            started = time.perf_counter()
            client.mount()
            os.stat(client.path("d0500/f50"))
            times.append(time.perf_counter() - started)
            timing.find(client.mountpoint)
            memory = max(memory, _resident_kb(client.pid))
            client.umount()
        seconds = sorted(times)[len(times) // 2]
        verdict = "reached" if seconds < 1 and memory < 150 << 10 else "NOT REACHED"
        yield (
            f"mount of {NODES} known nodes to first answer: {seconds:.2f} s (wanted under 1 s), "
            f"daemon after a whole find: {memory >> 10} MiB (wanted under 150)  {verdict}"
        )
    finally:
        client.close()


def _resident_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


CASES = {
    "content": content_cases,
    "metadata": metadata_cases,
    "small": small_file_cases,
    "large": large_volume_case,
    "latency": latency_cases,
    "absence": absence_cases,
    "hoard": hoarding_cases,
    "learned": learned_cases,
    "noticing": noticing_cases,
    "culling": culling_case,
    "reintegration": reintegration_cases,
}


def main(wanted: list[str]) -> int:
    """Run the cases named, or all."""
    for name in wanted or CASES:
        if name == "small" and shutil.which("sshfs") is None:
            print("small files: no sshfs here (Debian: apt install sshfs)")
            continue
        base = tempfile.mkdtemp(prefix="awayfs-bench-")
        try:
            for result in CASES[name](base):
                print(result.line() if isinstance(result, Result) else result, flush=True)
        finally:
            shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

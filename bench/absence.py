"""What it costs to find 50 changes among 100,000 entries after an absence.

Three ways to see the same tree anew: ``find`` without awayfs, all directories listed through the
adapter in its worker process and nothing done with what it says, and ``find`` over the mount,
reconnecting included. The second is what the third cannot be better than.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator

from tests.harness import Client, DirServer, SftpServer

from awayfs.core.types import Kind
from awayfs.remotes.isolated import IsolatedRemote
from awayfs.volume.ahead import SHARE
from bench import timing
from bench.shares import make_tree, sshfs

NODES = 100_000
CHANGES = 50
TURNS = 3
PEER_FORGETS_S = 21
"""sshfs believes what it has seen for 20 s."""


def absence_cases(base: str) -> Iterator[str]:
    """A line for each kind of server."""
    for kind in (DirServer, SftpServer):
        server = kind(f"{base}/{kind.scheme}")
        os.makedirs(f"{base}/{server.scheme}", exist_ok=True)
        paths = make_tree(server.root, NODES, 0)
        client = Client(f"{base}/{server.scheme}", server, anew=True)
        try:
            client.mount()
            timing.find(client.mountpoint)
            with _peer(server, base) as (peer, name):
                yield _after_absence(client, paths, peer, name)
        finally:
            client.close()
            server.close()


@contextlib.contextmanager
def _peer(server: DirServer | SftpServer, base: str) -> Iterator[tuple[str, str]]:
    """The same share without awayfs: the directory itself, or sshfs that remembers nothing."""
    if isinstance(server, DirServer):
        yield server.root, "native"
        return
    with sshfs(server, base) as mountpoint:
        yield mountpoint, "sshfs"


def _after_absence(client: Client, paths: list[str], peer: str, name: str) -> str:
    server, draw = client.server, random.Random(1)
    theirs: list[float] = []
    listing: list[float] = []
    ours: list[float] = []
    for turn in range(TURNS):
        client.offline()
        changed = _change(server.root, draw.sample(paths, CHANGES), turn)
        theirs.append(_seconds(lambda: timing.find(peer)))
        listing.append(_seconds(lambda: asyncio.run(_list_all(server))))
        ours.append(_seconds(lambda: _find_after(client)))
        for path, size in changed.items():
            assert os.lstat(client.path(path)).st_size == size, f"{path} was not found"
        time.sleep(PEER_FORGETS_S)
    a, b, c = (statistics.median(times) for times in (theirs, listing, ours))
    return (
        f"{server.scheme}: {CHANGES} changes among {len(paths)} entries: find ({name}) {a:.2f} s   "
        f"listing alone {b:.2f} s   find (awayfs) {c:.2f} s   "
        f"ratio to listing {b / c:.2f}, to {name} {a / c:.2f}"
    )


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _find_after(client: Client) -> None:
    client.online()
    timing.find(client.mountpoint)


async def _list_all(server: DirServer | SftpServer) -> None:
    """List every directory, as many at once as awayfs does ahead of a walk."""
    options = {} if isinstance(server, DirServer) else server.sshd.options
    remote = IsolatedRemote(server.url, options)
    connected = await remote.connect()
    gate = asyncio.Semaphore(connected.capabilities.in_flight // SHARE)

    async def below(path: bytes) -> None:
        async with gate:
            entries = await remote.list(path)
        inside = [
            path + b"/" + e.name if path else e.name for e in entries if e.kind is Kind.DIRECTORY
        ]
        await asyncio.gather(*map(below, inside))

    await below(b"")
    await remote.close()


def _change(root: str, chosen: list[str], turn: int) -> dict[str, int]:
    """Edit, create and remove; what is to be found, with its size."""
    found: dict[str, int] = {}
    for number, path in enumerate(chosen):
        place = f"{root}/{path}"
        if number % 5 == 4 and os.path.exists(place):
            os.rename(place, f"{place}.moved{turn}")
            path = f"{path}.moved{turn}"
            found[path] = os.lstat(f"{root}/{path}").st_size
        else:
            with open(place, "a") as file:
                file.write("changed on the server\n")
            found[path] = os.lstat(place).st_size
    return found

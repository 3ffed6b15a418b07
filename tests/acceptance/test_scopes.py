"""Offline by hand: for a volume, a server, everything; for a time; over restarts and new mounts."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator

import pytest

from tests.harness import Client, DirServer, SftpServer, eventually, needs_fuse
from tests.sshd import needs_sshd

pytestmark = [*needs_fuse, *needs_sshd]


@pytest.fixture
def volumes(tmp_path: object) -> Iterator[dict[str, Client]]:
    """``a`` and ``b`` on one server, ``c`` on another; one user's state."""
    base = str(tmp_path)
    server = SftpServer(base)
    servers = {"a": server, "b": _Part(server, "b"), "c": DirServer(f"{base}/c")}
    clients: dict[str, Client] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        for name, its in servers.items():
            client = _Neighbour(base, its, name)  # type: ignore[arg-type]
            stack.callback(client.close)
            clients[name] = client
            client.mount()
        yield clients


class _Part(SftpServer):
    """A directory of a server that runs already."""

    def __init__(self, server: SftpServer, name: str) -> None:
        self.sshd, self.options = server.sshd, server.options
        self.root = self.files = f"{server.root}.{name}"
        os.makedirs(self.root)
        self.url = f"{server.url}.{name}"


class _Neighbour(Client):
    """A client that shares state and runtime directories with the others."""

    def __post_init__(self) -> None:
        name, self.name = self.name, "shared"
        super().__post_init__()
        self.mountpoint = os.path.join(self.home, name)
        os.makedirs(self.mountpoint, exist_ok=True)

    @property
    def pid(self) -> int:
        mine = (told for _, told in self.told() if told["mountpoint"] == self.mountpoint)
        return next((int(told["pid"]) for told in mine), 0)


def modes(volumes: dict[str, Client]) -> str:
    """``+`` for each volume that asks its server, ``-`` for the others."""
    return "".join("-" if client.status()["by_hand"] else "+" for client in volumes.values())


def test_the_strictest_of_three_counts(volumes: dict[str, Client]) -> None:
    a = volumes["a"]

    def said(*args: str) -> str:
        a.awayfs(*args)
        return modes(volumes)

    assert modes(volumes) == "+++"
    assert said("offline", "server:127.0.0.1") == "--+"
    assert said("offline", volumes["c"].mountpoint) == "---"
    assert said("auto", "server:127.0.0.1") == "++-"
    assert said("offline") == "---"
    assert said("auto", volumes["c"].mountpoint) == "---"
    assert volumes["c"].status()["cause"] == "by hand, for everything"
    refused = a.fails("online", a.mountpoint)
    assert "stays offline by hand, for everything; to end that: awayfs auto" in refused
    assert said("offline", a.mountpoint) == "---"
    assert said("auto") == "-++"
    assert (a.status()["scope"], a.status()["cause"]) == (a.mountpoint, "by hand")
    a.awayfs("online", a.mountpoint)
    eventually(lambda: a.status()["mode"] == "connected", "being connected")
    assert not any("is over" in entry["cause"] for entry in a.status()["history"])
    for scope in ("server:elsewhere", "/", f"{a.mountpoint}/x"):
        assert a.fails("offline", scope, code=2)
    assert volumes["b"].status()["mode"] == "connected"


def test_orders_outlive_daemons_and_reach_later_mounts(volumes: dict[str, Client]) -> None:
    a, b, c = volumes.values()
    b.umount()
    a.awayfs("offline", "server:127.0.0.1")
    c.awayfs("offline", c.mountpoint, "--for", "1h")
    b.mount()
    a.kill()
    a.mount()
    c.umount()
    c.mount()
    assert modes(volumes) == "---"
    assert "for server:127.0.0.1" in b.status()["cause"]
    assert 3400 < c.status()["until_ns"] / 1e9 - time.time() < 3600
    assert "until" in c.awayfs("status", c.mountpoint)
    told = [entry["cause"] for entry in a.status()["history"]]
    assert told[-1] == "by hand, for server:127.0.0.1"
    assert told.count("starting") == 2, "the history is that of both daemons"
    a.awayfs("auto", "server:127.0.0.1")
    a.awayfs("auto", c.mountpoint)
    for client in volumes.values():
        eventually(lambda client=client: client.status()["mode"] == "connected", "back")


def test_a_neighbour_asks_and_does_not_believe(volumes: dict[str, Client]) -> None:
    """The sessions of one volume hang; the other one of that server hears of it, and stays."""
    a, b, _ = volumes.values()
    b.umount()
    sshd = a.server.sshd  # type: ignore[union-attr]
    frozen = sshd.sessions()
    b.mount()
    before, known = b.status()["history"], losses(a)
    sshd.freeze(frozen)
    try:
        eventually(lambda: losses(a) > known, "the loss")
        eventually(lambda: "another volume lost 127.0.0.1" in logs(a), "the neighbour's word")
        assert (b.status()["mode"], b.status()["history"]) == ("connected", before)
    finally:
        sshd.thaw()


def losses(client: Client) -> int:
    """How often it was disconnected, as far as is remembered."""
    return sum(entry["mode"] == "disconnected" for entry in client.status()["history"])


def logs(client: Client) -> str:
    """What all daemons of this state directory wrote."""
    text = ""
    for place in pathlib.Path(client.state, "awayfs", "volumes").glob("*/daemon.log"):
        text += place.read_text(errors="replace")
    return text


@pytest.mark.slow
def test_a_time_ends_by_itself_also_over_a_restart(volumes: dict[str, Client]) -> None:
    a, b, c = volumes.values()
    a.awayfs("offline", a.mountpoint, "--for", "30s")
    a.awayfs("offline", "server:localhost", "--for", "32s")
    with open(a.path("new"), "w") as file:
        file.write("made offline\n")
    c.umount()
    c.mount()
    assert modes(volumes) == "-+-"
    for client in (a, c):
        eventually(lambda client=client: client.status()["mode"] == "connected", "its end")
    eventually(lambda: os.path.exists(f"{a.server.root}/new"), "the change sent")
    causes = [entry["cause"] for entry in a.status()["history"]]
    assert any("the time for being offline is over" in cause for cause in causes)
    assert b.status()["mode"] == "connected"

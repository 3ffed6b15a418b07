"""A server behind a wire that can be cut without a word: two network namespaces and a veth pair.

``Wire`` makes them; ``WiredServer`` runs an sshd at one end, ``WiredClient`` an awayfs daemon
at the other. The black hole is nft's drop in the server's namespace: packets vanish, nobody is
told. Nothing is configured outside the namespaces, which ``close`` deletes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.harness import Client, run
from tests.sshd import SSHD, Sshd

SERVER_ADDRESS = "192.0.2.2"
CLIENT_ADDRESS = "192.0.2.1"
BLACK_HOLE = """
add table inet awayfs_hole
add chain inet awayfs_hole in { type filter hook prerouting priority -300; policy drop; }
add chain inet awayfs_hole out { type filter hook postrouting priority 300; policy drop; }
"""

needs_netns = [
    pytest.mark.netns,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "nsenter"))),
        reason="a network namespace needs root, ip, nft and nsenter",
    ),
]


class Wire:
    """Two namespaces with a cable between them."""

    def __init__(self) -> None:
        self.server = f"awayfs-s{os.getpid()}"
        self.client = f"awayfs-c{os.getpid()}"
        try:
            self._lay()
        except AssertionError as error:
            self.close()
            pytest.skip(f"no network namespaces here: {str(error)[:200]}")

    def _lay(self) -> None:
        for name in (self.server, self.client):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run(
            *("ip", "-n", self.client, "link", "add", "wire", "type", "veth"),
            *("peer", "name", "wire", "netns", self.server),
        )
        for name, address in ((self.server, SERVER_ADDRESS), (self.client, CLIENT_ADDRESS)):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            run("ip", "-n", name, "link", "set", "wire", "up")

    def inside(self, name: str) -> list[str]:
        """What to put before a command to have it run in a namespace (mounts are shared)."""
        return ["nsenter", f"--net=/run/netns/{name}", "--"]

    def black_hole(self) -> None:
        """From now on everything disappears, in both directions."""
        run(*self.inside(self.server), "nft", "-f", "-", input=BLACK_HOLE)

    def restore(self) -> None:
        """The cable is whole again."""
        run(*self.inside(self.server), "nft", "flush ruleset")

    def unplug(self, end: str = "") -> None:
        """Take the interface down at one end, the client's if nothing else is said."""
        run("ip", "-n", end or self.client, "link", "set", "wire", "down")

    def plug(self, end: str = "") -> None:
        """Take it up again."""
        run("ip", "-n", end or self.client, "link", "set", "wire", "up")

    def readdress(self, old: str, new: str) -> None:
        """Give the client another address, as in another network."""
        run("ip", "-n", self.client, "addr", "del", f"{old}/24", "dev", "wire")
        run("ip", "-n", self.client, "addr", "add", f"{new}/24", "dev", "wire")

    def close(self) -> None:
        """Delete the namespaces, and the cable with them."""
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class _WiredSshd(Sshd):
    """An sshd in the server's namespace."""

    def __init__(self, directory: str, wire: Wire) -> None:
        self._wire = wire
        super().__init__(directory)
        self._move()

    def _move(self) -> None:
        for name in ("sshd_config", "known_hosts"):
            with open(self._path(name)) as file:
                text = file.read()
            with open(self._path(name), "w") as file:
                file.write(text.replace("127.0.0.1", SERVER_ADDRESS))

    def start(self) -> None:
        assert self._process is None, "already started"
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        with open(self._path("log"), "ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._wire.inside(self._wire.server),
                    *(SSHD, "-D", "-e", "-f", self._path("sshd_config")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 10
        while not self._listens(self._process.pid):
            assert time.monotonic() < deadline, "sshd did not start"
            time.sleep(0.01)

    def _listens(self, pid: int) -> bool:
        wanted = f":{self.port:04X}"
        with open(f"/proc/{pid}/net/tcp") as table:
            lines = [line.split() for line in table][1:]
        return any(words[1].endswith(wanted) and words[3] == "0A" for words in lines)


class WiredServer:
    """``sftp:`` at the far end of a wire; looks like the harness's servers."""

    scheme = "sftp"
    time_grain_ns = 1_000_000_000
    special_files = False

    def __init__(self, base: str) -> None:
        self.wire = Wire()
        self.root = self.files = os.path.join(base, "server")
        os.makedirs(self.root, exist_ok=True)
        self.sshd = _WiredSshd(os.path.join(base, "sshd"), self.wire)
        self.sshd.start()
        self.url = f"sftp://{self.sshd.user}@{SERVER_ADDRESS}:{self.sshd.port}{self.root}"
        self.options = ",".join(f"{name}={value}" for name, value in self.sshd.options.items())

    def cut(self) -> None:
        """Black-hole the link."""
        self.wire.black_hole()

    def restore(self) -> None:
        """Let packets through again."""
        self.wire.restore()

    def close(self) -> None:
        """Stop the server and take the namespaces away."""
        self.sshd.kill()
        self.wire.close()


@dataclass
class WiredClient(Client):
    """A client whose daemon lives in the client's namespace."""

    prefix: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.anew = True  # in its namespace
        assert isinstance(self.server, WiredServer)
        self.prefix = self.server.wire.inside(self.server.wire.client)

    def awayfs(self, *args: str, check: bool = True, timeout: float = 60.0) -> str:
        """Run a command; the daemon that a mount starts lives in the client's namespace."""
        command = [sys.executable, "-m", "awayfs", *args]
        return run(*self._where(args), *command, check=check, timeout=timeout, env=self.env)

    def _where(self, args: tuple[str, ...]) -> list[str]:
        return self.prefix if args[0] == "mount" else []


@contextlib.contextmanager
def wired(base: str, options: str = "", *, mount: bool = True) -> Iterator[WiredClient]:
    """A server behind a wire, and a client that has it mounted (or is about to)."""
    server = WiredServer(base)
    try:
        client = WiredClient(base, server)  # type: ignore[arg-type]
        try:
            if mount:
                client.mount(options)
            yield client
        finally:
            client.close()
    finally:
        server.close()

"""A volume that waits for credentials: it leaves the server alone, and is back by itself when there
are others.

The agent is a real ssh-agent, the server a real sshd, which logs each connection.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Client, eventually, needs_fuse
from tests.sshd import Sshd, needs_sshd

pytestmark = [
    *needs_fuse,
    *needs_sshd,
    pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent"),
]

QUIET_S = 12.0
"""Longer than the first pauses after a server that does not answer, together."""


class Agent:
    """An ssh-agent of one's own."""

    def __init__(self, directory: str) -> None:
        self.address = f"{directory}/agent"
        command = ["ssh-agent", "-D", "-a", self.address]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(lambda: os.path.exists(self.address), "the agent")

    def add(self, *words: str) -> None:
        environment = {**os.environ, "SSH_AUTH_SOCK": self.address}
        subprocess.run(["ssh-add", "-q", *words], env=environment, check=True)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Share:
    """What the harness wants to know of a server."""

    scheme = "sftp"

    def __init__(self, base: Path) -> None:
        self.root = self.files = str(base / "share")
        os.makedirs(self.root)
        Path(self.root, "f").write_text("of the server\n")
        self.sshd = Sshd(str(base / "sshd"), extra="LogLevel VERBOSE")
        self.url = f"sftp://{self.sshd.user}@127.0.0.1:{self.sshd.port}{self.root}"
        self.options = f"known_hosts={self.sshd.known_hosts},ssh_config={os.devnull}"

    def connections(self) -> int:
        """How often anybody has come to the server."""
        return Path(self.sshd.directory, "log").read_text().count("Connection from")


@contextmanager
def with_agent(base: Path) -> Iterator[tuple[Client, Share, Agent]]:
    share, agent = Share(base), Agent(str(base))
    client = Client(str(base), share)  # type: ignore[arg-type]
    client.environment = {
        "HOME": client.home,
        "XDG_CONFIG_HOME": f"{client.home}/config",
        "SSH_AUTH_SOCK": agent.address,
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    try:
        share.sshd.start()
        yield client, share, agent
    finally:
        client.close()
        share.sshd.kill()
        agent.close()


def mode_is(client: Client, *modes: str) -> None:
    eventually(lambda: client.status()["mode"] in modes, f"one of {modes}")


@pytest.mark.slow
def test_a_key_that_goes_and_comes(tmp_path: Path) -> None:
    with with_agent(tmp_path) as (client, share, agent):
        agent.add(share.sshd.identity)
        client.mount()
        assert Path(client.path("f")).read_text() == "of the server\n"
        agent.add("-D")
        share.sshd.restart()
        mode_is(client, "auth-required")
        assert "ssh-add" in client.status()["cause"]
        Path(client.path("f")).write_text("changed meanwhile\n")
        os.rename(client.path("f"), client.path("g"))
        before = share.connections()
        time.sleep(QUIET_S)
        assert share.connections() == before, "a server that refuses us was asked again"
        assert Path(client.path("g")).read_text() == "changed meanwhile\n"
        assert "ssh-add" in client.awayfs("why", client.path("g"))
        agent.add(share.sshd.identity)
        mode_is(client, "connected", "reintegrating")
        client.sync()
        assert os.listdir(share.root) == ["g"] and client.conflicts() == []
        assert share.connections() == before + 1
        assert Path(share.root, "g").read_text() == "changed meanwhile\n"
        told = [one["mode"] for one in client.status()["history"]]
        assert told[-3:] in (
            ["auth-required", "reintegrating", "connected"],
            ["disconnected", "auth-required", "reintegrating"],
        ), told


def test_a_person_who_has_put_it_right_on_the_server(tmp_path: Path) -> None:
    """Nothing changed here, so somebody says it: each word is one attempt."""
    with with_agent(tmp_path) as (client, share, agent):
        agent.add(share.sshd.identity)
        client.mount()
        keys = Path(share.sshd.directory, "authorized_keys")
        allowed = keys.read_text()
        keys.write_text("")
        share.sshd.restart()
        mode_is(client, "auth-required")
        before = share.connections()
        for words in (["online"], ["auto"]):
            client.awayfs(*words, client.mountpoint, check=False)
        eventually(lambda: share.connections() == before + 2, "two attempts")
        keys.write_text(allowed)
        client.online()
        assert client.status()["mode"] in ("connected", "reintegrating")

"""A file's other names are made anew after an upload, whatever is cut off around it.

Over SFTP there are no ids and no link counts: which name still shows the revision that an upload
displaced is told by tokens and content alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World

from awayfs.core.errors import Unreachable
from awayfs.core.modes import Mode, ModeState
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.remotes.sftp import SftpRemote
from awayfs.store.store import Store
from awayfs.volume.context import Context
from awayfs.volume.link import Link
from awayfs.volume.recover import recover
from awayfs.volume.volume import Volume

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

LONG_AGO_NS = 528_706_426_688_832_741


@dataclass(frozen=True)
class Url:
    """As ``opening.VolumeUrl``."""

    path: bytes
    user: str | None = None
    port: int | None = None
    host: str = "127.0.0.1"


class SftpWorld(World):
    """A volume, and a real SFTP server for its directory."""

    def __init__(self, tmp_path: Path, server: Sshd) -> None:
        self.server = server
        super().__init__(tmp_path)

    def open(self) -> None:
        self.store = Store.open(self.state, create=True)
        recover(self.store, time.time_ns())
        url = Url(os.fsencode(self.share), self.server.user, self.server.port)
        remote = SftpRemote(url, {**self.server.options, "client": "testclient"})
        link = Link(remote, time.time_ns, ModeState(Mode.DISCONNECTED, cause="starting"))
        context = Context(self.store, link, self.options, time.time_ns)
        self.volume = Volume(context, "testclient")

    async def end(self) -> None:
        await self.volume.link.remote.close()
        await super().end()

    def made(self, name: bytes, data: bytes) -> NodeId:
        """A new file with content."""
        node = self.volume.changes.create(ROOT, name, Kind.FILE, 0o644, os.getuid(), os.getgid())
        self.write(node, 0, data)
        return node.id

    def rewritten(self, node: NodeId, data: bytes) -> None:
        found = self.volume.context.node(node)
        assert found is not None
        self.write(found, 0, data)

    async def settled(self) -> None:
        """Online, and all sent."""
        for _ in range(3):
            await self.online()
            await self.drained()
        assert not self.store.journal.count(), self.store.journal.all()

    def files(self) -> dict[str, bytes]:
        """What the server has."""
        return {p.name: p.read_bytes() for p in self.share.iterdir()}


Play = Callable[[SftpWorld], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


@pytest.fixture
def played(server: Sshd, tmp_path: Path) -> Callable[[Play], None]:
    def run(play: Play) -> None:
        async def whole() -> None:
            world = SftpWorld(tmp_path, server)
            try:
                await world.online()
                await play(world)
            finally:
                await world.end()

        asyncio.run(whole())

    return run


def losing(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The server does it, and its answer is lost."""

    async def lost(*arguments: Any) -> Any:
        await call(*arguments)
        raise Unreachable("the answer is lost")

    return lost


def test_a_time_whose_answer_was_lost_before_an_upload(
    played: Callable[[Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload displaces a revision that was never noted as the base."""

    async def play(world: SftpWorld) -> None:
        node = world.made(b"a", b"one")
        world.volume.changes.link(node, ROOT, b"b")
        await world.settled()
        remote: Any = world.volume.link.remote
        monkeypatch.setattr(remote, "set_attributes", losing(remote.set_attributes))
        world.volume.changes.set_attributes(node, Attributes(mtime_ns=LONG_AGO_NS))
        await world.drained()
        monkeypatch.undo()
        world.rewritten(node, b"two")
        await world.settled()
        assert world.files() == {"a": b"two", "b": b"two"}
        assert os.path.samefile(world.share / "a", world.share / "b")
        assert not world.store.conflicts.count()

    played(play)

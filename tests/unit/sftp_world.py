"""The live volume in one process, as in ``test_volume_review``, on a real SFTP server."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from test_volume_review import World

from awayfs.core.errors import Unreachable
from awayfs.core.modes import Mode, ModeState
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.remotes.sftp import SftpRemote
from awayfs.store.store import Store
from awayfs.volume.context import Context
from awayfs.volume.link import Link
from awayfs.volume.recover import recover
from awayfs.volume.volume import Volume

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sshd import Sshd


@dataclass(frozen=True)
class Url:
    """As ``opening.VolumeUrl``."""

    path: bytes
    user: str | None = None
    port: int | None = None
    host: str = "127.0.0.1"


class SftpWorld(World):
    """A volume, and a real SFTP server for its directory."""

    client = "testclient"

    def __init__(self, tmp_path: Path, server: Sshd) -> None:
        self.server = server
        super().__init__(tmp_path)

    def open(self) -> None:
        self.store = Store.open(self.state, create=True)
        recover(self.store, time.time_ns())
        url = Url(os.fsencode(self.share), self.server.user, self.server.port)
        remote = SftpRemote(url, {**self.server.options, "client": self.client})
        link = Link(remote, time.time_ns, ModeState(Mode.DISCONNECTED, cause="starting"))
        context = Context(self.store, link, self.options, time.time_ns)
        self.volume = Volume(context, self.client)

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
            if not self.volume.link.usable:
                await self.online()
            await self.drained()
        assert not self.store.journal.count(), self.store.journal.all()

    def files(self) -> dict[str, bytes]:
        """What the server has."""
        return {p.name: p.read_bytes() for p in self.share.iterdir() if p.is_file()}


Play = Callable[[SftpWorld], Coroutine[Any, Any, None]]


def played(server: Sshd, tmp_path: Path, play: Play) -> None:
    """Run one story in a fresh world."""

    async def run() -> None:
        world = SftpWorld(tmp_path, server)
        try:
            await world.online()
            await play(world)
        finally:
            await world.end()

    asyncio.run(run())


def losing(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The server does it, and its answer is lost."""

    async def lost(*arguments: Any) -> Any:
        await call(*arguments)
        raise Unreachable("the answer is lost")

    return lost

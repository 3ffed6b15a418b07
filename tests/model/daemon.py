"""A daemon without a mount: its lives, its deaths, and its link to the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awayfs.core.modes import Mode, ModeState
from awayfs.core.types import ROOT
from awayfs.store.store import Store
from awayfs.volume import fault as fault_module
from awayfs.volume.context import Context, VolumeOptions
from awayfs.volume.files import FileHandle
from awayfs.volume.link import Link
from awayfs.volume.recover import recover
from awayfs.volume.volume import Volume
from tests.model.disk import new_database
from tests.model.ledger import Ledger
from tests.model.remote import Way
from tests.model.share import Share

TICK_S = 0.001
TICKS = 300


class Died(BaseException):
    """The daemon was killed at a named place."""


@dataclass
class _Alarm:
    """Stands in for ``os`` in ``volume.fault``: to kill oneself is to call ``ring``."""

    daemon: Daemon

    def getpid(self) -> int:
        return 0

    def kill(self, _pid: int, _signal: int) -> None:
        self.daemon.killed()


@dataclass
class _Only:
    """Settings by which nothing goes unless it is asked for."""

    policy: str

    def value(self, _name: str) -> str:
        return self.policy


class Daemon:
    """A client named by one letter; its state outlives its daemons."""

    def __init__(
        self,
        name: str,
        base: Path,
        share: Share,
        loop: asyncio.AbstractEventLoop,
        on_call: Any,
        seen: Any,
        on_answer: Any = lambda: False,
    ) -> None:
        self.name = name
        self.loop = loop
        self.share = share
        self.ledger: Ledger = share.ledger
        self._base = base
        self._hooks = on_call, seen, on_answer
        self._lives = 0
        self.state = str(base / f"{name}0")
        self.left: str | None = None
        self.deaths = 0
        self.held: tuple[FileHandle, str] | None = None
        os.mkdir(self.state)
        Path(self.state, "volume.db").write_bytes(new_database())
        self.open()

    # -- lives ----------------------------------------------------------------------------

    def open(self) -> None:
        """A new daemon on the state that there is; its link is down."""
        self.store = Store.open(self.state, create=True)
        recover(self.store, time.time_ns())
        own = f"client{self.name}"
        self.way = Way(os.fsencode(self.share.root), own, *self._hooks)
        link = Link(self.way, time.time_ns, ModeState(Mode.DISCONNECTED, cause="starting"))  # type: ignore[arg-type]
        options = VolumeOptions(
            fresh_s=0.0, uid=os.getuid(), gid=os.getgid(), host=f"host-{self.name}"
        )
        context = Context(self.store, link, options, time.time_ns)
        self.volume = Volume(context, own)
        self.held = None
        self._replay: asyncio.Task[None] | None = None
        self._senders = 0

    def arm(self, name: str, count: int) -> None:
        """The daemon is to die at the ``count``-th pass of a named place."""
        fault_module.os = _Alarm(self)  # type: ignore[attr-defined]
        fault_module._wanted, fault_module._left = name, count

    def disarm(self) -> None:
        """Let it live."""
        fault_module._wanted = ""

    def killed(self) -> None:
        """What kill -9 leaves at this moment is what the next life begins with."""
        self.disarm()
        self._keep()
        raise Died

    def _keep(self) -> None:
        self._lives += 1
        self.left = str(self._base / f"{self.name}{self._lives}")
        shutil.copytree(self.state, self.left)
        self.way.dead = True

    async def die(self) -> None:
        """Killed now, if it is not dead yet; the next life begins."""
        if self.left is None:
            self._keep()
        assert self.left is not None
        await self._abandon()
        shutil.rmtree(self.state)
        self.state, self.left = self.left, None
        self.deaths += 1
        self.open()

    async def _abandon(self) -> None:
        await self._end_tasks()
        for opened in self.volume.context.opened.all():
            os.close(opened.fd)
        self.store.db.close()
        self.store._lock.release()

    async def _end_tasks(self) -> None:
        tasks = list(self.volume.context.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self) -> None:
        """An orderly end."""
        if self.held is not None:
            self._close(self.held[0])
        await self.volume.stop()
        self.store.close()

    async def quiet(self) -> None:
        """Until what was begun in the background is done."""
        while tasks := list(self.volume.context.tasks):
            await asyncio.wait(tasks)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """So long, what is journaled goes out by itself, as from a daemon that runs."""
        if self._replay is None:
            self._replay = asyncio.ensure_future(self.volume.replay.run())
        self._senders += 1
        try:
            yield
        finally:
            self._senders -= 1
            await self._drained()
            replay = self._replay
            if not self._senders and replay is not None:
                self._replay = None
                replay.cancel()
                await asyncio.gather(replay, return_exceptions=True)

    async def _drained(self) -> None:
        """Only a daemon that ends breaks off a drain, or what comes after it."""
        idle = 0
        for _ in range(TICKS):  # what waits is tried again and again
            if idle == 3 or self.way.dead:
                break
            idle = 0 if self.volume.replay.active else idle + 1
            await asyncio.sleep(TICK_S)

    # -- the link -------------------------------------------------------------------------

    @property
    def online(self) -> bool:
        return self.volume.link.usable

    async def go_online(self) -> None:
        await self.volume.link.online_by_hand()

    def go_offline(self) -> None:
        self.loop.run_until_complete(self._go_offline())

    async def _go_offline(self) -> None:
        self.volume.link.offline_by_hand()

    async def look(self) -> None:
        """See everything, and have it here."""
        async for _ in self.volume.hoard.walk(ROOT):
            pass

    async def drain(self) -> None:
        """Send what can be sent."""
        self.volume.replay.hurry()
        await asyncio.wait_for(self.volume.replay._drain(), 30)

    async def sync_part(self, path: str) -> None:
        """Back online; send what concerns a subtree, and nothing that it does not need."""
        if not self.online:
            await self.go_online()
        top, sending = self.store.nodes.resolve(path.encode()), self.volume.context.sending
        if top is None:
            return
        sending._effective = _Only("manual")  # type: ignore[assignment]
        try:
            self.volume.replay.hurry_first(await sending.of_subtree(top.id))
            await asyncio.wait_for(self.volume.replay._drain(), 30)
        finally:
            sending._effective = self.volume.context.effective

    async def sync(self) -> None:
        """Back online; see and send everything."""
        if not self.online:
            await self.go_online()
        await self.drain()
        await self.look()
        await self.drain()

    async def sync_beside(self) -> None:
        """The same, as ``awayfs sync`` has it done: by the daemon, which does other things, too."""
        if not self.online:
            await self.go_online()
        async with self.sending():
            await self.volume.retry_refused()
            self.volume.replay.hurry()
            await self.volume.replay.wait_for_all()
            await self.look()
            self.volume.replay.hurry()
            await self.volume.replay.wait_for_all()

"""A long session on one event loop: looking at it and discarding it lets others have their turn."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from test_never_blocks import Turns
from test_volume_review import World

from awayfs.control.server import Done
from awayfs.core.errors import UsageError
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.daemon.api_session import SessionApi
from awayfs.volume.discard import Discarder

MANY = 3000
"""Nodes; each with records of several kinds."""
LONGEST_S = 0.2


class Session:
    """A volume that was left, and what its commands are answered."""

    def __init__(self, tmp_path: Path) -> None:
        self.world = World(tmp_path)
        for number in range(MANY):
            (self.world.share / f"old{number}").write_bytes(b"base")
        self.api = SessionApi(lambda: self.world.volume).handlers()

    async def leave(self) -> None:
        await self.world.online()
        await self.world.volume.observer.directory(ROOT)
        self.world.volume.link.offline_by_hand()

    async def ask(self, method: str, **params: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The answer, and what was told on the way."""
        told: list[dict[str, Any]] = []
        async for event in self.api[method](params):  # type: ignore[union-attr]
            if isinstance(event, Done):
                return event.result, told
            told.append(event)
        raise AssertionError("no answer")

    async def work(self) -> None:
        """Make, rename, remove, and set the mode of, a lot."""
        volume, uid, gid = self.world.volume, os.getuid(), os.getgid()
        old = dict(volume.store.nodes.children(ROOT))
        for number in range(MANY):
            name = b"old%d" % number
            node: NodeId = old[name].id
            match number % 4:
                case 0:
                    volume.changes.create(ROOT, b"new%d" % number, Kind.FILE, 0o644, uid, gid)
                case 1:
                    volume.changes.rename(ROOT, name, ROOT, b"moved%d" % number, 0)
                case 2:
                    volume.changes.unlink(ROOT, name)
                case 3:
                    volume.changes.set_attributes(node, Attributes(mode=0o600))
            if number % 100 == 0:
                await asyncio.sleep(0)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def test_everybody_gets_a_turn(session: Session) -> None:
    async def play() -> None:
        await session.leave()
        before = names(session)
        await session.work()
        turns = Turns()
        with turns.counted():
            answer, told = await session.ask("diff")
            assert answer["count"] == MANY
            assert sum(len(event.get("changes", ())) for event in told) == MANY
            looked = turns.worst_s
            answer, _ = await session.ask("discard", all=True)
        assert (answer["records"], answer["pending"]) == (MANY, 0)
        assert names(session) == before
        assert looked < LONGEST_S and turns.worst_s < LONGEST_S, (looked, turns.worst_s)
        await session.world.end()

    asyncio.run(play())


def names(session: Session) -> dict[bytes, tuple[int, int]]:
    children = session.world.volume.store.nodes.children(ROOT)
    return {name: (node.id, node.mode) for name, node in children}


def test_what_is_changed_meanwhile_is_not_thrown_away(session: Session) -> None:
    """Between the plan and the deed somebody puts something new where a file is to return."""

    async def play() -> None:
        await session.leave()
        volume = session.world.volume
        old = dict(volume.store.nodes.children(ROOT))
        volume.changes.rename(ROOT, b"old1", ROOT, b"moved", 0)
        discarder = Discarder(volume.context, volume.changes, volume.replay)
        plan = await discarder.planner.plan({old[b"old1"].id})
        made = volume.changes.create(ROOT, b"old1", Kind.FILE, 0o644, 0, 0)
        with pytest.raises(UsageError, match="meanwhile"):
            async for _ in discarder.discard(plan):
                pass
        assert volume.store.nodes.child_id(ROOT, b"old1") == made.id
        kinds = [record.kind for record in volume.store.journal.all()]
        assert kinds == [RecordKind.RENAME, RecordKind.CREATE]
        await session.world.end()

    asyncio.run(play())

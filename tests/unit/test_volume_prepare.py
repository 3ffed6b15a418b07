"""What is done about the journal while the server is being connected to (``Replay.prepare``)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played
from tests.unit.test_volume_sending import made

from awayfs.core.errors import RemoteError
from awayfs.core.types import ROOT


def offline(world: World) -> None:
    world.volume.link.offline_by_hand()


async def settled() -> None:
    """Until everything that was begun has had its turns."""
    for _ in range(50):
        await asyncio.sleep(0.01)


def test_a_try_to_connect_shortens_the_journal_and_reads_it(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        volume, journal = world.volume, world.store.journal
        offline(world)
        made(world, "a", "kept")
        gone = made(world, "a", "gone")
        directory = volume.store.nodes.child(ROOT, b"a")
        assert directory is not None
        volume.changes.unlink(directory.id, b"gone")
        assert journal.of_node(gone)
        world.share.rename(tmp_path / "away")
        with pytest.raises(RemoteError):
            await volume.link.online_by_hand()
        await settled()
        assert not journal.of_node(gone) and journal.count() == 3  # a, kept, its content
        queue = volume.replay._queue
        assert len(queue._order) == 3 and queue._read_to == journal.last_seq()
        made(world, "a", "late")  # what is appended has its turn all the same
        (tmp_path / "away").rename(world.share)
        await volume.link.online_by_hand()
        await world.drained()
        assert sorted(path.name for path in (world.share / "a").iterdir()) == ["kept", "late"]
        assert not journal.count()

    played(tmp_path, play)


def test_nothing_is_read_beside_what_is_being_sent(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        replay = world.volume.replay
        offline(world)
        made(world, "file")
        replay.active = True
        await replay.prepare()
        assert len(replay._queue._order) == 0
        replay.active = False
        await replay.prepare()
        assert len(replay._queue._order) == 2

    played(tmp_path, play)


def test_of_a_long_journal_the_head_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awayfs.volume.replay_queue.AHEAD", 10)
    monkeypatch.setattr("awayfs.volume.replay_queue.BATCH", 4)

    async def play(world: World) -> None:
        offline(world)
        for number in range(20):
            made(world, f"file{number}")
        await world.volume.replay.prepare()
        assert len(world.volume.replay._queue._order) == 12
        await world.volume.link.online_by_hand()
        await world.drained()
        assert len(list(world.share.iterdir())) == 20

    played(tmp_path, play)

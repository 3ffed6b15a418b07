"""Changes rest before they go out over a weak link: how long, and who need not wait."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_volume_review import World, played

from awayfs.core.ageing import SECOND_NS, rests_s
from awayfs.core.errors import Unreachable
from awayfs.core.types import ROOT, Kind
from awayfs.store.nodes import Node

NOW = 1_000 * SECOND_NS


@pytest.mark.parametrize(
    ("age_s", "window_s", "left_s"),
    [
        pytest.param(0, 60, 60, id="just made"),
        pytest.param(59, 60, 1, id="nearly old enough"),
        pytest.param(60, 60, 0, id="old enough"),
        pytest.param(5_000, 60, 0, id="long ago"),
        pytest.param(-1, 60, 0, id="the clock was set back"),
        pytest.param(0, 0, 0, id="no window"),
    ],
)
def test_how_long_a_change_rests(age_s: int, window_s: int, left_s: int) -> None:
    assert rests_s(NOW - age_s * SECOND_NS, NOW, window_s) == left_s


@given(st.integers(0, NOW), st.integers(0, NOW), st.floats(0, 1e6))
def test_nothing_rests_for_longer_than_the_window(at_ns: int, age_ns: int, window_s: float) -> None:
    left_s = rests_s(at_ns, at_ns + age_ns, window_s)
    assert 0 <= left_s <= window_s
    then_ns = at_ns + age_ns + int(left_s * SECOND_NS) + SECOND_NS
    assert rests_s(at_ns, then_ns, window_s) == 0


class Clock:
    """The volume's, moved by hand."""

    def __init__(self, world: World) -> None:
        self.ahead_s = 0.0
        real = world.volume.context.now
        world.volume.context.now = lambda: real() + int(self.ahead_s * SECOND_NS)


def make(world: World, name: bytes, content: bytes = b"content") -> Node:
    node = world.volume.changes.create(ROOT, name, Kind.FILE, 0o644, 0, 0)
    world.write(node, 0, content)
    return node


async def drain(world: World) -> None:
    """What may go out now, and nothing that is not old enough."""
    await asyncio.wait_for(world.volume.replay._drain(), 10)


def test_what_lived_shortly_never_travels(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        clock = Clock(world)
        world.volume.link.set_metered(True)
        make(world, b"short")
        clock.ahead_s = 20
        make(world, b"long")
        clock.ahead_s = 59
        await drain(world)
        assert os.listdir(world.share) == []
        world.volume.changes.unlink(ROOT, b"short")
        clock.ahead_s = 90
        await drain(world)
        assert os.listdir(world.share) == ["long"]
        assert world.store.journal.count() == 0

    played(tmp_path, play)


def test_what_rests_is_no_work_that_is_stuck(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        clock = Clock(world)
        world.volume.link.set_metered(True)
        make(world, b"first")
        clock.ahead_s = 30
        make(world, b"second")
        await drain(world)
        progress = world.volume.replay.progress()
        assert (progress.records, progress.resting.records) == (4, 4)
        assert 29 < progress.resting.left_s <= 30
        assert progress.over and not progress.stuck
        clock.ahead_s = 61
        await drain(world)
        assert os.listdir(world.share) == ["first"]
        assert world.volume.replay.progress().resting.records == 2

    played(tmp_path, play)


def test_who_asks_for_it_gets_all_sent_at_once(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        world.volume.link.set_metered(True)
        make(world, b"wanted")
        world.volume.replay.hurry()
        make(world, b"later")
        await drain(world)
        assert os.listdir(world.share) == ["wanted"]

    played(tmp_path, play)


def test_who_waits_for_a_file_takes_along_what_was_before_it(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        world.volume.link.set_metered(True)
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        file = world.volume.changes.create(directory.id, b"f", Kind.FILE, 0o644, 0, 0)
        world.write(file, 0, b"content")
        world.volume.context.spawn(world.volume.replay.run())
        await asyncio.wait_for(world.volume.sent(file.id), 10)
        assert (world.share / "d" / "f").read_bytes() == b"content"

    played(tmp_path, play)


def test_a_good_link_lets_nothing_rest(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        link = world.volume.link
        link.set_metered(True)
        make(world, b"f")
        world.volume.context.spawn(world.volume.replay.run())
        await asyncio.sleep(0.3)
        assert os.listdir(world.share) == []
        link.set_metered(False)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not world.store.journal.count():
                break
        assert os.listdir(world.share) == ["f"]

    played(tmp_path, play)


def test_what_rests_goes_out_by_itself(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        world.volume.link.set_metered(True)
        world.volume.context.spawn(world.volume.replay.run())
        make(world, b"f")
        await asyncio.sleep(0.2)
        assert os.listdir(world.share) == []
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not world.store.journal.count():
                break
        assert os.listdir(world.share) == ["f"]

    played(tmp_path, play, settings={"ageing": 0.6})


def test_what_was_made_long_ago_does_not_rest_with_a_clock_that_was_set_back(
    tmp_path: Path,
) -> None:
    async def play(world: World) -> None:
        clock = Clock(world)
        make(world, b"f")
        clock.ahead_s = -3600
        world.volume.link.set_metered(True)
        await drain(world)
        assert os.listdir(world.share) == ["f"]

    played(tmp_path, play)


def test_a_move_whose_answer_was_lost_goes_before_what_is_older_though_others_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for by itself; what was removed in the directory before it still is there."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d" / "x").write_bytes(b"x")
        directory = (await world.find("d")).id
        await world.find("d/x")
        clock = Clock(world)
        world.volume.link.set_metered(True)
        world.volume.changes.unlink(directory, b"x")
        clock.ahead_s = 50
        make(world, b"young")
        world.volume.changes.rename(ROOT, b"d", ROOT, b"e", 0)
        remote = world.volume.link.remote
        rename = remote.rename

        async def unheard(*given: Any) -> Any:
            await rename(*given)
            raise Unreachable("cut")

        monkeypatch.setattr(remote, "rename", unheard)
        world.volume.replay.hurry_first([world.store.journal.last_seq()])
        await drain(world)
        assert os.listdir(world.share) == ["e"]
        world.die()
        world.open()
        await world.online()
        clock = Clock(world)
        clock.ahead_s = 70
        world.volume.link.set_metered(True)
        await drain(world)
        clock.ahead_s = 200
        await drain(world)
        assert world.store.journal.count() == 0
        assert sorted(os.listdir(world.share)) == ["e", "young"]
        assert os.listdir(world.share / "e") == []

    played(tmp_path, play)

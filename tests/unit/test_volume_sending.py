"""What may go out of a volume's journal: subtrees, use, idleness, and who waits in vain."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import EDISCONFULL, Unreachable
from awayfs.core.modes import Mode
from awayfs.core.records import RecordState
from awayfs.core.sending import EVERYTHING, IDLE_S, LONGEST_S
from awayfs.core.types import ROOT, Kind, NodeId

LAZY, MANUAL = {"reintegrate": "lazy"}, {"reintegrate": "manual"}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, world: World) -> None:
        self.now_s, self.requests = 1000.0, 0
        sending = world.volume.context.sending
        sending._clock, sending._used_at = lambda: self.now_s, self.now_s
        sending.requests = lambda: self.requests

    def passes(self, seconds: float) -> None:
        self.now_s += seconds


def made(world: World, *path: str, content: bytes = b"content") -> NodeId:
    """A file with all directories on its way, as a program would make them."""
    parent, volume = ROOT, world.volume
    for name in map(str.encode, path[:-1]):
        found = volume.store.nodes.child(parent, name)
        node = found or volume.changes.create(parent, name, Kind.DIRECTORY, 0o755, 0, 0)
        parent = node.id
    file = volume.changes.create(parent, path[-1].encode(), Kind.FILE, 0o644, 0, 0)
    world.write(file, 0, content)
    return file.id


async def sent(world: World) -> set[str]:
    """What is on the server after a drain in which nothing new is asked for."""
    world.volume.replay._woken.clear()  # by now ``run`` would have
    await asyncio.wait_for(world.volume.replay._drain(), 10)
    return {str(path.relative_to(world.share)) for path in world.share.rglob("*")}


def test_a_subtree_with_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        volume, sending = world.volume, world.volume.context.sending
        for path in ("a/f", "a/deep/g", "b/h"):
            made(world, *path.split("/"))
        linked = volume.store.nodes.child((await world.find("b")).id, b"h")
        assert linked is not None
        volume.changes.link(linked.id, (await world.find("a/deep")).id, b"linked")
        assert await sent(world) == set()
        asked = await sending.of_subtree((await world.find("a/deep")).id)
        volume.replay.hurry_first(asked)
        assert not volume.replay.first_is_stuck
        # the file of two names is inside by one of them, and needs the directory of the other
        assert await sent(world) == {"a", "a/deep", "a/deep/g", "a/deep/linked", "b", "b/h"}
        assert volume.store.journal.some(asked) == [] and volume.replay.first_is_stuck
        progress = volume.replay.progress()
        assert progress.records == progress.held > 0 and progress.over and not progress.stuck
        volume.replay.hurry()
        assert "a/f" in await sent(world)

    played(tmp_path, play, settings=MANUAL)


def test_the_root_is_everything(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        made(world, "a", "f")
        world.volume.replay.hurry_first(await world.volume.context.sending.of_subtree(ROOT))
        assert await sent(world) == {"a", "a/f"}
        assert not world.store.journal.count()

    played(tmp_path, play, settings=MANUAL)


def test_held_back_is_connected_and_waits_for_nobody(tmp_path: Path) -> None:
    """Nothing spins, and whoever waits is told that there is nothing to wait for."""

    async def play(world: World) -> None:
        volume = world.volume
        node = made(world, "f")
        draining = asyncio.create_task(volume.replay.run())
        volume.replay.wake()
        await asyncio.sleep(0.1)
        assert volume.mode is Mode.CONNECTED
        assert not volume.replay.active and not volume.replay._woken.is_set()
        for waiting in (volume.sent(node), volume.all_sent(), volume.replay.wait_for_all()):
            await asyncio.wait_for(waiting, 1.0)
        passes = 0
        original = volume.replay._pass

        async def counted() -> bool:
            nonlocal passes
            passes += 1
            return await original()

        volume.replay._pass = counted  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        assert passes == 0 and volume.replay.holds_back(node)
        draining.cancel()

    played(tmp_path, play, settings=MANUAL)


def test_a_conflict_found_at_last_is_not_waited_for(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        volume = world.volume
        made(world, "a", "f")
        made(world, "a", "g")
        (world.share / "a").mkdir()
        (world.share / "a/f").write_bytes(b"somebody else's")
        asked = await volume.context.sending.of_subtree((await world.find("a")).id)
        draining = asyncio.create_task(volume.replay.run())
        volume.replay.hurry_first(asked)
        async with asyncio.timeout(10):
            while not volume.replay.first_is_stuck:
                await asyncio.sleep(0.05)
        draining.cancel()
        assert (world.share / "a/g").exists()
        left = volume.store.journal.some(asked)
        assert [record.state for record in left].count(RecordState.PARKED) == 1
        assert (world.share / "a/f").read_bytes() == b"somebody else's"

    played(tmp_path, play, settings=MANUAL)


def test_what_is_asked_for_while_others_go_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was changed since the pass began."""
    monkeypatch.setattr("awayfs.core.flight.FIRST", 8)

    async def play(world: World) -> None:
        volume, order, go_on = world.volume, list[str](), asyncio.Event()
        for number in range(40):
            made(world, f"f{number}")
        original = volume.replay.steps.one

        async def one(seq: int) -> None:
            record = volume.store.journal.get(seq)
            assert record is not None
            order.append(record.name.decode())
            await go_on.wait()
            await original(seq)

        monkeypatch.setattr(volume.replay.steps, "one", one)
        draining = asyncio.create_task(volume.replay._drain())
        while len(order) < 8:
            await asyncio.sleep(0.01)
        late = made(world, "late")
        volume.replay.hurry_first(volume.store.journal.seqs_of(late))
        go_on.set()
        await asyncio.wait_for(draining, 20)
        assert order.index("late") == 8
        assert len(set(order)) >= 41

    played(tmp_path, play)


def test_lazy_work_goes_when_nobody_uses_the_mount(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        clock, sending = Clock(world), world.volume.context.sending
        for name in ("used", "unused"):
            made(world, name)
        assert await sent(world) == set()
        used = (await world.find("used")).id
        assert sending.waits_for_use(used) and not sending.waits_for_use(ROOT + 1000)
        sending.used(used, listed=False)
        assert await sent(world) == {"used"}
        assert not sending.waits_for_use(used)
        clock.passes(IDLE_S - 1)
        clock.requests += 1
        assert sending.choice().rest_to == 0
        clock.passes(IDLE_S - 1)
        assert await sent(world) == {"used"}
        clock.passes(1)
        assert sending.choice().rest_to == EVERYTHING
        assert await sent(world) == {"used", "unused"}

    played(tmp_path, play, settings=LAZY)


def test_a_listed_directory_counts_with_its_names(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        Clock(world)
        sending = world.volume.context.sending
        for path in ("a/f", "a/deep/g", "b/h"):
            made(world, *path.split("/"))
        sending.used((await world.find("a")).id, listed=True)
        assert await sent(world) == {"a", "a/f", "a/deep"}

    played(tmp_path, play, settings=LAZY)


def test_a_mount_that_is_never_idle_sends_now_and_then(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        clock, sending = Clock(world), world.volume.context.sending
        made(world, "early")
        for _ in range(int(LONGEST_S)):
            clock.passes(1.0)
            clock.requests += 1
            sending._look_for_overdue()
        assert await sent(world) == set()
        clock.passes(1.0)
        clock.requests += 1
        sending._look_for_overdue()
        made(world, "late")
        assert await sent(world) == {"early"}

    played(tmp_path, play, settings=LAZY)


def test_work_under_way_stops_when_the_mount_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awayfs.core.flight.FIRST", 8)

    async def play(world: World) -> None:
        clock, volume = Clock(world), world.volume
        for number in range(30):
            made(world, f"f{number}")
        clock.passes(IDLE_S)
        original, begun = volume.replay.steps.one, list[int]()

        async def one(seq: int) -> None:
            begun.append(seq)
            if len(begun) == 10:
                clock.requests += 1
            await original(seq)

        monkeypatch.setattr(volume.replay.steps, "one", one)
        assert 10 <= len(await sent(world)) < 30  # those under way end, and no more begin
        assert volume.replay.progress().held and volume.mode is Mode.CONNECTED

    played(tmp_path, play, settings=LAZY)


@pytest.mark.parametrize("policy", ["lazy", "manual"])
def test_who_needs_room_is_not_left_waiting_for_what_is_not_sent(
    tmp_path: Path, policy: str
) -> None:
    """Lazy work is sent for the room; what goes by command only makes none."""

    async def play(world: World) -> None:
        Clock(world)
        volume = world.volume
        first = made(world, "first", content=b"x" * 600_000)
        draining = asyncio.create_task(volume.replay.run())
        before = time.monotonic()
        making = volume.room.make_or_wait(600_000, first + 1)
        if policy == "manual":
            with pytest.raises(OSError) as full:
                await making
            assert full.value.errno == EDISCONFULL and time.monotonic() - before < 1.0
        else:
            await asyncio.wait_for(making, 10)
            assert (world.share / "first").stat().st_size == 600_000
        draining.cancel()

    played(tmp_path, play, settings={"reintegrate": policy}, cache_limit=1_000_000)


def test_what_had_gone_out_is_finished_by_the_next_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        volume = world.volume
        directory = volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        made(world, "other")

        async def make(*_: Any, **__: Any) -> Any:
            raise Unreachable("the daemon is killed before the answer comes")

        monkeypatch.setattr(volume.link.remote, "make", make)
        volume.replay.hurry_first(volume.store.journal.seqs_of(directory.id))
        assert await sent(world) == set()
        [record] = volume.store.journal.of_node(directory.id)
        assert record.state is RecordState.FROZEN
        world.die()
        world.open()
        await world.online()
        assert await sent(world) == {"d"}

    played(tmp_path, play, settings=MANUAL)

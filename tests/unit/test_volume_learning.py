"""What is used lately is fetched ahead, when there is room and nobody minds."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import EDISCONDATA
from awayfs.core.modes import Mode
from awayfs.volume import learning as module


async def tree(world: World) -> dict[str, int]:
    """Some files in two directories; their nodes."""
    nodes = {}
    for directory in ("work", "rest"):
        (world.share / directory).mkdir()
        for number in range(8):
            (world.share / directory / f"{number}").write_bytes(os.urandom(3000))
    for directory in ("work", "rest"):
        await world.volume.observer.directory((await world.find(directory)).id)
        for number in range(8):
            name = f"{directory}/{number}"
            nodes[name] = (await world.find(name)).id
    return nodes


def use(world: World, *nodes: int, pid: int = 0) -> None:
    """They are opened."""
    for node in nodes:
        world.volume.learning.note((node, pid, time.time_ns()))


def here(world: World, nodes: dict[str, int]) -> set[str]:
    return {name for name, node in nodes.items() if world.store.content.ranges(node)}


def test_what_was_used_and_what_lies_beside_it_is_fetched_ahead(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = await tree(world)
        use(world, nodes["work/0"], nodes["work/1"], nodes["work/2"])
        await world.volume.learning.digest()
        assert await world.volume.learning.fetch_ahead() == 8
        assert here(world, nodes) == {f"work/{n}" for n in range(8)}
        kinds = [r.kind for r in await world.volume.learning.why(nodes["work/1"])]
        assert set(kinds) == {"used", "with", "directory"}
        assert await world.volume.learning.why(nodes["rest/1"]) == []

    played(tmp_path, play)


def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = await tree(world)
        use(world, nodes["work/0"], nodes["work/1"], nodes["work/2"])
        await world.volume.learning.digest()
        await world.volume.learning.save()
        before = await world.volume.learning.why(nodes["work/1"])
        await world.end()
        world.open()
        await world.volume.learning._load()
        after = await world.volume.learning.why(nodes["work/1"])
        assert [(r.kind, r.node) for r in after] == [(r.kind, r.node) for r in before]

    played(tmp_path, play)


def test_a_node_that_goes_is_forgotten(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = await tree(world)
        use(world, nodes["work/0"], nodes["work/1"])
        await world.volume.learning.digest()
        await world.volume.learning.save()
        (world.share / "work/0").unlink()
        await world.volume.observer.directory((await world.find("work")).id)
        await world.volume.learning.save()
        assert nodes["work/0"] not in dict(world.store.uses.all())
        assert nodes["work/1"] in dict(world.store.uses.all())

    played(tmp_path, play)


def test_nothing_is_learned_or_fetched_where_it_is_off(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = await tree(world)
        use(world, *list(nodes.values())[:5])
        await world.volume.learning.digest()
        assert await world.volume.learning.fetch_ahead() == 0
        assert here(world, nodes) == set()
        await world.volume.learning.save()
        assert list(world.store.uses.all()) == []

    played(tmp_path, play, settings={"learn": False})


def test_a_full_cache_gives_only_a_part_of_its_room(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = await tree(world)
        for number in range(8):
            await world.cached(f"rest/{number}")
        use(world, nodes["work/0"], nodes["work/1"], nodes["work/2"])
        await world.volume.learning.digest()
        await world.volume.learning.fetch_ahead()
        assert world.store.content.usage() <= 30_000
        assert len([name for name in here(world, nodes) if name.startswith("work")]) == 1

    played(tmp_path, play, cache_limit=30_000)


def test_indexers_teach_nothing(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        with open("/proc/self/comm") as file:
            own = file.read().strip()
        nodes = await tree(world)
        value = world.volume.context.effective.value
        world.volume.context.effective.value = (  # type: ignore[method-assign]
            lambda name: (own,) if name == "indexers" else value(name)
        )
        use(world, nodes["work/0"], nodes["work/1"], pid=os.getpid())
        await world.volume.learning.digest()
        assert await world.volume.learning.why(nodes["work/0"]) == []

    played(tmp_path, play)


def test_what_was_missing_offline_is_suggested_and_counts_as_used(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = await tree(world)
        world.volume.note_failure(nodes["work/0"], b"", OSError(EDISCONDATA, "an indexer"))
        world.volume.link.offline_by_hand()
        for number in range(3):
            for _ in range(2):
                error = OSError(EDISCONDATA, "away")
                world.volume.note_failure(nodes[f"rest/{number}"], b"", error)
        advice = world.volume.learning.advice()
        assert [(one.path, one.times) for one in advice] == [(b"rest", 6)]
        assert world.volume.learning.times_missed(nodes["rest/1"]) == 2
        await world.volume.link.online_by_hand()
        await world.volume.learning.digest()
        await world.volume.learning.fetch_ahead()
        assert {"rest/0", "rest/1", "rest/2"} <= here(world, nodes)

    played(tmp_path, play)


def test_the_task_fetches_nothing_over_a_weak_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DIGEST_S", "FIRST_AHEAD_S", "AHEAD_S", "SAVE_S"):
        monkeypatch.setattr(module, name, 0.02)

    async def play(world: World) -> None:
        nodes = await tree(world)
        link: Any = world.volume.link
        strong = link.state
        link.state = type(strong)(Mode.WRITE_BEHIND, cause="metered")
        use(world, nodes["work/0"], nodes["work/1"])
        world.volume.context.spawn(world.volume.learning.run())
        await asyncio.sleep(0.3)
        assert here(world, nodes) == set()
        link.state = strong
        for _ in range(200):
            if {"work/0", "work/1"} <= here(world, nodes):
                break
            await asyncio.sleep(0.02)
        assert {"work/0", "work/1"} <= here(world, nodes)
        assert nodes["work/0"] in dict(world.store.uses.all())

    played(tmp_path, play)

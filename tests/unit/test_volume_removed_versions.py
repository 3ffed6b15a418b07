"""A file that was removed here and changed on the server: what is shown of it, and decided for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import UsageError
from awayfs.core.types import ROOT
from awayfs.store.conflicts import Conflict
from awayfs.store.fsck import check
from awayfs.volume import removed_versions
from awayfs.volume.virtual_conflicts import BASE, LOCAL, SERVER

OLD, THEIRS = b"as it was\n", b"theirs, and longer\n"


async def in_conflict(world: World, *, cached: bool = True) -> Conflict:
    """``f``: removed here, and written there."""
    (world.share / "f").write_bytes(OLD)
    os.utime(world.share / "f", (1_000_000, 1_000_000))
    await (world.cached("f") if cached else world.find("f"))
    world.volume.changes.unlink(ROOT, b"f")
    (world.share / "f").write_bytes(THEIRS)
    await world.drained()
    (conflict,) = world.store.conflicts.all()
    assert conflict.kind == ConflictKind.REMOVE_UPDATE
    return conflict


def variant(world: World, conflict: Conflict, name: bytes) -> bytes | None:
    """A variant's content; None where there is none."""
    found = world.volume.virtual.conflicts.variants(conflict).get(name)
    if found is None:
        return None
    assert found.path is not None
    return Path(found.path).read_bytes()


def test_the_base_is_what_was_removed(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        conflict = await in_conflict(world)
        assert variant(world, conflict, BASE) == OLD
        assert variant(world, conflict, SERVER) == THEIRS
        assert world.volume.virtual.conflicts.variant_itself(conflict, LOCAL) is None
        shown = world.volume.virtual.conflicts.variant_itself(conflict, BASE)
        assert shown is not None and shown.mtime_ns == 1_000_000 * 10**9
        world.die()
        world.open()
        await world.online()
        assert variant(world, conflict, BASE) == OLD
        assert check(world.store) == []

    played(tmp_path, play)


def test_deciding_for_the_base_brings_back_what_was_removed(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        conflict = await in_conflict(world)
        await world.volume.deciding.keep(conflict.id, "base")
        await world.drained()
        assert (world.share / "f").read_bytes() == OLD
        kept = [world.store.history.content_path(one.id) for one in world.store.history.all()]
        assert [Path(path).read_bytes() for path in kept] == [THEIRS]
        assert not world.store.conflicts.all() and not os.listdir(f"{world.state}/variants")

    played(tmp_path, play)


@pytest.mark.parametrize("why", ["not cached", "too large"])
def test_what_is_not_here_any_more_cannot_be_decided_for(why: str, tmp_path: Path) -> None:
    """Once the server's version was taken for it, and nothing happened."""

    async def play(world: World) -> None:
        conflict = await in_conflict(world, cached=why != "not cached")
        assert variant(world, conflict, BASE) is None
        with pytest.raises(UsageError, match="not here any more"):
            await world.volume.deciding.keep(conflict.id, "base")
        assert world.store.conflicts.get(conflict.id) is not None

    played(tmp_path, play, **({"base_limit": 3} if why == "too large" else {}))


def test_what_is_shown_again_and_worked_on_is_the_local_variant(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        conflict = await in_conflict(world)
        world.write(await world.cached("f"), 0, b"WORK")
        assert variant(world, conflict, LOCAL) == b"WORK" + THEIRS[4:]
        assert variant(world, conflict, BASE) == OLD

    played(tmp_path, play)


def test_what_is_written_to_it_while_it_is_copied_is_no_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may still have it open; what it wrote was never the server's."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(OLD)
        node = await world.cached("f")
        handle = world.volume.files.open(node, writing=True)
        world.volume.changes.unlink(ROOT, b"f")
        (world.share / "f").write_bytes(THEIRS)
        loop, real = asyncio.get_running_loop(), removed_versions._copy

        def copy(*given: Any) -> bool:
            asyncio.run_coroutine_threadsafe(write(), loop).result(10)
            return real(*given)

        async def write() -> None:
            world.volume.files.write(handle, 0, b"nobody else's")

        monkeypatch.setattr(removed_versions, "_copy", copy)
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        assert variant(world, conflict, BASE) in (None, OLD)
        world.volume.files.close(handle)
        assert not os.listdir(f"{world.state}/staging")

    played(tmp_path, play)


def test_a_base_that_could_not_be_noted_is_staged_still(tmp_path: Path) -> None:
    """What a transaction that is rolled back had put in its place goes back."""

    async def play(world: World) -> None:
        conflict = await in_conflict(world, cached=False)
        versions = removed_versions.RemovedVersions(world.volume.context)
        staged = world.store.content.stage_path()
        Path(staged).write_bytes(OLD)
        with pytest.raises(ZeroDivisionError), world.store.transaction():
            versions.put(conflict.id, staged)
            raise ZeroDivisionError
        assert Path(staged).read_bytes() == OLD and variant(world, conflict, BASE) is None
        os.unlink(staged)

    played(tmp_path, play)

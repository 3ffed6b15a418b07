"""The base of a large file is copied beside the event loop, and is what was there before."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.types import ROOT
from awayfs.store import bases
from awayfs.store.store import Store
from awayfs.volume.base_copies import BaseCopies

LARGE = os.urandom(3 << 20)


def base_of(store: Store, node: int) -> bytes | None:
    path = store.content.base_path(node)
    return Path(path).read_bytes() if path else None


@pytest.fixture(autouse=True)
def no_shared_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on ext4, wherever the tests run."""
    monkeypatch.setattr(bases.Bases, "_can_share", lambda _self, _source: False)


def test_the_copy_is_made_by_a_thread_and_taken_when_the_change_is_journaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(LARGE)
        node = await world.cached("f")
        copies = BaseCopies(world.volume.context)
        wait = copies.before_change(node.id)
        assert wait is not None
        together = copies.before_change(node.id)
        assert together is not None
        await asyncio.gather(wait, together)
        assert copies.before_change(node.id) is None
        assert world.store.content.base_path(node.id) is None, "nothing has changed yet"
        monkeypatch.setattr(bases, "clone_or_copy", None)  # the loop copies nothing any more
        world.write(node, 0, b"mine")
        assert base_of(world.store, node.id) == LARGE
        assert copies.before_change(node.id) is None

    played(tmp_path, play)


def test_a_copy_of_what_is_not_there_any_more_is_no_base(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(LARGE)
        node = await world.cached("f")
        copies = BaseCopies(world.volume.context)
        wait = copies.before_change(node.id)
        assert wait is not None
        await wait
        (world.share / "f").write_bytes(LARGE[::-1])
        await world.volume.observer.directory(ROOT)
        await world.cached("f")
        world.write(world.shown(node), 0, b"mine")
        assert base_of(world.store, node.id) == LARGE[::-1]
        assert os.listdir(f"{world.store.directory}/staging") == []

    played(tmp_path, play)


@pytest.mark.parametrize("size", [1000, (1 << 20) + 1])
def test_only_what_takes_long_is_waited_for(tmp_path: Path, size: int) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(LARGE[:size])
        node = await world.cached("f")
        copies = BaseCopies(world.volume.context)
        wait = copies.before_change(node.id)
        assert (wait is not None) == (size > 1 << 20)
        if wait is not None:
            wait.close()

    played(tmp_path, play)

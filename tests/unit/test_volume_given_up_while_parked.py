"""A change is given up while the server's side of its conflict is still fetched or looked for.

There is nothing left to decide then, nothing that failed, and nothing is left over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.store.fsck import check
from awayfs.volume.giving_up import GivingUp


def settled(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is left to decide or to send, and nothing was told of as failed."""
    store = world.store
    assert (store.journal.all(), store.conflicts.all()) == ([], [])
    assert list(check(store)) == []
    assert not os.listdir(f"{world.state}/staging")
    assert not [one.message for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_directory_is_given_up_while_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        node = await world.find("d")
        world.volume.changes.rename(ROOT, b"d", ROOT, b"ours", 0)
        (world.share / "d").rename(world.share / "theirs")
        moved: Any = world.volume.replay.steps._parking._moved
        look = moved.look

        async def slow(one: int) -> None:
            await look(one)
            with world.store.transaction():
                world.store.journal.remove([r.seq for r in world.store.journal.of_node(node.id)])

        with monkeypatch.context() as patched:
            patched.setattr(moved, "look", slow)
            await world.drained()
        await world.volume.observer.directory(ROOT)
        settled(world, caplog)

    played(tmp_path, play)


def test_a_file_is_given_up_while_what_stands_in_its_place_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(world: World) -> None:
        await world.volume.observer.directory(ROOT)
        made = world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, os.getuid(), os.getgid())
        world.write(made, 0, b"ours")
        (world.share / "f").write_bytes(b"theirs, longer")
        variants: Any = world.volume.virtual.server_variants
        fetch = variants.fetch

        async def slow(*arguments: Any) -> Any:
            staged = await fetch(*arguments)
            giving_up = GivingUp(world.volume.context, world.volume.changes)
            with world.store.transaction():
                giving_up.changes(made.id, below=True)
                giving_up.node(made.id)
            return staged

        with monkeypatch.context() as patched:
            patched.setattr(variants, "fetch", slow)
            await world.drained()
        settled(world, caplog)

    played(tmp_path, play)


@pytest.mark.parametrize("what", ["edit", "creation"])
@pytest.mark.parametrize("keep", list(Resolution))
def test_a_directory_is_decided_for_while_what_stands_in_it_is_fetched(
    tmp_path: Path, keep: Resolution, what: str
) -> None:
    """It is gone, with what the file in it was in conflict with: that is made anew, too."""

    async def play(world: World) -> None:
        store, replay = world.store, world.volume.replay
        (world.share / "d").mkdir()
        directory = await world.find("d")
        await world.volume.observer.directory(directory.id)
        if what == "edit":
            (world.share / "d/f").write_bytes(b"before")
            node = await world.cached("d/f")
        else:
            node = world.volume.changes.create(directory.id, b"f", Kind.FILE, 0o644, 0, 0)
        world.write(node, 0, b"edited")
        (world.share / "d/f").write_bytes(b"edited there, too")
        world.volume.changes.set_attributes(directory.id, Attributes(mode=0o700))
        first, *_, second = (one.seq for one in store.journal.all())
        remote: Any = world.volume.link.remote
        fetch, fetched, go_on = remote.fetch, asyncio.Event(), asyncio.Event()

        async def slow(*arguments: Any) -> Any:
            found = await fetch(*arguments)
            fetched.set()
            await go_on.wait()
            return found

        remote.fetch = slow
        task = asyncio.create_task(replay.steps.one(first))
        await fetched.wait()
        remote.fetch = fetch
        shutil.rmtree(world.share / "d")
        await replay.steps.one(second)
        (conflict,) = store.conflicts.all()
        await world.volume.resolve(conflict, keep)
        go_on.set()
        await task
        await world.drained()
        await world.volume.observer.directory(ROOT)
        on_server = {one.name: one.read_bytes() for one in world.share.rglob("*") if one.is_file()}
        assert on_server == ({} if keep is Resolution.SERVER else {"f": b"edited"})
        assert (store.journal.all(), store.conflicts.all()) == ([], [])
        assert check(store) == []
        assert not os.listdir(f"{world.state}/staging")

    played(tmp_path, play)

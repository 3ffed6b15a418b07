"""A directory is decided about while a file in it is on its way to the server.

The server was asked to put the upload in place, and nobody knows yet whether it did.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.errors import Refused, Unreachable
from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.store.fsck import check

ANSWERS = ["done", "not-done", "refused", "lost", "dies"]


class Slow:
    """An upload that the server takes its time with."""

    def __init__(self, world: World, *, late: bool, refused: bool = False) -> None:
        self.asked, self.go_on, self.lost = asyncio.Event(), asyncio.Event(), False
        remote: Any = world.volume.link.remote
        replace = remote.replace

        async def slow(*arguments: Any) -> Any:
            outcome = None if late or refused else await replace(*arguments)
            self.asked.set()
            await self.go_on.wait()
            remote.replace = replace
            if self.lost:
                raise Unreachable("the answer is lost")
            if refused:
                raise Refused(errno.EACCES, "not like this")
            return await replace(*arguments) if late else outcome

        remote.replace = slow


async def settled(world: World, keep: Resolution, there: str) -> None:
    """What was kept is on the server, once, and is what is shown."""
    store, found = world.store, None
    for _ in range(2):
        await world.volume.observer.directory(ROOT)
        if (found := store.nodes.child_id(ROOT, b"d")) is not None:
            await world.volume.observer.directory(found)
        await world.drained()
    wanted = {"other": b"other"} if there == "made-again" else {}
    if keep is not Resolution.SERVER:
        wanted["f"] = b"edited"
    assert (store.journal.all(), store.conflicts.all()) == ([], [])
    on_server = {one.name: one.read_bytes() for one in world.share.rglob("*") if one.is_file()}
    assert on_server == wanted
    shown = store.nodes.children(found) if found is not None else []
    assert {name.decode() for name, _ in shown} == set(wanted)
    assert check(store) == []


@pytest.mark.parametrize("what", ["edit", "creation"])
@pytest.mark.parametrize("there", ["gone", "made-again"])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("keep", list(Resolution))
def test_a_lost_directory_is_decided_about_while_a_file_in_it_is_on_its_way(
    keep: Resolution, answer: str, there: str, what: str, tmp_path: Path
) -> None:
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
        world.volume.changes.set_attributes(directory.id, Attributes(mode=0o700))
        first, *_, second = (one.seq for one in store.journal.all())
        slow = Slow(world, late=answer == "not-done", refused=answer == "refused")
        task = asyncio.create_task(replay.steps.alone(first))
        await slow.asked.wait()
        shutil.rmtree(world.share / "d")
        await replay.steps.one(second)
        (conflict,) = store.conflicts.all()
        assert (conflict.node, conflict.kind) == (directory.id, "update/remove")
        await world.volume.resolve(conflict, keep)
        if there == "made-again":
            (world.share / "d").mkdir()
            (world.share / "d/other").write_bytes(b"other")
        slow.lost = answer == "lost"
        if answer == "dies":
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            world.die()
            world.open()
        else:
            slow.go_on.set()
            await task
        if not world.volume.link.usable:
            await world.online()
        await world.drained()
        await settled(world, keep, there)

    played(tmp_path, play)

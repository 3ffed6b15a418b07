"""Who waits until a change is sent: what keeps it from going out does not make them wait on."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.test_volume_review import World, played

from awayfs.core.records import RecordState
from awayfs.core.types import ROOT, Kind


def test_an_fsync_is_not_forgotten_when_a_drain_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the last thing under way is about to fail, and others go on writing."""

    async def play(world: World) -> None:
        volume, under_way, go_on = world.volume, asyncio.Event(), asyncio.Event()

        tries = iter(range(100))

        async def fail(*_: Any, **__: Any) -> Any:
            if next(tries) == 1:  # the first one freezes the record, which counts as a step
                under_way.set()
                await go_on.wait()
            raise OSError(errno.EIO, "a test")

        monkeypatch.setattr(volume.link.remote, "make", fail)
        file = volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, 0, 0)
        handle = volume.files.open(file, writing=True)
        volume.files.write(handle, 0, b"content")
        volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        draining = asyncio.create_task(volume.replay.run())
        volume.replay.wake()
        while not under_way.is_set():
            handle.opened.written_ns = volume.context.now()
            await asyncio.sleep(0.05)
        waiting = asyncio.create_task(volume.sent(file.id))
        await asyncio.sleep(0)
        go_on.set()
        for _ in range(50):
            await asyncio.sleep(0.1)
            if waiting.done():
                break
            handle.opened.written_ns = volume.context.now()  # another one is writing
        draining.cancel()
        assert (world.share / "f").read_bytes() == b"content"
        assert waiting.done()
        volume.files.close(handle)

    played(tmp_path, play)


def test_edits_of_files_that_are_gone_are_not_counted_for_ever(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        for number in range(5):
            name = b"f%d" % number
            file = world.volume.changes.create(ROOT, name, Kind.FILE, 0o644, 0, 0)
            world.write(file, 0, b"short-lived")
            world.volume.changes.unlink(ROOT, name)
        await world.drained()
        assert not world.volume.context.opened._edits

    played(tmp_path, play)


def test_an_edit_is_not_taken_for_one_that_was_sent(tmp_path: Path) -> None:
    """Who copies the file meanwhile would take both halves for one content."""

    async def play(world: World) -> None:
        opened = world.volume.context.opened
        file, edits = world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, 0, 0), []
        for text in (b"one", b"two", b"six"):
            world.write(world.shown(file), 0, text)
            edits.append(opened.edits(file.id))
            await world.drained()
        assert len(set(edits)) == len(edits) and not opened._edits

    played(tmp_path, play)


def test_nobody_waits_for_a_directory_that_waits_for_a_decision(tmp_path: Path) -> None:
    """Decisions make directories anew, so that one may come after what is made in it."""

    async def play(world: World) -> None:
        volume, journal = world.volume, world.store.journal
        directory = volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        inner = volume.changes.create(directory.id, b"inner", Kind.DIRECTORY, 0o755, 0, 0)
        made, inside = journal.of_node(directory.id)[0], journal.of_node(inner.id)[0]
        with world.store.transaction():
            journal.replace(replace(inside, seq=made.seq))
            journal.replace(replace(made, seq=inside.seq, state=RecordState.PARKED))
        draining = asyncio.create_task(volume.replay.run())
        await asyncio.wait_for(volume.replay.wait_for_all(), 20)
        assert volume.replay.progress().stuck
        journal.set_state(inside.seq, RecordState.PENDING)
        await asyncio.wait_for(volume.replay.wait_for_all(), 20)
        draining.cancel()
        assert (world.share / "d/inner").is_dir()

    played(tmp_path, play)

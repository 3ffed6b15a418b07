"""The daemon dies while a file of two names is sent, and one of the names is removed then.

The content was on its way to a name that the next try does not go by.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.types import Attributes
from awayfs.remotes.directory_facts import FileSystem
from awayfs.store.fsck import check

STAGING = ["replay.intended", "replay.staged"]
"""Where there are no ids, so small a content is not staged before its record is frozen."""
FAULTS = [
    *STAGING,
    "replay.frozen",
    "replay.acted",
    "replay.relinking",
    "replay.relinked",
]
PLACES = [("a", "b", True), ("d/f", "e/f", True), ("e/f", "d/f", True), ("d/f", "e/f", False)]
"""What is removed, what stays, and whether the server tells objects apart."""


class Died(BaseException):
    """In the place of the process."""


def deadly(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """A daemon that ends at a named place."""

    def fault(name: str) -> None:
        if name == wanted:
            raise Died

    for module in ("replay_steps", "replay_act", "freezing", "puts", "relinking"):
        monkeypatch.setattr(f"awayfs.volume.{module}.fault", fault)


async def edited(world: World, path: str, other: str) -> None:
    """A file of two names that was sent, and an edit of it that was not."""
    for name in ("d", "e"):
        (world.share / name).mkdir()
    (world.share / path).write_bytes(b"before")
    node, directory = await world.cached(path), await world.find(os.path.dirname(other))
    world.volume.changes.link(node.id, directory.id, os.path.basename(other).encode())
    await world.drained()
    world.write(node, 0, b"edited")


async def removed_here(world: World, path: str) -> None:
    directory = await world.find(os.path.dirname(path))
    world.volume.changes.unlink(directory.id, os.path.basename(path).encode())


async def assert_alone(world: World, path: str, content: bytes = b"edited") -> None:
    """The edit is on the server under this name, and nothing else is."""
    assert (world.store.journal.all(), world.store.conflicts.all()) == ([], [])
    found = (one for one in world.share.rglob("*") if not one.is_dir())
    there = {str(one.relative_to(world.share)): one.read_bytes() for one in found}
    assert there == {path: content}
    shown = await world.cached(path)
    assert world.store.nodes.names(shown.id) == world.store.server.names(shown.id)
    assert check(world.store) == []


@pytest.mark.parametrize(
    ("removed", "kept", "ids", "wanted"),
    [(*place, at) for place in PLACES for at in FAULTS if place[2] or at not in STAGING],
)
@pytest.mark.parametrize("once_more", [False, True])
def test_a_name_is_removed_after_a_death_amid_its_upload(
    removed: str,
    kept: str,
    ids: bool,
    wanted: str,
    once_more: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not ids:
        monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)

    async def play(world: World) -> None:
        await edited(world, removed, kept)
        (seq,) = [one.seq for one in world.store.journal.all()]
        with monkeypatch.context() as patch:
            deadly(patch, wanted)
            with pytest.raises(Died):
                await world.volume.replay.steps.one(seq)
        world.die()
        world.open()
        await world.online()
        if once_more:
            world.write(await world.find(removed), 6, b", and once more")
        await removed_here(world, removed)
        await world.drained()
        await assert_alone(world, kept, b"edited, and once more" if once_more else b"edited")

    played(tmp_path, play)


@pytest.mark.parametrize("wanted", ["replay.frozen", "replay.relinking", "replay.acted"])
def test_rights_that_went_out_with_an_edit_before_a_death_are_nobody_elses(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal of the other name changes the token; the next edit is no conflict for that."""

    async def play(world: World) -> None:
        await edited(world, "d/f", "e/f")
        await removed_here(world, "e/f")
        node = await world.find("d/f")
        world.volume.changes.set_attributes(node.id, Attributes(mode=0o600))
        with monkeypatch.context() as patch:
            deadly(patch, wanted)
            with pytest.raises(Died):
                await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
        world.die()
        world.open()
        await world.online()
        world.write(await world.find("d/f"), 6, b", and once more")
        await world.drained()
        await assert_alone(world, "d/f", b"edited, and once more")
        assert (world.share / "d/f").stat().st_mode & 0o777 == 0o600

    played(tmp_path, play)


def test_an_edit_after_a_death_is_based_on_the_one_before_where_nothing_tells_objects_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent has another token for the place that it took."""
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"before")
        world.write(await world.cached("a"), 0, b"edited")
        with monkeypatch.context() as patch:
            deadly(patch, "replay.acted")
            with pytest.raises(Died):
                await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
        world.die()
        world.open()
        await world.online()
        world.write(await world.find("a"), 6, b", and once more")
        await world.drained()
        await assert_alone(world, "a", b"edited, and once more")

    played(tmp_path, play)


def test_an_edit_outlives_the_name_that_it_was_sent_by_where_nothing_tells_objects_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload took a name from the old content, which has another token for that."""
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)

    async def play(world: World) -> None:
        await edited(world, "a", "b")
        await world.drained()
        await removed_here(world, "a")
        await world.drained()
        await assert_alone(world, "b")

    played(tmp_path, play)

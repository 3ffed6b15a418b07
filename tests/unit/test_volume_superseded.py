"""What both sides began with is kept where each changed the file in another way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.types import ROOT, Attributes


def kept(world: World) -> list[tuple[bytes, str, bytes]]:
    """Path, which, and content of everything in the history."""
    history = world.store.history
    return [
        (lost.path, lost.which, Path(history.content_path(lost.id)).read_bytes())
        for lost in history.all()
    ]


@pytest.mark.parametrize("seen", [False, True])
def test_renamed_here_and_rewritten_there(seen: bool, tmp_path: Path) -> None:
    """``seen``: the server's version is noticed before the rename is sent."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        file = await world.cached("f")
        world.volume.changes.rename(ROOT, b"f", ROOT, b"kept", 0)
        (world.share / "f").write_bytes(b"theirs")
        if seen:
            await world.volume.observer.directory(ROOT)
        await world.drained()
        assert os.listdir(world.share) == ["kept"]
        assert (world.share / "kept").read_bytes() == b"theirs"
        assert kept(world) == [(b"kept", "local", b"base")]
        assert not world.store.conflicts.of_node(file.id)

    played(tmp_path, play)


def test_rewritten_here_and_renamed_there(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        file = await world.cached("f")
        world.write(file, 0, b"mine")
        os.rename(world.share / "f", world.share / "kept")
        await world.volume.observer.directory(ROOT)
        await world.drained()
        assert os.listdir(world.share) == ["kept"]
        assert (world.share / "kept").read_bytes() == b"mine"
        assert kept(world) == [(b"kept", "server", b"base")]

    played(tmp_path, play)


def test_rewritten_here_and_moved_there_into_another_directory(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        (world.share / "d").mkdir()
        file = await world.cached("f")
        await world.find("d")
        world.write(file, 0, b"mine")
        os.rename(world.share / "f", world.share / "d" / "kept")
        await world.drained()
        assert (world.share / "d" / "kept").read_bytes() == b"mine"
        assert kept(world) == [(b"d/kept", "server", b"base")]

    played(tmp_path, play)


def test_nothing_is_kept_where_one_side_changed_nothing(tmp_path: Path) -> None:
    """Else every save would fill the history."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        file = await world.cached("f")
        world.write(file, 0, b"mine")
        await world.drained()
        (world.share / "f").write_bytes(b"theirs")
        await world.volume.observer.directory(ROOT)
        await world.cached("f")
        world.volume.changes.set_attributes(file.id, Attributes(mode=0o600))
        world.volume.changes.rename(ROOT, b"f", ROOT, b"g", 0)
        await world.drained()
        os.rename(world.share / "g", world.share / "h")
        await world.volume.observer.directory(ROOT)
        assert kept(world) == []

    played(tmp_path, play)

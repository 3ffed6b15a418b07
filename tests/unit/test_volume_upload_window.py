"""The server moves what is changed here: during an upload, or of what is not cached."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.types import ROOT, Attributes


def files_of(share: Path) -> dict[str, bytes]:
    return {str(p.relative_to(share)): p.read_bytes() for p in share.rglob("*") if p.is_file()}


@pytest.mark.parametrize("to", ["g", "d/g", "d/f"])
@pytest.mark.parametrize("step", ["stage", "replace"])
def test_a_rename_on_the_server_during_an_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, to: str
) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "f").write_bytes(b"base")
        await world.find("d")
        file = await world.cached("f")
        real = getattr(world.volume.link.remote, step)

        def move() -> None:
            if (world.share / "f").exists():
                (world.share / "f").rename(world.share / to)

        async def moved_after(*args: Any) -> Any:
            staged = await real(*args)
            move()
            return staged

        async def moved_before(*args: Any) -> Any:
            move()
            return await real(*args)

        moved = moved_after if step == "stage" else moved_before
        monkeypatch.setattr(world.volume.link.remote, step, moved)
        world.write(file, 0, b"EDIT")
        await world.drained()
        await world.drained()
        assert world.store.conflicts.all() == []
        assert files_of(world.share) == {to: b"EDIT"}
        assert world.store.journal.count() == 0

    played(tmp_path, play)


@pytest.mark.parametrize("keep", [Resolution.LOCAL, Resolution.SERVER])
def test_a_placeholder_renamed_on_both_sides(tmp_path: Path, keep: Resolution) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        file = await world.find("f")
        world.volume.link.offline_by_hand()
        world.volume.changes.rename(ROOT, b"f", ROOT, b"mine", 0)
        (world.share / "f").rename(world.share / "theirs")
        await world.volume.link.online_by_hand()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        await world.volume.resolve(conflict, keep)
        await world.drained()
        name = "mine" if keep is Resolution.LOCAL else "theirs"
        assert files_of(world.share) == {name: b"base"}
        assert world.store.nodes.path(file.id) == name.encode()
        assert world.store.conflicts.all() == [] and world.store.journal.count() == 0

    played(tmp_path, play)


def test_a_placeholder_with_new_rights_that_was_moved_on_the_server(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        file = await world.find("f")
        world.volume.link.offline_by_hand()
        world.volume.changes.set_attributes(file.id, Attributes(mode=0o600))
        (world.share / "f").rename(world.share / "theirs")
        await world.volume.link.online_by_hand()
        await world.drained()
        assert files_of(world.share) == {"theirs": b"base"}
        assert stat.S_IMODE((world.share / "theirs").stat().st_mode) == 0o600
        assert world.store.conflicts.all() == [] and world.store.journal.count() == 0

    played(tmp_path, play)

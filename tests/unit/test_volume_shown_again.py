"""A name that is freed by a decision shows what the server has under it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.types import ROOT, Kind


@pytest.mark.parametrize("second", list(Resolution))
@pytest.mark.parametrize("first", [Resolution.BOTH, Resolution.SERVER])
def test_a_conflicted_file_is_renamed_and_another_takes_its_name(
    first: Resolution, second: Resolution, tmp_path: Path
) -> None:
    """Both are decided; the server's version stood under a name that was taken here."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        file = await world.cached("f")
        world.write(file, 0, b"mine")
        (world.share / "f").write_bytes(b"theirs")
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        changes = world.volume.changes
        changes.rename(ROOT, b"f", ROOT, b"g", 0)
        made = changes.create(ROOT, b"f", Kind.FILE, 0o644, os.getuid(), os.getgid())
        world.write(made, 0, b"new")
        await world.volume.resolve(conflict, first)
        await world.drained()
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, second)
        await world.drained()
        await world.volume.observer.directory(ROOT)
        assert not world.store.conflicts.all() and not world.store.journal.count()
        shown = {os.fsdecode(name) for name, _ in world.store.nodes.children(ROOT)}
        assert shown == set(os.listdir(world.share))
        assert b"theirs" in {path.read_bytes() for path in world.share.iterdir()}

    played(tmp_path, play)

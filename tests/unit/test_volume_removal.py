"""A removal goes out over the revision that was removed, whatever was looked at meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.types import ROOT

OVER = ["rm", "mv"]


@pytest.mark.parametrize("how", OVER)
def test_looking_does_not_make_the_servers_newer_version_the_removed_one(
    tmp_path: Path, how: str
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"W")
        (world.share / "other").write_bytes(b"O")
        await world.cached("f")
        await world.cached("other")
        if how == "rm":
            world.volume.changes.unlink(ROOT, b"f")
        else:
            world.volume.changes.rename(ROOT, b"other", ROOT, b"f", 0)
        (world.share / "f").write_bytes(b"R")
        await world.volume.observer.directory(ROOT)  # somebody lists it before replay gets there
        await world.drained()
        assert (world.share / "f").read_bytes() == b"R"
        assert world.store.conflicts.count() == 1

    played(tmp_path, play)

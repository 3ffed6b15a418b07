"""The other name for whose sake a changed file may lose one is gone at the last moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from test_volume_review import World, played

from awayfs.core.types import ROOT


def test_the_last_name_of_what_the_server_changed_stays(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"W")
        os.link(world.share / "a", world.share / "b")
        await world.cached("a")
        await world.volume.observer.directory(ROOT)
        world.volume.changes.unlink(ROOT, b"a")
        (world.share / "b").write_bytes(b"edited there")
        remote: Any = world.volume.link.remote
        remove = remote.remove

        async def late(*arguments: Any) -> Any:
            if (world.share / "b").exists():
                (world.share / "b").unlink()
            return await remove(*arguments)

        remote.remove = late
        await world.drained()
        assert (world.share / "a").read_bytes() == b"edited there"

    played(tmp_path, play)

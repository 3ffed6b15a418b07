"""A file is edited on the server while its other names follow an upload of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind
from awayfs.core.types import ROOT


@pytest.mark.parametrize("how", ["in place", "saved over"])
def test_what_is_written_there_meanwhile_is_not_taken_for_ours(tmp_path: Path, how: str) -> None:
    """Another edit of ours is on its way, which is based on what we sent, and not on theirs."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"W")
        os.link(world.share / "a", world.share / "b")
        node = await world.cached("a")
        await world.volume.observer.directory(ROOT)
        world.write(node, 0, b"ours")
        remote: Any = world.volume.link.remote
        link = remote.link

        async def linked(*arguments: Any) -> Any:
            remote.link = link
            outcome = await link(*arguments)
            if how == "saved over":
                (world.share / "a").unlink()
            (world.share / "a").write_bytes(b"theirs")
            world.write(world.shown(node), 0, b"more of ours")
            return outcome

        remote.link = linked
        await world.drained()
        assert (world.share / "a").read_bytes() == b"theirs"
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.UPDATE_UPDATE

    played(tmp_path, play)

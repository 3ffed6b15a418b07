"""A file that is written to after it lost its name is no witness of what the server has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.types import ROOT, Range


@pytest.mark.parametrize("limit", [1 << 20, 0])
@pytest.mark.parametrize("how", ["rm", "mv"])
def test_written_while_its_removal_waits(tmp_path: Path, how: str, limit: int) -> None:
    """A weak token asks for the base's digest, which must not be that of the open file."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"old content")
        (world.share / "other").write_bytes(b"O")
        file = await world.cached("f")
        await world.cached("other")
        handle = world.volume.files.open(world.shown(file), writing=True)
        if how == "rm":
            world.volume.changes.unlink(ROOT, b"f")
        else:
            world.volume.changes.rename(ROOT, b"other", ROOT, b"f", 0)
        world.volume.files.write(handle, 0, b"NEW")
        kept = world.store.content.base_ranges(file.id)
        assert kept == ([Range(0, 11)] if limit else [])
        base = world.store.server.get(file.id)
        assert base is not None
        digest = await world.volume.replay._finder.base_digest(base)
        seen = await world.volume.link.call(lambda remote: remote.digest(b"f"))
        assert digest == (seen.blake2b if limit else None)
        assert await world.read(handle, 0, 100) == b"NEW content"
        world.volume.files.close(handle)
        await world.drained()
        assert sorted(os.listdir(world.share)) == (["other"] if how == "rm" else ["f"])
        assert world.store.conflicts.count() == 0

    played(tmp_path, play, base_limit=limit)

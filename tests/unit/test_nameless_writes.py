"""A file that is written to after it lost its name is no witness of what the server has."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
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
        digest = await world.volume.replay.steps._finder.base_digest(base)
        seen = await world.volume.link.call(lambda remote: remote.digest(b"f"))
        assert digest == (seen.blake2b if limit else None)
        assert await world.read(handle, 0, 100) == b"NEW content"
        world.volume.files.close(handle)
        await world.drained()
        assert sorted(os.listdir(world.share)) == (["other"] if how == "rm" else ["f"])
        assert world.store.conflicts.count() == 0

    played(tmp_path, play, base_limit=limit)


@pytest.mark.parametrize("inside", [True, False], ids=["its directory", "the file"])
@pytest.mark.parametrize("here", [True, False], ids=["whole", "placeholder"])
def test_what_went_on_the_server_takes_no_more_writes(
    tmp_path: Path, here: bool, inside: bool
) -> None:
    """Nobody here unlinked it: a program must not be told that something is written."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d/f").write_bytes(b"old content")
        file = await (world.cached("d/f") if here else world.find("d/f"))
        handle = world.volume.files.open(world.shown(file), writing=True)
        (world.share / "d/f").unlink()
        if inside:
            (world.share / "d").rmdir()
        with suppress(OSError):
            await world.find("d/f")
        assert not world.store.nodes.names(file.id)
        with pytest.raises(OSError) as refused:
            world.volume.files.write(handle, 11, b"NEW")
        assert refused.value.errno == errno.ESTALE
        with pytest.raises(OSError) as refused:
            world.volume.files.truncate(world.shown(file), 3)
        assert refused.value.errno == errno.ESTALE
        if here:
            assert await world.read(handle, 0, 100) == b"old content"
        world.volume.files.close(handle)

    played(tmp_path, play)


def test_what_was_unlinked_here_is_written_to_also_when_the_server_has_no_more_of_it(
    tmp_path: Path,
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"old content")
        file = await world.cached("f")
        handle = world.volume.files.open(world.shown(file), writing=True)
        world.volume.changes.unlink(ROOT, b"f")
        (world.share / "f").unlink()
        await world.drained()
        await world.volume.observer.directory(ROOT)
        world.volume.files.write(handle, 0, b"NEW")
        assert await world.read(handle, 0, 100) == b"NEW content"
        world.volume.files.close(handle)

    played(tmp_path, play)

"""A directory is to come back on the server for what was made in it, and another is quicker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.types import ROOT, Kind
from awayfs.store.fsck import check


@pytest.mark.parametrize("keep", list(Resolution))
def test_a_file_that_takes_its_place_meanwhile_is_no_directory(
    tmp_path: Path, keep: Resolution
) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        directory = await world.find("d")
        await world.volume.observer.directory(ROOT)
        await world.volume.observer.directory(directory.id)
        made = world.volume.changes.create(
            directory.id, b"f", Kind.FILE, 0o644, os.getuid(), os.getgid()
        )
        world.write(made, 0, b"ours")
        (world.share / "d").rmdir()
        remote: Any = world.volume.link.remote
        make = remote.make

        async def late(*arguments: Any) -> Any:
            remote.make = make
            (world.share / "d").write_bytes(b"theirs")
            return await make(*arguments)

        remote.make = late
        await world.drained()
        base = world.store.server.get(directory.id)
        assert base is None or base.kind is Kind.DIRECTORY
        (conflict,) = world.store.conflicts.all()
        assert conflict.kind == ConflictKind.TYPE
        await world.volume.resolve(conflict, keep)
        for _ in range(2):
            await world.drained()
            await world.volume.observer.directory(ROOT)
            if (found := world.store.nodes.child(ROOT, b"d")) and found.kind is Kind.DIRECTORY:
                await world.volume.observer.directory(found.id)
        assert (world.store.journal.all(), world.store.conflicts.all()) == ([], [])
        there = [path.read_bytes() for path in world.share.rglob("*") if path.is_file()]
        ours = [] if keep is Resolution.SERVER else [b"ours"]
        assert sorted(there) == sorted([b"theirs", *ours])
        shown = {name for name, _ in world.store.nodes.children(ROOT)}
        assert shown == {os.fsencode(path.name) for path in world.share.iterdir()}
        assert check(world.store) == []

    played(tmp_path, play)

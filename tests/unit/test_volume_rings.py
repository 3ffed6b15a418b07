"""Two moves, each into the other, one here and one on the server, leave a ring for a while."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from test_volume_review import World, played

from awayfs.core.types import ROOT
from awayfs.volume.giving_up import GivingUp


def test_a_walk_through_a_ring_of_directories_ends(tmp_path: Path) -> None:
    """What the server refused to move into itself waits for a decision, which walks through it."""

    async def play(world: World) -> None:
        (world.share / "outer/inner").mkdir(parents=True)
        (world.share / "other").mkdir()
        (world.share / "other/file").write_bytes(b"content")
        outer, inner = await world.find("outer"), await world.find("outer/inner")
        other, file = await world.find("other"), await world.find("other/file")
        with world.store.transaction():
            world.store.nodes.move_name(ROOT, b"outer", other.id, b"outer")
            world.store.nodes.remove_name(ROOT, b"other")
            world.store.nodes.add_name(inner.id, b"other", other.id)
        giving_up = GivingUp(world.volume.context, world.volume.changes)
        found = list(islice(giving_up.below(outer.id), 10))
        assert sorted(found) == sorted([inner.id, other.id, file.id])
        with world.store.transaction():
            world.store.nodes.move_name(other.id, b"outer", ROOT, b"outer")
        assert world.store.nodes.path(file.id) == b"outer/inner/other/file"

    played(tmp_path, play)

"""What a cut-off operation left is tidied up where it lies, wherever its directory is by then."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.errors import Unreachable
from awayfs.core.types import ROOT
from awayfs.remotes import faults

MOST_POINTS = 12


def cutting(call: Callable[..., Awaitable[Any]], nth: int) -> Callable[..., Awaitable[Any]]:
    """The server's side ends at the ``nth`` point, and its answer is lost with it."""

    async def cut_off(*arguments: Any) -> Any:
        faults.arm(nth)
        try:
            return await call(*arguments)
        except faults.Cut:
            raise Unreachable("cut off") from None
        finally:
            faults.disarm()

    return cut_off


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("by", ["us", "another"])
@pytest.mark.parametrize("nth", range(1, MOST_POINTS))
def test_renamed_directory_above_a_cut_off_rename(
    tmp_path: Path, nth: int, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``d/b`` goes over ``c/d/a`` and is cut; then ``c`` is renamed to ``e``."""

    async def play(world: World) -> None:
        (world.share / "c/d").mkdir(parents=True)
        (world.share / "c/d/a").write_bytes(b"A")
        (world.share / "b").write_bytes(b"B")
        await world.cached("c/d/a")
        await world.cached("b")
        directory = await world.find("c/d")
        remote: Any = world.volume.link.remote
        monkeypatch.setattr(remote, "rename", cutting(remote.rename, nth))
        world.volume.changes.rename(ROOT, b"b", directory.id, b"a", 0)
        await world.drained()
        monkeypatch.undo()
        if by == "us":
            world.volume.changes.rename(ROOT, b"c", ROOT, b"e", 0)
        else:
            os.rename(world.share / "c", world.share / "e")
        await world.online()
        await world.drained()
        await world.drained()
        assert files(world.share) == {"e/d/a": b"B"}
        assert world.store.conflicts.count() == world.store.journal.count() == 0

    played(tmp_path, play)

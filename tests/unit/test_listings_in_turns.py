"""A listing that finds its directory gone waits for the one above it, and never for itself."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.errors import NotFound
from awayfs.core.types import ROOT

PATIENCE_S = 10.0
"""Nothing here takes long: who waits longer waits for ever."""


@pytest.mark.parametrize("lower", ["upper/lower", "upper/between/lower"])
def test_directories_that_change_places_are_both_listed(tmp_path: Path, lower: str) -> None:
    """One comes out of the other, which goes into it, while both are being listed."""

    async def play(world: World) -> None:
        observer, link = world.volume.observer, world.volume.link
        (world.share / lower).mkdir(parents=True)
        paths = [lower, *map(str, Path(lower).parents)][:-1]
        nodes = [(await world.find(path)).id for path in paths]
        below, above = nodes[0], nodes[-1]
        for node in (ROOT, *nodes):
            await observer.directory(node)
        os.rename(world.share / lower, world.share / "out")
        os.rename(world.share / "upper", world.share / "out" / "in")

        asked, go_on = link.remote.list_unless, asyncio.Event()
        gone = asyncio.Semaphore(0)

        async def list_unless(path: bytes, fingerprint: bytes) -> Any:
            if path == b"upper":
                await go_on.wait()
            try:
                return await asked(path, fingerprint)
            except NotFound:
                gone.release()
                raise

        link.remote.list_unless = list_unless  # type: ignore[method-assign]
        listings = [asyncio.ensure_future(observer.directory(node)) for node in nodes]
        for _ in nodes[:-1]:
            await asyncio.wait_for(gone.acquire(), PATIENCE_S)
        await observer.name(ROOT, b"out")
        await observer.name(below, b"in")
        assert world.store.server.path(above) == b"out/in"
        go_on.set()
        _, waiting = await asyncio.wait(listings, timeout=PATIENCE_S)
        assert not waiting, "listings wait for each other"
        assert not observer.under_way()

        (world.share / "out" / "in" / "more").touch()
        await asyncio.wait_for(observer.directory(above), PATIENCE_S)
        assert world.store.nodes.child_id(above, b"more") is not None

    played(tmp_path, play)

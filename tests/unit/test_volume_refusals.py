"""Offline, what the server refused before is told from what was never looked at."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import EDISCONDATA, EDISCONNECTED, EDISCONPERM, Refused
from awayfs.core.types import NodeId


async def code_of_list(world: World, node: NodeId) -> int | None:
    with pytest.raises(OSError) as caught:
        await world.volume.tree.open_directory(node)
    return caught.value.errno


async def code_of_read(world: World, path: str) -> int | None:
    with pytest.raises(OSError) as caught:
        await world.cached(path)
    return caught.value.errno


def test_what_was_refused_is_not_just_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        for name in ("shut", "never"):
            (world.share / name).mkdir()
            (world.share / f"{name}.txt").write_bytes(b"content")
        nodes = {name: await world.find(name) for name in ("shut", "never")}
        for name in ("shut.txt", "never.txt"):
            await world.find(name)
        remote, refusing = world.volume.link.remote, True
        real = {"list": remote.list, "fetch": remote.fetch}

        def refuse(method: str) -> Any:
            async def call(path: bytes, *more: Any) -> Any:
                if refusing and path.startswith(b"shut"):
                    raise Refused(errno.EACCES, "not for you")
                return await real[method](path, *more)

            return call

        for method in real:
            monkeypatch.setattr(remote, method, refuse(method))
        assert await code_of_list(world, nodes["shut"].id) == errno.EACCES
        assert await code_of_read(world, "shut.txt") == errno.EACCES
        world.volume.link.offline_by_hand()
        assert await code_of_list(world, nodes["shut"].id) == EDISCONPERM
        assert await code_of_read(world, "shut.txt") == EDISCONPERM
        assert await code_of_read(world, "shut/file") == EDISCONPERM
        assert await code_of_list(world, nodes["never"].id) == EDISCONDATA
        assert await code_of_read(world, "never.txt") == EDISCONDATA
        assert await code_of_read(world, "never/file") == EDISCONNECTED
        refusing = False
        await world.volume.link.online_by_hand()
        await world.volume.tree.open_directory(nodes["shut"].id)
        await world.cached("shut.txt")

    played(tmp_path, play)

"""A time here has a fraction that SFTP cannot hold: another one means another content."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sftp_world import SftpWorld, played
from test_volume_review import World

from awayfs.core.types import ROOT, NodeId
from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


def shown_time(world: World, node: NodeId) -> int:
    found = world.volume.context.node(node)
    assert found is not None
    return found.mtime_ns


async def looked_at(world: World, node: NodeId) -> None:
    """As often as it takes until nobody can have written to it in the same second."""
    deadline = time.monotonic() + 10
    while True:
        await world.volume.observer.directory(ROOT)
        await world.find("f")
        if world.volume.observer.is_suspect(node):
            await world.volume.observer.verify(node)
        seen = world.store.server.get(node)
        if seen is None or not seen.weak:
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def test_what_is_written_here_keeps_its_time(server: Sshd, tmp_path: Path) -> None:
    """An editor that saves it again would take another one for somebody else's save."""

    async def play(world: SftpWorld) -> None:
        node = world.made(b"f", b"mine")
        before = shown_time(world, node)
        assert before % SECOND, "once in a thousand million times"
        await world.settled()
        await looked_at(world, node)
        assert shown_time(world, node) == before
        assert (world.share / "f").stat().st_mtime_ns == before - before % SECOND
        world.rewritten(node, b"more")
        before = shown_time(world, node)
        await world.settled()
        await looked_at(world, node)
        assert shown_time(world, node) == before

    played(server, tmp_path, play)


def test_another_content_of_the_same_second_has_another_time(server: Sshd, tmp_path: Path) -> None:
    async def play(world: SftpWorld) -> None:
        node = world.made(b"f", b"mine")
        before = shown_time(world, node)
        await world.settled()
        path = world.share / "f"
        at = path.stat().st_mtime_ns
        path.write_bytes(b"your")
        os.utime(path, ns=(at, at))
        await looked_at(world, node)
        assert shown_time(world, node) == before - before % SECOND
        handle = world.volume.files.open(world.shown(await world.find("f")), writing=False)
        assert await world.read(handle, 0, 10) == b"your"
        world.volume.files.close(handle)

    played(server, tmp_path, play)

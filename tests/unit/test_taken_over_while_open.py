"""A program has a file open for writing while a new version of it is taken over from the server.

What it writes lands on one version or the other, never beside both. Before, it is an edit of the
old one and meets the new one as a conflict. After, it is an edit of the new one, whatever the
program had read. Either way what was acknowledged is in one of the two, or in the conflict.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sftp_world import played as played_over_sftp
from test_volume_review import Play, World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.errors import UsageError
from awayfs.core.types import ROOT
from awayfs.volume.files import FileHandle
from sshd import Sshd, needs_sshd, serving

BLOCK, COUNT = 100, 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


@pytest.fixture(params=["dir", pytest.param("sftp", marks=needs_sshd)])
def over_both(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Play], None]:
    """Run a story over either protocol: with ids and without."""
    if request.param == "dir":
        return lambda play: played(tmp_path, play)
    server = request.getfixturevalue("server")
    return lambda play: played_over_sftp(server, tmp_path, play)


async def opened(world: World) -> FileHandle:
    (world.share / "f").write_bytes(b"-" * BLOCK * COUNT)
    os.utime(world.share / "f", (1_600_000_000, 1_600_000_000))
    node = await world.cached("f")
    return world.volume.files.open(world.shown(node), writing=True)


def theirs(world: World, number: int) -> None:
    """Somebody writes a block on the server, into the file as it is."""
    with open(world.share / "f", "rb+") as file:
        file.seek(number * BLOCK)
        file.write(block("theirs", number))


async def ours(world: World, handle: FileHandle, number: int) -> None:
    wait = world.volume.files.before_write(handle, number * BLOCK, BLOCK)
    if wait is not None:
        await wait
    world.volume.files.write(handle, number * BLOCK, block("ours", number))


def block(who: str, number: int) -> bytes:
    return f"<{who} {number}>".encode().ljust(BLOCK, b".")


def versions(world: World) -> list[bytes]:
    return [path.read_bytes() for path in world.share.iterdir()]


async def decided(world: World) -> None:
    """What is to be sent is sent, both sides of a conflict are kept."""
    await world.drained()
    for conflict in world.store.conflicts.all():
        with contextlib.suppress(UsageError):  # a program is writing it at this moment
            await world.volume.resolve(conflict, Resolution.BOTH)
    await world.drained()


@pytest.mark.parametrize("fetched", ["nothing", "a part", "all"])
def test_what_is_written_after_it_is_an_edit_of_the_new_version(
    over_both: Callable[[Play], None], fetched: str
) -> None:
    async def play(world: World) -> None:
        handle = await opened(world)
        theirs(world, 1)
        await world.volume.observer.directory(ROOT, anew=True)
        if fetched != "nothing":
            await world.read(handle, 0, BLOCK * (COUNT if fetched == "all" else 5))
        await ours(world, handle, 2)
        there = world.store.server.get(handle.opened.node)
        assert there is not None and there.token == world.store.content.base_token(there.node)
        await world.drained()
        world.volume.files.close(handle)
        await world.drained()
        assert not world.store.conflicts.count()
        (found,) = versions(world)
        assert block("ours", 2) in found and block("theirs", 1) in found

    over_both(play)


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_written_before_it_is_a_conflict_with_the_new_version(
    over_both: Callable[[Play], None], closed: bool
) -> None:
    async def play(world: World) -> None:
        handle = await opened(world)
        theirs(world, 1)
        await ours(world, handle, 2)
        await world.volume.observer.directory(ROOT)
        if closed:
            world.volume.files.close(handle)
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        if not closed:
            await ours(world, handle, 3)
            world.volume.files.close(handle)
        await world.volume.resolve(conflict, Resolution.BOTH)
        await world.drained()
        found = versions(world)
        assert len(found) == 2
        (local,) = [data for data in found if block("ours", 2) in data]
        (server,) = [data for data in found if block("theirs", 1) in data]
        assert local is not server
        assert closed or block("ours", 3) in local

    over_both(play)


def test_all_that_is_written_while_it_goes_on_and_on_is_somewhere(
    over_both: Callable[[Play], None],
) -> None:
    """Both sides write, each its own blocks; adoption, fetching and sending run beside it."""

    async def play(world: World) -> None:
        handle = await opened(world)
        done = False

        async def takes_over() -> None:
            while not done:
                await world.volume.observer.directory(ROOT)
                await asyncio.sleep(0)

        async def reads() -> None:
            while not done:
                with contextlib.suppress(OSError):  # it changed while it was read, again and again
                    await world.read(handle, 0, BLOCK * COUNT)
                await asyncio.sleep(0)

        async def sends() -> None:
            while not done:
                await decided(world)
                await asyncio.sleep(0.003)

        beside = [asyncio.ensure_future(one()) for one in (takes_over, reads, sends)]
        for number in range(0, COUNT, 2):
            while not (world.share / "f").exists():  # set aside, for a moment
                await asyncio.sleep(0.001)
            theirs(world, number)
            await asyncio.sleep(0.002 * (number % 5))
            await ours(world, handle, number + 1)
            await asyncio.sleep(0.002 * (number % 7))
        done = True
        await asyncio.gather(*beside)
        world.volume.files.close(handle)
        for _ in range(3):
            await decided(world)
        assert not world.store.conflicts.count() and not world.store.journal.count()
        history = world.store.history
        kept = [Path(history.content_path(lost.id)) for lost in history.all()]
        found = b"".join([*versions(world), *(p.read_bytes() for p in kept if p.exists())])
        missing = [n for n in range(1, COUNT, 2) if block("ours", n) not in found]
        missing += [n for n in range(0, COUNT, 2) if block("theirs", n) not in found]
        assert missing == []

    over_both(play)

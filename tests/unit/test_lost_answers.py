"""An attribute was set, and the answer lost: what is done next is no conflict with oneself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_volume_review
from sftp_world import losing
from sftp_world import played as played_over_sftp
from test_volume_review import Play, World

from awayfs.core.errors import Unreachable
from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.store.nodes import Node
from sshd import Sshd, needs_sshd, serving

LONG_AGO_NS = 528_706_426_688_832_741


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


@pytest.fixture(params=["dir", pytest.param("sftp", marks=needs_sshd)])
def played(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Play], None]:
    """Run a story over either protocol: with ids and without."""
    if request.param == "dir":
        return lambda play: test_volume_review.played(tmp_path, play)
    server = request.getfixturevalue("server")
    return lambda play: played_over_sftp(server, tmp_path, play)


async def lost_time(world: World, at_ns: int, *, cached: bool) -> Node:
    """A file of the server's gets a time here, of which the answer is lost."""
    (world.share / "f").write_bytes(b"theirs")
    (world.share / "g").write_bytes(b"another")
    for name in ("f", "g"):
        os.utime(world.share / name, (1_600_000_000, 1_600_000_000))
    await world.find("g")
    node = await (world.cached("f") if cached else world.find("f"))
    remote: Any = world.volume.link.remote
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "set_attributes", losing(remote.set_attributes))
        world.volume.changes.set_attributes(node.id, Attributes(mtime_ns=at_ns))
        await world.drained()
    return node


async def settled(world: World) -> None:
    await world.online()
    await world.drained()
    await world.drained()


def contents(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in root.iterdir()}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("then", ["removed", "saved over", "renamed over another"])
def test_a_name_changes_hands_after_a_time_was_set(
    then: str, cached: bool, played: Callable[[Play], None]
) -> None:
    async def play(world: World) -> None:
        await lost_time(world, LONG_AGO_NS, cached=cached)
        if then == "removed":
            world.volume.changes.unlink(ROOT, b"f")
            left = {"g": b"another"}
        elif then == "saved over":
            world.volume.changes.rename(ROOT, b"g", ROOT, b"f", 0)
            left = {"f": b"another"}
        else:
            world.volume.changes.rename(ROOT, b"f", ROOT, b"g", 0)
            left = {"g": b"theirs"}
        await settled(world)
        assert not world.store.conflicts.count() and not world.store.journal.count()
        assert contents(world.share) == left

    played(play)


def test_what_is_cached_stays_after_a_time_was_set(played: Callable[[Play], None]) -> None:
    async def play(world: World) -> None:
        node = await lost_time(world, LONG_AGO_NS, cached=True)
        await settled(world)
        world.volume.link.offline_by_hand()
        handle = world.volume.files.open(world.shown(node), writing=False)
        assert await world.read(handle, 0, 100) == b"theirs"
        world.volume.files.close(handle)

    played(play)


@pytest.mark.parametrize("hidden", [False, True])
def test_an_edit_of_somebody_elses_right_after_is_shown(
    hidden: bool, played: Callable[[Play], None]
) -> None:
    """``hidden``: under the time that was set here, so that over SFTP no token tells of it."""

    async def play(world: World) -> None:
        now_ns = time.time_ns()
        node = await lost_time(world, now_ns, cached=True)
        (world.share / "f").write_bytes(b"edited")
        os.utime(world.share / "f", ns=(now_ns, now_ns if hidden else now_ns - 10**10))
        await settled(world)
        if world.volume.observer.is_suspect(node.id):
            await world.volume.observer.verify(node.id)
        handle = world.volume.files.open(world.shown(node), writing=False)
        assert await world.read(handle, 0, 100) == b"edited"
        world.volume.files.close(handle)

    played(play)


@pytest.mark.parametrize("hidden", [False, True])
def test_an_edit_of_somebody_elses_right_after_is_not_removed(
    hidden: bool, played: Callable[[Play], None]
) -> None:
    async def play(world: World) -> None:
        now_ns = time.time_ns()
        await lost_time(world, now_ns, cached=True)
        world.volume.changes.unlink(ROOT, b"f")
        (world.share / "f").unlink()
        (world.share / "f").write_bytes(b"edited")
        os.utime(world.share / "f", ns=(now_ns, now_ns if hidden else now_ns - 10**10))
        await settled(world)
        assert contents(world.share)["f"] == b"edited"
        assert world.store.conflicts.count() == 1

    played(play)


async def never_asked(*_: Any) -> Any:
    raise Unreachable("the link was cut before")


async def learn_the_clock(world: World, name: bytes) -> None:
    """Send another file: from now on the server's clock proves that old times are old."""
    node = world.volume.changes.create(ROOT, name, Kind.FILE, 0o644, os.getuid(), os.getgid())
    world.write(node, 0, b"another")
    world.volume.changes.set_attributes(node.id, Attributes(mtime_ns=LONG_AGO_NS))
    world.volume.replay.hurry_first([r.seq for r in world.store.journal.of_node(node.id)])
    while world.store.journal.of_node(node.id):
        await world.volume.replay._pass()


async def cut_before_replacing(world: World) -> None:
    """All is sent but the last request of an upload."""
    remote: Any = world.volume.link.remote
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "replace", never_asked)
        await world.drained()


def test_an_edit_that_keeps_size_and_time_is_sent_after_a_cut(
    played: Callable[[Play], None],
) -> None:
    """What stands on the server shows the same as what was staged, and is the old content."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"before")
        os.utime(world.share / "f", ns=(LONG_AGO_NS, LONG_AGO_NS))
        node = await world.cached("f")
        await learn_the_clock(world, b"g")
        world.write(world.shown(node), 0, b"edited")
        world.volume.changes.set_attributes(node.id, Attributes(mtime_ns=LONG_AGO_NS))
        await cut_before_replacing(world)
        await world.online()
        await learn_the_clock(world, b"h")
        await settled(world)
        assert contents(world.share) == {"f": b"edited", "g": b"another", "h": b"another"}
        assert not world.store.conflicts.count()

    played(play)


def test_a_strangers_file_of_the_same_size_and_time_is_not_taken_for_ours_after_a_cut(
    played: Callable[[Play], None],
) -> None:
    async def play(world: World) -> None:
        await learn_the_clock(world, b"g")
        node = world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, os.getuid(), os.getgid())
        world.write(node, 0, b"ours..")
        world.volume.changes.set_attributes(node.id, Attributes(mtime_ns=LONG_AGO_NS))
        (world.share / "f").write_bytes(b"theirs")
        os.utime(world.share / "f", ns=(LONG_AGO_NS, LONG_AGO_NS))
        await cut_before_replacing(world)
        await world.online()
        await learn_the_clock(world, b"h")
        await settled(world)
        assert contents(world.share) == {"f": b"theirs", "g": b"another", "h": b"another"}
        assert world.store.conflicts.count() == 1

    played(play)

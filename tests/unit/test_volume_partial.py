"""Files that were changed while only a part of them was here."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import ECONFLICTED, UsageError
from awayfs.core.types import ROOT, Kind
from awayfs.store.conflicts import Conflict
from awayfs.store.nodes import Node
from awayfs.volume import rest
from awayfs.volume.suspects import digest_of_file

SIZE = 300_000
OLD, NEW = b"o" * SIZE, b"n" * SIZE


async def until_whole(world: World, node: Node) -> None:
    """Wait for the background to have fetched the rest."""
    deadline = time.monotonic() + 10
    while not world.store.content.covers(node.id, 0, world.shown(node).size):
        assert time.monotonic() < deadline, "the rest was not fetched"
        await asyncio.sleep(0.01)


async def write(world: World, node: Node, offset: int, data: bytes) -> None:
    """As a program does, waiting for what a write waits for."""
    handle = world.volume.files.open(node, writing=True)
    try:
        wait = world.volume.files.before_write(handle, offset, len(data))
        if wait is not None:
            await wait
        world.volume.files.write(handle, offset, data)
    finally:
        world.volume.files.close(handle)


async def gap_lost(world: World, change: str = "replace") -> tuple[Node, Conflict]:
    """``mine`` was written over the first bytes of a file whose middle nobody has any more."""
    path = world.share / "f.txt"
    path.write_bytes(OLD)
    file = await world.find("f.txt")
    await world.volume.fetcher.ensure(file.id, 0, 4096)
    world.write(file, 0, b"mine")
    world.write(file, SIZE, b"end")
    os.unlink(path)
    if change == "replace":
        path.write_bytes(NEW)
    elif change == "directory":
        path.mkdir()
    await world.drained()
    (conflict,) = world.store.conflicts.of_node(file.id)
    return file, conflict


# -- the rest is fetched while it is there ----------------------------------------------------


def test_a_small_file_is_whole_before_its_first_write_is_made(tmp_path: Path) -> None:
    """The server may have another version right after it, and both can be kept whole."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(OLD)
        file = await world.find("f")
        await write(world, file, 0, b"mine")
        assert world.store.content.covers(file.id, 0, SIZE)
        (world.share / "f").write_bytes(NEW)
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(file.id)
        copy = await world.volume.resolve(conflict, Resolution.BOTH)
        await world.drained()
        assert copy and "(conflict " in copy
        assert (world.share / copy).read_bytes() == b"mine" + OLD[4:]
        assert (world.share / "f").read_bytes() == NEW

    played(tmp_path, play)


def test_the_rest_of_a_large_file_comes_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "SMALL", SIZE // 2)

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(OLD)
        file = await world.find("f")
        handle = world.volume.files.open(file, writing=True)
        assert world.volume.files.before_write(handle, 0, 4) is None
        world.volume.files.write(handle, 0, b"mine")
        assert not world.store.content.covers(file.id, 0, SIZE)
        await until_whole(world, file)
        assert await world.read(handle, 0, SIZE) == b"mine" + OLD[4:]
        assert world.store.content.token(file.id) == world.store.server.get(file.id).token  # type: ignore[union-attr]
        world.volume.files.close(handle)

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["cover", "truncate"])
def test_nothing_is_fetched_for_what_is_written_anew(how: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(OLD)
        file = await world.find("f")
        os.unlink(world.share / "f")  # whatever is fetched fails
        if how == "truncate":
            world.volume.files.truncate(file, 0)
            file = world.shown(file)
        handle = world.volume.files.open(file, writing=True)
        assert world.volume.files.before_write(handle, 0, SIZE) is None
        world.volume.files.write(handle, 0, NEW)
        assert await world.read(handle, 0, SIZE) == NEW
        world.volume.files.close(handle)

    played(tmp_path, play)


def test_a_write_does_not_wait_without_end_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "PATIENCE_S", 0.1)

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(OLD)
        file = await world.find("f")
        fetch = world.volume.link.remote.fetch
        arrived = asyncio.Event()

        async def slow(path: bytes, offset: int, length: int, fd: int) -> object:
            await arrived.wait()
            return await fetch(path, offset, length, fd)

        monkeypatch.setattr(world.volume.link.remote, "fetch", slow)
        await asyncio.wait_for(write(world, file, 0, b"mine"), 30)
        arrived.set()
        await until_whole(world, file)
        await world.drained()
        assert (world.share / "f").read_bytes() == b"mine" + OLD[4:]

    played(tmp_path, play)


def test_what_was_changed_offline_is_completed_before_a_hoard_walk_goes_on(
    tmp_path: Path,
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(OLD)
        (world.share / "g").write_bytes(OLD)
        file, other = await world.find("f"), await world.find("g")
        world.volume.link.offline_by_hand()
        world.write(file, 0, b"mine")
        asked: list[bytes] = []
        remote = world.volume.link.remote
        fetch = remote.fetch

        async def noting(path: bytes, *rest: int) -> object:
            asked.append(path)
            await asyncio.sleep(0.05)
            return await fetch(path, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote, "fetch", noting)
            await world.volume.link.online_by_hand()
            await asyncio.sleep(0)
            async for _ in world.volume.hoard.walk(other.id):
                pass
            assert asked[:2] == [b"f", b"g"]
        await until_whole(world, file)

    played(tmp_path, play)


# -- the rest is gone -------------------------------------------------------------------------


def test_what_is_known_of_a_conflict_is_read_and_the_gaps_say_why(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        file, conflict = await gap_lost(world)
        assert "a part of" in conflict.note
        handle = world.volume.files.open(world.shown(file), writing=False)
        assert await world.read(handle, 0, 4096) == b"mine" + OLD[4:4096]
        assert await world.read(handle, SIZE, 100) == b"end"
        with pytest.raises(OSError, match="--keep both") as caught:
            await world.read(handle, 100_000, 4096)
        assert caught.value.errno == ECONFLICTED
        world.volume.files.close(handle)

    played(tmp_path, play)


@pytest.mark.parametrize("change", ["replace", "remove", "directory"])
def test_keeping_both_saves_the_known_ranges_as_what_they_are(change: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        _, conflict = await gap_lost(world, change)
        copy = await world.volume.resolve(conflict, Resolution.BOTH)
        await world.drained()
        assert copy is not None
        assert copy.startswith("f (partial conflict ") and copy.endswith(").txt")
        saved = (world.share / copy).read_bytes()
        assert saved == (b"mine" + OLD[4:4096]).ljust(SIZE, b"\0") + b"end"
        note = (world.share / f"{copy}.known-ranges.txt").read_text()
        assert "  0 to 4096\n" in note and f"  {SIZE} to {SIZE + 3}\n" in note
        assert "NOT a whole file" in note
        names = sorted(os.listdir(world.share))
        if change == "replace":
            assert (world.share / "f.txt").read_bytes() == NEW
        assert len(names) == (2 if change == "remove" else 3)
        assert not world.store.conflicts.all() and not world.store.journal.count()

    played(tmp_path, play)


@pytest.mark.parametrize("then", ["still parked", "renamed on"])
def test_keeping_both_saves_what_was_written_after_a_rename(then: str, tmp_path: Path) -> None:
    """Renamed while nothing of it was here, removed there, and written to all the same."""

    async def play(world: World) -> None:
        (world.share / "f.txt").write_bytes(OLD)
        file = await world.find("f.txt")
        world.volume.changes.rename(ROOT, b"f.txt", ROOT, b"g.txt", 0)
        os.unlink(world.share / "f.txt")
        await world.drained()
        world.write(world.shown(file), SIZE, b"mine")
        if then == "renamed on":
            world.volume.changes.rename(ROOT, b"g.txt", ROOT, b"h.txt", 0)
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(file.id)
        copy = await world.volume.resolve(conflict, Resolution.BOTH)
        await world.drained()
        assert copy is not None
        assert (world.share / copy).read_bytes() == bytes(SIZE) + b"mine"
        assert sorted(os.listdir(world.share)) == [copy, f"{copy}.known-ranges.txt"]

    played(tmp_path, play)


@pytest.mark.parametrize("change", ["replace", "remove", "directory"])
def test_a_part_never_wins_the_name(change: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        _, conflict = await gap_lost(world, change)
        with pytest.raises(UsageError, match=r"--keep both .* --keep server") as caught:
            await world.volume.resolve(conflict, Resolution.LOCAL)
        assert "\n" not in str(caught.value)
        await world.volume.resolve(conflict, Resolution.SERVER)
        await world.drained()
        left = {path.name for path in world.share.iterdir()}
        assert left == (set() if change == "remove" else {"f.txt"})
        assert not world.store.conflicts.all() and not world.store.journal.count()

    played(tmp_path, play)


def test_nothing_is_decided_about_a_part_while_the_server_is_away(tmp_path: Path) -> None:
    """It may still have the rest."""

    async def play(world: World) -> None:
        _, conflict = await gap_lost(world)
        world.volume.link.offline_by_hand()
        with pytest.raises(UsageError, match="the server is away"):
            await world.volume.resolve(conflict, Resolution.BOTH)
        assert world.store.conflicts.all()

    played(tmp_path, play)


def test_a_file_renamed_here_of_which_nothing_is_here_goes_with_the_servers(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "f").write_bytes(OLD)
        file, directory = await world.find("f"), await world.find("d")
        world.volume.changes.rename(directory.id and 1, b"f", directory.id, b"g", 0)
        os.unlink(world.share / "f")
        await world.drained()
        (conflict,) = world.store.conflicts.of_node(file.id)
        assert conflict.kind == ConflictKind.UPDATE_REMOVE
        assert await world.volume.resolve(conflict, Resolution.BOTH) is None
        await world.drained()
        assert os.listdir(world.share / "d") == [] and not world.store.conflicts.all()

    played(tmp_path, play)


def test_holes_are_not_taken_for_the_zeros_of_the_server(tmp_path: Path) -> None:
    """The server's new version happens to look like the cache file with its gaps."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(OLD)
        file = await world.find("f")
        world.write(file, SIZE - 4, b"mine")
        (world.share / "f").write_bytes(b"\0" * (SIZE - 4) + b"mine")
        await world.drained()
        assert world.store.conflicts.of_node(file.id), "a file full of gaps was taken for whole"

    played(tmp_path, play)


def test_gaps_come_from_a_newer_revision_that_has_the_same_content(tmp_path: Path) -> None:
    """Somebody set its times while the file was changed here without the rest of it."""

    async def play(world: World) -> None:
        path = world.share / "f"
        path.write_bytes(OLD)
        file = await world.find("f")
        world.store.server.set_digest(file.id, digest_of_file(str(path)))
        world.write(file, SIZE, b"mine")
        os.utime(path, ns=(10**18, 10**18))
        await world.drained()
        assert path.read_bytes() == OLD + b"mine"
        assert not world.store.journal.count()
        assert not world.store.conflicts.count()

    played(tmp_path, play)


def test_a_decision_about_a_part_waits_for_no_room(tmp_path: Path) -> None:
    """What is unsent has all of it, and perhaps waits for this very decision."""

    async def play(world: World) -> None:
        _, conflict = await gap_lost(world)
        owner = os.getuid(), os.getgid()
        other = world.volume.changes.create(ROOT, b"new", Kind.FILE, 0o644, *owner)
        world.write(other, 0, OLD)
        waits: list[None] = []
        world.volume.context.want_sent = lambda: waits.append(None)
        with pytest.raises(UsageError, match="never here"):
            await world.volume.resolve(conflict, Resolution.LOCAL)
        assert not waits

    played(tmp_path, play, cache_limit=SIZE // 2)

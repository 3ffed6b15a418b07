"""Content that goes while somebody waits for it, or that has to stay where nothing else may go.

Nobody gets zeros for it, or an error that is none, and nobody looks for room without end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.test_volume_review import World, parked, played

from awayfs.core.conflicts import ConflictKind
from awayfs.core.effective import Layer, Place
from awayfs.core.errors import EDISCONFULL
from awayfs.core.records import RecordKind
from awayfs.volume.context import Context
from awayfs.volume.files import FileHandle

MIB = 1 << 20
SETTLED_S = 0.05
"""After so long, a look at a file on a local file system shows a strong token."""


def whole(seed: int, size: int) -> bytes:
    """Content no two blocks of which are the same."""
    return hashlib.shake_256(seed.to_bytes(8, "little")).digest(size)


async def _sequentially(world: World, handle: FileHandle, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        found += await world.read(handle, len(found), 64 << 10)
    return bytes(found)


def test_several_readers_of_a_file_larger_than_the_cache(tmp_path: Path) -> None:
    """What one of them gives up to go on is what another has just waited for."""
    content = whole(1, 3 * MIB)

    async def play(world: World) -> None:
        (world.share / "large").write_bytes(content)
        node = await world.find("large")
        handles = [world.volume.files.open(node, writing=False) for _ in range(3)]
        found = await asyncio.gather(*(_sequentially(world, h, len(content)) for h in handles))
        assert found == [content] * 3
        for handle in handles:
            world.volume.files.close(handle)

    played(tmp_path, play, cache_limit=MIB)


def test_a_copy_of_what_another_reader_makes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """copy_file_range copies no hole that a reader left for want of room."""
    content = whole(2, 3 * MIB)

    async def play(world: World) -> None:
        (world.share / "large").write_bytes(content)
        (world.share / "copy").write_bytes(b"")
        node, copy = await world.find("large"), await world.find("copy")
        files = world.volume.files
        monkeypatch.setattr(files, "_room_for", lambda *_: None)
        source, other = files.open(node, writing=False), files.open(node, writing=False)
        target = files.open(copy, writing=True)
        reading = asyncio.ensure_future(_sequentially(world, other, len(content)))
        step = 64 << 10
        for offset in range(0, 512 << 10, step):
            assert await files.copy(source, offset, target, offset, step) == step
            await asyncio.sleep(0)
        assert await reading == content
        assert os.pread(target.opened.fd, 512 << 10, 0) == content[: 512 << 10]
        for handle in (source, other, target):
            files.close(handle)

    played(tmp_path, play, cache_limit=MIB)


def test_a_copy_that_waits_while_the_server_changes_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went while room was made is fetched anew."""

    async def play(world: World) -> None:
        (world.share / "source").write_bytes(whole(3, MIB))
        (world.share / "target").write_bytes(b"")
        node, target_node = await world.cached("source"), await world.find("target")
        files = world.volume.files
        source, target = files.open(node, writing=False), files.open(target_node, writing=True)

        async def changed() -> None:
            monkeypatch.undo()
            (world.share / "source").write_bytes(whole(4, 2 * MIB))
            await world.volume.observer.name(1, b"source")

        def waiting(*_args: Any) -> Any:
            return changed()

        monkeypatch.setattr(files, "_room_for", waiting)
        copied = await files.copy(source, 0, target, 0, MIB)
        assert os.pread(target.opened.fd, MIB, 0) == whole(4, 2 * MIB)[:copied]
        assert copied == MIB
        files.close(source)
        files.close(target)

    played(tmp_path, play)


def test_who_is_interrupted_copies_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He was told EINTR: the target must not change behind his back."""

    async def play(world: World) -> None:
        (world.share / "source").write_bytes(whole(5, MIB))
        (world.share / "target").write_bytes(b"as it was")
        node, target_node = await world.find("source"), await world.cached("target")
        files, content = world.volume.files, world.store.content
        source, target = files.open(node, writing=False), files.open(target_node, writing=True)
        went = False

        async def gone() -> None:  # while room is made for the target
            nonlocal went
            content.drop_ranges(node.id)
            source.opened.whole = False
            went = True

        monkeypatch.setattr(files, "_room_for", lambda *_: gone())
        copying = asyncio.ensure_future(files.copy(source, 0, target, 0, MIB))
        while not went:
            await asyncio.sleep(0)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        while not content.covers(node.id, 0, MIB):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert os.pread(target.opened.fd, 99, 0) == b"as it was"
        assert not world.store.journal.has_store(target_node.id)
        files.close(source)
        files.close(target)

    played(tmp_path, play)


def test_below_bstop_what_is_never_to_be_culled_stays_after_a_read(tmp_path: Path) -> None:
    """A file that is read while the disk is nearly full is not kept, unless a setting says so."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(bytes(1000))
        node = await world.cached("f")
        culling, settings = world.volume.culling, world.store.node_settings
        settings.set(node.id, "cull", "off")
        culling.passing.add(node.id)
        culling.closed(node.id)
        assert world.store.content.covers(node.id, 0, 1000)
        settings.set(node.id, "cull", None)
        culling.passing.add(node.id)
        culling.closed(node.id)
        assert not world.store.content.has(node.id)

    played(tmp_path, play)


def test_a_file_that_outgrew_the_limit_keeps_no_other_from_being_hoarded(tmp_path: Path) -> None:
    """The server decides how large a file in a pinned directory is."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d" / "huge").write_bytes(bytes(2 * MIB))
        (world.share / "d" / "f").write_bytes(bytes(1000))
        (world.share / "other").write_bytes(bytes(1000))
        for name in ("d", "other"):
            world.store.pins.add((await world.find(name)).id, 100, True)
        hoard = world.volume.hoard
        steps = [walk async for walk in hoard.walk(*hoard.pinned_places(), pinned_only=True)]
        assert [path for path, _ in steps[-1].failed] == ["d/huge"]
        for name in ("d/f", "other"):
            assert world.store.content.covers((await world.find(name)).id, 0, 1000)

    played(tmp_path, play, cache_limit=MIB)


def test_a_small_file_that_is_in_doubt_after_a_walk_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came is of a later revision than was known: what is here is not that, and is left."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"first")
        node = await world.cached("f")
        world.store.content.set_token(node.id, b"another revision")
        remote: Any = world.volume.link.remote
        real = remote.fetch_many

        async def later(pieces: Any, fd: int) -> Any:
            (world.share / "f").write_bytes(b"later")
            return await real(pieces, fd)

        monkeypatch.setattr(remote, "fetch_many", later)
        base = world.store.server.get(node.id)
        assert base is not None
        assert await world.volume.fetcher.fetch_small({node.id: base}) == [node.id]
        async for _ in world.volume.hoard.walk(node.id):
            pass
        assert not world.volume.observer.is_suspect(node.id)
        with open(world.store.content.fd_path(node.id), "rb") as file:
            assert file.read() == b"later"

    played(tmp_path, play)


def test_where_all_has_to_stay_a_closed_file_goes_without_looking_at_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        for name in ("pinned", "read"):
            (world.share / name).write_bytes(bytes(1000))
        pinned, node = await world.cached("pinned"), await world.cached("read")
        world.store.pins.add(pinned.id, 100, True)
        culling, files = world.volume.culling, world.volume.files
        handle = files.open(node, writing=False)
        assert not culling.evict(1)
        looked = []
        real = world.store.content.last_used.in_order
        monkeypatch.setattr(
            world.store.content.last_used, "in_order", lambda *a: looked.append(a) or real(*a)
        )
        files.close(handle)
        world.volume.closed(node.id, handle.opened)
        assert culling.evict(1) and not looked
        assert not world.store.content.has(node.id)
        assert world.store.content.has(pinned.id)
        assert not culling.evict(1) and not looked
        world.volume.unpin_node(pinned.id)
        world.volume.context.effective.stays(pinned.id)
        assert culling.evict(1) and not world.store.content.has(pinned.id)

    played(tmp_path, play)


@pytest.mark.parametrize("by", ["pin", "pin beside a setting", "cull"])
def test_what_is_kept_by_one_of_its_names_is_kept(tmp_path: Path, by: str) -> None:
    """A file with a further name in a pinned directory, though its first name is elsewhere."""

    async def play(world: World) -> None:
        (world.share / "a").mkdir()
        (world.share / "z").mkdir()
        (world.share / "a" / "f").write_bytes(bytes(1000))
        os.link(world.share / "a" / "f", world.share / "z" / "f")
        node, other = await world.cached("a/f"), await world.find("z/f")
        assert node.id == other.id
        directory, effective = (await world.find("z")).id, world.volume.context.effective
        if by == "cull":
            world.store.node_settings.set(directory, "cull", "off")
        else:
            world.store.pins.add(directory, 100, True)
        if by == "pin beside a setting":
            effective.set_share({b"a": [Layer(Place.SHARE, "s", {"never-cache": True}, b"a")]})
        await world.volume.culling.empty()
        assert world.store.content.covers(node.id, 0, 1000)
        world.volume.culling.closed(node.id)
        assert world.store.content.covers(node.id, 0, 1000)

    played(tmp_path, play)


def test_what_the_share_pins_takes_no_more_than_there_is_to_spare(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        for name in ("a", "b", "c"):
            (world.share / name).write_bytes(bytes(300 << 10))
        mine = await world.find("c")
        share = {b"": [Layer(Place.SHARE, "s", {"pin": 1, "leave-out": ("c",)})]}
        world.volume.context.effective.set_share(share)
        world.store.pins.add(mine.id, 100, True)
        hoard = world.volume.hoard
        steps = [walk async for walk in hoard.walk(1, pinned_only=True)]
        assert [path for path, _ in steps[-1].failed] == ["b"]
        assert [hoard.is_left_out((await world.find(n)).id) for n in "abc"] == [False] * 3
        here = [world.store.content.has((await world.find(name)).id) for name in "abc"]
        assert here == [True, False, True]

    played(tmp_path, play, cache_limit=MIB)


def test_the_share_leaves_nothing_out_that_a_person_pinned(tmp_path: Path) -> None:
    """Else the check would say that nothing is missing."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d" / "f").write_bytes(bytes(1000))
        directory = await world.find("d")
        world.store.pins.add(directory.id, 100, True)
        share = {b"": [Layer(Place.SHARE, "s", {"leave-out": ("*",)})]}
        world.volume.context.effective.set_share(share)
        await world.volume.observer.directory(directory.id)
        missing = (await world.volume.hoard.check(directory.id)).missing
        assert "d/f" in dict(missing)
        async for _ in world.volume.hoard.walk(directory.id):
            pass
        assert world.store.content.covers((await world.find("d/f")).id, 0, 1000)

    played(tmp_path, play)


@pytest.mark.parametrize("size", [1000, 200_000])
def test_what_was_read_while_the_token_was_weak_is_read_again_once_it_is_strong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The file may have changed in between without another token, and nobody would see it then."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(bytes(size))
        node, server = await world.find("f"), world.store.server
        base = server.get(node.id)
        assert base is not None

        def seen(weak: bool) -> None:
            entry = replace(base.entry(), weak=weak)
            server.set(node.id, entry, seen_ns=world.volume.context.now())

        remote: Any = world.volume.link.remote
        asked = 0

        def around(real: Any) -> Any:
            async def fetch(*given: Any) -> Any:
                nonlocal asked
                asked += 1
                found = await real(*given)
                if asked == 1:  # on its way, it is changed and seen again
                    with open(world.share / "f", "r+b") as file:
                        file.write(b"later")
                    found = dataclasses.replace(found, entry=base.entry()) if size > 1000 else found
                    if size == 1000:
                        found = [dataclasses.replace(one, token=base.token) for one in found]
                    seen(weak=False)
                return found

            return fetch

        time.sleep(SETTLED_S)
        monkeypatch.setattr(Context, "is_fresh", lambda *_: True)
        seen(weak=True)
        monkeypatch.setattr(remote, "fetch", around(remote.fetch))
        monkeypatch.setattr(remote, "fetch_many", around(remote.fetch_many))
        async for _ in world.volume.hoard.walk(node.id):
            pass
        with open(world.store.content.fd_path(node.id), "rb") as file:
            assert file.read(5) == b"later"

    played(tmp_path, play)


def test_a_walk_ends_where_there_is_no_room_for_a_file(tmp_path: Path) -> None:
    """It gives up nothing of the file that it fetches: it would begin anew without end."""

    async def play(world: World) -> None:
        (world.share / "kept").write_bytes(bytes(MIB))
        (world.share / "wanted").write_bytes(bytes(5 * MIB // 2))
        kept, wanted = await world.cached("kept"), await world.find("wanted")
        world.store.pins.add(kept.id, 100, True)
        for reader in (False, True):
            handle = world.volume.files.open(wanted, writing=False) if reader else None
            async with asyncio.timeout(60):
                steps = [walk async for walk in world.volume.hoard.walk(wanted.id)]
            assert [path for path, _ in steps[-1].failed] == ["wanted"]
            if handle is not None:
                world.volume.files.close(handle)

    played(tmp_path, play, cache_limit=3 * MIB)


def test_a_walk_fetches_nothing_that_is_not_to_be_kept(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "large").write_bytes(bytes(40 * MIB))
        node = await world.find("large")
        world.store.node_settings.set(node.id, "never-cache", "on")
        async with asyncio.timeout(60):
            async for _ in world.volume.hoard.walk(1):
                pass
        assert not world.store.content.ranges(node.id)
        assert "large" in dict((await world.volume.hoard.check(1)).missing)

    played(tmp_path, play)


def test_where_only_the_file_itself_may_go_nothing_goes(tmp_path: Path) -> None:
    """It was looked for without end, on the event loop."""

    async def play(world: World) -> None:
        for name in ("pinned", "own"):
            (world.share / name).write_bytes(bytes(1000))
        pinned, own = await world.cached("pinned"), await world.cached("own")
        world.store.pins.add(pinned.id, 100, True)
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(20)
        try:
            assert not world.volume.culling.evict(1, keep=own.id)
        finally:
            signal.alarm(0)
        assert world.volume.culling.evict(1) and not world.store.content.has(own.id)

    played(tmp_path, play)


def test_nobody_waits_for_room_until_a_conflict_is_decided(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        for name in ("pinned", "conflicted", "wanted"):
            (world.share / name).write_bytes(bytes(600 << 10))
        pinned, wanted = await world.cached("pinned"), await world.find("wanted")
        world.store.pins.add(pinned.id, 100, True)
        parked(world, await world.find("conflicted"), RecordKind.STORE, ConflictKind.UPDATE_UPDATE)
        handle = world.volume.files.open(wanted, writing=False)
        async with asyncio.timeout(60):
            with pytest.raises(OSError) as caught:
                await world.read(handle, 0, 1000)
                await world.volume.fetcher.whole(wanted.id)
        assert caught.value.errno == EDISCONFULL
        world.volume.files.close(handle)

    played(tmp_path, play, cache_limit=700 << 10)


def _too_long(*_: Any) -> None:
    raise AssertionError("it takes too long")

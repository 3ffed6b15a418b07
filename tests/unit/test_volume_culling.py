"""Any sequence of reads, writes, pins and culls under a limit: what must stay is there, whole."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import EDISCONDATA, EDISCONFULL
from awayfs.core.types import ROOT, Kind, Range, Space
from awayfs.volume import room as room_module
from awayfs.volume.room import Room

FILES = [f"{directory}/{number}" for directory in "abc" for number in range(4)]
KIB = 1 << 10
FULL = (EDISCONFULL, errno.ENOSPC)


def content(seed: int, size: int) -> bytes:
    block = hashlib.blake2b(seed.to_bytes(8, "little")).digest()
    return (block * (size // len(block) + 1))[:size]


class Player:
    """Plays operations on a world, and remembers what every file must hold."""

    def __init__(self, world: World, limit: int) -> None:
        self.world = world
        self.limit = limit
        self.holds: dict[str, bytes] = {}
        self.pinned: set[str] = set()
        self.complete: set[str] = set()
        self.own: dict[str, list[tuple[int, int]]] = {}
        self.unculled: set[str] = set()  # directories
        self.completed: set[str] = set()  # to be sent; kept then, it stays whatever the limit
        self.seed = 1000
        for number, path in enumerate(FILES):
            place = world.share / path
            place.parent.mkdir(exist_ok=True)
            self.holds[path] = content(number, (number * 3571) % (20 * KIB) + 1)
            place.write_bytes(self.holds[path])

    async def act(self, op: tuple[Any, ...]) -> None:
        await getattr(self, op[0])(*op[1:])
        self.check()

    async def read(self, number: int) -> None:
        path = FILES[number % len(FILES)]
        try:
            node = await self.world.find(path)
            handle = self.world.volume.files.open(node, writing=False)
            try:
                assert await self.world.read(handle, 0, 1 << 20) == self.holds[path]
            finally:
                if self.world.volume.files.close(handle):
                    self.world.volume.closed(node.id, handle.opened)
        except OSError as error:
            assert error.errno in (*FULL, EDISCONDATA), error

    async def write(self, number: int, offset: int, size: int) -> None:
        path = FILES[number % len(FILES)]
        self.seed += 1
        data = content(self.seed, size)
        node = await self.world.find(path)
        files = self.world.volume.files
        handle = files.open(node, writing=True)
        try:
            wait = files.before_write(handle, offset, size)
            if wait is not None:
                await wait
            files.write(handle, offset, data)
            old = self.holds[path].ljust(offset, b"\0")
            self.holds[path] = old[:offset] + data + old[offset + size :]
            self.own.setdefault(path, []).append((offset, offset + size))
        except OSError as error:
            assert error.errno in FULL, error
        finally:
            if files.close(handle):
                self.world.volume.closed(node.id, handle.opened)

    async def grow(self, number: int, size: int) -> None:
        path = FILES[number % len(FILES)]
        node = await self.world.find(path)
        try:
            wait = self.world.volume.files.before_growth(self.world.shown(node), size)
            if wait is not None:
                await wait
            self.world.volume.files.truncate(self.world.shown(node), size)
            own = [(start, min(end, size)) for start, end in self.own.get(path, [])]
            if size > len(self.holds[path]):
                own.append((len(self.holds[path]), size))
            self.own[path] = [(start, end) for start, end in own if start < end]
            self.holds[path] = self.holds[path][:size].ljust(size, b"\0")
        except OSError as error:
            assert error.errno in FULL, error

    async def pin(self, number: int) -> None:
        path = FILES[number % len(FILES)]
        node = await self.world.find(path)
        self.world.store.pins.add(node.id, 100, True)
        self.pinned.add(path)
        await self.walk(path)

    async def walk(self, path: str) -> None:
        node = await self.world.find(path)
        try:
            async for _ in self.world.volume.hoard.walk(node.id):
                pass
        except Exception:
            return
        if self.is_whole(path):
            self.complete.add(path)

    async def unpin(self, number: int) -> None:
        path = FILES[number % len(FILES)]
        self.world.volume.unpin_node((await self.world.find(path)).id)
        self.pinned.discard(path)
        self.complete.discard(path)

    async def keep(self, number: int, name: str, value: str | None) -> None:
        node = await self.world.find("abc"[number % 3])
        try:
            self.world.volume.set_for_node(node.id, name, value)
        except OSError as error:
            assert error.errno == errno.EINVAL
            return
        if name == "cull":
            (self.unculled.add if value == "off" else self.unculled.discard)("abc"[number % 3])
            await self.cull()

    async def cull(self) -> None:
        await self.world.volume.culling._turn()

    async def empty(self) -> None:
        await self.world.volume.culling.empty()

    async def link(self, up: bool) -> None:
        if up:
            await self.world.volume.link.online_by_hand()
        else:
            self.world.volume.link.offline_by_hand()

    async def send(self) -> None:
        if self.world.volume.link.usable:
            self.completed |= {path for path in self.kept() if not self.is_whole(path)}
            await self.world.drained()
            await self.cull()  # as the background does at once

    # -- what must hold -------------------------------------------------------------------

    def kept(self) -> set[str]:
        """What is not culled."""
        return self.pinned | {path for path in FILES if path[0] in self.unculled}

    def is_whole(self, path: str) -> bool:
        node = self.world.store.nodes.resolve(os.fsencode(path))
        assert node is not None
        node = self.world.shown(node)
        return self.world.store.content.covers(node.id, 0, node.size)

    def digest_here(self, path: str) -> bytes:
        node = self.world.store.nodes.resolve(os.fsencode(path))
        assert node is not None
        with open(self.world.store.content.fd_path(node.id), "rb") as file:
            return hashlib.sha256(file.read(self.world.shown(node).size)).digest()

    def check(self) -> None:
        store = self.world.store
        passed = sum(len(self.holds[path]) for path in self.completed & self.kept())
        assert store.content.usage() <= self.limit + passed
        for path in FILES:
            node = store.nodes.resolve(os.fsencode(path))
            if node is None:
                continue
            if path in self.complete & self.pinned:
                assert self.is_whole(path), path
            if self.is_whole(path) and self.holds[path]:
                assert self.digest_here(path) == hashlib.sha256(self.holds[path]).digest(), path
            if not store.journal.has_store(node.id):
                self.own.pop(path, None)
            for start, end in self.own.get(path, []):
                assert store.content.covers(node.id, start, end), path
                with open(store.content.fd_path(node.id), "rb") as file:
                    assert file.read()[start:end] == self.holds[path][start:end], path


SIZES = st.integers(1, 30 * KIB)
NUMBERS = st.integers(0, len(FILES) - 1)
OPS = st.one_of(
    st.tuples(st.just("read"), NUMBERS),
    st.tuples(st.just("read"), NUMBERS),
    st.tuples(st.just("write"), NUMBERS, st.integers(0, 20 * KIB), SIZES),
    st.tuples(st.just("grow"), NUMBERS, SIZES),
    st.tuples(st.just("pin"), NUMBERS),
    st.tuples(st.just("unpin"), NUMBERS),
    st.tuples(
        st.just("keep"),
        NUMBERS,
        st.sampled_from(["cull", "never-cache"]),
        st.sampled_from(["on", "off", None]),
    ),
    st.tuples(st.just("cull")),
    st.tuples(st.just("empty")),
    st.tuples(st.just("link"), st.booleans()),
    st.tuples(st.just("send")),
)


BIG_PINS: list[tuple[Any, ...]] = [
    ("write", 8, 82, 4913),
    ("send",),
    ("pin", 5),
    ("pin", 4),
    ("unpin", 9),
    ("unpin", 9),
    ("read", 7),
    ("write", 3, 974, 2803),
]
"""Pins take the whole limit, and a change can only be sent with what is not here of its file."""

UNCULLED: list[tuple[Any, ...]] = [
    ("pin", 10),
    ("pin", 3),
    ("read", 4),
    ("keep", 10, "cull", "off"),
    ("grow", 6, 783),
]
"""What is to be sent, and is not culled, is completed for that."""


@pytest.mark.slow
@example(40 * KIB, BIG_PINS)
@example(40 * KIB, UNCULLED)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(limit=st.sampled_from([40 * KIB, 90 * KIB, 400 * KIB]), ops=st.lists(OPS, max_size=25))
def test_what_must_stay_is_there(limit: int, ops: list[tuple[Any, ...]]) -> None:
    async def story(world: World) -> None:
        player = Player(world, limit)
        await world.volume.observer.directory(ROOT)
        for directory in "abc":
            await world.volume.observer.directory((await world.find(directory)).id)
        for op in ops:
            await player.act(op)
        await player.link(True)
        await player.send()
        player.check()
        for path in player.pinned:  # as if a disk had eaten them
            world.store.content.drop((await world.find(path)).id)
            player.complete.discard(path)
        for path in sorted(player.pinned):
            await player.walk(path)
            player.check()
        needed = sum(len(player.holds[path]) for path in player.pinned)
        kept = [p for p in FILES if p in player.pinned or player.is_whole(p)]
        if needed + sum(len(player.holds[p]) for p in kept) <= limit:
            assert player.complete >= player.pinned
        for path in FILES:
            assert (world.share / path).read_bytes() == player.holds[path], path

    with tempfile.TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        patch.setattr(room_module, "DRAIN_S", 0.0)
        played(Path(base), story, settings={"cache-size": limit})


def small_disk(free: int) -> Space:
    return Space(KIB, 10_000, free, free, 0, 0)


def with_disk(
    free: int, story: Any, tmp_path: Path, patch: pytest.MonkeyPatch, **more: Any
) -> None:
    """Play on a disk of 10,000 KiB with so many free, less what is cached."""

    async def played_there(world: World) -> None:
        patch.setattr(
            room_module,
            "space_of",
            lambda _: small_disk(free - world.store.content.usage() // KIB),
        )
        patch.setattr(room_module, "DISK_KNOWN_S", -1.0)
        patch.setattr(room_module, "DRAIN_S", 0.0)
        (world.share / "f").write_bytes(b"1" * 300 * KIB)
        await story(world, world.volume.room)

    played(tmp_path, played_there, settings=more)


def test_below_bstop_open_files_are_read_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World, _room: Room) -> None:
        node = await world.find("f")
        handle = world.volume.files.open(node, writing=False)
        assert await world.read(handle, 0, 1 << 20) == b"1" * 300 * KIB
        assert world.volume.files.close(handle)
        world.volume.closed(node.id, handle.opened)
        assert world.store.content.ranges(node.id) == []
        with pytest.raises(OSError) as full:  # nobody waits for it
            await world.volume.fetcher.whole(node.id)
        assert full.value.errno == EDISCONFULL

    with_disk(700, story, tmp_path, monkeypatch, bstop=6.0, bcull=7.0, brun=8.0)


def test_a_full_disk_takes_no_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that may go makes room first; then the writer is told, and nothing has changed."""

    async def story(world: World, room: Room) -> None:
        cached = await world.cached("f")
        node = await world.find("f")
        world.volume.link.offline_by_hand()
        made = world.volume.changes.create(ROOT, b"n", node.kind, 0o600, 0, 0)
        handle = world.volume.files.open(made, writing=True)
        assert world.volume.files.before_write(handle, 0, 200 * KIB) is None
        assert world.store.content.ranges(cached.id) == []  # it made room
        world.volume.files.write(handle, 0, b"2" * 200 * KIB)
        world.volume.context.opened.save_all()
        wait = world.volume.files.before_write(handle, 200 * KIB, 400 * KIB)
        assert wait is not None
        with pytest.raises(OSError) as full:
            await wait
        assert full.value.errno == EDISCONFULL
        assert world.volume.files.before_write(handle, 0, 200 * KIB) is None  # in place
        assert handle.opened.size == 200 * KIB
        told = room.space(None)
        assert told.blocks_available * KIB <= 400 * KIB
        world.volume.files.close(handle)

    with_disk(800, story, tmp_path, monkeypatch, bstop=0.0, bcull=0.5, brun=0.7)


def test_a_file_that_passes_takes_no_more_than_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        monkeypatch.setattr(room_module, "PASSING", 300 * KIB)
        (world.share / "large").write_bytes(content(1, 3000 * KIB))
        node = await world.find("large")
        handle = world.volume.files.open(node, writing=False)
        most, found = 0, b""
        while data := await world.read(handle, len(found), 64 * KIB):
            found += data
            most = max(most, world.store.content.usage())
        assert found == content(1, 3000 * KIB)
        assert most <= 3000 * KIB
        assert world.volume.files.close(handle)
        world.volume.closed(node.id, handle.opened)
        assert world.store.content.usage() == 0

    played(tmp_path, story, settings={"never-cache": True})


def test_what_is_written_and_never_cached_goes_when_it_is_sent(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.volume.link.offline_by_hand()
        made = world.volume.changes.create(ROOT, b"n", Kind.FILE, 0o600, 0, 0)
        handle = world.volume.files.open(made, writing=True)
        world.volume.files.write(handle, 0, b"x" * 1000)
        world.volume.files.close(handle)
        world.volume.closed(made.id, handle.opened)
        await world.volume.culling._turn()
        assert world.store.content.ranges(made.id) == [Range(0, 1000)]
        await world.volume.link.online_by_hand()
        await world.drained()
        await world.volume.culling._turn()
        assert world.store.content.ranges(made.id) == []
        assert (world.share / "n").read_bytes() == b"x" * 1000

    played(tmp_path, story, settings={"never-cache": True})


def test_culling_begins_before_the_limit_and_the_dear_ones_stay(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(20):
            (world.share / f"small{number}").write_bytes(b"s" * 100)
            await world.cached(f"small{number}")
        for number in range(10):
            (world.share / f"large{number}").write_bytes(b"l" * 95 * KIB)
            await world.cached(f"large{number}")
        culling = world.volume.culling
        assert world.store.content.usage() > 0.9 * 1000 * KIB
        await culling._turn()
        (world.share / "one").write_bytes(b"l" * 40 * KIB)
        await world.cached("one")
        assert await culling._turn()
        assert world.store.content.usage() <= 0.9 * 1000 * KIB
        for number in range(20):  # older, but dear
            assert world.store.content.ranges((await world.find(f"small{number}")).id)
        assert not world.store.content.ranges((await world.find("large0")).id)

    played(tmp_path, story, settings={"cache-size": 1000 * KIB})


def test_what_cannot_come_makes_nothing_go(tmp_path: Path) -> None:
    """Away from the server, to read what is not here must not cost what is."""

    async def story(world: World) -> None:
        for name in "xy":
            (world.share / name).write_bytes(b"1" * 60 * KIB)
        x, y = await world.cached("x"), await world.find("y")
        world.volume.link.offline_by_hand()
        with pytest.raises(OSError) as missing:
            await world.volume.fetcher.whole(y.id)
        assert missing.value.errno == EDISCONDATA
        world.volume.culling._culling = True
        assert await world.volume.culling._turn()
        assert world.store.content.covers(x.id, 0, 60 * KIB)

    played(tmp_path, story, settings={"cache-size": 62 * KIB})


def test_with_cull_off_nothing_goes(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for name in "xy":
            (world.share / name).write_bytes(b"1" * 60 * KIB)
        node = await world.cached("x")
        with pytest.raises(OSError) as full:
            await world.cached("y")
        assert full.value.errno == EDISCONFULL
        assert await world.volume.culling.empty() == (0, 0)
        assert world.store.content.covers(node.id, 0, 60 * KIB)

    played(tmp_path, story, settings={"cache-size": 100 * KIB, "cull": False})


def test_what_was_used_since_it_was_ranked_stays(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        nodes = []
        for name in "xyz":
            (world.share / name).write_bytes(b"1" * KIB)
            nodes.append((await world.cached(name)).id)
            await asyncio.sleep(0.002)
        culling = world.volume.culling
        assert culling._next(10 * KIB, 0, keep=0) == [(node, KIB) for node in nodes]  # each once
        await culling.rank(complete=True)
        world.store.content.last_used.mark(nodes[0], world.volume.context.now())
        assert culling.evict(KIB)
        held = [bool(world.store.content.ranges(node)) for node in nodes]
        assert held == [True, False, True]

    played(tmp_path, story)

"""Large backlogs and large directories on one event loop: everybody gets a turn all the time.

``Turns`` measures how much the loop computes before a waiting task gets its turn; that others keep
the machine busy does not count. Going through everything at once takes several times the bound.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from order_reference import ready
from test_volume_review import World, played

from awayfs.core.conflicts import ConflictKind
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.sending import Choice
from awayfs.core.types import ROOT, Attributes
from awayfs.store.store import Store
from awayfs.volume import slices
from awayfs.volume.replay_optimise import Optimiser
from awayfs.volume.replay_queue import Queue

MANY = 20_000
LONGEST_S = 0.3
ALL = Choice()


class Turns:
    """How long a task had to wait for its turn, at worst, in seconds of computing."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def _count(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.worst_s = max(self.worst_s, time.thread_time() - before)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While this lasts; the garbage of what is made meanwhile counts, not that of all tests."""
        gc.collect()
        gc.freeze()
        task = asyncio.ensure_future(self._count())
        try:
            yield
        finally:
            task.cancel()
            gc.unfreeze()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(str(tmp_path / "state"), create=True)
    yield opened
    opened.close()


def is_file(_node: int) -> bool:
    return False


def append_many(store: Store, count: int, *, first_node: int = 1000) -> None:
    with store.transaction():
        for number in range(count):
            node, name = first_node + number // 2, b"n%d" % number
            if number % 2:
                store.journal.append(RecordKind.STORE, node)
            else:
                store.journal.append(RecordKind.CREATE, node, parent=ROOT, name=name)


def test_the_queue_follows_whoever_changes_the_journal(store: Store) -> None:
    draw = random.Random(1)
    journal, queue, flying = store.journal, Queue(store.journal, is_file), set[int]()

    async def play() -> None:
        for turn in range(600):
            if not flying and turn % 3 == 0:
                until = journal.last_seq()
                queue.begin_pass(until)
            known = [r.seq for r in journal.all()]
            match draw.randrange(6):
                case 0 | 1:
                    node = draw.randrange(10, 16)
                    journal.append(RecordKind.SETATTR, node, attributes=Attributes(mode=0o600))
                case 2 if flying:
                    seq = draw.choice(sorted(flying))
                    flying.discard(seq)
                    journal.remove([seq])
                    assert queue.back(seq, waits=False)
                case 3 if flying:
                    seq = draw.choice(sorted(flying))
                    flying.discard(seq)
                    assert not queue.back(seq, waits=False)
                case 4 if known:
                    seq = draw.choice(known)
                    if seq not in flying:
                        journal.set_state(seq, draw.choice([*RecordState]))
                case 5 if known:
                    seq = draw.choice(known)
                    if seq not in flying:
                        journal.remove([seq])
            seen = [r for r in journal.all() if r.seq <= until]
            expected = [r.seq for r in ready(seen, flying, limit=2, is_directory=is_file)]
            assert await queue.start(2, ALL) == expected
            flying.update(expected)

    asyncio.run(play())


def test_a_record_that_comes_back_as_it_went_has_not_moved(store: Store) -> None:
    journal, queue = store.journal, Queue(store.journal, is_file)
    first = journal.append(RecordKind.STORE, 10)
    second = journal.append(RecordKind.STORE, 11)

    async def play() -> None:
        queue.begin_pass(journal.last_seq())
        assert await queue.start(8, ALL) == [first.seq, second.seq]
        journal.set_state(first.seq, RecordState.FROZEN)
        assert queue.back(first.seq, waits=True)
        assert not queue.back(second.seq, waits=True)
        assert await queue.start(8, ALL) == []
        queue.begin_pass(journal.last_seq())
        assert await queue.start(8, ALL) == [first.seq, second.seq]
        journal.set_state(first.seq, RecordState.FROZEN)
        assert not queue.back(first.seq, waits=True)

    asyncio.run(play())


def test_a_long_journal_behind_a_conflict_lets_others_have_their_turn(store: Store) -> None:
    held = store.journal.append(RecordKind.CREATE, 5, parent=ROOT, name=b"d")
    store.journal.set_state(held.seq, RecordState.PARKED, "in conflict")
    with store.transaction():
        for number in range(MANY):
            store.journal.append(RecordKind.CREATE, 10 + number, parent=5, name=b"%d" % number)
    last = store.journal.append(RecordKind.STORE, 6)
    queue, turns = Queue(store.journal, is_file), Turns()

    async def play() -> None:
        with turns.counted():
            queue.begin_pass(last.seq)
            assert await queue.start(8, ALL) == [last.seq]

    asyncio.run(play())
    assert turns.worst_s < LONGEST_S


def test_a_long_journal_is_optimised_in_turns_while_it_grows(store: Store) -> None:
    """Half of it goes; what comes meanwhile is looked at the next time, and alone."""
    append_many(store, MANY // 2)
    with store.transaction():
        for number in range(0, MANY // 2, 2):
            name = b"n%d" % number
            store.journal.append(RecordKind.REMOVE, 1000 + number // 2, parent=ROOT, name=name)
    append_many(store, MANY // 4, first_node=50_000)
    optimiser = Optimiser(store, lambda _node: None, is_file)
    turns, grown = Turns(), 0

    async def play() -> None:
        nonlocal grown
        with turns.counted():
            task = asyncio.ensure_future(optimiser.run())
            while not task.done():
                store.journal.append(RecordKind.STORE, 99)
                grown += 1
                await asyncio.sleep(0.02)
            await task
        assert store.journal.count() == MANY // 4 + grown
        await optimiser.run()
        assert store.journal.count() == MANY // 4 + 1

    asyncio.run(play())
    assert grown > 2
    assert turns.worst_s < LONGEST_S


def test_optimising_ends_when_somebody_changes_what_was_read(store: Store) -> None:
    """What it did until then stands, and it begins anew the next time."""
    append_many(store, 4000)
    for number in range(0, 4000, 2):
        name = b"n%d" % number
        store.journal.append(RecordKind.REMOVE, 1000 + number // 2, parent=ROOT, name=name)
    optimiser = Optimiser(store, lambda _node: None, is_file)
    last = store.journal.last_seq()

    async def play() -> None:
        task = asyncio.ensure_future(optimiser.run())
        while store.journal.count() == 6000:
            await asyncio.sleep(0)
        store.journal.set_state(last, RecordState.PARKED)
        await task
        assert 3 < store.journal.count() < 6000
        await optimiser.run()
        kinds = [record.kind for record in store.journal.all()]
        assert kinds == [RecordKind.CREATE, RecordKind.STORE, RecordKind.REMOVE]

    asyncio.run(play())


def test_one_new_record_is_optimised_without_reading_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_many(store, 2000)
    optimiser = Optimiser(store, lambda _node: None, is_file)
    asyncio.run(optimiser.run())
    read: list[Record] = []
    get = store.journal.get
    monkeypatch.setattr(store.journal, "get", lambda seq: read.append(get(seq)) or read[-1])
    store.journal.append(RecordKind.STORE, 1000)
    asyncio.run(optimiser.run())
    assert store.journal.count() == 2000
    assert len(read) < 20


# --- What the server shows ---------------------------------------------------------------------


def fill(directory: Path, count: int) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        (directory / f"f{number:05}").write_bytes(b"%d" % number)


def size_of(world: World, node: int) -> int:
    found = world.store.nodes.get(node)
    assert found is not None
    return found.size


def test_a_large_directory_is_taken_over_changed_and_removed_in_turns(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        many, turns = world.share / "many", Turns()
        fill(many, MANY // 4)
        node = await world.find("many")
        with turns.counted():
            await world.volume.observer.directory(node.id)
            assert len(world.store.nodes.children(node.id)) == MANY // 4
            for path in many.iterdir():
                path.chmod(0o600)
            await world.volume.observer.directory(node.id)
            assert {child.mode for _, child in world.store.nodes.children(node.id)} == {0o600}
            many.rename(tmp_path / "elsewhere")
            world.volume.context.accept_deletions_until_ns = time.time_ns() + 60 * 10**9
            await world.volume.observer.directory(ROOT)
        assert world.store.nodes.count() == 1
        assert turns.worst_s < LONGEST_S

    played(tmp_path, play)


def test_what_is_seen_in_a_pause_is_newer_than_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_S", 0)

    async def play(world: World) -> None:
        many = world.share / "many"
        fill(many, 50)
        node = await world.find("many")
        observer, server = world.volume.observer, world.store.server
        await observer.directory(node.id)
        first, last = (server.child(node.id, name) for name in (b"f00000", b"f00049"))
        assert first and last
        for number in range(50):
            (many / f"f{number:05}").write_bytes(b"second version")
        listing = asyncio.ensure_future(observer.directory(node.id))
        while size_of(world, first) != 14:
            await asyncio.sleep(0)
        assert not listing.done()
        (many / "f00049").write_bytes(b"the third version")
        await observer.name(node.id, b"f00049")
        await listing
        assert size_of(world, last) == 17

    played(tmp_path, play)


def test_what_replay_commits_in_a_pause_is_newer_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that the listing shows under a name it had not, and a name that came and went."""
    monkeypatch.setattr(slices, "SLICE_S", 0)

    async def play(world: World) -> None:
        many = world.share / "many"
        fill(many, 50)
        fill(world.share / "other", 1)
        node, file = await world.find("many"), await world.find("other/f00000")
        observer, server, store = world.volume.observer, world.store.server, world.store
        await observer.directory(node.id)
        os.link(world.share / "other" / "f00000", many / "z")
        (many / "f00000").chmod(0o600)
        (many / "zz").write_bytes(b"for a moment")
        listing = asyncio.ensure_future(observer.directory(node.id))
        while store.nodes.child(node.id, b"f00000").mode != 0o600:  # type: ignore[union-attr]
            await asyncio.sleep(0)
        assert not listing.done()
        before = server.get(file.id)
        assert before is not None
        newer = replace(before.entry(), token=b"newer", size=99)
        server.set(file.id, newer, seen_ns=time.time_ns())
        server.add_name(node.id, b"zz", file.id)
        server.remove_name(node.id, b"zz")
        await listing
        after = server.get(file.id)
        assert after is not None and (after.token, after.size) == (b"newer", 99)
        assert store.nodes.child_id(node.id, b"z") == file.id
        assert store.nodes.child_id(node.id, b"zz") is None

    played(tmp_path, play)


def test_what_is_written_in_a_pause_keeps_its_place_in_a_tree_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_S", 0)

    async def play(world: World) -> None:
        fill(world.share / "d", 0)
        fill(world.share / "d" / "many", 50)
        node = await world.find("d/many")
        await world.volume.observer.directory(node.id)
        await world.cached("d/many/f00049")
        (world.share / "d").rename(tmp_path / "gone")
        world.volume.context.accept_deletions_until_ns = time.time_ns() + 60 * 10**9
        listing = asyncio.ensure_future(world.volume.observer.directory(ROOT))
        while len(world.store.nodes.children(node.id)) > 40:
            await asyncio.sleep(0)
        written = world.store.nodes.child(node.id, b"f00049")
        assert written is not None and not listing.done()
        world.write(written, 0, b"mine")
        await listing
        assert world.store.nodes.path(written.id) == b"d/many/f00049"
        assert [name for name, _ in world.store.nodes.children(node.id)] == [b"f00049"]

    played(tmp_path, play)


def test_a_conflict_without_a_record_is_kept_when_its_directory_goes(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        fill(world.share / "d", 2)
        fill(world.share / "e", 2)
        for name in ("d", "e"):
            await world.volume.observer.directory((await world.find(name)).id)
        kept, parent = await world.find("d/f00001"), await world.find("d")
        world.store.conflicts.add(
            kept.id, ConflictKind.REMOVE_UPDATE, parent.id, b"f00001", time.time_ns()
        )
        for name in ("d", "e"):
            (world.share / name).rename(tmp_path / name)
        world.volume.context.accept_deletions_until_ns = time.time_ns() + 60 * 10**9
        await world.volume.observer.directory(ROOT)
        assert world.store.nodes.path(kept.id) == b"d/f00001"
        assert [name for name, _ in world.store.nodes.children(ROOT)] == [b"d"]

    played(tmp_path, play)

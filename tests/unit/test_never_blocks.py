"""Large backlogs and large directories on one event loop: everybody gets a turn all the time.

``Turns`` measures how much the loop computes before a waiting task gets its turn; that others keep
the machine busy does not count. Going through everything at once takes several times the bound.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from order_reference import ready

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import ROOT, Attributes
from awayfs.store.store import Store
from awayfs.volume.replay_optimise import Optimiser
from awayfs.volume.replay_queue import Queue

MANY = 20_000
LONGEST_S = 0.1


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
        task = asyncio.ensure_future(self._count())
        try:
            yield
        finally:
            task.cancel()


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
                queue.begin_pass()
                until = journal.last_seq()
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
            assert await queue.start(2) == expected
            flying.update(expected)

    asyncio.run(play())


def test_a_record_that_comes_back_as_it_went_has_not_moved(store: Store) -> None:
    journal, queue = store.journal, Queue(store.journal, is_file)
    first = journal.append(RecordKind.STORE, 10)
    second = journal.append(RecordKind.STORE, 11)

    async def play() -> None:
        queue.begin_pass()
        assert await queue.start(8) == [first.seq, second.seq]
        journal.set_state(first.seq, RecordState.FROZEN)
        assert queue.back(first.seq, waits=True)
        assert not queue.back(second.seq, waits=True)
        assert await queue.start(8) == []
        queue.begin_pass()
        assert await queue.start(8) == [first.seq, second.seq]
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
            queue.begin_pass()
            assert await queue.start(8) == [last.seq]

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

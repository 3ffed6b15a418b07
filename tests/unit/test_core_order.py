"""Which records may go out: named cases, and the property that every allowed order will do."""

from __future__ import annotations

import os
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from order_reference import dependencies, ready
from test_core_namespace import History, K, histories

from awayfs.core.claims import claims, runs_alone
from awayfs.core.order import Order
from awayfs.core.records import Record, RecordState
from awayfs.core.types import ROOT, Attributes

EXAMPLES = int(os.environ.get("AWAYFS_EXAMPLES", "200"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.booleans())
def test_every_allowed_order_ends_in_the_same_tree(
    history: History, random: Random, kinds_known: bool
) -> None:
    is_directory = history.is_directory if kinds_known else None
    journal, flying, tree = list(history.records), [], history.base
    while journal:
        going = ready(journal, {r.seq for r in flying}, is_directory=is_directory)
        assert going or flying, "stuck"
        flying += random.sample(going, random.randint(0 if flying else 1, len(going)))
        if any(runs_alone(r, is_directory) for r in flying):
            flying.sort(key=lambda r: not runs_alone(r, is_directory))
            flying = flying[: 1 if runs_alone(flying[0], is_directory) else None]
        done = flying.pop(random.randrange(len(flying)))
        tree = tree.apply(done, history.contents.get(done.node), history.kinds[done.node])
        journal.remove(done)
    assert tree == history.tree


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), st.sets(st.integers(1, 30), max_size=3))
def test_a_parked_record_holds_back_its_dependents_alone(
    history: History, parked: set[int]
) -> None:
    journal, tree = list(history.records), history.base
    before = dependencies(journal, history.is_directory)
    held = {record.seq for record in journal if record.seq in parked}
    for record in journal:
        if before[record.seq] & held:
            held.add(record.seq)
    while going := ready(journal, parked=parked, is_directory=history.is_directory, limit=1):
        done = going[0]
        tree = tree.apply(done, history.contents.get(done.node), history.kinds[done.node])
        journal.remove(done)
    stuck = {record.seq for record in journal}
    assert parked & {r.seq for r in history.records} <= stuck
    assert stuck <= held


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories())
def test_ready_is_what_has_no_dependencies_left(history: History) -> None:
    """Both forms say the same, but that a rename of a directory runs alone."""
    free = {seq for seq, earlier in dependencies(history.records).items() if not earlier}
    going = ready(history.records)
    assert {record.seq for record in going} <= free
    skipped = free - {record.seq for record in going}
    if skipped:
        first = next(r for r in history.records if r.seq in skipped)
        assert any(runs_alone(r) for r in [first, *going[:1]])


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(histories(), st.randoms(use_true_random=False), st.booleans())
def test_the_order_kept_up_to_date_is_that_of_the_whole_journal(
    history: History, random: Random, kinds_known: bool
) -> None:
    """Whatever is appended, sent, set aside, decided, dropped or made another record."""
    is_directory = history.is_directory if kinds_known else None
    rest, journal = list(history.records), dict[int, Record]()
    order, flying, waiting, not_done = Order(is_directory), set[int](), set[int](), set[int]()
    for _ in range(4 * len(rest)):
        match random.randrange(11):
            case 0 | 1 | 2 if rest:
                journal[rest[0].seq] = rest[0]
                order.put(rest.pop(0))
            case 3 if flying:
                seq = random.choice(sorted(flying))
                flying.discard(seq)
                order.landed(seq)
            case 4 if flying:
                seq = random.choice(sorted(flying))
                flying.discard(seq)
                waiting.add(seq)
                order.set_waiting(seq)
                order.landed(seq)
            case 5 if journal:
                seq = random.choice(sorted(journal))
                flying.discard(seq)
                waiting.discard(seq)
                del journal[seq]
                order.take(seq)
            case 6 if journal:
                seq = random.choice(sorted(journal))
                flips = {RecordState.PARKED: RecordState.PENDING}
                state = flips.get(journal[seq].state, RecordState.PARKED)
                journal[seq] = replace(journal[seq], state=state)
                order.put(journal[seq])
            case 7 if journal:
                seq, like = random.choice(sorted(journal)), random.choice(history.records)
                journal[seq] = replace(like, seq=seq)
                order.put(journal[seq])
            case 8:
                waiting.clear()
                not_done.clear()
                order.end_waiting()
            case 9 if flying:
                seq = random.choice(sorted(flying))
                journal[seq] = replace(journal[seq], state=RecordState.FROZEN)
                order.put(journal[seq])
            case 10 if flying:
                seq = random.choice(sorted(flying))
                not_done.add(seq)
                order.not_done(seq)
        records = [journal[seq] for seq in sorted(journal)]
        limit = random.randrange(3)
        going = ready(records, flying, waiting, is_directory, limit, not_done)
        expected = [r.seq for r in going]
        assert order.has_free or not expected
        assert order.start(limit) == expected
        flying.update(expected)


def test_a_long_journal_whose_head_is_blocked_costs_nothing_for_each_record_that_is_sent() -> None:
    order = Order()
    order.put(Record(1, K.STORE, 5, state=RecordState.PARKED))
    for seq in range(2, 20_002):
        order.put(Record(seq, K.SETXATTR, 5 if seq % 2 else seq))
    began = time.perf_counter()
    for _ in range(10_000):
        [seq] = order.start(1)
        order.take(seq)
    assert time.perf_counter() - began < 2.0  # asked of the whole journal: 1,000 s
    assert order.start(1) == [] and len(order) == 10_001


def test_directories_that_are_made_go_before_others_and_what_is_in_them_after_them() -> None:
    order = Order(lambda node: node == 10)
    order.put(Record(1, K.STORE, 5))
    order.put(Record(2, K.CREATE, 10, ROOT, b"d"))
    order.put(Record(3, K.CREATE, 11, 10, b"f"))
    assert order.start(1) == [2]
    assert order.start(9) == [1]
    order.take(2)
    assert order.start(9) == [3]


def test_a_directory_that_is_not_to_go_yet_keeps_nothing_earlier_back() -> None:
    order = Order(lambda node: node == 10)
    order.put(Record(1, K.STORE, 5))
    order.put(Record(2, K.CREATE, 10, ROOT, b"d"))
    order.rest_to = 1
    assert order.start(9) == [1]


D, F, G, X, Y = 10, 11, 12, 20, 21


def create(node: int, name: bytes, parent: int = ROOT) -> Record:
    return Record(0, K.CREATE, node, parent, name)


def rename(node: int, a: bytes, b: bytes, replaced: int = 0, to: int = ROOT) -> Record:
    return Record(0, K.RENAME, node, ROOT, a, to, b, replaced)


def remove(node: int, name: bytes, parent: int = ROOT) -> Record:
    return Record(0, K.REMOVE, node, parent, name)


def chmod(node: int) -> Record:
    return Record(0, K.SETATTR, node, attributes=Attributes(mode=0o700))


STORE_X, STORE_Y = Record(0, K.STORE, X), Record(0, K.STORE, Y)

READY: dict[str, tuple[list[Record], set[int]]] = {
    "nothing": ([], set()),
    "changes of different files go together": ([STORE_X, STORE_Y], {1, 2}),
    "changes of one file go in turn": ([STORE_X, chmod(X)], {1}),
    "a file waits for its directory": ([create(D, b"d"), create(F, b"f", D)], {1}),
    "files of one directory go together": ([create(F, b"f", D), create(G, b"g", D)], {1, 2}),
    "a name waits until it is free": ([remove(X, b"x"), create(F, b"x")], {1}),
    "a directory is emptied before it goes": ([remove(X, b"x", D), remove(D, b"d")], {1}),
    "what is displaced is finished before": ([STORE_X, rename(F, b"t", b"x", X)], {1}),
    "rights come before what may need them": ([chmod(D), create(F, b"f", D)], {1}),
    "and rights are taken away after": ([create(F, b"f", D), chmod(D)], {1}),
    "a time of a directory is set before what comes after": (
        [
            Record(0, K.SETATTR, D, attributes=Attributes(mtime_ns=1)),
            create(F, b"f", D),
        ],
        {1},
    ),
    "renaming a directory runs alone": ([rename(D, b"d", b"e"), STORE_X], {1}),
    "it waits for what is on its way, and what follows waits too": (
        [STORE_X, rename(D, b"d", b"e"), STORE_Y],
        {1},
    ),
    "renaming a file does not": ([rename(X, b"x", b"z"), STORE_Y], {1, 2}),
    "a parked record holds back what follows on its node": (
        [replace(STORE_X, state=RecordState.PARKED), chmod(X), STORE_Y],
        {3},
    ),
    "and what follows on that, transitively": (
        [
            replace(create(D, b"d"), state=RecordState.PARKED),
            create(F, b"f", D),
            Record(0, K.STORE, F),
            rename(X, b"x", b"f", F, to=D),
            STORE_Y,
        ],
        {5},
    ),
    "a parked change of rights does not hold back the directory's content": (
        [replace(chmod(D), state=RecordState.PARKED), create(F, b"f", D)],
        {2},
    ),
    "a parked rename of a directory does not hold back its content": (
        [replace(rename(D, b"d", b"e"), state=RecordState.PARKED), create(F, b"f", D)],
        {2},
    ),
    "what was frozen before a restart is offered again": (
        [replace(STORE_X, state=RecordState.FROZEN)],
        {1},
    ),
}


@pytest.mark.parametrize("name", READY)
def test_named_case(name: str) -> None:
    given_records, expected = READY[name]
    records = [replace(record, seq=seq) for seq, record in enumerate(given_records, 1)]
    assert {r.seq for r in ready(records, is_directory=lambda node: node == D)} == expected
    order = Order(lambda node: node == D)
    for record in records:
        order.put(record)
    assert set(order.start(len(records))) == expected


def test_what_is_in_flight_is_not_offered_and_holds_back_its_dependents() -> None:
    records = [replace(r, seq=i) for i, r in enumerate([STORE_X, chmod(X), STORE_Y], 1)]
    assert [r.seq for r in ready(records, in_flight={1})] == [3]


def test_nothing_goes_while_a_directory_is_renamed() -> None:
    records = [replace(r, seq=i) for i, r in enumerate([rename(D, b"d", b"e"), STORE_X], 1)]
    assert ready(records, in_flight={1}, is_directory=lambda node: node == D) == []


def test_a_directory_is_not_renamed_while_a_later_record_is_on_its_way() -> None:
    """Which went out because the rename had to wait for something; its path would change."""
    later = replace(create(X + 5, b"n", D), seq=2)
    move = replace(rename(D, b"d", b"e"), seq=1)
    assert ready([move, later], in_flight={2}) == []
    assert [r.seq for r in ready([move, later])] == [1]


@pytest.mark.parametrize("kind", [K.RENAME, K.EXCHANGE])
def test_a_move_of_a_directory_that_may_have_been_carried_out_goes_before_all_others(
    kind: K,
) -> None:
    """What is inside is not where its path says: it would count as removed on the server."""
    store, blocked = replace(STORE_X, seq=1), replace(chmod(D), seq=2)
    move = replace(rename(D, b"d", b"e"), kind=kind, seq=3, state=RecordState.FROZEN)
    order = Order({D}.__contains__)
    for record in (store, blocked, move):
        order.put(record)
    assert order.start(8) == [3]
    order.set_waiting(3)
    order.landed(3)
    assert order.start(8) == [], "the server was not asked, or did not answer"
    order.end_waiting()
    assert order.start(8) == [3]
    order.not_done(3)
    order.set_waiting(3)
    order.landed(3)
    assert order.start(8) == [1, 2]
    for seq in (1, 2):
        order.take(seq)
    order.end_waiting()
    assert order.start(8) == [3]


def test_parked_may_be_told_from_outside() -> None:
    records = [replace(r, seq=i) for i, r in enumerate([chmod(D), create(F, b"f", D)], 1)]
    assert [r.seq for r in ready(records, parked={1})] == [2]


@pytest.mark.parametrize(
    ("state", "expected"), [(RecordState.PARKED, [2]), (RecordState.PENDING, [])]
)
def test_a_move_in_conflict_holds_back_no_other_move(
    state: RecordState, expected: list[int]
) -> None:
    """One that only waits a moment does: in another order the two could form a ring."""
    first = replace(rename(D, b"d", b"e", to=X), seq=1, state=state)
    second = replace(rename(D + 50, b"g", b"h", to=X + 1), seq=2)
    is_directory = {D, D + 50}.__contains__
    assert [r.seq for r in ready([first, second], {}, {1}, is_directory)] == expected


def test_the_limit_ends_the_search() -> None:
    records = [Record(seq, K.STORE, seq + 100) for seq in range(1, 1000)]
    assert [r.seq for r in ready(records, limit=2)] == [1, 2]


def test_a_record_claims_its_node_and_names() -> None:
    reads, writes = claims(rename(F, b"t", b"x", X))
    assert ("node", F, b"") in writes and ("node", X, b"") in writes
    assert ("slot", ROOT, b"t") in writes and ("slot", ROOT, b"x") in writes
    assert ("directory", ROOT, b"") in reads


def test_a_directorys_time_is_set_after_what_happens_inside() -> None:
    made = Record(1, K.CREATE, 10, parent=5, name=b"a")
    timed = Record(2, K.SETATTR, 5, attributes=Attributes(mtime_ns=1))
    later = Record(3, K.CREATE, 11, parent=5, name=b"b")
    assert dependencies([made, timed, later])[2] == {1}
    assert 2 in dependencies([made, timed, later])[3]
    assert [r.seq for r in ready([made, timed, later])] == [1]


def test_a_directory_that_is_made_anew_does_not_wait_for_what_was_made_in_it() -> None:
    inside = Record(1, K.CREATE, F, parent=X, name=b"f")
    made = Record(2, K.CREATE, X, parent=ROOT, name=b"x")
    later = Record(3, K.CREATE, G, parent=X, name=b"g")
    assert [record.seq for record in ready([inside, made, later])] == [1, 2]
    assert not dependencies([inside, made])[made.seq]

"""What goes first, what is held back: the rule by tables, and properties of what goes along."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from order_reference import ready
from test_core_namespace import History, K, histories

from awayfs.core.order import Order, Steps
from awayfs.core.records import Record, RecordState
from awayfs.core.sending import (
    EVERYTHING,
    IDLE_S,
    LONGEST_S,
    Choice,
    Policy,
    is_of_subtree,
    is_overdue,
    rest_to,
)
from awayfs.core.types import ROOT, Attributes

EXAMPLES = int(os.environ.get("AWAYFS_EXAMPLES", "200"))
T = TypeVar("T")
E, L, M = Policy.EAGER, Policy.LAZY, Policy.MANUAL


@pytest.mark.parametrize(
    ("policy", "asked_to", "idle_s", "expected"),
    [
        (E, 0, 0.0, EVERYTHING),
        (E, 7, 1e6, EVERYTHING),
        (L, 0, 0.0, 0),
        (L, 0, IDLE_S - 0.01, 0),
        (L, 0, IDLE_S, EVERYTHING),
        (L, 7, 0.0, 7),
        (M, 0, 1e6, 0),
        (M, 7, 1e6, 7),
    ],
)
def test_up_to_where_all_may_go(
    policy: Policy, asked_to: int, idle_s: float, expected: int
) -> None:
    assert rest_to(policy, asked_to, idle_s) == expected


def test_only_lazy_work_is_overdue_some_time() -> None:
    assert not any(is_overdue(policy, LONGEST_S - 1) for policy in Policy)
    assert [policy for policy in Policy if is_overdue(policy, LONGEST_S)] == [L]


def test_a_choice_holds_back_unless_everything_may_go() -> None:
    assert not Choice().holds_back
    assert Choice(rest_to=0).holds_back


TOP, IN, OUT, FILE, OTHER = 10, 11, 12, 20, 21
INSIDE = {TOP, IN, FILE}
OF_SUBTREE: dict[str, tuple[Record, bool]] = {
    "what is made in it": (Record(1, K.CREATE, FILE, IN, b"f"), True),
    "its top": (Record(1, K.CREATE, TOP, ROOT, b"t"), True),
    "the content of a file in it": (Record(1, K.STORE, FILE), True),
    "what was removed from it": (Record(1, K.REMOVE, OTHER, IN, b"o"), True),
    "what was moved out of it": (Record(1, K.RENAME, OTHER, IN, b"o", OUT, b"o"), True),
    "what was moved into it": (Record(1, K.RENAME, FILE, OUT, b"f", IN, b"f"), True),
    "what displaced a file that has another name in it": (
        Record(1, K.RENAME, OTHER, OUT, b"a", OUT, b"b", FILE),
        True,
    ),
    "what is beside it": (Record(1, K.CREATE, OTHER, OUT, b"o"), False),
    "the directory that it is in": (Record(1, K.SETATTR, ROOT), False),
    "no node is inside for being 0": (Record(1, K.STORE, OTHER), False),
}


@pytest.mark.parametrize("name", OF_SUBTREE)
def test_what_concerns_a_subtree(name: str) -> None:
    record, expected = OF_SUBTREE[name]
    assert is_of_subtree(record, lambda node: node in INSIDE) is expected


def test_a_whole_volume_is_the_subtree_of_its_root() -> None:
    assert is_of_subtree(Record(1, K.CREATE, OTHER, ROOT, b"o"), lambda node: node == ROOT)


# -- what goes along ----------------------------------------------------------------------


def order_of(records: list[Record]) -> Order:
    order = Order()
    for record in records:
        order.put(record)
    return order


def end_of(steps: Steps[T]) -> T:
    """What comes of work that gives way now and then."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def needs(order: Order, seqs: Iterable[int]) -> set[int]:
    return end_of(order.with_needs(seqs))


def choose(order: Order, seqs: Iterable[int], *, too: bool = False) -> None:
    end_of(order.choose(seqs, too=too))


def in_turn(*records: Record) -> list[Record]:
    return [replace(record, seq=seq) for seq, record in enumerate(records, 1)]


D, F, G, X = 30, 31, 32, 33
MAKE_D = Record(0, K.CREATE, D, ROOT, b"d")
MAKE_F, MAKE_G = Record(0, K.CREATE, F, D, b"f"), Record(0, K.CREATE, G, D, b"g")
STORE_F, STORE_G = Record(0, K.STORE, F), Record(0, K.STORE, G)
CHMOD_D = Record(0, K.SETATTR, D, attributes=Attributes(mode=0o700))

NEEDS: dict[str, tuple[list[Record], set[int], set[int]]] = {
    "nothing needs nothing": ([MAKE_D], set(), set()),
    "what is not there is passed over": ([MAKE_D], {9}, set()),
    "one that nothing holds back goes alone": ([MAKE_D, STORE_G], {2}, {2}),
    "a file needs its directory, and not its neighbour": (
        [MAKE_D, MAKE_G, MAKE_F, STORE_G, STORE_F],
        {5},
        {1, 3, 5},
    ),
    "what came later is not needed": ([MAKE_D, MAKE_F, STORE_F, CHMOD_D], {2}, {1, 2}),
    "rights that were set before are": ([CHMOD_D, MAKE_F], {2}, {1, 2}),
    "what sets the rights needs what was made before": ([MAKE_F, MAKE_G, CHMOD_D], {3}, {1, 2, 3}),
    "a removal of a directory needs that it is emptied": (
        [Record(0, K.REMOVE, F, D, b"f"), STORE_G, Record(0, K.REMOVE, D, ROOT, b"d")],
        {3},
        {1, 3},
    ),
    "a rename of the directory is not needed by what is in it": (
        [Record(0, K.RENAME, D, ROOT, b"d", ROOT, b"e"), MAKE_F],
        {2},
        {2},
    ),
    "a freed name needs the removal": (
        [Record(0, K.REMOVE, X, D, b"f"), MAKE_F],
        {2},
        {1, 2},
    ),
    "of one node all that is earlier": ([STORE_F, CHMOD_D, STORE_F, STORE_F], {4}, {1, 3, 4}),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_goes_along(name: str) -> None:
    records, wanted, expected = NEEDS[name]
    assert needs(order_of(in_turn(*records)), wanted) == expected


def least_closed(records: list[Record], wanted: set[int], history: History) -> set[int]:
    """The records to send so that all wanted can go, said by trying: without any one it fails."""
    needed = set(wanted)
    for record in reversed(records):
        if record.seq in needed:
            continue
        # needed, if with this one kept back for good, and all else free to go, one of them stays
        left, held = list(records), {record.seq}
        while going := ready(left, parked=held, is_directory=history.is_directory):
            left = [r for r in left if r.seq != going[0].seq]
        if needed & {r.seq for r in left}:
            needed.add(record.seq)
    return needed


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_what_goes_along_is_what_has_to_and_nothing_else(history: History, random: Random) -> None:
    records = [r for r in history.records if r.kind is not K.SETATTR]  # these hold back softly
    wanted = {r.seq for r in records if random.random() < 0.2}
    order = Order(history.is_directory)
    for record in records:
        order.put(record)
    assert needs(order, wanted) == least_closed(records, wanted, history)


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_whatever_is_asked_for_goes_first_and_every_sequence_ends_in_the_same_tree(
    history: History, random: Random
) -> None:
    """Ask for some, then for some more, at any moment; at last for all. Nothing goes before what it
    needs (the reference model would not take it), nothing that was not asked for goes at all."""
    order, tree = Order(history.is_directory), history.base
    journal = {r.seq: r for r in history.records}
    for record in history.records:
        order.put(record)
    order.rest_to, flying, allowed = 0, list[int](), set[int]()
    for _ in range(6 * len(history.records)):
        if random.random() < 0.2 and journal:
            more = {seq for seq in journal if random.random() < 0.2}
            allowed |= needs(order, more)
            choose(order, more, too=True)
        started = order.start(random.randint(1, 3))
        assert set(started) <= allowed
        flying += started
        if flying and random.random() < 0.7:
            tree = send(history, journal, order, tree, flying.pop(random.randrange(len(flying))))
    while flying:
        tree = send(history, journal, order, tree, flying.pop())
    order.rest_to = EVERYTHING
    while started := order.start(1):
        tree = send(history, journal, order, tree, started[0])
    assert not journal and tree == history.tree


def send(history: History, journal: dict[int, Record], order: Order, tree, seq: int):  # type: ignore[no-untyped-def]
    record = journal.pop(seq)
    order.landed(seq)
    order.take(seq)
    return tree.apply(record, history.contents.get(record.node), history.kinds[record.node])


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_no_other_goes_while_something_asked_for_could(history: History, random: Random) -> None:
    order = Order(history.is_directory)
    for record in history.records:
        order.put(record)
    wanted = {r.seq for r in history.records if random.random() < 0.3}
    choose(order, wanted)
    first, flying, sent = needs(order, wanted), list[int](), list[int]()
    while True:
        flying += order.start(random.randint(1, 4))
        if not flying:
            break
        seq = flying.pop(random.randrange(len(flying)))
        order.landed(seq)
        order.take(seq)
        sent.append(seq)
    assert len(sent) == len(history.records)
    assert set(sent[: len(first)]) == first


def test_what_waits_among_the_first_keeps_nobody_else_from_going() -> None:
    order = order_of(in_turn(STORE_F, STORE_G))
    choose(order, {1})
    assert order.start(2) == [1]
    order.set_waiting(1)
    order.landed(1)
    assert order.start(2) == [2]


def test_what_is_not_wanted_any_more_takes_its_place_behind() -> None:
    order = order_of(in_turn(STORE_F, STORE_G))
    choose(order, {2})
    choose(order, set())
    assert order.start(1) == [1]
    assert order.start(1) == [2]


def test_the_rest_goes_up_to_a_record() -> None:
    order = order_of(in_turn(STORE_F, STORE_G, MAKE_D))
    order.rest_to = 2
    assert order.start(3) == [1, 2]
    assert not order.first_moves and not order.has_free


def test_a_move_that_went_out_goes_before_what_is_asked_for() -> None:
    moved = Record(1, K.RENAME, D, ROOT, b"d", ROOT, b"e", state=RecordState.FROZEN)
    order = order_of([moved, *in_turn(STORE_F, STORE_G)[1:]])
    order.rest_to = 0
    choose(order, {2})
    assert order.start(3) == [1]


def test_what_is_asked_for_of_a_long_journal_costs_what_it_needs() -> None:
    records: Mapping[int, Record] = {
        seq: Record(seq, K.CREATE, 100 + seq, ROOT, b"%d" % seq) for seq in range(1, 20_001)
    }
    order = order_of(list(records.values()))
    order.rest_to = 0
    walked: list[int] = []
    original = order._waits_for

    def counted(seq: int, lines: object):  # type: ignore[no-untyped-def]
        walked.append(seq)
        return original(seq, lines)  # type: ignore[arg-type]

    order._waits_for = counted  # type: ignore[method-assign]
    choose(order, {20_000})
    assert walked == [20_000]
    assert order.start(8) == [20_000]

"""The optimiser: named cases, and the property that the journal goes on meaning the same."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from test_core_namespace import History, K, histories

from awayfs.core import optimise as optimising
from awayfs.core.concerned import concerned
from awayfs.core.optimise import Plan
from awayfs.core.positions import NodeTest, slots_of
from awayfs.core.records import Record, RecordState
from awayfs.core.types import ROOT, Attributes

T = TypeVar("T")
EXAMPLES = int(os.environ.get("AWAYFS_EXAMPLES", "200"))


def optimise(
    records: list[Record], is_directory: NodeTest | None = None, has_names: NodeTest | None = None
) -> Plan:
    """All steps as one plan."""
    left = {record.seq: record for record in records}
    for plan in optimising.optimise(records, is_directory, has_names):
        carry_out(left, plan)
    dropped = frozenset(record.seq for record in records if record.seq not in left)
    return Plan(dropped, tuple(left[r.seq] for r in records if left.get(r.seq, r) != r))


def carry_out(journal: dict[int, Record], plan: Plan) -> None:
    """Change a journal, by seq, as a plan says; it names nothing that is not there."""
    for seq in plan.dropped:
        del journal[seq]
    for record in plan.rewritten:
        assert record.seq in journal
        journal[record.seq] = record


def apply_plan(records: list[Record], plan: Plan) -> list[Record]:
    journal = {record.seq: record for record in records}
    carry_out(journal, plan)
    return list(journal.values())


# --- Properties ------------------------------------------------------------------------------


def check(history: History, plan: Plan) -> None:
    """The optimised journal can be carried out and ends in the same tree."""
    after = apply_plan(history.records, plan)
    left = {record.seq: record for record in after}
    for record in history.records:
        if record.state is not RecordState.PENDING:
            assert left[record.seq] == record
    assert [record.seq for record in after] == sorted(left)
    assert history.replay(after) == history.tree


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories())
def test_an_optimised_journal_means_the_same(history: History) -> None:
    check(history, optimise(history.records, history.is_directory, history.tree.nodes.__contains__))


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(barriers=True))
def test_barriers_stay_and_the_journal_means_the_same(history: History) -> None:
    check(history, optimise(history.records, history.is_directory, history.tree.nodes.__contains__))


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(barriers=True))
def test_kinds_may_be_unknown(history: History) -> None:
    check(history, optimise(history.records, None, history.tree.nodes.__contains__))


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories())
def test_an_optimised_journal_has_nothing_left_of_nodes_that_came_and_went(
    history: History,
) -> None:
    """Without directories, links and exchanges, every temporary file leaves no trace."""
    plain = {K.CREATE, K.STORE, K.SETATTR, K.SETXATTR, K.REMOVE, K.RENAME}
    if any(r.kind not in plain for r in history.records):
        return
    if any(history.is_directory(r.node) for r in history.records if r.kind is K.CREATE):
        return
    created = {r.node for r in history.records if r.kind is K.CREATE}
    plan = optimise(history.records, history.is_directory, history.tree.nodes.__contains__)
    left = {r.node for r in apply_plan(history.records, plan)}
    assert not {n for n in created if n not in history.tree.nodes} & left


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(histories(barriers=True))
def test_optimising_again_finds_little_more(history: History) -> None:
    """Optimising may be repeated at any time, also on what it left behind."""
    test = history.tree.nodes.__contains__
    once = apply_plan(history.records, optimise(history.records, history.is_directory, test))
    again = apply_plan(once, optimise(once, history.is_directory, test))
    assert history.replay(again) == history.tree


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(barriers=True))
def test_the_journal_means_the_same_after_each_step(history: History) -> None:
    """Others get their turn between two steps, and a crash may come there."""
    journal = list(history.records)
    has_names = history.tree.nodes.__contains__
    for plan in optimising.optimise(history.records, history.is_directory, has_names):
        if plan:
            journal = apply_plan(journal, plan)
            assert history.replay(journal) == history.tree


class Listed:
    """A journal in a list, as ``concerned`` asks it."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def of_node(self, node: int) -> list[Record]:
        return [r for r in self.records if node in (r.node, r.replaced)]

    def touching_name(self, parent: int, name: bytes) -> list[Record]:
        return [r for r in self.records if (parent, name) in slots_of(r)]

    def inside(self, parent: int) -> list[Record]:
        return [r for r in self.records if parent in (r.parent, r.to_parent)]

    def moves(self) -> list[Record]:
        return [r for r in self.records if r.to_parent and r.to_parent != r.parent]


def run(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(histories(barriers=True), st.lists(st.integers(1, 30), max_size=4))
def test_optimising_what_is_new_means_the_same(history: History, cuts: list[int]) -> None:
    """Bit by bit, as it is written, with only what concerns the new records being read."""
    journal: list[Record] = []
    has_names = history.tree.nodes.__contains__
    last = 0
    for cut in [*sorted(cuts), len(history.records)]:
        fresh = history.records[last:cut]
        journal += fresh
        rest = history.records[max(cut, last) :]
        last = max(cut, last)
        nodes = {node for r in fresh for node in (r.node, r.replaced)}
        part = run(concerned(nodes, Listed(journal)))
        for plan in optimising.optimise(part, history.is_directory, has_names):
            if plan:
                journal = apply_plan(journal, plan)
                assert history.replay([*journal, *rest]) == history.tree


def test_what_is_new_is_merged_with_what_was_there() -> None:
    old = [create(F, b"f"), store(F), store(X), create(D, b"d")]
    new = [remove(F, b"f"), store(X), chmod(D)]
    journal = [replace(record, seq=seq) for seq, record in enumerate([*old, *new], 1)]
    part = run(concerned([F, X, D], Listed(journal)))
    after = apply_plan(journal, optimise(part, lambda node: node == D))
    assert [r.seq for r in after] == [3, 4, 7]


def test_what_has_nothing_to_do_with_what_is_new_is_not_read() -> None:
    journal = [Record(seq, K.CREATE, seq + 100, ROOT, b"%d" % seq) for seq in range(1, 50)]
    journal.append(Record(50, K.STORE, 110))
    assert [r.seq for r in run(concerned([110], Listed(journal)))] == [10, 50]


# --- Named cases -----------------------------------------------------------------------------

D, F, G, T, X, Y = 10, 11, 12, 13, 20, 21  # D to T are made here, X and Y are the server's


def create(node: int, name: bytes, parent: int = ROOT) -> Record:
    return Record(0, K.CREATE, node, parent, name)


def store(node: int) -> Record:
    return Record(0, K.STORE, node)


def chmod(node: int, mode: int = 0o600) -> Record:
    return Record(0, K.SETATTR, node, attributes=Attributes(mode=mode))


def utimes(node: int, mtime_ns: int = 1) -> Record:
    return Record(0, K.SETATTR, node, attributes=Attributes(mtime_ns=mtime_ns))


def xattr(node: int, value: bytes | None, name: bytes = b"user.x") -> Record:
    return Record(0, K.SETXATTR, node, xattr_name=name, xattr_value=value)


def remove(node: int, name: bytes, parent: int = ROOT) -> Record:
    return Record(0, K.REMOVE, node, parent, name)


def link(node: int, name: bytes) -> Record:
    return Record(0, K.LINK, node, ROOT, name)


def rename(
    node: int, a: bytes, b: bytes, replaced: int = 0, parent: int = ROOT, to: int = ROOT
) -> Record:
    return Record(0, K.RENAME, node, parent, a, to, b, replaced)


def frozen(record: Record) -> Record:
    return replace(record, state=RecordState.FROZEN)


def parked(record: Record) -> Record:
    return replace(record, state=RecordState.PARKED)


SAVE = [create(T, b"tmp"), store(T), rename(T, b"tmp", b"x", X)]
CASES: dict[str, tuple[list[Record], list[Record]]] = {
    "nothing": ([], []),
    "one change stays": ([store(X)], [store(X)]),
    "ten stores leave one": ([store(X)] * 10, [store(X)]),
    "create, write, chmod, remove leave nothing": (
        [create(F, b"f"), store(F), chmod(F), remove(F, b"f")],
        [],
    ),
    "mkdir and rmdir leave nothing": ([create(D, b"d"), remove(D, b"d")], []),
    "a directory with all its content leaves nothing": (
        [
            create(D, b"d"),
            create(F, b"f", D),
            store(F),
            remove(F, b"f", D),
            remove(D, b"d"),
        ],
        [],
    ),
    "an old file that went through a new directory is only renamed": (
        [
            create(D, b"d"),
            rename(X, b"x", b"x", to=D),
            rename(X, b"x", b"g", parent=D),
            remove(D, b"d"),
        ],
        [rename(X, b"x", b"g")],
    ),
    "an old file removed through a new directory is only removed": (
        [
            create(D, b"d"),
            rename(X, b"x", b"x", to=D),
            remove(X, b"x", D),
            remove(D, b"d"),
        ],
        [remove(X, b"x")],
    ),
    "changes of a removed file are not sent": (
        [store(X), chmod(X), xattr(X, b"1"), remove(X, b"x")],
        [remove(X, b"x")],
    ),
    "a create that went out is followed by its remove": (
        [frozen(create(F, b"f")), store(F), remove(F, b"f")],
        [frozen(create(F, b"f")), remove(F, b"f")],
    ),
    "a store that went out is followed by one store": (
        [frozen(store(X)), store(X), store(X)],
        [frozen(store(X)), store(X)],
    ),
    "what waits behind a conflict is kept": (
        [store(X), parked(remove(X, b"x"))],
        [store(X), parked(remove(X, b"x"))],
    ),
    "an editor's save stays three records": (SAVE, SAVE),
    "a store after the rename-over joins the one before": ([*SAVE, store(T)], SAVE),
    "the second save takes the place of the first": (
        [*SAVE, create(F, b"tmp"), store(F), rename(F, b"tmp", b"x", T)],
        [create(F, b"tmp"), store(F), rename(F, b"tmp", b"x", X)],
    ),
    "removing what displaced a server's file removes that file": (
        [*SAVE, remove(T, b"x")],
        [remove(X, b"x")],
    ),
    "the displaced file goes when it was displaced": (
        [*SAVE, rename(T, b"x", b"y"), create(F, b"x"), remove(T, b"y")],
        [remove(X, b"x"), create(F, b"x")],
    ),
    "a chain of renames is one": (
        [rename(X, b"a", b"b"), rename(X, b"b", b"c"), rename(X, b"c", b"d")],
        [rename(X, b"a", b"d")],
    ),
    "one there and another back is not nothing": (
        [rename(X, b"a", b"b"), rename(Y, b"b", b"a")],
        [rename(X, b"a", b"b"), rename(Y, b"b", b"a")],
    ),
    "there and back is nothing": ([rename(X, b"a", b"b"), rename(X, b"b", b"a")], []),
    "there and back is something when the name was used meanwhile": (
        [
            rename(X, b"a", b"b"),
            rename(Y, b"y", b"a"),
            rename(Y, b"a", b"z"),
            rename(X, b"b", b"a"),
        ],
        [rename(Y, b"y", b"z")],
    ),
    "a chain whose old name was taken goes early": (
        [rename(X, b"a", b"b"), create(F, b"a"), rename(X, b"b", b"c")],
        [rename(X, b"a", b"c"), create(F, b"a")],
    ),
    "a chain ending over another file goes late": (
        [rename(X, b"a", b"b"), store(X), rename(X, b"b", b"y", Y)],
        [store(X), rename(X, b"a", b"y", Y)],
    ),
    "a chain over one that went out stays": (
        [rename(X, b"a", b"b"), frozen(chmod(X)), rename(X, b"b", b"c")],
        [rename(X, b"a", b"b"), frozen(chmod(X)), rename(X, b"b", b"c")],
    ),
    "a new file is created under its last name": (
        [create(F, b"f.part"), store(F), rename(F, b"f.part", b"f")],
        [create(F, b"f"), store(F)],
    ),
    "but not where the name is freed only in between": (
        [create(F, b"f"), store(F), remove(X, b"x"), rename(F, b"f", b"x")],
        [create(F, b"f"), store(F), remove(X, b"x"), rename(F, b"f", b"x")],
    ),
    "nor in a directory that is made only in between": (
        [create(F, b"f"), store(F), create(D, b"d"), rename(F, b"f", b"f", to=D)],
        [create(F, b"f"), store(F), create(D, b"d"), rename(F, b"f", b"f", to=D)],
    ),
    "an empty one may wait for its directory": (
        [create(F, b"f"), create(D, b"d"), rename(F, b"f", b"f", to=D)],
        [create(D, b"d"), create(F, b"f", D)],
    ),
    "rename and remove is remove": (
        [rename(X, b"x", b"y"), remove(X, b"y")],
        [remove(X, b"x")],
    ),
    "a backup that is removed": (
        [rename(X, b"x", b"x~"), create(F, b"x"), store(F), remove(X, b"x~")],
        [remove(X, b"x"), create(F, b"x"), store(F)],
    ),
    "a link that is removed": ([link(X, b"l"), remove(X, b"l")], []),
    "a link that outlives the name": (
        [store(X), link(X, b"l"), remove(X, b"x"), link(X, b"m"), remove(X, b"l")],
        [store(X), link(X, b"l"), remove(X, b"x"), link(X, b"m"), remove(X, b"l")],
    ),
    "a link is made under its last name": (
        [link(X, b"l"), rename(X, b"l", b"m")],
        [link(X, b"m")],
    ),
    "attributes merge": (
        [chmod(X, 0o600), utimes(X, 5), chmod(X, 0o644)],
        [Record(0, K.SETATTR, X, attributes=Attributes(mode=0o644, mtime_ns=5))],
    ),
    "a store makes an older time void": ([utimes(X), store(X)], [store(X)]),
    "a time set after the last store stays": (
        [store(X), utimes(X, 1), store(X), utimes(X, 2)],
        [store(X), utimes(X, 2)],
    ),
    "a mode set before a store stays before it": (
        [chmod(X, 0o600), store(X), chmod(X, 0o644), store(X), chmod(X, 0o640)],
        [chmod(X, 0o600), store(X), chmod(X, 0o640)],
    ),
    "a directory's mode stays around what needed it": (
        [chmod(X, 0o700), create(F, b"f", X), chmod(X, 0o500)],
        [chmod(X, 0o700), create(F, b"f", X), chmod(X, 0o500)],
    ),
    "a mode that allowed emptying stays": (
        [chmod(X, 0o700), remove(Y, b"y", X), remove(X, b"x")],
        [chmod(X, 0o700), remove(Y, b"y", X), remove(X, b"x")],
    ),
    "the last xattr wins": (
        [xattr(X, b"1"), xattr(X, b"3", b"user.y"), xattr(X, b"2"), xattr(X, None)],
        [xattr(X, b"3", b"user.y"), xattr(X, None)],
    ),
    "a rename to itself is nothing": ([rename(X, b"a", b"a", X)], []),
    "exchanged files keep their changes": (
        [
            store(X),
            Record(0, K.EXCHANGE, X, ROOT, b"x", ROOT, b"y", replaced=Y),
            store(X),
            store(Y),
        ],
        [
            store(X),
            Record(0, K.EXCHANGE, X, ROOT, b"x", ROOT, b"y", replaced=Y),
            store(Y),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_named_case(name: str) -> None:
    given_records, expected = CASES[name]
    records = [replace(record, seq=seq) for seq, record in enumerate(given_records, 1)]
    after = apply_plan(records, optimise(records, lambda node: node in (D,)))
    assert [replace(record, seq=0) for record in after] == expected


def test_a_file_with_another_name_on_the_server_keeps_its_content() -> None:
    records = [replace(store(X), seq=1), replace(remove(X, b"x"), seq=2)]
    assert optimise(records).dropped == {1}
    assert not optimise(records, has_names=lambda node: node == X)


def test_two_renames_stay_apart_around_what_is_made_between_them() -> None:
    """A decision had the directory made anew, under the name that the first one leaves."""
    records = [rename(X, b"d", b"e"), rename(X, b"e", b"e", to=Y), create(Y, b"d")]
    assert not optimise([replace(record, seq=at) for at, record in enumerate(records, 1)])


def test_a_hundred_thousand_records_take_seconds() -> None:
    records: list[Record] = []
    for node in range(100, 20_100):
        name = b"%d" % node
        steps = [
            create(node, b"tmp"),
            store(node),
            chmod(node),
            rename(node, b"tmp", name),
            store(node),
        ]
        records += [replace(step, seq=len(records) + i) for i, step in enumerate(steps, 1)]
    begin = time.perf_counter()
    plan = optimise(records)
    assert time.perf_counter() - begin < 20
    assert len(plan.dropped) == 40_000

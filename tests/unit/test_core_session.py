"""The offline session as a snapshot: what differs, and what has to go back together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_core_namespace import STEP, History, K, take_step

from awayfs.core.namespace import Invalid, Namespace, Slot
from awayfs.core.records import Record
from awayfs.core.session import (
    NAMING,
    Aspect,
    Difference,
    aspect_of,
    closure,
    colliding,
    differences,
    dropped,
    going_back,
    pair_replaced,
)
from awayfs.core.types import ROOT, Kind

EXAMPLES = int(os.environ.get("AWAYFS_EXAMPLES", "200"))


@dataclass
class Both:
    """Base and local tree of a history, and its records."""

    history: History

    def base_slots(self, node: int) -> Sequence[Slot]:
        return sorted(self.history.base.slots(node))

    def local_slots(self, node: int) -> Sequence[Slot]:
        return sorted(self.history.tree.slots(node))

    def base_child(self, slot: Slot) -> int | None:
        return self.history.base.names.get(slot)

    def local_child(self, slot: Slot) -> int | None:
        return self.history.tree.names.get(slot)

    def local_children(self, directory: int) -> Iterable[int]:
        return self.history.tree.children(directory).values()

    def of_node(self, node: int) -> Sequence[Record]:
        return [r for r in self.history.records if node in (r.node, r.replaced)]

    def inside(self, directory: int) -> Sequence[Record]:
        return [r for r in self.history.records if directory in (r.parent, r.to_parent)]

    def touching_name(self, directory: int, name: bytes) -> Sequence[Record]:
        slot = (directory, name)
        places = [((r.parent, r.name), (r.to_parent, r.to_name), r) for r in self.history.records]
        return [r for here, there, r in places if slot in (here, there)]


def touched(history: History) -> set[int]:
    return {n for r in history.records for n in (r.node, r.replaced) if n}


def path(tree: Namespace, slot: Slot) -> bytes:
    parts = [slot[1]]
    while slot[0] != ROOT:
        (slot,) = tree.slots(slot[0])
        parts.append(slot[1])
    return b"/".join(reversed(parts))


def placed(history: History) -> list[Difference]:
    """All differences with their paths, as the volume fills them in."""
    both = Both(history)
    found: list[Difference] = []
    for node in sorted(touched(history) - {ROOT}):
        for d in differences(node, both):
            was = path(history.base, d.base) if d.base else b""
            now = path(history.tree, d.local) if d.local else b""
            found.append(Difference(d.node, d.base_node, d.base, d.local, now, was))
    return pair_replaced(found, both)


# --- Properties ------------------------------------------------------------------------------


@st.composite
def sessions(draw: st.DrawFn) -> History:
    """A history whose first part is the base."""
    history = History()
    for step in draw(st.lists(STEP, max_size=12)):
        take_step(history, step, False)
    history.settle()
    for step in draw(st.lists(STEP, min_size=1, max_size=14)):
        take_step(history, step, False)
    return history


@settings(max_examples=EXAMPLES, deadline=None)
@given(sessions())
def test_the_differences_lead_from_base_to_local(history: History) -> None:
    names = dict(history.base.names)
    found = placed(history)
    for d in found:
        if d.base is not None:
            assert names.pop(d.base) == d.base_node
    for d in found:
        if d.local is not None:
            assert d.local not in names
            assert d.node is not None
            names[d.local] = d.node
    assert names == history.tree.names


@settings(max_examples=EXAMPLES, deadline=None)
@given(sessions())
def test_paths_tell_the_same_to_a_reader(history: History) -> None:
    """Taken away from the inside out, put there from the outside in: that is the local tree."""
    tree = {path(history.base, slot): node for slot, node in history.base.names.items()}
    found = [d for d in placed(history) if (d.base, d.base_node) != (d.local, d.node)]
    taken: dict[Difference, dict[bytes, int]] = {}
    for d in sorted(found, key=lambda d: -d.from_path.count(b"/")):
        if d.base is None:
            continue
        inside = [p for p in tree if p == d.from_path or p.startswith(d.from_path + b"/")]
        taken[d] = {p[len(d.from_path) :]: tree.pop(p) for p in inside}
    for d in sorted(found, key=lambda d: d.path.count(b"/")):
        if d.node is None:
            continue
        moved = taken.get(d, {}) if d.node == d.base_node else {b"": d.node}
        for below, node in (moved or {b"": d.node}).items():
            assert d.path + below not in tree
            tree[d.path + below] = node
    assert tree == {path(history.tree, slot): node for slot, node in history.tree.names.items()}


def put_back(history: History, chosen: set[int]) -> dict[Slot, int]:
    names = {slot: n for slot, n in history.tree.names.items() if n not in chosen}
    for slot, node in history.base.names.items():
        if node in chosen:
            assert slot not in names
            names[slot] = node
    return names


@settings(max_examples=EXAMPLES, deadline=None)
@given(sessions(), st.integers(0, 20))
def test_what_goes_back_together_leaves_a_tree_and_a_journal_that_says_so(
    history: History, which: int
) -> None:
    nodes = sorted(touched(history))
    if not nodes:
        return
    both = Both(history)
    wanted = nodes[which % len(nodes)]
    chosen = closure([wanted], both, both)
    names = put_back(history, chosen)
    for parent, _ in names:
        at, steps = parent, 0
        while at != ROOT:
            (at,) = [p for (p, _), n in names.items() if n == at]
            steps += 1
            assert steps < 50, "a ring"
    gone = dropped(chosen, both, both)
    remaining = [r for r in history.records if r.seq not in gone]
    assert history.replay(remaining).names == names


@settings(max_examples=EXAMPLES, deadline=None)
@given(sessions())
def test_everything_back_is_the_base_and_an_empty_journal_of_names(history: History) -> None:
    both = Both(history)
    chosen = closure(touched(history), both, both)
    assert put_back(history, chosen) == history.base.names
    gone = dropped(chosen, both, both)
    assert not [r for r in history.records if r.kind in NAMING and r.seq not in gone]


# --- Named cases -----------------------------------------------------------------------------


def session(*base: tuple[int, int, bytes, Kind]) -> History:
    history = History(next_node=50)
    for node, parent, name, kind in base:
        assert history.do(Record(0, K.CREATE, node, parent=parent, name=name), kind)
    history.settle()
    return history


DIRECTORY, FILE = Kind.DIRECTORY, Kind.FILE
A, B, C, NEW = 10, 11, 12, 60


def create(history: History, node: int, parent: int, name: bytes, kind: Kind = FILE) -> None:
    assert history.do(Record(0, K.CREATE, node, parent=parent, name=name), kind)


def rename(
    history: History, node: int, old: tuple[int, bytes], new: tuple[int, bytes], over: int = 0
) -> None:
    record = Record(0, K.RENAME, node, *old, *new, over)
    assert history.do(record)


def remove(history: History, node: int, parent: int, name: bytes) -> None:
    assert history.do(Record(0, K.REMOVE, node, parent=parent, name=name))


def shown(history: History) -> list[str]:
    lines = []
    for d in placed(history):
        if d.node is None:
            lines.append(f"- {d.from_path.decode()}")
        elif d.base_node is None:
            lines.append(f"+ {d.path.decode()}")
        elif d.node != d.base_node:
            lines.append(f"= {d.path.decode()}")
        elif d.base != d.local:
            lines.append(f"{d.from_path.decode()} > {d.path.decode()}")
    return sorted(lines)


def test_an_editors_save_is_one_place() -> None:
    history = session((A, ROOT, b"doc", FILE))
    create(history, NEW, ROOT, b"tmp")
    rename(history, NEW, (ROOT, b"tmp"), (ROOT, b"doc"), A)
    assert shown(history) == ["= doc"]
    both = Both(history)
    assert closure([NEW], both, both) == closure([A], both, both) == {A, NEW}


def test_a_rename_over_something_else_is_two() -> None:
    history = session((A, ROOT, b"a", FILE), (B, ROOT, b"b", FILE))
    rename(history, A, (ROOT, b"a"), (ROOT, b"b"), B)
    assert shown(history) == ["- b", "a > b"]


def test_a_directory_made_anew_with_the_same_name_and_file() -> None:
    history = session((A, ROOT, b"d", DIRECTORY), (B, A, b"f", FILE))
    remove(history, B, A, b"f")
    remove(history, A, ROOT, b"d")
    create(history, NEW, ROOT, b"d", DIRECTORY)
    create(history, NEW + 1, NEW, b"f")
    assert shown(history) == ["= d", "= d/f"]


def test_a_renamed_directory_is_one_difference() -> None:
    history = session((A, ROOT, b"d", DIRECTORY), (B, A, b"f", FILE), (C, A, b"g", FILE))
    rename(history, A, (ROOT, b"d"), (ROOT, b"e"))
    rename(history, C, (A, b"g"), (ROOT, b"g"))
    assert shown(history) == ["d > e", "d/g > g"]


def test_what_was_made_where_something_returns_goes_with_it() -> None:
    history = session((A, ROOT, b"a", FILE))
    rename(history, A, (ROOT, b"a"), (ROOT, b"b"))
    create(history, NEW, ROOT, b"a")
    both = Both(history)
    assert closure([A], both, both) == {A, NEW}
    assert closure([NEW], both, both) == {NEW}


def test_what_returns_into_a_removed_directory_brings_it_back_alone() -> None:
    history = session((A, ROOT, b"d", DIRECTORY), (B, A, b"f", FILE), (C, A, b"g", FILE))
    for node, name in ((B, b"f"), (C, b"g")):
        remove(history, node, A, name)
    remove(history, A, ROOT, b"d")
    both = Both(history)
    assert closure([B], both, both) == {A, B}


def test_a_made_directory_takes_along_what_was_moved_into_it() -> None:
    history = session((A, ROOT, b"a", FILE))
    create(history, NEW, ROOT, b"new", DIRECTORY)
    rename(history, A, (ROOT, b"a"), (NEW, b"a"))
    both = Both(history)
    assert closure([NEW], both, both) == {A, NEW}
    assert closure([A], both, both) == {A}


def test_what_only_passed_through_a_made_directory_goes_with_it() -> None:
    history = session((A, ROOT, b"a", FILE))
    create(history, NEW, ROOT, b"new", DIRECTORY)
    rename(history, A, (ROOT, b"a"), (NEW, b"a"))
    rename(history, A, (NEW, b"a"), (ROOT, b"z"))
    both = Both(history)
    assert closure([NEW], both, both) == {A, NEW}


def test_no_ring_is_left() -> None:
    history = session((A, ROOT, b"a", DIRECTORY), (B, A, b"b", DIRECTORY))
    rename(history, B, (A, b"b"), (ROOT, b"b"))
    rename(history, A, (ROOT, b"a"), (B, b"a"))
    both = Both(history)
    assert closure([B], both, both) == {A, B}
    assert closure([A], both, both) == {A}


def test_a_name_lent_to_another_meanwhile_is_a_collision() -> None:
    """c passed through the name that a is to return to."""
    history = session((A, ROOT, b"a", FILE), (C, ROOT, b"c", FILE))
    rename(history, A, (ROOT, b"a"), (ROOT, b"b"))
    rename(history, C, (ROOT, b"c"), (ROOT, b"a"))
    rename(history, C, (ROOT, b"a"), (ROOT, b"d"))
    both = Both(history)
    assert closure([A], both, both) == {A, C}


@pytest.mark.parametrize(
    ("holder", "records", "found"),
    [
        (None, [Record(1, K.CREATE, 5, ROOT, b"x")], []),
        (4, [Record(1, K.CREATE, 5, ROOT, b"x")], [5]),
        (4, [Record(1, K.REMOVE, 4, ROOT, b"x"), Record(2, K.CREATE, 5, ROOT, b"x")], []),
        (None, [Record(1, K.REMOVE, 4, ROOT, b"x")], [4]),
        (4, [Record(1, K.RENAME, 5, ROOT, b"y", ROOT, b"x", 4)], []),
        (4, [Record(1, K.EXCHANGE, 4, ROOT, b"x", ROOT, b"y", 5)], []),
        (5, [Record(1, K.EXCHANGE, 4, ROOT, b"y", ROOT, b"x", 5)], []),
        (None, [Record(1, K.EXCHANGE, 4, ROOT, b"x", ROOT, b"y", 5)], [4]),
    ],
)
def test_collisions(holder: int | None, records: list[Record], found: list[int]) -> None:
    assert colliding((ROOT, b"x"), holder, records) == found


def test_going_back_in_order() -> None:
    depths = {1: 1, 2: 2, 3: 1, 4: 2, 5: 3}
    order = going_back([1, 2, 3, 4, 5], {1, 2}.__contains__, {1, 3, 4}.__contains__, depths.get)  # type: ignore[arg-type]
    assert order == [5, 1, 2, 4, 3]


@pytest.mark.parametrize("kind", list(K))
def test_each_kind_has_an_aspect(kind: K) -> None:
    expected = {
        K.STORE: Aspect.CONTENT,
        K.SETATTR: Aspect.ATTRIBUTES,
        K.SETXATTR: Aspect.ATTRIBUTES,
    }
    assert aspect_of(kind) is expected.get(kind, Aspect.NAMES)


def test_the_model_refuses_what_collides() -> None:
    """The property above could not fail if the model carried out anything."""
    history = session((A, ROOT, b"a", FILE))
    with pytest.raises(Invalid):
        history.base.apply(Record(1, K.CREATE, NEW, ROOT, b"a"))

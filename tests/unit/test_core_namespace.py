"""The reference model, and the random valid histories that other tests build with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from awayfs.core.namespace import Invalid, Namespace
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import ROOT, Attributes, Kind

K = RecordKind


# --- Histories -------------------------------------------------------------------------------


@dataclass
class History:
    """A valid history: a base tree and the records made on top of it."""

    tree: Namespace = field(default_factory=Namespace.empty)
    base: Namespace = field(default_factory=Namespace.empty)
    records: list[Record] = field(default_factory=list)
    kinds: dict[int, Kind] = field(default_factory=lambda: {ROOT: Kind.DIRECTORY})
    contents: dict[int, object] = field(default_factory=dict)
    next_node: int = 2

    def settle(self) -> None:
        """What was done so far is the base."""
        self.base, self.records = self.tree, []

    def do(self, record: Record, kind: Kind = Kind.FILE) -> bool:
        """Append a record if it is valid."""
        record = replace(record, seq=len(self.records) + 1)
        content = f"content {record.seq}/{len(self.contents)}"
        try:
            self.tree = self.tree.apply(record, content, kind)
        except Invalid:
            return False
        self.records.append(record)
        if record.kind is K.CREATE:
            self.kinds[record.node] = kind
        if record.kind is K.STORE:
            self.contents[record.node] = content
        return True

    def is_directory(self, node: int) -> bool:
        return self.kinds[node] is Kind.DIRECTORY

    def replay(self, records: Sequence[Record]) -> Namespace:
        """Carry out records on the base; content is the one at sending time."""
        tree = self.base
        for record in records:
            content = self.contents.get(record.node)
            tree = tree.apply(record, content, self.kinds[record.node])
        return tree


STEP = st.tuples(
    st.integers(0, 15), st.integers(0, 7), st.integers(0, 5), st.integers(0, 2), st.integers(0, 11)
)
NAMES = (b"a", b"b", b"c")


def take_step(history: History, step: tuple[int, int, int, int, int], barriers: bool) -> None:
    """Interpret five small numbers as one operation on the tree as it stands."""
    what, which, where, name, state = step
    tree = history.tree
    directories = [n for n, v in tree.nodes.items() if v.kind is Kind.DIRECTORY]
    slot = (directories[where % len(directories)], NAMES[name])
    record = Record(0, K.STORE, 0)
    if barriers and state < 2:
        record = replace(record, state=(RecordState.FROZEN, RecordState.PARKED)[state])
    if what < 4:
        kind = Kind.DIRECTORY if what < 2 else Kind.FILE
        record = replace(record, kind=K.CREATE, node=history.next_node)
        if history.do(replace(record, parent=slot[0], name=slot[1]), kind):
            history.next_node += 1
        return
    held = list(tree.names.items())
    if not held:
        return
    (parent, old), node = held[which % len(held)]
    record = replace(record, node=node)
    if what < 6:
        history.do(record)
    elif what == 6:
        wanted = [Attributes(mode=0o600), Attributes(mode=0o644), Attributes(mtime_ns=1)]
        history.do(replace(record, kind=K.SETATTR, attributes=wanted[name]))
    elif what == 7:
        value = (None, b"1", b"2")[name]
        history.do(replace(record, kind=K.SETXATTR, xattr_name=b"x", xattr_value=value))
    elif what < 10:
        history.do(replace(record, kind=K.REMOVE, parent=parent, name=old))
    elif what == 10:
        history.do(replace(record, kind=K.LINK, parent=slot[0], name=slot[1]))
    else:
        kind = K.EXCHANGE if what == 11 else K.RENAME
        replaced = tree.names.get(slot, 0)
        if kind is K.EXCHANGE and not replaced:
            return
        history.do(
            replace(
                record,
                kind=kind,
                parent=parent,
                name=old,
                to_parent=slot[0],
                to_name=slot[1],
                replaced=replaced,
            )
        )


@st.composite
def histories(draw: st.DrawFn, barriers: bool = False) -> History:
    history = History()
    for step in draw(st.lists(STEP, max_size=10)):
        take_step(history, step, barriers=False)
    history.settle()
    for step in draw(st.lists(STEP, min_size=1, max_size=30)):
        take_step(history, step, barriers)
    return history


# --- The model itself -----------------------------------------------------------------------


def tree(*records: Record, directories: Sequence[int] = ()) -> Namespace:
    answer = Namespace.empty()
    for record in records:
        kind = Kind.DIRECTORY if record.node in directories else Kind.FILE
        answer = answer.apply(record, b"content", kind)
    return answer


def create(node: int, name: bytes, parent: int = ROOT) -> Record:
    return Record(0, K.CREATE, node, parent, name)


def rename(node: int, source: bytes, target: bytes, replaced: int = 0) -> Record:
    return Record(0, K.RENAME, node, ROOT, source, ROOT, target, replaced)


def test_a_node_goes_with_its_last_name() -> None:
    linked = tree(create(2, b"a"), Record(0, K.LINK, 2, ROOT, b"b"))
    one = linked.apply(Record(0, K.REMOVE, 2, ROOT, b"a"))
    assert one.slots(2) == [(ROOT, b"b")]
    assert 2 not in one.apply(Record(0, K.REMOVE, 2, ROOT, b"b")).nodes


def test_a_rename_displaces() -> None:
    after = tree(create(2, b"a"), create(3, b"b"), rename(2, b"a", b"b", replaced=3))
    assert after.names == {(ROOT, b"b"): 2}
    assert 3 not in after.nodes


def test_a_store_makes_an_earlier_mtime_void() -> None:
    set_time = Record(0, K.SETATTR, 2, attributes=Attributes(mode=0o600, mtime_ns=1))
    after = tree(create(2, b"a"), set_time, Record(0, K.STORE, 2))
    assert after.nodes[2].attributes == Attributes(mode=0o600)


def test_an_exchange_swaps() -> None:
    swap = Record(0, K.EXCHANGE, 2, ROOT, b"a", ROOT, b"b", replaced=3)
    after = tree(create(2, b"a"), create(3, b"b"), swap)
    assert after.children(ROOT) == {b"a": 3, b"b": 2}


@pytest.mark.parametrize(
    "record",
    [
        create(3, b"a"),
        create(3, b"x", parent=9),
        create(4, b"new"),
        rename(2, b"b", b"c"),
        rename(2, b"a", b"d"),
        rename(2, b"a", b"d", replaced=4),
        Record(0, K.REMOVE, 4, ROOT, b"d"),
        Record(0, K.LINK, 4, ROOT, b"e"),
        Record(0, K.STORE, 4),
        Record(0, K.STORE, 9),
        Record(0, K.RENAME, 4, ROOT, b"d", 4, b"inside"),
        Record(0, K.EXCHANGE, 4, ROOT, b"d", 4, b"f", replaced=5),
    ],
    ids=lambda record: f"{record.kind}-{record.node}-{record.name.decode()}",
)
def test_what_posix_refuses(record: Record) -> None:
    before = tree(create(2, b"a"), create(4, b"d"), create(5, b"f", parent=4), directories=[4])
    with pytest.raises(Invalid):
        before.apply(record)

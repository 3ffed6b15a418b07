"""What is remembered of rows is what the rows say, whatever was rolled back in between."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import ABSENT, ROOT, Entry, Kind
from awayfs.ports.remote import Intent
from awayfs.store.db import Database
from awayfs.store.nodes import Node
from awayfs.store.remembered import Remembered
from awayfs.store.store import Store

NODES = range(2, 6)
SEQS = range(1, 7)
STEPS = (
    *("add", "rename", "unname", "link", "update", "there", "move", "gone"),
    *("append", "freeze", "change", "remove", "intend", "clear"),
    *("read", "seen", "seen together", "stale", "freeze two", "remove two"),
)


def add(store: Store, name: bytes) -> Node:
    times = {"atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3, "btime_ns": 4}
    return store.nodes.add(Kind.FILE, 0o644, 1, 1, place=(ROOT, name), **times)  # type: ignore[arg-type]


@contextmanager
def opened() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"{folder}/v", create=True)
        try:
            yield store
        finally:
            store.close()


def state(store: Store) -> list[object]:
    """All that is asked of it; the second time from memory."""
    found: list[object] = [store.journal.get(seq) for seq in SEQS]
    found += [store.intents.get(seq) for seq in SEQS]
    found += [store.nodes.get(node) for node in NODES] + [store.nodes.get(ROOT)]
    found += [store.server.get(node) for node in NODES]
    for names in (store.nodes, store.server):
        found += [names.names(node) for node in NODES]
        found += [names.path(node) for node in NODES]
    return [*found, store.journal.all(), store.intents.all()]


def act(store: Store, step: str, node: int, seq: int, name: bytes) -> None:
    """One step; what makes no sense raises, and is rolled back by itself."""
    journal, nodes, server = store.journal, store.nodes, store.server
    record = journal.get(seq)
    if step == "add":
        add(store, name)
    elif step == "rename":
        nodes.move_name(*nodes.names(node)[0], ROOT, name)
    elif step == "unname":
        nodes.remove_name(*nodes.names(node)[0])
    elif step == "link":
        nodes.add_name(ROOT, name, node)
    elif step == "update":
        nodes.update(node, size=seq)
    elif step == "append":
        journal.append(RecordKind.CREATE, node, parent=ROOT, name=name)
    elif step == "freeze":
        journal.set_state(seq, RecordState.FROZEN)
    elif step == "change":
        assert record is not None
        journal.replace(Record(seq, record.kind, record.node, ROOT, name, state=record.state))
    elif step == "remove":
        journal.remove([seq])
    elif step == "freeze two":
        journal.set_states((seq, min(SEQS)), RecordState.FROZEN)
    elif step == "remove two":
        journal.remove([seq, min(SEQS)])  # they may be one
    elif step == "intend":
        assert record is not None
        store.intents.set(seq, Intent(name.decode(), name, ABSENT), "staging")
    elif step == "clear":
        store.intents.clear(seq)
    elif step == "there":
        server.set(node, Entry(name, Kind.FILE, 0o600, 1, 2, 3, 4, name), seen_ns=1)
        server.add_name(ROOT, name, node)
    elif step == "read":
        server.set_digest(node, name)
    elif step == "seen":
        server.touch(node, seq)
    elif step == "seen together":
        server.touch_all([node, min(NODES)], seq)
    elif step == "stale":
        server.stale_all()
    elif step == "move":
        server.move_name(*server.names(node)[0], ROOT, name)
    else:
        server.forget(node)


one = st.tuples(
    st.sampled_from(STEPS),
    st.sampled_from(NODES),
    st.sampled_from(SEQS),
    st.sampled_from((b"a", b"b", b"c")),
)
MEANINGLESS = (OSError, IndexError, AssertionError)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(one, min_size=1, max_size=5), st.booleans()), max_size=8))
def test_it_is_what_the_rows_say(
    transactions: list[tuple[list[tuple[str, int, int, bytes]], bool]],
) -> None:
    with opened() as store:
        for number in range(3):
            store.journal.append(RecordKind.STORE, add(store, b"%d" % number).id)
        for steps, kept in transactions:
            try:
                with store.transaction():
                    for step in steps:
                        act(store, *step)
                        within = state(store)
                        store.db.forget()
                        assert state(store) == within
                        state(store)
                    if not kept:
                        raise IndexError
            except MEANINGLESS:
                pass
            after = state(store)
            store.db.forget()
            assert state(store) == after


def test_a_number_that_was_rolled_back_is_another_records() -> None:
    with opened() as store:
        with pytest.raises(IndexError), store.transaction():
            lost = store.journal.append(RecordKind.STORE, 7)
            assert store.journal.get(lost.seq) == lost
            raise IndexError
        assert store.journal.get(lost.seq) is None
        assert store.journal.append(RecordKind.STORE, 8).seq == lost.seq
        found = store.journal.get(lost.seq)
        assert found is not None and found.node == 8


def test_a_base_is_known_again_when_its_end_is_rolled_back() -> None:
    with opened() as store:
        node = add(store, b"f").id
        store.content.create(node, 1, 1)
        with pytest.raises(IndexError), store.transaction():
            assert store.content.keep_base(node, 1 << 20)
            raise IndexError
        assert store.content.base_path(node) is None
        assert store.content.keep_base(node, 1 << 20)
        path = store.content.base_path(node)
        with pytest.raises(IndexError), store.transaction():
            store.content.drop_base(node)
            assert store.content.base_path(node) is None
            raise IndexError
        assert path is not None and store.content.base_path(node) == path
        with open(path, "rb") as file:
            assert file.read() == b""


def test_of_too_many_the_oldest_go(tmp_path: object) -> None:
    db = Database.open(f"{tmp_path}/db")
    known = Remembered[int, int](db)
    for number in range(10_000):
        known.keep(number, number)
    assert len(known) <= 8192 and 9_999 in known and 0 not in known
    db.forget()
    assert not known
    db.close()

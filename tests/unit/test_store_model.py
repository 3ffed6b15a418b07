"""The store against a plain model: any sequence of operations, rollbacks and reopenings."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Kind, Range
from awayfs.store.fsck import check
from awayfs.store.ranges import RangeMap, pack, unpack
from awayfs.store.store import Store

TIMES = {"atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3, "btime_ns": 4}
NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff"])
PICK = st.integers(0, 1000)
EDGE = st.integers(0, 40)


class Model(RuleBasedStateMachine):
    """Model: names, kinds and bytes held as plain dictionaries and sets."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="awayfs-model-")
        self.store = Store.open(self.directory, create=True)
        self.kinds: dict[int, Kind] = {ROOT: Kind.DIRECTORY}
        self.names: dict[tuple[int, bytes], int] = {}
        self.held: dict[int, set[int]] = {}
        self.stores: dict[int, list[int]] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    def pick(self, number: int, kind: Kind) -> int | None:
        nodes = [node for node, k in self.kinds.items() if k is kind]
        return nodes[number % len(nodes)] if nodes else None

    @rule(directory=PICK, name=NAMES, kind=st.sampled_from([Kind.FILE, Kind.DIRECTORY]))
    def create(self, directory: int, name: bytes, kind: Kind) -> None:
        parent = self.pick(directory, Kind.DIRECTORY) or ROOT
        try:
            with self.store.transaction():
                node = self.store.nodes.add(kind, 0o644, 0, 0, **TIMES).id
                self.store.nodes.add_name(parent, name, node)
        except FileExistsError:
            assert (parent, name) in self.names
            return
        assert (parent, name) not in self.names
        self.names[parent, name] = node
        self.kinds[node] = kind

    @rule(directory=PICK, name=NAMES, file=PICK)
    def link(self, directory: int, name: bytes, file: int) -> None:
        parent, node = self.pick(directory, Kind.DIRECTORY) or ROOT, self.pick(file, Kind.FILE)
        if node is not None and (parent, name) not in self.names:
            self.store.nodes.add_name(parent, name, node)
            self.names[parent, name] = node

    @rule(number=PICK, directory=PICK, name=NAMES)
    def move(self, number: int, directory: int, name: bytes) -> None:
        if not self.names:
            return
        old = list(self.names)[number % len(self.names)]
        parent = self.pick(directory, Kind.DIRECTORY) or ROOT
        node = self.names[old]
        try:
            self.store.nodes.move_name(*old, parent, name)
        except FileExistsError:
            assert (parent, name) in self.names
        except OSError:
            assert self.store.nodes.is_ancestor(node, parent)
        else:
            self.names[parent, name] = self.names.pop(old)

    @rule(number=PICK)
    def remove(self, number: int) -> None:
        if not self.names:
            return
        place = list(self.names)[number % len(self.names)]
        node = self.names[place]
        if any(parent == node for parent, _ in self.names):
            return
        del self.names[place]
        gone = node not in self.names.values()
        with self.store.transaction():
            self.store.nodes.remove_name(*place)
            if gone:
                self.store.journal.remove(self.stores.pop(node, []))
                self.store.nodes.remove(node)
        if gone:
            del self.kinds[node]
            self.held.pop(node, None)

    @rule(file=PICK, start=EDGE, end=EDGE)
    def write(self, file: int, start: int, end: int) -> None:
        node = self.pick(file, Kind.FILE)
        if node is not None:
            with self.store.transaction():
                fd = self.store.content.open(node)
                os.pwrite(fd, b"x" * max(end - start, 0), start)
                os.close(fd)
                self.store.content.add_range(node, start, end)
                self.store.nodes.update(node, size=end)
                record = self.store.journal.append(RecordKind.STORE, node)
            self.held.setdefault(node, set()).update(range(start, end))
            self.stores.setdefault(node, []).append(record.seq)

    @rule(file=PICK, size=EDGE)
    def truncate(self, file: int, size: int) -> None:
        node = self.pick(file, Kind.FILE)
        if node in self.held:
            assert node is not None
            self.store.content.truncate_ranges(node, size)
            self.held[node] = {at for at in self.held[node] if at < size}

    @rule(file=PICK, size=EDGE)
    def roll_back(self, file: int, size: int) -> None:
        """A transaction that does much and fails leaves no trace."""
        node = self.pick(file, Kind.FILE)
        with pytest.raises(ZeroDivisionError), self.store.transaction():
            made = self.store.nodes.add(Kind.DIRECTORY, 0, 0, 0, **TIMES)
            self.store.nodes.add_name(ROOT, b"rolled back", made.id)
            if node is not None:
                self.store.content.add_range(node, size, size + 5)
                self.store.content.truncate_ranges(node, size // 2)
                self.store.journal.append(RecordKind.STORE, node)
                self.store.nodes.update(node, size=size)
                self.store.journal.remove(self.stores.get(node, []))
                self.store.content.drop(node)
                self.store.content.mark_unsynced(node)
            raise ZeroDivisionError

    @rule()
    def sync(self) -> None:
        self.store.sync()
        assert self.store.content.unsynced() == []

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store.open(self.directory, create=False)

    @invariant()
    def agrees(self) -> None:
        store = self.store
        assert [p for p in check(store) if not p.leftover] == []
        for (parent, name), node in self.names.items():
            assert store.nodes.child_id(parent, name) == node
        assert store.nodes.count() == len(self.kinds)
        for node, held in self.held.items():
            assert {at for r in store.content.ranges(node) for at in range(r.start, r.end)} == held
            for at in (0, 7, 39):
                assert store.content.covers(node, at, at + 1) == (at in held)
        assert store.content.usage() == sum(map(len, self.held.values()))
        assert store.journal.count() == sum(map(len, self.stores.values()))
        sizes = [store.nodes.get(node) for node in self.stores]
        assert store.journal.pending_bytes() == sum(node.size for node in sizes if node)
        for node in self.kinds:
            assert store.journal.has_store(node) == bool(self.stores.get(node))


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)


class RangeModel(RuleBasedStateMachine):
    """A range map against a set of offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.model = RangeMap(), set[int]()

    @rule(start=EDGE, length=st.integers(1, 12))
    def add(self, start: int, length: int) -> None:
        self.map.add(start, start + length)
        self.model.update(range(start, start + length))

    @rule(size=EDGE)
    def truncate(self, size: int) -> None:
        gone = self.map.truncate(size)
        assert gone == len({at for at in self.model if at >= size})
        self.model = {at for at in self.model if at < size}

    @rule(start=EDGE, end=EDGE)
    def missing(self, start: int, end: int) -> None:
        gaps = self.map.missing(start, end)
        assert {at for r in gaps for at in range(r.start, r.end)} == (
            set(range(start, end)) - self.model
        )
        assert self.map.covers(start, end) == (not gaps)

    @invariant()
    def is_normal(self) -> None:
        ranges = self.map.ranges()
        assert {at for r in ranges for at in range(r.start, r.end)} == self.model
        edges = [edge for r in ranges for edge in (r.start, r.end)]
        assert edges == sorted(set(edges)) and self.map.total() == len(self.model)
        assert unpack(pack(ranges)) == ranges


TestRanges = RangeModel.TestCase


def test_a_blob_of_odd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        unpack(pack([Range(1, 2)])[:8])

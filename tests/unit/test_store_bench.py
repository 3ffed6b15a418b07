"""What the store's operations cost: printed (``pytest -s``), asserted only by magnitude."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Entry, Kind
from awayfs.store.store import Store

TIMES = {"atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3, "btime_ns": 4}


def measure(what: str, call: Callable[[int], object], count: int) -> float:
    begin = time.perf_counter()
    for n in range(count):
        call(n)
    each = (time.perf_counter() - begin) / count * 1e6
    print(f"{what:32} {each:9.1f} µs")
    return each


@pytest.mark.slow
def test_cost_of_operations(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)

    def create(n: int) -> None:
        with store.transaction():
            node = store.nodes.add(Kind.FILE, 0o644, 0, 0, **TIMES).id
            store.nodes.add_name(ROOT, b"file %d" % n, node)
            store.journal.append(RecordKind.CREATE, node, parent=ROOT, name=b"file %d" % n)

    def write(n: int) -> None:
        with store.transaction():
            store.content.add_range(2, n * 4096, n * 4096 + 4096)
            store.nodes.update(2, size=n * 4096 + 4096, mtime_ns=n, ctime_ns=n)
            if not store.journal.has_store(2):
                store.journal.append(RecordKind.STORE, 2)

    entry = Entry(b"f", Kind.FILE, 0o644, 0, 0, 1, 2, b"token", file_id=b"id")
    print()
    slowest = measure("create (node, name, record)", create, 5000)
    measure("nodes.child", lambda n: store.nodes.child(ROOT, b"file %d" % n), 5000)
    measure("nodes.child_id", lambda n: store.nodes.child_id(ROOT, b"file %d" % n), 5000)
    measure("nodes.get", lambda n: store.nodes.get(n + 2), 5000)
    measure("nodes.path", lambda n: store.nodes.path(n + 2), 5000)
    measure("nodes.update", lambda n: store.nodes.update(n + 2, mtime_ns=n), 5000)
    measure("server.set", lambda n: store.server.set(n + 2, entry, seen_ns=n), 5000)
    measure("server.get", lambda n: store.server.get(n + 2), 5000)
    measure("content.open (new)", lambda n: os.close(store.content.open(n + 2)), 2000)
    measure("write (range, size, has_store)", write, 5000)
    measure("content.covers", lambda n: store.content.covers(2, n, n + 4096), 5000)
    measure("content.add_range (there)", lambda n: store.content.add_range(2, n, n + 9), 5000)
    measure("journal.has_any", lambda n: store.journal.has_any(n), 5000)
    measure("sync (2000 empty files)", lambda n: store.sync(), 1)
    print(f"{'log':32} {store.wal_bytes() / 2**20:9.1f} MiB")
    measure("checkpoint", lambda n: store.checkpoint(), 1)
    measure("close", lambda n: store.close(), 1)
    assert slowest < 10_000


@pytest.mark.slow
def test_a_hundred_thousand_nodes(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    entry = Entry(b"f", Kind.FILE, 0o644, 0, 0, 1, 2, b"token", file_id=b"id")
    for start in range(0, 100_000, 1000):
        with store.transaction():
            directory = store.nodes.add(Kind.DIRECTORY, 0o755, 0, 0, **TIMES).id
            store.nodes.add_name(ROOT, b"d%d" % start, directory)
            for n in range(start, start + 1000):
                node = store.nodes.add(Kind.FILE, 0o644, 0, 0, **TIMES).id
                store.nodes.add_name(directory, b"a file's name %d" % n, node)
                store.server.set(node, entry, seen_ns=n)
                store.server.add_name(directory, b"a file's name %d" % n, node)
                store.content.set_token(node, b"token")
                store.content.add_range(node, 0, 100)
                if n % 4 == 0:
                    store.journal.append(RecordKind.STORE, node)
        store.checkpoint()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\nmemory grew by {(after - before) / 1024:.0f} MiB")
    print(f"database {os.stat(store.db.path).st_size / 2**20:.0f} MiB")
    measure("sync (100,000 rows)", lambda n: store.sync(), 1)
    measure("usage (first)", lambda n: store.content.usage(), 1)
    measure("by_use(100)", lambda n: store.content.last_used.in_order((-1, 0), 100), 1)
    measure("children(1000)", lambda n: store.nodes.children(2), 1)
    measure("stale_all", lambda n: store.server.stale_all(), 1)
    measure("quick_check", lambda n: store.db.quick_check(), 1)
    measure("close", lambda n: store.close(), 1)
    begin = time.perf_counter()
    store = Store.open(str(tmp_path / "v"), create=False)
    took = time.perf_counter() - begin
    print(f"{'open':32} {took * 1e3:9.1f} ms")
    store.close()
    assert took < 5

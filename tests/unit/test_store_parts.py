"""Tables of small cases for each part of the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from awayfs.core.errors import StoreError, StoreInUse
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import ABSENT, ROOT, Attributes, Entry, Expected, Kind, Range
from awayfs.ports.remote import Intent
from awayfs.store import server as server_module
from awayfs.store.fsck import check
from awayfs.store.journal import Journal
from awayfs.store.nodes import Node
from awayfs.store.server import ServerView
from awayfs.store.store import Store

TIMES = {"atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3, "btime_ns": 4}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(str(tmp_path / "v"), create=True)
    yield store
    store.close()


def add(store: Store, name: bytes, parent: int = ROOT, kind: Kind = Kind.FILE) -> Node:
    with store.transaction():
        node = store.nodes.add(kind, 0o640, 10, 20, **TIMES)
        store.nodes.add_name(parent, name, node.id)
    found = store.nodes.get(node.id)
    assert found is not None
    return found


def write(store: Store, node: int, data: bytes, at: int = 0) -> None:
    fd = store.content.open(node)
    os.pwrite(fd, data, at)
    os.close(fd)
    store.content.add_range(node, at, at + len(data))


def entry(token: bytes = b"t", **fields: object) -> Entry:
    return Entry(b"n", Kind.FILE, 0o600, 1, 2, 3, 4, token, **fields)  # type: ignore[arg-type]


def links(store: Store, node: int) -> int:
    found = store.nodes.get(node)
    assert found is not None
    return found.nlink


# -- nodes and names ------------------------------------------------------------------------


def test_the_root_is_there(store: Store) -> None:
    root = store.nodes.get(ROOT)
    assert root is not None and root.kind is Kind.DIRECTORY and root.nlink == 2
    assert store.nodes.path(ROOT) == b"" and store.nodes.resolve(b"") == root
    assert store.nodes.count() == 1 and store.nodes.orphans() == []


def test_names_lead_to_nodes(store: Store) -> None:
    d = add(store, b"d", kind=Kind.DIRECTORY)
    f = add(store, b"f", d.id)
    assert store.nodes.child(d.id, b"f") == f and store.nodes.child_id(d.id, b"f") == f.id
    assert store.nodes.child(d.id, b"g") is None
    assert store.nodes.children(ROOT) == [(b"d", store.nodes.get(d.id))]
    assert store.nodes.path(f.id) == b"d/f" and store.nodes.resolve(b"d/f") == f
    assert store.nodes.parent(f.id) == d.id and store.nodes.names(f.id) == [(d.id, b"f")]
    assert store.nodes.is_ancestor(d.id, f.id) and store.nodes.is_ancestor(ROOT, f.id)
    assert not store.nodes.is_ancestor(f.id, d.id)


def test_link_counts(store: Store) -> None:
    d = add(store, b"d", kind=Kind.DIRECTORY)
    e = add(store, b"e", kind=Kind.DIRECTORY)
    f = add(store, b"f")
    assert links(store, ROOT) == 4
    store.nodes.add_name(d.id, b"f2", f.id)
    assert links(store, f.id) == 2 and links(store, d.id) == 2
    store.nodes.move_name(ROOT, b"e", d.id, b"e")
    assert (links(store, ROOT), links(store, d.id)) == (3, 3)
    store.nodes.remove_name(d.id, b"e")
    assert links(store, d.id) == 2 and store.nodes.path(e.id) is None
    assert store.nodes.orphans() == [e.id]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s, d, f: s.nodes.add_name(ROOT, b"f", f.id), FileExistsError),
        (lambda s, d, f: s.nodes.add_name(ROOT, b"x", d.id), PermissionError),
        (lambda s, d, f: s.nodes.add_name(ROOT, b"x", 999), FileNotFoundError),
        (lambda s, d, f: s.nodes.remove_name(ROOT, b"x"), FileNotFoundError),
        (lambda s, d, f: s.nodes.move_name(ROOT, b"f", ROOT, b"d"), FileExistsError),
        (lambda s, d, f: s.nodes.move_name(ROOT, b"x", ROOT, b"y"), FileNotFoundError),
        (lambda s, d, f: s.nodes.move_name(ROOT, b"d", d.id, b"y"), OSError),
        (lambda s, d, f: s.nodes.update(f.id, nlink=3), ValueError),
        (lambda s, d, f: s.nodes.update(999, mode=3), FileNotFoundError),
    ],
)
def test_what_names_refuse(store: Store, call: object, error: type[Exception]) -> None:
    d, f = add(store, b"d", kind=Kind.DIRECTORY), add(store, b"f")
    with pytest.raises(error):
        call(store, d, f)  # type: ignore[operator]
    assert check(store) == []


def test_remove_takes_everything_of_a_node(store: Store) -> None:
    f = add(store, b"f")
    write(store, f.id, b"abc")
    store.content.keep_base(f.id, 100)
    store.server.set(f.id, entry(), seen_ns=1)
    store.server.add_name(ROOT, b"f", f.id)
    store.nodes.set_xattr(f.id, b"user.a", b"1")
    store.pins.add(f.id, 1, False)
    paths = [store.content.fd_path(f.id), store.content.base_path(f.id) or ""]
    with store.transaction():
        store.nodes.remove(f.id)
        assert all(map(os.path.exists, paths))
    assert not any(map(os.path.exists, paths))
    assert store.nodes.get(f.id) is None and store.server.get(f.id) is None
    assert store.server.child(ROOT, b"f") is None and store.pins.get(f.id) is None
    assert check(store) == []


def test_ids_are_not_used_again(store: Store) -> None:
    f = add(store, b"f")
    store.nodes.remove(f.id)
    assert add(store, b"g").id > f.id


def test_xattrs(store: Store) -> None:
    f = add(store, b"f")
    store.nodes.set_xattr(f.id, b"user.a", b"1")
    store.nodes.set_xattr(f.id, b"user.a", b"2")
    store.nodes.set_xattr(f.id, b"user.b", b"")
    assert store.nodes.xattrs(f.id) == {b"user.a": b"2", b"user.b": b""}
    store.nodes.set_xattr(f.id, b"user.a", None)
    assert store.nodes.xattrs(f.id) == {b"user.b": b""}


# -- the server's view ----------------------------------------------------------------------


def test_a_digest_stays_while_the_token_does(store: Store) -> None:
    store.server.set(5, entry(b"1"), seen_ns=1, digest=b"d")
    store.server.set(5, entry(b"1"), seen_ns=2)
    found = store.server.get(5)
    assert found is not None and found.digest == b"d" and found.seen_ns == 2
    assert found.entry(b"n") == entry(b"1")
    store.server.set(5, entry(b"2"), seen_ns=3)
    found = store.server.get(5)
    assert found is not None and found.digest is None


def test_server_entries_come_back_as_they_went(store: Store) -> None:
    full = entry(file_id=b"i", weak=True, nlink=2, rdev=9, target=b"x", ctime_ns=7, btime_ns=8)
    store.server.set(5, full, seen_ns=1)
    found = store.server.get(5)
    assert found is not None and found.entry(b"n") == full
    assert store.server.by_file_id(b"i") == 5 and store.server.by_file_id(b"j") is None


@pytest.mark.parametrize(
    ("change", "goes"),
    [
        (lambda v: v.set(5, entry(b"other"), seen_ns=2), True),
        (lambda v: v.set(5, entry(), seen_ns=2), True),  # as before, but nobody compared
        (lambda v: v.forget(5), True),
        (lambda v: v.purge(5), True),
        (lambda v: v.add_name(4, b"more", 5), True),
        (lambda v: v.remove_name(4, b"n"), True),
        (lambda v: v.move_name(4, b"n", 4, b"other"), True),
        (lambda v: v.move_name(4, b"n", 6, b"n"), True),
        (lambda v: v.touch(5, 0), True),
        (lambda v: v.set_listed(4, 9), True),
        (lambda v: v.set_listed(4, None), True),
        (lambda v: v.forget(4), True),
        (lambda v: v.forget_fingerprints(), True),
        (lambda v: v.touch(5, 9), False),
        (lambda v: v.set_digest(5, b"d"), False),
        (lambda v: v.stale_all(), False),
        (lambda v: v.set(7, entry(), seen_ns=2), False),
        (lambda v: v.add_name(6, b"x", 7), False),
        (lambda v: v.listed_again(4, 9, b"print"), False),
    ],
)
def test_a_fingerprint_goes_with_what_was_known(
    store: Store, change: Callable[[ServerView], object], goes: bool
) -> None:
    store.server.set(5, entry(), seen_ns=1)
    store.server.add_name(4, b"n", 5)
    store.server.set_listed(4, 8, b"print")
    assert store.server.fingerprint(4) == b"print"
    change(store.server)
    assert store.server.fingerprint(4) == (None if goes else b"print")


def test_a_listing_that_was_as_known_is_when_its_entries_were_seen(store: Store) -> None:
    store.server.set(5, entry(), seen_ns=1)
    store.server.add_name(4, b"n", 5)
    store.server.set_listed(4, 8)
    assert store.server.seen_ns(5) == 1 and store.server.seen_ns(6) is None
    store.server.set_listed(4, 8, b"print")
    assert store.server.seen_ns(5) == 8
    assert not store.server.listed_again(4, 9, b"other") and store.server.seen_ns(5) == 8
    assert store.server.listed_again(4, 9, b"print") and store.server.seen_ns(5) == 9
    store.server.touch(5, 10)
    assert store.server.seen_ns(5) == 10
    store.server.stale_all()
    assert store.server.seen_ns(5) == 0 and store.server.fingerprint(4) == b"print"


def test_stale_all(store: Store) -> None:
    store.server.set(5, entry(), seen_ns=1)
    store.server.set_listed(ROOT, 9)
    assert store.server.listed_ns(ROOT) == 9 and store.server.listed_ns(5) is None
    with pytest.raises(KeyError), store.transaction():
        store.server.stale_all()
        raise KeyError
    assert store.server.listed_ns(ROOT) == 9
    store.server.stale_all()
    found = store.server.get(5)
    assert store.server.listed_ns(ROOT) == 0 and found is not None and found.seen_ns == 0
    store.server.touch(5, 11)
    found = store.server.get(5)
    assert found is not None and found.seen_ns == 11
    store.server.set_listed(ROOT, None)
    assert store.server.listed_ns(ROOT) is None


def test_server_names(store: Store) -> None:
    store.server.add_name(ROOT, b"d", 5)
    store.server.add_name(5, b"f", 6)
    assert store.server.path(6) == b"d/f" and store.server.children(5) == [(b"f", 6)]
    store.server.move_name(5, b"f", ROOT, b"g")
    assert store.server.path(6) == b"g" and store.server.names(6) == [(ROOT, b"g")]
    store.server.forget(6)
    assert store.server.child(ROOT, b"g") is None
    with pytest.raises(FileExistsError):
        store.server.add_name(ROOT, b"d", 7)


def test_what_the_server_has_and_is_not_the_same_here(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PAGE", 2)
    here = {name: add(store, name).id for name in (b"n0", b"n1", b"n3", b"n4", b"here alone")}
    there = [here[b"n0"], here[b"n1"], 12, here[b"n3"], 14]  # n4 here is another one
    for number, node in enumerate(there):
        store.server.add_name(ROOT, b"n%d" % number, node)
    assert [list(page) for page in store.server.not_here(ROOT)] == [
        [],
        [(b"n2", 12)],
        [(b"n4", 14)],
    ]
    assert list(store.server.not_here(5)) == []


def test_what_is_here_under_a_name_that_the_server_has_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PAGE", 2)
    nodes = [add(store, b"n%d" % number).id for number in range(5)]
    store.server.add_name(ROOT, b"n0", nodes[0])
    for number in (0, 1, 3, 4):  # the other was made here
        store.server.set(nodes[number], entry(), seen_ns=1)
    for number in (1, 4):
        store.server.add_name(5, b"n%d" % number, nodes[number])
    found = [row for page in store.server.only_here(ROOT) for row in page]
    assert found == [(b"n1", nodes[1]), (b"n3", nodes[3]), (b"n4", nodes[4])]


# -- journal and intents --------------------------------------------------------------------


def test_records_come_back_as_they_went(store: Store) -> None:
    a = store.journal.append(RecordKind.CREATE, 5, parent=ROOT, name=b"f", at_ns=7)
    b = store.journal.append(RecordKind.SETATTR, 5, attributes=Attributes(mode=1, atime_ns=2))
    c = store.journal.append(
        RecordKind.RENAME, 5, parent=ROOT, name=b"f", to_parent=ROOT, to_name=b"g", replaced=6
    )
    d = store.journal.append(RecordKind.SETXATTR, 5, xattr_name=b"user.a", xattr_value=b"")
    assert store.journal.all() == [a, b, c, d]
    assert store.journal.all(limit=1, after=a.seq) == [b]
    assert store.journal.of_node(6) == [c] and store.journal.of_node(5) == [a, b, c, d]
    assert store.journal.touching_name(ROOT, b"g") == [c]
    assert store.journal.touching_name(ROOT, b"f") == [a, c]
    assert store.journal.inside(ROOT) == [a, c]
    store.journal.set_state(b.seq, RecordState.PARKED, "why")
    found = store.journal.get(b.seq)
    assert found is not None and (found.state, found.reason) == (RecordState.PARKED, "why")
    assert store.journal.counts()[RecordState.PARKED] == 1 and store.journal.count() == 4
    store.journal.remove([a.seq, b.seq, c.seq, d.seq, 999])
    assert store.journal.count() == 0 and not store.journal.has_any(6)
    assert store.journal.append(RecordKind.STORE, 5).seq > d.seq


@pytest.mark.parametrize(
    ("ends", "goes"),
    [
        (lambda journal, record: journal.remove([record.seq]), True),
        (lambda journal, record: journal.replace(replace(record, parent=4)), True),
        (lambda journal, record: journal.set_state(record.seq, RecordState.PARKED), False),
    ],
)
def test_directories_are_listed_in_full_when_a_record_says_no_more_of_their_names(
    store: Store, ends: Callable[[Journal, Record], object], goes: bool
) -> None:
    record = store.journal.append(
        RecordKind.RENAME, 5, parent=2, name=b"a", to_parent=3, to_name=b"b"
    )
    for directory in (2, 3, 4):
        store.server.set_listed(directory, 8, b"print")
    ends(store.journal, record)
    kept = [store.server.fingerprint(directory) is not None for directory in (2, 3, 4)]
    assert kept == [not goes, not goes, True]


def test_pending_bytes_follow_sizes(store: Store) -> None:
    f = add(store, b"f")
    store.nodes.update(f.id, size=10)
    first = store.journal.append(RecordKind.STORE, f.id)
    second = store.journal.append(RecordKind.STORE, f.id)
    assert store.journal.pending_bytes() == 10
    store.nodes.update(f.id, size=30)
    store.journal.remove([first.seq])
    assert store.journal.pending_bytes() == 30 and store.journal.has_store(f.id)
    store.journal.remove([second.seq])
    assert store.journal.pending_bytes() == 0 and not store.journal.has_store(f.id)


def test_the_index_rolls_back(store: Store) -> None:
    f = add(store, b"f")
    store.nodes.update(f.id, size=10)
    kept = store.journal.append(RecordKind.STORE, f.id)
    with pytest.raises(KeyError), store.transaction():
        store.nodes.update(f.id, size=99)
        store.journal.remove([kept.seq])
        store.journal.append(RecordKind.CREATE, 77, parent=ROOT, name=b"x")
        store.journal.set_state(store.journal.append(RecordKind.STORE, 77).seq, RecordState.FROZEN)
        raise KeyError
    assert store.journal.has_store(f.id) and not store.journal.has_any(77)
    assert store.journal.pending_bytes() == 10 and store.journal.count() == 1
    assert store.journal.counts()[RecordState.FROZEN] == 0


def test_intents(store: Store) -> None:
    intent = Intent("op", b"a/b", Expected(b"t", b"i", Kind.FILE), b"c", ABSENT, entry())
    store.intents.set(4, intent, "sent")
    assert store.intents.get(4) == (intent, "sent") and store.intents.all() == [(4, intent, "sent")]
    store.intents.clear(4)
    assert store.intents.get(4) is None


# -- content --------------------------------------------------------------------------------


def test_content_of_a_file(store: Store) -> None:
    f = add(store, b"f")
    assert not store.content.covers(f.id, 0, 1) and store.content.covers(f.id, 0, 0)
    with pytest.raises(FileNotFoundError):
        store.content.open(f.id, create=False)
    write(store, f.id, b"abcd", 10)
    write(store, f.id, b"ab", 0)
    assert store.content.ranges(f.id) == [Range(0, 2), Range(10, 14)]
    assert store.content.missing(f.id, 0, 20) == [Range(2, 10), Range(14, 20)]
    assert store.content.usage() == 6 and store.content.unsynced() == [f.id]
    store.content.truncate_ranges(f.id, 12)
    assert store.content.usage() == 4 and store.content.ranges(f.id)[-1] == Range(10, 12)
    store.content.set_token(f.id, b"t")
    assert store.content.token(f.id) == b"t"
    assert os.stat(store.content.fd_path(f.id)).st_mode & 0o777 == 0o600


def test_drop_and_reopen_in_one_transaction(store: Store) -> None:
    f = add(store, b"f")
    write(store, f.id, b"old")
    with pytest.raises(KeyError), store.transaction():
        store.content.drop(f.id)
        write(store, f.id, b"n")
        raise KeyError
    with open(store.content.fd_path(f.id), "rb") as file:
        assert file.read() == b"old"
    assert store.content.ranges(f.id) == [Range(0, 3)]
    with store.transaction():
        store.content.drop(f.id)
        write(store, f.id, b"n")
    with open(store.content.fd_path(f.id), "rb") as file:
        assert file.read() == b"n"
    assert all(problem.leftover for problem in check(store))


def staged(store: Store, data: bytes) -> str:
    path = store.content.stage_path()
    Path(path).write_bytes(data)
    return path


def test_replace_with(store: Store) -> None:
    f = add(store, b"f")
    write(store, f.id, b"old")
    path = staged(store, b"newer")
    with pytest.raises(KeyError), store.transaction():
        store.content.replace_with(f.id, path, 5, b"t")
        raise KeyError
    assert Path(store.content.fd_path(f.id)).read_bytes() == b"old" and os.path.exists(path)
    store.content.replace_with(f.id, path, 5, b"t")
    assert Path(store.content.fd_path(f.id)).read_bytes() == b"newer"
    assert store.content.token(f.id) == b"t" and store.content.covers(f.id, 0, 5)
    assert check(store) == []


def test_a_file_without_a_row_is_kept(store: Store, tmp_path: Path) -> None:
    """It may be unsent content of a node that a damaged log forgot."""
    f = add(store, b"f")
    Path(store.content.fd_path(f.id)).write_bytes(b"unsent")
    write(store, f.id, b"new")
    assert Path(store.content.fd_path(f.id)).read_bytes() == b"new"
    lost = tmp_path / "v" / "lost+found" / f"content-{f.id}"
    assert lost.read_bytes() == b"unsent"


def test_a_rollback_leaves_no_file(store: Store) -> None:
    f = add(store, b"f")
    with pytest.raises(KeyError), store.transaction():
        write(store, f.id, b"x")
        raise KeyError
    assert not os.path.exists(store.content.fd_path(f.id)) and check(store) == []


def test_each_hears_of_a_commit_whatever_another_raises(store: Store) -> None:
    """A content that was to go then would stay, and so would all that are to go after it."""

    def fails() -> None:
        raise OSError("no room")

    nodes = [add(store, name) for name in (b"f", b"g")]
    for node in nodes:
        write(store, node.id, b"data")
    paths = [store.content.fd_path(node.id) for node in nodes]
    with pytest.raises(OSError, match="no room"), store.transaction():
        store.db.on_commit(fails)
        store.content.drop(nodes[0].id)
    store.content.drop(nodes[1].id)
    assert not any(map(os.path.exists, paths))
    assert check(store) == []


def test_base(store: Store) -> None:
    f = add(store, b"f")
    assert not store.content.keep_base(f.id, 10)
    write(store, f.id, b"abc")
    store.content.set_token(f.id, b"t")
    with open(store.content.fd_path(f.id), "rb+") as file:
        file.truncate(3)
    assert store.content.keep_base(f.id, 10)
    write(store, f.id, b"XYZ")
    assert store.content.keep_base(f.id, 10)
    assert Path(store.content.base_path(f.id) or "").read_bytes() == b"abc"
    assert store.content.base_token(f.id) == b"t"
    assert store.content.base_ranges(f.id) == [Range(0, 3)]
    store.sync()
    assert store.content.bases.unsynced() == []
    store.content.drop_base(f.id)
    assert store.content.base_path(f.id) is None and check(store) == []


def test_content_by_use(store: Store) -> None:
    nodes = [add(store, b"f%d" % n) for n in range(6)]
    for n, node in enumerate(nodes):
        if n != 4:
            write(store, node.id, b"x" * (n + 1))
        store.content.last_used.mark(node.id, 100 - n)
    uses = store.content.last_used.in_order((-1, 0), 9)
    assert [(use.node, use.bytes) for use in uses] == [
        (nodes[n].id, n + 1) for n in (5, 3, 2, 1, 0)
    ]
    assert store.content.last_used.in_order((uses[2].used_ns, uses[2].node), 1) == [uses[3]]
    minute = 60_000_000_000
    for ns, count in (
        (2 * minute, 1),
        (2 * minute + 1, 1),
        (4 * minute, 2),
        (10**17, 1),
        (2 * 10**17, 1),
    ):
        store.content.last_used.mark(nodes[0].id, ns)
        assert store.content.last_used.of(nodes[0].id) == ns
        assert {u.node: u.uses for u in store.content.last_used.in_order((-1, 0), 9)}[
            nodes[0].id
        ] == count
    assert store.content.last_used.of(nodes[4].id) == -1


def test_pins_are_inherited_by_any_name(store: Store) -> None:
    d, e = add(store, b"d", kind=Kind.DIRECTORY), add(store, b"e", kind=Kind.DIRECTORY)
    f = add(store, b"f", d.id)
    store.nodes.add_name(e.id, b"f", f.id)
    store.pins.add(e.id, 5, False)
    assert store.pins.is_pinned(e.id) and not store.pins.is_pinned(f.id)
    store.pins.add(e.id, 5, True)
    assert store.pins.is_pinned(f.id) and [pin.node for pin in store.pins.all()] == [e.id]
    with pytest.raises(KeyError), store.transaction():
        store.pins.remove(e.id)
        raise KeyError
    assert store.pins.is_pinned(f.id)


def test_conflicts(store: Store) -> None:
    c = store.conflicts.add(5, "update/update", ROOT, b"f", 9, record_seqs=(1, 2), note="n")
    path = store.conflicts.variant_path(c.id, "server")
    Path(path).write_bytes(b"x")
    store.conflicts.update(c.id, server_variant=path, server_complete=True, server_entry=entry())
    found = store.conflicts.get(c.id)
    assert found is not None and found.server_variant == path and found.record_seqs == (1, 2)
    assert found.server_entry == entry() and found.server_complete
    assert store.conflicts.of_node(5) == store.conflicts.all() == [found]
    store.conflicts.remove(c.id)
    assert store.conflicts.all() == [] and not os.path.exists(path)
    with pytest.raises(ValueError, match="not a variant"):
        store.conflicts.variant_path(c.id, "../x")


def test_facts(store: Store) -> None:
    assert store.facts.get("a") is None
    store.facts.set("a", "1")
    store.facts.set("a", "2")
    assert store.facts.get("a") == "2"


# -- opening --------------------------------------------------------------------------------


def test_modes_and_the_lock(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    with pytest.raises(StoreInUse, match=str(os.getpid())):
        Store.open(str(tmp_path / "v"), create=False)
    assert (tmp_path / "v").stat().st_mode & 0o777 == 0o700
    for name in ("volume.db", "volume.db-wal", "lock", "running"):
        assert (tmp_path / "v" / name).stat().st_mode & 0o777 == 0o600
    store.close()
    store = Store.open(str(tmp_path / "v"), create=False)
    assert store.salvaged is None and store.suspect == []
    store.close()


def test_no_volume(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no volume"):
        Store.open(str(tmp_path), create=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be used"):
        Store.open(str(tmp_path / "file" / "v"), create=True)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), create=True)
    store.db.execute("PRAGMA user_version = 999")
    store.close()
    with pytest.raises(StoreError, match="newer awayfs"):
        Store.open(str(tmp_path), create=False)


def test_suspects_after_a_power_cut(tmp_path: Path) -> None:
    """Clean content that may not have reached the disk is dropped, dirty content reported."""
    store = Store.open(str(tmp_path / "v"), create=True, boot_id="one")
    ids = {}
    for name in (b"settled", b"touched", b"clean", b"dirty"):
        ids[name] = add(store, name).id
        write(store, ids[name], name)
        if name in (b"settled", b"touched"):
            store.sync()
    store.journal.append(RecordKind.STORE, ids[b"dirty"])
    os.utime(store.content.fd_path(ids[b"touched"]), ns=(0, 5))
    crash(store)
    store = Store.open(str(tmp_path / "v"), create=False, boot_id="one")
    assert store.suspect == [] and store.content.has(ids[b"clean"])
    crash(store)
    store = Store.open(str(tmp_path / "v"), create=False, boot_id="two")
    assert store.suspect == [ids[b"dirty"]]
    assert [n for n, i in ids.items() if store.content.has(i)] == [b"settled", b"dirty"]
    assert check(store) == []
    store.close()


def crash(store: Store) -> None:
    """Let go as a killed process does: nothing is written, the log stays."""
    keep = os.open(store.db.wal_path, os.O_RDONLY)
    with open(store.db.wal_path, "rb") as wal, open(store.db.path, "rb") as db:
        saved = wal.read(), db.read()
    store.db.close()
    Path(store.db.path).write_bytes(saved[1])
    Path(store.db.wal_path).write_bytes(saved[0])
    os.close(keep)
    store._lock.release()


# -- stores that may be joined --------------------------------------------------------------


def test_a_store_is_open_until_it_goes_out(store: Store) -> None:
    node = add(store, b"f").id
    journal = store.journal
    assert not journal.has_open_store(node)
    record = journal.append(RecordKind.STORE, node)
    assert journal.has_open_store(node)
    journal.set_state(record.seq, RecordState.FROZEN)
    assert not journal.has_open_store(node), "what is in flight is followed, not joined"
    later = journal.append(RecordKind.STORE, node)
    assert journal.has_open_store(node)
    journal.remove([record.seq])
    assert journal.has_open_store(node), "the later one still waits"
    journal.remove([later.seq])
    assert not journal.has_open_store(node)


def test_a_set_time_closes_the_store_before_it(store: Store) -> None:
    """Else the time would be set again, after the later write went out."""
    node = add(store, b"f").id
    journal = store.journal
    journal.append(RecordKind.STORE, node)
    time = journal.append(RecordKind.SETATTR, node, attributes=Attributes(mtime_ns=1))
    assert not journal.has_open_store(node)
    journal.append(RecordKind.STORE, node)
    assert journal.has_open_store(node)
    journal.remove([time.seq])
    assert journal.has_open_store(node)


def test_open_stores_follow_a_rollback_and_a_reopening(store: Store) -> None:
    node = add(store, b"f").id
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.journal.append(RecordKind.STORE, node)
        raise ZeroDivisionError
    assert not store.journal.has_open_store(node)
    record = store.journal.append(RecordKind.STORE, node)
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.journal.set_state(record.seq, RecordState.FROZEN)
        raise ZeroDivisionError
    assert store.journal.has_open_store(node)
    assert type(store.journal)(store.db).has_open_store(node)


def test_names_that_records_use(store: Store) -> None:
    node = add(store, b"f").id
    journal = store.journal
    assert not journal.uses_name(ROOT, b"a")
    journal.append(RecordKind.RENAME, node, parent=ROOT, name=b"a", to_parent=ROOT, to_name=b"b")
    assert journal.uses_name(ROOT, b"a")
    assert journal.uses_name(ROOT, b"b")
    assert not journal.uses_name(ROOT, b"c")


def test_fsck_finds_a_missing_variant_and_a_stray(store: Store) -> None:
    """A file is where it belongs before the commit that says so: who dies there leaves it."""
    conflict = store.conflicts.add(ROOT, "update/update", ROOT, b"f", 5)
    variant = store.conflicts.variant_path
    for which in ("server", "merged"):
        Path(variant(conflict.id, which)).write_bytes(b"kept")
    shown = {"server_variant": variant(conflict.id, "server"), "server_complete": True}
    store.conflicts.update(conflict.id, **shown)
    assert check(store) == []
    Path(variant(conflict.id, "base")).write_bytes(b"stray")
    Path(variant(99, "server")).write_bytes(b"of another")
    os.unlink(variant(conflict.id, "server"))
    found = check(store, repair=True)
    assert [(problem.rule, problem.leftover) for problem in found] == [
        ("variant", False),
        ("stray", True),
        ("stray", True),
    ]
    again = store.conflicts.get(conflict.id)
    assert again is not None and (again.server_variant, again.server_complete) == (None, False)
    assert check(store) == []
    lost = sorted(os.listdir(f"{store.directory}/lost+found"))
    assert lost == [f"variants-{conflict.id}.base", "variants-99.server"]
    assert Path(variant(conflict.id, "merged")).read_bytes() == b"kept"

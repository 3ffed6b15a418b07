"""Directory diffing: named cases, and the property that the changes yield the listing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from awayfs.core.diff import (
    Change,
    Content,
    Created,
    Joined,
    KnownChild,
    Linked,
    Moved,
    MovedIn,
    Removed,
    Replaced,
    Unchanged,
    Updated,
    as_listed,
    diff_listing,
)
from awayfs.core.types import Entry, Kind


def entry(
    name: bytes,
    file_id: bytes | None = None,
    kind: Kind = Kind.FILE,
    version: int = 0,
    **more: object,
) -> Entry:
    values: dict[str, object] = {
        "name": name,
        "kind": kind,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": 4,
        "mtime_ns": version,
        "token": b"%d" % version,
        "file_id": file_id,
    }
    return Entry(**{**values, **more})  # type: ignore[arg-type]


A1, B2 = entry(b"a", b"1"), entry(b"b", b"2")
A, B = KnownChild(b"a", 11, A1), KnownChild(b"b", 12, B2)
D9 = entry(b"d", b"9", Kind.DIRECTORY)
D = KnownChild(b"d", 19, D9)
NO_IDS = KnownChild(b"a", 11, entry(b"a"))
WEAK = replace(A1, weak=True)
ELSEWHERE = {b"7": 17}


def again(of: Entry, **changes: object) -> Entry:
    return replace(of, **changes)  # type: ignore[arg-type]


CASES: dict[str, tuple[list[KnownChild], list[Entry], list[Change]]] = {
    "nothing": ([], [], []),
    "unchanged": ([A], [A1], [Unchanged(11, A1)]),
    "created": ([A], [A1, B2], [Unchanged(11, A1), Created(B2)]),
    "removed": ([A, B], [A1], [Removed(12, b"b"), Unchanged(11, A1)]),
    "one hard-linked file is known as two": (
        [KnownChild(b"s", 13, entry(b"s", b"7", nlink=2))],
        [entry(b"s", b"7", nlink=2)],
        [Joined(13, 17, entry(b"s", b"7", nlink=2))],
    ),
    "another file has its id by now": (
        [KnownChild(b"s", 13, entry(b"s", b"7"))],
        [entry(b"s", b"7")],
        [Unchanged(13, entry(b"s", b"7"))],
    ),
    "grown": (
        [A],
        [again(A1, size=5, token=b"x")],
        [Updated(11, again(A1, size=5, token=b"x"), Content.CHANGED)],
    ),
    "token alone differs": (
        [A],
        [again(A1, token=b"x")],
        [Updated(11, again(A1, token=b"x"), Content.SUSPECT)],
    ),
    "mode alone differs": (
        [A],
        [again(A1, mode=0o600)],
        [Updated(11, again(A1, mode=0o600), Content.SAME)],
    ),
    "weak then, strong now": (
        [KnownChild(b"a", 11, WEAK)],
        [A1],
        [Updated(11, A1, Content.SUSPECT)],
    ),
    "weak then and now": ([KnownChild(b"a", 11, WEAK)], [WEAK], [Unchanged(11, WEAK)]),
    "an editor's save": (
        [A],
        [entry(b"a", b"3")],
        [Updated(11, entry(b"a", b"3"), Content.CHANGED)],
    ),
    "an editor's save with a backup": (
        [A],
        [entry(b"a", b"3"), entry(b"a~", b"1")],
        [Updated(11, entry(b"a", b"3"), Content.CHANGED), Created(entry(b"a~", b"1"))],
    ),
    "renamed": (
        [A],
        [entry(b"z", b"1")],
        [Moved(11, b"a", entry(b"z", b"1"), Content.SAME)],
    ),
    "renamed and edited": (
        [A],
        [entry(b"z", b"1", version=1)],
        [Moved(11, b"a", entry(b"z", b"1", version=1), Content.CHANGED)],
    ),
    "renamed without ids": (
        [NO_IDS],
        [entry(b"z")],
        [Removed(11, b"a"), Created(entry(b"z"))],
    ),
    "renamed over another": (
        [A, B],
        [entry(b"a", b"2")],
        [Removed(11, b"a"), Moved(12, b"b", entry(b"a", b"2"), Content.SAME)],
    ),
    "swapped": (
        [A, B],
        [entry(b"a", b"2"), entry(b"b", b"1")],
        [
            Moved(12, b"b", entry(b"a", b"2"), Content.SAME),
            Moved(11, b"a", entry(b"b", b"1"), Content.SAME),
        ],
    ),
    "moved in": ([], [entry(b"m", b"7")], [MovedIn(17, entry(b"m", b"7"))]),
    "moved in over another": (
        [A],
        [entry(b"a", b"7")],
        [Removed(11, b"a"), MovedIn(17, entry(b"a", b"7"))],
    ),
    "linked from elsewhere": (
        [],
        [entry(b"m", b"7", nlink=2)],
        [Linked(17, entry(b"m", b"7", nlink=2))],
    ),
    "linked here": (
        [A],
        [again(A1, nlink=2), entry(b"l", b"1", nlink=2)],
        [
            Updated(11, again(A1, nlink=2), Content.SAME),
            Linked(11, entry(b"l", b"1", nlink=2)),
        ],
    ),
    "linked, then the old name removed": (
        [A],
        [entry(b"l", b"1", nlink=2), entry(b"m", b"1", nlink=2)],
        [
            Moved(11, b"a", entry(b"l", b"1", nlink=2), Content.SAME),
            Linked(11, entry(b"m", b"1", nlink=2)),
        ],
    ),
    "a file became a directory": (
        [A],
        [entry(b"a", b"3", Kind.DIRECTORY)],
        [Replaced(b"a", 11, entry(b"a", b"3", Kind.DIRECTORY))],
    ),
    "a directory became a file": (
        [D],
        [entry(b"d", b"3")],
        [Replaced(b"d", 19, entry(b"d", b"3"))],
    ),
    "another directory": (
        [D],
        [entry(b"d", b"3", Kind.DIRECTORY)],
        [Replaced(b"d", 19, entry(b"d", b"3", Kind.DIRECTORY))],
    ),
    "a directory renamed, another in its place": (
        [D],
        [entry(b"d", b"3", Kind.DIRECTORY), entry(b"e", b"9", Kind.DIRECTORY)],
        [
            Created(entry(b"d", b"3", Kind.DIRECTORY)),
            Moved(19, b"d", entry(b"e", b"9", Kind.DIRECTORY), Content.SAME),
        ],
    ),
    "children came to a directory": (
        [D],
        [again(D9, token=b"x")],
        [Updated(19, again(D9, token=b"x"), Content.CHANGED)],
    ),
    "a symlink points elsewhere": (
        [KnownChild(b"s", 13, entry(b"s", None, Kind.SYMLINK, target=b"t"))],
        [entry(b"s", None, Kind.SYMLINK, target=b"u")],
        [Updated(13, entry(b"s", None, Kind.SYMLINK, target=b"u"), Content.CHANGED)],
    ),
    "an id seen with another kind is another object": (
        [A],
        [entry(b"z", b"1", Kind.DIRECTORY)],
        [Removed(11, b"a"), Created(entry(b"z", b"1", Kind.DIRECTORY))],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_named_case(name: str) -> None:
    known, listed, expected = CASES[name]
    assert diff_listing(known, listed, ELSEWHERE.get) == expected


@pytest.mark.parametrize("nlink", [1, 2])
def test_a_name_of_a_file_that_has_another_in_another_directory_is_saved_over(nlink: int) -> None:
    """Whatever its link count: what the other name shows is not changed by it."""
    saved = entry(b"a", b"3", nlink=nlink)
    changes = diff_listing([A], [saved], ELSEWHERE.get, {11: 2}.get)  # type: ignore[arg-type]
    assert changes == [Replaced(b"a", 11, saved)]


N1, N2 = entry(b"a", None), entry(b"b", None)
NEW1, NEW2 = (again(of, size=9, token=b"new") for of in (N1, N2))
WITHOUT_IDS: dict[str, tuple[list[Entry], int, list[Change]]] = {
    "one of two": ([NEW1, N2], 2, [Replaced(b"a", 11, NEW1), Unchanged(11, N2)]),
    "both the same": (
        [NEW1, NEW2],
        2,
        [Updated(11, NEW1, Content.CHANGED), Updated(11, NEW2, Content.CHANGED)],
    ),
    "both, and a third is elsewhere": (
        [NEW1, NEW2],
        3,
        [Replaced(b"a", 11, NEW1), Replaced(b"b", 11, NEW2)],
    ),
    "one, and the other is gone": (
        [NEW1],
        2,
        [Removed(11, b"b"), Updated(11, NEW1, Content.CHANGED)],
    ),
    "attributes of one": (
        [again(N1, mode=0o600), N2],
        2,
        [Updated(11, again(N1, mode=0o600), Content.SAME), Unchanged(11, N2)],
    ),
}


@pytest.mark.parametrize("name", WITHOUT_IDS)
def test_names_of_a_file_without_ids(name: str) -> None:
    """What one of them shows is shown under none of the others."""
    listed, count, expected = WITHOUT_IDS[name]
    known = [KnownChild(b"a", 11, N1), KnownChild(b"b", 11, N2)]
    assert diff_listing(known, listed, names_of={11: count}.get) == expected  # type: ignore[arg-type]


NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
ENTRIES = st.builds(
    entry,
    NAMES,
    st.sampled_from([None, b"1", b"2", b"3", b"7"]),
    st.sampled_from([Kind.FILE, Kind.FILE, Kind.DIRECTORY]),
    st.integers(0, 1),
    nlink=st.integers(1, 2),
)
LISTINGS = st.lists(ENTRIES, max_size=4, unique_by=lambda e: e.name)


def known_children(listing: list[Entry]) -> list[KnownChild]:
    """What an earlier listing left: a node for each id, or for each name without one."""
    nodes: dict[object, int] = {}
    children: dict[bytes, KnownChild] = {}
    for e in listing:
        key = (e.file_id, e.kind) if e.file_id else e.name
        children[e.name] = KnownChild(e.name, nodes.setdefault(key, 100 + len(nodes)), e)
    return list(children.values())


@settings(max_examples=2000, deadline=None)
@given(LISTINGS, LISTINGS)
def test_the_changes_turn_what_was_known_into_the_listing(
    before: list[Entry], listed: list[Entry]
) -> None:
    known = known_children(before)
    changes = diff_listing(known, listed, ELSEWHERE.get)
    names = {child.name: child.node for child in known}
    for change in changes:
        if isinstance(change, Removed):
            assert names.pop(change.name) == change.node
        elif isinstance(change, Moved):
            assert names.pop(change.old_name) == change.node
    after: dict[bytes, Entry] = {}
    for change in changes:
        if isinstance(change, Removed):
            continue
        assert change.entry.name not in after, "told twice"
        after[change.entry.name] = change.entry
        if isinstance(change, Updated | Unchanged):
            assert names[change.entry.name] == change.node
        elif isinstance(change, Joined):
            assert names.pop(change.entry.name) == change.old_node
        elif isinstance(change, Replaced):
            assert names.pop(change.name) == change.old_node
        else:
            assert change.entry.name not in names, "an occupant was not told off"
    assert after == {e.name: e for e in listed}
    assert set(names) <= set(after)


@settings(max_examples=500, deadline=None)
@given(LISTINGS)
def test_the_same_listing_changes_nothing(listing: list[Entry]) -> None:
    changes = diff_listing(known_children(listing), listing, ELSEWHERE.get)
    assert all(isinstance(change, Unchanged | Joined) for change in changes)


@pytest.mark.parametrize(
    ("base", "listed", "known"),
    [
        ({}, {}, True),
        ({"weak": True, "kind": Kind.DIRECTORY}, {"kind": Kind.DIRECTORY}, True),
        ({"weak": True}, {"weak": True}, True),
        ({}, {"weak": True}, True),
        ({"weak": True}, {}, False),
        ({}, {"token": b"other"}, False),
        ({}, {"token": b"other", "weak": True}, False),
        ({}, {"mode": 0o600}, False),
        ({}, {"nlink": 2}, False),
        ({}, {"ctime_ns": 9}, False),  # no change by the other rules, but not all that is known
    ],
)
def test_what_is_known_as_listed(
    base: dict[str, object], listed: dict[str, object], known: bool
) -> None:
    one, other = entry(b"n", b"i", **base), entry(b"n", b"i", **listed)  # type: ignore[arg-type]
    assert as_listed(one, other) == known
    if known:
        assert diff_listing([KnownChild(b"n", 1, one)], [other]) == [Unchanged(1, other)]

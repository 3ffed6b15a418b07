"""When a listing answers to a fingerprint: only if no entry of it means anything else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from awayfs.core.types import Entry, Kind
from awayfs.remotes.fingerprint import listing

A = Entry(b"a", Kind.FILE, 0o644, 1, 2, 3, 4, b"token", file_id=b"id", ctime_ns=5, btime_ns=6)
B = replace(A, name=b"b", file_id=None)
OTHER = {
    "name": b"other",
    "kind": Kind.SYMLINK,
    "token": b"other",
    "file_id": b"other",
    "target": b"other",
    "ctime_ns": None,
    "btime_ns": None,
}


def of(*entries: Entry) -> bytes:
    return listing(list(entries), b"").fingerprint


def test_the_order_of_entries_does_not_matter() -> None:
    assert listing([B, A], of(A, B)).entries is None


@pytest.mark.parametrize("name", [name for name in Entry.__struct_fields__ if name != "weak"])
def test_every_field_matters(name: str) -> None:
    changed = replace(A, **{name: OTHER.get(name, 77)})
    found = listing([changed, B], of(A, B))
    assert found.entries == [changed, B] and found.fingerprint == of(changed, B)


@pytest.mark.parametrize(
    ("entries", "same"),
    [
        ([A], False),
        ([A, B, replace(A, name=b"c")], False),
        ([], False),
        ([A, replace(B, file_id=b"id")], False),
        ([A, B], True),
    ],
)
def test_every_entry_matters(entries: list[Entry], same: bool) -> None:
    assert (listing(entries, of(A, B)).entries is None) == same


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        (False, False, True),
        (True, True, True),
        (False, True, True),  # strong when it was seen: the same token, the same content
        (True, False, False),  # weak when it was seen: the question is open
    ],
)
def test_weak_tokens(was: bool, now: bool, same: bool) -> None:
    asked = of(replace(A, weak=was), replace(B, weak=was))
    found = listing([replace(A, weak=now), replace(B, weak=now)], asked)
    assert (found.entries is None) == same
    assert found.if_strong == of(A, B)


def test_weak_tokens_of_directories_say_nothing() -> None:
    directory = replace(A, kind=Kind.DIRECTORY)
    assert listing([directory], of(replace(directory, weak=True))).entries is None


def test_which_of_the_tokens_are_weak_matters() -> None:
    assert listing([replace(A, weak=True), B], of(A, replace(B, weak=True))).entries is not None


def test_nothing_asked_is_never_answered() -> None:
    assert listing([], b"").entries == []

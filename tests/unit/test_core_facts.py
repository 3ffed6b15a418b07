"""Creations that go out without a look at their name; rights beside content (``core.facts``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from awayfs.core.facts import LOOK_FIRST, Facts, known_after, may_assume_free, mode_set_there
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Entry, Kind


def record(kind: RecordKind) -> Record:
    return Record(seq=1, kind=kind, node=7, parent=1, name=b"new")


@pytest.mark.parametrize(
    ("kind", "node", "size", "retried", "expected"),
    [
        (RecordKind.CREATE, Kind.FILE, 4096, False, True),
        (RecordKind.CREATE, Kind.FILE, LOOK_FIRST, False, True),
        (RecordKind.CREATE, Kind.FILE, LOOK_FIRST + 1, False, False),  # sent for nothing
        (RecordKind.CREATE, Kind.DIRECTORY, 1 << 30, False, True),
        (RecordKind.CREATE, Kind.SYMLINK, 0, False, True),
        (RecordKind.CREATE, Kind.FILE, 0, True, False),  # it may stand there already, by us
        (RecordKind.LINK, Kind.FILE, 0, False, False),
    ],
)
def test_which_names_are_taken_for_free(
    kind: RecordKind, node: Kind, size: int, retried: bool, expected: bool
) -> None:
    assert may_assume_free(record(kind), node, size, retried) is expected


@given(st.sampled_from(RecordKind), st.sampled_from(Kind), st.integers(0, 1 << 40), st.booleans())
def test_nothing_but_a_first_exclusive_creation_is(
    kind: RecordKind, node: Kind, size: int, retried: bool
) -> None:
    if may_assume_free(record(kind), node, size, retried):
        assert kind is RecordKind.CREATE and not retried


def _with(base: int | None, current: int | None) -> Facts:
    """Content goes out; the file's mode as it was seen, and as it is now."""
    seen, now = (None if mode is None else _entry(mode) for mode in (base, current))
    return Facts(record(RecordKind.STORE), Kind.FILE, base=seen, current=now)


def _entry(mode: int) -> Entry:
    return Entry(b"f", Kind.FILE, mode, 0, 0, 4, 0, b"token")


@pytest.mark.parametrize(
    ("base", "current", "expected"),
    [(0o644, 0o644, None), (0o644, 0o600, 0o600), (0o644, 0, 0), (None, 0o600, None)],
)
def test_a_mode_that_was_set_on_the_server_stays(
    base: int | None, current: int | None, expected: int | None
) -> None:
    assert mode_set_there(_with(base, current)) == expected


@pytest.mark.parametrize(
    ("current", "set_here", "expected"),
    [
        (0o600, {"mode"}, 0o644),  # both set it: our record is to meet that
        (0o600, set(), 0o600),
        (0o644, {"mode"}, 0o600),  # what went out had ours already
    ],
)
def test_the_base_of_a_record_that_sets_a_mode_is_from_before_both(
    current: int, set_here: set[str], expected: int
) -> None:
    assert known_after(_with(0o644, current), _entry(0o600), set_here).mode == expected


@pytest.mark.parametrize(("there", "expected"), [(0o600, 0o600), (0o640, 0o644)])
def test_a_mode_that_an_earlier_try_gave_it_is_nobody_elses(there: int, expected: int) -> None:
    facts = replace(_with(0o644, there), ours=_entry(0o600), retried=True)
    assert known_after(facts, _entry(there), {"mode"}).mode == expected

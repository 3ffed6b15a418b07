"""What goes out without a look; rights beside content (``core.facts``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from awayfs.core.facts import (
    LOOK_FIRST,
    AlreadyDone,
    Apply,
    Facts,
    Wait,
    if_as_known,
    known_after,
    may_assume_free,
    may_assume_known,
    mode_set_there,
)
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import ABSENT, Entry, Expected, Kind


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


BASE = Entry(b"f", Kind.FILE, 0o644, 1, 2, 4, 0, b"token")


@pytest.mark.parametrize(
    ("kind", "base", "names", "retried", "expected"),
    [
        (RecordKind.STORE, BASE, 1, False, True),
        (RecordKind.REMOVE, BASE, 1, False, True),
        (RecordKind.RENAME, BASE, 1, False, True),
        (RecordKind.REMOVE, replace(BASE, kind=Kind.SYMLINK), 1, False, True),
        (RecordKind.STORE, replace(BASE, kind=Kind.SYMLINK), 1, False, False),
        (RecordKind.STORE, replace(BASE, weak=True), 1, False, False),  # its content may differ
        (RecordKind.STORE, replace(BASE, file_id=b"7"), 1, False, False),  # a look tells more
        (RecordKind.STORE, replace(BASE, nlink=2), 1, False, False),
        (RecordKind.STORE, BASE, 2, False, False),
        (RecordKind.STORE, BASE, 1, True, False),  # it may be done
        (RecordKind.STORE, None, 0, False, False),
        (RecordKind.REMOVE, replace(BASE, kind=Kind.DIRECTORY), 1, False, False),
        (RecordKind.SETATTR, BASE, 1, False, False),
        (RecordKind.LINK, BASE, 1, False, False),
        (RecordKind.EXCHANGE, BASE, 1, False, False),
    ],
)
def test_what_is_taken_for_unchanged(
    kind: RecordKind, base: Entry | None, names: int, retried: bool, expected: bool
) -> None:
    assert may_assume_known(record(kind), base, names, retried) is expected


def test_a_rename_over_something_needs_a_look() -> None:
    over = replace(record(RecordKind.RENAME), replaced=8)
    assert not may_assume_known(over, BASE, 1, False)


def test_what_goes_unseen_has_all_for_its_condition_that_a_look_would_tell() -> None:
    facts = Facts(record(RecordKind.RENAME), Kind.FILE, base=BASE, current=BASE)
    loose = Apply(Expected(BASE.token, kind=Kind.FILE, content=False), ABSENT)
    tight = Expected(BASE.token, kind=Kind.FILE, rights=(0o644, 1, 2))
    assert if_as_known(facts, loose) == Apply(tight, ABSENT)
    assert if_as_known(facts, replace(loose, unproven=True)) is None
    assert if_as_known(facts, AlreadyDone(BASE)) is None
    assert if_as_known(facts, Wait("")) is None


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

"""Which creations go out without a look at their name (``core.facts``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.facts import LOOK_FIRST, may_assume_free
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Kind


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

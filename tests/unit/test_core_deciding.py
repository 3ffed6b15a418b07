"""What decisions may be and give up: every kind and choice is accounted for."""

from __future__ import annotations

import itertools

import pytest

from awayfs.core.conflicts import ConflictKind
from awayfs.core.deciding import (
    CHOICES,
    LOSES,
    has_base,
    loses,
    overwrites,
    takes_content,
    told,
)
from awayfs.core.records import RecordKind

ALL = list(itertools.product(ConflictKind, CHOICES))


@pytest.mark.parametrize(("kind", "choice"), ALL)
def test_every_decision_can_be_told(kind: ConflictKind, choice: str) -> None:
    assert told(kind, choice) and "\n" not in told(kind, choice)


def test_both_is_told_for_what_it_does() -> None:
    """Where two do not stand side by side, there are no two names."""
    two = {kind for kind in ConflictKind if "two names" in told(kind, "both")}
    assert two == {ConflictKind.UPDATE_UPDATE, ConflictKind.NAME_NAME, ConflictKind.TYPE}
    removed, rename = ConflictKind.REMOVE_UPDATE, RecordKind.RENAME
    assert told(removed, "both") == "the server's is kept, as there is none of ours"
    assert told(removed, "both", rename) == "both are kept, under two names"
    assert told(removed, "server", rename) == "our rename is undone"


@pytest.mark.parametrize(("kind", "choice"), ALL)
def test_the_winner_never_loses(kind: ConflictKind, choice: str) -> None:
    assert choice not in loses(kind, choice)
    assert choice != "both" or not loses(kind, choice)


@pytest.mark.parametrize(("kind", "choice"), ALL)
def test_what_replaces_the_servers_is_about_what_was_seen(kind: ConflictKind, choice: str) -> None:
    """The server's content is lost by an overwrite of what was looked at, or by a removal."""
    if "server" in loses(kind, choice) and kind is not ConflictKind.REMOVE_UPDATE:
        assert overwrites(kind, choice)


@pytest.mark.parametrize("kind", ConflictKind)
def test_a_content_decides_where_there_is_one(kind: ConflictKind) -> None:
    takes = any(takes_content(kind, record) for record in (*RecordKind, None))
    assert takes == ((kind, "with") in LOSES)
    assert not has_base(kind) or takes


def test_attributes_and_names_are_no_contents() -> None:
    for record in (RecordKind.SETATTR, RecordKind.SETXATTR, RecordKind.REMOVE, RecordKind.LINK):
        assert not any(takes_content(kind, record) for kind in ConflictKind)

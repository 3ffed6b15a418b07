"""The id of an operation is of one kind, and of one record."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.types import OpId
from awayfs.remotes.names import is_own, staged_name
from awayfs.volume.op_ids import (
    aside_op,
    is_move,
    link_op,
    move_op,
    naming_op,
    own_op,
    record_of,
    revive_op,
)

CLIENT = "abcdefghij"
KINDS: dict[str, Callable[[int], OpId]] = {
    "own": lambda seq: own_op(CLIENT, seq),
    "move": lambda seq: move_op(CLIENT, seq),
    "link": lambda seq: link_op(CLIENT, seq, 1, b"name"),
    "revive": lambda seq: revive_op(CLIENT, seq, 5),
    "aside": lambda seq: aside_op(CLIENT, seq),
}
MOVES = ("move", "aside")
seqs = st.integers(1, 2**50) | st.integers(1, 36**3)
operations = st.tuples(st.sampled_from(sorted(KINDS)), seqs)


@given(operations)
def test_it_tells_its_record(operation: tuple[str, int]) -> None:
    kind, seq = operation
    op = KINDS[kind](seq)
    assert record_of(op, CLIENT) == seq
    assert is_move(op, CLIENT) == (kind in MOVES)
    assert is_own(staged_name(op))


@given(operations, st.sampled_from(sorted(KINDS)))
def test_no_record_has_the_id_of_another_ones(operation: tuple[str, int], kind: str) -> None:
    """Whatever number the other record has: the one that its letters would make, above all."""
    op = KINDS[operation[0]](operation[1])
    number = int(op.removeprefix(CLIENT), 36)
    for seq in (operation[1], number, number + 1):
        other = KINDS[kind](seq)
        assert (other == op) == ((kind, seq) == operation)


@given(st.integers(1, 9), st.binary(max_size=4), st.integers(1, 9), st.binary(max_size=4))
def test_each_name_and_each_directory_has_its_own(
    parent: int, name: bytes, other_parent: int, other: bytes
) -> None:
    one, two = link_op(CLIENT, 7, parent, name), link_op(CLIENT, 7, other_parent, other)
    assert (one == two) == ((parent, name) == (other_parent, other))
    one, two = revive_op(CLIENT, 7, parent), revive_op(CLIENT, 7, other_parent)
    assert (one == two) == (parent == other_parent)


def test_what_names_a_stray_is_no_records() -> None:
    op = naming_op(CLIENT, own_op(CLIENT, 7))
    assert record_of(op, CLIENT) is None
    assert is_move(op, CLIENT)
    assert is_own(staged_name(naming_op(CLIENT, aside_op(CLIENT, 2**50))))

"""How a walk cuts its work, and how fast it goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.ahead import AGAIN_S, AHEAD_PART, LARGEST, Ahead
from awayfs.core.hoarding import (
    BATCH_BYTES,
    BATCH_FILES,
    LARGEST_PIECE,
    SMALL,
    SMALLEST_PIECE,
    batches,
    next_piece,
)
from awayfs.core.learning import Wanted
from awayfs.core.pacing import Pace


@given(sizes=st.lists(st.integers(0, SMALL), max_size=800))
def test_batches_hold_everything_in_order_and_are_bounded(sizes: list[int]) -> None:
    files = list(enumerate(sizes, 1))
    found = list(batches(files))
    assert [node for batch in found for node in batch] == [node for node, _ in files]
    for batch in found:
        assert 0 < len(batch) <= BATCH_FILES
        assert sum(sizes[node - 1] for node in batch) <= BATCH_BYTES


def test_pieces_follow_the_speed_of_the_link() -> None:
    assert next_piece(1 << 20, 0.1) == 2 << 20
    assert next_piece(1 << 20, 1.0) == 1 << 20
    assert next_piece(1 << 20, 5.0) == 512 << 10
    assert next_piece(LARGEST_PIECE, 0.1) == LARGEST_PIECE
    assert next_piece(SMALLEST_PIECE, 60.0) == SMALLEST_PIECE


@given(
    counts=st.lists(st.integers(1, 1 << 20), min_size=1, max_size=60),
    pauses=st.lists(st.floats(0, 2), min_size=60, max_size=60),
    bandwidth=st.integers(1000, 1 << 20),
)
def test_the_pace_is_kept_over_any_time(
    counts: list[int], pauses: list[float], bandwidth: int
) -> None:
    """What was asked for, the last piece apart, never runs ahead of the bandwidth."""
    pace, now, sent, last = Pace(), 100.0, 0, 0
    for count, pause in zip(counts, pauses, strict=False):
        now += pace.wait_s(now, count, bandwidth)
        assert sent <= (now - 100.0 + 0.26) * bandwidth + 1
        sent += count
        last = count
        now += pause
    assert last > 0


def test_without_a_bandwidth_nobody_waits() -> None:
    assert Pace().wait_s(0.0, 1 << 40, None) == 0.0


def test_a_full_cache_gives_a_part_and_a_free_one_its_room() -> None:
    ahead = Ahead()
    assert ahead.room(None, 0, 500) == 500
    assert ahead.room(1000, 100, 10_000) == 800
    assert ahead.room(1000, 1000, 10_000) == int(1000 * AHEAD_PART)
    assert ahead.choose([Wanted(1, 1.0), Wanted(2, 0.9)], {1: 60, 2: 60}, 100, 0.0) == [1]
    assert ahead.room(1000, 1000, 10_000) == 40
    ahead.used(1)
    assert ahead.room(1000, 1000, 10_000) == 100


def test_what_was_pushed_out_unused_is_not_tried_again_for_a_while() -> None:
    ahead = Ahead()
    assert ahead.choose([Wanted(1, 1.0)], {1: 10}, 100, 0.0) == [1]
    assert not ahead.may_try(1, 10, AGAIN_S / 2)
    assert ahead.may_try(1, 10, AGAIN_S)
    ahead.used(1)
    assert ahead.may_try(1, 10, 1.0)
    assert not ahead.may_try(2, LARGEST + 1, 0.0)


@pytest.mark.parametrize("free", [0, -5])
def test_a_full_disk_gives_nothing(free: int) -> None:
    assert Ahead().room(1000, 0, free) == 0
    assert Ahead().room(None, 0, free) == 0

"""How many records are under way at once (``core.flight``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core import flight

LIMITS = st.integers(flight.FEWEST, flight.MOST)
TIMES = st.floats(0, 100)


@pytest.mark.parametrize(
    ("limit", "full", "took_s", "then"),
    [
        (64, True, 0.3, 66),  # full, and none held up: more
        (64, False, 0.3, 64),  # not full: nothing is known
        (64, True, 3.0, 64),  # neither quick nor slow
        (64, True, 9.0, 56),  # slow: an eighth fewer
        (flight.FEWEST, True, 9.0, flight.FEWEST),
        (flight.MOST, True, 0.1, flight.MOST),
    ],
)
def test_the_limit_follows_how_long_records_take(
    limit: int, full: bool, took_s: float, then: int
) -> None:
    assert flight.after(limit, full, took_s) == then


@given(LIMITS, st.booleans(), TIMES)
def test_the_limit_stays_within_bounds_and_moves_with_the_time(
    limit: int, full: bool, took_s: float
) -> None:
    then = flight.after(limit, full, took_s)
    assert flight.FEWEST <= then <= flight.MOST
    assert then <= flight.after(limit, full, took_s / 2)


@given(LIMITS)
def test_a_link_that_stays_slow_soon_has_the_fewest(limit: int) -> None:
    for _ in range(100):
        limit = flight.after(limit, True, flight.SLOW_S * 2)
    assert limit == flight.FEWEST


def test_a_weak_link_carries_few_whatever_the_limit() -> None:
    assert flight.at_most(flight.MOST, weak=True) == flight.FEWEST
    assert flight.at_most(flight.MOST, weak=False) == flight.MOST

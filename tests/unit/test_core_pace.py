"""Rates and the time left (``core.pace``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.pace import WINDOW_S, Estimate, Pace

KIB = 1024


def pace(*looks: tuple[float, int, int]) -> Pace:
    made = Pace()
    for look in looks:
        made.look(*look)
    return made


@pytest.mark.parametrize(
    ("looks", "now", "left", "expected"),
    [
        ([], 1.0, (10, 0), None),  # nothing is known
        ([(0, 10, 0)], 0.1, (10, 0), None),  # too little is
        ([(0, 100, 0), (2, 80, 0)], 2.0, (80, 0), Estimate(10, 0, 8.0)),
        ([(0, 9, 9 * KIB), (1, 8, KIB)], 1.0, (8, KIB), Estimate(1, 8 * KIB, 8.0)),  # records
        ([(0, 9, 999), (1, 1, 998)], 1.0, (1, 998), Estimate(8, 1, 998.0)),  # bytes
        ([(0, 9, 99), (1, 8, 99)], 1.0, (8, 99), Estimate(1, 0, None)),  # no bytes moved yet
        ([(0, 9, 0), (1, 9, 0)], 1.0, (9, 0), Estimate(0, 0, None)),  # nothing moves
        ([(0, 9, 0), (1, 0, 0)], 1.0, (0, 0), Estimate(9, 0, 0.0)),
        # What is changed meanwhile takes nothing from what was sent.
        ([(0, 10, 0), (1, 5, 0), (1, 95, 0), (2, 90, 0)], 2.0, (90, 0), Estimate(5, 0, 18.0)),
    ],
)
def test_estimates(
    looks: list[tuple[float, int, int]],
    now: float,
    left: tuple[int, int],
    expected: Estimate | None,
) -> None:
    assert pace(*looks).estimate(now, *left) == expected


def test_what_was_long_ago_is_forgotten() -> None:
    made = pace((0, 1000, 0), (1, 0, 0))
    assert made.estimate(2 + WINDOW_S, 10, 0) is None


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 99), st.integers(0, 99)), max_size=30))
def test_it_never_tells_less_than_nothing(steps: list[tuple[float, int, int]]) -> None:
    made, now = Pace(), 0.0
    for wait, records, size in steps:
        now += wait
        made.look(now, records, size)
        told = made.estimate(now, records, size)
        if told is not None:
            assert told.records_per_s >= 0 and told.bytes_per_s >= 0
            assert told.left_s is None or told.left_s >= 0

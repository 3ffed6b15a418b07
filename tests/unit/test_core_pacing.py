"""Holding a flow to a rate: who waits, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.pacing import BURST_S, Pace
from awayfs.core.setting_table import rate


def test_who_yields_has_no_turn_that_others_wait_for() -> None:
    """A hoard walk asks for much; a reader who comes after it waits for one piece of it."""
    pace = Pace()
    assert pace.yield_s(10.0, 1000, 1000) == 0.0
    assert pace.yield_s(10.0, 1000, 1000) == pytest.approx(1.0 - BURST_S)
    assert pace.yield_s(10.0, 1000, 1000) == pytest.approx(1.0 - BURST_S)
    assert pace.wait_s(10.0, 100, 1000) == pytest.approx(1.0 - BURST_S)
    assert pace.yield_s(10.0 + 1.0 - BURST_S, 1000, 1000) == pytest.approx(0.1)


@given(
    moves=st.lists(
        st.tuples(st.booleans(), st.integers(1, 1 << 18), st.floats(0, 0.5)), max_size=60
    ),
    bandwidth=st.integers(1000, 1 << 20),
)
def test_both_kinds_together_keep_the_rate(
    moves: list[tuple[bool, int, float]], bandwidth: int
) -> None:
    pace, now, sent = Pace(), 100.0, 0
    for yields, count, pause in moves:
        while wait_s := (pace.yield_s if yields else pace.wait_s)(now, count, bandwidth):
            now += wait_s
            if not yields:
                break
        assert sent <= (now - 100.0 + BURST_S + 0.01) * bandwidth + 1
        sent += count
        now += pause


def test_without_a_limit_nobody_waits() -> None:
    assert Pace().yield_s(0.0, 1 << 40, None) == 0.0


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ("500K", 500 << 10),
        ("2M/s", 2 << 20),
        ("1k", 1024),
        (250_000, 250_000),
        ("none", None),
    ],
)
def test_rates_are_bytes_a_second(given_: object, meant: int | None) -> None:
    assert rate(given_) == meant


@pytest.mark.parametrize("wrong", ["", "fast", "5Mbit", "5Mbit/s", "0", 0, "100", -5, True, "1K/h"])
def test_what_is_no_rate_is_said(wrong: object) -> None:
    with pytest.raises(ValueError, match="bytes a second"):
        rate(wrong)

"""What goes first, when culling begins and ends, and what statfs tells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.cull import (
    HOUR_NS,
    LinkCost,
    Shortage,
    keep_until,
    over_limit,
    shortage,
    shown_space,
)
from awayfs.core.setting_table import MARKS, TABLE
from awayfs.core.types import Space

DEFAULTS = {name: TABLE[name].default for name in MARKS}
DAY_NS = 24 * HOUR_NS
FAR = LinkCost(0.1, 1e6)
NEAR = LinkCost(0.0001, 1e9)


def disk(free: int, files_free: int = 500, files: int = 1000) -> Space:
    return Space(4096, 1000, free, free, files, files_free)


@pytest.mark.parametrize(
    ("free", "files_free", "culling", "expected"),
    [
        (500, 500, False, Shortage()),
        (60, 500, False, Shortage()),  # between bcull and brun
        (60, 500, True, Shortage(10 * 4096)),
        (50, 500, False, Shortage()),
        (49, 500, False, Shortage(21 * 4096)),
        (10, 500, False, Shortage(60 * 4096)),
        (9, 500, True, Shortage(61 * 4096, stopped=True)),
        (70, 500, True, Shortage()),
        (500, 49, False, Shortage(0, 21)),
        (500, 5, False, Shortage(0, 65, True)),
        (49, 49, False, Shortage(21 * 4096, 21)),
    ],
)
def test_watermarks(free: int, files_free: int, culling: bool, expected: Shortage) -> None:
    assert shortage(disk(free, files_free), DEFAULTS, culling) == expected


def test_a_disk_that_counts_no_files_lacks_none() -> None:
    assert shortage(disk(500, 0, 0), DEFAULTS, True) == Shortage()


@given(st.integers(0, 1000), st.booleans())
def test_culling_what_lacks_ends_it(free: int, culling: bool) -> None:
    lack = shortage(disk(free), DEFAULTS, culling)
    after = shortage(disk(free + lack.bytes // 4096), DEFAULTS, bool(lack))
    assert not after


@pytest.mark.parametrize(
    ("usage", "limit", "culling", "over"),
    [
        (99, None, True, 0),
        (95, 100, False, 0),
        (96, 100, False, 6),
        (94, 100, True, 4),
        (90, 100, True, 0),
    ],
)
def test_the_size_limit(usage: int, limit: int | None, culling: bool, over: int) -> None:
    assert over_limit(usage, limit, culling) == over


TIMES = st.integers(0, 2**60)
USES = st.integers(0, 1000)
SIZES = st.integers(0, 1 << 40)
COSTS = st.builds(LinkCost, st.floats(1e-6, 100), st.floats(1e3, 1e11))


@given(TIMES, TIMES, USES, SIZES, COSTS)
def test_later_use_is_worth_more(a: int, b: int, uses: int, size: int, cost: LinkCost) -> None:
    a, b = sorted((a, b))
    assert a <= keep_until(a, uses, size, cost) <= keep_until(b, uses, size, cost)


@given(TIMES, USES, USES, SIZES, COSTS)
def test_more_use_is_worth_more(at: int, a: int, b: int, size: int, cost: LinkCost) -> None:
    a, b = sorted((a, b))
    assert keep_until(at, a, size, cost) <= keep_until(at, b, size, cost)


@given(TIMES, USES, SIZES, SIZES, COSTS)
def test_small_files_are_worth_more(at: int, uses: int, a: int, b: int, cost: LinkCost) -> None:
    a, b = sorted((a, b))
    assert keep_until(at, uses, a, cost) >= keep_until(at, uses, b, cost)


@given(TIMES, USES, SIZES, COSTS, st.floats(1, 100))
def test_a_slow_answer_is_worth_more(
    at: int, uses: int, size: int, cost: LinkCost, times: float
) -> None:
    slower = LinkCost(cost.latency_s * times, cost.bytes_per_s)
    assert keep_until(at, uses, size, slower) >= keep_until(at, uses, size, cost)


@pytest.mark.parametrize(
    ("stays", "goes", "cost"),
    [
        # (used, uses, size): what a small file costs outweighs a day over a slow line …
        ((0, 1, 4096), (DAY_NS, 1, 1 << 30), FAR),
        # … and does not on a fast one
        ((DAY_NS, 1, 1 << 30), (0, 1, 1 << 20), NEAR),
        ((0, 30, 1 << 20), (HOUR_NS, 1, 1 << 20), NEAR),
        ((30 * DAY_NS, 1, 1 << 30), (0, 3, 4096), FAR),  # not for ever
    ],
)
def test_which_goes_first(
    stays: tuple[int, int, int], goes: tuple[int, int, int], cost: LinkCost
) -> None:
    assert keep_until(*stays, cost) > keep_until(*goes, cost)


def test_the_link_is_measured() -> None:
    cost = LinkCost()
    for _ in range(50):
        cost = cost.after(1000, 0.2).after(4 << 20, 0.2 + 4)
    assert 0.15 < cost.latency_s < 0.25 and 0.9e6 < cost.bytes_per_s < 1.2e6


@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.floats(0, 1000)), max_size=20))
def test_no_measure_makes_nonsense(fetches: list[tuple[int, float]]) -> None:
    cost = LinkCost()
    for size, seconds in fetches:
        cost = cost.after(size, seconds)
    assert cost.latency_s > 0 and cost.bytes_per_s > 0
    assert cost.seconds(1 << 20) > 0


def test_what_statfs_tells() -> None:
    server = Space(8192, 100_000, 5000, 4000, 900, 800)
    told = shown_space(server, disk(500), 1 << 40, 8192 * 10)
    assert (told.blocks, told.blocks_free, told.blocks_available) == (100_000, 4990, 3990)
    assert told.files_free == 500
    assert shown_space(server, disk(500), 8192 * 7, 0).blocks_available == 7
    assert shown_space(server, disk(500), -5, 0).blocks_available == 0
    away = shown_space(None, disk(500), 4096 * 300, 10)
    assert (away.block_size, away.blocks, away.blocks_available) == (4096, 1000, 300)


@given(st.integers(-10, 1 << 50), st.integers(0, 1 << 50), st.booleans())
def test_no_more_is_told_than_fits(room: int, unsent: int, away: bool) -> None:
    server = Space(512, 1 << 30, 1 << 20, 1 << 19, 0, 0)
    told = shown_space(None if away else server, disk(500), room, unsent)
    assert 0 <= told.blocks_available * told.block_size <= max(room, 0)
    assert away or told.blocks_available * 512 <= max((1 << 19) * 512 - unsent, 0)

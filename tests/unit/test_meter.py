"""When a link counts as thin: what is measured, and what tells nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_volume_review import World, played

from awayfs.core.modes import Mode
from awayfs.core.noticing import RECENT, Throughput
from awayfs.volume.meter import FORGOTTEN_S, LEAST, Meter, Way

KIB = 1024


def of(*bytes_s: float) -> Throughput:
    measured = Throughput()
    for one in bytes_s:
        measured = measured.after(int(one), 1.0, 1)
    return measured


@pytest.mark.parametrize(
    ("measured", "was", "thin"),
    [
        pytest.param(of(), True, False, id="nothing measured"),
        pytest.param(of(10), False, False, id="too early to say"),
        pytest.param(of(*[10] * RECENT), False, True, id="below"),
        pytest.param(of(10, 10, 10, 200), False, False, id="one was quick"),
        pytest.param(of(*[150] * RECENT), False, False, id="between, was good"),
        pytest.param(of(*[150] * RECENT), True, True, id="between, was thin"),
        pytest.param(of(*[250] * RECENT), True, False, id="good again"),
        pytest.param(of(200, *[10] * RECENT), False, True, id="what was long ago does not count"),
    ],
)
def test_thin_links(measured: Throughput, was: bool, thin: bool) -> None:
    assert measured.thin(was, 100) is thin
    assert not measured.thin(was, None)


@given(st.lists(st.floats(1, 1e9), min_size=RECENT), st.booleans(), st.integers(1, 1 << 30))
def test_thin_does_not_flap_at_the_threshold(speeds: list[float], was: bool, below: int) -> None:
    measured = of(*speeds)
    now = measured.thin(was, below)
    assert measured.thin(now, below) is now


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    meter = Meter(clock, lambda: None)
    meter.thin_below = lambda: 64 * KIB
    return meter


def move(meter: Meter, clock: Clock, count: int, took_s: float, way: Way = Way.UP) -> None:
    with meter.moving(way) as moved:
        clock.now += took_s
        moved.bytes = count


def test_what_moved_slowly_some_times_says_so(meter: Meter, clock: Clock) -> None:
    for _ in range(RECENT):
        assert not meter.thin
        move(meter, clock, 300 * KIB, 10.0)
    assert meter.thin == "30 KiB a second go up"
    assert meter.bytes_s(Way.UP) == 30 * KIB
    assert meter.bytes_s(Way.DOWN) is None


def test_small_transfers_tell_nothing(meter: Meter, clock: Clock) -> None:
    for way in Way:
        for _ in range(RECENT):
            move(meter, clock, LEAST[way] - 1, 100.0, way)
    assert not meter.thin


def test_what_shared_the_link_was_not_slow(meter: Meter, clock: Clock) -> None:
    for _ in range(RECENT):
        with meter.moving(Way.UP), meter.moving(Way.UP), meter.moving(Way.UP):
            move(meter, clock, 300 * KIB, 10.0)
    assert not meter.thin
    assert meter.bytes_s(Way.UP) == 120 * KIB


def test_what_fails_tells_nothing(meter: Meter, clock: Clock) -> None:
    for _ in range(RECENT):
        with pytest.raises(OSError), meter.moving(Way.UP) as moved:
            clock.now += 10
            moved.bytes = 300 * KIB
            raise OSError
    assert meter.bytes_s(Way.UP) is None


def test_a_limit_is_no_thin_link(meter: Meter, clock: Clock) -> None:
    meter.limit(10 * KIB, None)
    for _ in range(RECENT):
        move(meter, clock, 300 * KIB, 30.0)
    assert not meter.thin
    assert meter.bytes_s(Way.UP) == 10 * KIB


def test_another_network_is_not_thin_and_an_old_measure_is_void(meter: Meter, clock: Clock) -> None:
    for _ in range(RECENT):
        move(meter, clock, 300 * KIB, 10.0)
    clock.now += FORGOTTEN_S - 1
    assert meter.thin
    clock.now += 2
    assert not meter.thin
    for _ in range(RECENT):
        move(meter, clock, 300 * KIB, 10.0)
    assert meter.thin
    meter.moved_on()
    assert not meter.thin


def test_a_thin_link_changes_the_mode_and_says_why(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        link, clock = world.volume.link, Clock()
        link.meter._clock = clock
        for _ in range(RECENT):
            move(link.meter, clock, 300 * KIB, 10.0)
        assert link.state.mode is Mode.WRITE_BEHIND
        assert link.state.cause == link.why_weak == "30 KiB a second go up"
        for _ in range(RECENT):
            move(link.meter, clock, 300 * KIB, 0.1)
        assert link.state.mode is not Mode.WRITE_BEHIND
        assert not link.weak

    played(tmp_path, play)

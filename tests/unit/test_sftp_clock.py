"""When a whole-second mtime proves that content did not change."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.remotes.sftp_clock import MARGIN, SECOND, ServerClock


@dataclass
class Case:
    name: str
    stamp: tuple[float, float] | None  # mtime the server gave, and when (local seconds)
    looks: list[tuple[int, float, bool]]  # mtime, when, weak?


CASES = [
    Case("first sight is weak", None, [(1000, 50.0, True)]),
    Case("still weak after a second", None, [(1000, 50.0, True), (1000, 51.5, True)]),
    Case("strong after two", None, [(1000, 50.0, True), (1000, 52.0, False)]),
    Case("a new mtime starts anew", None, [(1000, 50.0, True), (1001, 53.0, True)]),
    Case("old files are strong once the clock is known", (1000, 50.0), [(998, 50.0, False)]),
    Case("this second is weak", (1000, 50.0), [(1000, 50.5, True)]),
    Case("the last second is weak: margin", (1000, 50.0), [(999, 50.5, True)]),
    Case("this second becomes strong", (1000, 50.0), [(1000, 52.1, False)]),
    Case("the future stays weak", (1000, 50.0), [(1060, 55.0, True), (1060, 100.0, True)]),
    Case("until it has passed", (1000, 50.0), [(1060, 112.1, False)]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_table(case: Case) -> None:
    clock = ServerClock()
    if case.stamp:
        clock.stamped(int(case.stamp[0]), int(case.stamp[1] * SECOND))
    for mtime, at, weak in case.looks:
        at_ns = int(at * SECOND)
        assert clock.weak(b"a", mtime, at_ns, at_ns) is weak


def test_paths_do_not_vouch_for_each_other() -> None:
    clock = ServerClock()
    assert clock.weak(b"a", 1000, 0, 0)
    assert clock.weak(b"b", 1000, 9 * SECOND, 9 * SECOND)
    assert not clock.weak(b"a", 1000, 9 * SECOND, 9 * SECOND)


def test_the_best_stamp_counts() -> None:
    clock = ServerClock()
    clock.stamped(1000, 50 * SECOND)
    clock.stamped(900, 51 * SECOND)  # came late, says less
    assert not clock.weak(b"a", 998, 50 * SECOND, 50 * SECOND)


def test_memory_is_bounded() -> None:
    clock = ServerClock(remembered=3)
    for path in (b"a", b"b", b"c", b"d"):
        clock.weak(path, 1000, 0, 0)
    assert clock.weak(b"a", 1000, 9 * SECOND, 9 * SECOND), "forgotten, so as if just seen"
    assert not clock.weak(b"d", 1000, 9 * SECOND, 9 * SECOND)


def test_forget() -> None:
    clock = ServerClock()
    clock.weak(b"a", 1000, 0, 0)
    clock.forget(b"a")
    assert clock.weak(b"a", 1000, 9 * SECOND, 9 * SECOND)


@dataclass
class World:
    """A server whose clock is ``offset`` ahead, runs ``ppm`` fast, and stamps whole seconds."""

    offset_ns: int
    ppm: int

    def stamp(self, local_ns: int) -> int:
        coarse = 10_000_000  # the kernel's stamp may be a jiffy old
        server = self.offset_ns + local_ns + local_ns * self.ppm // 1_000_000 - coarse
        return server // SECOND


DAYS = st.integers(0, 20 * SECOND) | st.integers(0, 3 * 86_400 * SECOND)


@given(
    offset=st.integers(10**6, 2 * 10**9).map(lambda s: s * SECOND + 123_456_789),
    ppm=st.integers(-500, 500),
    stamps=st.lists(DAYS, max_size=4),
    first_edit=DAYS,
    looks=st.lists(
        st.tuples(st.integers(0, 20 * 10**9), st.integers(0, 3 * 10**9)), min_size=1, max_size=8
    ),
    later=st.integers(1, 5 * 10**9),
)
def test_no_later_edit_bears_a_strong_token(
    offset: int,
    ppm: int,
    stamps: list[int],
    first_edit: int,
    looks: list[tuple[int, int]],
    later: int,
) -> None:
    """Whatever the server's clock says and however long replies take."""
    world, clock = World(offset, ppm), ServerClock()
    mtime = world.stamp(first_edit)
    events = [(at, "stamp", 0) for at in stamps]
    events += [(first_edit + at, "look", delay) for at, delay in looks]
    for at, what, delay in sorted(events):
        if what == "stamp":
            clock.stamped(world.stamp(at), at + delay)
            continue
        # the server looked right when the request left: the earliest a later edit can follow
        if not clock.weak(b"a", mtime, at, at + delay):
            assert world.stamp(at + 1) > mtime
            assert world.stamp(at + later) > mtime


@given(offset=st.integers(10**6, 2 * 10**9), ahead=st.integers(3, 100))
def test_a_mtime_set_ahead_stays_weak_once_the_clock_is_known(offset: int, ahead: int) -> None:
    world, clock = World(offset * SECOND, 0), ServerClock()
    clock.stamped(world.stamp(SECOND), SECOND)
    mtime = world.stamp(0) + ahead
    for at in range(SECOND, ahead * SECOND, SECOND):
        assert clock.weak(b"a", mtime, at, at)


def test_margin_is_said_in_the_documentation() -> None:
    assert MARGIN == SECOND

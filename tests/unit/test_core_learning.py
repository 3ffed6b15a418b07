"""What is learned of uses, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.learning import (
    HALF_LIFE_S,
    LEAST_SCORE,
    MOST_WITH,
    ONCE_S,
    Advice,
    Learned,
    Use,
    Wanted,
    advise,
    best_of,
    faded,
)

NOW = 1_700_000_000.0
DIRECTORY = 100


def learned(*uses: tuple[int, int, object, float]) -> Learned:
    """What is known after some uses: (node, directory, process, seconds from NOW)."""
    known = Learned()
    for node, directory, process, at_s in uses:
        known.used(node, directory, process, NOW + at_s)
    return known


def scored(known: Learned, files: Iterable[tuple[int, int]], now_s: float) -> list[Wanted]:
    return [Wanted(node, known.score(node, directory, now_s)) for node, directory in files]


def test_what_was_used_more_often_or_later_counts_for_more() -> None:
    known = learned((1, 10, "p", 0), (2, 11, "q", 0), (2, 11, "q", 2 * ONCE_S), (3, 12, "r", -1e6))
    now = NOW + 3 * ONCE_S
    scores = {node: known.score(node, 0, now) for node in (1, 2, 3)}
    assert scores[2] > scores[1] > scores[3] > 0


def test_uses_within_a_minute_are_one() -> None:
    known = learned(*[(1, 10, "p", n) for n in range(50)])
    use = known.get(1)
    assert use is not None and use.weight == pytest.approx(1.0)


def test_what_is_used_together_by_one_process_is_wanted_together() -> None:
    known = learned(
        (1, 10, "p", 0), (2, 20, "p", 1), (3, 30, "other process", 1), (4, 40, "p", 3600)
    )
    assert [r.node for r in known.why(2, 20, NOW + 2) if r.kind == "with"] == [1]
    assert not [r for r in known.why(3, 30, NOW + 2) if r.kind == "with"]
    assert not [r for r in known.why(4, 40, NOW + 3601) if r.kind == "with"]


def test_a_busy_directory_speaks_for_what_was_never_used() -> None:
    known = learned(*[(n, DIRECTORY, n, 0) for n in range(1, 6)])
    assert known.score(99, DIRECTORY, NOW) > LEAST_SCORE
    assert known.score(99, DIRECTORY + 1, NOW) == 0
    assert known.busy_directories(NOW) == [DIRECTORY]
    assert known.busy_directories(NOW + 20 * HALF_LIFE_S) == []


def test_the_best_come_first_and_no_more_than_asked_for() -> None:
    known = learned(*[(n, DIRECTORY, n, n * 100.0) for n in range(1, 30)])
    best = best_of(scored(known, known.files(), NOW + 3000), 5)
    assert [one.node for one in best] == [29, 28, 27, 26, 25]
    assert best_of(scored(known, [(1, DIRECTORY)], NOW + 50 * HALF_LIFE_S), 5) == []


USES = st.lists(
    st.tuples(
        st.integers(1, 30), st.integers(100, 103), st.integers(0, 2), st.floats(0, 30 * 86_400)
    ),
    max_size=120,
)


@given(uses=USES)
def test_it_stays_bounded_and_scores_make_sense(uses: list[tuple[int, int, int, float]]) -> None:
    known = Learned(most=10)
    for node, directory, process, at_s in sorted(uses, key=lambda use: use[3]):
        known.used(node, directory, process, NOW + at_s)
    assert len(known) <= 10
    later = NOW + 31 * 86_400
    for node, directory in list(known.files()):
        use = known.get(node)
        assert use is not None and len(use.beside) <= MOST_WITH and use.weight >= 0
        assert known.score(node, directory, later) >= known.score(
            node, directory, later + 30 * HALF_LIFE_S
        )


@given(uses=USES)
def test_what_was_saved_is_what_was_known(uses: list[tuple[int, int, int, float]]) -> None:
    known = Learned()
    for node, directory, process, at_s in sorted(uses, key=lambda use: use[3]):
        known.used(node, directory, process, NOW + at_s)
    again = Learned()
    kept = {node: known.get(node) for node, _ in known.files()}
    for node, use in sorted(kept.items(), key=lambda one: one[1].at_s if one[1] else 0):
        if use is not None:
            again.put(node, Use(use.weight, use.at_s, use.directory, dict(use.beside)))
    later = NOW + 31 * 86_400
    for node, _ in known.files():
        assert again.score(node, 0, later) == pytest.approx(known.score(node, 0, later))


def test_half_of_a_weight_is_left_after_the_half_life() -> None:
    assert faded(HALF_LIFE_S) == pytest.approx(0.5)
    assert faded(-5) == 1.0


def test_many_misses_in_a_directory_are_a_reason_to_pin_it() -> None:
    missed = [(b"d/a", 1), (b"d/b", 2), (b"d/c", 1), (b"e/x", 9), (b"top", 1), (b"t2", 1)]
    assert advise([*missed, (b"t3", 1)]) == [
        Advice(b"e/x", 9),
        Advice(b"d", 4),
        Advice(b"t2", 1),
        Advice(b"t3", 1),
        Advice(b"top", 1),
    ]

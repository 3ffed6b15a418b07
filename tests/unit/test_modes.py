"""Modes: the table, orders of persons, what is kept of them, and the page made of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import modes_page

from awayfs.core.modes import (
    HANDS,
    MEANING,
    TABLE,
    Event,
    Mode,
    ModeState,
    asks_server,
    replays,
    step,
)
from awayfs.core.orders import Order, Scope, order_of, strictest
from awayfs.remotes.directory import DirectoryRemote
from awayfs.store.store import Store
from awayfs.volume import mode_history
from awayfs.volume.link import Link

C, W, R = Mode.CONNECTED, Mode.WRITE_BEHIND, Mode.REINTEGRATING
D, A, S = Mode.DISCONNECTED, Mode.AUTH_REQUIRED, Mode.STOPPED


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(itertools.product(Mode, Event))


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize(("by_hand", "until"), [(False, None), (True, None), (True, 99)])
def test_every_state_and_event(mode: Mode, event: Event, by_hand: bool, until: int | None) -> None:
    state = ModeState(mode, by_hand, "before", 1, until)
    after = step(state, event, "because", 2, 77 if event is Event.GO_OFFLINE else None)
    if event is Event.BRAKE:
        assert after.mode is S
    elif mode is S and event is not Event.CONFIRMED:
        assert after.mode is S, "a stop holds until it is confirmed"
    elif event is Event.GO_OFFLINE:
        assert (after.mode, after.by_hand) == (D, True)
    elif mode is D and by_hand and event not in HANDS:
        assert after is state, "offline by hand wins"
    elif event is Event.LOST and mode is not A:
        assert (after.mode, after.by_hand) == (D, False)
    elif event is Event.LINK_WEAK and by_hand:
        assert after.mode is mode, "online by hand wins"
    elif not by_hand:
        assert after.mode is TABLE[mode, event] or mode is S
    if after.mode is mode:
        assert after.since_ns == 1
    else:
        assert (after.since_ns, after.cause) == (2, "because")
    if not after.by_hand:
        assert after.until_ns is None, "only what is by hand ends by itself"
    elif event is Event.GO_OFFLINE:
        assert after.until_ns == 77
    elif event is Event.GO_ONLINE:
        assert after.until_ns is None
    else:
        assert after.until_ns == until


@pytest.mark.parametrize(
    ("events", "mode", "by_hand"),
    [
        ([Event.LOST, Event.REACHED, Event.DRAINED], C, False),
        ([Event.LOST, Event.REACHED, Event.LOST], D, False),
        ([Event.GO_OFFLINE, Event.REACHED, Event.DRAINED], D, True),
        ([Event.GO_OFFLINE, Event.GO_AUTOMATIC, Event.DRAINED], C, False),
        ([Event.GO_OFFLINE, Event.GO_ONLINE, Event.DRAINED], C, True),
        ([Event.GO_ONLINE, Event.LINK_WEAK], C, True),
        ([Event.GO_ONLINE, Event.LOST, Event.REACHED], R, False),
        ([Event.LINK_WEAK, Event.DRAINED], W, False),
        ([Event.LINK_WEAK, Event.LINK_GOOD, Event.DRAINED], C, False),
        ([Event.CREDENTIALS_REFUSED, Event.REACHED], A, False),
        ([Event.CREDENTIALS_REFUSED, Event.CREDENTIALS_GIVEN, Event.DRAINED], C, False),
        ([Event.BRAKE, Event.REACHED, Event.GO_ONLINE], S, False),
        ([Event.BRAKE, Event.CONFIRMED], R, False),
        ([Event.GO_OFFLINE, Event.BRAKE, Event.CONFIRMED], D, True),
        ([Event.BRAKE, Event.GO_OFFLINE, Event.CONFIRMED], D, True),
    ],
)
def test_a_course_of_events(events: list[Event], mode: Mode, by_hand: bool) -> None:
    state = ModeState(Mode.CONNECTED)
    for event in events:
        state = step(state, event, event, state.since_ns + 1)
    assert (state.mode, state.by_hand) == (mode, by_hand)


def test_who_asks_the_server() -> None:
    assert {mode for mode in Mode if asks_server(mode)} == {C, W, R}
    assert {mode for mode in Mode if replays(mode)} == {C, W, R}


def test_the_page_is_what_the_table_says() -> None:
    """``python -m tests.modes_page`` writes it anew."""
    assert modes_page.PAGE.read_text(encoding="utf-8") == modes_page.page()
    assert set(MEANING) == {*Mode, *Event}


# --- Orders ----------------------------------------------------------------------------------

UNTIL = st.none() | st.integers(1, 100)
ORDERS = st.dictionaries(st.sampled_from(Scope), st.none() | st.builds(Order, st.just(1), UNTIL))


@given(ORDERS, st.integers(1, 100))
def test_the_strictest_order_counts(orders: dict[Scope, Order | None], now: int) -> None:
    holding = {scope: order for scope, order in orders.items() if order and order.holds(now)}
    found = strictest(orders, now)
    if not holding:
        assert found is None
        return
    assert found is not None
    scope, order = found
    assert holding[scope] is order
    ends = [other.until_ns for other in holding.values()]
    assert order.until_ns == (None if None in ends else max(end for end in ends if end))
    longest = [
        name for name in Scope if name in holding and holding[name].until_ns == order.until_ns
    ]
    assert scope is longest[0], "the widest is the one to take back first"


@given(st.builds(Order, st.integers(), st.none() | st.integers()))
def test_an_order_comes_back_as_it_was_kept(order: Order) -> None:
    assert order_of(order.as_dict()) == order


@pytest.mark.parametrize(
    "values", [None, [], "offline", {}, {"since_ns": "1"}, {"since_ns": 1, "until_ns": 1.5}]
)
def test_what_is_no_order(values: object) -> None:
    assert order_of(values) is None


# --- What is kept ----------------------------------------------------------------------------


def kept_by(store: Store, *events: tuple[Event, str]) -> Link:
    """A link of a new daemon to which things happened."""
    start = mode_history.at_start(store.facts, 1)
    nowhere = DirectoryRemote(b"/nonexistent")
    link = Link(nowhere, lambda: 2, start, mode_history.load(store.facts))
    link.on_history = lambda: mode_history.keep(store.facts, link)
    for event, cause in events:
        link._step(cause, event)
    return link


def test_the_history_outlives_the_daemon(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    kept_by(store, (Event.REACHED, "server answers"), (Event.LOST, "no answer"))
    link = kept_by(store, (Event.GO_OFFLINE, "by hand"))
    told = [(state.mode, state.cause) for state in link.history]
    assert told == [
        (D, "starting"),
        (R, "server answers"),
        (D, "no answer"),
        (D, "starting"),
        (D, "by hand"),
    ]
    for damaged in ("", "{", "[1]", '[{"mode": "up"}]', "7"):
        store.facts.set(mode_history.MODES, damaged)
        assert mode_history.load(store.facts) == []
    store.close()


def test_a_stop_by_a_brake_outlives_the_daemon_until_it_is_confirmed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    kept_by(store, (Event.REACHED, "server answers")).stop("half of it is gone")
    link = kept_by(store)
    assert (link.state.mode, link.state.cause) == (S, "half of it is gone")
    link.confirm()
    assert kept_by(store).state.mode is D
    store.close()


def test_a_stranger_does_not_outlive_the_daemon(tmp_path: Path) -> None:
    """Looking again tells whether he is still there."""
    store = Store.open(str(tmp_path / "v"), create=True)
    link = kept_by(store, (Event.REACHED, "server answers"))
    link._stranger = True
    link._step("another host key", Event.BRAKE)
    assert kept_by(store).state.mode is D
    store.close()

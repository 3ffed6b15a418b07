"""Rules of noticing, and the link that follows them: doubts, hopes, flaps, weak links, sleep."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.errors import Unreachable
from awayfs.core.modes import Mode, ModeState
from awayfs.core.noticing import (
    LONGEST_HOLD_S,
    LONGEST_S,
    PROBES,
    RECENT,
    SHORTEST_S,
    STEADY_S,
    RoundTrips,
    Sign,
    Way,
    flaps_after,
    hold_s,
    sign,
    suspended_s,
)
from awayfs.daemon import rtnetlink
from awayfs.daemon.surroundings import Surroundings
from awayfs.volume import link as link_module
from awayfs.volume.link import Link

TRIPS = st.lists(st.floats(0.0001, 100), max_size=30)


def after(*samples: float) -> RoundTrips:
    trips = RoundTrips()
    for sample in samples:
        trips = trips.after(sample)
    return trips


@given(TRIPS, st.integers(0, 20))
def test_nobody_waits_over_two_seconds(samples: list[float], unanswered: int) -> None:
    trips = after(*samples)
    assert SHORTEST_S <= trips.wait_s(unanswered) <= LONGEST_S < 2
    assert trips.wait_s(unanswered) <= trips.wait_s(unanswered + 1)


def test_waits_follow_what_answers_took() -> None:
    assert RoundTrips().wait_s() == LONGEST_S, "nothing is known yet"
    assert after(*[0.01] * 20).wait_s() == SHORTEST_S
    assert 1.2 < after(*[1.2] * 50).wait_s() < LONGEST_S
    assert after(0.1, 0.9, 0.1, 0.9).wait_s() > after(*[0.5] * 8).wait_s()
    assert after(*[0.01] * 20).wait_s(1) == LONGEST_S


@given(TRIPS, st.booleans())
def test_one_long_trip_makes_no_slow_link(samples: list[float], was: bool) -> None:
    quick = after(*samples, *[0.01] * (RECENT - 1), 50.0)
    assert not quick.slow(was, 0.4)


def test_slow_has_a_hysteresis() -> None:
    between = after(*[0.3] * RECENT)
    assert (between.slow(False, 0.4), between.slow(True, 0.4)) == (False, True)
    assert after(*[0.5] * RECENT).slow(False, 0.4)
    assert not after(*[0.1] * RECENT).slow(True, 0.4)
    assert not after(0.9).slow(False, 0.4), "too early to say"


@given(st.lists(st.floats(0, STEADY_S, exclude_max=True), max_size=40))
def test_a_flapping_link_is_left_alone_longer_and_longer(held: list[float]) -> None:
    flaps, holds = 0, []
    for one in held:
        flaps = flaps_after(flaps, one)
        holds.append(hold_s(flaps))
    assert holds == sorted(holds)
    assert all(hold <= LONGEST_HOLD_S for hold in holds)
    assert hold_s(flaps_after(flaps, STEADY_S)) == 0, "one that had held is tried at once"


def test_a_link_that_flaps_for_ten_minutes_changes_the_mode_seldom() -> None:
    """Two seconds of network, two without."""
    now, changes, flaps = 0.0, 0, 0
    while now < 600:
        changes += 1
        flaps = flaps_after(flaps, 2.0)
        now += 4.0 + hold_s(flaps - 1)
    assert changes < 30


@pytest.mark.parametrize(
    ("before", "after", "slept"),
    [
        ((100, 50), (101, 51), 0),
        ((100, 50), (160, 110), 0),
        ((100, 50), (3701, 51), 3600),
        ((100, 50), (102, 51), 0),
        ((100, 50), (101.0001, 51.0002), 0),
    ],
)
def test_sleep(before: Any, after: Any, slept: float) -> None:
    assert suspended_s(before, after) == slept


HERE = Way("", "eth0", "10.0.0.1")
WIFI = Way("", "wlan0", "10.0.1.1")
CUT = Way("no route")


@pytest.mark.parametrize(
    ("before", "now", "up", "meaning"),
    [
        (None, HERE, True, Sign.NOTHING),
        (HERE, HERE, True, Sign.NOTHING),
        (None, WIFI, True, Sign.DOUBT),
        (HERE, WIFI, True, Sign.DOUBT),
        (HERE, Way("", "wlan0", "10.0.1.1", ours=False), True, Sign.GONE),
        (HERE, CUT, True, Sign.GONE),
        (CUT, CUT, True, Sign.GONE),
        (HERE, CUT, False, Sign.NOTHING),
        (CUT, CUT, False, Sign.NOTHING),
        (CUT, HERE, False, Sign.BACK),
        (HERE, HERE, False, Sign.NOTHING),
        (HERE, WIFI, False, Sign.BACK),
        (None, HERE, False, Sign.BACK),
    ],
)
def test_what_a_change_of_the_way_means(
    before: Way | None, now: Way, up: bool, meaning: Sign
) -> None:
    assert sign(before, now, "10.0.0.1", up) is meaning


# --- The link --------------------------------------------------------------------------------


class Server:
    """Answers after ``takes_s``, or not at all; counts attempts and questions."""

    addresses: tuple[str, str] | None = None
    capabilities = None

    def __init__(self) -> None:
        self.takes_s: float | None = 0.0
        self.trouble: Exception | None = None
        self.attempts = self.questions = 0

    async def connect(self, _witnesses: Any = ()) -> Any:
        self.attempts += 1
        await self._answer()
        return self

    async def probe(self) -> None:
        self.questions += 1
        await self._answer()

    async def _answer(self) -> None:
        if self.trouble is not None:
            raise self.trouble
        await asyncio.sleep(3600 if self.takes_s is None else self.takes_s)

    async def close(self) -> None: ...


Play = Callable[[Link, Server, list[str]], Coroutine[Any, Any, None]]


def scenario(play: Play) -> None:
    async def run() -> None:
        server, news = Server(), list[str]()
        clock = iter(range(1, 10**6))
        start = ModeState(Mode.DISCONNECTED, cause="starting")
        link = Link(server, lambda: next(clock), start)  # type: ignore[arg-type]
        link.on_news = lambda came, cause: news.append(f"{'+' if came else '-'}{cause}")
        trying = asyncio.ensure_future(link.keep_trying())
        try:
            await until(lambda: link.usable)
            link.drained()
            await asyncio.wait_for(play(link, server, news), 90)
        finally:
            trying.cancel()

    asyncio.run(run())


async def until(check: Callable[[], object], within: float = 30.0) -> None:
    async def look() -> None:
        while not check():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), within)


def test_a_doubt_makes_it_ask_and_is_not_believed() -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        link.doubt("somebody says so")
        await until(lambda: server.questions == 1)
        await asyncio.sleep(0.05)
        assert (link.usable, link.state.mode, len(news)) == (True, Mode.CONNECTED, 1)
        link.doubt("again")
        await until(lambda: server.questions == 2)

    scenario(play)


def test_one_question_without_an_answer_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awayfs.core.noticing.SHORTEST_S", 0.05)
    monkeypatch.setattr("awayfs.core.noticing.LONGEST_S", 0.1)

    async def play(link: Link, server: Server, news: list[str]) -> None:
        server.takes_s = None
        link.doubt("a packet is lost")
        await until(lambda: server.questions == 1)
        server.takes_s = 0.0
        await until(lambda: server.questions == 2)
        await asyncio.sleep(0.05)
        assert link.usable
        given_up: list[str] = []
        link.give_up = given_up.append
        server.takes_s = None
        link.doubt("the network changed")
        await until(lambda: not link.usable)
        assert server.questions == 2 + PROBES
        assert link.state.cause == "no answer (the network changed)"
        assert given_up == ["no answer (the network changed)"]
        assert news[1:] == ["-no answer (the network changed)"]

    scenario(play)


def test_an_upload_that_moves_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fills the way, so that a question waits behind it."""
    monkeypatch.setattr("awayfs.core.noticing.SHORTEST_S", 0.05)
    monkeypatch.setattr("awayfs.core.noticing.LONGEST_S", 0.1)

    async def play(link: Link, server: Server, news: list[str]) -> None:
        link.last_sign = time.monotonic
        server.takes_s = None
        for number in range(3):
            link.doubt("the network changed")
            await until(lambda number=number: server.questions > number)
            await asyncio.sleep(0.3)
        assert link.usable
        link.last_sign = lambda: 0.0
        link.doubt("the network changed")
        await until(lambda: not link.usable)

    scenario(play)


def test_hope_ends_a_pause_but_not_a_persons_order() -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        link._pulse._up_since -= STEADY_S
        server.trouble = Unreachable("dead")
        link.lost("dead")
        for attempts in (2, 3):
            await until(lambda attempts=attempts: server.attempts == attempts)
        server.trouble = None
        link.hope("the network is back")
        await until(lambda: link.usable, 0.5)
        link.offline_by_hand()
        link.hope("the network is back")
        await asyncio.sleep(0.1)
        assert (link.usable, server.attempts) == (False, 4)

    scenario(play)


def test_a_link_that_flaps_does_not_hope(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        for _ in range(3):
            await until(lambda: link.usable)
            link.gone("cable pulled")
            link.hope("cable plugged")
        attempts = server.attempts
        await asyncio.sleep(0.3)
        assert (link.usable, server.attempts) == (False, attempts)

    scenario(play)


def test_an_attempt_that_hangs_ends_when_the_way_is_another() -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        ended = asyncio.Event()

        async def hang(_witnesses: Any) -> Any:
            await ended.wait()
            raise Unreachable("given up")

        link.give_up = lambda _why: ended.set()
        connect, server.connect = server.connect, hang  # type: ignore[method-assign]
        link.lost("no answer")
        await asyncio.sleep(0.05)
        server.connect = connect  # type: ignore[method-assign]
        link.hope("another network", moved=True)
        await until(lambda: link.usable, 2)

    scenario(play)


def test_a_weak_link_is_told_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        link.set_metered(True)
        assert (link.metered, link.weak, link.state.mode) == (True, True, Mode.WRITE_BEHIND)
        assert link.state.cause == "the network is metered"
        link.set_metered(False)
        assert (link.weak, link.state.mode) == (False, Mode.REINTEGRATING)
        link.drained()
        server.takes_s = 0.45
        for number in range(RECENT):
            link.doubt("measure")
            await until(lambda number=number: server.questions > number)
            await asyncio.sleep(0.5)
        assert (link.weak, link.state.mode) == (True, Mode.WRITE_BEHIND)
        assert "round trips take 0.4" in link.state.cause or "0.5" in link.state.cause
        await link.online_by_hand()
        assert link.state.mode is Mode.REINTEGRATING, "a person's word counts"

    scenario(play)


def test_an_idle_link_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PROBE_S", 0.05)
    monkeypatch.setattr("awayfs.core.noticing.LONGEST_S", 0.1)

    async def play(link: Link, server: Server, news: list[str]) -> None:
        server.takes_s = None
        await until(lambda: not link.usable)
        assert link.state.cause == "no answer"

    scenario(play)


# --- Surroundings ----------------------------------------------------------------------------


def test_the_machine_slept() -> None:
    """An hour passes by CLOCK_BOOTTIME and a second by CLOCK_MONOTONIC."""

    async def play(link: Link, server: Server, news: list[str]) -> None:
        times = iter([(10.0, 10.0), (11.0, 11.0), (3612.0, 12.0)])
        around = Surroundings(link, read=lambda: next(times, (3613.0, 13.0)))
        watching = asyncio.ensure_future(around.watch_clocks())
        try:
            await until(lambda: server.questions == 1)
        finally:
            watching.cancel()

    scenario(play)


def test_the_way_is_looked_at_and_believed() -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        server.addresses = ("10.0.0.1", "10.0.0.2")
        ways = {"10.0.0.2": HERE}
        around = Surroundings(link, look=lambda server, own: ways[server])
        around.network_changed()
        assert link.usable
        ways["10.0.0.2"] = CUT
        around.network_changed()
        assert (link.usable, link.state.cause) == (False, "no route")
        server.trouble = Unreachable("no route")
        await until(lambda: server.attempts == 2)
        server.trouble = None
        around.network_changed()
        await asyncio.sleep(0.05)
        assert server.attempts == 2, "nothing changed"
        ways["10.0.0.2"] = HERE
        around.network_changed()
        await until(lambda: link.usable, 0.5)
        ways["10.0.0.2"] = WIFI
        around.network_changed()
        await until(lambda: server.questions == 1)

    scenario(play)


def test_a_mounted_share_has_the_address_of_the_mount() -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        asked: list[tuple[str, str]] = []

        def look(server: str, own: str) -> Way:
            asked.append((server, own))
            return CUT

        Surroundings(link, lambda: "10.0.0.2", look).network_changed()
        assert asked == [("10.0.0.2", "")]
        assert (link.usable, link.state.cause) == (False, "no route")

    scenario(play)


def test_without_an_address_it_asks_but_not_after_each_change() -> None:
    async def play(link: Link, server: Server, news: list[str]) -> None:
        around = Surroundings(link)
        for _ in range(100):
            around.network_changed()
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert server.questions == 1

    scenario(play)


def test_a_kernel_that_does_not_tell_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_changed: object) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(rtnetlink, "Changes", refuse)

    async def play(link: Link, server: Server, news: list[str]) -> None:
        around = Surroundings(link)
        around.start()
        around.close()

    scenario(play)


def test_the_way_to_this_machine() -> None:
    way = rtnetlink.look("127.0.0.1", "127.0.0.1")
    assert way == Way("", "lo", "127.0.0.1", True)
    assert rtnetlink.look("::ffff:127.0.0.1", "::ffff:127.0.0.1") == way
    assert not rtnetlink.look("127.0.0.1", "192.0.2.200").ours
    if socket.has_ipv6:
        assert rtnetlink.look("::1").interface in ("lo", "")
    with pytest.raises(ValueError):
        rtnetlink.look("not an address")

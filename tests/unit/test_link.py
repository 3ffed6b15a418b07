"""The link by itself: what takes it down, what brings it back, and what must not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from awayfs.core.errors import (
    AuthenticationRequired,
    Implausible,
    RemoteError,
    Unreachable,
    WrongServer,
)
from awayfs.core.modes import Mode, ModeState
from awayfs.volume.link import Link
from awayfs.volume.refusal_pause import LATELY_S, RefusalPause


class FakeRemote:
    """Connects, or fails with ``trouble``; ``hang`` keeps an attempt waiting until given up."""

    def __init__(self) -> None:
        self.trouble: RemoteError | None = None
        self.hang: asyncio.Event | None = None
        self.attempts = 0
        self.has_session = False
        self.given_up = asyncio.Event()

    async def connect(self, _witnesses: Any = ()) -> Any:
        self.attempts += 1
        if self.hang is not None:
            hanging, self.hang = self.hang, None
            await hanging.wait()
            raise Unreachable("given up")
        if self.trouble is not None:
            raise self.trouble
        self.has_session = True
        return object()

    def give_up(self, _why: str) -> None:
        self.has_session = False
        self.given_up.set()

    async def close(self) -> None:
        self.give_up("closed")

    async def probe(self) -> None:
        if self.trouble is not None:
            raise self.trouble


def started(remote: FakeRemote) -> Link:
    clock = iter(range(1, 10**6))
    return Link(remote, lambda: next(clock), ModeState(Mode.DISCONNECTED, cause="starting"))  # type: ignore[arg-type]


def scenario(play: Callable[[Link, FakeRemote], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        remote = FakeRemote()
        link = started(remote)
        link.give_up = remote.give_up
        trying = asyncio.ensure_future(link.keep_trying())
        try:
            await asyncio.wait_for(play(link, remote), 90)
        finally:
            trying.cancel()

    asyncio.run(run())


async def until(check: Callable[[], object], within: float = 30.0) -> None:
    async def look() -> None:
        while not check():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), within)


def raising(error: RemoteError) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def operation(_remote: Any) -> None:
        raise error

    return operation


def test_a_brake_holds_until_it_is_confirmed() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        await until(lambda: link.usable)
        link.stop("half of it is gone")
        attempts = remote.attempts
        await asyncio.sleep(0.3)
        assert (link.usable, link.state.mode, remote.attempts) == (False, Mode.STOPPED, attempts)
        with pytest.raises(Implausible, match="half of it"):
            await link.online_by_hand()
        assert (link.usable, link.state.mode) == (False, Mode.STOPPED)
        link.confirm()
        await until(lambda: link.usable)
        assert link.state.mode is Mode.REINTEGRATING

    scenario(play)


def test_a_stranger_at_the_address_is_asked_again() -> None:
    """A laptop in another network: the same address, another machine, and home again."""

    async def play(link: Link, remote: FakeRemote) -> None:
        await until(lambda: link.usable)
        remote.trouble = WrongServer("another host key")
        with pytest.raises(WrongServer):
            await link.call(raising(remote.trouble))
        assert (link.usable, link.state.mode) == (False, Mode.STOPPED)
        await asyncio.sleep(0.1)
        assert not link.usable
        remote.trouble = None
        await until(lambda: link.usable)
        assert link.state.mode is Mode.REINTEGRATING

    scenario(play)


def test_credentials_that_work_again_end_the_pause() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        remote.trouble = AuthenticationRequired("no key")
        await until(lambda: link.state.mode is Mode.AUTH_REQUIRED)
        remote.trouble = None
        link.credentials_changed("another key")
        await until(lambda: link.usable)
        assert link.state.mode is Mode.REINTEGRATING

    scenario(play)


def test_a_server_that_refuses_us_is_left_alone() -> None:
    """No hint of the network's makes us knock again; what a person says does."""

    async def play(link: Link, remote: FakeRemote) -> None:
        remote.trouble = AuthenticationRequired("no key")
        await until(lambda: link.state.mode is Mode.AUTH_REQUIRED)
        for hint in range(5):
            link.hope("another network", moved=hint % 2 == 0)
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        assert remote.attempts == 1
        link.automatic()
        await until(lambda: remote.attempts == 2)
        with pytest.raises(AuthenticationRequired):
            await link.online_by_hand()
        await asyncio.sleep(0.2)
        assert (remote.attempts, link.state.mode) == (3, Mode.AUTH_REQUIRED)
        link.credentials_changed("another key")
        await until(lambda: remote.attempts == 4)
        await asyncio.sleep(0.2)
        assert remote.attempts == 4, "refused again, and so left alone again"
        for _ in range(20):
            link.credentials_changed("some file that changes all the time")
            await asyncio.sleep(0.05)
        assert remote.attempts < 10

    scenario(play)


def test_pauses_after_refusals_grow() -> None:
    now = [0.0]
    pause = RefusalPause(lambda: now[0])
    assert (pause.left_s, pause.lately) == (0, False)
    begun = []
    while now[0] < 600:
        begun.append(now[0])
        pause.refused(0.5)
        assert pause.lately
        now[0] += pause.left_s
    assert begun == [0, 60, 180, 420]
    for _ in range(10):
        pause.refused(0.5)
    assert pause.left_s == 1800
    now[0] += LATELY_S
    assert not pause.lately, "a new network is worth a try by now"
    pause.cut_short()
    assert pause.left_s == 0
    pause.refused(0.5)
    assert pause.left_s == 1800
    pause.accepted()
    pause.refused(0.5)
    assert pause.left_s == 60


def test_offline_by_hand_is_not_undone_by_a_brake_or_a_link() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        await until(lambda: link.usable)
        link.offline_by_hand()
        link.stop("half of it is gone")
        link.confirm()
        await asyncio.sleep(0.2)
        assert (link.usable, link.state.mode, link.state.by_hand) == (
            False,
            Mode.DISCONNECTED,
            True,
        )

    scenario(play)


def test_online_gives_up_an_attempt_that_hangs() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        remote.hang = remote.given_up
        await until(lambda: remote.attempts == 1)
        await asyncio.wait_for(link.online_by_hand(), 2)
        assert link.usable
        assert link.state.by_hand

    scenario(play)


class SlowAdmission:
    """Keeps the first attempt that was answered from being let in."""

    def __init__(self, link: Link) -> None:
        self.begun, self.release = asyncio.Event(), asyncio.Event()
        link.admit = self._admit

    async def _admit(self, _connected: Any) -> None:
        if not self.begun.is_set():
            self.begun.set()
            await self.release.wait()


def test_online_ends_no_session_that_comes_up() -> None:
    """The attempt that is given up has its answer, and only has to be let in."""

    async def play(link: Link, remote: FakeRemote) -> None:
        admission = SlowAdmission(link)
        await admission.begun.wait()
        asked = asyncio.ensure_future(link.online_by_hand())
        await asyncio.sleep(0.1)
        admission.release.set()
        await asked
        assert (link.usable, link.state.by_hand) == (True, True)
        assert remote.has_session, "the link is up, and there is nothing behind it"

    scenario(play)


def test_another_way_ends_no_session_that_comes_up() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        admission = SlowAdmission(link)
        await admission.begun.wait()
        link.hope("another network", moved=True)
        admission.release.set()
        await until(lambda: link.usable)
        assert remote.has_session, "the link is up, and there is nothing behind it"

    scenario(play)


def test_online_counts_though_another_attempt_was_sooner() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        remote.hang = remote.given_up
        await until(lambda: remote.attempts == 1)
        sooner = asyncio.ensure_future(link.connect())
        await asyncio.sleep(0)
        await link.online_by_hand()
        await sooner
        assert (remote.attempts, link.usable, link.state.by_hand) == (2, True, True)

    scenario(play)


def test_offline_while_online_is_tried_wins() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        await until(lambda: link.usable)
        link.offline_by_hand()
        remote.hang = remote.given_up
        asked = asyncio.ensure_future(link.online_by_hand())
        await until(lambda: remote.hang is None)
        link.offline_by_hand()
        remote.given_up.set()
        with pytest.raises(Unreachable):
            await asked
        await asyncio.sleep(0.1)
        assert (link.state.mode, link.state.by_hand) == (Mode.DISCONNECTED, True)

    scenario(play)


def test_online_that_fails_leaves_it_trying_and_tells_one_change() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        await until(lambda: link.usable)
        link.offline_by_hand()
        remote.trouble = Unreachable("dead")
        changes: list[Mode] = []
        link.on_change = lambda _old, new: changes.append(new.mode)
        with pytest.raises(Unreachable):
            await link.online_by_hand()
        assert (link.state.mode, link.state.by_hand) == (Mode.DISCONNECTED, False)
        assert link.state.cause == "dead"
        assert changes == [Mode.DISCONNECTED]
        remote.trouble = None
        await until(lambda: link.usable)
        assert changes == [Mode.DISCONNECTED, Mode.REINTEGRATING], "nobody would replay"

    scenario(play)


def test_an_answer_of_an_old_session_does_not_end_the_new_one() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        await until(lambda: link.usable)
        released = asyncio.Event()

        async def late(_remote: Any) -> None:
            await released.wait()
            raise Unreachable("the old worker is gone")

        waiting = asyncio.ensure_future(link.call(late))
        await asyncio.sleep(0)
        link.lost("somebody else noticed")
        await until(lambda: link.usable)
        released.set()
        with pytest.raises(Unreachable):
            await waiting
        assert link.usable

    scenario(play)


def test_the_newest_cause_is_told() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        remote.trouble = Unreachable("no route")
        await until(lambda: link.state.cause == "no route")
        remote.trouble = Unreachable("refused")
        await until(lambda: link.state.cause == "refused")

    scenario(play)


def test_a_link_that_flaps_is_not_hammered() -> None:
    async def play(link: Link, remote: FakeRemote) -> None:
        for _ in range(3):
            await until(lambda: link.usable)
            link.lost("flaps")
        attempts = remote.attempts
        await asyncio.sleep(0.3)
        assert remote.attempts == attempts

    scenario(play)


def test_an_idle_link_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awayfs.volume.link.PROBE_S", 0.05)
    monkeypatch.setattr("awayfs.volume.link.SECOND_NS", 1)

    async def play(link: Link, remote: FakeRemote) -> None:
        await until(lambda: link.usable)
        remote.trouble = Unreachable("gone in silence")
        await until(lambda: link.state.mode is Mode.DISCONNECTED)
        assert link.state.cause == "gone in silence"

    scenario(play)

"""Who has the next place in SFTP's window, and that waiting for it is no silence."""

from __future__ import annotations

import asyncio

import pytest

from awayfs.remotes import progress
from awayfs.remotes.sftp_window import (
    FIRST_WINDOW,
    LARGEST_AGAIN,
    LARGEST_FIRST,
    QUEUED_MUCH_S,
    TELL_EVERY_S,
    Way,
    Window,
    first_window,
)

ALL = FIRST_WINDOW


def test_what_somebody_waits_for_goes_before_what_waited_longer() -> None:
    async def play() -> None:
        window, order = Window(ALL), list[str]()

        async def one(name: str, *, first: bool) -> None:
            async with window.room(ALL, first=first):
                order.append(name)
                await asyncio.sleep(0)

        async with window.room(ALL):
            tasks = [asyncio.ensure_future(one(f"upload{n}", first=False)) for n in range(3)]
            await asyncio.sleep(0)
            tasks.append(asyncio.ensure_future(one("read", first=True)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == ["read", "upload0", "upload1", "upload2"]

    asyncio.run(play())


def test_who_is_cancelled_keeps_nobody_waiting() -> None:
    async def play() -> None:
        window = Window(ALL)

        async def one(*, first: bool) -> None:
            async with window.room(ALL, first=first):
                pass

        async with window.room(ALL):
            upload = asyncio.ensure_future(one(first=False))
            read = asyncio.ensure_future(one(first=True))
            await asyncio.sleep(0)
            read.cancel()
        await asyncio.wait_for(upload, 10)

    asyncio.run(play())


def test_an_upload_that_lets_reads_go_first_is_alive_as_long_as_they_move() -> None:
    async def play() -> None:
        window, signs = Window(ALL), list[float]()

        async def upload() -> None:
            progress.listener.set(signs.append)
            async with window.room(ALL):
                pass

        async def read() -> None:
            async with window.room(ALL, first=True):
                await asyncio.sleep(TELL_EVERY_S)

        async with window.room(ALL, first=True):
            waiting = asyncio.ensure_future(upload())
            reads = [asyncio.ensure_future(read()) for _ in range(5)]
            await asyncio.sleep(0.05)
            assert signs == []
        await asyncio.gather(*reads)
        assert signs == [progress.KEEP] * len(signs)
        assert len(signs) >= 2
        await asyncio.wait_for(waiting, 10)

    asyncio.run(play())


def test_nobody_overtakes_who_waits_for_more_room() -> None:
    async def play() -> None:
        window, order = Window(ALL), list[str]()

        async def one(name: str, count: int) -> None:
            await window.enter(count)
            order.append(name)

        await window.enter(ALL // 2)
        tasks = [asyncio.ensure_future(one("all", ALL)), asyncio.ensure_future(one("little", 1))]
        await asyncio.sleep(0)
        assert order == []
        window.give(ALL // 2, None)
        await tasks[0]
        await asyncio.sleep(0)
        assert order == ["all"]
        window.give(ALL, None)
        await tasks[1]

    asyncio.run(play())


HERE = ("10.0.0.2", "10.0.0.1")
MUCH = 1 << 30


@pytest.mark.parametrize(
    ("now", "borne", "begins"),
    [
        (Way(HERE, 0.02), 0, FIRST_WINDOW),
        (Way(HERE, 0.02), FIRST_WINDOW, FIRST_WINDOW),
        (Way(HERE, 0.02), 4 * FIRST_WINDOW, 2 * FIRST_WINDOW),
        (Way(HERE, 0.02), MUCH, LARGEST_AGAIN),
        (Way(HERE, 0.044), MUCH, LARGEST_AGAIN),
        (Way(HERE, 0.046), MUCH, LARGEST_FIRST),
        (Way(("10.9.9.9", HERE[1]), 0.02), MUCH, FIRST_WINDOW),
        (Way(None, 0.02), MUCH, FIRST_WINDOW),
    ],
)
def test_it_begins_anew_with_half_of_what_the_link_bore_but_not_too_much(
    now: Way, borne: int, begins: int
) -> None:
    before = Way(now.addresses and HERE, 0.02, borne)
    assert first_window(now, before) == begins
    assert first_window(now, None) == FIRST_WINDOW
    assert Window(ALL, begins).allowed == begins


def test_what_was_hardly_used_tells_nothing_of_what_the_link_bears() -> None:
    async def play() -> None:
        window = Window(ALL, LARGEST_AGAIN)
        async with window.room(50):  # the program's fence, at the beginning of each session
            pass
        assert not window.is_tried
        await window.enter(window.allowed // 2 + 1)
        assert window.is_tried, "though it is never answered, since the link died of it"

    asyncio.run(play())


def test_a_window_that_was_too_large_is_tried() -> None:
    window = Window(ALL, LARGEST_AGAIN)
    window.give(0, 0.0)
    assert not window.is_tried
    window.give(0, QUEUED_MUCH_S * 2)
    assert window.is_tried
    assert window.allowed == LARGEST_AGAIN // 2

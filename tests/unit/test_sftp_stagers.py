"""Which channel a small upload goes through (``remotes.sftp_stagers``)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any, cast

from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_connection import Session
from awayfs.remotes.sftp_stagers import MANY, MOST, SMALL, Stagers
from awayfs.remotes.sftp_transfer import Transfer


class Bulk:
    """Runs what nobody waits for."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.ensure_future(work)


class Sshd:
    """A session whose server allows so many channels more."""

    def __init__(self, more: int) -> None:
        self.bulk = Bulk()
        self.more = more
        self.asked = 0

    async def one_more_channel(self) -> str | None:
        self.asked += 1
        self.more -= 1
        return f"channel {self.asked}" if self.more >= 0 else None


def stagers(sshd: Sshd) -> Stagers:
    def make(channel: Channel) -> Transfer:
        return cast(Transfer, channel)

    return Stagers(cast(Session, sshd), cast(Transfer, "first"), make)


async def begin(made: Stagers, count: int, size: int = 4096) -> list[object]:
    """The channels that so many uploads at once get."""
    used: list[object] = []
    with ExitStack() as under_way:
        for _ in range(count):
            used.append(under_way.enter_context(made.one(size)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    return used


def test_a_few_share_the_first_channel() -> None:
    sshd = Sshd(more=9)
    assert set(asyncio.run(begin(stagers(sshd), MANY))) == {"first"}
    assert sshd.asked == 0


def test_many_have_several_and_are_spread_evenly() -> None:
    sshd = Sshd(more=9)
    used = asyncio.run(begin(stagers(sshd), 40 * MOST))
    assert len(set(used)) == MOST and sshd.asked == MOST - 1
    counts = [used.count(channel) for channel in set(used)]
    assert max(counts) - min(counts) <= 1


def test_a_server_that_allows_no_more_is_asked_once() -> None:
    sshd = Sshd(more=0)
    assert set(asyncio.run(begin(stagers(sshd), 200))) == {"first"}
    assert sshd.asked == 1


def test_large_uploads_stay_together() -> None:
    sshd = Sshd(more=9)
    made = stagers(sshd)

    async def play() -> list[object]:
        await begin(made, 100)
        return await begin(made, 100, SMALL + 1)

    assert set(asyncio.run(play())) == {"first"}

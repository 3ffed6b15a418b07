"""Several small contents in one call: what one of them meets is its own affair."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from awayfs.core.errors import Refused
from awayfs.core.types import ABSENT, Attributes, Committed, Outcome
from awayfs.ports.remote import Put
from awayfs.remotes import progress
from awayfs.remotes.putting import put_each

LONG_S = 15.0


def puts(*paths: bytes) -> list[Put]:
    return [Put(f"op{n}", path, b"", Attributes(), ABSENT) for n, path in enumerate(paths)]


class Slow:
    """A server whose disk takes long over one file, and is through with the others at once."""

    def __init__(self) -> None:
        self.others_are_through = asyncio.Event()
        self.heard: list[float] = []
        self.heard_then: list[float] = []

    async def put(self, _op: str, path: bytes, *_given: Any) -> Outcome:
        progress.tick(LONG_S)
        if path == b"slow":
            await self.others_are_through.wait()
            self.heard_then = list(self.heard)
            return Committed(None)
        progress.tick()
        if path == b"refused":
            raise Refused(errno.EACCES, "no")
        return Committed(None)


def test_a_step_that_may_take_long_still_may_when_others_are_through() -> None:
    async def play() -> None:
        remote: Any = Slow()
        progress.listener.set(remote.heard.append)
        sending = asyncio.ensure_future(put_each(remote, puts(b"slow", b"a", b"refused", b"b")))
        await asyncio.sleep(0.01)
        remote.others_are_through.set()
        first, second, refused, last = await sending
        assert first == second == last == Committed(None)
        assert isinstance(refused, Refused)
        assert remote.heard_then[-1] == LONG_S
        assert remote.heard[-1] == 0.0

    asyncio.run(play())


def test_who_only_waits_leaves_the_time_of_all_as_it_is() -> None:
    heard: list[float] = []
    progress.listener.set(heard.append)
    one, other = progress.parts(2)
    one(LONG_S)
    other(progress.KEEP)
    other(1.0)
    one(0.0)
    assert heard == [LONG_S, progress.KEEP, LONG_S, 1.0]
    progress.listener.set(None)
    progress.parts(1)[0](LONG_S)

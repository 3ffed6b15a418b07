"""What is done while a client does something else: at the n-th time that it turns to the server.

A turn is a call that goes out, or its answer. Somebody on the server is done at once. What the
client itself is asked for is a task of its own: it goes on whenever the other has to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tests.model.client import Client

Op = tuple[Any, ...]
WATCHED_S = 0.05


@dataclass
class _Due:
    turns: int
    who: str
    op: Op


class Beside:
    """What is to be done when, and what was begun of it."""

    def __init__(self, begin: Callable[[str, Op], asyncio.Task[None] | None]) -> None:
        self._begin = begin
        self._due: list[_Due] = []
        self._begun: set[asyncio.Task[None]] = set()

    def have(self, ops: list[tuple[int, str, Op]]) -> None:
        """From now on: after so many turns, who is to do what."""
        self._due = [_Due(*one) for one in ops]

    def turn(self) -> bool:
        """A call goes out or comes back; whether somebody begins with something."""
        now: list[_Due] = []
        for due in self._due:
            due.turns -= 1
            if due.turns <= 0:
                now.append(due)
        self._due = [due for due in self._due if due.turns > 0]
        begun = [self._begin(due.who, due.op) for due in now]
        self._begun.update(filter(None, begun))
        return any(begun)

    async def through(self, client: Client, work: Coroutine[Any, Any, None]) -> None:
        """Do something, and have all done that is begun meanwhile; what is due later is not done.

        A client that dies takes all of it along.
        """
        own = asyncio.ensure_future(work)
        self._begun.add(own)
        try:
            while self._begun and client.left is None:
                if own.done():
                    self._due = []
                finished, _ = await asyncio.wait(
                    self._begun, timeout=WATCHED_S, return_when=asyncio.FIRST_COMPLETED
                )
                self._begun -= finished
        finally:
            await self._end()
        if not own.cancelled():
            own.result()

    async def _end(self) -> None:
        begun, self._begun, self._due = self._begun, set(), []
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)

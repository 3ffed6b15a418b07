"""Short steps of several records in one transaction: what many commits cost, one costs.

A step runs a moment after it was asked for, together with what others asked for in the same turn
of the event loop, and is durable when ``do`` returns. So a step looks anew at what it depends on.
One that raises takes nothing from the others: its transaction is rolled back, and each of them has
one of its own then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from awayfs.store.store import Store
from awayfs.volume.slices import Slices

T = TypeVar("T")


class _Step:
    """One step, and who waits for it."""

    __slots__ = ("told", "value", "work")

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.value: object = None
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class Together:
    """Runs steps on the event loop; never longer at a stretch than a slice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Step] = deque()

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, or raises, once it is committed.

        It may run twice: the first time is rolled back then. Not at all when the caller was
        cancelled before its turn.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        step = _Step(work)
        self._waiting.append(step)
        return cast(T, await step.told)

    def _run(self) -> None:
        done: list[_Step] = []
        try:
            with self._store.transaction():
                self._run_slice(done)
        except Exception as error:
            if not done and self._waiting:  # it did not even begin: on a full disk, say
                done.append(self._waiting.popleft())
            if len(done) == 1:
                self._fail(done[0], error)
            else:
                for step in done:
                    self._run_alone(step)
        else:
            for step in done:
                if not step.told.done():
                    step.told.set_result(step.value)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)

    def _run_slice(self, done: list[_Step]) -> None:
        slices = Slices()
        while self._waiting:
            step = self._waiting.popleft()
            if not step.told.cancelled():
                done.append(step)
                step.value = step.work()
            if slices.over:
                break

    def _run_alone(self, step: _Step) -> None:
        try:
            with self._store.transaction():
                step.value = step.work()
        except Exception as error:
            self._fail(step, error)
        else:
            if not step.told.done():
                step.told.set_result(step.value)

    def _fail(self, step: _Step, error: Exception) -> None:
        if not step.told.done():
            step.told.set_exception(error)

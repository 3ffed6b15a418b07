"""Records that are on their way: how many may be, which are through, and how fast that goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from awayfs.core import flight
from awayfs.core.pace import Estimate, Pace
from awayfs.core.records import RecordState
from awayfs.store.journal import Journal


class Flying:
    """One task a record, or for some that go together.

    What came back is told in the order in which it did.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._begun_s: dict[int, float] = {}
        self._through: list[int] = []
        self._some_are = asyncio.Event()
        self._limit = flight.FIRST
        self._full = False  # whether as many were on their way when some were through
        self._pace = Pace()

    def __contains__(self, seq: int) -> bool:
        return seq in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def room(self, *, weak: bool) -> int:
        """How many more may be on their way, over a link that is ``weak`` or not."""
        return max(0, flight.at_most(self._limit, weak) - len(self._tasks))

    def start(self, seqs: Sequence[int], work: Coroutine[Any, Any, None]) -> None:
        """Records are on their way from now on, until ``landed`` is called for each."""
        now = asyncio.get_running_loop().time()
        self._begun_s.update(dict.fromkeys(seqs, now))
        self._begin(seqs, work)

    def part(self, seq: int, work: Coroutine[Any, Any, None]) -> None:
        """One of those that go together goes on by itself: the others need not wait for it."""
        self._begin([seq], work)

    def _begin(self, seqs: Sequence[int], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.update(dict.fromkeys(seqs, task))
        task.add_done_callback(lambda task: self._note_through(seqs, task))

    def _note_through(self, seqs: Sequence[int], task: asyncio.Task[None]) -> None:
        self._through += [seq for seq in seqs if self._tasks.get(seq) is task]
        self._some_are.set()

    async def next_through(self, timeout_s: float) -> list[int]:
        """What is through by now, after waiting for the first; nothing if that takes too long."""
        with suppress(TimeoutError):  # not ``wait_for``: with Python 3.11 it may lose a cancel
            async with asyncio.timeout(timeout_s):
                await self._some_are.wait()
        through, self._through = self._through, []
        self._some_are.clear()
        self._full = len(self._tasks) >= self._limit  # each of them tells of a full way
        return through

    def landed(self, seq: int, *, waits: bool) -> None:
        """A record is not on its way any more; one that ``waits`` tells nothing of the link."""
        took_s = asyncio.get_running_loop().time() - self._begun_s.pop(seq)
        if not waits:
            self._limit = flight.after(self._limit, self._full, took_s)
        del self._tasks[seq]

    async def cancel(self) -> list[int]:
        """Nothing is on its way any more; what was."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*set(tasks.values()), return_exceptions=True)
        self._through.clear()
        self._begun_s.clear()
        return list(tasks)

    def look(self) -> None:
        """Take note of how much is left to send."""
        self._pace.look(asyncio.get_running_loop().time(), *self._left())

    def estimate(self) -> Estimate | None:
        """How fast it goes at present, and how long what is left may take."""
        return self._pace.estimate(asyncio.get_running_loop().time(), *self._left())

    def _left(self) -> tuple[int, int]:
        parked = self._journal.counts()[RecordState.PARKED]
        return self._journal.count() - parked, self._journal.pending_bytes()

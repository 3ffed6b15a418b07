"""Draining the journal: which record goes out, and what becomes of it.

One pass takes the journal, optimises what has not gone out, and sends what is ready, several
records at a time where they are independent (``replay_steps``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress

from awayfs.core.errors import Unreachable
from awayfs.core.pace import Estimate
from awayfs.core.records import RecordState
from awayfs.core.types import Kind, NodeId
from awayfs.volume.ageing import Ageing
from awayfs.volume.being_written import BeingWritten
from awayfs.volume.context import Context
from awayfs.volume.flying import Flying
from awayfs.volume.parking import Parking
from awayfs.volume.replay_act import Actor
from awayfs.volume.replay_batches import Batches
from awayfs.volume.replay_commit import Committer
from awayfs.volume.replay_facts import FactFinder
from awayfs.volume.replay_optimise import Optimiser
from awayfs.volume.replay_progress import Progress
from awayfs.volume.replay_queue import Queue
from awayfs.volume.replay_steps import Steps
from awayfs.volume.replay_waits import Waits
from awayfs.volume.revive import Reviver

log = logging.getLogger(__name__)

ROUNDS = 8
FAILED_PAUSE_S = 1.0
LONG_S = 2.0
"""When nothing came back for so long, what is new since need not wait for it."""
LONGEST_REST_S = 10.0
"""What rests is looked at again after no longer: the clock or the setting may be another then."""
AT_ONCE = 64
"""Records that begin in one turn of the event loop."""


class Replay:
    """Sends the journal whenever there is something to send and somebody to send it to."""

    def __init__(
        self,
        context: Context,
        finder: FactFinder,
        actor: Actor,
        committer: Committer,
        parking: Parking,
        reviver: Reviver,
    ) -> None:
        self._context = context
        self._store = context.store
        self._sending = context.sending
        self._woken = asyncio.Event()
        self._queue = Queue(context.store.journal, self._is_directory)
        self._optimiser = Optimiser(context.store, committer.discard_if_unused, self._is_directory)
        self._optimising = asyncio.Lock()
        self._in_flight = Flying(context.store.journal)
        self._batches = Batches(context, finder, actor.puts)
        self._waits = Waits(context)
        self._settled = asyncio.Condition()
        self.active = False
        self._being_written = BeingWritten(context)
        self.steps = Steps(
            context,
            finder,
            actor,
            committer,
            parking,
            reviver,
            self._waits,
            self._being_written,
            self._queue.not_done,
        )
        self.ageing = Ageing(context)
        context.effective.on_change.append(self.wake)

    def is_flying(self, seq: int) -> bool:
        """Whether a record is being worked on at this moment."""
        return seq in self._in_flight

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def hurry(self) -> None:
        """Send what there is, files that are still being written and what rests included.

        A server that was full is asked once more.
        """
        self._waits.server_may_have_room()
        self._being_written.hurry()
        self._sending.ask_for_all()
        self.ageing.want_all()
        self.wake()

    def hurry_first(self, seqs: Collection[int]) -> None:
        """The same for some records, and what they need: before all others."""
        self._waits.server_may_have_room()
        self._being_written.hurry(seqs)
        self._sending.ask(seqs)
        self.wake()

    @property
    def first_is_stuck(self) -> bool:
        """Whether no more of what ``hurry_first`` asked for goes out by waiting a moment."""
        return not self._is_busy_with_first()

    def holds_back(self, node: NodeId) -> bool:
        """Whether what is to be sent of a node waits until it is asked for."""
        return self._sending.holds_back(node, self._queue.goes_first)

    def urgently(self, node: NodeId) -> AbstractContextManager[None]:
        """Somebody waits for a node's changes: they go out though it is still being written."""
        return self._being_written.urgently(node)

    async def run(self) -> None:
        """Drain whenever woken; runs until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._drain()
                continue
            except (Unreachable, OSError) as error:
                log.warning("replay stopped, and goes on soon: %s", error)
                self.steps.make_room(error)
            except Exception:
                log.exception("replay failed")
            self._woken.set()
            await asyncio.sleep(FAILED_PAUSE_S)

    def progress(self) -> Progress:
        """Where things stand now."""
        counts = self._store.journal.counts()
        total = self._store.journal.count()
        busy, held_up = self._is_busy(), self._is_held_up()
        mapped = 0 if busy else self._waits.count_mapped()
        held = self._sending.held_back(self._queue.count_first)
        resting = self.ageing.resting(self._queue.count_first)
        left = total - mapped - max(held, resting.records)
        return Progress(
            records=total,
            bytes=self._store.journal.pending_bytes(),
            parked=counts[RecordState.PARKED],
            mapped=mapped,
            stuck=left > 0 and self._context.link.usable and (held_up or not busy),
            full=held_up,
            held=held,
            resting=resting,
        )

    def estimate(self) -> Estimate | None:
        """How fast it goes, and how long what is left may take; None while nothing is sent."""
        return self._in_flight.estimate() if self.active else None

    async def tidy(self) -> None:
        """Free what files take that were made and removed while the server is away."""
        if not self._context.link.usable and not self._in_flight:
            async with self._optimising:
                await self._optimiser.run()

    async def prepare(self) -> None:
        """The server may be there soon: what can be done without it need not wait for it."""
        await self.tidy()
        await self._queue.read_ahead(lambda: not self.active, self._store.nodes.foresee)

    async def wait_for_node(self, node: NodeId) -> None:
        """Until nothing that is there of a node now is left to send, or it cannot be sent now."""
        journal = self._store.journal
        last = journal.last_seq()
        await self._wait_until(
            lambda: all(
                r.state is RecordState.PARKED or r.seq > last for r in journal.of_node(node)
            )
        )

    async def wait_for_all(self) -> None:
        """Until nothing that is in the journal now is left to send, or it cannot be sent now."""
        journal = self._store.journal
        last = journal.last_seq()
        await self._wait_until(lambda: not journal.has_unparked(last))

    async def wait(self, seconds: float) -> None:
        """So long, but no longer than there is something to do."""
        if not self._is_busy():
            await asyncio.sleep(seconds)
            return
        async with self._settled:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._settled.wait_for(lambda: not self._is_busy())

    async def _wait_until(self, settled: Callable[[], bool]) -> None:
        """Or until the server is away, or full, or all that is left waits for a decision."""
        self.ageing.want_all()
        self.wake()

        def is_over() -> bool:
            return not self._context.link.usable or settled() or not self._is_busy()

        async with self._settled:
            await self._settled.wait_for(lambda: is_over() or self._is_held_up())

    async def _drain(self) -> None:
        """One pass after the other until nothing moves."""
        self.active = True
        try:
            while self._context.link.usable and self._store.journal.count():
                async with self._optimising:
                    await self._optimiser.run()
                if not self._sending.lets_go():
                    self._waits.clear()
                    break
                await self._context.before_sending()
                if not await self._pass():
                    break
            if self._context.link.usable and self._drained():
                held = self._sending.choice().holds_back and self._store.journal.count()
                self._context.link.drained("what may go is sent" if held else "everything is sent")
        finally:
            self.active = False
            await self._cancel_flying()
            await self._tell()
        self._plan()

    def _plan(self) -> None:
        """When to look again at what did not go out."""
        if not self._context.link.usable:
            return
        later = asyncio.get_running_loop().call_later
        if (wait_s := self._waits.again_in_s()) is not None:
            later(wait_s, self.wake)
        elif resting := self.ageing.resting().left_s:
            later(min(resting, LONGEST_REST_S), self.wake)

    def _is_busy(self) -> bool:
        """Whether something may go out without anything else happening first."""
        return self.active or self._woken.is_set() or self._waits.time_may_help()

    def _is_busy_with_first(self) -> bool:
        """The same of what was asked for by itself."""
        choice, link = self._sending.choice(), self._context.link
        if not link.usable or self._is_held_up():
            return False
        if self._woken.is_set() or (self.active and not self._queue.knows(choice)):
            return True
        return self._queue.first_moves or any(map(self._queue.goes_first, self._waits.hopeful()))

    def _is_held_up(self) -> bool:
        """Whether nothing goes out until the server has room again."""
        return self._waits.is_full() and not self._in_flight

    def _drained(self) -> bool:
        counts = self._store.journal.counts()
        return not self._in_flight and not counts[RecordState.FROZEN]

    async def _pass(self) -> bool:
        """Send what is ready until nothing is; whether anything moved.

        What is changed meanwhile, or waits, has its turn as well when all the rest takes long.
        """
        self._begin_pass()
        self._in_flight.look()
        moved = False
        while self._context.link.usable:
            await self._send_ready()
            if not self._in_flight:
                break
            through = await self._in_flight.next_through(LONG_S)
            if not through:
                self._begin_pass()
            for seq in through:
                moved |= self._after(seq)
            self._in_flight.look()
            await self._tell()
        return moved

    def _begin_pass(self) -> None:
        self._waits.clear()
        self._queue.begin_pass(self.ageing.until())

    async def _send_ready(self) -> None:
        """As many as there is room for: what is not read yet is read for that.

        The first are on their way to the server while the next ones are looked at.
        """
        while self._context.link.usable and not self._waits.is_full():
            room = min(AT_ONCE, self._in_flight.room(weak=self._context.link.weak))
            if not (started := await self._queue.start(room, self._sending.choice())):
                break
            batches, alone = self._batches.of(started)
            for seq in alone:
                self._in_flight.start([seq], self.steps.alone(seq))
            for batch in batches:
                self._in_flight.start(
                    [one.seq for one in batch], self.steps.together(batch, self._in_flight.part)
                )
            await asyncio.sleep(0)

    def _after(self, seq: int) -> bool:
        """A record came back; whether that changed anything."""
        waits = seq in self._waits
        self._in_flight.landed(seq, waits=waits)
        moved = self._queue.back(seq, waits=waits)
        self._waits.forget_if_gone(seq)
        return moved

    def _is_directory(self, node: NodeId) -> bool:
        found = self._store.nodes.get(node)
        return found is None or found.kind is Kind.DIRECTORY

    async def _cancel_flying(self) -> None:
        for seq in await self._in_flight.cancel():
            self._queue.back(seq, waits=False)

    async def _tell(self) -> None:
        async with self._settled:
            self._settled.notify_all()

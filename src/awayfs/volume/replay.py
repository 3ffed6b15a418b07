"""Draining the journal: which record goes out, and what becomes of it.

One pass takes the journal, optimises what has not gone out, and sends what is ready, several
records at a time where they are independent. Each record goes through ``Replay.one``:

    settle    what an earlier, interrupted try left half-done on the server
    observe   what stands there now (``replay_facts``)
    decide    the pure decision
    act       a guarded operation, its intent stored before it (``replay_act``)
    commit    the outcome, in one transaction (``replay_commit``)

A process that dies between any two of these finds the record, and its intent if it had one,
at the next start, and goes through the same steps: deciding on what stands on the server
tells it whether the operation was executed. ``fault`` names the places.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress

from msgspec.structs import replace

from awayfs.core.decide import (
    AlreadyDone,
    Apply,
    Conflict,
    Decision,
    Facts,
    NeedDigest,
    Parent,
    Wait,
    decide,
)
from awayfs.core.decide import Refused as RefusedDecision
from awayfs.core.errors import NotFound, Refused, RemoteError, Unreachable
from awayfs.core.facts import digest_seen, if_as_known
from awayfs.core.pace import Estimate
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Committed, Kind, Mismatch, NodeId
from awayfs.ports.remote import Intent
from awayfs.volume.ageing import Ageing
from awayfs.volume.being_written import BeingWritten
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.flying import Flying
from awayfs.volume.left_names import LeftNames
from awayfs.volume.observe import Observer
from awayfs.volume.parking import Parking
from awayfs.volume.replay_act import Actor
from awayfs.volume.replay_commit import Committer, Found
from awayfs.volume.replay_facts import FactFinder
from awayfs.volume.replay_failures import Failures
from awayfs.volume.replay_optimise import Optimiser
from awayfs.volume.replay_progress import Progress
from awayfs.volume.replay_queue import Queue
from awayfs.volume.replay_waits import Waits
from awayfs.volume.revive import Reviver
from awayfs.volume.versions import Torn, Version, Versions

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
        observer: Observer,
        finder: FactFinder,
        actor: Actor,
        committer: Committer,
        parking: Parking,
        reviver: Reviver,
    ) -> None:
        self._context = context
        self._store = context.store
        self._sending = context.sending
        self._observer = observer
        self._finder = finder
        self._actor = actor
        self._committer = committer
        self._parking = parking
        self._reviver = reviver
        self._left_names = LeftNames(context)
        self._versions = Versions(context)
        self._woken = asyncio.Event()
        self._queue = Queue(context.store.journal, self._is_directory)
        self._optimiser = Optimiser(context.store, committer.discard_if_unused, self._is_directory)
        self._optimising = asyncio.Lock()
        self._in_flight = Flying(context.store.journal)
        self._waits = Waits(context)
        self._failures = Failures(context, self._waits, parking, finder.meanwhile, self._tidy)
        self._settled = asyncio.Condition()
        self.active = False
        self._being_written = BeingWritten(context)
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
                self._failures.make_room(error)
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
        await self._queue.read_ahead(lambda: not self.active)

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
            for seq in started:
                self._in_flight.start(seq, self._guarded(seq))
            await asyncio.sleep(0)

    def _after(self, seq: int) -> bool:
        """A record came back; whether that changed anything."""
        waits = seq in self._waits
        self._in_flight.landed(seq, waits=waits)
        moved = self._queue.back(seq, waits=waits)
        self._waits.forget_if_gone(seq)
        return moved

    async def _guarded(self, seq: int) -> None:
        """One record; nothing it meets may stop the others."""
        sent = self._store.journal.get(seq)
        try:
            await self.one(seq)
        except Unreachable:
            self._waits.add(seq)
        except Torn:
            self._being_written.torn(seq)
            self._waits.add(seq)
        except Refused as error:
            await self._failures.refused(seq, sent, error)
        except (RemoteError, OSError) as error:
            log.warning("record %d: %s", seq, error)
            self._failures.make_room(error)
            self._failures.note(seq, error)
        except Exception as error:
            log.exception("record %d cannot be replayed", seq)
            self._failures.note(seq, error)

    async def one(self, seq: int) -> None:
        """Take one record through all steps; it is gone, parked or waiting after that."""
        record = self._store.journal.get(seq)
        if record is None or record.state is RecordState.PARKED:
            return
        if self._being_written.is_only_mapped(record):
            self._waits.for_close(seq)
            return
        if self._being_written.is_unfinished(record):
            self._waits.add(seq)
            return
        earlier, settled = self._store.intents.get(seq), None
        if earlier is not None:
            if not self._actor.resumes(record, earlier[0]):
                settled = await self._tidy(seq)
            fault("replay.settled")
        unsure_of_parent = earlier is not None
        unseen = self._finder.may_go_unseen(record, earlier)
        for _ in range(ROUNDS):
            if settled is not None:
                await self._actor.relinker.follow_earlier(record, settled)
            revived = not unsure_of_parent or await self._reviver.revive_for(record)
            before = None if unseen else self._versions.of(record.node)
            facts = await self._finder.gather(record, earlier, unseen=unseen)
            if settled is not None and self._finder.where_now(record, settled) != settled:
                settled = await self._tidy(seq)  # the look around found its directory elsewhere
                continue
            if not revived:
                facts = replace(facts, parent=Parent.REPLACED)
            seen, decision = await self._decide(facts)
            log.debug("%s: %s", record, decision)
            fault("replay.decided")
            if unseen and record.kind is not RecordKind.CREATE:
                if (known := if_as_known(facts, decision)) is None:
                    unseen = False
                    continue
                decision = known
            if not isinstance(decision, Apply):
                await self._tidy(seq)
                await self._without_acting(record, facts, decision, before, seen)
                return
            try:
                outcome = await self._actor.act(record, facts, decision)
            except NotFound:
                if not unseen or record.kind is RecordKind.CREATE:
                    unsure_of_parent, unseen = True, False
                    continue
                outcome = Mismatch(None)  # what to bring back for it, a look tells first
            if isinstance(outcome, Committed):
                fault("replay.acted")
                left = await self._left_names.look(record, facts, acted=True)
                await self._committer.commit(record, facts, outcome.entry, left=left)
                return
            settled = await self._tidy(seq)
            if unseen:  # what was tried did nothing, and was no more than a way to look
                unseen, settled = False, None
                self._actor.thaw(record)
            earlier = self._store.intents.get(seq)
        log.warning("record %d: the server keeps changing; later again", seq)
        self._waits.add(seq)

    async def _tidy(self, seq: int) -> Intent | None:
        """Nothing that an operation staged stays on the server when it is not carried out.

        What was settled; None where no operation was begun.
        """
        started = self._store.intents.get(seq)
        record = self._store.journal.get(seq) if started is not None else None
        if started is None or record is None:
            return None
        intent = self._finder.where_now(record, started[0])
        await self._actor.settle(intent)
        await self._actor.relinker.settle(record, intent, started[1])
        return intent

    async def _decide(self, facts: Facts) -> tuple[Facts, Decision]:
        """The decision, and the facts with all digests that it took."""
        decision = decide(facts)
        while isinstance(decision, NeedDigest):
            facts = await self._finder.with_digest(facts, decision.which)
            decision = decide(facts)
        return facts, decision

    async def _without_acting(
        self, record: Record, facts: Facts, decision: Decision, before: Version | None, seen: Facts
    ) -> None:
        match self._finder.meanwhile.again(record), decision:
            case _, Wait():  # perhaps for what waits for a decision, after it in the journal
                self._queue.not_done(record.seq)
                self._waits.failed(record.seq)
            case True, _:
                self._waits.add(record.seq)
            case _, AlreadyDone(entry) if before is not None:
                self._actor.freeze_as_sent(record, before)
                entry = await self._actor.complete(record, facts, entry)
                left = await self._left_names.look(record, facts, acted=False)
                found = Found(digest_seen(seen, decision.entry))
                await self._committer.commit(record, facts, entry, found=found, left=left)
            case _, Conflict() as conflict:
                await self._parking.conflict(record, facts, conflict)
            case _, RefusedDecision(code, reason):
                await self._parking.refused(record, facts, code, reason)
            case _:
                raise AssertionError(decision)

    def _is_directory(self, node: NodeId) -> bool:
        found = self._store.nodes.get(node)
        return found is None or found.kind is Kind.DIRECTORY

    async def _cancel_flying(self) -> None:
        for seq in await self._in_flight.cancel():
            self._queue.back(seq, waits=False)

    async def _tell(self) -> None:
        async with self._settled:
            self._settled.notify_all()

"""Records on their way through all steps: one by itself, or a few that go together.

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

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

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
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Committed, Mismatch, Outcome
from awayfs.ports.remote import Intent
from awayfs.volume.being_written import BeingWritten
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.left_names import LeftNames
from awayfs.volume.parking import Parking
from awayfs.volume.replay_act import Actor
from awayfs.volume.replay_batches import Member
from awayfs.volume.replay_commit import Committer, Found, Through
from awayfs.volume.replay_facts import FactFinder
from awayfs.volume.replay_failures import Failures
from awayfs.volume.replay_waits import Waits
from awayfs.volume.revive import Reviver
from awayfs.volume.versions import Torn, Version, Versions

log = logging.getLogger(__name__)

ROUNDS = 8


class Steps:
    """Takes them. ``not_done`` is told of a record that had gone out and was not carried out."""

    def __init__(
        self,
        context: Context,
        finder: FactFinder,
        actor: Actor,
        committer: Committer,
        parking: Parking,
        reviver: Reviver,
        waits: Waits,
        being_written: BeingWritten,
        not_done: Callable[[int], None],
    ) -> None:
        self._store = context.store
        self._finder = finder
        self._actor = actor
        self._committer = committer
        self._parking = parking
        self._reviver = reviver
        self._waits = waits
        self._being_written = being_written
        self._not_done = not_done
        self._left_names = LeftNames(context)
        self._versions = Versions(context)
        self._failures = Failures(context, waits, parking, finder.meanwhile, self._tidy)

    async def together(
        self, batch: Sequence[Member], part: Callable[[int, Coroutine[Any, Any, None]], None]
    ) -> None:
        """Several records in one call. What did not come through goes on by itself (``part``)."""
        outcomes: Sequence[Outcome | Exception]
        try:
            outcomes = await self._actor.puts.send_all([one.load for one in batch])
        except Exception as error:
            outcomes = [error] * len(batch)
        fault("replay.acted")
        tried = list(zip(batch, outcomes, strict=True))
        through = [
            Through(m.record, m.facts, o.entry) for m, o in tried if isinstance(o, Committed)
        ]
        try:
            if through:
                await self._committer.commit(*through)
                tried = [(one, o) for one, o in tried if not isinstance(o, Committed)]
        except Exception as error:
            log.info("%d records are written down one by one: %s", len(through), error)
        for one, outcome in tried:
            follows = partial(self._after_try, one, outcome)
            part(one.seq, self._guarded(one.seq, one.record, follows))

    async def _after_try(self, member: Member, outcome: Outcome | Exception) -> None:
        """What follows for one of them."""
        record = member.record
        match outcome:
            case Committed(entry):
                await self._committer.commit(Through(record, member.facts, entry))
            case NotFound() if record.kind is RecordKind.CREATE:
                await self._go_on(record, None, None, unsure_of_parent=True)
            case NotFound() | Mismatch():
                await self._take_back(record)
                await self._go_on(record, None, None)
            case _:
                raise outcome

    def make_room(self, error: Exception) -> None:
        """See ``Failures``."""
        self._failures.make_room(error)

    async def alone(self, seq: int) -> None:
        """One record."""
        sent = self._store.journal.get(seq)
        await self._guarded(seq, sent, lambda: self.one(seq))

    async def _guarded(
        self, seq: int, sent: Record | None, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Nothing that one record meets may stop the others; ``sent`` is it as it was then."""
        try:
            await work()
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
        unseen = self._finder.may_go_unseen(record, earlier)
        unsure_of_parent = earlier is not None
        await self._go_on(record, earlier, settled, unseen, unsure_of_parent=unsure_of_parent)

    async def _go_on(
        self,
        record: Record,
        earlier: tuple[Intent, str] | None,
        settled: Intent | None,
        unseen: bool = False,
        *,
        unsure_of_parent: bool = False,
    ) -> None:
        """Until the record is through, or somebody has to decide.

        ``earlier`` is what an earlier try left, ``settled`` if it was; ``unseen``: the first try
        goes without a look.
        """
        seq = record.seq
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
                await self._committer.commit(Through(record, facts, outcome.entry, left=left))
                return
            if unseen:
                unseen, settled = False, None
                await self._take_back(record)
            else:
                settled = await self._tidy(seq)
            earlier = self._store.intents.get(seq)
        log.warning("record %d: the server keeps changing; later again", seq)
        self._waits.add(seq)

    async def _take_back(self, record: Record) -> None:
        """What was tried unseen did nothing, and was no more than a way to look."""
        await self._tidy(record.seq)
        self._actor.freezer.thaw(record)

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
                self._not_done(record.seq)
                self._waits.failed(record.seq)
            case True, _:
                self._waits.add(record.seq)
            case _, AlreadyDone(entry) if before is not None:
                self._actor.freezer.freeze_as_sent(record, before)
                entry = await self._actor.complete(record, facts, entry)
                left = await self._left_names.look(record, facts, acted=False)
                found = Found(digest_seen(seen, decision.entry))
                await self._committer.commit(Through(record, facts, entry, found, left))
            case _, Conflict() as conflict:
                await self._parking.conflict(record, facts, conflict)
            case _, RefusedDecision(code, reason):
                await self._parking.refused(record, facts, code, reason)
            case _:
                raise AssertionError(decision)

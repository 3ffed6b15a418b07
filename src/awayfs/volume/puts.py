"""Small contents on their way, which go with their name: one, or several in one call.

What goes is what is there in the step in which its record is frozen (``small_contents``). In a call
with others each has its own outcome, and none is stopped by what another one meets.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from awayfs.core.records import Record
from awayfs.core.types import Expected, Mismatch, Outcome
from awayfs.ports.remote import Intent, Put
from awayfs.store.intents import REFUSED
from awayfs.store.nodes import Node
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.freezing import Freezer
from awayfs.volume.meter import Way
from awayfs.volume.op_ids import own_op
from awayfs.volume.sent_attributes import SentAttributes
from awayfs.volume.small_contents import SmallContents
from awayfs.volume.together import Together
from awayfs.volume.versions import Torn


class Load(Struct, frozen=True):
    """A record whose content goes to ``path`` now. ``mode``: what it gets instead of its own."""

    record: Record
    path: bytes
    expected: Expected
    mode: int | None = None


class _Going(Struct, frozen=True):
    """What goes, and what is on record of it."""

    put: Put
    intent: Intent


class Puts:
    """Sends them."""

    def __init__(
        self,
        context: Context,
        freezer: Freezer,
        attributes: SentAttributes,
        client: str,
        together: Together,
    ) -> None:
        self._context = context
        self._store = context.store
        self._freezer = freezer
        self._client = client
        self._together = together
        self._small = SmallContents(context, attributes)

    def goes_at_once(self, seq: int, node: Node) -> bool:
        """See ``SmallContents``."""
        return self._small.goes_at_once(seq, node)

    async def send(self, load: Load) -> Outcome:
        """One by itself. Raises ``RemoteError``, ``Torn`` and ``OSError``."""
        (going,) = await self._together.do(lambda: self._freeze([load]))
        if isinstance(going, Exception):
            raise going
        fault("replay.frozen")
        put = going.put
        with self._context.link.meter.moving(Way.UP) as moved:
            outcome = await self._context.link.call(
                lambda r: r.put(put.op, put.path, put.content, put.attributes, put.expected)
            )
            moved.bytes = len(put.content)
        self._note_refused(load, going, outcome)
        return outcome

    async def send_all(self, loads: Sequence[Load]) -> list[Outcome | Exception]:
        """Several in one call: what came of each, or what it raised."""
        tried: list[_Going | Exception] = await self._together.do(lambda: self._freeze(loads))
        fault("replay.frozen")
        going = [one for one in tried if isinstance(one, _Going)]
        if not going:
            return [one for one in tried if isinstance(one, Exception)]
        puts = [one.put for one in going]
        answers: Sequence[Outcome | Exception]
        with self._context.link.meter.moving(Way.UP) as moved:
            answers = await self._context.link.call_many(lambda r: r.put_many(puts))
            moved.bytes = sum(len(put.content) for put in puts)
        answer = iter(answers)
        outcomes: list[Outcome | Exception] = []
        for load, one in zip(loads, tried, strict=True):
            if isinstance(one, Exception):
                outcomes.append(one)
            else:
                outcome = next(answer)
                outcomes.append(outcome)
                self._note_refused(load, one, outcome)
        return outcomes

    def _freeze(self, loads: Sequence[Load]) -> list[_Going | Exception]:
        """All that may go are frozen together; what another one raised is its own affair."""
        tried = [self._prepare(load) for load in loads]
        pairs = zip(loads, tried, strict=True)
        going = [(load.record, one.intent) for load, one in pairs if isinstance(one, _Going)]
        if going:
            self._freezer.freeze_all(going, "putting")
        return tried

    def _prepare(self, load: Load) -> _Going | Exception:
        record, op = load.record, own_op(self._client, load.record.seq)
        try:
            self._context.opened.save_if_open(record.node)
            small = self._small.read(record.node, load.mode)
            self._freezer.require(record)
        except (Torn, OSError) as error:
            return error
        return _Going(
            Put(op, load.path, small.content, small.attributes, load.expected),
            Intent(op, load.path, load.expected, staged=small.entry, staged_digest=small.digest),
        )

    def _note_refused(self, load: Load, going: _Going, outcome: object) -> None:
        if isinstance(outcome, Mismatch):
            self._store.intents.set(load.record.seq, going.intent, REFUSED)

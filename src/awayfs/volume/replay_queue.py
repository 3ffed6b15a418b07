"""The journal as the replay goes through it: read from its head as far as is needed.

``Order`` knows what has been read. It is told of what happens to those records since, by
whomever, through ``Journal.on_change``; what is appended is read when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from awayfs.core.claims import IsDirectory
from awayfs.core.order import Order
from awayfs.core.records import Record, RecordState
from awayfs.core.sending import Choice
from awayfs.core.types import NodeId
from awayfs.store.journal import Journal
from awayfs.volume.slices import Slices, in_slices

BATCH = 200
AHEAD = 5_000
"""Records read before anything is sent: of a journal that is longer, the rest has time then."""


class Queue:
    """What goes out next."""

    def __init__(self, journal: Journal, is_directory: IsDirectory) -> None:
        self._journal = journal
        self._order = Order(is_directory)
        self._read_to = 0
        self._until = 0
        self._frozen_to = journal.last_frozen()
        """What went out before this daemon's time is put in before anything goes."""
        self._changed: set[int] = set()
        self._started: dict[int, RecordState] = {}  # what is on its way, as it was
        self._choice: Choice | None = None  # what the order was told
        journal.on_change.append(self._note)

    def begin_pass(self, until: int) -> None:
        """Go through the journal up to this seq; what waited may be tried again."""
        self._order.end_waiting()
        self._until = until
        self._choice = None  # what the first need may be other records by now

    @property
    def first_moves(self) -> bool:
        """Whether something of what goes first is on its way, or could be."""
        return self._order.first_moves

    def goes_first(self, seq: int) -> bool:
        """Whether a record goes before all others: it was asked for, or what was needs it."""
        return self._order.goes_first(seq)

    def knows(self, choice: Choice) -> bool:
        """Whether ``first_moves`` is about this choice."""
        return self._choice is not None and self._choice.first is choice.first

    def count_first(self, after: int) -> int:
        """How many records later than ``after`` go first, what they need included."""
        return self._order.count_first(after)

    async def start(self, limit: int, choice: Choice) -> list[int]:
        """At most ``limit`` records that may go out now, in order; they are on their way.

        Others get their turn while much is read, or has changed.
        """
        slices = Slices()
        while limit > 0:
            while self._changed:
                self._follow(self._changed.pop())
                if slices.over:
                    await slices.pause()
            needed = max(self._frozen_to, choice.first_to)  # rest those before it or not
            if self._read_to < needed:
                self._read_on(needed)
                await slices.pause()
                continue
            if choice is not self._choice:
                await self._choose(choice, slices)
            if started := self._order.start(limit):
                self._note_started(started)
                return started
            if self._order.has_free or self._read_to >= self._order.rest_to:
                break
            self._read_on(self._order.rest_to)
            await slices.pause()
        return []

    async def read_ahead(
        self, may_go_on: Callable[[], bool], foresee: Callable[[Iterable[NodeId]], None]
    ) -> None:
        """Read the head of the journal while nothing is sent, that is, as long as it may go on.

        ``foresee`` is told of the nodes that it is about.
        """
        slices, until = Slices(), self._journal.last_seq()
        while may_go_on() and self._read_to < until and len(self._order) < AHEAD:
            read = self._read_on(until)
            foresee({record.node for record in read})
            await slices.pause()

    async def _choose(self, choice: Choice, slices: Slices) -> None:
        """Have the order follow. What is asked for within a pass is added: that is less work."""
        if self._choice is None:
            await in_slices(self._order.choose(choice.first), slices)
        elif choice.first is not self._choice.first:
            more = choice.first - self._choice.first
            await in_slices(self._order.choose(more, too=True), slices)
        self._order.rest_to = min(choice.rest_to, self._until)
        self._choice = choice

    def not_done(self, seq: int) -> None:
        """The server was asked about a record that had gone out: it was not carried out."""
        self._order.not_done(seq)

    def back(self, seq: int, *, waits: bool) -> bool:
        """A record is not on its way any more; whether it is gone, or stands elsewhere than before.

        With ``waits`` it is not tried again in this pass.
        """
        before = self._started.pop(seq)
        if waits:
            self._order.set_waiting(seq)
        self._order.landed(seq)
        self._changed.add(seq)  # should it be unreadable at this moment
        self._follow(seq)
        self._changed.discard(seq)
        return seq not in self._order or self._state(seq) is not before

    def _note_started(self, started: list[int]) -> None:
        """What cannot be read (the database's disk is full, say) is not on its way for ever."""
        try:
            self._started.update({seq: self._state(seq) for seq in started})
        except OSError:
            for seq in started:
                self._order.landed(seq)
            raise

    def _state(self, seq: int) -> RecordState:
        record = self._journal.get(seq)
        return record.state if record is not None else RecordState.PENDING

    def _note(self, seq: int) -> None:
        if seq <= self._read_to:
            self._changed.add(seq)

    def _follow(self, seq: int) -> None:
        record = self._journal.get(seq)
        if record is None:
            self._order.take(seq)
        else:
            self._order.put(record)

    def _read_on(self, to: int) -> list[Record]:
        """A few more, but no further than this seq."""
        read = self._journal.all(limit=BATCH, after=self._read_to)
        for record in read:
            if record.seq <= to:
                self._order.put(record)
        self._read_to = min(read[-1].seq, to) if read else to
        return read

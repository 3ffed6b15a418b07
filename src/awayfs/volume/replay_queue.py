"""The journal as the replay goes through it: read from its head as far as is needed.

``Order`` knows what has been read. It is told of what happens to those records since, by
whomever, through ``Journal.on_change``; what is appended is read when its turn comes.
"""

from __future__ import annotations

from awayfs.core.order import IsDirectory, Order
from awayfs.core.records import RecordState
from awayfs.store.journal import Journal
from awayfs.volume.slices import Slices

BATCH = 200


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
        journal.on_change.append(self._note)

    def begin_pass(self) -> None:
        """Go through what is in the journal now; what waited may be tried again."""
        self._order.end_waiting()
        self._until = self._journal.last_seq()

    async def start(self, limit: int) -> list[int]:
        """At most ``limit`` records that may go out now, in order; they are on their way.

        Others get their turn while much is read, or has changed.
        """
        slices = Slices()
        while limit > 0:
            while self._changed:
                self._follow(self._changed.pop())
                await slices.pause()
            if self._read_to < min(self._frozen_to, self._until):
                self._read_on()
                await slices.pause()
                continue
            if started := self._order.start(limit):
                self._note_started(started)
                return started
            if self._order.has_free or self._read_to >= self._until:
                break
            self._read_on()
            await slices.pause()
        return []

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

    def _read_on(self) -> None:
        read = self._journal.all(limit=BATCH, after=self._read_to)
        for record in read:
            if record.seq <= self._until:
                self._order.put(record)
        self._read_to = min(read[-1].seq, self._until) if read else self._until

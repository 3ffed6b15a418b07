"""Which records may go out now.

Replay runs in parallel where records are independent (DESIGN section 5). Record B must wait
for an earlier A, while A is in the journal, when both

* concern the same node, or the same name in the same directory;
* or A makes the directory that B works in, or B removes (or displaces) the directory that A
  worked in: a directory is emptied before it goes;
* or both move directories from one parent to another: in another order they could form a ring;
* or A sets the rights or the time of the directory that B works in, or the other way round.

A parked record holds back what depends on it and nothing else; a parked change of rights holds
back nothing but later changes of the same node, and a parked move of a directory no other move
(when it is decided at last, the server's tree as it is then tells whether it forms a ring).
Renaming a directory does not hold back what is inside (records name nodes by id), but it runs
alone, since it changes the paths that other operations on their way are using. One that went out
and whose outcome nobody knows (the daemon died, the link was cut) goes before all others: until
then no path is known, and what is not found where it should be was not removed there.

``Order`` keeps the answer up to date while records come and go, so that asking for it costs what
changed since, and not the length of the journal. It can be told to let some go before all others,
and to keep the rest back (``core.sending``): that changes who goes next, never who waits for whom.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Generator, Iterable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import TypeVar

from msgspec import Struct

from awayfs.core.claims import (
    Claim,
    IsDirectory,
    claims,
    is_soft,
    made,
    makes_directory,
    runs_alone,
    sets_rights,
)
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.sending import EVERYTHING

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Long work that others may interrupt: gives way at each step, and returns what it is for."""


class Order:
    """The records put in, and which of them may go out.

    All that are earlier than one that is to go out must have been put in. ``is_directory`` tells
    which nodes are directories; without it every renamed node is taken for one.
    """

    def __init__(self, is_directory: IsDirectory | None = None) -> None:
        self._is_directory = is_directory
        self._held: dict[int, _Held] = {}
        self._lines: dict[Claim, _Line | _Sole] = {}
        self._free: list[int] = []  # a heap; some of it may not be free any more
        self._free_early: list[int] = []  # the same, of those that many others wait for
        self._free_first: list[int] = []  # the same, of those that go before all others
        self._first: set[int] = set()
        self.rest_to = EVERYTHING
        """Of those that do not go first, only what is not later than this may go."""
        self._flying: set[int] = set()
        self._flying_alone = 0
        self._gone_out: set[int] = set()  # of those that run alone
        self._not_done: set[int] = set()  # of those: the server was asked, and it was not done
        self._waiting: set[int] = set()

    def __contains__(self, seq: int) -> bool:
        return seq in self._held

    def __len__(self) -> int:
        return len(self._held)

    @property
    def has_free(self) -> bool:
        """Whether something could go out, if need be after what is on its way."""
        return bool(self._uncertain or self.first_moves) or self._next_free() is not None

    def goes_first(self, seq: int) -> bool:
        """Whether a record goes before all others."""
        return seq in self._first

    def count_first(self, after: int) -> int:
        """How many later than ``after`` go before all others, what they need included."""
        return sum(seq > after and not self._held[seq].parked for seq in self._first)

    @property
    def first_moves(self) -> bool:
        """Whether one of those is on its way, or could be."""
        flying = any(seq in self._first for seq in self._flying)
        return flying or self._head(self._free_first) is not None

    @property
    def _uncertain(self) -> set[int]:
        """Those of which nobody knows whether they were carried out: they may have moved paths."""
        return self._gone_out - self._not_done

    # -- what the journal has -------------------------------------------------------------

    def put(self, record: Record) -> None:
        """A record is new, or is another one now under the same ``seq``."""
        seq, old = record.seq, self._held.get(record.seq)
        same = old if old is not None and old.is_of(record) else None  # it went out, say
        held = same or _held(record, self._is_directory)
        if held.alone and record.state is RecordState.FROZEN:
            self._gone_out.add(seq)
        else:
            self._gone_out.discard(seq)
        if same is None:
            if old is not None:
                self._leave_lines(seq, old)
            self._held[seq] = held
            if seq in self._flying:
                self._flying_alone += held.alone - (old is not None and old.alone)
            self._join_lines(seq, held)
        self._offer(seq, held)

    def take(self, seq: int) -> None:
        """The record is no longer in the journal."""
        held = self._held.pop(seq, None)
        if held is not None:
            self._leave_lines(seq, held)
            self._waiting.discard(seq)
            self._gone_out.discard(seq)
            self._first.discard(seq)
            self._land(seq, held)

    # -- what was asked for ---------------------------------------------------------------

    def choose(self, first: Iterable[int], *, too: bool = False) -> Steps[None]:
        """Let ``first``, with what they need, go before all others, in steps; with ``too``, those
        that do so already as well.

        No other goes out while one of them is on its way or could be. What went out and is
        uncertain goes before everything all the same.
        """
        needed = yield from self.with_needs(first)
        other = needed - self._first
        if not too:
            other |= self._first - needed
        for seq in other:
            self._first ^= {seq}
            held = self._held.get(seq)
            if held is not None:
                held.offered = False  # it belongs into the other heap
                self._offer(seq, held)
            yield

    def with_needs(self, seqs: Iterable[int]) -> Steps[set[int]]:
        """Those of ``seqs`` that are here, and all earlier ones that have to go before them.

        Found in steps, since there may be many; nothing may be put in or taken meanwhile.
        """
        needed = {seq for seq in seqs if seq in self._held}
        todo = [-seq for seq in needed]  # a heap: the latest comes first
        heapify(todo)
        walked: dict[Claim, bool] = {}
        while todo:
            for earlier in self._waits_for(-heappop(todo), walked):
                if earlier not in needed:
                    needed.add(earlier)
                    heappush(todo, -earlier)
            yield
        return needed

    def _waits_for(self, seq: int, walked: dict[Claim, bool]) -> Iterator[int]:
        """The earlier ones that hold this one back, but those that a later one has brought.

        ``walked``: the claims that a later one waited at, and whether as a writer.
        """
        held = self._held[seq]
        for claim in held.claims:
            line, writes = self._lines[claim], claim in held.hard or claim in held.soft
            if isinstance(line, int) or walked.get(claim, -1) >= writes:
                continue
            walked[claim] = writes
            yield from line.holding[: bisect_left(line.holding, seq)]
            if writes:
                yield from line.readers[: bisect_left(line.readers, seq)]

    # -- what becomes of it ---------------------------------------------------------------

    def start(self, limit: int) -> list[int]:
        """At most ``limit`` records that may go out now, in journal order, but for directories that
        are made, which go before; they are on their way.

        A record that is FROZEN but not on its way (after a restart) is offered again. What runs
        alone goes when nothing else is on its way, and nothing later goes before it; if it went
        out before, nothing at all does.
        """
        started: list[int] = []
        while len(started) < limit and not self._flying_alone:
            seq = self._next_free()
            if seq is None or (self._held[seq].alone and self._flying):
                break
            self._flying.add(seq)
            self._flying_alone += self._held[seq].alone
            started.append(seq)
        return started

    def landed(self, seq: int) -> None:
        """The record is not on its way any more; it may go out again unless it waits."""
        held = self._held.get(seq)
        if held is not None:
            self._land(seq, held)
            self._offer(seq, held)

    def _land(self, seq: int, held: _Held) -> None:
        if seq in self._flying:
            self._flying.discard(seq)
            self._flying_alone -= held.alone

    def set_waiting(self, seq: int) -> None:
        """Not this one for a moment. It holds back what a parked record does, and moves."""
        held = self._held.get(seq)
        if held is not None and seq not in self._waiting:
            self._waiting.add(seq)
            self._weigh_soft(seq, held)

    def not_done(self, seq: int) -> None:
        """What had gone out was not carried out, and waits: others may go before it this time."""
        self._not_done.add(seq)

    def end_waiting(self) -> None:
        """All that waits may be tried again."""
        self._not_done.clear()
        waiting, self._waiting = self._waiting, set()
        for seq in waiting:
            held = self._held[seq]
            self._weigh_soft(seq, held)
            self._offer(seq, held)

    # -- who is free ----------------------------------------------------------------------

    def _may_go(self, seq: int, held: _Held) -> bool:
        aside = held.parked or seq in self._waiting or seq in self._flying
        return not (held.blocked or aside)

    def _offer(self, seq: int, held: _Held) -> None:
        if not held.offered and self._may_go(seq, held):
            held.offered = True
            others = self._free_early if held.early else self._free
            heappush(self._free_first if seq in self._first else others, seq)

    def _next_free(self) -> int | None:
        if uncertain := self._uncertain:  # whatever it had to wait for, it was its turn before
            return min(uncertain - self._waiting - self._flying, default=None)
        if self._first:
            if (seq := self._head(self._free_first)) is not None:
                return seq
            if self.first_moves:
                return None
        for free in (self._free_early, self._free):
            if (seq := self._head(free)) is not None and seq <= self.rest_to:
                return seq
        return None

    def _head(self, free: list[int]) -> int | None:
        """The earliest one in a heap that may go; what may not, or is in the other now, goes."""
        while free:
            seq, ours = free[0], (free is self._free_first) == (free[0] in self._first)
            held = self._held.get(seq)
            if held is not None and ours and self._may_go(seq, held):
                return seq
            heappop(free)
            if held is not None and ours:
                held.offered = False
        return None

    # -- the lines at the claims ----------------------------------------------------------

    def _join_lines(self, seq: int, held: _Held) -> None:
        for claim in held.reads:
            self._join(claim, seq, held, writes=False, holds=False)
        for claim in held.made:
            self._join(claim, seq, held, writes=False, holds=True)
        for claim in held.hard:
            self._join(claim, seq, held, writes=True, holds=True)
        for claim in held.soft:
            self._join(claim, seq, held, writes=True, holds=self._holds_softly(seq, held))

    def _join(self, claim: Claim, seq: int, held: _Held, *, writes: bool, holds: bool) -> None:
        line = self._lines.get(claim)
        if line is None:
            self._lines[claim] = seq << 2 | writes << 1 | holds
            return
        if isinstance(line, int):
            line = self._lines[claim] = _line_of(line)
        insort(line.writers if writes else line.readers, seq)
        if holds:
            insort(line.holding, seq)
        self._moved(line)
        held.blocked += seq > line.bars[writes]

    def _leave_lines(self, seq: int, held: _Held) -> None:
        for claim in held.claims:
            line = self._lines[claim]
            if isinstance(line, int):
                del self._lines[claim]
                continue
            for members in (line.readers, line.writers, line.holding):
                if members:
                    _discard(members, seq)
            if line.readers or line.writers:
                self._moved(line)
            else:
                del self._lines[claim]

    def _weigh_soft(self, seq: int, held: _Held) -> None:
        """Whether others wait for what only might affect them depends on being set aside."""
        holds = self._holds_softly(seq, held)
        for claim in held.soft:
            line = self._lines[claim]
            if isinstance(line, int):
                self._lines[claim] = seq << 2 | 0b10 | holds
                continue
            _discard(line.holding, seq)
            if holds:
                insort(line.holding, seq)
            self._moved(line)

    def _holds_softly(self, seq: int, held: _Held) -> bool:
        return not (held.parked or seq in self._waiting)

    def _moved(self, line: _Line) -> None:
        """The bars of a line may have moved: count anew for those between."""
        before, after = line.bars, line.bars_now()
        if before == after:
            return
        line.bars = after
        for members, old, new in zip((line.readers, line.writers), before, after, strict=True):
            if old == new or not members:
                continue
            low, high = bisect_right(members, min(old, new)), bisect_right(members, max(old, new))
            for seq in members[low:high]:
                held = self._held[seq]
                held.blocked += -1 if old < new else 1
                self._offer(seq, held)


class _Held(Struct):
    """One record: its claims, and at how many of them it waits for an earlier one.

    ``hard`` claims are written and hold others back, ``soft`` ones only while it is not set aside.
    ``made`` hold others back as well, and wait only for what does so.
    """

    about: tuple[object, ...]
    reads: tuple[Claim, ...]
    made: tuple[Claim, ...]
    soft: tuple[Claim, ...]
    hard: tuple[Claim, ...]
    parked: bool
    alone: bool
    early: bool
    blocked: int = 0
    offered: bool = False

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All of them, each once."""
        return (*self.reads, *self.made, *self.hard, *self.soft)

    def is_of(self, record: Record) -> bool:
        """Whether the record still has the same place among others."""
        return self.parked is (record.state is RecordState.PARKED) and self.about == _about(record)


def _held(record: Record, is_directory: IsDirectory | None) -> _Held:
    reads, writes = claims(record, is_directory)
    soft = [claim for claim in writes if is_soft(claim, record.state)]
    return _Held(
        about=_about(record),
        reads=tuple(reads),
        made=tuple(made(record)),
        soft=tuple(soft),
        hard=tuple([claim for claim in writes if claim not in soft] if soft else writes),
        parked=record.state is RecordState.PARKED,
        alone=runs_alone(record, is_directory),
        early=makes_directory(record, is_directory),
    )


def _about(r: Record) -> tuple[object, ...]:
    """What a record's claims follow from, whatever state it is in."""
    rights = r.kind is RecordKind.SETATTR and sets_rights(r)
    return r.kind, r.node, r.parent, r.name, r.to_parent, r.to_name, r.replaced, rights


class _Line(Struct):
    """Who uses one claim, by seq; ``holding`` are the writers whom others wait for."""

    readers: list[int]
    writers: list[int]
    holding: list[int]
    bars: tuple[float, float] = (inf, inf)
    """Readers and writers later than this wait."""

    def bars_now(self) -> tuple[float, float]:
        """What the bars are to be, by who is in the line."""
        first = self.holding[0] if self.holding else inf
        readers = self.readers
        return first, readers[0] if readers and readers[0] < first else first


_Sole = int
"""A line of one: its seq, whether it writes, whether others would wait for it. Most lines are so
short, and a long journal has many."""


def _line_of(sole: _Sole) -> _Line:
    seq, writes, holds = sole >> 2, sole & 0b10, sole & 0b01
    line = _Line([] if writes else [seq], [seq] if writes else [], [seq] if holds else [])
    line.bars = line.bars_now()
    return line


def _discard(members: list[int], seq: int) -> None:
    at = bisect_left(members, seq)
    if at < len(members) and members[at] == seq:
        del members[at]

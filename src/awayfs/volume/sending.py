"""What of the journal may go out at this moment, for one volume (``core.sending``).

Who asks for what is kept here until it is sent; a daemon that dies forgets it, but for what had
gone out. ``requests`` counts what programs have asked the mount; when it stands still, the mount is
idle.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from awayfs.core.records import RecordState
from awayfs.core.sending import Choice, Policy, is_of_subtree, is_overdue, rest_to
from awayfs.core.types import ROOT, NodeId
from awayfs.store.store import Store
from awayfs.volume.effective import Effective
from awayfs.volume.link import Link
from awayfs.volume.slices import Slices

log = logging.getLogger(__name__)

LOOK_S = 1.0
BATCH = 200


class Sending:
    """Answers what may go, and takes what is asked for. ``on_more`` is called when more may go.

    ``clock`` gives seconds that never run backwards.
    """

    def __init__(
        self,
        store: Store,
        link: Link,
        effective: Effective,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._journal = store.journal
        self._link = link
        self._effective = effective
        self._clock = clock
        self.requests: Callable[[], int] = lambda: 0
        self.on_more: Callable[[], None] = lambda: None
        self._counted = 0
        self._used_at = clock()
        self._held_since: float | None = None
        self._asked: set[int] = set()  # some of it may be gone
        self._asked_to = 0
        self._gone: set[int] = set()  # of those: they may be
        self._other = False  # it has more or fewer than ``_choice``
        self._choice = Choice()
        self._journal.on_change.append(self._note)

    @property
    def policy(self) -> Policy:
        """What the settings say now."""
        return Policy(self._effective.value("reintegrate"))

    @property
    def goes_by_itself(self) -> bool:
        """Whether what is changed is sent sooner or later without being asked for."""
        return self.policy is not Policy.MANUAL

    # -- what may go ----------------------------------------------------------------------

    def choice(self) -> Choice:
        """What may go now; the same object while nothing has changed."""
        bound, old = rest_to(self.policy, self._asked_to, self._idle_s()), self._choice
        if self._other:
            self._other, first = False, frozenset(self._asked)
            self._choice = Choice(first, bound, max(first, default=0))
        elif bound != old.rest_to:
            self._choice = replace(old, rest_to=bound)
        return self._choice

    def lets_go(self) -> bool:
        """Whether anything that is in the journal may go now.

        What has gone out already, and was not finished, always may.
        """
        if self._gone:
            self._asked -= {seq for seq in self._gone if self._is_through(seq)}
            self._gone.clear()
            self._other = True
        if self.choice().holds_back:
            self._add(self._journal.gone_out())
        choice = self.choice()
        return bool(choice.first) or self._journal.has_unparked(choice.rest_to)

    def _is_through(self, seq: int) -> bool:
        """Whether a record needs nobody's asking any more: it is sent, or waits for a decision."""
        record = self._journal.get(seq)
        return record is None or record.state is RecordState.PARKED

    def held_back(self, goes_first: Callable[[int], int]) -> int:
        """How many records wait to be asked for, or for the mount to be idle.

        ``goes_first`` tells how many later than a seq were asked for, or go with those.
        """
        choice = self.choice()
        if not choice.holds_back:
            return 0
        later = self._journal.count_unparked(choice.rest_to)
        return max(0, later - goes_first(choice.rest_to))

    def holds_back(self, node: NodeId, goes_first: Callable[[int], bool]) -> bool:
        """Whether what is to be sent of a node waits until it is asked for.

        ``goes_first`` tells of a seq whether it goes with what was asked for.
        """
        choice = self.choice()
        return choice.holds_back and any(
            record.seq > choice.rest_to
            and record.state is not RecordState.PARKED
            and not (record.seq in choice.first or goes_first(record.seq))
            for record in self._journal.of_node(node)
        )

    def _note(self, seq: int) -> None:
        if seq in self._asked:
            self._gone.add(seq)

    def _idle_s(self) -> float:
        count, now = self.requests(), self._clock()
        if count != self._counted:
            self._counted, self._used_at = count, now
        return now - self._used_at

    def unsent(self) -> int:
        """How many records go by themselves sooner or later, or were asked for with all others."""
        counts = self._journal.counts()
        waiting = self._journal.count() - counts[RecordState.PARKED]
        if self.goes_by_itself or not waiting:
            return waiting
        return waiting - self._journal.count_unparked(self._asked_to)

    # -- what is asked for ----------------------------------------------------------------

    def ask(self, seqs: Iterable[int]) -> None:
        """These records are wanted, with what they need, before all others."""
        if self._add(seqs):
            self.on_more()

    def _add(self, seqs: Iterable[int]) -> bool:
        """Whether any of them is new."""
        before = len(self._asked)
        self._asked.update(seqs)
        new = len(self._asked) > before
        self._other |= new
        return new

    def ask_for_all(self) -> None:
        """All that is in the journal now is wanted."""
        self._asked_to = max(self._asked_to, self._journal.last_seq())
        self.on_more()

    def ask_for_node(self, node: NodeId) -> None:
        """What is in the journal of one node now is wanted."""
        self.ask(self._journal.seqs_of(node))

    def waits_for_use(self, node: NodeId) -> bool:
        """Whether the use of a node by a program makes a difference."""
        return self._journal.concerns(node) and self.policy is Policy.LAZY

    def used(self, node: NodeId, *, listed: bool) -> None:
        """A program opened or looked at an object; ``listed`` a directory: its names count, too."""
        self.ask_for_node(node)
        if listed and self._journal.works_in(node):
            self.ask(self._journal.seqs_inside(node))

    async def of_subtree(self, top: NodeId) -> frozenset[int]:
        """The records in the journal now that concern a node or what is below it."""
        found, slices, last = set[int](), Slices(), 0
        inside = _Inside(self._store, top)
        while batch := self._journal.all(limit=BATCH, after=last):
            found.update(record.seq for record in batch if is_of_subtree(record, inside))
            last = batch[-1].seq
            if await slices.pause():
                inside = _Inside(self._store, top)  # things may have moved meanwhile
        return frozenset(found)

    # -- time -----------------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Notice when more may go by itself: the mount is idle, or was busy for too long."""
        before = self.choice().rest_to
        while True:
            await asyncio.sleep(LOOK_S)
            now = self.choice().rest_to
            if now > before:
                self.on_more()
            before = now
            try:
                self._look_for_overdue()
            except OSError as error:
                log.warning("what waits to be sent is not looked at this time: %s", error)

    def _look_for_overdue(self) -> None:
        """What programs that hardly pause keep back for long goes all the same."""
        if self.policy is not Policy.LAZY or not (self._link.usable and self.unsent()):
            self._held_since = None
            return
        now = self._clock()
        if self._held_since is None:
            self._held_since = now
        elif is_overdue(self.policy, now - self._held_since):
            self._held_since = None
            self.ask_for_all()


class _Inside:
    """Tells of a node whether any of its names is that of ``top``, or below it."""

    def __init__(self, store: Store, top: NodeId) -> None:
        self._nodes = store.nodes
        self._known = {ROOT: top == ROOT, top: True}

    def __call__(self, node: NodeId) -> bool:
        """The answer of this moment, or of one since this object was made."""
        if node in self._known:
            return self._known[node]
        return any(self._climb(parent) for parent, _ in self._nodes.names(node))

    def _climb(self, directory: NodeId | None) -> bool:
        """The same of a directory, which has one name; noted for all on the way up."""
        way: list[NodeId] = []
        while directory is not None and directory not in self._known:
            way.append(directory)
            self._known[directory] = False  # should the names form a ring
            directory = self._nodes.parent(directory)
        found = directory is not None and self._known[directory]
        self._known.update(dict.fromkeys(way, found))
        return found

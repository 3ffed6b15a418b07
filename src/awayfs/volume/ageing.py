"""Which changes rest before they go out: the newest, while the link is weak (``core.ageing``).

The journal goes out from its head, so that what rests is always its end: nothing that a change
depends on is younger than itself. Who waits for a change takes along all that was before it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from awayfs.core.ageing import rests_s
from awayfs.core.modes import Mode
from awayfs.store.journal import Journal
from awayfs.volume.context import SECOND_NS, Context


class Resting(Struct, frozen=True):
    """So many records rest; the first of them is ``first``, and goes out in ``left_s`` seconds."""

    records: int = 0
    first: int = 0
    left_s: float = 0.0


NONE_RESTS = Resting()


class Ageing:
    """Answers up to where the journal may go out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._journal: Journal = context.store.journal
        self._wanted_to = 0
        self._aged_to = 0  # nothing up to there is looked at again

    def want_all(self) -> None:
        """Somebody waits for what is in the journal now."""
        self._wanted_to = self._journal.last_seq()

    def until(self) -> int:
        """The last record that may go out at this moment."""
        first = self._first()
        return self._journal.last_seq() if first is None else first[0] - 1

    def resting(self, goes_first: Callable[[int], int] = lambda _seq: 0) -> Resting:
        """What may not. ``goes_first`` tells how many later than a seq go out all the same."""
        first = self._first()
        if first is None:
            return NONE_RESTS
        seq, left_s = first
        later = self._journal.count_unparked(seq - 1)
        return Resting(max(0, later - goes_first(seq - 1)), seq, left_s)

    def rests(self, seq: int) -> bool:
        """Whether a record may not go out yet."""
        return seq > self.until()

    def _first(self) -> tuple[int, float] | None:
        """The first record that rests, and for how long."""
        window_s = self._window_s()
        if not window_s:
            return None
        now = self._context.now()
        after = max(self._wanted_to, self._aged_to)
        young = self._journal.first_since(now - int(window_s * SECOND_NS), now, after)
        if young is None:
            self._aged_to = self._journal.last_seq()
            return None
        seq, at_ns = young
        self._aged_to = seq - 1
        return seq, rests_s(at_ns, now, window_s)

    def _window_s(self) -> float:
        if self._context.link.state.mode is not Mode.WRITE_BEHIND:
            return 0.0
        return float(self._context.effective.value("ageing"))

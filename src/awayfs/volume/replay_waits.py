"""What of the journal waits for another try, for what, and whether time alone may help.

One that failed again and again is still tried, more slowly, but nobody who waits for all to be
sent waits for it. A server without room keeps everything waiting for a while.
"""

from __future__ import annotations

from collections.abc import Iterator

from awayfs.volume.context import SECOND_NS, Context

FAILURES = 3
"""After so many, time alone is not expected to help."""
WAIT_S = 0.3
FAILED_WAIT_S = 2.0
FULL_PAUSE_NS = 10 * SECOND_NS


class Waits:
    """Records, by sequence number, that did not go out in this pass; ``in`` tells which."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: set[int] = set()
        self._mapped: set[int] = set()
        self._failures: dict[int, int] = {}
        self._full_until_ns = 0

    def __contains__(self, seq: int) -> bool:
        return seq in self._waiting or seq in self._mapped

    def add(self, seq: int) -> None:
        """It is tried again soon."""
        self._waiting.add(seq)

    def failed(self, seq: int) -> None:
        """The same; one that keeps failing does not keep ``sync --wait`` waiting."""
        self._failures[seq] = self._failures.get(seq, 0) + 1
        self._waiting.add(seq)

    def for_close(self, seq: int) -> None:
        """It waits for no more than that its file, which is mapped, is closed."""
        self._mapped.add(seq)

    def clear(self) -> None:
        """A pass begins, in which everything is tried; how often what failed is remembered."""
        self._waiting.clear()
        self._mapped.clear()

    def forget_if_gone(self, seq: int) -> None:
        """What is not in the journal any more fails no more."""
        if seq in self._failures and self._context.store.journal.get(seq) is None:
            del self._failures[seq]

    def hopeful(self) -> Iterator[int]:
        """What waits and did not fail again and again."""
        return (seq for seq in self._waiting if self._failures.get(seq, 0) < FAILURES)

    def time_may_help(self) -> bool:
        """Whether something waits that may go out without anything else happening."""
        return self.is_full() or any(True for _ in self.hopeful())

    def again_in_s(self) -> float | None:
        """Seconds until the next try; None where nothing waits for one."""
        if not self._waiting and not self.is_full():
            return None
        return WAIT_S if self.time_may_help() else FAILED_WAIT_S

    def count_mapped(self) -> int:
        """How many records wait for no more than that their file is closed."""
        if not self._context.link.usable:
            return 0  # then they wait for the server
        return sum(self._context.store.journal.get(seq) is not None for seq in self._mapped)

    def server_is_full(self) -> None:
        """Nothing is sent for a while."""
        self._full_until_ns = self._context.now() + FULL_PAUSE_NS

    def server_may_have_room(self) -> None:
        """It is asked once more at once."""
        self._full_until_ns = 0

    def is_full(self) -> bool:
        """Whether the server had no room a moment ago."""
        return self._full_until_ns > self._context.now()

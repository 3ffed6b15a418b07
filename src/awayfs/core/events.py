"""What a volume tells programs unasked: events as lines, and the bounded log of them.

An event is one JSON object on a line. The log keeps the newest; it is read as a file that only
grows: a position is a number of bytes since the first event, and what was dropped leaves a gap.
A reader who comes to a gap is told in a ``missed`` event how many events were in it.
"""

from __future__ import annotations

import enum
import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from msgspec import Struct, field

KEPT_EVENTS: Final = 2000
KEPT_BYTES: Final = 512 << 10
TEXT_MAX: Final = 1000
"""Longer texts are cut: a server's message can be of any length."""


class EventKind(enum.StrEnum):
    """What happened."""

    MODE = "mode"  # the mode changed; ``mode`` and ``was`` name the modes
    CONFLICT = "conflict"  # a conflict was found, ``conflict`` is its number
    RESOLVED = "resolved"  # a conflict is over, by a decision or by itself
    REFUSED = "refused"  # the server refused a change; it is parked with its data
    CACHE_NEARLY_FULL = "cache-nearly-full"  # little room is left
    CACHE_FULL = "cache-full"  # a write or a fetch found no room
    FETCH_FAILED = "fetch-failed"  # content could not be had
    HOARD_ENDED = "hoard-ended"  # a hoard walk is over
    PINS_INCOMPLETE = "pins-incomplete"  # offline now, and not all that is pinned is here
    MISSED = "missed"  # the reader was too slow, or came late: ``missed`` events are not kept


Fact = str | int | bool


class Event(Struct, frozen=True):
    """One event. ``path`` is relative to the volume's root; None where it is about all of it."""

    seq: int
    at_ns: int
    kind: EventKind
    text: str
    path: bytes | None = None
    facts: dict[str, Fact] = field(default_factory=dict)

    def line(self) -> bytes:
        """As one line. Names that are not UTF-8 carry surrogates, as in Python's own paths."""
        path = None if self.path is None else self.path.decode("utf-8", "surrogateescape")
        values = {
            "seq": self.seq,
            "at_ns": self.at_ns,
            "kind": str(self.kind),
            "path": path,
            "text": " ".join(self.text.split())[:TEXT_MAX],
            **self.facts,
        }
        return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


class EventLog:
    """The newest events, numbered from 1. ``on_event`` is called after each, and must not wait."""

    def __init__(self, most: int = KEPT_EVENTS, most_bytes: int = KEPT_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._starts: deque[int] = deque()
        self.on_event: list[Callable[[], None]] = []
        self.last_seq = 0
        self.last_ns = 0
        self.start = 0
        """Position of the oldest event that is kept."""
        self.end = 0
        """Position after the newest one: the size of the whole."""

    def tell(
        self, kind: EventKind, at_ns: int, text: str, path: bytes | None = None, **facts: Fact
    ) -> None:
        """Something happened."""
        self.last_seq += 1
        self.last_ns = at_ns
        line = Event(self.last_seq, at_ns, kind, text, path, facts).line()
        self._lines.append(line)
        self._starts.append(self.end)
        self.end += len(line)
        while len(self._lines) > self._most or self.end - self.start > self._most_bytes:
            self.start += len(self._lines.popleft())
            self._starts.popleft()
        for call in list(self.on_event):
            call()

    @property
    def dropped(self) -> int:
        """How many events are not kept any more."""
        return self.last_seq - len(self._lines)

    def read(self, position: int, size: int) -> bytes:
        """At most ``size`` bytes from a position that is kept, whole lines where one fits."""
        index = bisect_right(self._starts, position) - 1
        if position >= self.end or index < 0:
            return b""
        first = self._lines[index][position - self._starts[index] :]
        parts, left = [first], size - len(first)
        for line in islice(self._lines, index + 1, None):
            if len(line) > left:
                break
            parts.append(line)
            left -= len(line)
        return b"".join(parts)[:size]

    def seq_before(self, position: int) -> int:
        """The number of the last event that ends at or before a position; of a gap, any in it."""
        if position >= self.end:
            return self.last_seq
        return self.dropped + max(0, bisect_right(self._starts, position) - 1)

    def missed_line(self, since_seq: int) -> bytes:
        """What stands for the dropped events after number ``since_seq``."""
        missed = self.dropped - since_seq
        text = f"{missed} earlier events are not kept"
        return Event(
            self.dropped, self.last_ns, EventKind.MISSED, text, None, {"missed": missed}
        ).line()


class EventReader:
    """Reads a log from a position on; where events were dropped meanwhile, it says so."""

    def __init__(
        self, log: EventLog, position: int = 0, seq: int = 0, *, whole: bool = True
    ) -> None:
        self._log = log
        self._position = position
        self._seq = seq  # of the last event that was read
        self._rest = b""
        self._whole = whole  # it stands between two lines

    @classmethod
    def of_new(cls, log: EventLog) -> EventReader:
        """One that reads what happens from now on."""
        return cls(log, log.end, log.last_seq)

    @property
    def position(self) -> int:
        """Where in the log it stands."""
        return self._position

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return bool(self._rest) or self._position < self._log.end

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, whole lines where one fits; nothing when all is read."""
        if not self._rest and self._position < self._log.start:
            self._skip_gap()
        if self._rest:
            found, self._rest = self._rest[:size], self._rest[size:]
            return found
        found = self._log.read(self._position, size)
        self._position += len(found)
        self._seq += found.count(b"\n")
        if found:
            self._whole = found.endswith(b"\n")
        return found

    def _skip_gap(self) -> None:
        """What was begun is ended, so that the next line is a line of its own."""
        self._rest = b"" if self._whole else b"\n"
        if self._seq < self._log.dropped:
            self._rest += self._log.missed_line(self._seq)
        self._whole = True
        self._position = self._log.start
        self._seq = self._log.dropped


class EventFile:
    """The log as one open file: whoever reads on and on reads it as ``EventReader`` does.

    Who jumps into what is not kept (``tail`` looks backwards from the end) finds empty lines.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._reader = EventReader(log)
        self._next = 0  # the offset at which the reader goes on
        self._shift = 0  # how far positions in the log are ahead of offsets

    @property
    def ready(self) -> bool:
        """Whether there is more than was read; what poll(2) asks."""
        return self._reader.ready

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes; fewer also before the end."""
        if offset == self._next:
            found = self._reader.read(size)
            self._next += len(found)
            self._shift = self._reader.position - self._next
            return found
        position = offset + self._shift
        gap = b"\n" * max(0, min(size, self._log.start - position))
        found = gap + self._log.read(position + len(gap), size - len(gap))
        self._next = offset + len(found)
        position += len(found)
        seq, whole = self._log.seq_before(position), found.endswith(b"\n")
        self._reader = EventReader(self._log, position, seq, whole=whole)
        return found

    def close(self) -> None:
        """Nothing is held."""


class Sparing:
    """How often one kind of event may be told: so many, then one in so long a time."""

    def __init__(self, most: int, window_ns: int) -> None:
        self._most = most
        self._window_ns = window_ns
        self._begun_ns = -window_ns
        self._told = 0
        self._kept_back = 0

    def admit(self, now_ns: int) -> int | None:
        """None to keep it back; otherwise how many were kept back before this one."""
        if not 0 <= now_ns - self._begun_ns < self._window_ns:
            self._begun_ns, self._told = now_ns, 0
        if self._told >= self._most:
            self._kept_back += 1
            return None
        self._told += 1
        kept_back, self._kept_back = self._kept_back, 0
        return kept_back

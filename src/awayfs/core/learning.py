"""Which files are likely to be wanted next: by what was used lately, and what with it. Pure.

Three things speak for a file: that it was used often and lately; that it is used together with
another one that was just used (by the same process within a few seconds); that much of its
directory is in use. Weights halve with time, so that what was learned once is forgotten.
Everything is bounded: what was not used for longest goes. Times are seconds of any clock that goes
on while the machine is off.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct, field

from awayfs.core.types import NodeId

HALF_LIFE_S: Final = 3 * 86_400.0
ONCE_S: Final = 60.0
"""Uses of a file within so long are one."""
TOGETHER_S: Final = 5.0
"""Two files that one process uses within so long are used together."""
WINDOW: Final = 4
"""Files that a process used before which one more is related to."""
MOST_WITH: Final = 8
MOST: Final = 20_000
PROCESSES: Final = 512
LATELY_S: Final = 2 * 86_400.0
"""What was used within so long stands for what is being worked on."""

OWN, WITH, BESIDE = 1.0, 1.5, 0.5
"""What a file's own use, use with another, and use of its directory count for."""
LEAST_SCORE: Final = 0.05
MANY_BESIDE: Final = 3
LEAST_BESIDE: Final = 2.0
"""The weight a directory's use needs to speak for what in it was never used."""


class Use(Struct):
    """A file's, or directory's, uses: ``weight`` as of ``at_s``; the same of those used with it.

    A file's weight is what is left of one for each use; its directory's is that of all in it.
    """

    weight: float = 0.0
    at_s: float = 0.0
    directory: NodeId = 0
    beside: dict[NodeId, float] = field(default_factory=dict)

    def now(self, now_s: float) -> float:
        """The weight by now."""
        return self.weight * faded(now_s - self.at_s)


class Reason(Struct, frozen=True):
    """Why a file is wanted: ``kind`` is used, with, or directory; ``node`` the other one."""

    kind: str
    score: float
    node: NodeId = 0


class Wanted(Struct, frozen=True):
    """A file that may be wanted, and how much speaks for it."""

    node: NodeId
    score: float


class Advice(Struct, frozen=True):
    """A path worth pinning, and how often something at or below it was missing."""

    path: bytes
    times: int


def advise(missed: Iterable[tuple[bytes, int]]) -> list[Advice]:
    """What to pin, given (path, times) of what was wanted and not here; the most missed first.

    Three or more files of a directory are a reason to pin the directory.
    """
    by_directory: dict[bytes, list[tuple[bytes, int]]] = {}
    for path, times in missed:
        by_directory.setdefault(path.rpartition(b"/")[0], []).append((path, times))
    found: list[Advice] = []
    for directory, paths in by_directory.items():
        if directory and len(paths) >= MANY_BESIDE:
            found.append(Advice(directory, sum(times for _, times in paths)))
        else:
            found += [Advice(path, times) for path, times in paths]
    return sorted(found, key=lambda one: (-one.times, one.path))


def best_of(files: Iterable[Wanted], count: int) -> list[Wanted]:
    """The ``count`` files that most speaks for, of those for which enough does; the best first."""
    enough = (one for one in files if one.score >= LEAST_SCORE)
    return heapq.nsmallest(count, enough, key=lambda one: (-one.score, one.node))


def faded(seconds: float) -> float:
    """What is left of a weight of one after so long."""
    return float(0.5 ** (max(0.0, seconds) / HALF_LIFE_S))


class Learned:
    """What is known of the uses of one volume. ``changed`` has what differs from what was saved."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._files: OrderedDict[NodeId, Use] = OrderedDict()
        self._directories: OrderedDict[NodeId, Use] = OrderedDict()
        self._recent: OrderedDict[object, deque[tuple[NodeId, float]]] = OrderedDict()
        self.changed: set[NodeId] = set()

    def __len__(self) -> int:
        return len(self._files)

    def put(self, node: NodeId, use: Use) -> None:
        """What was saved of a file."""
        self._files[node] = use
        directory = self._directory(use.directory, use.at_s)
        _add(directory, use.weight, use.at_s)

    def get(self, node: NodeId) -> Use | None:
        """What is known of a file."""
        return self._files.get(node)

    def used(self, node: NodeId, directory: NodeId, process: object, now_s: float) -> None:
        """A process opened a file in a directory."""
        use = self._files.get(node)
        if use is None:
            use = self._files[node] = Use(at_s=now_s, directory=directory)
            self._bound()
        use.directory = directory
        again = use.weight and now_s - use.at_s < ONCE_S
        if not again:
            _add(use, 1.0, now_s)
            _add(self._directory(directory, now_s), 1.0, now_s)
        self._files.move_to_end(node)
        self.changed.add(node)
        self._relate(node, process, now_s)

    def forget(self, node: NodeId) -> None:
        """The file is no more."""
        use = self._files.pop(node, None)
        self._directories.pop(node, None)
        if use is not None:
            self.changed.add(node)

    def score(self, node: NodeId, directory: NodeId, now_s: float) -> float:
        """How much speaks for a file."""
        return sum(reason.score for reason in self.why(node, directory, now_s))

    def why(self, node: NodeId, directory: NodeId, now_s: float) -> list[Reason]:
        """What speaks for a file, the weightiest first."""
        reasons: list[Reason] = []
        own = self._files.get(node)
        if own is not None:
            reasons.append(Reason("used", OWN * own.now(now_s)))
            for other, weight in own.beside.items():
                neighbour = self._files.get(other)
                if neighbour is not None and now_s - neighbour.at_s < LATELY_S:
                    share = min(1.0, weight / max(neighbour.weight, 1.0))
                    score = WITH * share * neighbour.now(now_s) / (1 + neighbour.now(now_s))
                    reasons.append(Reason("with", score, other))
        place = self._directories.get(directory)
        if place is not None and place.now(now_s) >= LEAST_BESIDE:
            weight = place.now(now_s)
            reasons.append(Reason("directory", BESIDE * weight / (weight + 8), directory))
        return sorted(reasons, key=lambda reason: -reason.score)

    def busy_directories(self, now_s: float) -> list[NodeId]:
        """Directories whose use speaks for everything in them, the busiest first."""
        busy = {n: d.now(now_s) for n, d in self._directories.items()}
        return sorted((n for n in busy if busy[n] >= LEAST_BESIDE), key=lambda n: (-busy[n], n))

    def files(self) -> Iterator[tuple[NodeId, NodeId]]:
        """Every file that is known, with its directory."""
        return ((node, use.directory) for node, use in self._files.items())

    def _relate(self, node: NodeId, process: object, now_s: float) -> None:
        recent = self._recent.setdefault(process, deque(maxlen=WINDOW))
        self._recent.move_to_end(process)
        for other, at_s in recent:
            if other != node and now_s - at_s <= TOGETHER_S:
                self._join(node, other)
                self._join(other, node)
        if not recent or recent[-1][0] != node:
            recent.append((node, now_s))
        while len(self._recent) > PROCESSES:
            self._recent.popitem(last=False)

    def _join(self, node: NodeId, other: NodeId) -> None:
        use = self._files.get(node)
        if use is None:
            return
        use.beside[other] = min(use.beside.get(other, 0.0) + 1.0, 1e6)
        if len(use.beside) > MOST_WITH:
            del use.beside[min(use.beside, key=lambda n: (use.beside[n], n))]
        self.changed.add(node)

    def _directory(self, directory: NodeId, now_s: float) -> Use:
        found = self._directories.get(directory)
        if found is None:
            found = self._directories[directory] = Use(at_s=now_s)
            while len(self._directories) > self._most:
                self._directories.popitem(last=False)
        self._directories.move_to_end(directory)
        return found

    def _bound(self) -> None:
        while len(self._files) > self._most:
            node, _ = self._files.popitem(last=False)
            self.changed.add(node)


def _add(use: Use, weight: float, at_s: float) -> None:
    """More weight; neighbours fade with the weight, so that shares stay shares."""
    left = faded(at_s - use.at_s)
    use.weight = use.weight * left + weight
    use.at_s = max(use.at_s, at_s)
    if left < 1.0:
        use.beside = {n: w * left for n, w in use.beside.items() if w * left > 0.01}

"""Fetching ahead by what was learned, against plain LRU with the same cache size.

The trace is recorded from real commands in this repository, a commit a day: by night somebody else
brings the share to the next commit, which outdates what changed; in the morning, connected, and in
the afternoon, offline, a person looks around, searches, imports and edits. ``strace`` tells which
files are opened, when, and by which process. Commands and choices follow from a seed.

Replayed, both caches drop what was used longest ago and see the same opens. A miss in the morning
fetches the file; in the afternoon it is an error for the person. Files made in the same session
never miss, and the same file opened again within a minute counts once.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from awayfs.core.ahead import Ahead
from awayfs.core.cull import LinkCost, keep_until
from awayfs.core.learning import Learned
from awayfs.volume.context import SECOND_NS
from awayfs.volume.learning import FETCHED_TOGETHER

DAYS = 14
EDITED = 6
SEED = 7
DAY_S = 86_400.0
AFTERNOON_S = 6 * 3600.0
SIZES = (0.1, 0.25, 0.5)
_OPENED = re.compile(r"^\s*(\d+)\s+(\d+\.\d+) open(?:at)?\(.* = \d+<(/[^>]*)>$")


@dataclass(frozen=True, slots=True)
class Open:
    """A file of the share was opened; ``path`` is relative to it."""

    at_s: float
    process: int
    path: str
    size: int


@dataclass(slots=True)
class Session:
    """Half a day. ``outdated`` are the files that changed on the server before it."""

    connected: bool
    opens: list[Open] = field(default_factory=list)
    outdated: set[str] = field(default_factory=set)
    files: dict[str, int] = field(default_factory=dict)


# -- recording ---------------------------------------------------------------------------------


def record(repository: str, base: str) -> list[Session]:
    """The sessions of all days, on a clone of a repository below ``base``."""
    share, draw = f"{base}/share", random.Random(SEED)
    _run(base, "git", "clone", "-q", "--no-hardlinks", repository, share)
    commits = _run(share, "git", "log", "--first-parent", "--format=%H", "--", "src").split()
    step = max(1, min(20, len(commits) // DAYS))
    days = commits[: DAYS * step : step][::-1]
    sessions: list[Session] = []
    before: dict[str, tuple[int, int]] = {}
    for day, commit in enumerate(days):
        _run(share, "git", "checkout", "-q", "-f", commit)
        outdated = {path for path, seen in _seen(share).items() if before.get(path) != seen}
        for connected in (True, False):
            starts_s = day * DAY_S + (0.0 if connected else AFTERNOON_S)
            session = Session(connected, outdated=outdated if connected else set())
            session.files = {path: size for path, (size, _) in _seen(share).items()}
            for number, command in enumerate(_commands(share, outdated, draw)):
                session.opens += _traced(share, base, command, starts_s + number * 300.0)
            sessions.append(session)
        before = _seen(share)
    return sessions


def _commands(share: str, changed: set[str], draw: random.Random) -> Iterator[list[str]]:
    """What a person does in half a day."""
    sources = sorted(path for path in _seen(share) if path.endswith(".py"))
    news = [path for path in sources if path in changed] or sources
    chosen = draw.sample(news, min(EDITED, len(news)))
    yield ["git", "status", "--short"]
    yield ["git", "log", "-3", "--stat"]
    yield [sys.executable, "-B", "-c", "import awayfs.cli.main, awayfs.daemon.main"]
    for path in chosen:
        yield ["cat", path]
        beside = [p for p in sources if os.path.dirname(p) == os.path.dirname(path)]
        yield ["cat", *draw.sample(beside, min(3, len(beside)))]
        yield ["grep", "-rn", "async def", os.path.dirname(path) or "."]
        yield ["sh", "-c", f"echo '# edited' >> {path}"]
        yield ["git", "diff", "--stat"]


def _traced(share: str, base: str, command: list[str], starts_s: float) -> list[Open]:
    log = f"{base}/strace"
    environment = {**os.environ, "PYTHONPATH": f"{share}/src", "GIT_OPTIONAL_LOCKS": "0"}
    traced = ["strace", "-f", "-y", "-ttt", "-e", "trace=open,openat", "-o", log, *command]
    subprocess.run(traced, cwd=share, env=environment, capture_output=True, check=False)
    opens: list[Open] = []
    first = None
    with open(log, errors="replace") as lines:
        for line in lines:
            match = _OPENED.match(line.rstrip())
            if match is None or not match[3].startswith(share + "/") or "O_CREAT" in line:
                continue
            if not os.path.isfile(match[3]):
                continue
            at = float(match[2])
            first = at if first is None else first
            path = os.path.relpath(match[3], share)
            opens.append(
                Open(starts_s + at - first, int(match[1]), path, os.stat(match[3]).st_size)
            )
    return opens


def _seen(share: str) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    found: dict[str, tuple[int, int]] = {}
    for directory, _, names in os.walk(share):
        for name in names:
            status = os.lstat(f"{directory}/{name}")
            path = os.path.relpath(f"{directory}/{name}", share)
            found[path] = status.st_size, status.st_mtime_ns
    return found


def _run(where: str, *command: str) -> str:
    return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout


# -- replaying ---------------------------------------------------------------------------------


class Cache:
    """Content by path; ``limit`` in bytes. ``plain``: what was used longest ago goes first."""

    def __init__(self, limit: int, plain: bool) -> None:
        self.limit = limit
        self.plain = plain
        self.held: OrderedDict[str, int] = OrderedDict()
        self.usage = 0
        self._worth: dict[str, int] = {}
        self._uses: dict[str, int] = {}

    def drop(self, path: str) -> None:
        """It is outdated."""
        self._worth.pop(path, None)
        self.usage -= self.held.pop(path, 0)

    def put(self, path: str, size: int, at_s: float, use: int = 1) -> None:
        """It is used, or came; the least worth goes for it (``core.cull``)."""
        self.drop(path)
        if size > self.limit:
            return
        uses = self._uses[path] = self._uses.get(path, 0) + use
        self._worth[path] = keep_until(int(at_s * SECOND_NS), uses, size, LinkCost())
        self.held[path] = size
        self.usage += size
        while self.usage > self.limit:
            others = (other for other in self.held if other != path)
            self.drop(next(others) if self.plain else min(others, key=self._worth.__getitem__))


class Learner:
    """What ``volume/learning.py`` does by ``core.learning`` and ``core.ahead``, for a ``Cache``."""

    def __init__(self) -> None:
        self.known = Learned()
        self.fetched = 0
        self._ahead = Ahead()
        self._ids: dict[str, int] = {}
        self._paths: list[str] = []

    def used(self, one: Open) -> None:
        """Learn from an open."""
        node, directory = self._id(one.path), self._id(os.path.dirname(one.path) + "/")
        self._ahead.used(node)
        self.known.used(node, directory, one.process, one.at_s)

    def fetch(self, cache: Cache, files: dict[str, int], now_s: float) -> None:
        """Fetch what is wanted, as far as there is room."""
        busy = set(self.known.busy_directories(now_s))
        places, sizes = {}, {}
        for path, size in files.items():
            node, directory = self._id(path), self._id(os.path.dirname(path) + "/")
            known = self.known.get(node) is not None or directory in busy
            if known and path not in cache.held and self._ahead.may_try(node, size, now_s):
                places[node], sizes[node] = directory, size
        room = self._ahead.room(cache.limit, cache.usage, cache.limit)
        best = self.known.best(places.items(), now_s, FETCHED_TOGETHER)
        for node in self._ahead.choose(best, sizes, room, now_s):
            self.fetched += sizes[node]
            cache.put(self._paths[node], sizes[node], now_s, use=0)

    def _id(self, path: str) -> int:
        if path not in self._ids:
            self._ids[path] = len(self._paths)
            self._paths.append(path)
        return self._ids[path]


@dataclass(slots=True)
class Score:
    """Opens and misses, of mornings and of afternoons."""

    opens: list[int] = field(default_factory=lambda: [0, 0])
    misses: list[int] = field(default_factory=lambda: [0, 0])

    def rate(self, connected: bool) -> float:
        """The share of opens that missed."""
        return self.misses[connected] / max(1, self.opens[connected])


def replay(sessions: list[Session], cache: Cache, ahead: Learner | None) -> Score:
    """What a cache does; the first two days warm it up."""
    score = Score()
    for number, session in enumerate(sessions):
        for path in session.outdated:
            cache.drop(path)
        counts = number >= 4
        last: dict[str, float] = {}
        step_s = session.opens[0].at_s if session.opens else 0.0
        for one in session.opens:
            if ahead is not None and session.connected and one.at_s >= step_s:
                step_s = one.at_s + 120.0
                ahead.fetch(cache, session.files, one.at_s)
            if ahead is not None:
                ahead.used(one)
            if one.at_s - last.get(one.path, -1e9) < 60.0:
                continue
            last[one.path] = one.at_s
            hit = one.path in cache.held
            if counts:
                score.opens[session.connected] += 1
                score.misses[session.connected] += not hit
            if hit or session.connected:
                cache.put(one.path, one.size, one.at_s)
        if ahead is not None and session.connected and session.opens:
            ahead.fetch(cache, session.files, session.opens[-1].at_s + 300.0)
    return score


def learned_cases(base: str) -> Iterator[str]:
    """Miss rates for some cache sizes, as parts of all that is ever used."""
    sessions = record(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), base)
    used = {one.path: one.size for session in sessions for one in session.opens}
    total = sum(used.values())
    yield f"{sum(len(s.opens) for s in sessions)} opens of {len(used)} files, {total >> 10} KiB"
    for part in SIZES:
        limit, ahead = int(total * part), Learner()
        scores = {
            "LRU": replay(sessions, Cache(limit, plain=True), None),
            "culling": replay(sessions, Cache(limit, plain=False), None),
            "culling and learning": replay(sessions, Cache(limit, plain=False), ahead),
        }
        yield f"cache of {part:.0%} of that ({ahead.fetched >> 10} KiB fetched ahead)"
        for name, score in scores.items():
            missed = f"connected {score.rate(True):6.1%}  offline {score.rate(False):6.1%}"
            yield f"  {name:<21} missed {missed}"

"""What is used lately, and what with it, is fetched ahead when there is room.

Opening a file notes it, and nothing more; what follows from it is found out a second later, and
saved from time to time. The rule is ``core.learning``. What was wanted while the server was away
and was not here counts as used, and is what ``hoard --suggest`` suggests to pin.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import aclosing

from awayfs.core.ahead import Ahead
from awayfs.core.errors import EDISCONDATA, EDISCONNECTED, AwayfsError
from awayfs.core.learning import Advice, Learned, Reason, Wanted, advise, best_of
from awayfs.core.types import NodeId
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.disk import free_above, space_of
from awayfs.volume.hoard import Hoard
from awayfs.volume.hoarding import may_fetch_unasked
from awayfs.volume.slices import Slices

log = logging.getLogger(__name__)

DIGEST_S = 1.0
SAVE_S = 60.0
AHEAD_S = 120.0
FIRST_AHEAD_S = 5.0
NOTED = 4096
FETCHED_TOGETHER = 500
BUSY_DIRECTORIES = 50
IN_A_DIRECTORY = 500
MISSED = 500
MISSING = (EDISCONDATA, EDISCONNECTED)


class Learning:
    """Notes uses, and fetches ahead."""

    def __init__(self, context: Context, hoard: Hoard) -> None:
        self._context = context
        self._store = context.store
        self._hoard = hoard
        self._noted: deque[tuple[NodeId, int, int]] = deque(maxlen=NOTED)
        self._missed: OrderedDict[NodeId, int] = OrderedDict()
        self._ahead = Ahead()
        self._known = Learned()
        self.note = self._noted.append
        """Of an opened file: (node, pid, when in ns). The only thing that an open costs."""
        context.store.nodes.on_remove.append(self._known.forget)

    # -- learning -------------------------------------------------------------------------

    def missed(self, node: NodeId, code: int) -> None:
        """An operation failed; what was not here while the server is away is remembered."""
        if code not in MISSING or self._context.link.usable:
            return  # an indexer is refused so while connected, too
        self._missed[node] = self._missed.pop(node, 0) + 1
        while len(self._missed) > MISSED:
            self._missed.popitem(last=False)
        self.note((node, 0, self._context.now()))

    async def run(self) -> None:
        """For ever: learn, save, and fetch ahead."""
        await self._load()
        save_at = time.monotonic() + SAVE_S
        ahead_at = time.monotonic() + FIRST_AHEAD_S
        while True:
            await asyncio.sleep(DIGEST_S)
            await self.digest()
            try:
                if time.monotonic() >= save_at:
                    save_at = time.monotonic() + SAVE_S
                    await self.save()
                if time.monotonic() >= ahead_at and may_fetch_unasked(self._context):
                    ahead_at = time.monotonic() + AHEAD_S
                    await self.fetch_ahead()
            except (AwayfsError, OSError) as error:
                log.info("fetching ahead: %s", error)

    async def _load(self) -> None:
        slices = Slices()
        for node, use in self._store.uses.all():
            self._known.put(node, use)
            await slices.pause()

    async def digest(self) -> None:
        """Take in what was noted since the last time."""
        if not self._context.effective.value("learn"):
            self._noted.clear()
            return
        slices, processes = Slices(), dict[int, tuple[int, int] | None]()
        while self._noted:
            node, pid, at_ns = self._noted.popleft()
            if pid not in processes:
                processes[pid] = self._process(pid)
            process, parent = processes[pid], self._store.nodes.parent(node)
            if process is not None and parent is not None:
                self._ahead.used(node)
                self._known.used(node, parent, process, at_ns / SECOND_NS)
            await slices.pause()

    def _process(self, pid: int) -> tuple[int, int] | None:
        """What tells a process from all others; None for one that learns nothing (indexers)."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                before, _, after = file.read().rpartition(b")")
        except OSError:
            return pid, 0  # it is gone already; within a second, its number is its own
        name = os.fsdecode(before.partition(b"(")[2])
        if name in self._context.effective.value("indexers"):
            return None
        fields = after.split()
        return pid, int(fields[19]) if len(fields) > 19 else 0  # proc(5): starttime

    async def save(self) -> None:
        """Write what changed, a slice at a time."""
        changed, self._known.changed = sorted(self._known.changed), set()
        slices = Slices()
        for start in range(0, len(changed), 200):
            part = changed[start : start + 200]
            self._store.uses.save({node: self._known.get(node) for node in part})
            await slices.pause()

    # -- fetching ahead -------------------------------------------------------------------

    async def fetch_ahead(self) -> int:
        """Fetch what most speaks for, as far as there is room; how many files came."""
        if not self._context.effective.value("learn"):
            return 0
        await self._hoard.idle.wait()
        nodes = await self._choose()
        if nodes:
            async with aclosing(self._hoard.walk(*nodes)) as steps:
                async for _ in steps:
                    if not may_fetch_unasked(self._context):
                        break
        return sum(self._store.content.has(node) for node in nodes)

    async def _choose(self) -> list[NodeId]:
        slices, now_s = Slices(), self._now_s()
        places, sizes = dict[NodeId, NodeId](), dict[NodeId, int]()
        for node_id, directory in self._candidates():
            await slices.pause()
            node = self._context.node(node_id)
            if node is None or not self._ahead.may_try(node_id, node.size, now_s):
                continue
            if self._hoard.lacks(node) and not self._context.effective.is_transient(node_id):
                places[node_id], sizes[node_id] = directory, node.size
        wanted: list[Wanted] = []
        for node_id, directory in places.items():
            await slices.pause()  # what speaks for a file takes a while to find out
            wanted.append(Wanted(node_id, self._known.score(node_id, directory, now_s)))
        best = best_of(wanted, FETCHED_TOGETHER)
        return self._ahead.choose(best, sizes, self._room(), now_s)

    def _candidates(self) -> Iterator[tuple[NodeId, NodeId]]:
        yield from list(self._known.files())
        for directory in self._known.busy_directories(self._now_s())[:BUSY_DIRECTORIES]:
            for _, child in self._store.server.children(directory)[:IN_A_DIRECTORY]:
                yield child, directory

    def _room(self) -> int:
        """Bytes that may be fetched ahead now."""
        free = free_above(space_of(self._store.directory), self._context.effective.marks()["brun"])
        usage, limit = self._store.content.usage(), self._context.cache_limit
        return self._ahead.room(limit, usage, free)

    def _now_s(self) -> float:
        return self._context.now() / SECOND_NS

    # -- telling --------------------------------------------------------------------------

    async def why(self, node: NodeId) -> list[Reason]:
        """What speaks for fetching a file ahead, the weightiest first."""
        await self.digest()
        directory = self._store.nodes.parent(node)
        return self._known.why(node, directory or 0, self._now_s())

    def times_missed(self, node: NodeId) -> int:
        """How often a node was wanted while the server was away, and was not here."""
        return self._missed.get(node, 0)

    def advice(self) -> list[Advice]:
        """What to pin, going by what was missing."""
        paths = ((self._store.nodes.path(n), times) for n, times in self._missed.items())
        return advise((path, times) for path, times in paths if path)

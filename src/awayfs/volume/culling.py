"""Evicting content: which, when, and what never goes (``core.cull`` has the rules).

A task looks at the disk and the size limit now and then, and culls in slices before either is
reached; while the server is away only what is needed at once, or by the disk, goes. Who needs room
at once takes from what it ranked, or ranks the oldest content himself.

Never evicted: what has unsent changes or is not on the server at all, what is in conflict, pinned,
or open, and what ``cull = off`` covers. What ``never-cache`` covers goes when its last user closes
it and the server has all of it.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Iterable

from awayfs.core.cull import (
    LinkCost,
    Shortage,
    keep_until,
    over_limit,
    shortage,
)
from awayfs.core.types import NodeId
from awayfs.store.last_used import Use
from awayfs.volume.context import Context
from awayfs.volume.disk import space_of
from awayfs.volume.slices import Slices

log = logging.getLogger(__name__)

RANKED = 32_768
"""So many that go next are known at a time."""
AT_ONCE = 64
"""Files in one transaction."""
LOOK_S = 1.0
PAUSES = 10
"""So many times as long as it took to find that nothing may go, it is not looked for again."""
AGAIN_S = 10.0
"""After a time in which nothing could go, it is looked for anew."""
SCANNED = 256


class Culling:
    """Evicts, in the background and on demand."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self.cost = LinkCost()
        self.lack = Shortage()
        self._culling = False
        self._ranked: list[tuple[int, NodeId, int]] = []
        self._leaving: set[NodeId] = set()
        self.passing: set[NodeId] = set()
        self._barren_until = 0.0
        self._staying = 0
        self._woken = asyncio.Event()
        self._sweep = True
        context.effective.on_change.append(self._settings_changed)

    # -- what may go ----------------------------------------------------------------------

    def may_go(self, node: NodeId) -> bool:
        """Whether content may be evicted now."""
        return self._context.opened.get(node) is None and self.is_expendable(node)

    def is_expendable(self, node: NodeId) -> bool:
        """Whether the server has all of it, and nobody asked for it to be kept."""
        return self._is_clean(node) and not self._context.effective.stays(node)

    def _is_clean(self, node: NodeId) -> bool:
        store = self._store
        return not (
            store.journal.has_any(node)
            or store.server.get(node) is None
            or store.conflicts.of_node(node)
        )

    # -- on demand ------------------------------------------------------------------------

    def evict(self, wanted: int, files: int = 0, *, keep: NodeId = 0) -> bool:
        """Evict at least ``wanted`` bytes and ``files`` files, if so much may go.

        False when nothing went. ``keep`` is left alone.
        """
        freed = count = 0
        while freed < wanted or count < files:
            going = self._next(max(wanted - freed, 0), max(files - count, 0), keep)
            if not going:
                break
            freed += sum(size for _, size in going)
            count += len(going)
            self._drop(node for node, _ in going)
        return count > 0

    def _next(self, wanted: int, files: int, keep: NodeId) -> list[tuple[NodeId, int]]:
        """Some that go next, at most ``AT_ONCE``; nothing where nothing may."""
        going: list[tuple[NodeId, int]] = []
        freed = 0
        while len(going) < AT_ONCE and (freed < wanted or len(going) < files):
            if not self._ranked and (going or not self._rank_oldest(keep)):
                break  # those go before others are looked for
            used_ns, node, size = self._ranked.pop()
            if (
                node == keep
                or self._store.content.last_used.of(node) != used_ns
                or not self.may_go(node)
            ):
                continue
            going.append((node, size))
            freed += size
        return going

    def _rank_oldest(self, keep: NodeId) -> bool:
        """Rank the first few that may go, by last use; False where there is none but ``keep``."""
        began = time.monotonic()
        if began < self._barren_until:
            return False
        after = (-1, 0)
        while uses := self._store.content.last_used.in_order(after, SCANNED):
            after = uses[-1].used_ns, uses[-1].node
            found = [
                (self._until(use), use)
                for use in uses
                if use.bytes and use.node != keep and self.may_go(use.node)
            ]
            if found:
                self._set_ranked(found)
                return True
        if self._store.content.ranges(keep) and self.may_go(keep):
            return False  # for others there is something
        now = time.monotonic()  # looking keeps everybody waiting, where much has to stay
        self._barren_until = now + min(max(LOOK_S, (now - began) * PAUSES), AGAIN_S)
        self.wake()
        return False

    def _until(self, use: Use) -> int:
        if self._context.effective.is_transient(use.node):
            return -1
        return keep_until(use.used_ns, use.uses, use.bytes, self.cost)

    def _set_ranked(self, found: list[tuple[int, Use]]) -> None:
        found.sort(key=lambda one: (-one[0], one[1].node))
        self._ranked = [(use.used_ns, use.node, use.bytes) for _, use in found]

    def _drop(self, nodes: Iterable[NodeId]) -> None:
        with self._store.transaction():
            for node in nodes:
                self._store.content.drop(node)

    # -- what is not kept -----------------------------------------------------------------

    def closed(self, node: NodeId) -> None:
        """The last user of a file is gone: what is not to be kept goes, now or once it is sent."""
        if time.monotonic() < self._barren_until and self.may_go(node):
            held = sum(r.end - r.start for r in self._store.content.ranges(node))
            if held:  # all others have to stay
                self._ranked.append((self._store.content.last_used.of(node), node, held))
        if node in self.passing or self._context.effective.is_transient(node):
            self.passing.discard(node)
            if not self._let_go(node):
                self._leaving.add(node)

    def _let_go(self, node: NodeId) -> bool:
        """Drop what should not be here; False when it has to stay for now."""
        store = self._store
        if not store.content.ranges(node):
            return True
        if self._context.opened.get(node) is not None or not self._is_clean(node):
            return False
        effective = self._context.effective
        kept = effective.is_pinned if effective.is_transient(node) else effective.stays
        if kept(node):
            return True
        self._drop([node])
        self._context.kernel.forget_node(node)  # its pages too
        return True

    def _settings_changed(self) -> None:
        self._ranked.clear()
        self._barren_until = 0.0
        self._sweep = True
        self.wake()

    # -- in the background ----------------------------------------------------------------

    def wake(self) -> None:
        """Something may have to go, or may go now that could not before."""
        self._woken.set()

    def kept_no_more(self) -> None:
        """What had to stay may go now."""
        self._barren_until = 0.0

    async def run(self) -> None:
        """Look, and cull what is too much, until cancelled."""
        pause = LOOK_S
        while True:
            try:
                await asyncio.wait_for(self._woken.wait(), pause)
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                pause = LOOK_S if await self._turn() else AGAIN_S
            except OSError as error:
                log.warning("culling goes on later: %s", error)
            except Exception:
                log.exception("culling goes on later")

    async def _turn(self) -> bool:
        """One look; False when something has to go and nothing may."""
        self._leaving = {node for node in self._leaving if not self._let_go(node)}
        if self._sweep:
            self._sweep = False
            await self._drop_transient()
        went = True
        while went and (lack := self.look()):
            if not self._ranked:
                await self.rank()
            went = self.evict(min(lack.bytes, 64 << 20), min(lack.files, AT_ONCE))
            await asyncio.sleep(0)
        self._culling = bool(self.lack) and went
        return went

    def look(self) -> Shortage:
        """What is too much now: on the disk, and beyond the size limit."""
        effective = self._context.effective
        disk = shortage(space_of(self._store.directory), effective.marks(), self._culling)
        over = over_limit(self._store.content.usage(), self._context.cache_limit, self._culling)
        self.lack = Shortage(max(disk.bytes, over), disk.files, disk.stopped)
        away = not self._context.link.usable and not disk.stopped  # what goes does not come back
        if away or not (effective.value("cull") or effective.varies("cull")):
            self.lack = Shortage(stopped=disk.stopped)
        self._culling = bool(self.lack)
        return self.lack

    async def rank(self, *, complete: bool = False) -> None:
        """Rank content, in slices; what goes next is known then.

        No content is worth its room less long than until its last use: unless all is to be looked
        at (``complete``), that ends it.
        """
        found: list[tuple[int, int, Use]] = []
        slices, after, cullable = Slices(), (-1, 0), 0
        content = self._store.content
        while uses := content.last_used.in_order(after, SCANNED):
            after = uses[-1].used_ns, uses[-1].node
            if not complete and len(found) == RANKED and after[0] > -found[0][0]:
                break
            for use in uses:
                await slices.pause()
                if not use.bytes or not self.may_go(use.node):
                    continue
                cullable += use.bytes
                entry = (-self._until(use), use.node, use)
                if len(found) < RANKED:
                    heapq.heappush(found, entry)
                elif entry > found[0]:
                    heapq.heapreplace(found, entry)
        else:
            self._staying = max(self._sent_bytes() - cullable, 0)
        self._set_ranked([(-until, use) for until, _, use in found])

    async def _drop_transient(self) -> None:
        """After a start, and when settings changed: what is not to be kept goes."""
        effective, slices, after = self._context.effective, Slices(), (-1, 0)
        if not effective.value("never-cache") and not effective.varies("never-cache"):
            return
        while uses := self._store.content.last_used.in_order(after, SCANNED):
            after = uses[-1].used_ns, uses[-1].node
            for use in uses:
                if effective.is_transient(use.node) and not self._let_go(use.node):
                    self._leaving.add(use.node)
                await slices.pause()

    async def empty(self) -> tuple[int, int]:
        """Drop all content that may go, in small steps; how many files and bytes went."""
        files = freed = 0
        self._barren_until = 0.0
        self._ranked.clear()
        while going := self._next(1 << 62, 0, keep=0):
            self._drop(node for node, _ in going)
            files, freed = files + len(going), freed + sum(size for _, size in going)
            await asyncio.sleep(0)
        return files, freed

    # -- what is told ---------------------------------------------------------------------

    def cullable(self) -> int:
        """Bytes that would go if they had to: all that is sent, less what stayed when counted."""
        if not self._context.effective.value("cull"):
            return 0
        return max(self._sent_bytes() - self._staying, 0)

    def _sent_bytes(self) -> int:
        return self._store.content.usage() - self._store.journal.pending_bytes()

    async def count(self) -> None:
        """Have ``cullable`` be right."""
        await self.rank(complete=True)

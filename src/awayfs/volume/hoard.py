"""Having the working set here: hoard walks over pinned trees, and what would be missing.

A walk lists each directory below its start and fetches every file that is not whole: small ones
many with one call, large ones in pieces. Content goes from the server straight into the cache. A
walk that is cut off leaves what it has; the next one goes on from there. It gives way to a user's
read before each call, and keeps slots of the worker free for him.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence, Set
from contextlib import aclosing
from itertools import count
from typing import Any

from msgspec import Struct, field

from awayfs.core.errors import EDISCONFULL, RemoteError, UsageError
from awayfs.core.hoarding import FIRST_PIECE, SMALL, batches, next_piece
from awayfs.core.pacing import Pace
from awayfs.core.types import Kind, NodeId
from awayfs.remotes import pacing
from awayfs.store.nodes import Node
from awayfs.volume import known_xattrs
from awayfs.volume.context import Context
from awayfs.volume.disk import free_above, space_of
from awayfs.volume.fetch import Fetcher
from awayfs.volume.observe import Observer
from awayfs.volume.slices import Slices
from awayfs.volume.tree import Tree

LISTED_TOGETHER = 32
BATCHES_TOGETHER = 8
LARGE_TOGETHER = 2
"""Large files at a time: half of the worker's slots (``remotes/isolated.py``) stay free."""
JOBS_TOGETHER = BATCHES_TOGETHER + LARGE_TOGETHER
TOO_LARGE = "it is larger than the cache limit; mount with a larger cache-size"
TOO_MUCH = "it is pinned by the share alone, and there is no room to spare; pin it to have it here"
SHARE_PART = 0.5
"""What the share pins is fetched as long as this part of a limited cache is not taken."""
AT_A_TIME = 100
"""Nodes that are looked at before the event loop gets its turn."""


class Walk(Struct):
    """One walk's account. ``failed`` holds (path, why).

    ``doubtful``: directories whose listing was under way when it began.
    """

    begun_ns: int = 0
    doubtful: frozenset[NodeId] = frozenset()
    done: int = 0
    total: int = 0
    bytes: int = 0
    path: str = ""
    failed: list[tuple[str, str]] = field(default_factory=list)


class Inventory(Struct):
    """What would be there offline: files and bytes that are, (path, why) of what is not."""

    files: int = 0
    bytes: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)


class _Found(Struct):
    """What a walk has to see to: files, and what else may have extended attributes."""

    files: list[Node] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)


class Hoard:
    """Fetches trees, and tells what of them is not here. ``on_walked`` hears of finished walks."""

    def __init__(self, context: Context, observer: Observer, fetcher: Fetcher, tree: Tree) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._fetcher = fetcher
        self._tree = tree
        self._pace = Pace()
        self._small = asyncio.Semaphore(BATCHES_TOGETHER)
        self._large = asyncio.Semaphore(LARGE_TOGETHER)
        self._walks = 0
        self.idle = asyncio.Event()
        """Set while no walk is under way: walks that nobody asked for wait for it."""
        self.idle.set()
        self.on_walked: Callable[[Sequence[NodeId], Walk], None] = lambda _starts, _walk: None

    async def walk(self, *starts: NodeId, pinned_only: bool = False) -> AsyncGenerator[Walk, None]:
        """Fetch everything at and below some nodes; yields after each piece of progress.

        What cannot be fetched is in ``failed`` and does not stop the walk.
        """
        self._walks += 1
        self.idle.clear()
        try:
            async with aclosing(self._walk(starts, pinned_only)) as steps:
                async for walk in steps:
                    yield walk
        finally:
            self._walks -= 1
            if not self._walks:
                self.idle.set()

    async def _walk(
        self, starts: Sequence[NodeId], pinned_only: bool
    ) -> AsyncGenerator[Walk, None]:
        walk = Walk(begun_ns=self._context.now())
        found = await self._below(starts, walk)
        if pinned_only:
            found.files = await self._to_be_kept(found.files, walk)
        else:
            found.files = await self._not_transient(found.files)
        walk.total = len(found.files)
        self._check_limit(found.files)
        async with aclosing(_run(await self._jobs(found.files, walk))) as steps:
            async for _ in steps:
                yield walk
        async with aclosing(_run(await self._attribute_jobs(found))) as steps:
            async for _ in steps:
                yield walk
        self.on_walked(starts, walk)
        yield walk

    async def check(self, start: NodeId) -> Inventory:
        """What at and below a node would be there offline, and what not; asks nobody.

        Others get their turn in between: a tree may be large.
        """
        found = Inventory()
        pending = [start]
        for looked_at in count(1):
            if not pending:
                break
            if looked_at % AT_A_TIME == 0:
                await asyncio.sleep(0)
            node_id = pending.pop()
            node = self._context.node(node_id)
            if node is None or self.is_left_out(node_id, start):
                continue
            if node.kind is Kind.DIRECTORY:
                if not self._store.server.children_known(node_id):
                    found.missing.append((self.path(node_id), "the directory was never listed"))
                pending.extend(child.id for _, child in self._store.nodes.children(node_id))
            if node.kind is Kind.DIRECTORY and not self._store.server.children_known(node_id):
                continue
            why = self._why_missing(node)
            if why is not None:
                found.missing.append((self.path(node_id), why))
            elif node.kind is Kind.FILE:
                found.files += 1
                found.bytes += node.size
        return found

    def _why_missing(self, node: Node) -> str | None:
        """Why a node would not be as on the server while that is away; None: it would."""
        if node.kind is Kind.FILE:
            if not self._store.content.covers(node.id, 0, node.size):
                return "the content is not all here"
            if self._observer.is_suspect(node.id):
                return "the server may have a newer version"
        if node.kind is Kind.SYMLINK and node.target is None:
            return "where the symlink points is not known"
        of_any = node.kind is Kind.DIRECTORY  # whose revision is another with each name in it
        enough = known_xattrs.were_read_once if of_any else known_xattrs.were_read
        if self._lacks_xattrs(node.id, enough):
            return "its extended attributes were not read since it changed"
        return None

    def _lacks_xattrs(self, node_id: NodeId, known_enough: known_xattrs.Check) -> bool:
        capabilities = self._context.link.capabilities
        if capabilities is None or not capabilities.xattrs:
            return False
        if self._store.server.get(node_id) is None or self._store.journal.has_any(node_id):
            return False  # made or changed here: what is set here is what counts
        known = self._store.nodes.xattrs(node_id)
        return not known_enough(self._store, node_id, known)

    def pinned_places(self) -> list[NodeId]:
        """Where walks over everything pinned begin, the highest priority first.

        What has no name any more, as a change here waits that took it, is nowhere to be seen.
        """
        found = self.places_by_setting()
        for pin in self._store.pins.all():
            if self._store.nodes.path(pin.node) is not None:
                found[pin.node] = max(found.get(pin.node, 0), pin.priority)
        return sorted(found, key=lambda node: (-found[node], node))

    def places_by_setting(self) -> dict[NodeId, int]:
        """Directories for which a setting pins something, with the priority."""
        found: dict[NodeId, int] = {}
        for layer in self._context.effective.pinned_places():
            node = self._store.nodes.resolve(layer.root)
            if node is not None:
                found[node.id] = max(found.get(node.id, 0), layer.values["pin"])
        return found

    async def lacking(self, nodes: Set[NodeId]) -> list[NodeId]:
        """Those that are pinned and of which something is missing; what lies below another of
        them is seen to with that.
        """
        found: list[NodeId] = []
        if not self.pinned_places():
            return found
        slices = Slices()
        for node in sorted(nodes):
            await slices.pause()
            own = self._is_pinned(node) and self._store.nodes.parent(node) not in nodes
            if own and (await self.check(node)).missing:
                found.append(node)
        return found

    def _is_pinned(self, node: NodeId) -> bool:
        return self._context.effective.is_pinned(node)

    def path(self, node_id: NodeId) -> str:
        """A node's path for a person."""
        return os.fsdecode(self._store.nodes.path(node_id) or b"") or "."

    def is_left_out(self, node_id: NodeId, *starts: NodeId) -> bool:
        """Whether a setting leaves out what is not itself asked for."""
        if node_id in starts or self._store.pins.get(node_id) is not None:
            return False
        path = self._store.nodes.path(node_id)
        return path is not None and self._context.effective.left_out(path) is not None

    # -- finding what is missing ----------------------------------------------------------

    async def _below(self, starts: Sequence[NodeId], walk: Walk) -> _Found:
        """List every directory, several at a time; the files, and the rest."""
        found, seen, chosen = _Found(), set[NodeId](), frozenset(starts)
        gate, slices = asyncio.Semaphore(LISTED_TOGETHER), Slices()
        walk.doubtful = self._observer.under_way()
        await asyncio.gather(*(self._look_at(start, walk, gate) for start in chosen))
        level = [node for start in starts if (node := self._context.node(start)) is not None]
        while level:
            directories: list[NodeId] = []
            for node in level:
                await slices.pause()
                if node.id in seen or self.is_left_out(node.id, *chosen):
                    continue
                seen.add(node.id)
                (found.files if node.kind is Kind.FILE else found.others).append(node)
                if node.kind is Kind.DIRECTORY:
                    directories.append(node.id)
            await asyncio.gather(*(self._list(d, walk, gate) for d in directories))
            level = [node for d in directories for _, node in self._tree.entries(d)]
        return found

    async def _look_at(self, start: NodeId, walk: Walk, gate: asyncio.Semaphore) -> None:
        """See what the server has where a walk begins, which no listing of it shows."""
        seen = self._store.server.get(start)
        if seen is None or not self._context.link.usable:
            return
        if not self._context.is_fresh(seen.seen_ns, start):
            try:
                async with gate:
                    await self._observer.node(start)
            except RemoteError as error:
                walk.failed.append((self.path(start), str(error)))

    async def _list(self, node_id: NodeId, walk: Walk, gate: asyncio.Semaphore) -> None:
        server = self._store.server
        if server.get(node_id) is None and self._store.nodes.parent(node_id) is not None:
            return  # made here
        listed_ns = server.listed_ns(node_id) or 0
        listed = walk.begun_ns <= listed_ns <= self._context.now() and node_id not in walk.doubtful
        if self._context.link.usable and listed:
            return  # one from before would be believed elsewhere; who packs wants all there is
        try:
            async with gate:
                await self._fetcher.calm()
                await self._observer.directory(node_id, anew=True)
        except RemoteError as error:
            if not self._store.server.children_known(node_id):
                walk.failed.append((self.path(node_id), str(error)))

    # -- fetching it ----------------------------------------------------------------------

    async def _jobs(self, files: list[Node], walk: Walk) -> list[Coroutine[Any, Any, None]]:
        """What has to be done for all of them; what is whole counts as done at once."""
        small: list[tuple[NodeId, int]] = []
        large: list[NodeId] = []
        slices = Slices()
        for node in files:
            await slices.pause()
            if self._is_settled(node):
                walk.done += 1
            elif node.size <= SMALL and not self._store.journal.has_store(node.id):
                small.append((node.id, node.size))
            else:
                large.append(node.id)
        jobs = [self._fetch_together(batch, walk) for batch in batches(small)]
        return [*jobs, *(self._fetch_alone(node, walk) for node in large)]

    def lacks(self, node: Node) -> bool:
        """Whether a file's content has yet to be fetched, or compared, and may be."""
        return node.kind is Kind.FILE and not (self._is_settled(node) or self.is_left_out(node.id))

    def _is_settled(self, node: Node) -> bool:
        return self._fetcher.is_whole(node) and not self._observer.is_suspect(node.id)

    async def _fetch_together(self, nodes: list[NodeId], walk: Walk) -> None:
        """Small files with one call; what did not come by it, alone."""
        bases = {node: self._store.server.get(node) for node in nodes}
        wanted = {n: base for n, base in bases.items() if base is not None and base.size <= SMALL}
        left = [node for node in nodes if node not in wanted]
        size = sum(base.size for base in wanted.values())
        if wanted:
            async with self._small:
                await self._turn(size)
                try:
                    left += await self._fetcher.fetch_small(wanted)
                except OSError as error:
                    walk.failed += [(self.path(n), error.strerror or "failed") for n in wanted]
                    walk.done += len(wanted)
                    left = [node for node in nodes if node not in wanted]
        came = [node for node in wanted if node not in set(left)]
        walk.bytes += sum(wanted[node].size for node in came)
        walk.done += len(came)
        if came:
            walk.path = self.path(came[-1])
        for node in left:
            await self._fetch_alone(node, walk)

    async def _fetch_alone(self, node_id: NodeId, walk: Walk) -> None:
        try:
            async with self._large:
                if self._observer.is_suspect(node_id):
                    await self._turn(0)
                    await self._observer.verify(node_id)
                fetched = await self._in_pieces(node_id)
            walk.bytes += fetched  # others add to it while we wait: never across an await
        except (OSError, RemoteError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            walk.failed.append((self.path(node_id), text or "failed"))
        walk.done += 1
        walk.path = self.path(node_id)

    async def _in_pieces(self, node_id: NodeId) -> int:
        """Have the whole content cached; the bytes that were fetched for it."""
        fetched, reached, piece = 0, 0, FIRST_PIECE
        while (node := self._context.node(node_id)) is not None:
            missing = self._store.content.missing(node_id, 0, node.size)
            if not missing or self._fetcher.is_whole(node):  # the ranges of an open file come late
                break
            start = missing[0].start
            if start < reached:
                raise OSError(EDISCONFULL, "there is no room for it while it is being read")
            reached = start
            end = min(missing[0].end, start + piece)
            await self._turn(end - start)
            began = time.monotonic()
            with pacing.nobody_waits():
                await self._fetcher.ensure(node_id, start, end)
            piece = next_piece(piece, time.monotonic() - began)
            fetched += end - start
        return fetched

    async def _turn(self, size: int) -> None:
        """Wait until nobody reads what is not here, and ``size`` bytes more are not too much."""
        wait_s = self._pace.wait_s(
            time.monotonic(), size, self._context.effective.value("bandwidth")
        )
        if wait_s:
            await asyncio.sleep(wait_s)
        await self._fetcher.calm()

    async def _attribute_jobs(self, found: _Found) -> list[Coroutine[Any, Any, None]]:
        lacking: list[NodeId] = []
        slices = Slices()
        for node in (*found.others, *found.files):
            await slices.pause()
            if self._lacks_xattrs(node.id, known_xattrs.are_current):
                lacking.append(node.id)
        parts = [lacking[at : at + AT_A_TIME] for at in range(0, len(lacking), AT_A_TIME)]
        return [self._read_attributes(part) for part in parts]

    async def _read_attributes(self, nodes: list[NodeId]) -> None:
        for node in nodes:
            if not self._context.link.usable:
                return
            await self._fetcher.calm()
            await self._tree.xattrs(node)

    async def _to_be_kept(self, files: list[Node], walk: Walk) -> list[Node]:
        """Those that are pinned and can fit.

        One that the server has grown keeps nobody from the others, and what only the share pins
        takes no more than is free.
        """
        kept: list[Node] = []
        limit, room, slices = self._context.cache_limit, self._room_for_share(), Slices()
        for node in files:
            await slices.pause()
            if not self._is_pinned(node.id):
                continue
            if limit is not None and node.size > limit:
                walk.failed.append((self.path(node.id), TOO_LARGE))
                continue
            if self._context.effective.is_pinned_by_share(node.id) and not self._is_settled(node):
                room -= node.size
                if room < 0:
                    walk.failed.append((self.path(node.id), TOO_MUCH))
                    continue
            kept.append(node)
        return kept

    async def _not_transient(self, files: list[Node]) -> list[Node]:
        """Those that would stay here."""
        slices, kept = Slices(), list[Node]()
        for node in files:
            await slices.pause()
            if not self._context.effective.is_transient(node.id) or self._is_pinned(node.id):
                kept.append(node)
        return kept

    def _room_for_share(self) -> int:
        """Bytes that may be fetched for what a file on the share pins: culling never begins."""
        free = free_above(space_of(self._store.directory), self._context.effective.marks()["brun"])
        limit = self._context.cache_limit
        if limit is None:
            return free
        return min(free, int(limit * SHARE_PART) - self._store.content.usage())

    def _check_limit(self, files: list[Node]) -> None:
        """A pinned file that can never fit is said before anything is fetched for it."""
        limit = self._context.cache_limit
        for node in files if limit is not None else ():
            if limit is not None and node.size > limit:
                raise UsageError(
                    f"{self.path(node.id)}: is larger ({node.size} bytes) than the cache limit"
                    f" ({limit} bytes); mount with a larger cache-size"
                )


async def _run(jobs: list[Coroutine[Any, Any, None]]) -> AsyncGenerator[None, None]:
    """Do all jobs, some at a time; yields whenever one is done. What is not begun is dropped."""
    waiting = iter(jobs)
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            while len(running) < JOBS_TOGETHER and (job := next(waiting, None)) is not None:
                running.add(asyncio.get_running_loop().create_task(job))
            if not running:
                return
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            yield
    finally:
        for task in running:
            task.cancel()
        for job in waiting:
            job.close()

"""The rest of a file that is changed while only a part of it is here.

What is not here belongs to the revision that the change is made to. The server may replace that
at any moment, and then the rest is gone for good (docs/CONFLICTS.md, "partial"). So while the
server is there it is fetched at once, before all other fetching: of a small file before the
first write is answered, of a larger one in the background. Replay needs all of it anyway, so
that no byte is fetched for nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator, Iterable
from typing import Any

from msgspec.structs import replace

from awayfs.core.errors import RemoteError
from awayfs.core.facts import Facts
from awayfs.core.records import RecordKind, RecordState
from awayfs.core.types import Expected, Kind, NodeId, Range
from awayfs.volume.context import Context
from awayfs.volume.fetch import Fetcher
from awayfs.volume.opened import OpenNode
from awayfs.volume.slices import Slices, in_slices

log = logging.getLogger(__name__)

SMALL = 8 << 20
"""So much is fetched before the first write to a file is answered."""
PATIENCE_S = 2.0
"""A write waits no longer for it; the fetch goes on."""


class Rest:
    """Completes files that were changed, or are about to be."""

    def __init__(self, context: Context, fetcher: Fetcher) -> None:
        self._context = context
        self._store = context.store
        self._fetcher = fetcher
        self._tasks: dict[NodeId, asyncio.Task[None]] = {}

    def before_write(
        self, opened: OpenNode, start: int, end: int
    ) -> Coroutine[Any, Any, None] | None:
        """What the first write to a file, from ``start`` to ``end``, waits for; None: nothing."""
        if opened.whole or opened.outdated or not self._context.link.usable:
            return None
        if self._store.journal.has_store(opened.node):
            return None  # begun already; each further write is answered at once
        missing = self._store.content.missing(opened.node, 0, opened.size)
        if sum(r.end - r.start for r in missing) > SMALL or _is_within(missing, start, end):
            return None
        return self._wait(opened.node)

    def foresee(self, opened: OpenNode) -> None:
        """A program may write to a file in a way that is seen late: begin with a small one."""
        missing = self._store.content.missing(opened.node, 0, opened.size)
        if not opened.whole and sum(r.end - r.start for r in missing) <= SMALL:
            self.begin(opened.node)

    def give_way(self, node: NodeId) -> None:
        """The rest is of no version that is still there, and a write waits for nothing."""
        task = self._tasks.get(node)
        if task is not None:
            task.cancel()

    def begin(self, node: NodeId) -> None:
        """Fetch what is missing of a file that was just changed, in the background."""
        if self._context.link.usable and node not in self._tasks:
            task = self._tasks[node] = self._context.spawn(self._complete(node))
            task.add_done_callback(lambda _: self._tasks.pop(node, None))

    def begin_all(self) -> None:
        """The server is back: what was changed without it is completed first."""
        steps, slices = self._beginning(), Slices()
        for _ in steps:
            if slices.over:
                self._context.spawn(in_slices(steps, slices))
                return

    def _beginning(self) -> Generator[None, None, None]:
        for node, size in self._store.journal.sizes():
            is_open = self._context.opened.get(node) is not None  # it may have grown
            maybe = is_open or not self._store.content.covers(node, 0, size)
            if maybe and self._is_to_be_sent(node) and self._is_partial(node):
                self.begin(node)
            yield

    def _is_to_be_sent(self, node: NodeId) -> bool:
        return any(
            record.kind is RecordKind.STORE and record.state is not RecordState.PARKED
            for record in self._store.journal.of_node(node)
        )

    def _is_partial(self, node_id: NodeId) -> bool:
        node = self._context.node(node_id)
        return node is not None and node.kind is Kind.FILE and not self._fetcher.is_whole(node)

    async def _wait(self, node: NodeId) -> None:
        self.begin(node)
        task = self._tasks.get(node)
        if task is not None:
            await asyncio.wait([task], timeout=PATIENCE_S)

    async def _complete(self, node: NodeId) -> None:
        try:
            await self._fetcher.whole(node, first=True)
        except (OSError, RemoteError) as error:  # replay meets it, and says so
            log.info("the rest of changed node %d is not here: %s", node, error)


def gaps_come_from(context: Context, facts: Facts, expected: Expected) -> None:
    """What is missing comes from now on from the ``expected`` revision, over which the change goes.

    It has the content that the change was made to (its times were set, or it was copied). Rights
    and times that somebody set there are met as before.
    """
    base, current, node = facts.base, facts.current, facts.record.node
    content, server = context.store.content, context.store.server
    known = server.get(node)
    if base is None or current is None or known is None or known.token != base.token:
        return
    if current.token != expected.token or current.token == base.token:
        return
    kept = {name: getattr(base, name) for name in ("mode", "uid", "gid", "mtime_ns")}
    found, digest = replace(current, **kept), known.digest or facts.base_digest
    with context.store.transaction():
        if content.token(node) == base.token:
            content.set_token(node, current.token)
        if content.base_token(node) == base.token:
            content.bases.set_token(node, current.token)
        server.set(node, found, seen_ns=context.now(), digest=digest)


def _is_within(missing: Iterable[Range], start: int, end: int) -> bool:
    """Whether a write makes all that is missing itself."""
    return all(start <= gap.start and gap.end <= end for gap in missing)

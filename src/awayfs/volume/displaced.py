"""Keeping what an operation of ours takes away and nobody here knows to be what was seen.

Of a file that was listed and never read, an equal weak token does not tell whether somebody wrote
to it in the same moment, and there is no digest to compare with (``core.sameness``). What was done
to it here is carried out, and what it holds goes to the history before.

Over SFTP all tokens are weak at first. So that not all that is removed is fetched, this is done for
what was changed in the minutes before it was seen. Two machines' clocks are compared for that;
where they differ by more, nothing but this copy is missed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from filecmp import cmp

from awayfs.core.facts import Facts
from awayfs.core.history import to_cull
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.files import unlink_quietly
from awayfs.store.history import Lost
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.places import Places
from awayfs.volume.server_variants import ServerVariants
from awayfs.volume.shapes import shape_of_entry

log = logging.getLogger(__name__)

NEW_NS = 600 * SECOND_NS
DISPLACED = "removed or overwritten here, perhaps changed on the server just before"


class Displaced:
    """Puts it there. ``is_decided`` tells whether a record is another by now."""

    def __init__(self, context: Context, is_decided: Callable[[Record], bool]) -> None:
        self._context = context
        self._store = context.store
        self._variants = ServerVariants(context)
        self._is_decided = is_decided

    async def keep(self, record: Record, facts: Facts, places: Places) -> None:
        """What the record is about to displace; once, though it may be tried again.

        Raises ``Unreachable``. What is too large for the history, or cannot be read, is not kept.
        """
        over = record.kind is RecordKind.RENAME
        entry, path = facts.current, places.path
        if over:
            entry, path = facts.target_current, places.target
        if entry is None or entry.kind is not Kind.FILE or path is None or facts.retried:
            return
        node = record.replaced if over else record.node
        if not self._was_new(node, entry, record):
            return
        limits = self._context.settings().history
        staged = await self._variants.fetch(path, entry) if limits.holds([entry.size]) else None
        if staged is None:
            log.warning("%r: what is displaced is not kept", path)
        elif await self._is_kept(node, path, staged) or self._is_decided(record):
            unlink_quietly(staged)
        else:
            self._put(node, path, entry, staged)

    async def _is_kept(self, node: NodeId, path: bytes, staged: str) -> bool:
        """Whether the history has it already: a decision that gave it up had it kept."""
        size, loop = os.stat(staged).st_size, asyncio.get_running_loop()
        for one in self._store.history.of(path, node):
            if one.content and one.size == size and not one.partial:
                here = self._store.history.content_path(one.id)
                with suppress(FileNotFoundError):
                    if await loop.run_in_executor(None, cmp, here, staged, False):
                        return True
        return False

    def _was_new(self, node: NodeId, entry: Entry, record: Record) -> bool:
        """Whether it was seen, or where that is not known, removed or overwritten, soon after it
        was changed.
        """
        base = self._store.server.get(node)
        seen_ns = base.seen_ns if base is not None and base.seen_ns else record.at_ns
        return seen_ns - entry.mtime_ns < NEW_NS

    def _put(self, node: NodeId, path: bytes, entry: Entry, staged: str) -> None:
        history, limits = self._store.history, self._context.settings().history
        lost = Lost(
            conflict=history.new_decision(),
            node=node,
            path=path,
            which="server",
            mode=entry.mode,
            mtime_ns=entry.mtime_ns,
            size=entry.size,
            kept_ns=self._context.now(),
            why=DISPLACED,
            before=shape_of_entry(self._context, entry),
        )
        with self._store.transaction():
            history.add(lost, staged)
            history.remove(to_cull(history.weights(), self._context.now(), limits))

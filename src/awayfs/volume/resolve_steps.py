"""Steps that several decisions take: asking the server, naming a copy, letting a record go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from msgspec.structs import replace

from awayfs.core.errors import UsageError
from awayfs.core.namespace import Slot
from awayfs.core.naming import conflict_copy_name
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import ROOT, Entry, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.context import Context
from awayfs.volume.observe import Observer
from awayfs.volume.places import PlaceFinder
from awayfs.volume.resolve_moved import MovedNodes
from awayfs.volume.suspects import digest_of_file

TAKING = (RecordKind.RENAME, RecordKind.EXCHANGE, RecordKind.REMOVE)
MOVED_ON = "the server has changed it again: look at the conflict as it is now, and decide anew"
COPY_TEMPLATE = ContextVar("COPY_TEMPLATE", default="")
"""What a rule calls conflict copies, for the decision that is being carried out."""


class MovedOn(UsageError):
    """The server has another revision than the one that was decided about."""

    def __init__(self) -> None:
        super().__init__(MOVED_ON)


def differs(shown: Entry | None, there: Entry | None) -> bool:
    """Whether the server has another revision than the one that was shown."""
    if shown is None or there is None:
        return (shown is None) != (there is None)
    return shown.kind is not there.kind or shown.token != there.token


class Steps:
    """What is common to keeping one side, the other, or both."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self.places = PlaceFinder(context.store)
        self.moved = MovedNodes(context, observer)
        self._together = 0
        self._later: set[NodeId] = set()

    async def stat(self, path: bytes) -> Entry | None:
        """What stands at a path of the server, or None."""
        return await self._context.link.find(path)

    async def variant_digest(self, conflict: Conflict, entry: Entry) -> bytes | None:
        """The digest of what stands on the server, if the server's variant is just that."""
        shown, variant = conflict.server_entry, conflict.server_variant
        if shown is None or shown.token != entry.token or not conflict.server_complete:
            return None
        if variant is None:
            return None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(None, digest_of_file, variant)
        except FileNotFoundError:
            return None

    async def look(self, directories: Iterable[NodeId]) -> None:
        """See what the server has in directories now; of many decisions, after the last one."""
        for directory in set(directories) - {0}:
            if self._together:
                self._later.add(directory)
            else:
                await self._observer.directory(directory)

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Many decisions: a directory is looked at once, when all were carried out."""
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1
            if not self._together:
                later, self._later = self._later, set()
                await self.look(later)

    def copy_name(self, parent: NodeId, name: bytes, there: set[bytes]) -> bytes:
        """A free name for a conflict copy; ``there`` are the names on the server."""
        when = time.strftime("%Y-%m-%d", time.localtime(self._context.now() / 1e9))
        return conflict_copy_name(
            name,
            self._context.options.host,
            when,
            lambda n: n in there or self._store.nodes.child_id(parent, n) is not None,
            template=COPY_TEMPLATE.get() or self._context.settings().copy_name,
        )

    def beside(self, conflict: Conflict) -> Slot:
        """The name beside which a copy of our variant goes: the one that the node has by now.

        Without one that leads there, that under which the conflict was found, or the server has it;
        the root where all these directories are gone.
        """
        nodes, node = self._store.nodes, conflict.node
        found_under = (conflict.parent, conflict.name)
        for place in (*nodes.names(node), found_under, *self._store.server.names(node)):
            if nodes.path(place[0]) is not None:
                return place
        return ROOT, conflict.name

    def release(self, record: Record) -> None:
        """Let a parked record go out, if there still is something to it."""
        if self._store.journal.get(record.seq) is None:
            return
        with self._store.transaction():
            self._store.intents.clear(record.seq)
            self._store.journal.set_state(record.seq, RecordState.PENDING)

    def is_taken_away(self, node: NodeId) -> bool:
        """Whether a removal of it, or a rename over it, is on its way."""
        records = self._store.journal.of_node(node)
        return any(r.kind is RecordKind.REMOVE or r.replaced == node for r in records)

    def start_from(
        self,
        home: tuple[NodeId, bytes],
        place: tuple[NodeId, bytes],
        node: NodeId,
        seq: int,
        heir: NodeId = 0,
    ) -> NodeId:
        """What a decision gives the name ``home`` did not get ``place``: what took that away
        again since, takes ``home`` away.

        Which node stands there now because of that: what the last of the exchanges since brought,
        or 0 where it was renamed or removed, though it may have come back later. What was renamed
        over it has displaced ``heir`` instead, which stood there before.
        """
        journal = self._store.journal
        for later in journal.of_node(node):
            if later.seq <= seq or later.kind not in TAKING:
                continue
            exchanged = later.kind is RecordKind.EXCHANGE
            over = (later.replaced, later.to_parent, later.to_name) == (node, *place)
            if (later.node, later.parent, later.name) == (node, *place):
                journal.replace(replace(later, parent=home[0], name=home[1]))
                other = later.replaced
            elif exchanged and over:
                journal.replace(replace(later, to_parent=home[0], to_name=home[1]))
                other = later.node
            elif over:
                journal.replace(replace(later, replaced=heir))
                return 0
            else:
                continue
            return self.start_from(home, place, other, later.seq, heir) if exchanged else 0
        return node

    def inherit(self, rename: Record) -> None:
        """A rename is given up: what was renamed over its node since has displaced what that one
        would have displaced.
        """
        journal, place = self._store.journal, (rename.to_parent, rename.to_name)
        for later in journal.of_node(rename.node):
            over = later.kind is RecordKind.RENAME and later.replaced == rename.node
            if over and later.seq > rename.seq and (later.to_parent, later.to_name) == place:
                journal.replace(replace(later, replaced=rename.replaced))
                return

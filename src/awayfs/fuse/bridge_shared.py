"""What all handlers need: the volume, handles, lookup counts, and nodes as the kernel sees them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from awayfs.core.errors import EDISCONDATA
from awayfs.core.types import ROOT, NodeId, Range
from awayfs.fuse import wire
from awayfs.fuse.callers import Callers
from awayfs.fuse.lookups import LookupCounts
from awayfs.fuse.notify import Notifier
from awayfs.fuse.replies import Attr, Entry
from awayfs.fuse.requests import Request
from awayfs.store.nodes import Node
from awayfs.volume.context import SECOND_NS
from awayfs.volume.pages import END, outside
from awayfs.volume.slices import Slices
from awayfs.volume.volume import Volume

OFFLINE_VALID_S = 3600.0
"""How long the kernel may trust what it was told while offline; ``forget_all`` ends it."""
BRIEF_S = 10.0
"""What the kernel may trust for no longer than this is not taken back after a change of mode."""
READABLE = 0x0001 | 0x0040
"""What poll(2) answers for what can be read on: POLLIN, POLLRDNORM."""
READY = 0x0001 | 0x0004 | 0x0040 | 0x0100
"""What poll(2) answers for files: POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM."""


@dataclass(slots=True)
class Shared:
    """State of one mount that several handlers use."""

    volume: Volume
    lookups: LookupCounts = field(default_factory=LookupCounts)
    handles: dict[int, object] = field(default_factory=dict)
    fuse_fd: int = -1
    passthrough: bool = False
    direct: bool = False
    generation: int = 0
    """Of this state directory: tells its nodes from those of another, in file handles."""
    changed: set[NodeId] = field(default_factory=set)
    listed: set[NodeId] = field(default_factory=set)
    """Directories that the kernel was allowed to keep the listing of."""
    told_for_long: set[NodeId] = field(default_factory=set)
    """Nodes whose attributes it may believe for longer than ``BRIEF_S``."""
    callers: Callers = field(init=False)
    _next_handle: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        effective = self.volume.context.effective
        self.callers = Callers(lambda: effective.value("indexers"))

    def not_for_indexers(self, request: Request, what: str) -> None:
        """EDISCONDATA for who would pull in all that is not here."""
        if self.callers.is_indexer(request.pid):
            raise OSError(EDISCONDATA, f"{what} is not here, and is not fetched for an indexer")

    def used(self, request: Request, node: NodeId, *, listed: bool = False) -> None:
        """A program opens, looks at, or lists what may wait for just that to be sent."""
        sending = self.volume.context.sending
        if sending.waits_for_use(node) and not self.callers.is_indexer(request.pid):
            sending.used(node, listed=listed)

    def new_handle(self, value: object) -> int:
        """Keep an open file or directory; the number that names it to the kernel."""
        number = next(self._next_handle)
        self.handles[number] = value
        return number

    def keep_cache(self, node: NodeId) -> int:
        """FOPEN flags: what the kernel has cached stays good, unless it changed since.

        The notification of a change travels beside the replies and may come after them.
        """
        if node in self.changed:
            self.changed.discard(node)
            return 0
        return wire.FOPEN_KEEP_CACHE

    def valid_s(self, node: NodeId) -> float:
        """How long what was seen of a node at this moment may be trusted without asking again."""
        if self.volume.link.usable:
            return self.volume.context.fresh_s(node)
        return OFFLINE_VALID_S

    def left_s(self, node: NodeId) -> float:
        """How long a node may be trusted: what is left of the time for which it is fresh.

        What only exists here is as good as if it were seen at this moment.
        """
        return self._left_of(self.volume.store.server.seen_ns(node), node)

    def absence_left_s(self, directory: NodeId) -> float:
        """How long it may be trusted that a directory has no such name."""
        return self._left_of(self.volume.store.server.listed_ns(directory), directory)

    def _left_of(self, seen_ns: int | None, node: NodeId) -> float:
        valid = self.valid_s(node)
        if seen_ns is None or not self.volume.link.usable:
            return valid
        age = (self.volume.context.now() - seen_ns) / SECOND_NS
        return valid - age if 0 <= age <= valid else 0.0

    def entry(self, node: Node) -> Entry:
        """A node of a listing as a reply's entry. The caller counts the lookup.

        Trusted from this moment on: who reads a long listing takes each entry as he gets to it.
        """
        return self._entry(node, self.valid_s(node.id))

    def _entry(self, node: Node, valid: float) -> Entry:
        generation = self.generation if node.id != ROOT else 0  # the kernel insists on that
        return Entry(node.id, self.attr(node), valid, valid, generation)

    def attr(self, node: Node) -> Attr:
        """stat(2) of a node, as its plain name shows it while it is in conflict."""
        if self.valid_s(node.id) > BRIEF_S:
            self.told_for_long.add(node.id)
        shown = self.volume.shown
        return attr_of(shown.attributes(node) if shown.server else node)

    def forgotten(self, node: NodeId) -> None:
        """The kernel let go of a node: there is nothing of it that it would have to forget."""
        for known in (self.changed, self.listed, self.told_for_long):
            known.discard(node)

    def looked_up(self, node: Node) -> Entry:
        """A node that was looked up by its name, counted; trusted as long as it is fresh."""
        self.lookups.add(node.id)
        return self._entry(node, self.left_s(node.id))


def attr_of(node: Node) -> Attr:
    """stat(2) of a node. Blocks count the size, cached or not: a placeholder is no hole."""
    return Attr(
        ino=node.id,
        size=node.size,
        blocks=(node.size + 511) >> 9,
        atime_ns=node.atime_ns,
        mtime_ns=node.mtime_ns,
        ctime_ns=node.ctime_ns,
        btime_ns=node.btime_ns,
        mode=node.kind | node.mode,
        nlink=node.nlink,
        uid=node.uid,
        gid=node.gid,
        rdev=node.rdev,
    )


class MountedKernel:
    """Tells the kernel what changed (``volume.context.KernelCaches``)."""

    def __init__(self, notifier: Notifier, shared: Shared, *, epoch: bool) -> None:
        self._notifier = notifier
        self._shared = shared
        self._lookups = shared.lookups
        self._epoch = epoch

    def forget_entry(self, parent: NodeId, name: bytes) -> None:
        """See ``KernelCaches``."""
        self._notifier.inval_entry(parent, name)
        self.forget_node(parent)

    def forget_node(self, node: NodeId) -> None:
        """See ``KernelCaches``."""
        if node == 1 or node in self._lookups:
            self._shared.changed.add(node)
            opened = self._shared.volume.context.opened.get(node)
            if opened is None or not opened.reads:
                self._notifier.inval_inode(node)
                return
            for read in opened.reads:  # nobody waits for pages that are locked
                read.forgotten = True
            self._notifier.inval_inode(node, -1)
            self.forget_pages(node, outside([read.pages for read in opened.reads]))

    def forget_pages(self, node: NodeId, ranges: Iterable[Range]) -> None:
        """See ``KernelCaches``."""
        if node in self._lookups:
            for one in ranges:
                length = 0 if one.end == END else one.end - one.start
                self._notifier.inval_inode(node, one.start, length)

    def forget_all(self) -> None:
        """See ``KernelCaches``. Before Linux 6.16 names simply run out by themselves.

        Pages of files stay: a change of content will be told when it is seen. Listings go,
        as somebody may have a directory open and only rewind. Attributes go that would be
        believed for long; others run out by themselves.
        """
        if self._epoch:
            self._notifier.bump_epoch()
        shared = self._shared
        listings, attributes = shared.listed | {ROOT}, shared.told_for_long - shared.listed
        shared.listed, shared.told_for_long = set(), set()
        shared.volume.context.spawn(self._forget_nodes(listings, attributes))

    async def settled(self) -> None:
        """See ``KernelCaches``."""
        await self._notifier.drain()

    def wake(self, poller: int) -> None:
        """See ``KernelCaches``."""
        self._notifier.poll_wakeup(poller)

    async def _forget_nodes(self, listings: set[NodeId], attributes: set[NodeId]) -> None:
        """The kernel may know very many."""
        slices = Slices()
        for nodes, offset in ((listings, 0), (attributes, -1)):
            for node in nodes:
                self._notifier.inval_inode(node, offset)
                await slices.pause()

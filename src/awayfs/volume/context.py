"""What the parts of a volume share: the store, the link, the kernel's caches, the options.

Everything here is used on the event-loop thread only; that is why there are no locks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from awayfs.core.events import EventKind, EventLog, Fact
from awayfs.core.namespace import Slot
from awayfs.core.settings import Settings
from awayfs.core.types import Entry, NodeId, Range
from awayfs.store.nodes import Node
from awayfs.store.store import Store
from awayfs.volume.effective import Effective
from awayfs.volume.failures import Failures
from awayfs.volume.held import HeldContent
from awayfs.volume.link import Link
from awayfs.volume.opened import OpenNodes
from awayfs.volume.pages import Pages
from awayfs.volume.refusals import Refusals
from awayfs.volume.sending import Sending

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """The choices of one mount (DESIGN sections 4 and 5). Sizes in bytes, times in seconds.

    ``fresh_s``, ``cache_limit`` and ``settings`` are what the mount gives of the settings that
    other places can give as well (``core.setting_table``); None leaves it to them.
    """

    fresh_s: float | None = None
    cache_limit: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    writes: str = "behind"
    base_limit: int = 32 << 20
    conflicted: str = "local"
    read_only: bool = False
    uid: int = 0
    gid: int = 0
    host: str = "localhost"

    def given(self) -> dict[str, Any]:
        """The settings that the mount gives, by name."""
        given = {"fresh": self.fresh_s, "cache-size": self.cache_limit}
        return {**{k: v for k, v in given.items() if v is not None}, **self.settings}


class KernelCaches(Protocol):
    """Where a change that the kernel did not ask for is told. Calls never block."""

    def forget_entry(self, parent: NodeId, name: bytes) -> None:
        """A name appeared, went, or means another node now."""
        ...

    def forget_node(self, node: NodeId) -> None:
        """A node's attributes and content changed."""
        ...

    def forget_all(self) -> None:
        """Nothing cached before may be trusted without asking."""
        ...

    def forget_pages(self, node: NodeId, ranges: Iterable[Range]) -> None:
        """Only these bytes of a node's content changed."""
        ...

    async def settled(self) -> None:
        """Until all that was told has been heard: what the kernel had of a node's pages that were
        written to came here as writes by then.
        """
        ...

    def wake(self, poller: int) -> None:
        """Who waits in poll(2) under this number has something to read."""
        ...


class NoKernel:
    """Stands in until a session is attached, and in tests."""

    def forget_entry(self, parent: NodeId, name: bytes) -> None: ...

    def forget_node(self, node: NodeId) -> None: ...

    def forget_all(self) -> None: ...

    def forget_pages(self, node: NodeId, ranges: Iterable[Range]) -> None: ...

    async def settled(self) -> None: ...

    def wake(self, poller: int) -> None: ...


async def nothing_to_do() -> None:
    """Before the first change of a session is sent, and after."""


@dataclass(slots=True)
class Context:
    """One volume's shared state."""

    store: Store
    link: Link
    options: VolumeOptions
    now: Callable[[], int]
    kernel: KernelCaches = field(default_factory=NoKernel)
    opened: OpenNodes = field(init=False)
    held: HeldContent = field(init=False)
    pages: Pages = field(init=False)
    effective: Effective = field(init=False)
    failures: Failures = field(default_factory=Failures)
    refusals: Refusals = field(init=False)
    sending: Sending = field(init=False)
    events: EventLog = field(default_factory=EventLog)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    on_journal: Callable[[], None] = lambda: None
    want_sent: Callable[[], None] = lambda: None
    """Somebody waits until what is in the journal now is sent."""
    before_sending: Callable[[], Awaitable[None]] = nothing_to_do
    tidy: Callable[[], Awaitable[None]] = nothing_to_do
    on_content_gone: Callable[[NodeId], None] = lambda _node: None
    """Told of a node whose content here is not, or may not be, what the server has now."""
    on_fetch_failed: Callable[[NodeId, str], None] = lambda _node, _text: None
    settings: Callable[[], Settings] = Settings
    accept_deletions_until_ns: int = 0
    seen_elsewhere: dict[NodeId, Slot] = field(default_factory=dict)
    """Where the server was last seen to have a node whose new name was not adopted here."""
    deciding: Counter[NodeId] = field(default_factory=Counter)
    """Nodes about which a decision is being carried out: how many of them."""

    def __post_init__(self) -> None:
        given = self.options.given()
        self.effective = Effective(self.store, given, lambda: self.settings(), self.now)
        self.sending = Sending(self.store, self.link, self.effective)
        self.opened = OpenNodes(self.store)
        self.refusals = Refusals(self.store, self.options.uid, self.options.gid)
        self.held = HeldContent(self.store, self.options.base_limit)
        self.opened.before_change.append(self.held.about_to_change)
        self.pages = Pages(self)

    def node(self, node_id: NodeId) -> Node | None:
        """A node with the attributes it has this moment, unsaved ones of open files included."""
        node = self.store.nodes.get_now(node_id)
        if node is not None:
            self.opened.overlay(node)
        return node

    def seen_at(self, node: NodeId) -> Slot | None:
        """The name where the server was last seen to have a node that a change here stands against.

        None where its directory is nowhere any more, or what is known has it inside of the node:
        that is another directory then.
        """
        seen = self.seen_elsewhere.get(node)
        if seen is None or self.store.server.path(seen[0]) is None:
            return None
        return None if node in self.store.server.above(seen[0]) else seen

    @property
    def deletions_accepted(self) -> bool:
        """Whether the user has just said that mass deletion on the server is meant."""
        return self.now() < self.accept_deletions_until_ns

    def local_owner(self, entry: Entry) -> tuple[int, int]:
        """The uid and gid to show: what the account owns on the server is the user's here."""
        connected = self.link.connected
        if connected is None or connected.own_uid is None or connected.own_uid != entry.uid:
            return entry.uid, entry.gid
        gid = self.options.gid if connected.own_gid == entry.gid else entry.gid
        return self.options.uid, gid

    def tell(self, kind: EventKind, text: str, node: NodeId | None = None, **facts: Fact) -> None:
        """Have programs that follow the volume's events know of something."""
        path = None if node is None else self.store.nodes.path(node)
        self.events.tell(kind, self.now(), text, path, **facts)

    @property
    def cache_limit(self) -> int | None:
        """Bytes of content that may be here, or None."""
        limit: int | None = self.effective.value("cache-size")
        return limit

    def fresh_s(self, node: NodeId) -> float:
        """Seconds that an observation of a node counts."""
        return float(self.effective.of(node, "fresh"))

    def is_fresh(self, seen_ns: int | None, node: NodeId) -> bool:
        """Whether an observation of a node made at ``seen_ns`` stands without asking."""
        if seen_ns is None:
            return False
        age = self.now() - seen_ns
        return 0 <= age <= self.fresh_s(node) * SECOND_NS

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside the requests; it is cancelled when the volume stops."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

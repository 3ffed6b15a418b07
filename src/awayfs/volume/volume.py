"""The live volume: its parts put together, and its tasks.

``tree``, ``files`` and ``changes`` answer the mount; ``observer``, ``fetcher``, ``hoard`` and
``replay`` talk to the server through ``link``. What only the mount layer needs beside them is
here: durability, pins by node, and what is to be done when the kernel lets go of something.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import RemoteError, UsageError
from awayfs.core.modes import Mode, ModeState, asks_server
from awayfs.core.setting_table import TABLE, contradiction
from awayfs.core.types import ROOT, NodeId, Space
from awayfs.store.conflicts import Conflict
from awayfs.store.files import unlink_all
from awayfs.store.nodes import Node
from awayfs.volume import mode_history
from awayfs.volume.admission import Admission
from awayfs.volume.adopt import Adopter
from awayfs.volume.announcing import Announcer
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.culling import Culling
from awayfs.volume.deciding import Deciding
from awayfs.volume.fault import fault
from awayfs.volume.fetch import Fetcher
from awayfs.volume.files import Files
from awayfs.volume.fullness import Fullness
from awayfs.volume.hoard import Hoard
from awayfs.volume.hoarding import Hoarding
from awayfs.volume.journaling import Journaling
from awayfs.volume.learning import Learning
from awayfs.volume.losing import Losing
from awayfs.volume.merging import Merging
from awayfs.volume.observe import Observer
from awayfs.volume.opened import OpenNode
from awayfs.volume.parking import Parking
from awayfs.volume.replay import Replay
from awayfs.volume.replay_act import Actor
from awayfs.volume.replay_commit import Committer
from awayfs.volume.replay_facts import FactFinder
from awayfs.volume.resolve import Resolver
from awayfs.volume.resolve_moved import MovedNodes
from awayfs.volume.rest import Rest
from awayfs.volume.revive import Reviver
from awayfs.volume.room import Room
from awayfs.volume.share_rules import ShareRules
from awayfs.volume.shown import Shown
from awayfs.volume.states import States
from awayfs.volume.sweep import Sweep
from awayfs.volume.together import Together
from awayfs.volume.tree import Tree
from awayfs.volume.undo import Undo
from awayfs.volume.virtual import VirtualTree

log = logging.getLogger(__name__)

COMMIT_S = 5.0
CHECKPOINT_BYTES = 16 << 20
SENT_S = 30.0
WORKERS_END_S = 0.5
ASKED_FIRST_S = 0.02
"""The server is asked before there is anything else to do for its answer: many slices of other work
would come between the steps to that."""


class Volume:
    """One mounted share. ``client`` is this state directory's part of operation ids."""

    def __init__(
        self, context: Context, client: str, status: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        self.context = context
        self.store = context.store
        self.link = context.link
        self._unsafe = False
        self._make_serving(client, status or dict)
        self._make_sending(client)
        self._make_deciding(client)
        self._connect(client)

    def _make_serving(self, client: str, status: Callable[[], dict[str, Any]]) -> None:
        """What answers the mount, and fills the cache."""
        context = self.context
        self.journaling = Journaling(context)
        self.changes = Changes(context, self.journaling)
        self.observer = Observer(context, client)
        self.culling = Culling(context)
        self.room = room = Room(context, self.culling)
        self.fetcher = Fetcher(context, self.observer, room)
        self.tree = Tree(context, self.observer, self.changes)
        self.sweep = Sweep(context, self.observer, self.tree.ahead)
        self.rest = Rest(context, self.fetcher)
        context.pages.on_begin.append(self.rest.give_way)
        self.files = Files(context, self.journaling, self.fetcher, room, self.rest)
        self.hoard = Hoard(context, self.observer, self.fetcher, self.tree)
        self.hoarding = Hoarding(context, self.hoard)
        self.learning = Learning(context, self.hoard)
        self.states = States(context)
        self._announcer = Announcer(context, self.hoard)
        self._fullness = Fullness(context, room, self.culling)
        self.virtual = VirtualTree(context, status, self.observer.directory)
        self.shown = Shown(context, self.virtual.conflicts)

    def _make_sending(self, client: str) -> None:
        """What brings the journal to the server."""
        context = self.context
        finder = FactFinder(context, self.observer, self.fetcher)
        together, moved = Together(context.store), MovedNodes(context, self.observer)
        actor = Actor(context, self.fetcher, finder, client, together)
        self.replay = Replay(
            context,
            finder,
            actor,
            Committer(context, self.observer, self.changes, actor.freezer, together),
            Parking(context, finder, self.virtual.server_variants, moved),
            Reviver(context, self.observer, client),
        )

    def _make_deciding(self, client: str) -> None:
        """What solves conflicts, by a person's word or by rule."""
        context = self.context
        self.resolver = Resolver(
            context, self.observer, self.journaling, self.changes, self.fetcher, client
        )
        self.losing = Losing(context)
        self.deciding = Deciding(
            context,
            self.resolver,
            self.losing,
            self.virtual.conflict_path,
            self.virtual.base_path,
            self.virtual.server_variants.complete,
            self._met_again,
        )
        self.undo = Undo(
            context, self.journaling, self.changes, self.fetcher, self.losing, self.deciding
        )
        self.share_rules = ShareRules(context, self.tree, self.fetcher)
        self.merging = Merging(
            context,
            self.share_rules,
            self.deciding,
            self.losing,
            self.virtual.conflict_path,
            self.virtual.base_path,
            self.resolver.content.witness,
        )

    def _connect(self, client: str) -> None:
        """Who is told of what."""
        context = self.context
        self.store.conflicts.on_change.append(lambda _: self.merging.wake())
        self._adopter = Adopter(context)
        self._admission = Admission(context, self.observer, client)
        self.link.admit = self._admission.admit
        self.link.witnesses = self._admission.witnesses
        self.link.on_attempt.append(lambda: context.spawn(self._prepare()))
        self.link.on_change = self._mode_changed
        self.link.on_history = lambda: mode_history.keep(self.store.facts, self.link)
        context.on_journal = self._journaled
        setting = context.effective.value
        self.link.weak_when(lambda: float(setting("weak-latency")), lambda: setting("weak-rate"))
        context.want_sent = self.replay.ageing.want_all
        context.before_sending = self._admission.count
        context.sending.on_more = self.replay.wake
        context.tidy = self.replay.tidy
        self._deleting: set[asyncio.Future[None]] = set()

    # -- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the tasks: reconnecting, replay, the timed commit."""
        self.context.spawn(self.link.keep_trying())
        self.context.spawn(self.replay.run())
        self.context.spawn(self.context.sending.keep_time())
        self.store.files.unlink_all = self._delete_beside
        self.context.spawn(self._commit_now_and_then())
        self.context.spawn(self.merging.run())
        self.context.spawn(self.sweep.run())
        self.context.spawn(self.share_rules.run())
        self.context.spawn(self.culling.run())
        self.context.spawn(self.hoarding.run())
        self.context.spawn(self.learning.run())
        self.replay.wake()
        self.merging.wake()
        self._cull_history()

    def _cull_history(self) -> None:
        try:
            self.losing.cull()
        except OSError as error:
            log.warning("the history is not culled: %s", error)

    async def stop(self) -> None:
        """End the tasks and save what is open; the store is the caller's to close."""
        tasks = list(self.context.tasks)
        for task in tasks:
            task.cancel()
        if tasks:  # a cancelled upload waits for its worker, which may never answer
            await asyncio.wait(tasks, timeout=WORKERS_END_S)
        await self.link.remote.close()
        while left := set(self.context.tasks):
            await asyncio.wait(left, timeout=WORKERS_END_S)
            for task in left:
                task.cancel()  # again: wait_for of 3.11 may swallow a cancellation
        await asyncio.gather(*tasks, return_exceptions=True)
        self.store.insist(self.context.opened.save_all)
        self.context.opened.close_all()
        self.store.files.unlink_all = unlink_all
        if self._deleting:  # the next daemon may give such a name out again
            await asyncio.wait(self._deleting)
        self.shown.end()

    def _delete_beside(self, paths: list[str]) -> None:
        work = asyncio.get_running_loop().run_in_executor(None, unlink_all, paths)
        self._deleting.add(work)
        work.add_done_callback(self._deleting.discard)

    def accept_server(self) -> None:
        """Who answers next is our server, whatever it was known by."""
        self._admission.accept_server()

    def _mode_changed(self, old: ModeState, new: ModeState) -> None:
        self._announcer.mode_changed(old, new)
        was, now = asks_server(old.mode), asks_server(new.mode)
        if was != now:
            if now:
                self._outdate_all()
            self.context.kernel.forget_all()
        self.replay.wake()  # without the server it tells those who wait for it
        if now:
            self.context.spawn(self.virtual.server_variants.complete_all())
            self.rest.begin_all()
            self.hoarding.begin()
            self.merging.wake_all()
            if was != now:
                self.sweep.wake()
            if self.store.server.listed_ns(ROOT) is None:
                # whoever is cut off before looking around can at least create something
                self.context.spawn(self.observer.learn_root())
        if new.mode is Mode.REINTEGRATING and not self.store.journal.count():
            self.link.drained()

    async def _prepare(self) -> None:
        """What fails here, on a full disk, say, is done by the replay, which tells of it."""
        await asyncio.sleep(ASKED_FIRST_S)
        with suppress(OSError):
            await self.replay.prepare()

    def _outdate_all(self) -> None:
        """A full disk is no reason to stay away: what was seen is then believed a moment longer."""
        try:
            self.store.server.stale_all()
        except OSError as error:
            log.warning("what was seen before is not marked as outdated: %s", error)

    def _journaled(self) -> None:
        """A record is new. Without the server nobody is woken: the way back does that."""
        self._unsafe = True
        if self.link.usable:
            self.replay.wake()

    # -- durability -----------------------------------------------------------------------

    async def durable(self, node: NodeId | None) -> None:
        """Have one node (or with None everything) and the journal on the disk."""
        opened = self.context.opened.all() if node is None else [self.context.opened.get(node)]
        self.store.insist(lambda: self._save(opened))
        work = self.store.begin_sync(None if node is None else [node])
        await asyncio.get_running_loop().run_in_executor(None, work.run)
        fault("sync.written")
        self.store.insist(lambda: self.store.finish_sync(work))

    def _save(self, opened: Iterable[OpenNode | None]) -> None:
        """Size and times as they are now, those of files that were just closed included."""
        with self.store.transaction():
            for one in opened:
                if one is not None:
                    self.context.opened.save(one)
                    one.unsynced = False

    async def _commit_now_and_then(self) -> None:
        """What nobody asked to be durable is so within five seconds all the same."""
        while True:
            await asyncio.sleep(COMMIT_S)
            try:
                await self._fullness.look()
                if self._unsafe or self.store.content.unsynced_nodes():
                    self._unsafe = False
                    await self.durable(None)
                full = self.store.reserve.given_up and not self.store.reserve.make()
                if full or self.store.wal_bytes() > CHECKPOINT_BYTES:
                    await asyncio.get_running_loop().run_in_executor(None, self.store.checkpoint)
            except OSError as error:
                self._unsafe = True
                log.error("the timed commit failed: %s", error)

    async def sent(self, node: NodeId) -> None:
        """Wait until a node's changes are on the server; at once when it is away.

        And where nothing goes but by command: then that is the one who says when.
        """
        sending = self.context.sending
        if not self.link.usable or not self.store.journal.has_any(node):
            return
        if not sending.goes_by_itself:
            return
        sending.ask_for_node(node)
        with self.replay.urgently(node):
            try:
                await asyncio.wait_for(self.replay.wait_for_node(node), SENT_S)
            except TimeoutError:
                pass

    async def all_sent(self) -> None:
        """Wait until every change made so far is on the server; else as ``sent``."""
        if not self.link.usable or not self.store.journal.count():
            return
        if not self.context.sending.goes_by_itself:
            return
        self.replay.hurry()
        try:
            await asyncio.wait_for(self.replay.wait_for_all(), SENT_S)
        except TimeoutError:
            pass

    # -- what the mount layer tells -------------------------------------------------------

    def closed(self, node: NodeId, opened: OpenNode) -> None:
        """The last descriptor of a file is closed: there is no other time for any of this."""
        try:
            if opened.outdated:
                self._drop_outdated(node)
        finally:
            self.fetcher.closed(node)
            try:
                self.culling.closed(node)
            finally:
                self.written(node)
                self.changes.discard_if_unused(node)

    def _drop_outdated(self, node: NodeId) -> None:
        """Should that fail, the token tells still whose content it is not (``Suspects``)."""
        base = self.store.server.get(node)
        if base is not None and not self.store.journal.has_store(node):
            self._adopter.drop_content(node, base.size, base.token)

    def written(self, node: NodeId) -> None:
        """The last writer of a file closed it: its store may go out."""
        if self.link.usable and self.store.journal.has_any(node):
            self.replay.wake()

    def unlinked(self, node: NodeId) -> None:
        """A name of the node went; other names now show another link count."""
        if self.store.nodes.names(node):
            self.context.kernel.forget_node(node)

    def forgotten(self, node: NodeId) -> None:
        """The kernel let go of a node."""
        self.changes.discard_if_unused(node)

    def note_failure(self, node: NodeId, name: bytes, error: OSError) -> None:
        """Remember why an operation failed, for ``awayfs why``."""
        child = self.store.nodes.child_id(node, name) if name else node
        text = error.strerror or str(error)
        self.context.failures.note(child or node, error.errno or 0, text, self.context.now())
        self.learning.missed(child or node, error.errno or 0)

    def check_allowed(self, node: NodeId, access: int) -> None:
        """EACCES or EDISCONPERM where the server does not allow READ or WRITE, as far as known."""
        self.context.refusals.check(node, access, connected=self.link.usable)

    def check_writable(self) -> None:
        """EROFS on a read-only mount."""
        if self.context.options.read_only:
            raise OSError(errno.EROFS, "mounted read-only")

    @property
    def writes_through(self) -> bool:
        """Whether every write waits for the server."""
        return self.context.options.writes == "through"

    @property
    def writes_on_close(self) -> bool:
        """Whether close and fsync wait for the server."""
        return self.context.options.writes in ("close", "through")

    async def space(self) -> Space:
        """What can be written: what server and cache take; while it is away, the cache."""
        server = await self.tree.space()
        return self.room.space(server if self.link.usable else None)

    # -- what commands ask for ------------------------------------------------------------

    async def find(self, path: bytes) -> Node:
        """The node at a path of the volume, looked up on the server where it must be."""
        node = self.context.node(ROOT)
        for part in path.split(b"/"):
            if part and node is not None:
                found = self.tree.lookup(node.id, part)
                node = found if isinstance(found, Node) else await found
        if node is None:
            raise OSError(errno.ENOENT, "no such file or directory")
        return node

    def pin_node(self, node: NodeId, priority: int = 0) -> None:
        """Pin one node, with all below it; what is missing is fetched in the background."""
        self.store.pins.add(node, priority, True)
        self.hoarding.look_at(node)

    def unpin_node(self, node: NodeId) -> bool:
        """Unpin; False when it was not pinned itself."""
        if self.store.pins.get(node) is None:
            return False
        self.store.pins.remove(node)
        self.culling.kept_no_more()
        return True

    def set_for_node(self, node: NodeId, name: str, text: str | None) -> None:
        """Set one setting for a node with all below it, or with None end that.

        EINVAL for a value that it cannot have, or that contradicts what is set there already.
        """
        settings = self.store.node_settings
        if text is not None:
            try:
                values = {k: TABLE[k].read(v) for k, v in {**settings.of(node), name: text}.items()}
            except ValueError as error:
                raise OSError(errno.EINVAL, f"{name} is {error}") from None
            pin = self.store.pins.get(node)
            wrong = contradiction({**values, **({} if pin is None else {"pin": pin.priority})})
            if wrong is not None:
                raise OSError(errno.EINVAL, wrong)
        settings.set(node, name, text)

    async def resolve(self, conflict: Conflict, keep: Resolution) -> str | None:
        """Decide a conflict; the name of a conflict copy if one was made."""
        return (await self.deciding.keep(conflict.id, str(keep))).copy

    async def retry_refused(self, among: frozenset[int] | None = None) -> None:
        """Let what the server refused go out again: it may have been granted since.

        All of it, or only where one of these records is concerned.
        """
        journal = self.store.journal
        refused = [p for p in self.store.conflicts.places() if p.kind == ConflictKind.REFUSED]
        if among is not None:
            refused = [p for p in refused if among.intersection(journal.seqs_of(p.node))]
        for place in refused:
            self._announcer.trying_again(place.node)
            try:
                await self.deciding.keep(place.id, Resolution.LOCAL)
                self.context.sending.ask_for_node(place.node)
            except (RemoteError, UsageError) as error:
                log.info("%s stays refused: %s", self.hoard.path(place.node), error)
        if refused:
            self.context.spawn(self._tell_tried([place.node for place in refused]))

    async def _tell_tried(self, nodes: list[NodeId]) -> None:
        for node in nodes:
            try:
                await asyncio.wait_for(self.replay.wait_for_node(node), SENT_S)
            except TimeoutError:
                pass  # what becomes of it later is told as if it were new
            self._announcer.tried_again(node)

    async def _met_again(self, node: NodeId) -> None:
        """Replay has met the server with what is to be sent of a node, as both are now."""
        self.context.sending.ask_for_node(node)
        try:
            await asyncio.wait_for(self.replay.wait_for_node(node), SENT_S)
        except TimeoutError:
            log.warning("what is to be sent of node %d has not met the server yet", node)

    @property
    def mode(self) -> Mode:
        """The mode of this moment; connected with work on the way is write-behind's drain."""
        return self.link.state.mode

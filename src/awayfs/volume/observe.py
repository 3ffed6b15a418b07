"""Seeing what stands on the server.

An observation is taken with one call, compared with the last one by the pure ``diff_listing``
and adopted in one transaction (``adopt``). While the call was under way replay may have
committed something in the same directory; such an answer is older than what we know and is
thrown away (``committed`` counts). Absence is believed only from a complete listing of a
directory that is itself there.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Sequence
from functools import partial
from itertools import chain

from msgspec.structs import replace

from awayfs.core.diff import (
    Change,
    Created,
    Joined,
    MovedIn,
    Removed,
    Replaced,
    compare_entries,
)
from awayfs.core.errors import Implausible, NotFound, Refused, RemoteError, WrongServer
from awayfs.core.safety import root_replaced
from awayfs.core.types import ROOT, Entry, NodeId
from awayfs.ports.remote import Listing
from awayfs.store.server import Seen
from awayfs.volume.adopt import Adopter
from awayfs.volume.brakes import Brakes
from awayfs.volume.compared import Compared
from awayfs.volume.context import Context
from awayfs.volume.fingerprints import Fingerprints
from awayfs.volume.proofs import Proofs
from awayfs.volume.returning import Returning
from awayfs.volume.searching import Searching, join
from awayfs.volume.slices import Slices
from awayfs.volume.strays import Strays
from awayfs.volume.suspects import Suspects

log = logging.getLogger(__name__)

TRIES = 3
END = object()


class Observer:
    """Looks at the server and adopts what it sees into the store."""

    def __init__(self, context: Context, client: str) -> None:
        self._context = context
        self._store = context.store
        self._strays = Strays(context, client)
        self._adopter = Adopter(context)
        self._returning = Returning(context)
        self._brakes = Brakes(context)
        self._compared = Compared(context.store)
        self._fingerprints = Fingerprints(context, self._adopter)
        suspects = Suspects(context, self._adopter, self.adopt_entry)
        self.is_suspect = suspects.is_suspect
        self.verify = suspects.verify
        self.drop_content = suspects.drop
        searching = self._searching = Searching(context, self.directory, self._quietly)
        self.place, self.places = searching.place, searching.places
        self.is_another = searching.is_another
        self._listings: dict[NodeId, asyncio.Task[None]] = {}
        self._proofs = Proofs(self.directory)
        self._commits: dict[NodeId, int] = {}

    def committed(self, *directories: NodeId) -> None:
        """Replay changed something in these directories: answers under way are outdated."""
        for directory in directories:
            self._commits[directory] = self._commits.get(directory, 0) + 1

    async def directory(self, node: NodeId, *, anew: bool = False) -> None:
        """List a directory and adopt the difference; raises ``RemoteError``.

        Several who ask at once share one listing; one that has ended is nobody's any more, though
        the loop has not told us of its end yet. ``anew``: nor is one that is under way, as the
        server may have read the directory before the caller asked.
        """
        task = self._listings.get(node)
        if anew and task is not None:
            await asyncio.wait([task])
            task = self._listings.get(node)
        if task is None or task.done():
            task = self._listings[node] = self._context.spawn(self._directory(node))
            task.add_done_callback(lambda ended: self._listing_ended(node, ended))
        await asyncio.shield(task)

    def under_way(self) -> frozenset[NodeId]:
        """The directories that are being listed: what the server will have said may be old."""
        return frozenset(self._listings)

    def _listing_ended(self, node: NodeId, task: asyncio.Task[None]) -> None:
        if self._listings.get(node) is task:
            del self._listings[node]
        _retrieve(task)

    async def name(self, parent: NodeId, name: bytes) -> None:
        """Look at one name of a directory and adopt what is there; raises ``RemoteError``."""
        directory = self._store.server.path(parent)
        if directory is None:
            return
        commits, path = self._commits.get(parent, 0), join(directory, name)
        try:
            entry = await self._context.link.call(lambda remote: remote.stat(path))
        except NotFound:
            if self._store.server.child(parent, name) is not None:
                await self.directory(parent)
            return
        for alone in (False, True):
            if self._commits.get(parent, 0) != commits or not self._is_still_at(parent, directory):
                return
            changes = self._compared.name(parent, name, entry)
            if alone or not _takes_away(changes):
                self._brakes.check(parent, changes)
                self._adopter.adopt(parent, changes)
                break
            if await self._has_listed(parent):
                break
        seen = self._store.server.child(parent, name)
        if seen is not None:
            self._context.refusals.note_access(seen, entry)

    async def _has_listed(self, directory: NodeId) -> bool:
        """Another thing has a name: what became of the one that had it, a look at that name alone
        does not tell. It may be beside it, or too much may be gone with it. False where nobody may
        list the directory: then there is no more to go by.
        """
        try:
            await self.directory(directory, anew=True)
        except Refused:
            return False
        return True

    async def node(self, node: NodeId) -> None:
        """Look at a node under one of its names on the server; raises ``RemoteError``."""
        if node == ROOT:
            entry = await self._context.link.call(lambda remote: remote.stat(b""))
            self.adopt_root(entry)
            return
        names = self._store.server.names(node)
        if names:
            await self.name(*names[0])

    async def listed(self, node: NodeId) -> list[Entry]:
        """A directory's entries without adopting them; raises ``RemoteError``."""
        path = self._store.server.path(node)
        if path is None:
            raise NotFound("not on the server")
        return await self.entries(path)

    async def entries(self, path: bytes) -> list[Entry]:
        """What a directory of the server holds; strays of ours are reaped on the way."""
        return await self._strays.listed(path)

    async def search(self, node: NodeId) -> None:
        """Look for a node that is not where it was; raises ``RemoteError``."""
        await self._searching.search(node)

    async def find_names(self, node: NodeId, count: int) -> int:
        """Look for names of a hard-linked file that are not known; how many are known then.

        Raises ``RemoteError``.
        """
        return await self._searching.find_names(node, count)

    def adopt_root(self, entry: Entry, *, replaced: bool = False) -> None:
        """Adopt the root's own attributes; raises ``WrongServer`` when it is another root.

        ``replaced``: it is known to be another, and to be meant.
        """
        known = self._store.server.get(ROOT)
        if not replaced and known is not None and root_replaced(known.file_id, entry.file_id):
            raise WrongServer("the root on the server is another directory than before")
        self._adopter.adopt_root(entry)

    def adopt_entry(self, node: NodeId, entry: Entry) -> None:
        """Adopt a new revision of one node, as seen by an operation on it.

        Without ids it may be of one of its names alone (``core.diff``).
        """
        base, names = self._store.server.get(node), self._store.server.names(node)
        if entry.file_id is None and len(names) > 1:
            parent, name = names[0]
            seen = replace(entry, name=name)
            self._adopter.adopt(parent, self._compared.name(parent, name, seen))
        elif base is not None:
            content = compare_entries(base.entry(entry.name), entry)
            self._adopter.adopt_revision(node, entry, content)

    def look_again(self, node: NodeId) -> None:
        """Something about a node was not as expected: list its directory soon."""
        for parent, _name in self._store.server.names(node)[:1]:
            self.list_soon(parent)

    def list_soon(self, directory: NodeId) -> None:
        """List a directory in the background; that it fails is no news to anybody."""
        self._context.spawn(self._quietly(directory))

    async def learn_root(self) -> None:
        """List the root without anybody having asked: good for being offline, not as fresh."""
        await self._quietly(ROOT)
        if self._store.server.listed_ns(ROOT) is not None:
            self._store.server.set_listed(ROOT, 0)

    async def _quietly(self, directory: NodeId) -> None:
        try:
            await self.directory(directory)
        except (RemoteError, OSError) as error:
            log.debug("directory %d could not be listed: %s", directory, error)

    async def _directory(self, node: NodeId) -> None:
        for _ in range(TRIES):
            path = self._store.server.path(node)
            if path is None:
                return
            commits, epoch = self._commits.get(node, 0), self._store.server.epoch
            with self._store.server.noting() as noted:
                found = await self._list(node, path)
                if found is None:
                    return
                if self._commits.get(node, 0) != commits or not self._is_still_at(node, path):
                    continue
                if found.entries is not None:
                    try:
                        await self._adopt_listing(node, found.entries, noted, found)
                    except NotFound:
                        await self._list_parent(node)
                    return
                if self._fingerprints.found_again(node, found.fingerprint, epoch):
                    return

    async def _list(self, node: NodeId, path: bytes) -> Listing | None:
        """The listing; None when the directory is gone, which its own parent then proves."""
        known = self._store.server.fingerprint(node) or b""
        try:
            return await self._strays.listed_unless(path, known)
        except NotFound:
            await self._list_parent(node)
            return None
        except Refused as error:
            if error.errno != errno.ENOTDIR:
                raise
            await self._list_parent(node)
            return None

    async def _list_parent(self, node: NodeId) -> None:
        names = self._store.server.names(node)
        if not names:
            raise Implausible("the root is no directory on the server") from None
        await self._proofs.ask(node, names[0][0])

    async def _adopt_listing(
        self,
        node: NodeId,
        listed: list[Entry],
        noted: set[Seen],
        found: Listing | None = None,
        known: int = 0,
    ) -> None:
        """A large directory in slices; ``noted`` gets what others see or change meanwhile.

        That is newer than the listing, and so it is left alone. ``found``: with the fingerprints
        of the listing. ``known``: how many nodes there were before anybody looked around for
        what is missing. Raises ``NotFound`` where it is another directory's.
        """
        server, slices, listed_ns = self._store.server, Slices(), self._context.now()
        epoch = server.epoch
        changes = await self._compared.listing(node, listed, slices)
        if node in self._context.seen_elsewhere or _takes_away(changes):
            await self._check_place(node)
        missing = [] if known or not listed else self._brakes.missing(changes)
        if missing:
            known = self._store.nodes.count()
            # What is new in this one is adopted first: that is where it may have gone.
            self._adopter.adopt(node, [c for c in changes if isinstance(c, Created)])
            await self._searching.around(node, missing, partial(self._list_apart, known=known))
            noted.clear()
            listed, listed_ns = await self.listed(node), self._context.now()
            found = None
            changes = await self._compared.listing(node, listed, slices)
        self._brakes.check(node, changes, known, listed)
        came = self._come_from(changes)
        newer: set[Seen] = set()
        unchanged: list[NodeId] = []
        left: set[NodeId] = set()
        steps = Adopter(self._context, newer, unchanged).steps(node, changes)
        steps, ended = chain(steps, self._returning.as_there(node, left)), False
        while not ended and epoch == server.epoch and self._is_there(node):
            newer |= noted
            with self._store.transaction():
                ended = next(steps, END) is END
                while not ended and not slices.over:
                    ended = next(steps, END) is END
                if ended:
                    server.set_listed(node, listed_ns)
                    self._brakes.believed(node)
            noted.clear()  # that was ourselves
            await slices.pause()
        fingerprint = None
        if left or any(isinstance(change, Joined) for change in changes):
            found = None  # it may have been left for later, though all is as listed
        if ended and found is not None:
            fingerprint = await self._fingerprints.of_known(node, listed, found, noted, slices)
        if fingerprint and server.listed_ns(node) == listed_ns:
            server.set_listed(node, listed_ns, fingerprint)
        elif epoch == server.epoch:
            quiet = [seen for seen in unchanged if seen not in noted]
            await self._fingerprints.note_each(quiet, listed_ns, slices)
        self._list_left(node, came)

    async def _check_place(self, directory: NodeId) -> None:
        """Raise ``NotFound`` where another one has the place that a directory is known to have."""
        base, path = self._store.server.get(directory), self._store.server.path(directory)
        if directory == ROOT or base is None or base.file_id is None or path is None:
            return
        entry = await self._context.link.call(lambda remote: remote.stat(path))
        if entry.file_id not in (None, base.file_id):
            raise NotFound("another directory has its place")

    def _is_there(self, directory: NodeId) -> bool:
        """A removal that was sent meanwhile leaves nothing to adopt, and no listing to note."""
        return directory == ROOT or self._store.server.get(directory) is not None

    def _come_from(self, changes: Sequence[Change]) -> list[tuple[NodeId, NodeId, bytes]]:
        """What was found to have come from another directory, and under which name it was there."""
        names = self._store.server.names
        came = [c.node for c in changes if isinstance(c, MovedIn)]
        return [(node, *place) for node in came for place in names(node)[:1]]

    def _list_left(self, directory: NodeId, came: Sequence[tuple[NodeId, NodeId, bytes]]) -> None:
        """List the directories again that something left: another may have its name there by now,
        and was taken for a new content of it.

        What did not leave, since a change here stands against it, is found to have come at each
        listing: two directories that it is so with would be listed for ever, in turns.
        """
        server = self._store.server
        left = {parent for node, parent, name in came if server.child(parent, name) != node}
        for parent in left - {directory}:
            if server.listed_ns(parent) is not None:
                server.set_listed(parent, 0)
                self.list_soon(parent)

    async def _list_apart(self, directory: NodeId, *, known: int) -> None:
        """List a directory in the course of listing another, whose proof it must not ask for."""
        commits, path = self._commits.get(directory, 0), self._store.server.path(directory)
        with self._store.server.noting() as noted:
            try:
                listed = await self.listed(directory)
                stayed = path is not None and self._is_still_at(directory, path)
                if self._commits.get(directory, 0) == commits and stayed:
                    await self._adopt_listing(directory, listed, noted, known=known)
            except (NotFound, Refused):
                return

    def _is_still_at(self, directory: NodeId, path: bytes) -> bool:
        """Whether what was just seen at a path was this directory's.

        We may have moved it meanwhile, and another may have its place; or one that takes its place
        has gone out, and nobody knows yet whether it arrived.
        """
        if self._store.server.path(directory) != path:
            return False
        out, above = self._store.journal.out_over, directory
        while out and above != ROOT:
            if above in out:
                return False
            above = self._store.server.names(above)[0][0]
        return True


def _takes_away(changes: Sequence[Change]) -> bool:
    return any(isinstance(change, Removed | Replaced) for change in changes)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Whoever waited has seen the error; nobody having waited is no reason for a warning."""
    if not task.cancelled():
        task.exception()

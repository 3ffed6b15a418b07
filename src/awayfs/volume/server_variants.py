"""The server's variant of a conflict: where it stands, and fetching it.

It is fetched when the conflict is found. Where that did not work (the link dropped, or it is
large), it is fetched when the link is back, or when somebody reads it. If the server has moved
on by then, its variant is what it has then.
"""

from __future__ import annotations

import asyncio
import logging
import os

from awayfs.core.errors import RemoteError, Unreachable
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.ports.remote import Fetched
from awayfs.store.conflicts import Conflict
from awayfs.store.files import unlink_quietly
from awayfs.store.store import Store
from awayfs.volume.context import Context

log = logging.getLogger(__name__)

VARIANT_LIMIT = 256 << 20
"""Larger variants are not fetched before somebody reads them."""
CHUNK = 8 << 20


def place_of(store: Store, conflict: Conflict) -> tuple[NodeId, bytes] | None:
    """The name under which the server has its variant; None when it is not known."""
    entry = conflict.server_entry
    names = store.server.names(conflict.node)
    for parent, name in names:
        if entry is None or not entry.name or entry.name == name:
            return parent, name
    if entry is None:
        return None
    return (conflict.parent, entry.name or conflict.name) if conflict.parent else None


class ServerVariants:
    """Fetches them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._busy: set[int] = set()

    async def fetch(self, path: bytes, entry: Entry) -> str | None:
        """The server's content in a durable staging file; None when it is too large or moved on.

        Raises ``Unreachable``.
        """
        if entry.size > VARIANT_LIMIT:
            return None
        staged = self._store.content.stage_path()
        fd = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        complete = False
        try:
            complete = await self._fill(path, entry, fd)
            return staged if complete else None
        except Unreachable:
            raise
        except RemoteError as error:
            log.info("the server's variant of %r is not kept here: %s", path, error)
            return None
        finally:
            os.close(fd)
            if not complete:
                unlink_quietly(staged)

    async def _fill(self, path: bytes, entry: Entry, fd: int) -> bool:
        offset = 0
        while offset < entry.size:
            size = min(CHUNK, entry.size - offset)
            fetched = await self._part(path, offset, size, fd)
            if fetched.entry.token != entry.token or fetched.length != size:
                return False
            offset += size
        await asyncio.get_running_loop().run_in_executor(None, os.fsync, fd)
        return True

    async def _part(self, path: bytes, offset: int, size: int, fd: int) -> Fetched:
        return await self._context.link.call(lambda r: r.fetch(path, offset, size, fd))

    async def complete_all(self) -> None:
        """Fetch what is missing of all conflicts; for when the link is back."""
        for place in self._store.conflicts.places():
            if not self._context.link.usable:
                return
            await self.complete(place.id)

    def complete_soon(self, number: int) -> None:
        """Fetch one in the background, if the server may be asked."""
        if self._context.link.usable and number not in self._busy:
            self._context.spawn(self.complete(number))

    async def complete(self, number: int) -> None:
        """Fetch what is missing of one conflict; that it fails is told when it is read."""
        conflict = self._store.conflicts.get(number)
        if conflict is None or not _is_incomplete(conflict) or number in self._busy:
            return
        self._busy.add(number)
        try:
            await self._complete(conflict)
        except (RemoteError, OSError) as error:
            log.info("the server's variant of conflict %d is not here yet: %s", number, error)
        finally:
            self._busy.discard(number)

    async def _complete(self, conflict: Conflict) -> None:
        place = place_of(self._store, conflict)
        above = self._store.server.path(place[0]) if place is not None else None
        if place is None or above is None:
            return
        path = above + b"/" + place[1] if above else place[1]
        entry = await self._context.link.call(lambda remote: remote.stat(path))
        if entry.kind is not Kind.FILE:
            return
        staged = await self.fetch(path, entry)
        try:
            if not self._is_still(conflict):
                return
            with self._store.transaction():
                self._store.conflicts.update(conflict.id, server_entry=entry)
                if staged is not None:
                    self.put(conflict.id, staged)
                    staged = None
        finally:
            if staged is not None:
                unlink_quietly(staged)

    def put(self, number: int, staged: str) -> None:
        """A fetched variant becomes the conflict's; inside the transaction that says so."""
        path = self._store.conflicts.variant_path(number, "server")
        os.rename(staged, path)
        self._store.conflicts.update(number, server_variant=path, server_complete=True)

    def _is_still(self, conflict: Conflict) -> bool:
        """Whether the conflict is there, and as it was when fetching began."""
        now = self._store.conflicts.get(conflict.id)
        return now is not None and _is_incomplete(now) and now.server_entry == conflict.server_entry


def _is_incomplete(conflict: Conflict) -> bool:
    entry = conflict.server_entry
    if entry is None or entry.kind is not Kind.FILE or not entry.size:
        return False
    return not conflict.server_complete

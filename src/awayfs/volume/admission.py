"""Who is let in: what must hold before a server that answers may be asked, or sent, anything.

Three things are looked at each time a session begins. That it is the volume we know, by its
identity and its root. That it does not stand where it stood before (a restored backup): the
things that changed last as far as we know are looked at again. And that we do not stand where
we stood before (a restored laptop): the sessions in which we sent something are counted in an
extended attribute of the root, where the server keeps those; without, this cannot be noticed
(docs/adr/0011).
"""

from __future__ import annotations

import asyncio
import logging

from awayfs.core.errors import NotFound, Refused, WrongServer
from awayfs.core.safety import WITNESSES, client_put_back, put_back
from awayfs.core.types import Committed, Entry, NodeId, RemotePath
from awayfs.ports.remote import Connected
from awayfs.volume.adopt import OWN
from awayfs.volume.context import Context
from awayfs.volume.observe import Observer

log = logging.getLogger(__name__)

ACCEPT = "if that is meant, run: awayfs online MOUNTPOINT --accept-server"
IDENTITY, KNOWN, SESSIONS, ACCEPTED = (
    "volume.identity",
    "volume.known",
    "volume.sessions",
    "volume.accepted_ns",
)


class Admission:
    """Lets the server in, or raises ``WrongServer``."""

    def __init__(self, context: Context, observer: Observer, client: str) -> None:
        self._context = context
        self._store = context.store
        self._facts = context.store.facts
        self._observer = observer
        self._attribute = OWN + client.encode()
        self._accepted = False
        self._uncounted: int | None = None

    def accept_server(self) -> None:
        """Who answers next is our server, whatever it was known by (a new host key, a restored
        share). What it has is compared with what is here like after any absence.
        """
        self._accepted = True

    def witnesses(self) -> list[RemotePath]:
        """What shows whether the server is as it was, or older."""
        since = int(self._facts.get(ACCEPTED) or 0)
        paths = map(self._store.server.path, self._store.server.youngest(WITNESSES, since))
        return [path for path in paths if path is not None]

    async def admit(self, connected: Connected) -> None:
        """Only the volume we know is let in; the first contact makes it known."""
        seen = connected.identity.hex() if connected.identity is not None else None
        known = self._facts.get(IDENTITY)
        if not self._accepted:
            if known and seen and known != seen:
                raise WrongServer(f"another volume, or another server, answers here; {ACCEPT}")
            await self._check_age(connected)
        sessions = await self._sessions(connected)
        try:
            self._observer.adopt_root(connected.root, replaced=self._accepted)
        except WrongServer as error:
            raise WrongServer(f"{error}; {ACCEPT}") from error
        if seen and (not known or self._accepted):
            self._facts.set(IDENTITY, seen)
        if self._accepted:
            self._facts.set(ACCEPTED, str(self._context.now()))
            self._store.server.forget_fingerprints()  # what is unchanged is to be seen after that
        self._accepted = False
        self._facts.set(KNOWN, "1")
        able = connected.capabilities
        self._uncounted = sessions if able.xattrs and not able.read_only else None

    async def _check_age(self, connected: Connected) -> None:
        """What was seen before somebody said that the server is meant as it is proves nothing."""
        since = int(self._facts.get(ACCEPTED) or 0)
        nodes = self._store.server.youngest(WITNESSES, since)
        seen = await asyncio.gather(*(self._look_at(node, connected) for node in nodes))
        if put_back([pair for pair in seen if pair is not None]):
            text = "the server shows an older state than before (restored from a backup?)"
            raise WrongServer(f"{text}; {ACCEPT}")

    async def _look_at(self, node: NodeId, connected: Connected) -> tuple[Entry, Entry] | None:
        """What was last seen of a node, and what stands there now, as was seen while connecting."""
        base, path = self._store.server.get(node), self._store.server.path(node)
        if base is None or path is None:
            return None
        if connected.seen is not None:
            there = connected.seen.get(path)
            return None if there is None else (base.entry(there.name), there)
        try:
            seen = await self._context.link.remote.stat(path)
        except (NotFound, Refused):
            return None
        return base.entry(seen.name), seen

    async def _sessions(self, connected: Connected) -> int:
        """How many of our sessions there were, as far as either side knows."""
        ours = int(self._facts.get(SESSIONS) or 0)
        servers = await self._noted(connected)
        if client_put_back(ours, servers) and not self._accepted:
            text = "this machine has sent changes that it knows nothing of (its state restored?)"
            raise WrongServer(f"{text}; {ACCEPT}")
        return max(ours, servers or 0)

    async def _noted(self, connected: Connected) -> int | None:
        if not connected.capabilities.xattrs:
            return None
        try:
            there = (await self._context.link.remote.xattrs(b"")).get(self._attribute, b"")
        except (NotFound, Refused):
            return None
        return int(there) if there.isdigit() else None

    async def count(self) -> None:
        """Something is about to be sent: note this session here, durably, and then there.

        Once a session, so that nothing is written to a share that is only read. Raises
        ``Unreachable``.
        """
        sessions, self._uncounted = self._uncounted, None
        if sessions is None or self._context.options.read_only:
            return
        with self._store.transaction():
            self._facts.set(SESSIONS, str(sessions + 1))
        work = self._store.begin_sync([])
        await asyncio.get_running_loop().run_in_executor(None, work.run)
        self._store.finish_sync(work)
        text, link = str(sessions + 1).encode(), self._context.link
        try:
            noted = await link.call(lambda r: r.set_xattr(b"", self._attribute, text, None))
        except (NotFound, Refused) as error:
            log.info("this session is not noted on the server: %s", error)
        else:
            if isinstance(noted, Committed) and noted.entry is not None:
                self._observer.adopt_root(noted.entry)

"""A remote whose adapter runs in a process of its own, which can be given up at any time.

The daemon's event loop never blocks on a server: it sends a request and waits, at most the
stall deadline without a sign of progress. When that passes, or the process ends, everything
under way raises ``Unreachable``, the process gets SIGKILL and is forgotten. One that is stuck
in an uninterruptible system call dies when the kernel lets it; until then it is a *leftover*,
and with too many of them ``connect`` refuses rather than pile up more.

After ``Unreachable`` from ``fetch``, a leftover may still be inside the one system call that
writes to the cache file: the range must not count as filled.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from awayfs.core.errors import AuthenticationRequired, Implausible, Unreachable
from awayfs.core.secrets import Secrets
from awayfs.core.types import (
    Attributes,
    Digest,
    Entry,
    Expected,
    Kind,
    OpId,
    Outcome,
    RemotePath,
    Space,
)
from awayfs.ports.remote import Connected, Fetched, Intent, Landed, Listing, Piece, Put
from awayfs.ports.wallet import NoWallet, Wallet
from awayfs.remotes import protocol as p
from awayfs.remotes.slots import Slots
from awayfs.remotes.spawning import COMMAND, spawn
from awayfs.remotes.worker_process import WorkerProcess

CONNECT_DEADLINE_S = 5.0
CLOSE_DEADLINE_S = 0.5
MOST_LEFTOVERS = 4

log = logging.getLogger(__name__)


class IsolatedRemote:
    """The remote for ``url`` behind a worker process. Implements ``Remote``.

    ``stall``: seconds without progress after which a call is given up; ``connect_deadline``
    the same for ``connect``, which also starts the process. ``command`` starts the worker
    (``--socket FD`` is added). Calls before ``connect`` raise ``Unreachable``. ``on_lost`` is told
    why when the connection, or the worker, ends by itself, also while nothing is asked. ``wallet``
    is asked for passwords; they go to the worker over its socket, never in arguments. ``rests``:
    the worker may stay when the server is left (``rest``).
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, str],
        stall: float = 2.0,
        connect_deadline: float = CONNECT_DEADLINE_S,
        command: Sequence[str] = COMMAND,
        rests: bool = False,
    ) -> None:
        self.command = tuple(command)
        self.on_lost: Callable[[str], None] = lambda _why: None
        self.wallet: Wallet = NoWallet()
        self._secrets = Secrets()
        self._url = url
        self._options = dict(options)
        self._stall = stall
        self._connect_deadline = connect_deadline
        self._process: WorkerProcess | None = None
        self._leftovers: list[WorkerProcess] = []
        self._connecting = asyncio.Lock()
        self._rests = rests
        self._at_rest = False
        self._limits = p.Limits(None, None)
        self._slots = Slots()

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker in use, None when there is none."""
        return self._process.pid if self._process and self._process.alive else None

    @property
    def last_sign(self) -> float:
        """When anything moved last, on the event loop's clock: an answer, a part, or progress."""
        return self._process.sign if self._process is not None else 0.0

    def limit(self, up: int | None, down: int | None) -> None:
        """Bytes of content a second at most, now and for the workers to come."""
        self._limits = p.Limits(up, down)
        if self._process is not None and self._process.alive:
            self._process.limit(self._limits)

    async def connect(self, witnesses: Sequence[RemotePath] = ()) -> Connected:
        """Start a worker if there is none that lives, and connect its adapter (again).

        With what the wallet offers, as long as it has something else after a refusal.
        """
        async with self._connecting:
            while True:
                secrets = await self.wallet.offer()
                try:
                    connected = await self._log_in(secrets, witnesses)
                except AuthenticationRequired as error:
                    if await self.wallet.refused(secrets, error):
                        continue
                    if complaint := self.wallet.complaint:
                        raise type(error)(f"{error} ({complaint})") from error
                    raise
                self.wallet.accepted()
                able = connected.capabilities
                self._slots.allow(able.in_flight, able.sending)
                return connected

    async def _log_in(self, secrets: Secrets, witnesses: Sequence[RemotePath]) -> Connected:
        """One attempt. A worker knows the secrets it was started with; for others, a new one."""
        process = self._process
        self._at_rest = False
        if process is None or not process.alive or secrets != self._secrets:
            process = await self._start(secrets)
        try:
            call = p.ConnectCall(tuple(witnesses))
            connected: Connected = await process.call(call, self._connect_deadline)
        except asyncio.CancelledError:
            self.abandon("connecting was cancelled")
            raise
        return connected

    async def close(self) -> None:
        """Say goodbye to the worker's server, briefly, and end the worker."""
        await self._leave()
        self.abandon("closed")

    async def rest(self) -> None:
        """Leave the server for a while. The worker stays, ready for the next ``connect``, where
        it may, and nothing keeps it busy."""
        if self._at_rest:
            return
        self._at_rest = True
        stays = self._rests and not self._connecting.locked() and await self._leave()
        if not stays and self._at_rest:
            self.abandon("closed")

    async def _leave(self) -> bool:
        """Whether the worker has left its server, and all that was under way ended by that."""
        process = self._process
        if process is None or not process.alive:
            return False
        try:
            await process.call(p.CloseCall(), CLOSE_DEADLINE_S)
            return await process.is_idle(CLOSE_DEADLINE_S)
        except Exception as error:
            log.debug("closing: %s", error)
            return False

    def abandon(self, why: str) -> None:
        """Kill the worker at once; what is under way raises ``Unreachable(why)``."""
        process, self._process = self._process, None
        if process is not None:
            process.end(why)
            self._leftovers.append(process)

    async def probe(self) -> None:
        """See the port."""
        await self._call(p.ProbeCall())

    async def stat(self, path: RemotePath) -> Entry:
        """See the port."""
        entry: Entry = await self._call(p.StatCall(path))
        return entry

    async def list(self, path: RemotePath) -> list[Entry]:
        """See the port."""
        entries: list[Entry] = await self._call(p.ListCall(path))
        return entries

    async def list_unless(self, path: RemotePath, fingerprint: bytes) -> Listing:
        """See the port."""
        listing: Listing = await self._call(p.ListUnlessCall(path, fingerprint))
        return listing

    async def fetch(self, path: RemotePath, offset: int, length: int, fd: int) -> Fetched:
        """See the port; the worker itself writes to ``fd``. ``OSError`` when that fails."""
        fetched: Fetched = await self._call(p.FetchCall(path, offset, length), fd)
        return fetched

    async def fetch_many(self, pieces: Sequence[Piece], fd: int) -> Sequence[Landed | None]:
        """See the port; the worker itself writes to ``fd``. ``OSError`` when that fails."""
        landed: Sequence[Landed | None] = await self._call(p.FetchManyCall(list(pieces)), fd)
        return landed

    async def digest(self, path: RemotePath) -> Digest:
        """See the port."""
        digest: Digest = await self._call(p.DigestCall(path))
        return digest

    async def stage(
        self,
        op: OpId,
        directory: RemotePath,
        fd: int,
        size: int,
        attributes: Attributes,
        start: int = 0,
        token: bytes = b"",
    ) -> Entry:
        """See the port; the worker itself reads ``fd``. ``OSError`` when that fails."""
        call = p.StageCall(op, directory, size, attributes, start, token)
        entry: Entry = await self._call(call, fd)
        return entry

    async def stage_part(
        self, op: OpId, directory: RemotePath, fd: int, start: int, end: int, token: bytes = b""
    ) -> Entry | None:
        """See the port; the worker itself reads ``fd``. ``OSError`` when that fails."""
        call = p.StagePartCall(op, directory, start, end, token)
        entry: Entry | None = await self._call(call, fd)
        return entry

    async def replace(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """See the port."""
        return await self._mutate(p.ReplaceCall(op, path, expected))

    async def put(
        self,
        op: OpId,
        path: RemotePath,
        content: bytes,
        attributes: Attributes,
        expected: Expected,
    ) -> Outcome:
        """See the port."""
        return await self._mutate(p.PutCall(op, path, content, attributes, expected))

    async def put_many(self, puts: Sequence[Put]) -> Sequence[Outcome | Exception]:
        """See the port."""
        tried: Sequence[p.Tried] = await self._call(p.PutManyCall(tuple(puts)))
        if len(tried) != len(puts):
            raise Implausible(f"{len(tried)} answers to {len(puts)} uploads")
        return [one.outcome() for one in tried]

    async def discard_staged(self, op: OpId, directory: RemotePath) -> None:
        """See the port."""
        await self._call(p.DiscardCall(op, directory))

    async def make(
        self,
        op: OpId,
        path: RemotePath,
        kind: Kind,
        attributes: Attributes,
        target: bytes = b"",
        rdev: int = 0,
    ) -> Outcome:
        """See the port."""
        return await self._mutate(p.MakeCall(op, path, kind, attributes, target, rdev))

    async def link(self, op: OpId, source: RemotePath, path: RemotePath) -> Outcome:
        """See the port."""
        return await self._mutate(p.LinkCall(op, source, path))

    async def remove(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """See the port."""
        return await self._mutate(p.RemoveCall(op, path, expected))

    async def rename(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        source_expected: Expected,
        path_expected: Expected,
    ) -> Outcome:
        """See the port."""
        call = p.RenameCall(op, source, path, source_expected, path_expected)
        return await self._mutate(call)

    async def exchange(
        self,
        op: OpId,
        a: RemotePath,
        b: RemotePath,
        a_expected: Expected,
        b_expected: Expected,
    ) -> Outcome:
        """See the port."""
        return await self._mutate(p.ExchangeCall(op, a, b, a_expected, b_expected))

    async def set_attributes(
        self, path: RemotePath, attributes: Attributes, expected: Expected
    ) -> Outcome:
        """See the port."""
        return await self._mutate(p.SetAttributesCall(path, attributes, expected))

    async def xattrs(self, path: RemotePath) -> dict[bytes, bytes]:
        """See the port."""
        values: dict[bytes, bytes] = await self._call(p.XattrsCall(path))
        return values

    async def set_xattr(
        self, path: RemotePath, name: bytes, value: bytes | None, expected: Expected | None
    ) -> Outcome:
        """See the port."""
        return await self._mutate(p.SetXattrCall(path, name, value, expected))

    async def space(self) -> Space:
        """See the port."""
        space: Space = await self._call(p.SpaceCall())
        return space

    async def settle(self, intent: Intent) -> None:
        """See the port."""
        await self._call(p.SettleCall(intent))

    async def _mutate(self, call: p.Call) -> Outcome:
        ended: p.Ended = await self._call(call)
        return ended.outcome()

    async def _call(self, call: p.Call, *fds: int) -> Any:
        """One call. It waits for its turn here, where no deadline runs: the worker only ever
        gets as many as it works on at once."""
        slot = self._slots.of(call)
        await slot.acquire()
        try:
            process = self._process
            if process is None:
                raise Unreachable("not connected")
            return await process.call(call, self._stall, fds)
        finally:
            slot.release()

    def _lost(self, why: str) -> None:
        """The connection or the worker ended by itself: no news where the server was left."""
        if not self._at_rest:
            self.on_lost(why)

    async def _start(self, secrets: Secrets) -> WorkerProcess:
        self.abandon("replaced")
        self._leftovers = [one for one in self._leftovers if not one.reaped]
        if len(self._leftovers) >= MOST_LEFTOVERS:
            raise Unreachable(
                f"{len(self._leftovers)} worker processes are stuck in the kernel and cannot "
                "be ended; the server or mount behind them does not answer"
            )
        ours, theirs = socket.socketpair()
        starting = spawn(self.command, theirs)
        try:
            popen = await asyncio.wait_for(asyncio.shield(starting), self._connect_deadline)
        except BaseException as error:
            ours.close()  # the worker, should it still come up, ends by that
            if isinstance(error, TimeoutError | OSError):
                raise Unreachable(f"the worker process did not start: {error}") from error
            raise
        self._process = WorkerProcess(popen, ours, self._lost)
        self._secrets = secrets
        self._process.open(self._url, {**self._options, **secrets.named()})
        self._process.limit(self._limits)
        return self._process

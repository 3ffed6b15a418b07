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
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from awayfs.core.errors import AuthenticationRequired, Unreachable
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
from awayfs.ports.remote import Connected, Fetched, Intent, Landed, Listing, Piece
from awayfs.ports.wallet import NoWallet, Wallet
from awayfs.remotes import pacing
from awayfs.remotes import protocol as p
from awayfs.remotes.channel import Channel
from awayfs.remotes.pending import Pending
from awayfs.remotes.slots import Slots
from awayfs.remotes.spawning import COMMAND, spawn

CONNECT_DEADLINE_S = 5.0
CLOSE_DEADLINE_S = 0.5
MOST_LEFTOVERS = 4
LONGEST_QUEUE_S = 30.0
"""So long a transfer may wait behind others that move: a slow link is no dead server."""

log = logging.getLogger(__name__)


class _Process:
    """One worker process: requests out, answers in, and its end."""

    def __init__(
        self, popen: subprocess.Popen[bytes], sock: socket.socket, on_lost: Callable[[str], None]
    ) -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._popen = popen
        self._pending: dict[int, Pending] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._channel = Channel(sock, self._on_frame, self._on_end)
        self.pid = popen.pid
        self.sign = self._bulk_sign = 0.0
        self.alive = True
        self.reaped = False

    def open(self, url: str, options: Mapping[str, str]) -> None:
        """Say what to serve."""
        self._channel.send(p.encode(p.Open(url, dict(options))))

    def limit(self, limits: p.Limits) -> None:
        """How fast content may move."""
        self._channel.send(p.encode(limits))

    async def call(self, call: p.Call, deadline: float, fds: Sequence[int] = ()) -> Any:
        """Run one call; raises what it raised there, or ``Unreachable``."""
        if not self.alive:
            raise Unreachable("not connected")
        request, self._next_id = self._next_id, self._next_id + 1
        unasked = pacing.unasked.get()
        frame = p.encode(p.Request(request, call, len(fds), unasked))  # type: ignore[arg-type]
        self._channel.send(frame, list(fds))  # OSError: no descriptor to be had, and nothing asked
        pending = Pending(self._loop, call, deadline)
        self._pending[request] = pending
        self._watch(pending.due)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._channel.send(p.encode(p.Cancel(request)))
            if request in self._pending:
                over = pending.leave()
                if fds:  # the worker may write into the file: wait until it says it does not
                    await asyncio.wait([over])
            raise

    async def is_idle(self, wait_s: float) -> bool:
        """Whether nothing is under way, after so many seconds at most."""
        if self._pending:
            await asyncio.wait([one.future for one in self._pending.values()], timeout=wait_s)
        return self.alive and not self._pending

    def end(self, why: str) -> None:
        """Kill the process and fail what is under way. Does not wait for it to be gone."""
        if not self.alive:
            return
        self.alive = False
        self._channel.close()
        if self._timer is not None:
            self._timer.cancel()
        if not self.reaped:
            self._popen.kill()
        pending, self._pending = list(self._pending.values()), {}
        for one in pending:
            one.fail(Unreachable(why))

    def _watch(self, due: float) -> None:
        """Look at this time whether an answer is overdue, or earlier: one timer for all calls."""
        if self._timer is None or due < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer, now = None, self._loop.time()
        for one in list(self._pending.values()):
            if one.due <= now:
                self._on_due(one, now)
        if self._pending:
            self._watch(min(one.due for one in self._pending.values()))

    def _on_due(self, one: Pending, now: float) -> None:
        late = now - one.due
        if late > one.stall / 8:
            # The loop itself was held up, and the answer may lie in the socket: look first.
            one.due = now + one.stall / 8
        elif self._waits_its_turn(one, now):
            one.due = self._bulk_sign + one.stall
        if one.due <= now:
            name = type(one.call).__name__.removesuffix("Call").lower()
            self.end(f"no answer to {name} for {one.stall:.1f} s")

    def _waits_its_turn(self, one: Pending, now: float) -> bool:
        """Whether other transfers have moved meanwhile, behind which this one may have to wait."""
        moved = one.is_transfer and self._bulk_sign + one.stall > now
        return moved and now - one.begun < LONGEST_QUEUE_S

    def _on_frame(self, document: bytes) -> None:
        try:
            message = p.decode_from_worker(document)
            if isinstance(message, p.Lost):
                self._on_lost(message.why)
                return
            self.sign = self._loop.time()
            one = self._pending.get(message.id)
            if one is None:
                return
            if one.is_transfer:
                self._bulk_sign = self.sign
            self._on_message(message, one)
        except msgspec.DecodeError as error:
            log.warning("a worker sent what cannot be read: %s", error)
            self.end("the worker process sent what cannot be read")

    def _on_message(self, message: p.Part | p.Answer | p.Failure | p.Tick, one: Pending) -> None:
        if isinstance(message, p.Answer):
            one.answer(message.value)
            del self._pending[message.id]
        elif isinstance(message, p.Tick):
            one.due = self._loop.time() + max(one.stall, message.allow)
            self._watch(one.due)
        elif isinstance(message, p.Part):
            one.due = self._loop.time() + one.stall
            one.take_part(message.value)
        else:
            del self._pending[message.id]
            one.fail(p.error_of(message))

    def _on_end(self) -> None:
        """By itself: whoever has it ended made it dead before."""
        if self.alive:
            self._on_lost("the worker process ended")
            self.end("the worker process ended")

    def _on_exit(self) -> None:
        """The process is gone for good (pidfd_open(2)): collect it."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._popen.poll()
        self.reaped = True
        self._on_end()


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
        self._process: _Process | None = None
        self._leftovers: list[_Process] = []
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

    async def connect(self) -> Connected:
        """Start a worker if there is none that lives, and connect its adapter (again).

        With what the wallet offers, as long as it has something else after a refusal.
        """
        async with self._connecting:
            while True:
                secrets = await self.wallet.offer()
                try:
                    connected = await self._log_in(secrets)
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

    async def _log_in(self, secrets: Secrets) -> Connected:
        """One attempt. A worker knows the secrets it was started with; for others, a new one."""
        process = self._process
        self._at_rest = False
        if process is None or not process.alive or secrets != self._secrets:
            process = await self._start(secrets)
        try:
            connected: Connected = await process.call(p.ConnectCall(), self._connect_deadline)
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

    async def _start(self, secrets: Secrets) -> _Process:
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
        self._process = _Process(popen, ours, self._lost)
        self._secrets = secrets
        self._process.open(self._url, {**self._options, **secrets.named()})
        self._process.limit(self._limits)
        return self._process

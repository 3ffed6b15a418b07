"""The other end of ``server_program``: a program of ours on the server, over an ``exec`` channel.

It begins while SFTP does, as soon as we are logged in; who has something for it waits a moment for
that (``may_ask``). Until it runs, and has been proved to see the very directory that SFTP shows, or
where it cannot be had, all goes by SFTP as ever. What the server sends is distrusted as in
``sftp_wire``. Bytes on the way follow ``sftp_window``, less the time that the program says it
worked, so that a slow disk does not pass for a slow link.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
import secrets
import struct
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Any

import asyncssh
from msgspec import Struct

from awayfs.core.errors import Implausible, NotFound, RemoteError, Unreachable
from awayfs.core.types import OpId
from awayfs.remotes import progress
from awayfs.remotes import server_steps as far
from awayfs.remotes.names import fence_name
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_packets import Attributes
from awayfs.remotes.sftp_window import Window

BEGIN_S = 10.0
"""How long the program may take until it is proved."""

MOST_NOISE = 64 << 10
"""Bytes that start-up files of a shell may say before it begins."""

LARGEST_ANSWER = 64 << 10
MOST_SAID = 4096
"""Bytes of its error output that are kept."""

MOST_UNSENT = 256 << 10
"""Bytes that wait for the end of the turn."""

WAITS_S = 1.0
"""How long what could go by SFTP waits for it."""

SIZES = 4096
TIMES = 1 << 29
"""A fence has a size and a time by chance: others have hardly both in common with it."""

NOT_READY = "it has not begun"

log = logging.getLogger("awayfs.worker")


class Answer(Struct, frozen=True):
    """A status, its flags, what belongs to it, and when the request left."""

    status: int
    flags: int
    body: bytes
    sent_ns: int


class Place(Struct, frozen=True):
    """The volume's root as SFTP has it, where no earlier program may act any more."""

    root: bytes
    channel: Channel


class _Asked(Struct):
    """A request under way. ``over`` are those who wait until nothing can come of it any more."""

    op: OpId
    future: asyncio.Future[Answer]
    count: int
    sent_ns: int
    busy_s: float
    listener: progress.Listener | None
    over: list[asyncio.Future[None]]


class Program(asyncssh.SSHClientSession[bytes]):
    """The program of one session.

    ``on_stamp`` hears what the server's clock says; ``on_death`` that the program ended by itself
    while it was asked something, after which it is not to be begun again.
    """

    def __init__(
        self,
        client: str,
        stall_s: float,
        on_stamp: Callable[[int, int], None],
        on_death: Callable[[], None],
    ) -> None:
        self.is_ready = False
        self.uid: int | None = None  # of files that we make, as SFTP shows it
        self.why = NOT_READY
        self._client = client
        self._stall_s = stall_s
        self._on_stamp = on_stamp
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self.window = Window(far.LARGEST_FRAME)
        self._connection: asyncssh.SSHClientConnection | None = None
        self._chan: Any = None
        self._mark = b""
        self._is_at: asyncio.Future[Place] = self._loop.create_future()
        self._begun = asyncio.Event()  # or failed to
        self._runs: asyncio.Future[None] = self._loop.create_future()
        self._hello: asyncio.Future[None] = self._loop.create_future()
        self._unread = bytearray()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._asked: dict[int, _Asked] = {}
        self._next = 1
        self._busy_s = 0.0  # how long it has worked, by its own word
        self._quiet_since = 0.0
        self._said = bytearray()
        self._ended = False
        self._is_left = False  # by us, or by the whole connection
        self._beginning: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    @staticmethod
    def text() -> bytes:
        """What the server is to run."""
        files = importlib.resources.files("awayfs.remotes")
        texts = {
            f"awayfs.remotes.{name}": files.joinpath(f"{name}.py").read_text() for name in PARTS
        }
        return _LOADER.format(texts=ascii(texts)).encode()

    # -- beginning and end ----------------------------------------------------------------

    def begin(self, connection: asyncssh.SSHClientConnection) -> None:
        """Start it, as far as that goes before ``settle_at``."""
        self._connection = connection
        self._beginning = self._loop.create_task(self._begin())

    def settle_at(self, root: bytes, channel: Channel, first: int) -> None:
        """Where it is to act from now on, and what shows over SFTP whether it does.

        ``first``: how many bytes may be on their way to begin with.
        """
        self.window = Window(far.LARGEST_FRAME, first)
        if not self._is_at.done():
            self._is_at.set_result(Place(root, channel))

    async def may_ask(self) -> bool:
        """Whether it does what it is asked, after a moment for it to begin."""
        if not self._begun.is_set() and self._beginning is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAITS_S):
                    await self._begun.wait()
            self._begun.set()  # nobody else waits as long
        return self.is_ready

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(BEGIN_S):
                await self._start()
                await self._prove(await self._is_at)
        except (RemoteError, asyncssh.Error, OSError, TimeoutError) as error:
            self._end(self._text(error))
            if not self._is_left:
                log.info("no program on the server does the small changes: %s", self._text(error))
            return
        if not self._ended:
            self.is_ready = True
            self._begun.set()
            self._watching = self._loop.create_task(self._watch())
            log.info("a program on the server does the small changes")

    async def _start(self) -> None:
        a, b = (secrets.randbelow(1 << 31) | 1 << 30 for _ in range(2))
        self._mark = b"\nawayfs:%d:\n" % (a * b)
        text = _packed(self.text())
        assert self._connection is not None
        await self._connection.create_session(
            lambda: self, command=_command(a, b, len(text)), encoding=None
        )
        await self._runs
        self._chan.write(text)

    async def _prove(self, place: Place) -> None:
        """Have it make its fence, which has to be seen over SFTP."""
        size, mtime = 1 + secrets.randbelow(SIZES), 1_000_000_000 + secrets.randbelow(TIMES)
        name = fence_name(self._client)
        self._chan.write(far.ROOT.pack(len(place.root)) + place.root)
        body = far.FENCE.pack(len(name), size, mtime) + name
        if (await self.ask("", far.ASKED_FENCE, body)).status != far.DONE:
            raise Implausible("it may not write in the volume's root")
        seen = await _found(place.channel.lstat(name))
        if seen is None or (seen.size, seen.mtime) != (size, mtime):
            raise Implausible("it does not see the directory that SFTP shows")
        self.uid = seen.uid

    def _text(self, error: BaseException) -> str:
        said = self._said.decode(errors="replace").strip()
        shown = "".join(c if c.isprintable() else " " for c in said[-200:])
        text = "it took too long" if isinstance(error, TimeoutError) else str(error)
        return f"{text} ({shown})" if shown else text

    async def _watch(self) -> None:
        """A program that takes requests and answers none is given up, like an SFTP process."""
        while not self._ended:
            await asyncio.sleep(min(1.0, self._stall_s / 4))
            if self._asked and time.monotonic() - self._quiet_since > self._stall_s:
                self._die(f"it has not answered for {self._stall_s:.0f} s")

    def close(self) -> None:
        """The session is over; what is under way is told."""
        self._is_left = True
        self._end("the session was closed")

    def _die(self, why: str) -> None:
        """It failed by itself, with what was asked under way."""
        if self._ended:
            return
        if self._asked and self.is_ready:
            log.warning("the program on the server is not used any more: %s", why)
            self._on_death()
        self._end(why)

    def _end(self, why: str) -> None:
        if self._ended:
            return
        self._ended, self.is_ready, self.why = True, False, why
        self._begun.set()
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()
        if self._chan is not None:
            self._chan.abort()
        for future in (self._runs, self._hello, self._is_at):
            if not future.done():
                future.set_exception(Unreachable(why))
                future.exception()  # nobody may be waiting yet
        asked, self._asked = self._asked, {}
        for one in asked.values():
            self._over_with(one, None)
            if not one.future.done():
                one.future.set_exception(Unreachable(f"the program on the server ended: {why}"))
                one.future.exception()  # who asked may have been cancelled

    # -- asking ---------------------------------------------------------------------------

    async def ask(self, op: OpId, kind: int, body: bytes) -> Answer:
        """Send a request, in one piece with others of this turn; its answer."""
        count = far.HEAD.size + len(body)
        await self.window.enter(count)
        if self._ended:
            self.window.give(count, None)
            raise Unreachable(f"the program on the server ended: {self.why}")
        number = self._next
        self._next = number % 0x7FFF_FFFF + 1
        if not self._asked:
            self._quiet_since = time.monotonic()
        future: asyncio.Future[Answer] = self._loop.create_future()
        sent_ns, listener = time.monotonic_ns(), progress.listener.get()
        self._asked[number] = _Asked(op, future, count, sent_ns, self._busy_s, listener, [])
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += (far.HEAD.pack(5 + len(body), number, kind), body)
        self._unsent_bytes += count
        if self._unsent_bytes > MOST_UNSENT:
            self._flush()
        return await future

    async def over(self, op: OpId) -> None:
        """Return when nothing can come of what was asked for this operation any more.

        Its caller may have been cancelled, and settles now.
        """
        waiting = []
        for one in self._asked.values():
            if one.op == op:
                waiting.append(self._loop.create_future())
                one.over.append(waiting[-1])
        for future in waiting:
            await future

    def _flush(self) -> None:
        data, self._unsent, self._unsent_bytes = b"".join(self._unsent), [], 0
        if data and not self._ended and not self._chan.is_closing():
            self._chan.write(data)

    def _over_with(self, one: _Asked, took_s: float | None) -> None:
        self.window.give(one.count, took_s)
        for future in one.over:
            if not future.done():
                future.set_result(None)

    # -- asyncssh -------------------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        """The channel is open."""
        self._chan = chan
        if self._ended:
            chan.abort()

    def data_received(self, data: bytes, datatype: Any) -> None:
        """Answers, or a part of one; what it says on its error output goes to the log."""
        if self._ended:
            return
        if datatype is not None:
            self._hear(data)
            return
        self._quiet_since = time.monotonic()
        self._unread += data
        try:
            if self._runs.done() or self._has_begun():
                self._read()
        except (Implausible, struct.error) as error:
            self._die(f"it sent what cannot be an answer: {error}")

    def _hear(self, data: bytes) -> None:
        room = MOST_SAID - len(self._said)
        self._said += data[:room]
        if room > 0 and self.is_ready:
            log.warning("the program on the server says: %s", ascii(data[:room].decode("latin-1")))

    def _has_begun(self) -> bool:
        """Skip what shells say before the mark."""
        at = self._unread.find(self._mark) if self._mark else -1
        if at < 0:
            if len(self._unread) > MOST_NOISE:
                raise Implausible("it talks, and does not begin")
            return False
        del self._unread[: at + len(self._mark)]
        self._runs.set_result(None)
        return True

    def _read(self) -> None:
        data, at, now = bytes(self._unread), 0, time.monotonic_ns()
        while len(data) - at >= far.HEAD.size:
            length, number, status = far.HEAD.unpack_from(data, at)
            if not 5 <= length <= LARGEST_ANSWER:
                raise Implausible(f"an answer of {length} bytes")
            end = at + 4 + length
            if end > len(data):
                break
            self._answered(number, status, data[at + far.HEAD.size : end], now)
            at = end
        del self._unread[:at]

    def _answered(self, number: int, status: int, body: bytes, now_ns: int) -> None:
        if not number:
            self._told(status, body)
            return
        one = self._asked.pop(number, None)
        if one is None:
            raise Implausible("an answer to what was not asked")
        took_s = (now_ns - one.sent_ns) / 1e9 - (self._busy_s - one.busy_s)
        self._over_with(one, max(took_s, 0.0))
        if one.listener is not None:
            one.listener(progress.KEEP)
        if not one.future.done():
            one.future.set_result(Answer(status & 0x0F, status & 0xF0, body, one.sent_ns))

    def _told(self, status: int, body: bytes) -> None:
        """What answers no request: that it runs, and what a batch took."""
        if status == far.BATCH and self._hello.done():
            spent_us, stamp = far.SPENT.unpack(body)
            self._busy_s += spent_us / 1e6
            if stamp:
                self._on_stamp(stamp, time.monotonic_ns())
        elif status == far.DONE and not self._hello.done():
            self._hello.set_result(None)
        else:
            raise Implausible("an answer to what was not asked")

    def eof_received(self) -> bool:
        """It says no more; before it ran, how it ended is still to come."""
        if self.is_ready:
            self._die_of(None)
        return False

    def exit_status_received(self, status: int) -> None:
        """It ended, or never began: 127 where there is no python3."""
        if not self._runs.done() and not self._said:
            self._said += b"status %d" % status

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone, and maybe the connection with it."""
        self._die_of(exc)

    def _die_of(self, exc: Exception | None) -> None:
        connection = self._connection
        if exc is not None or connection is None or connection.is_closed():
            self._is_left = True
            self._end(f"the connection was lost ({exc})" if exc else "the connection was lost")
        else:
            self._die("it ended")


PARTS = ("server_steps", "server_batch", "server_operations", "server_program")
"""Modules that the server is sent, in an order in which each can import those before it."""


_LOADER = """
import sys, types
for name, text in {texts}.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""


def _command(a: int, b: int, length: int) -> str:
    """For whatever shell the account has. Nothing is sent to it before it answers.

    The mark is not in the command, as whatever runs instead of it may repeat that.
    """
    code = (
        f'import sys,zlib;o=sys.stdout;o.write("%cawayfs:%d:%c"%(10,{a}*{b},10));o.flush();'
        # no byte more than that: the rest is for the program
        f"r,d=sys.stdin.buffer.raw.read,bytearray();"
        f"[d.extend(r({length}-len(d))or sys.exit())for _ in iter(lambda:len(d)<{length},False)];"
        'exec(compile(zlib.decompress(d),"awayfs","exec"),dict(__name__="awayfs"))'
    )
    return f"python3 -I -S -c '{code}'"


async def _found(look: Awaitable[Attributes]) -> Attributes | None:
    try:
        return await look
    except NotFound:
        return None


@cache
def _packed(text: bytes) -> bytes:
    return zlib.compress(text)

"""Many small files over one SFTP session, with all requests on the way that are of use.

A session of its own: OpenSSH serves it with a process of its own, so that a user's read waits
behind no file of the background. Of each file: LSTAT (opening a fifo would hang that process, and
OPEN follows symlinks), OPEN, then READ, FSTAT and CLOSE at once. Many files are at each step at
the same time; how many bytes are asked for follows ``sftp_channel.Window``.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import asyncssh

from awayfs.core.errors import Implausible, NotFound, Refused, RemoteError, Unreachable
from awayfs.core.types import Kind
from awayfs.ports.remote import Landed, Piece
from awayfs.remotes import pacing
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_channel import Channel, Window
from awayfs.remotes.sftp_entries import kind_of, parent, token_of
from awayfs.remotes.sftp_errors import from_exception
from awayfs.remotes.sftp_paths import Paths, check

ONE_READ = 16 << 10
"""What every server gives in one reply, and a very slow link in less than the stall deadline."""

LOOKED_AT = 1024
"""Requests that carry no data and may be on the way at once."""

HANDLES = 64
MOST_HANDLES = 1000
"""Files open at once, where the server does not tell what it allows, and at most."""

HANDLES_SPARED = 8

OnReply = Callable[[int, bytes], None]


class SmallFiles(asyncssh.SSHClientSession[bytes]):
    """One session, for all calls that overlap. ``channel`` is another one of the connection."""

    def __init__(self, channel: Channel, paths: Paths) -> None:
        self._channel = channel
        self._paths = paths
        self._handles = HANDLES
        self._chan: Any = None
        self._replies = packets.Replies()
        self._waiting: dict[int, OnReply] = {}
        self._batches: set[_Batch] = set()
        self._next = 1
        self._unsent = bytearray()
        self._ended: RemoteError | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.window = Window(ONE_READ)
        self.open_handles = 0

    async def start(self, connection: asyncssh.SSHClientConnection) -> None:
        """Open the session; raises ``ChannelOpenError`` where the server allows no more."""
        try:
            await connection.create_session(lambda: self, subsystem="sftp", encoding=None)
        except asyncssh.ChannelOpenError:
            raise
        except (asyncssh.Error, OSError) as error:
            raise from_exception(error, b"") from error
        await self._ready

    async def fetch(
        self, pieces: Sequence[Piece], fd: int, tick: Callable[[float], None]
    ) -> list[Landed | None]:
        """See ``Remote.fetch_many``."""
        inside = await self._inside(pieces)
        if self._ended is not None:  # nobody tells a batch that comes after the end
            raise self._ended
        wanted = [p if p.path in inside else None for p in pieces]
        context = contextvars.copy_context()  # replies come in that of the connection
        batch = _Batch(self, wanted, fd, lambda: context.run(tick, 0))
        self._batches.add(batch)
        try:
            batch.go_on()
            return await batch.done
        finally:
            self._batches.discard(batch)
            batch.end()
            self.others_go_on()

    async def _inside(self, pieces: Sequence[Piece]) -> set[bytes]:
        """The paths that are reached without a symlink (``sftp_paths``)."""
        by_directory: dict[bytes, list[bytes]] = {}
        for piece in pieces:
            check(piece.path)
            by_directory.setdefault(parent(piece.path), []).append(piece.path)

        async def look(directory: bytes, below: list[bytes]) -> list[bytes]:
            try:
                await self._paths.inside(directory)
            except (NotFound, Refused):
                return []
            return below

        found = await asyncio.gather(*(look(d, below) for d, below in by_directory.items()))
        return {path for below in found for path in below}

    # -- what a batch uses ----------------------------------------------------------------

    def absolute(self, path: bytes) -> bytes:
        """The server's path."""
        return self._channel.absolute(path)

    def ask(self, make: Callable[[int], bytes], on_reply: OnReply) -> None:
        """Send a request, with all others of this turn of the loop in one go."""
        number = self._next
        self._next = number % 0xFFFF_FFFF + 1
        self._waiting[number] = on_reply
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += make(number)

    def may_open(self) -> bool:
        """Whether one more file may be open at the server."""
        return self.open_handles < self._handles

    def others_go_on(self) -> None:
        """The server answers, and there is room again for whoever waits for it."""
        for batch in list(self._batches):
            batch.go_on()

    def _flush(self) -> None:
        data, self._unsent = bytes(self._unsent), bytearray()
        if self._ended is None:
            self._chan.write(data)

    # -- asyncssh -------------------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        """The channel is open."""
        self._chan = chan

    def session_started(self) -> None:
        """The server runs its SFTP process."""
        self._chan.write(packets.INIT)

    def data_received(self, data: bytes, datatype: Any) -> None:
        """Replies, or a part of one."""
        if datatype is not None:
            return  # what the server's process says on its error output
        try:
            for kind, number, body in self._replies.feed(data):
                if kind == packets.VERSION:
                    self._begin(number)
                elif (on_reply := self._waiting.pop(number, None)) is not None:
                    on_reply(kind, body)
        except Implausible as error:
            self._end(error)
            self._chan.abort()
            return
        self.others_go_on()

    def _begin(self, version: int) -> None:
        if self._ready.done():
            return
        if version == 3:
            self.ask(packets.limits, self._limited)
        else:
            self._end(Implausible(f"the server chose SFTP version {version}, we asked for 3"))

    def _limited(self, kind: int, body: bytes) -> None:
        """What the server allows; the process that it counts them for serves nobody else."""
        if kind == packets.EXTENDED_REPLY and (most := packets.most_handles(body)) is not None:
            self._handles = max(1, min(MOST_HANDLES, most - HANDLES_SPARED))
        if not self._ready.done():
            self._ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The session is over."""
        self._end(Unreachable(f"the connection was lost: {exc}" if exc else "connection lost"))

    def _end(self, error: RemoteError) -> None:
        if self._ended is not None:
            return
        self._ended = error
        self._waiting.clear()
        if not self._ready.done():
            self._ready.set_exception(error)
        for batch in list(self._batches):
            batch.fail(error)

    @property
    def over(self) -> bool:
        """Whether another session is needed."""
        return self._ended is not None


class _Batch:
    """The files of one call. Each goes from looked at, over opened, to read."""

    def __init__(
        self,
        session: SmallFiles,
        pieces: list[Piece | None],
        fd: int,
        tick: Callable[[], None],
    ) -> None:
        self._session = session
        self._pieces = pieces
        self._fd = fd
        self._tick = tick
        self._landed: list[Landed | None] = [None] * len(pieces)
        self._to_look = deque(i for i, piece in enumerate(pieces) if piece is not None)
        self._to_open: deque[int] = deque()
        self._to_read: deque[tuple[int, bytes]] = deque()
        self._looking = 0
        self._left = len(self._to_look)
        self._over = False
        self._flow = pacing.pacer.get().down  # replies come in another context
        self._turn: asyncio.TimerHandle | None = None
        self.done: asyncio.Future[list[Landed | None]] = asyncio.get_running_loop().create_future()

    def go_on(self) -> None:
        """Send what there is room for."""
        session = self._session
        if self._over:
            return
        self._tick()  # what waits for its turn behind others is no less alive
        while self._to_read and self._may_read(self._piece(self._to_read[0][0]).length):
            self._read(*self._to_read.popleft())
        while self._to_open and session.may_open():
            self._open(self._to_open.popleft())
        while self._to_look and self._looking < LOOKED_AT:
            self._look(self._to_look.popleft())
        if not self._left and not self.done.done():
            self.done.set_result(self._landed)

    def _may_read(self, length: int) -> bool:
        """Whether there is room, and it is our turn; room is held then, and else we look again."""
        if self._turn is not None or not self._session.window.take(length):
            return False
        wait_s = self._flow.wait_s(length, yields=True)
        if not wait_s:
            return True
        self._session.window.give(length, None)
        later = asyncio.get_running_loop().call_later
        self._turn = later(min(wait_s, pacing.LOOK_S), self._look_again)
        return False

    def _look_again(self) -> None:
        self._turn = None
        self.go_on()

    def fail(self, error: RemoteError | OSError) -> None:
        """Nothing more comes."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # the caller may have been cancelled

    def end(self) -> None:
        """The caller has what it gets: its descriptor is written no more."""
        self._over = True
        if self._turn is not None:
            self._turn.cancel()
        for _, handle in self._to_read:
            self._close(handle)
        self._to_read.clear()

    def _piece(self, index: int) -> Piece:
        piece = self._pieces[index]
        assert piece is not None
        return piece

    def _over_with(self, index: int, landed: Landed | None) -> None:
        self._landed[index] = landed
        self._left -= 1

    def _look(self, index: int) -> None:
        path = self._session.absolute(self._piece(index).path)
        self._looking += 1

        def looked(kind: int, body: bytes) -> None:
            self._looking -= 1
            if kind == packets.ATTRS and kind_of(packets.attributes(body)) is Kind.FILE:
                self._to_open.append(index)
            else:
                self._over_with(index, None)

        self._session.ask(lambda number: packets.lstat(number, path), looked)

    def _open(self, index: int) -> None:
        session = self._session
        path = session.absolute(self._piece(index).path)
        session.open_handles += 1

        def opened(kind: int, body: bytes) -> None:
            if kind != packets.HANDLE:
                session.open_handles -= 1
                self._over_with(index, None)
            elif self._over:
                self._close(packets.handle(body))
            else:
                self._to_read.append((index, packets.handle(body)))

        session.ask(lambda number: packets.open_for_reading(number, path), opened)

    def _read(self, index: int, handle: bytes) -> None:
        """READ, FSTAT and CLOSE, which servers answer in this order; held room is given back."""
        piece, session, began = self._piece(index), self._session, time.monotonic()
        got, missing = 0, -(-piece.length // ONE_READ)
        whole = True

        def data(at: int, wanted: int, kind: int, body: bytes) -> None:
            nonlocal got, missing, whole
            missing -= 1
            if not missing:
                session.window.give(piece.length, time.monotonic() - began)
            if kind == packets.DATA and whole and at == got and not self._over:
                block = packets.string(body)
                if len(block) > wanted:
                    raise Implausible("more data than was asked for")
                try:
                    _write_all(self._fd, block, piece.offset + at)
                except OSError as error:  # the landing's own: no space here
                    self.fail(error)
                    self._over = True
                got += len(block)
            elif kind != packets.STATUS:
                whole = False

        def looked(kind: int, body: bytes) -> None:
            landed = None
            if kind == packets.ATTRS and whole and not missing:
                landed = _landed(got, packets.attributes(body))
            self._over_with(index, landed)

        for at in range(0, piece.length, ONE_READ):
            count = min(ONE_READ, piece.length - at)
            session.ask(
                lambda number, at=at, count=count: packets.read(number, handle, at, count),  # type: ignore[misc]
                lambda kind, body, at=at, count=count: data(at, count, kind, body),  # type: ignore[misc]
            )
        session.ask(lambda number: packets.fstat(number, handle), looked)
        self._close(handle)

    def _close(self, handle: bytes) -> None:
        session = self._session

        def closed(_kind: int, _body: bytes) -> None:
            session.open_handles -= 1

        session.ask(lambda number: packets.close(number, handle), closed)


def _landed(got: int, attrs: packets.Attributes) -> Landed | None:
    kind = kind_of(attrs)
    if kind is not Kind.FILE or attrs.size is None or attrs.mtime is None:
        return None
    return Landed(got, token_of(kind, attrs.size, attrs.mtime, None))


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count

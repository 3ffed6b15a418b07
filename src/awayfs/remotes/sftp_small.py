"""Many small files over one SFTP session, with all requests on the way that are of use.

A session of its own: OpenSSH serves it with a process of its own, so that a user's read waits
behind no file of the background. Of each file: LSTAT (opening a fifo would hang that process, and
OPEN follows symlinks), OPEN, then READ, FSTAT and CLOSE at once. Many files are at each step at
the same time; how many bytes are asked for follows ``sftp_window``.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections import deque
from collections.abc import Callable, Sequence

import asyncssh

from awayfs.core.errors import Implausible, NotFound, Refused, RemoteError
from awayfs.core.types import Kind
from awayfs.ports.remote import Landed, Piece
from awayfs.remotes import pacing
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_entries import kind_of, parent, token_of
from awayfs.remotes.sftp_paths import Paths, check
from awayfs.remotes.sftp_window import Window
from awayfs.remotes.sftp_wire import OnReply, Wire

ONE_READ = 16 << 10
"""What every server gives in one reply, and a very slow link in less than the stall deadline."""

LOOKED_AT = 1024
"""Requests that carry no data and may be on the way at once."""

HANDLES = 64
MOST_HANDLES = 1000
"""Files open at once, where the server does not tell what it allows, and at most."""

HANDLES_SPARED = 8


class SmallFiles:
    """One session, for all calls that overlap. ``channel`` is another one of the connection."""

    def __init__(self, channel: Channel, paths: Paths) -> None:
        self._channel = channel
        self._paths = paths
        self._handles = HANDLES
        self._batches: set[_Batch] = set()
        self._wire = Wire(self.others_go_on, self._end)
        self.window = Window(ONE_READ)
        self.open_handles = 0

    async def start(self, connection: asyncssh.SSHClientConnection) -> None:
        """Open the session; raises ``ChannelOpenError`` where the server allows no more."""
        await self._wire.start(connection)
        await self._wire.learn_limits()
        if most := self._wire.limits.handles:  # its process serves nobody else
            self._handles = max(1, min(MOST_HANDLES, most - HANDLES_SPARED))

    async def fetch(
        self, pieces: Sequence[Piece], fd: int, tick: Callable[[float], None]
    ) -> list[Landed | None]:
        """See ``Remote.fetch_many``."""
        inside = await self._inside(pieces)
        if (error := self._wire.ended) is not None:  # nobody tells a batch that comes after the end
            raise error
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

    def ask(self, request: packets.Request, on_reply: OnReply) -> None:
        """Send a request."""
        self._wire.ask(request, on_reply)

    @property
    def is_in_order(self) -> bool:
        """Whether a request is done only after those that were asked before it."""
        return self._wire.is_in_order

    def may_open(self) -> bool:
        """Whether one more file may be open at the server."""
        return self.open_handles < self._handles

    def others_go_on(self) -> None:
        """The server answers, and there is room again for whoever waits for it."""
        for batch in list(self._batches):
            batch.go_on()

    def _end(self, error: RemoteError) -> None:
        for batch in list(self._batches):
            batch.fail(error)

    @property
    def over(self) -> bool:
        """Whether another session is needed."""
        return self._wire.ended is not None


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

        self._session.ask(packets.by_path(packets.LSTAT, path), looked)

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

        session.ask(packets.open_file(path, packets.FOR_READING), opened)

    def _read(self, index: int, handle: bytes) -> None:
        """READ, FSTAT and CLOSE, of which many a server has to be asked in this order only once the
        one before is done; held room is given back."""
        piece, session, began = self._piece(index), self._session, time.monotonic()
        got, missing = 0, -(-piece.length // ONE_READ)
        whole = True

        def data(at: int, wanted: int, kind: int, body: bytes) -> None:
            nonlocal got, missing, whole
            missing -= 1
            if not missing:
                session.window.give(piece.length, time.monotonic() - began)
                if not session.is_in_order:
                    look()
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

        def look() -> None:
            session.ask(packets.by_handle(packets.FSTAT, handle), looked)
            self._close(handle)

        def looked(kind: int, body: bytes) -> None:
            landed = None
            if kind == packets.ATTRS and whole and not missing:
                landed = _landed(got, packets.attributes(body))
            self._over_with(index, landed)

        for at in range(0, piece.length, ONE_READ):
            count = min(ONE_READ, piece.length - at)
            session.ask(
                packets.read(handle, at, count),
                lambda kind, body, at=at, count=count: data(at, count, kind, body),  # type: ignore[misc]
            )
        if session.is_in_order or not piece.length:
            look()

    def _close(self, handle: bytes) -> None:
        session = self._session

        def closed(_kind: int, _body: bytes) -> None:
            session.open_handles -= 1

        session.ask(packets.by_handle(packets.CLOSE, handle), closed)


def _landed(got: int, attrs: packets.Attributes) -> Landed | None:
    kind = kind_of(attrs)
    if kind is not Kind.FILE or attrs.size is None or attrs.mtime is None:
        return None
    return Landed(got, token_of(kind, attrs.size, attrs.mtime, None))


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count

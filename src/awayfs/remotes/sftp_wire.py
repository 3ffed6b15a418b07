"""One SFTP session over an SSH channel: packets out, replies in.

asyncssh's own SFTP client makes a task, two futures, three log lines, a packet and a write(2) of
each request. For small ones that is most of what they cost, so asyncssh carries the bytes here and
the packets are ours. The requests of one turn of the event loop leave in one piece, many in a few.
A server that sends what cannot be an answer ends the session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncssh

from awayfs.core.errors import Implausible, RemoteError, Unreachable
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_errors import from_exception

LOST = 0
"""Instead of a reply's kind: the session ended before there was one."""

SWAPPED = ("OpenSSH", "paramiko", "mod_sftp")
"""Servers that take SYMLINK's arguments the other way round (PROTOCOL of OpenSSH, section 4.1)."""

IN_ORDER = ("OpenSSH", "paramiko", "mod_sftp")
"""Servers that do one request after the other. All should, as far as one file is concerned (draft,
section 6.1), but those made with Go's pkg/sftp read and write beside all else."""

MOST_UNSENT = 64
"""Requests that wait for the end of the turn; the server may begin with so many."""

OnReply = Callable[[int, bytes], None]
"""Gets the kind of a reply and its body. ``Implausible`` from it ends the session."""


class Wire(asyncssh.SSHClientSession[bytes]):
    """Requests and replies of one session.

    ``on_turn`` is called after each piece of data from the server, ``on_end`` once, with the
    error that whoever waits gets, before each of these gets ``LOST``.
    """

    def __init__(
        self,
        on_turn: Callable[[], None] = lambda: None,
        on_end: Callable[[RemoteError], None] = lambda _error: None,
    ) -> None:
        self.extensions: frozenset[bytes] = frozenset()
        self.limits = packets.Limits(0, 0, 0)
        self.server = ""
        self.swaps_symlink: bool | None = None  # not known: ``sftp_changes`` finds out
        self.is_in_order = False
        self._on_turn = on_turn
        self._on_end = on_end
        self.loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._chan: Any = None
        self._replies = packets.Replies()
        self._waiting: dict[int, OnReply] = {}
        self._next = 1
        self._unsent: list[bytes] = []
        self._ended: RemoteError | None = None
        self._quiet_since = time.monotonic()

    async def start(self, connection: asyncssh.SSHClientConnection) -> None:
        """Open the session; raises ``ChannelOpenError`` where the server allows no more."""
        try:
            await connection.create_session(lambda: self, subsystem="sftp", encoding=None)
        except asyncssh.ChannelOpenError:
            raise
        except (asyncssh.Error, OSError) as error:
            raise from_exception(error) from error
        await self._ready

    async def learn_limits(self) -> None:
        """Ask for ``limits``, where the server tells them."""
        if packets.LIMITS not in self.extensions:
            return
        told: asyncio.Future[None] = self.loop.create_future()

        def limited(kind: int, body: bytes) -> None:
            if kind == packets.EXTENDED_REPLY:
                self.limits = packets.limits(body)
            if not told.done():
                told.set_result(None)

        self.ask(packets.extended(packets.LIMITS), limited)
        await told

    @property
    def waits(self) -> bool:
        """Whether something that was asked has no answer yet."""
        return bool(self._waiting)

    @property
    def ended(self) -> RemoteError | None:
        """Why the session is over, as an error to raise; None while it is not."""
        return None if self._ended is None else type(self._ended)(str(self._ended))

    @property
    def is_openssh(self) -> bool:
        """Whether it says that it is OpenSSH, and has what that has."""
        return "OpenSSH_" in self.server and set(packets.KNOWN) <= self.extensions

    def silent_for(self) -> float:
        """Seconds for which a request has been waiting without any reply; 0 when idle."""
        return time.monotonic() - self._quiet_since if self._waiting else 0.0

    def ask(self, request: packets.Request, on_reply: OnReply) -> None:
        """Send a request, in one go with others of this turn of the loop."""
        if self._ended is not None:
            on_reply(LOST, b"")
            return
        number = self._next
        while number in self._waiting:  # the numbers begin anew after four milliards
            number = number % 0xFFFF_FFFF + 1
        self._next = number % 0xFFFF_FFFF + 1
        if not self._waiting:
            self._quiet_since = time.monotonic()
        self._waiting[number] = on_reply
        if not self._unsent:
            self.loop.call_soon(self._flush)
        self._unsent.append(packets.pack(number, request))
        if len(self._unsent) == MOST_UNSENT:
            self._flush()

    def close(self) -> None:
        """End the session; what waits is told."""
        self._end(Unreachable("the session was closed"))
        if self._chan is not None:
            self._chan.close()

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if data and self._ended is None and not self._chan.is_closing():
            self._chan.write(data)

    # -- asyncssh -------------------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        """The channel is open."""
        self._chan = chan
        self.server = str(chan.get_extra_info("server_version", ""))
        self.swaps_symlink = any(name in self.server for name in SWAPPED) or None
        self.is_in_order = any(name in self.server for name in IN_ORDER)
        self.loop.call_soon(self._greet)

    def _greet(self) -> None:
        """Right behind the request for the subsystem, as sftp(1) does: that saves a round trip."""
        if self._ended is None and not self._chan.is_closing():
            self._chan.write(packets.INIT)

    def data_received(self, data: bytes, datatype: Any) -> None:
        """Replies, or a part of one."""
        if datatype is not None or self._ended is not None:
            return  # what the server's process says on its error output
        self._quiet_since = time.monotonic()
        try:
            for kind, number, body in self._replies.feed(data):
                on_reply = self._waiting.pop(number, None) if self._ready.done() else None
                if on_reply is not None:
                    on_reply(kind, body)
                else:
                    self._begin(kind, number, body)
        except Implausible as error:
            self._end(error)
            self._chan.abort()
            return
        self._on_turn()

    def _begin(self, kind: int, version: int, body: bytes) -> None:
        """The one packet that answers no request."""
        if self._ready.done() or kind != packets.VERSION:
            raise Implausible("the server answers what it was not asked")
        if version != 3:
            raise Implausible(f"the server chose SFTP version {version}, we asked for 3")
        self.extensions = packets.extensions(body)
        self._ready.set_result(None)

    def eof_received(self) -> bool:
        """The server's process says no more, whether or not its channel stays."""
        self.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The session is over."""
        self._end(Unreachable(f"the connection was lost: {exc}" if exc else "connection lost"))

    def _end(self, error: RemoteError) -> None:
        if self._ended is not None:
            return
        self._ended = error
        waiting, self._waiting = self._waiting, {}
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # nobody may be waiting yet
        self._on_end(error)
        for on_reply in waiting.values():
            on_reply(LOST, b"")

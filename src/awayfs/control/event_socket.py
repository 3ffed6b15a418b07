"""The event socket: whoever connects is told each event from then on, one JSON line each.

It is a stream socket for its owner and root alone. A program can wait for it in poll(2), or set
O_ASYNC and be sent SIGIO. Nobody is waited for: what a reader does not take stays in the log, and
when it is dropped there, the reader is told how many events he missed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from awayfs.control.server import Inode, is_ours, listen, remove
from awayfs.core.events import EventLog, EventReader

log = logging.getLogger(__name__)

MOST = 64
"""Readers at a time; a further one is turned away."""
CHUNK = 64 << 10


class EventSocket:
    """Serves ``events`` at ``path``, on the running event loop."""

    def __init__(self, path: str, events: EventLog) -> None:
        self._path = path
        self._events = events
        self._listener: socket.socket | None = None
        self._inode: Inode = (0, 0)
        self._readers: set[_Connection] = set()

    def start(self) -> None:
        """Listen; raises ``ControlError`` (``in-use``) when another process does."""
        self._listener, self._inode = listen(self._path)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        self._events.on_event.append(self._told)

    def close(self) -> None:
        """Stop listening, and end all connections."""
        if self._listener is None:
            return
        self._events.on_event.remove(self._told)
        asyncio.get_running_loop().remove_reader(self._listener)
        remove(self._path, self._inode)
        self._listener.close()
        self._listener = None
        for reader in list(self._readers):
            reader.close()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                log.warning("event socket: %s", error)
            return
        if not is_ours(connection) or len(self._readers) >= MOST:
            connection.close()
            return
        connection.setblocking(False)
        reader = _Connection(connection, EventReader.of_new(self._events), self._readers.discard)
        self._readers.add(reader)

    def _told(self) -> None:
        for reader in list(self._readers):
            reader.send()


class _Connection:
    """One program that is told."""

    def __init__(
        self, connection: socket.socket, reader: EventReader, gone: Callable[[_Connection], None]
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._gone = gone
        self._unsent = b""
        self._blocked = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._heard)

    def send(self) -> None:
        """As much as it takes now; the rest when it takes more."""
        if self._blocked:
            return
        try:
            while data := self._unsent or self._reader.read(CHUNK):
                self._unsent = data
                self._unsent = data[self._connection.send(data, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            self._blocked = True
            self._loop.add_writer(self._connection, self._writable)
        except OSError:
            self.close()

    def close(self) -> None:
        """End it."""
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        self._gone(self)

    def _writable(self) -> None:
        self._loop.remove_writer(self._connection)
        self._blocked = False
        self.send()

    def _heard(self) -> None:
        """What a reader says means nothing; when it has gone, so has the connection."""
        try:
            if self._connection.recv(CHUNK):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

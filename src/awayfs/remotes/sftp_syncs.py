"""Making names in directories durable, where the server lets us ask for it.

The draft has no such request, but OpenSSH opens a directory for reading like a file, and
fsync@openssh.com takes that handle. A refusal is final for this session.
"""

from __future__ import annotations

import asyncio
import time

from awayfs.core.errors import NotFound, Refused, RemoteError, Unreachable
from awayfs.core.types import RemotePath
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_errors import Failed
from awayfs.remotes.sftp_paths import BELIEVED_S


class DirectorySyncs:
    """Syncs over one channel, shared by those who want the same one.

    Many files go into one directory. Each waits for a sync that began after its own change, which
    is the next one, not the one under way. As long as one follows the other, the directory stays
    open; it is opened anew as often as ``Paths`` asks where it is.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._possible = True
        self._next: dict[RemotePath, asyncio.Future[None]] = {}
        self._busy: set[RemotePath] = set()

    async def sync(self, path: RemotePath) -> None:
        """Return when what was changed in a directory by now is durable, or cannot be made so."""
        if not self._possible:
            return
        told = self._next.get(path)
        if told is None:
            told = self._next[path] = asyncio.get_running_loop().create_future()
        if path not in self._busy:
            self._busy.add(path)
            self._channel.spawn(self._serve(path))
        await asyncio.shield(told)

    async def _serve(self, path: RemotePath) -> None:
        """One sync after the other, while anybody waits."""
        under_way: list[asyncio.Future[None]] = []
        error: RemoteError | None = Unreachable("the session was closed")
        try:
            while path in self._next:
                await self._while_open(path, under_way)
            error = None
        except (Refused, NotFound) as refusal:
            # a directory that may be written but not read, or is gone; or there is no fsync
            self._possible = self._possible and not isinstance(refusal, Failed)
            error = None
        except RemoteError as lost:
            error = lost
        finally:
            self._busy.discard(path)
            for told in (*under_way, self._next.pop(path, None)):
                if told is not None and not told.done():
                    _tell(told, error)

    async def _while_open(self, path: RemotePath, under_way: list[asyncio.Future[None]]) -> None:
        until = time.monotonic() + BELIEVED_S
        async with self._channel.opened(path, packets.FOR_READING) as handle:
            while path in self._next:
                synced = self._channel.fsync(handle)
                under_way.append(self._next.pop(path))  # who comes now waits for another one
                await synced
                _tell(under_way.pop(), None)
                if time.monotonic() > until:
                    return


def _tell(told: asyncio.Future[None], error: RemoteError | None) -> None:
    if error is None:
        told.set_result(None)
    else:
        told.set_exception(error)
        told.exception()  # who waited may have been cancelled

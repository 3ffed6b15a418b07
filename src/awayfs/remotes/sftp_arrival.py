"""What is looked at as soon as SFTP runs, all in one round trip: the root, and what shows that it
is the one we know. And what an earlier session left is kept from acting any more.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from awayfs.core.errors import NotFound, Refused
from awayfs.core.types import Entry, Kind, RemotePath
from awayfs.remotes.names import fence_name
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_entries import parent
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_view import View


class Arrived(Struct, frozen=True):
    """The root and its file system, the witnesses that stand there, and what the answers took."""

    root: Entry
    fsid: int | None
    seen: dict[RemotePath, Entry]
    took_s: float


class Arrival:
    """Looks, over whichever channel: by the root's name, or by its real path."""

    def __init__(
        self, client: str, witnesses: Sequence[RemotePath], tick: Callable[[float], None]
    ) -> None:
        self._client = client
        self._witnesses = witnesses
        self._tick = tick

    async def look(self, channel: Channel, clock: ServerClock) -> Arrived:
        """One round trip. Raises ``RemoteError`` where the root is not there."""
        paths = Paths(channel)
        asked_s = time.monotonic()
        view = View(channel, clock, paths, self._tick, self._client)
        there, root, closed, *seen = await asyncio.gather(
            paths.root_is_there(),
            view.stat(b""),
            self._close_way(channel),
            *(_witness(view, paths, path) for path in self._witnesses),
            return_exceptions=True,
        )
        if isinstance(root, Entry) and root.kind is not Kind.DIRECTORY:
            place = channel.absolute(b"").decode(errors="backslashreplace")
            raise Refused(errno.ENOTDIR, f"{place}: not a directory")
        for answer in (there, root, closed, *seen):
            if isinstance(answer, BaseException):
                raise answer
        assert isinstance(root, Entry)
        stand = zip(self._witnesses, seen, strict=True)
        entries = {path: entry for path, entry in stand if isinstance(entry, Entry)}
        return Arrived(root, paths.fsid, entries, time.monotonic() - asked_s)

    async def _close_way(self, channel: Channel) -> None:
        """No program of an earlier session acts any more, which may be held up and not know of its
        end: what it was asked is settled next.
        """
        with suppress(NotFound, Refused):  # where we may not, it may not either
            await channel.unlink(fence_name(self._client))


async def _witness(view: View, paths: Paths, path: RemotePath) -> Entry | None:
    look = view.look(path)
    try:
        await paths.inside(parent(path))
        return await view.seen(look)
    except (NotFound, Refused):
        return None

"""Looking: what stands at a path, and what is in a directory."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from msgspec import Struct

from awayfs.core.errors import Implausible, NotFound, Refused
from awayfs.core.types import Entry, Kind, RemotePath
from awayfs.remotes.names import is_hidden, is_linux_name
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_entries import basename, entry_of, join, kind_of
from awayfs.remotes.sftp_errors import BadMessage, Failed
from awayfs.remotes.sftp_packets import Attributes
from awayfs.remotes.sftp_paths import Paths

TARGETS_AHEAD = 32
"""Symlink targets read at once while listing."""

LARGEST_SIZE = (1 << 63) - 1
"""Of a file on Linux (off_t), and of a number in the database."""

TRIES = 4
"""Looks at a path that changes its kind while we look, before we give up."""


class Look(Struct, frozen=True):
    """A look at a path that is on its way."""

    path: RemotePath
    sent_ns: int
    attrs: Awaitable[Attributes]


class View:
    """Reads entries over one channel; tokens are weak or strong by ``clock``."""

    def __init__(
        self,
        channel: Channel,
        clock: ServerClock,
        paths: Paths,
        tick: Callable[[float], None],
        client: str = "",
    ) -> None:
        self._channel = channel
        self._paths = paths
        self._clock = clock
        self._tick = tick
        self._client = client

    def look(self, path: RemotePath) -> Look:
        """Begin to look: the request is on its way, among others of the caller's."""
        return Look(path, time.monotonic_ns(), self._channel.lstat(path))

    async def stat(self, path: RemotePath) -> Entry:
        """The object itself; raises ``NotFound`` where the server says there is none."""
        return await self.seen(self.look(path))

    async def seen(self, look: Look) -> Entry:
        """As ``stat``, of a look that was begun."""
        for _ in range(TRIES):
            path, attrs = look.path, await look.attrs
            if kind_of(attrs) is not Kind.SYMLINK:
                return self.entry(path, attrs, look.sent_ns)
            try:
                target = await self._channel.readlink(path)
                return self.entry(path, attrs, look.sent_ns, target)
            except (Failed, BadMessage):
                look = self.look(path)  # no symlink any more
        raise Implausible("a path that changes its kind each time we look")

    async def find(self, path: RemotePath) -> Entry | None:
        """Like ``stat``, None for absence, which counts only below a root that is there."""
        return await self.found(self.look(path))

    async def found(self, look: Look) -> Entry | None:
        """As ``find``, of a look that was begun."""
        try:
            return await self.seen(look)
        except NotFound:
            await self._paths.root_is_there()
            return None

    def entry(
        self, path: RemotePath, attrs: Attributes, sent_ns: int, target: bytes | None = None
    ) -> Entry:
        """The entry for attributes whose request left at ``sent_ns``."""
        if kind_of(attrs) is None or attrs.size is None or attrs.mtime is None:
            raise Implausible("the server left out type, size or time")
        if attrs.size > LARGEST_SIZE:
            raise Implausible(f"the server tells of a file of {attrs.size} bytes")
        weak = self._clock.weak(path, attrs.mtime, sent_ns, time.monotonic_ns())
        return entry_of(basename(path), attrs, target=target, weak=weak)

    async def _check_searchable(self, path: RemotePath) -> None:
        """Raise if the directory could be read but not searched.

        OpenSSH leaves out each name whose lstat fails, and says nothing. In a directory
        without ``x`` these are all names, ``.`` included: an empty listing that is a lie.
        """
        try:
            await self._channel.lstat(join(path, b"."))
        except NotFound as error:
            raise Implausible("the directory went away while it was listed") from error
        except Refused as error:
            raise Refused(errno.EACCES, "the directory's names may not be looked at") from error

    async def _entries(
        self, path: RemotePath, found: dict[bytes, Attributes], sent: int
    ) -> list[Entry]:
        entries: list[Entry] = []
        symlinks: list[RemotePath] = []
        for name, attrs in found.items():
            kind = kind_of(attrs)
            if kind is None and attrs.permissions is None:
                raise Implausible("the server lists names without attributes")
            if kind is Kind.SYMLINK:
                symlinks.append(join(path, name))
            elif kind is not None:  # a Solaris door and the like cannot be shown here
                entries.append(self.entry(join(path, name), attrs, sent))
        for start in range(0, len(symlinks), TARGETS_AHEAD):
            looked = await asyncio.gather(*map(self.find, symlinks[start : start + TARGETS_AHEAD]))
            entries.extend(entry for entry in looked if entry is not None)
            if None in looked:
                # Gone since, or out of reach because the directory has another name by now.
                await self._channel.lstat(path)
            self._tick(0)
        return entries

    async def list(self, path: RemotePath) -> list[Entry]:
        """All entries, or an error. See ``_check_searchable`` for one way servers lie."""
        sent = time.monotonic_ns()
        found: dict[bytes, Attributes] = {}
        dotted = False
        async with aclosing(self._channel.readdir(path)) as blocks:
            async for block in blocks:
                self._tick(0)
                for item in block:
                    name = item.filename
                    dotted = dotted or name == b"."
                    if is_linux_name(name) and not is_hidden(name, self._client):
                        found[name] = item.attrs
        if not dotted:
            await self._check_searchable(path)
        return await self._entries(path, found, sent)

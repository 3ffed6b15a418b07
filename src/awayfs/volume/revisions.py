"""Reading one revision of a file, whichever one, from wherever it is.

A revision is put together from what is here (base files, clean cached content, variants of
conflicts) and, while connected, from the server, which is asked only for what is missing and
believed only as long as it still shows that very revision. What was opened stays as it was
opened: the files are held, and what is fetched goes to a nameless file of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from awayfs.core.errors import (
    EDISCONDATA,
    AuthenticationRequired,
    NotFound,
    Refused,
    RemoteError,
    Unreachable,
)
from awayfs.core.types import Entry, NodeId, Range
from awayfs.store.ranges import RangeMap
from awayfs.volume.context import Context
from awayfs.volume.held import Held

WINDOW = 1 << 20
"""The least that is fetched at once, if there is so much."""


class Found(Struct, frozen=True):
    """Content that is here: a file that never changes, or with ``node`` a cache file."""

    path: str
    ranges: list[Range]
    node: NodeId | None = None


class There(Struct, frozen=True):
    """Where the server has the revision, as long as it shows ``token`` there."""

    path: Callable[[], bytes | None]
    token: bytes
    moved_on: int = errno.ESTALE  # the errno when it shows another one


class _Source(Struct):
    ranges: RangeMap
    plain: int = -1
    held: Held | None = None

    @property
    def fd(self) -> int:
        return self.held.fd if self.held is not None else self.plain


class Revision:
    """One opened revision; ``close`` it."""

    def __init__(
        self, context: Context, size: int, found: Iterable[Found], there: There | None
    ) -> None:
        self.size = size
        self._context = context
        self._there = there
        self._sources: list[_Source] = []
        self._landing: _Source | None = None
        self._lock = asyncio.Lock()
        self._readers = 0
        self._closed = False
        try:
            for one in found:
                self._sources.append(_opened(context, one))
        except BaseException:
            self.close()
            raise

    def read(self, offset: int, size: int) -> bytes | Awaitable[bytes]:
        """Up to ``size`` bytes; short only at the end. EDISCONDATA for what cannot be had."""
        end = min(offset + size, self.size)
        if end <= offset:
            return b""
        if self._missing(offset, end):
            self._readers += 1  # from now on: it may be closed before the read begins
            return self._read_fetched(offset, end)
        return self._assembled(offset, end)

    def close(self) -> None:
        """Let go of all files; the last read under way does, as it writes to one by its number."""
        self._closed = True
        if not self._readers:
            self._let_go()

    def _let_go(self) -> None:
        for source in self._sources:
            if source.held is not None:
                self._context.held.close(source.held)
            else:
                os.close(source.plain)
        self._sources.clear()

    async def _read_fetched(self, offset: int, end: int) -> bytes:
        try:
            async with self._lock:
                for gap in self._missing(offset, end):
                    wide = min(max(gap.end, gap.start + WINDOW), self.size)
                    wanted = self._missing(gap.start, wide)
                    if wanted and wanted[0].start == gap.start:
                        await self._fetch(wanted[0])
            return self._assembled(offset, end)
        finally:
            self._readers -= 1
            if self._closed and not self._readers:
                self._let_go()

    def _missing(self, offset: int, end: int) -> list[Range]:
        gaps = [Range(offset, end)]
        for source in self._sources:
            gaps = [part for gap in gaps for part in source.ranges.missing(gap.start, gap.end)]
        return gaps

    def _assembled(self, offset: int, end: int) -> bytes:
        parts: list[bytes] = []
        while offset < end:
            source, until = self._longest(offset, end)
            data = os.pread(source.fd, until - offset, offset)
            if not data:
                raise OSError(errno.EIO, "a file of the cache is shorter than it should be")
            parts.append(data)
            offset += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _longest(self, offset: int, end: int) -> tuple[_Source, int]:
        best, until = None, offset
        for source in self._sources:
            gaps = source.ranges.missing(offset, end)
            reach = gaps[0].start if gaps else end
            if reach > until:
                best, until = source, reach
        if best is None:
            raise OSError(errno.EIO, "the server sent less than it has")
        return best, until

    async def _fetch(self, wanted: Range) -> None:
        there = self._there
        path = there.path() if there is not None else None
        if there is None or path is None:
            raise OSError(EDISCONDATA, "this part of the content is not here")
        landing = self._landed()
        size = wanted.end - wanted.start
        try:
            fetched = await self._context.link.call(
                lambda remote: remote.fetch(path, wanted.start, size, landing.fd)
            )
        except RemoteError as error:
            raise os_error(error, there.moved_on) from error
        if fetched.entry.token != there.token:
            raise OSError(there.moved_on, "the server has another revision by now")
        landing.ranges.add(wanted.start, wanted.start + fetched.length)

    def _landed(self) -> _Source:
        if self._landing is None:
            directory = os.path.dirname(self._context.store.content.stage_path())
            fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self._landing = _Source(RangeMap(), fd)
            self._sources.append(self._landing)
        return self._landing


def _opened(context: Context, found: Found) -> _Source:
    pairs = [(r.start, r.end) for r in found.ranges]
    if found.node is not None:
        return _Source(RangeMap(pairs), held=context.held.open(found.node, found.ranges))
    return _Source(RangeMap(pairs), os.open(found.path, os.O_RDONLY | os.O_CLOEXEC))


def os_error(error: RemoteError, gone: int) -> OSError:
    """What a program is told; ``gone`` is the errno where the server has it no more."""
    if isinstance(error, Unreachable | AuthenticationRequired):
        return OSError(EDISCONDATA, f"not in the cache, and the server is away: {error}")
    if isinstance(error, NotFound):
        return OSError(gone, "it is gone from the server")
    if isinstance(error, Refused):
        return OSError(error.errno, str(error))
    return OSError(errno.EIO, f"the server did not give it: {error}")


class Revisions:
    """What is here of which revision."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def base(self, node: NodeId) -> tuple[list[Found], There | None]:
        """Of the revision that changes here are based on; the server may still have the rest."""
        base = self._store.server.get(node)
        if base is None:
            return [], None
        return self.of_token(node, base.token), self.base_there(node, base.token)

    def base_there(self, node: NodeId, token: bytes) -> There:
        """Where the rest of a base may still be had."""
        return There(lambda: self._store.server.path(node), token, EDISCONDATA)

    def local(self, node: NodeId) -> list[Found]:
        """Of what a program sees under the plain name."""
        content = self._store.content
        if not content.has(node):
            return []
        opened = self._context.opened.get(node)
        ranges = content.ranges(node)
        if opened is not None and opened.whole:  # its size may not be written down yet
            ranges = [Range(0, opened.size)]
        return [Found(content.fd_path(node), ranges, node)]

    def on_server(self, node: NodeId | None, entry: Entry) -> list[Found]:
        """Of ``entry``, which the server has; ``node`` is what it is known as here.

        A weak token does not prove that what is here is that revision, so the server is asked
        while it can be.
        """
        if node is None or (entry.weak and self._context.link.usable):
            return []
        return self.of_token(node, entry.token)

    def of_token(self, node: NodeId, token: bytes) -> list[Found]:
        """All files here that hold ranges of the revision ``token`` of a node."""
        content = self._store.content
        found: list[Found] = []
        path = content.base_path(node)
        if path is not None and content.base_token(node) == token:
            found.append(Found(path, content.base_ranges(node)))
        changed = path is not None or self._store.journal.has_store(node)
        if content.has(node) and not changed and content.token(node) == token:
            found.append(Found(content.fd_path(node), content.ranges(node), node))
        for conflict in self._store.conflicts.of_node(node):
            entry = conflict.server_entry
            if entry is None or entry.token != token or conflict.server_variant is None:
                continue
            if conflict.server_complete:
                found.append(Found(conflict.server_variant, [Range(0, entry.size)]))
        return [one for one in found if os.path.exists(one.path)]


def is_whole(found: Iterable[Found], size: int) -> bool:
    """Whether everything is here."""
    gaps = [Range(0, size)] if size else []
    for one in found:
        held = RangeMap((r.start, r.end) for r in one.ranges)
        gaps = [part for gap in gaps for part in held.missing(gap.start, gap.end)]
    return not gaps


def state_of(found: list[Found], size: int) -> str:
    """``clean``, ``partial`` or ``placeholder``: how much of a revision is here."""
    if is_whole(found, size):
        return "clean"
    return "partial" if any(one.ranges for one in found) else "placeholder"

"""Content from server to cache, range by range.

A range counts as cached only after it was written *and* the server showed, after the read,
the very revision that the other ranges belong to. When it shows another one, what is cached
of a clean file is dropped and fetched anew; a dirty file keeps what it has and the reader
gets ECONFLICTED: its missing part can no longer be told.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice

from msgspec import Struct, field

from awayfs.core.errors import (
    ECONFLICTED,
    EDISCONDATA,
    AuthenticationRequired,
    Implausible,
    NotFound,
    Refused,
    RemoteError,
    Unreachable,
)
from awayfs.core.types import NodeId, Range
from awayfs.ports.remote import Fetched, Landed, Piece
from awayfs.store.nodes import Node
from awayfs.store.server import ServerNode
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.meter import Way
from awayfs.volume.observe import Observer
from awayfs.volume.room import Room
from awayfs.volume.slices import Slices
from awayfs.volume.suspects import stands_for

log = logging.getLogger(__name__)

FIRST_WINDOW = 256 << 10
LARGEST_WINDOW = 8 << 20
SMALLEST_WINDOW = 64 << 10
AHEAD_S = 2.0
"""What is read ahead over a thin link comes within so long."""
TRIES = 4
COMMITTED_TOGETHER = 32
"""Small files in one transaction; it is a few milliseconds' work."""
LOST = (
    "this part was never here, and the server has replaced the version that was changed here; "
    "awayfs resolve PATH --keep both saves what is known"
)
NAMELESS = "this part was never here, and the file was removed"
NOWHERE = "content is neither here nor on the server"
NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
"""What a server says of a path at which something else than a file stands by now."""


class _Progress(Struct):
    """What is known of how a node is being read; one fetch a node at a time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_offset: int = -1
    window: int = FIRST_WINDOW
    users: int = 0


class Fetcher:
    """Brings ranges into the cache and reads ahead of whoever reads in order."""

    def __init__(self, context: Context, observer: Observer, room: Room) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._room = room
        self._progress: dict[NodeId, _Progress] = {}
        self._first = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def ensure(
        self,
        node: NodeId,
        start: int,
        end: int,
        *,
        ahead: bool = False,
        use: Callable[[], None] = lambda: None,
    ) -> None:
        """Have bytes ``start`` to ``end`` of a node cached, or raise OSError.

        EDISCONDATA when the server is away; what the server refuses with is passed on; EIO
        when the server's answers contradict each other. With ``ahead``, more is fetched for
        a reader that goes on where it left off. ``use`` is called at the moment when all of it
        is here: another reader, or a change on the server, may make it go again at once.
        """
        progress = self._progress.setdefault(node, _Progress())
        progress.users += 1
        try:
            async with progress.lock:
                if ahead:
                    end = self._widen(progress, node, start, end)
                with self._before_others() if ahead else nullcontext():
                    await self._fill(node, start, end)
                    use()
        finally:
            progress.users -= 1
            if not progress.users and self._context.opened.get(node) is None:
                self._progress.pop(node, None)

    def closed(self, node: NodeId) -> None:
        """Nobody reads the node any more: where the next reader goes on is not known."""
        progress = self._progress.get(node)
        if progress is not None and not progress.users:
            del self._progress[node]

    def is_whole(self, node: Node) -> bool:
        """Whether every byte of a file is here."""
        opened = self._context.opened.get(node.id)
        if opened is not None and opened.whole:
            return True
        return self._store.content.covers(node.id, 0, node.size)

    async def whole(self, node: NodeId, *, first: bool = False) -> int:
        """Have the whole content cached; the bytes that were fetched for it.

        What is fetched ``first`` keeps hoard walks waiting (``calm``), as a user's read does.
        """
        if first:
            with self._before_others():
                return await self._whole(node)
        return await self._whole(node)

    async def whole_to_send(self, node: NodeId, *, first: bool = False) -> None:
        """Have all of a file whose change is being sent, whatever the size limit of the cache."""
        with self._room.sending(node):
            await self.whole(node, first=first)

    async def calm(self) -> None:
        """Wait until nothing is fetched that somebody waits for."""
        await self._calm.wait()

    @contextmanager
    def _before_others(self) -> Iterator[None]:
        self._first += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._first -= 1
            if not self._first:
                self._calm.set()

    async def _whole(self, node: NodeId) -> int:
        fetched = 0
        offset = 0
        while (current := self._context.node(node)) is not None and offset < current.size:
            end = min(offset + LARGEST_WINDOW, current.size)
            missing = self._missing(node, offset, end)
            await self.ensure(node, offset, end)
            fetched += sum(r.end - r.start for r in missing)
            offset = end
        return fetched

    async def whole_while_open(self, node: NodeId) -> None:
        """Have all of a file that somebody has open, or as much as is there when he closes it."""
        offset, content = 0, self._store.content
        while (opened := self._context.opened.get(node)) is not None and not opened.whole:
            missing = content.missing(node, offset, opened.size)
            if not missing:
                return
            offset = min(missing[0].start + LARGEST_WINDOW, missing[0].end)
            await self.ensure(node, missing[0].start, offset)

    def _widen(self, progress: _Progress, node: NodeId, start: int, end: int) -> int:
        if start == progress.next_offset:
            progress.window = min(progress.window * 2, LARGEST_WINDOW)
        else:
            progress.window = FIRST_WINDOW
        for most in (self._room.window(), self._shortly()):
            if most is not None:
                progress.window = min(progress.window, most)
        current = self._context.node(node)
        size = current.size if current else end
        end = max(end, min(start + progress.window, size))
        progress.next_offset = end
        return end

    def _shortly(self) -> int | None:
        """Bytes that a reader does not wait long for; None where that is not known."""
        speed = self._context.link.meter.bytes_s(Way.DOWN)
        return None if speed is None else max(SMALLEST_WINDOW, int(speed * AHEAD_S))

    async def _fill(self, node: NodeId, start: int, end: int) -> None:
        for _ in range(TRIES):
            current = self._context.node(node)
            if current is None:
                raise OSError(errno.ESTALE, "the file is gone")
            missing = self._missing(node, start, min(end, current.size))
            if not missing:
                self._note_whole(node)
                return
            await self._old_pages_gone(node)
            base = self._store.server.get(node)
            path = self._observer.place(node)
            if base is None or path is None:
                raise self._lost(node) or OSError(errno.EIO, NOWHERE)
            try:
                self._context.link.require()  # else others would make room for nothing
            except Unreachable as error:
                raise self._as_os_error(node, error) from error
            wanted = sum(r.end - r.start for r in missing)
            await self._room.make_or_wait(wanted, node, fetching=True)
            for gap in missing:
                if not await self._fetch(node, path, base, gap.start, gap.end):
                    break
        else:
            raise OSError(errno.EIO, "the file keeps changing on the server")

    async def _old_pages_gone(self, node: NodeId) -> None:
        """A part of a newer version comes when what a program wrote to the older one is here."""
        opened = self._context.opened.get(node)
        if opened is None or not opened.outdated:
            return
        await self._context.pages.over(opened)
        if opened.outdated and self._context.opened.get(node) is opened:
            raise OSError(errno.EIO, "a newer version is being taken over")

    async def _fetch(
        self, node: NodeId, path: bytes, base: ServerNode, start: int, end: int
    ) -> bool:
        """One range; False when the file turned out to be another revision."""
        fd = self._landing()
        try:
            try:
                began = time.monotonic()
                with self._context.link.meter.moving(Way.DOWN) as moved:
                    fetched = await self._context.link.call(
                        lambda remote: remote.fetch(path, start, end - start, fd)
                    )
                    moved.bytes = fetched.length
                self._room.fetched(fetched.length, time.monotonic() - began)
            except RemoteError as error:
                if await self._is_elsewhere(node, path, error):
                    return False
                self._context.refusals.note(node, error)
                raise self._as_os_error(node, error) from error
            self._context.refusals.note(node, None)
            if self._observer.is_another(node, path, fetched.entry):
                return False
            if self._observer.place(node) != path:
                return False  # renamed meanwhile: another may have stood there
            return self._take(node, base, Range(start, end), fetched, fd)
        finally:
            os.close(fd)

    async def fetch_small(self, wanted: Mapping[NodeId, ServerNode]) -> list[NodeId]:
        """Have small files whole, all with one call; those that are not, or in doubt, after it.

        ``wanted`` says of each which revision of it is meant. Raises as ``ensure``.
        """
        pieces, offset = {}, 0
        for node, path in self._observer.places(wanted):
            pieces[node] = Piece(path, wanted[node].size, offset)
            offset += wanted[node].size
        await self._room.make_or_wait(offset, next(iter(pieces), 0), fetching=True)
        fd = self._landing()
        try:
            landed = await self._land(list(pieces.values()), fd)
            slices = Slices()
            came = zip(pieces.items(), landed, strict=True)
            while batch := list(islice(came, COMMITTED_TOGETHER)):
                with self._store.transaction():
                    for (node, piece), one in batch:
                        if one is not None and one.length == piece.length:
                            self._take_small(node, wanted[node], piece, one.token, fd)
                await slices.pause()
        finally:
            os.close(fd)
        content, is_suspect = self._store.content, self._observer.is_suspect
        return [
            node
            for node, base in wanted.items()
            if not content.covers(node, 0, base.size) or is_suspect(node)
        ]

    async def _land(self, pieces: list[Piece], fd: int) -> Sequence[Landed | None]:
        try:
            with self._context.link.meter.moving(Way.DOWN) as moved:
                came = await self._context.link.call(lambda remote: remote.fetch_many(pieces, fd))
                moved.bytes = sum(one.length for one in came if one is not None)
            return came
        except (Unreachable, AuthenticationRequired) as error:
            raise OSError(EDISCONDATA, f"the server is away: {error}") from error
        except RemoteError as error:  # asking for each of them tells what is wrong with which
            log.info("%d small files did not come together: %s", len(pieces), error)
            return [None] * len(pieces)

    def _take_small(
        self, node: NodeId, base: ServerNode, piece: Piece, token: bytes, landing: int
    ) -> None:
        """One of many, if it is of the wanted revision and nobody changed it here meanwhile."""
        now_base, content = self._store.server.get(node), self._store.content
        if now_base is None or not stands_for(base, now_base) or token != base.token:
            return
        if self._store.journal.has_store(node) or not self._store.nodes.names(node):
            return  # what has no name may have been changed as well
        if content.has(node):
            if content.ranges(node) and content.token(node) != token:
                self._compare_small(node, piece, token, landing)
                if content.ranges(node) and content.token(node) != token:
                    return  # it goes later, and nothing newer is laid beside it
            if content.covers(node, 0, piece.length):
                return
        self._copy_missing(node, base, Range(0, piece.length), landing, piece.offset)
        self._note_whole(node)

    def _compare_small(self, node: NodeId, piece: Piece, token: bytes, landing: int) -> None:
        """Suspect content stays if it is just what came, and goes if not."""
        content = self._store.content
        if content.covers(node, 0, piece.length):
            with open(content.fd_path(node), "rb", buffering=0) as file:
                here = file.read(piece.length + 1)  # what is longer is not the same, either
                same = here == os.pread(landing, piece.length, piece.offset)
            if same:
                content.set_token(node, token)
                return
        self._observer.drop_content(node)

    async def _is_elsewhere(self, node: NodeId, path: bytes, error: RemoteError) -> bool:
        """Whether a file that is not at its path any more was found at another by its id."""
        gone = isinstance(error, Refused) and error.errno in NO_FILE
        if not (gone or isinstance(error, NotFound)):
            return False
        try:
            await self._observer.search(node)
        except RemoteError as failed:
            raise self._as_os_error(node, failed) from failed
        return self._observer.place(node) not in (None, path)

    def _landing(self) -> int:
        """A nameless file that the worker writes into.

        Never the cache file itself: what is written here meanwhile must not be overwritten by
        an answer, least of all by that of a worker which was given up and is not dead yet.
        """
        directory = os.path.dirname(self._store.content.stage_path())
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def _take(
        self, node: NodeId, base: ServerNode, wanted: Range, fetched: Fetched, landing: int
    ) -> bool:
        """Copy what is still missing into the cache file, if it is of the right revision."""
        now_base = self._store.server.get(node)
        if now_base is None or not stands_for(base, now_base):
            return False  # adopted or replayed meanwhile: look again
        if fetched.entry.token != base.token:
            if (lost := self._lost(node)) is not None:
                raise lost
            self._observer.adopt_entry(node, fetched.entry)
            return False
        end = wanted.start + fetched.length
        if end < wanted.end and fetched.entry.size >= wanted.end:
            raise OSError(errno.EIO, "the server sent less than it has")
        if self._store.nodes.get(node) is None or not self._joins(node, base):
            return False
        with self._store.transaction():
            self._copy_missing(node, base, Range(wanted.start, end), landing)
            self._keep_time(node)
            fault("fetch.landed")
        fault("fetch.taken")
        return True

    def _missing(self, node: NodeId, start: int, end: int) -> list[Range]:
        """What is not here. Of a file that is open and whole, the ranges tell of nothing that was
        written since (``opened``): what comes for it now must not be laid over that.
        """
        opened = self._context.opened.get(node)
        whole = opened is not None and opened.whole
        return [] if whole or end <= start else self._store.content.missing(node, start, end)

    def _within(self, node: NodeId, end: int) -> int:
        """Not beyond the end that a file has by now: it may have been cut off meanwhile."""
        current = self._context.node(node)
        return min(end, current.size) if current is not None else end

    def _copy_missing(
        self, node: NodeId, base: ServerNode, wanted: Range, landing: int, shift: int = 0
    ) -> None:
        """What is missing of a range comes out of the landing, where it lies ``shift`` further."""
        content = self._store.content
        fd = content.open(node, token=base.token)
        try:
            if not content.ranges(node):
                content.set_token(node, base.token)
                content.last_used.mark(node, self._context.now())
            for gap in self._missing(node, wanted.start, self._within(node, wanted.end)):
                _copy(landing, fd, gap, shift)
                content.add_range(node, gap.start, gap.end)
        finally:
            os.close(fd)

    def _joins(self, node: NodeId, base: ServerNode) -> bool:
        """Whether what is cached belongs to the revision that is fetched from.

        Of a clean file it is dropped if not; what was changed here keeps what it has, and cannot
        be completed any more.
        """
        content = self._store.content
        token = content.token(node)
        if token is None:  # written to without a name
            token = content.base_token(node)
        if not content.ranges(node) or token == base.token:
            return True
        if (lost := self._lost(node)) is not None:
            raise lost
        self._observer.drop_content(node)
        return False

    def _lost(self, node: NodeId) -> OSError | None:
        """What a reader is told of the gaps of a changed file whose old revision is gone.

        What has no name may have been changed as well, and keeps what it has.
        """
        if self._store.journal.has_store(node):
            return OSError(ECONFLICTED, LOST)
        return None if self._store.nodes.names(node) else OSError(errno.ESTALE, NAMELESS)

    def _keep_time(self, node: NodeId) -> None:
        """The cache file of a changed node tells its time, not that of a fetch (``opened``)."""
        if self._store.journal.has_store(node):
            current = self._context.node(node)
            assert current is not None
            self._store.content.stamp(node, current.mtime_ns)

    def _note_whole(self, node: NodeId) -> None:
        opened = self._context.opened.get(node)
        if opened is not None and not opened.whole:
            opened.whole = self._store.content.covers(node, 0, opened.size)

    def _as_os_error(self, node: NodeId, error: RemoteError) -> OSError:
        failure = self._failure(node, error)
        self._context.on_fetch_failed(node, failure.strerror or str(failure))
        return failure

    def _failure(self, node: NodeId, error: RemoteError) -> OSError:
        if isinstance(error, Unreachable | AuthenticationRequired):
            text = f"not in the cache, and the server is away: {error}"
            return self._context.refusals.missing(node, EDISCONDATA, text)
        if isinstance(error, NotFound):
            self._observer.look_again(node)
            if (lost := self._lost(node)) is not None:
                return lost
            return OSError(errno.ESTALE, "the file is gone from the server")
        if isinstance(error, Refused):
            return OSError(error.errno, str(error))
        if isinstance(error, Implausible):
            return OSError(errno.EIO, str(error))
        return OSError(errno.EIO, f"the server did not give the content: {error}")


def _copy(source: int, target: int, gap: Range, shift: int) -> None:
    offset = gap.start
    while offset < gap.end:
        copied = os.copy_file_range(source, target, gap.end - offset, offset + shift, offset)
        if copied == 0:
            raise OSError(errno.EIO, "what was fetched is not all there")
        offset += copied

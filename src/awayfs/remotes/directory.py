"""``dir:``: any directory of this machine as a remote, kernel network mounts above all.

Calls block, so they run in threads: a few for bulk transfer and some more for metadata, which
therefore never waits for bulk. The adapter is meant to live in a worker process of its own
(``isolated``) that can be killed when a mount hangs; by itself it has no deadlines.

A failure of the caller's own cache file in ``fetch`` and ``stage`` is raised as ``OSError``.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from msgspec.structs import replace

from awayfs.core.errors import Implausible, NotFound, Refused, Unreachable
from awayfs.core.types import (
    Attributes,
    Committed,
    Digest,
    Entry,
    Expected,
    Kind,
    Mismatch,
    OpId,
    Outcome,
    RemotePath,
    Space,
)
from awayfs.ports.remote import (
    Capabilities,
    Connected,
    Fetched,
    Guard,
    Intent,
    Landed,
    Listing,
    Piece,
    Put,
)
from awayfs.remotes import directory_attributes as attributes_of
from awayfs.remotes import directory_content as content
from awayfs.remotes import directory_probe, linux, pacing, progress
from awayfs.remotes.directory_exchange import Exchanger
from awayfs.remotes.directory_guarded import Guarded
from awayfs.remotes.directory_listing import list_directory
from awayfs.remotes.directory_making import Maker
from awayfs.remotes.directory_moves import Mover, satisfies
from awayfs.remotes.directory_settle import Settler
from awayfs.remotes.directory_tree import Tree, translate
from awayfs.remotes.fingerprint import listing
from awayfs.remotes.putting import put_each, put_in_steps

METADATA_THREADS = 16
BULK_THREADS = 4
READ_THREADS = 4
"""Of their own, for what somebody reads: uploads may have long to go."""
BACKGROUND_THREADS = 2
DIGEST_ATTEMPTS = 3

P = ParamSpec("P")
T = TypeVar("T")


class DirectoryRemote:
    """The directory ``root`` (absolute path) as a ``Remote``."""

    def __init__(self, root: bytes, client: str = "") -> None:
        self._root = root
        self._client = client
        self._tree = Tree(root)
        self._mover = Mover(self._tree)
        self._guarded = Guarded(self._tree, self._mover)
        self._maker = Maker(self._tree, self._mover)
        self._settler = Settler(self._tree, self._mover)
        self._exchanger = Exchanger(self._tree, self._mover)
        self._exchanges_in_one = True
        self._open_pools()

    def _open_pools(self) -> None:
        self._metadata = ThreadPoolExecutor(METADATA_THREADS, "metadata")
        self._bulk = ThreadPoolExecutor(BULK_THREADS, "bulk")
        self._reads = ThreadPoolExecutor(READ_THREADS, "reads")
        self._background = ThreadPoolExecutor(BACKGROUND_THREADS, "background")
        self._closed = False

    async def connect(self, witnesses: Sequence[RemotePath] = ()) -> Connected:
        """Look at the root, and find out what its file system can do."""
        if self._closed:
            self._open_pools()
        return await self._run(self._connect)

    async def close(self) -> None:
        """Let the threads go; calls under way end on their own."""
        self._closed = True
        self._metadata.shutdown(wait=False, cancel_futures=True)
        self._bulk.shutdown(wait=False, cancel_futures=True)
        self._reads.shutdown(wait=False, cancel_futures=True)
        self._background.shutdown(wait=False, cancel_futures=True)

    async def probe(self) -> None:
        """Ask for the root's attributes, past all caches."""
        await self._run(self._probe)

    async def stat(self, path: RemotePath) -> Entry:
        """See the port."""
        return await self._run(self._stat, path)

    async def list(self, path: RemotePath) -> list[Entry]:
        """See the port."""
        return await self._run(list_directory, self._tree, path, self._client)

    async def list_unless(self, path: RemotePath, fingerprint: bytes) -> Listing:
        """See the port."""
        return listing(await self.list(path), fingerprint)

    async def fetch(self, path: RemotePath, offset: int, length: int, fd: int) -> Fetched:
        """See the port; the entry is that of the open file, after the read."""
        pool = self._background if pacing.unasked.get() else self._reads
        return await self._in_thread(pool, lambda: self._fetch(path, offset, length, fd))

    async def fetch_many(self, pieces: Sequence[Piece], fd: int) -> Sequence[Landed | None]:
        """See the port; one after the other, in a thread that no ``fetch`` waits for."""
        return await self._in_thread(self._background, lambda: self._fetch_many(pieces, fd))

    async def digest(self, path: RemotePath) -> Digest:
        """See the port; ``Implausible`` if the file keeps changing while it is read."""
        return await self._run_bulk(self._digest, path)

    async def stage(
        self,
        op: OpId,
        directory: RemotePath,
        fd: int,
        size: int,
        attributes: Attributes,
        start: int = 0,
        token: bytes = b"",
    ) -> Entry:
        """See the port."""
        return await self._run_bulk(
            self._maker.stage, op, directory, fd, size, attributes, start, token
        )

    async def stage_part(
        self, op: OpId, directory: RemotePath, fd: int, start: int, end: int, token: bytes = b""
    ) -> Entry | None:
        """See the port."""
        return await self._run_bulk(self._maker.stage_part, op, directory, fd, start, end, token)

    async def replace(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """See the port; ``NotFound`` also when nothing is staged."""
        return await self._run(self._guarded.replace, op, path, expected)

    async def put(
        self,
        op: OpId,
        path: RemotePath,
        content: bytes,
        attributes: Attributes,
        expected: Expected,
    ) -> Outcome:
        """See the port."""
        return await put_in_steps(self, op, path, content, attributes, expected)

    async def put_many(self, puts: Sequence[Put]) -> Sequence[Outcome | Exception]:
        """See the port."""
        return await put_each(self, puts)

    async def discard_staged(self, op: OpId, directory: RemotePath) -> None:
        """See the port."""
        await self._run(self._maker.discard_staged, op, directory)

    async def make(
        self,
        op: OpId,
        path: RemotePath,
        kind: Kind,
        attributes: Attributes,
        target: bytes = b"",
        rdev: int = 0,
    ) -> Outcome:
        """See the port."""
        return await self._run(self._maker.make, op, path, kind, attributes, target, rdev)

    async def link(self, op: OpId, source: RemotePath, path: RemotePath) -> Outcome:
        """See the port."""
        return await self._run(self._maker.link, source, path)

    async def remove(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """See the port."""
        return await self._run(self._guarded.remove, op, path, expected)

    async def rename(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        source_expected: Expected,
        path_expected: Expected,
    ) -> Outcome:
        """See the port."""
        return await self._run(
            self._guarded.rename, op, source, path, source_expected, path_expected
        )

    async def exchange(
        self,
        op: OpId,
        a: RemotePath,
        b: RemotePath,
        a_expected: Expected,
        b_expected: Expected,
    ) -> Outcome:
        """See the port."""
        if self._exchanges_in_one:
            return await self._run(self._guarded.exchange, a, b, a_expected, b_expected)
        return await self._run(self._exchanger.take_aside, op, a, b, a_expected, b_expected)

    async def set_attributes(
        self, path: RemotePath, attributes: Attributes, expected: Expected
    ) -> Outcome:
        """See the port. The object that was compared is the one that is changed."""
        return await self._run(self._set_attributes, path, attributes, expected)

    async def xattrs(self, path: RemotePath) -> dict[bytes, bytes]:
        """See the port."""
        return await self._run(self._xattrs, path)

    async def set_xattr(
        self, path: RemotePath, name: bytes, value: bytes | None, expected: Expected | None
    ) -> Outcome:
        """See the port; ``Refused(ENODATA)`` when there is none to remove."""
        return await self._run(self._set_xattr, path, name, value, expected)

    async def space(self) -> Space:
        """See the port."""
        return await self._run(self._space)

    async def settle(self, intent: Intent) -> None:
        """See the port, and the tables in ``directory_settle`` and ``directory_exchange``."""
        settler = self._exchanger if intent.crossing else self._settler
        await self._run(settler.settle, intent)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._in_thread(self._metadata, lambda: function(*args, **kwargs))

    async def _run_bulk(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._in_thread(self._bulk, lambda: function(*args, **kwargs))

    async def _in_thread(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        """Run a call in a thread and translate its errno.

        A thread cannot be stopped from outside: when the caller is cancelled, the next tick
        of the call raises, and the cancellation is passed on once the thread has let go of
        the caller's descriptor.
        """
        if self._closed:
            raise Unreachable("closed")
        stop = _Stop()
        context = contextvars.copy_context()
        context.run(stop.listen)
        work = pool.submit(context.run, _translated, call)
        future = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.wanted = True
            if not work.cancel():  # an asyncio future would say yes, with the thread running on
                await asyncio.wait([future])
                if not future.cancelled():
                    future.exception()  # seen; the caller hears of the cancellation alone
            raise

    def _connect(self) -> Connected:
        root, facts = self._tree.adopt_root()
        capabilities: Capabilities = directory_probe.probe(self._tree, facts)
        self._mover.can_exchange = capabilities.guard is Guard.SWAP
        self._exchanges_in_one = capabilities.exchange
        return Connected(capabilities, root, root.file_id, os.geteuid(), os.getegid())

    def _probe(self) -> None:
        with self._tree.open_root() as root:
            if linux.statx(root, fresh=True).nlink == 0:
                raise Unreachable(f"{os.fsdecode(self._root)} was removed")

    def _stat(self, path: RemotePath) -> Entry:
        with self._tree.pinned(path) as (fd, name):
            entry = self._entry(fd, name)
            if entry.kind in (Kind.FILE, Kind.DIRECTORY):
                return replace(entry, access=linux.access(fd))
            return entry

    def _entry(self, fd: int, name: bytes) -> Entry:
        return self._tree.entry(fd, name, linux.statx(fd, fresh=True))

    def _fetch(self, path: RemotePath, offset: int, length: int, fd: int) -> Fetched:
        with self._tree.pinned(path) as (pin, name):
            source = _open_file(pin)
            try:
                moved = content.fetch_range(source, fd, offset, length)
                return Fetched(moved, self._entry(source, name))
            finally:
                os.close(source)

    def _fetch_many(self, pieces: Sequence[Piece], fd: int) -> Sequence[Landed | None]:
        return [self._try_small(piece, fd) for piece in pieces]

    def _try_small(self, piece: Piece, fd: int) -> Landed | None:
        progress.tick()
        try:
            return _translated(lambda: self._fetch_small(piece, fd))
        except (NotFound, Refused, Implausible):
            return None

    def _fetch_small(self, piece: Piece, fd: int) -> Landed:
        with self._tree.pinned(piece.path) as (pin, name):
            source = _open_file(pin)
            try:
                moved = content.fetch_small(source, fd, piece.offset, piece.length)
                return Landed(moved, self._entry(source, name).token)
            finally:
                os.close(source)

    def _digest(self, path: RemotePath) -> Digest:
        with self._tree.pinned(path) as (pin, name):
            source = _open_file(pin)
            try:
                for _ in range(DIGEST_ATTEMPTS):
                    before = self._entry(source, name)
                    digest = content.digest_content(source)
                    after = self._entry(source, name)
                    if before.token == after.token:
                        return Digest(after, digest)
            finally:
                os.close(source)
        raise Implausible("the file changes while it is read")

    def _set_attributes(
        self, path: RemotePath, attributes: Attributes, expected: Expected
    ) -> Outcome:
        try:
            with self._tree.pinned(path) as (fd, name):
                current = self._entry(fd, name)
                if not satisfies(current, expected):
                    return Mismatch(current)
                attributes_of.apply(fd, attributes)
                return Committed(self._entry(fd, name))
        except FileNotFoundError:
            return Mismatch(None)

    def _xattrs(self, path: RemotePath) -> dict[bytes, bytes]:
        with self._tree.pinned(path) as (fd, _):
            return attributes_of.read_xattrs(fd)

    def _set_xattr(
        self, path: RemotePath, name: bytes, value: bytes | None, expected: Expected | None
    ) -> Outcome:
        with self._tree.pinned(path) as (fd, own_name):
            current = self._entry(fd, own_name)
            if expected is not None and not satisfies(current, expected):
                return Mismatch(current)
            attributes_of.write_xattr(fd, os.fsdecode(name), value)
            return Committed(self._entry(fd, own_name))

    def _space(self) -> Space:
        with self._tree.open_root() as root:
            vfs = os.fstatvfs(root)
        return Space(
            block_size=vfs.f_frsize,
            blocks=vfs.f_blocks,
            blocks_free=vfs.f_bfree,
            blocks_available=vfs.f_bavail,
            files=vfs.f_files,
            files_free=vfs.f_ffree,
            name_max=vfs.f_namemax or 255,
        )


class _Stop:
    """Stands in the listener's place in a thread, so that a tick can end a cancelled call."""

    def __init__(self) -> None:
        self.wanted = False
        self._further = progress.listener.get()

    def listen(self) -> None:
        progress.listener.set(self._tick)

    def _tick(self, allow: float) -> None:
        if self.wanted:
            raise asyncio.CancelledError
        if self._further is not None:
            self._further(allow)


def _translated(call: Callable[[], T]) -> T:
    try:
        return call()
    except content.LocalFailure:
        raise
    except OSError as error:
        raise translate(error) from error


def _open_file(pin: int) -> int:
    """Open what is pinned for reading; only regular files, as opening others has effects."""
    mode = os.fstat(pin).st_mode
    if stat.S_ISDIR(mode):
        raise Refused(errno.EISDIR)
    if not stat.S_ISREG(mode):
        raise Refused(errno.EINVAL, "not a regular file")
    return os.open(attributes_of.proc_path(pin), os.O_RDONLY | os.O_CLOEXEC)

"""Room in the cache: below its size limit, and on the disk that it is on.

Whoever wants to put something into the cache asks before. Content that may go makes room
(``culling``). A file larger than the cache can still be read from its server: it gives up what was
read of it before. When nothing may go, the one who asked waits for unsent work to be sent while the
server is there, and is otherwise told EDISCONFULL, before anything was accepted.

One thing passes the size limit: the rest of a file that was changed while only a part of it was
here. The change was accepted, and can only be sent with it; once it is, the content may go.

Fetched content leaves ``bstop`` and ``fstop`` of the disk free; below, a file that is open is read
without being kept. What programs write may take all but a small margin, which the database needs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from awayfs.core.cull import shown_space
from awayfs.core.errors import EDISCONFULL
from awayfs.core.types import NodeId, Space
from awayfs.volume.context import Context
from awayfs.volume.culling import Culling
from awayfs.volume.disk import space_of

DRAIN_S = 20.0
LOOK_S = 0.2
SMALLEST_WINDOW = 64 << 10
PASSING = 16 << 20
"""Bytes of a file that is not to be kept, at most, while it is being read."""
MARGIN = 4 << 20
MARGIN_PART = 32
"""On a small disk the margin is this part of it."""
DISK_KNOWN_S = 0.25
COUNTED_S = 30.0


class Room:
    """Makes room in the cache, or says that there is none: ``on_full`` hears of it."""

    def __init__(self, context: Context, culling: Culling) -> None:
        self._context = context
        self._culling = culling
        self._disk = space_of(context.store.directory)
        self._disk_at = time.monotonic()
        self._spent = 0
        self._counted_at = float("-inf")
        self._counted_pins = -1
        self._sending: set[NodeId] = set()
        self.on_full: Callable[[str], None] = lambda _text: None

    # -- asking ---------------------------------------------------------------------------

    def make(
        self, wanted: int, keep: NodeId, *, fetching: bool = False, on_disk: int | None = None
    ) -> None:
        """Have ``wanted`` more bytes fit; raises EDISCONFULL when they cannot.

        ``keep`` is the node the bytes are for; its own content goes last. ``fetching``: they come
        from the server, and can come again. ``on_disk``: what they take there, if less.
        """
        limit, content = self._context.cache_limit, self._context.store.content
        if limit is not None:
            while (over := content.usage() + wanted - limit) > 0:
                if self._culling.evict(over, keep=keep) or (fetching and self._shed(keep)):
                    continue
                self._culling.wake()
                if fetching and keep in self._sending:
                    break
                raise OSError(EDISCONFULL, f"the cache limit of {limit} bytes is reached")
        if fetching:
            self._leave_free(wanted, keep)
        self._on_disk(wanted if on_disk is None else on_disk, keep)

    @contextmanager
    def sending(self, node: NodeId) -> Iterator[None]:
        """What is fetched of a node meanwhile is needed to send its change."""
        self._sending.add(node)
        try:
            yield
        finally:
            self._sending.discard(node)
            self._culling.wake()

    async def make_or_wait(
        self, wanted: int, keep: NodeId, *, fetching: bool = False, on_disk: int | None = None
    ) -> None:
        """As ``make``; while connected, unsent work that takes the room is waited for.

        While not, what was made and removed since may take some.
        """
        try:
            await self._make_waiting(wanted, keep, fetching, on_disk)
        except OSError as error:
            self.on_full(error.strerror or str(error))
            raise

    async def _make_waiting(
        self, wanted: int, keep: NodeId, fetching: bool, on_disk: int | None
    ) -> None:
        if fetching and self._is_passing(keep) and self._held(keep) > PASSING:
            self._shed(keep)
        for _ in range(int(DRAIN_S / LOOK_S)):
            try:
                self.make(wanted, keep, fetching=fetching, on_disk=on_disk)
                return
            except OSError:
                if not self._unsent():
                    raise
            if not self._context.link.usable:
                break
            unsent = self._unsent()
            self._context.want_sent()
            self._context.sending.ask_for_all()
            await asyncio.sleep(LOOK_S)
            if self._unsent() < unsent:
                self._culling.kept_no_more()
        await self._context.tidy()
        self.make(wanted, keep, fetching=fetching, on_disk=on_disk)

    def _unsent(self) -> int:
        """Changes that may go out by themselves: those in conflict or refused make no room."""
        return self._context.sending.unsent()

    def window(self) -> int | None:
        """How much may reasonably be fetched at once; None for as much as one likes."""
        limit = self._context.cache_limit
        return None if limit is None else max(SMALLEST_WINDOW, limit // 4)

    def fetched(self, size: int, seconds: float) -> None:
        """So long it took to fetch so many bytes."""
        self._culling.cost = self._culling.cost.after(size, seconds)

    # -- the disk -------------------------------------------------------------------------

    def _leave_free(self, wanted: int, keep: NodeId) -> None:
        """Fetched content is kept only as long as the disk has more than its least free part."""
        short, files = self._below_stop(wanted)
        if not short and not files:
            return
        self._culling.evict(short, files, keep=keep)
        self._look()
        if self._below_stop(wanted) == (0, 0):
            return
        self._culling.wake()
        if self._context.opened.get(keep) is None:
            raise OSError(
                EDISCONFULL, "the disk that the cache is on is nearly full (bstop, fstop)"
            )
        self._culling.passing.add(keep)

    def _below_stop(self, wanted: int) -> tuple[int, int]:
        """Bytes and files that are missing above ``bstop`` and ``fstop``."""
        disk, marks = self._known(wanted), self._context.effective.marks()
        least = int(disk.blocks * marks["bstop"] / 100) * disk.block_size
        files = int(disk.files * marks["fstop"] / 100) - disk.files_free if disk.files else 0
        return max(least + wanted - self._free(disk), 0), max(files, 0)

    def _on_disk(self, wanted: int, keep: NodeId) -> None:
        """What the disk cannot take is not accepted; the database needs room too."""
        if not wanted:
            return
        disk = self._known(wanted)
        short = wanted + _margin(disk) - self._free(disk)
        if short > 0:
            self._culling.evict(short, keep=keep)
            disk = self._look()
            if wanted + _margin(disk) > self._free(disk):
                self._culling.wake()
                raise OSError(EDISCONFULL, "the disk that the cache is on is full")
        self._spent += wanted

    def _free(self, disk: Space) -> int:
        return disk.blocks_available * disk.block_size - self._spent

    def _known(self, wanted: int) -> Space:
        """The disk as of a moment ago, or of now where that matters."""
        old = time.monotonic() - self._disk_at > DISK_KNOWN_S
        plenty = self._free(self._disk) > self._disk.blocks * self._disk.block_size // 8
        if old or (not plenty and wanted):
            return self._look()
        return self._disk

    def _look(self) -> Space:
        self._disk, self._disk_at = space_of(self._context.store.directory), time.monotonic()
        self._spent = 0
        return self._disk

    # -- one file -------------------------------------------------------------------------

    def _is_passing(self, node: NodeId) -> bool:
        return node in self._culling.passing or self._context.effective.is_transient(node)

    def _held(self, node: NodeId) -> int:
        return sum(r.end - r.start for r in self._context.store.content.ranges(node))

    def _shed(self, node: NodeId) -> bool:
        """Give up what is cached of a clean file that is just being read; False if it may not.

        Of one that is being written it would have to come back before the next change can go out.
        Who fetches what nobody reads wants all of it: he would begin anew without end.
        """
        store, opened = self._context.store, self._context.opened.get(node)
        if not store.content.ranges(node) or not self._culling.is_expendable(node):
            return False
        if opened is None or opened.passthrough or opened.writers:
            return False  # the kernel reads the file by itself, or it is about to change
        self._context.held.about_to_change(node)
        with store.transaction():
            store.content.drop_ranges(node)
        opened.whole = False
        os.ftruncate(opened.fd, 0)
        os.ftruncate(opened.fd, opened.size)
        return True

    # -- what is told ---------------------------------------------------------------------

    def space(self, server: Space | None) -> Space:
        """What ``statfs`` of the mount says; ``server`` is its space, None while it is away."""
        now, pins = time.monotonic(), self._context.store.pins.changes
        if now - self._counted_at > COUNTED_S or pins != self._counted_pins:
            self._counted_at, self._counted_pins = now, pins
            self._context.spawn(self._culling.count())
        disk, store = self._look(), self._context.store
        local = disk
        cullable = self._culling.cullable()
        room = self._free(disk) - _margin(disk) + cullable
        limit = self._context.cache_limit
        if limit is not None:
            room = min(room, limit - store.content.usage() + cullable)
            local = _of_size(disk, limit)
        return shown_space(server, local, room, store.journal.pending_bytes())


def _margin(disk: Space) -> int:
    return min(MARGIN, disk.blocks * disk.block_size // MARGIN_PART)


def _of_size(disk: Space, limit: int) -> Space:
    """The disk as one of the size that the cache may have."""
    blocks = min(-(-limit // disk.block_size), disk.blocks)
    return Space(disk.block_size, blocks, 0, 0, disk.files, disk.files_free)

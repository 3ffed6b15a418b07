"""Pages of the kernel's that programs wrote to through a mapping, and that are not here yet.

Whoever maps a file writes to pages of the kernel's. They come here as WRITE, much later, and are of
the revision that the program saw. So before a content gives way to another revision's, or loses
its last name, the kernel is asked for them, and what comes is an edit of the old one.

The kernel hands a page over only when nobody waits for it, and who waits for us to read a page
must not wait for that in turn:

* Pages that a read waits for are not asked for, nor those that are not all here, as nobody can
  have written to them. Only if the kernel keeps writes back it may have such.
* A read of what is here is answered meanwhile, and may bring an old page back. Then the kernel is
  asked once more, and reads that come in between wait for the end of it.
* A read of what is not here waits as well. It is of no page that is asked for, or gets EAGAIN: so
  the kernel asks again, page by page, for what it had only read ahead.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from awayfs.core.errors import UsageError
from awayfs.core.types import NodeId, Range
from awayfs.volume.opened import Asking, OpenNode, PageRead

if TYPE_CHECKING:
    from awayfs.volume.context import Context

log = logging.getLogger(__name__)

PAGE = 4096
END = 1 << 62
"""Beyond every file: what is asked for up to here goes on to the end."""
TRIES = 5
PARKED_S = 0.01
"""So long all reads are made to wait before the kernel is asked once more."""
PATIENCE_S = 5.0
AGAIN_S = 1.0


class Pages:
    """Has them here before something is done that they belong to."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.on_begin: list[Callable[[NodeId], None]] = []
        self.kept_back = False
        """Whether the kernel keeps back what write(2) writes, too (``-o writeback``)."""

    async def have(self, wanted: Iterable[OpenNode]) -> None:
        """Have what is in the kernel of these files here. UsageError if it does not come soon."""
        asked = [opened for opened in wanted if opened.mappable]
        for opened in asked:
            self._context.kernel.forget_node(opened.node)
        if asked and not await self._settled():
            raise UsageError("what a program wrote through a mapping does not come here; try again")

    def first(self, opened: OpenNode | None, act: Callable[[], None]) -> bool:
        """Whether ``act`` has to wait for pages; it then follows, once they are here.

        It is called at a moment when the kernel has none, and not at all where the file was
        closed before.
        """
        if opened is None or not opened.mappable or opened.fetched:
            return False
        if opened.asking is None:
            opened.asking = Asking()
            for call in self.on_begin:
                call(opened.node)
            self._context.spawn(self._bring(opened, opened.asking))
        opened.asking.acts.append(act)
        return True

    async def over(self, opened: OpenNode) -> None:
        """Wait until the kernel is not asked for a file's pages any more; EIO if it gives none."""
        asking = opened.asking
        if asking is None:
            return
        try:
            await asyncio.wait_for(asking.over.wait(), PATIENCE_S)
        except TimeoutError:
            raise OSError(
                errno.EIO, "the server has a newer version, and a program's changes do not come"
            ) from None

    def holds_up(self, opened: OpenNode, wanted: Range, here: bool) -> bool:
        """Whether a read of pages has to wait while the kernel is asked for some.

        EAGAIN where the kernel would wait for that very read.
        """
        asking = opened.asking
        if asking is None:
            return False
        if here and not asking.parking:
            asking.answered += 1
            return False
        if any(max(r.start, wanted.start) < min(r.end, wanted.end) for r in asking.asked):
            raise OSError(errno.EAGAIN, "a newer version is being taken over")
        return True

    async def reading(self, opened: OpenNode, wanted: Range, data: Awaitable[bytes]) -> bytes:
        """A read of pages that takes a while: until it is answered, the kernel has them locked."""
        read = PageRead(wanted)
        opened.reads.append(read)
        try:
            return await data
        finally:
            opened.reads.remove(read)
            if opened.asking is not None:
                opened.asking.answered += 1
            if read.forgotten:
                self._context.kernel.forget_pages(opened.node, [wanted])

    async def _bring(self, opened: OpenNode, asking: Asking) -> None:
        try:
            while True:
                come = await self._come(opened, asking)
                if self._context.opened.get(opened.node) is not opened:
                    return
                if come and self._acted(opened, asking):
                    return
                asking.parking = False
                await asyncio.sleep(AGAIN_S)
        finally:
            opened.asking = None
            asking.over.set()

    def _acted(self, opened: OpenNode, asking: Asking) -> bool:
        opened.fetched = True
        try:
            while asking.acts:
                asking.acts[0]()
                asking.acts.pop(0)
        except OSError as error:
            log.error("what is open of node %d is not given up yet: %s", opened.node, error)
            return False
        finally:
            opened.fetched = False
        return True

    async def _come(self, opened: OpenNode, asking: Asking) -> bool:
        """Whether the kernel has no page of the file that was read before this moment."""
        for _ in range(TRIES):
            answered = asking.answered
            asking.parking = False
            asking.asked = self._pages(opened)
            self._context.kernel.forget_pages(opened.node, asking.asked)
            try:
                if not await self._settled():
                    return False
            finally:
                asking.asked = []
            if asking.answered == answered:
                return True
            asking.parking = True
            await asyncio.sleep(PARKED_S)
        return False

    def _pages(self, opened: OpenNode) -> list[Range]:
        """All that may have been written to."""
        locked = [read.pages for read in opened.reads]
        if not (opened.whole or self.kept_back):
            locked += self._context.store.content.missing(opened.node, 0, opened.size)
        return outside(locked)

    async def _settled(self) -> bool:
        try:
            await asyncio.wait_for(self._context.kernel.settled(), PATIENCE_S)
        except TimeoutError:
            log.warning("the kernel does not hand pages over")
            return False
        return True


def outside(ranges: Sequence[Range]) -> list[Range]:
    """All pages that touch none of these ranges, as ranges of bytes; the last one up to ``END``."""
    found, start = [], 0
    for one in sorted(ranges, key=lambda r: r.start):
        before = one.start // PAGE * PAGE
        if start < before:
            found.append(Range(start, before))
        start = max(start, -(-one.end // PAGE) * PAGE)
    return [*found, Range(start, END)]

"""Taking a decision back: a variant that lost becomes the file's content again.

It is a change like any other: journaled here, sent guarded, in conflict if the server has
changed the file meanwhile. What the file held goes to the history in its place.
"""

from __future__ import annotations

import asyncio
import stat
from dataclasses import dataclass

from awayfs.core.errors import EDISCONDATA, UsageError
from awayfs.core.types import Kind
from awayfs.store.files import unlink_quietly
from awayfs.store.history import Lost
from awayfs.store.nodes import Node
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.deciding import Deciding
from awayfs.volume.fault import fault
from awayfs.volume.fetch import Fetcher
from awayfs.volume.journaling import Journaling
from awayfs.volume.losing import Losing
from awayfs.volume.observe import digest_of_file
from awayfs.volume.replacing import Replacing

ORDER = ("local", "current", "server")
"""Which of the variants that one decision gave up is brought back, unless it is said."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What was brought back: a variant of a decision, where, and whether it made the file."""

    path: bytes
    which: str
    why: str
    made: bool


class Undo:
    """Brings variants back."""

    def __init__(
        self,
        context: Context,
        journaling: Journaling,
        changes: Changes,
        fetcher: Fetcher,
        losing: Losing,
        deciding: Deciding,
    ) -> None:
        self._context = context
        self._store = context.store
        self._journaling = journaling
        self._changes = changes
        self._fetcher = fetcher
        self._losing = losing
        self._deciding = deciding
        self._replacing = Replacing(context)

    async def undo(self, path: bytes, which: str | None = None, *, force: bool = False) -> Undone:
        """Take back the last decision about a path.

        Raises ``UsageError`` where there is none, where the file has changed since (unless
        ``force``), where it waits for a decision, or where it cannot be kept.
        """
        if self._context.options.read_only:
            raise UsageError("the volume is mounted read-only")
        node = self._store.nodes.resolve(path)
        lost = self._chosen(path, node, which)
        if lost.partial:
            place = self._store.history.content_path(lost.id)
            raise UsageError(
                f"only a part of that version was ever here; what is known of it is in {place}"
            )
        if node is None:
            await self._make(path, lost)
            return Undone(path, lost.which, lost.why, True)
        await self._replace(path, node, lost, force)
        return Undone(path, lost.which, lost.why, False)

    def _chosen(self, path: bytes, node: Node | None, which: str | None) -> Lost:
        found = self._store.history.of(path, node.id if node is not None else None)
        if not found:
            raise UsageError("nothing was decided about it, or what lost is culled by now")
        together = {one.which: one for one in found if one.conflict == found[-1].conflict}
        if which is not None and which not in together:
            there = ", ".join(sorted(together))
            raise UsageError(f"the last decision did not give the {which} version up, but: {there}")
        return together[which or next(name for name in ORDER if name in together)]

    async def _make(self, path: bytes, lost: Lost) -> None:
        """The decision took the file away: it is created again."""
        above, _, name = path.rpartition(b"/")
        parent = self._store.nodes.resolve(above)
        if parent is None or parent.kind is not Kind.DIRECTORY:
            raise UsageError("its directory is gone; make it again first")
        staged = await self._deciding.staged_copy(self._store.history.content_path(lost.id))
        options = self._context.options
        try:
            with self._store.transaction():
                mode = stat.S_IMODE(lost.mode)
                made = self._changes.create(
                    parent.id, name, Kind.FILE, mode, options.uid, options.gid
                )
                self._journaling.store(made.id)
                self._replacing.replace(made.id, staged, None)
                self._store.history.remove([lost.id])
        finally:
            unlink_quietly(staged)
        fault("resolve.undone")
        self._context.kernel.forget_entry(parent.id, name)

    async def _replace(self, path: bytes, node: Node, lost: Lost, force: bool) -> None:
        self._check(node)
        await self._have_whole(node)
        made_from = self._replacing.witness(node.id)
        kept = await self._losing.copy_of(node.id)
        if kept is None:
            raise UsageError("the file as it is now is too large for the history; copy it first")
        staged = None
        try:
            loop = asyncio.get_running_loop()
            now = await loop.run_in_executor(None, digest_of_file, kept)
            if not force and self._is_changed(node, lost, now):
                raise UsageError(
                    "it was changed since that decision; --force takes the decision back all the"
                    " same, and keeps the file as it is now in the history"
                )
            staged = await self._deciding.staged_copy(self._store.history.content_path(lost.id))
            result = await loop.run_in_executor(None, digest_of_file, staged)
            if self._replacing.witness(node.id) != made_from:
                raise UsageError("it is being changed at this moment; try again")
            self._commit(path, node, lost, kept, staged, result)
        finally:
            unlink_quietly(kept)
            if staged is not None:
                unlink_quietly(staged)
        fault("resolve.undone")
        self._losing.cull()

    def _commit(
        self, path: bytes, node: Node, lost: Lost, kept: str, staged: str, result: bytes
    ) -> None:
        current = self._context.node(node.id)
        if current is None:
            raise UsageError("it was removed at this moment")
        self._check(node)
        with self._store.transaction():
            self._journaling.store(node.id)
            self._losing.current(current, path, kept, result)
            self._replacing.replace(node.id, staged, self._store.content.token(node.id))
            self._store.history.remove([lost.id])

    def _is_changed(self, node: Node, lost: Lost, now: bytes) -> bool:
        """Whether it holds something else than what was decided for.

        Where that is not known, the version that the server has too is nobody's change.
        """
        if lost.result is None:
            return self._store.journal.has_store(node.id)
        return now != lost.result

    def _check(self, node: Node) -> None:
        if self._store.conflicts.of_node(node.id):
            raise UsageError("it is in conflict; decide that first")
        self._replacing.check(node.id)

    async def _have_whole(self, node: Node) -> None:
        """What it holds now is to be kept, and so must be here."""
        try:
            await self._fetcher.whole(node.id)
        except OSError as error:
            if error.errno != EDISCONDATA:
                raise
            raise UsageError(
                "what it holds now is not here, so it cannot be kept; go online and try again"
            ) from error
        fresh = self._context.node(node.id)
        if fresh is not None:
            node.size, node.mtime_ns = fresh.size, fresh.mtime_ns

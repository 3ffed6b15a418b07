"""Taking a decision back: what was given up is there again, its content, name and attributes.

It is a change like any other: journaled here, sent guarded, in conflict if the server has
changed the file meanwhile. What the file held goes to the history in its place.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from awayfs.core.errors import EDISCONDATA, UsageError
from awayfs.core.types import Kind, NodeId
from awayfs.store.files import unlink_quietly
from awayfs.store.history import Lost
from awayfs.store.nodes import Node
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.deciding import Deciding
from awayfs.volume.displaced import DISPLACED
from awayfs.volume.fault import fault
from awayfs.volume.fetch import Fetcher
from awayfs.volume.journaling import Journaling
from awayfs.volume.losing import UNDONE, Losing
from awayfs.volume.making import Making
from awayfs.volume.replacing import Replacing
from awayfs.volume.suspects import digest_of_file

ORDER = ("local", "current", "server")
"""Which of the variants that one decision gave up is brought back, unless it is said."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What was brought back: a variant of a decision, where, and whether it made the file.

    ``left`` are files in it of which only a part was ever here: they stay in the history.
    """

    path: bytes
    which: str
    why: str
    made: bool
    left: list[bytes] = field(default_factory=list)


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
        self._fetcher = fetcher
        self._losing = losing
        self._deciding = deciding
        self._replacing = Replacing(context)
        self._making = Making(context, journaling, changes, self._replacing)

    async def undo(self, path: bytes, which: str | None = None, *, force: bool = False) -> Undone:
        """Take back the last decision about a path.

        Raises ``UsageError`` where there is none, where the file has changed since (unless
        ``force``), where it waits for a decision, or where it cannot be kept.
        """
        if self._context.options.read_only:
            raise UsageError("the volume is mounted read-only")
        lost = self._chosen(path, self._store.nodes.resolve(path), which)
        node, before = self._standing(path, lost), lost.before
        if lost.partial:
            place = self._store.history.content_path(lost.id)
            raise UsageError(
                f"only a part of that version was ever here; what is known of it is in {place}"
            )
        if before is not None and not before.kind:
            await self._take_away(path, node, lost, force)
        elif node is None:
            left = await self._make(path, lost)
            return Undone(path, lost.which, lost.why, True, left)
        elif before is not None and node.kind is not Kind(before.kind):
            raise UsageError("another kind of thing has its name by now; move that away first")
        elif lost.content:
            await self._replace(path, node, lost, force)
        else:
            self._reshape(path, node, lost, force)
        return Undone(path, lost.which, lost.why, node is None)

    def _standing(self, path: bytes, lost: Lost) -> Node | None:
        """The node that a decision was about, or that has its place."""
        nodes = self._store.nodes
        there = nodes.resolve(path)
        if lost.after is not None and lost.after.copy:
            return there  # ours is the copy, or was copied
        same = nodes.get(lost.node) if nodes.names(lost.node) else None
        return there or same if lost.content else same or there

    def _chosen(self, path: bytes, node: Node | None, which: str | None) -> Lost:
        found = self._store.history.of(path, node.id if node is not None else None)
        if not found:
            raise UsageError("nothing was decided about it, or what lost is culled by now")
        itself = node.id if node is not None else 0
        together = _of_last(found, itself) or _of_last(found, itself, displaced=True)
        if which is not None and which not in together:
            other = _before_undos(found, itself, which)
            if other is not None:
                return other
            together = _of_last(found, itself, displaced=True) or together
        if which is not None and which not in together:
            there = ", ".join(sorted(together))
            raise UsageError(f"the last decision did not give the {which} version up, but: {there}")
        return together[which or next(name for name in ORDER if name in together)]

    async def _make(self, path: bytes, lost: Lost) -> list[bytes]:
        """The decision took it away: it is made again, with what was given up inside of it.

        The paths of what is not, since holes would pass for its content.
        """
        together = self._store.history.of_conflict(lost.conflict)
        below = [one for one in together if one.which == lost.which]
        below = [one for one in below if one.path.startswith(path + b"/")]
        whole = [one for one in below if not one.partial]
        wanted = [lost, *sorted(whole, key=lambda one: one.path)]
        staged: dict[int, str] = {}
        try:
            for one in wanted:
                if one.content:
                    place = self._store.history.content_path(one.id)
                    staged[one.id] = await self._deciding.staged_copy(place)
            with self._store.transaction():
                for one in wanted:
                    made = self._making.make(one.path, one, staged.get(one.id), together)
                    if one is lost:
                        self._losing.made(path, made)
                self._store.history.remove(one.id for one in wanted)
        finally:
            for place in staged.values():
                unlink_quietly(place)
        fault("resolve.undone")
        return sorted(one.path for one in below if one.partial)

    async def _take_away(self, path: bytes, node: Node | None, lost: Lost, force: bool) -> None:
        """The decision brought it back, or made it: it goes, and what it held is kept."""
        if node is None:
            raise UsageError("it is gone already")
        kept = None
        try:
            if node.kind is Kind.FILE:
                self._check(node)
                await self._have_whole(node)
                made_from = self._replacing.witness(node.id)
                kept = await self._kept(node)
                await self._check_unchanged(node, lost, kept, force)
                if self._replacing.witness(node.id) != made_from:
                    raise UsageError("it is being changed at this moment; try again")
                self._check(node)
            with self._store.transaction():
                if kept is not None:
                    self._losing.current(node, path, kept, None)
                else:
                    self._losing.current(node, path, None, None)
                self._making.remove(node)
                self._store.history.remove([lost.id])
        finally:
            if kept is not None:
                unlink_quietly(kept)
        fault("resolve.undone")

    def _reshape(self, path: bytes, node: Node, lost: Lost, force: bool) -> None:
        """Only names, attributes or a link's target go back."""
        if self._store.conflicts.of_node(node.id):
            raise UsageError("it is in conflict; decide that first")
        self._making.check(node, lost, force)
        copy = self._link_made(lost)
        with self._store.transaction():
            current = self._losing.current(node, path, None, None)
            shaped = self._making.reshape(node, lost)
            if copy is not None and copy.target == shaped.target:
                self._making.remove(copy)
            self._store.history.set_shapes(current.id, current.before or shaped, shaped)
            self._store.history.remove([lost.id])
        fault("resolve.undone")

    async def _kept(self, node: Node) -> str:
        """What it holds now, as a staging file."""
        kept = await self._losing.copy_of(node.id)
        if kept is not None and not self._losing.limits.holds([os.stat(kept).st_size]):
            unlink_quietly(kept)
            kept = None
        if kept is None:
            raise UsageError("the file as it is now is too large for the history; copy it first")
        return kept

    async def _check_unchanged(self, node: Node, lost: Lost, kept: str, force: bool) -> None:
        loop = asyncio.get_running_loop()
        now = await loop.run_in_executor(None, digest_of_file, kept)
        if not force and self._is_changed(node, lost, now):
            raise UsageError(
                "it was changed since that decision; --force takes the decision back all the"
                " same, and keeps the file as it is now in the history"
            )

    async def _replace(self, path: bytes, node: Node, lost: Lost, force: bool) -> None:
        self._check(node)
        self._making.check(node, lost, force)
        await self._have_whole(node)
        made_from = self._replacing.witness(node.id)
        kept = await self._kept(node)
        staged = None
        try:
            await self._check_unchanged(node, lost, kept, force)
            loop = asyncio.get_running_loop()
            staged = await self._deciding.staged_copy(self._store.history.content_path(lost.id))
            result = await loop.run_in_executor(None, digest_of_file, staged)
            copy = await self._copy_made(lost, result)
            if self._replacing.witness(node.id) != made_from:
                raise UsageError("it is being changed at this moment; try again")
            self._commit(path, node, lost, kept, staged, result, copy)
        finally:
            unlink_quietly(kept)
            if staged is not None:
                unlink_quietly(staged)
        fault("resolve.undone")
        self._losing.cull()

    async def _copy_made(self, lost: Lost, content: bytes) -> Node | None:
        """The conflict copy that the decision made, if it still is what it was."""
        number = lost.after.copy if lost.after is not None else 0
        copy = self._context.node(number) if number else None
        if copy is None or not self._is_free(number):
            return None
        if not self._store.content.covers(number, 0, copy.size):
            return None
        path, before = self._store.content.fd_path(number), self._replacing.witness(number)
        found = await asyncio.get_running_loop().run_in_executor(None, digest_of_file, path)
        if self._context.opened.get(number) is not None:
            return None
        untouched = self._replacing.witness(number) == before
        return copy if found == content and untouched else None

    def _link_made(self, lost: Lost) -> Node | None:
        """The conflict copy that the decision made, if it is a symlink: its target is all of it."""
        copy = self._store.nodes.get(lost.after.copy) if lost.after is not None else None
        if copy is None or copy.kind is not Kind.SYMLINK or not self._is_free(copy.id):
            return None
        return copy

    def _is_free(self, copy: NodeId) -> bool:
        """Whether a conflict copy still has its name, and nobody is at it."""
        used = self._context.opened.get(copy) is not None
        if used or self._store.conflicts.of_node(copy):
            return False
        return bool(self._store.nodes.names(copy))

    def _commit(
        self,
        path: bytes,
        node: Node,
        lost: Lost,
        kept: str,
        staged: str,
        result: bytes,
        copy: Node | None,
    ) -> None:
        current = self._context.node(node.id)
        if current is None or self._store.nodes.path(node.id) is None:
            raise UsageError("it was removed at this moment")
        self._check(node)
        with self._store.transaction():
            self._journaling.store(node.id)
            now = self._losing.current(current, path, kept, result)
            self._replacing.replace(node.id, staged, self._store.content.token(node.id))
            shaped = self._making.reshape(current, lost)
            if now.before is not None:
                self._store.history.set_shapes(now.id, now.before, shaped)
            if copy is not None:
                self._making.remove(copy)
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


def _of_last(found: Sequence[Lost], itself: NodeId, *, displaced: bool = False) -> dict[str, Lost]:
    """What the last decision gave up, by which variant it was; or what was kept without one, as
    it was displaced: that is nothing that anybody decided.

    Of two that had the name one after the other, the one of the node that has it now.
    """
    left = [one for one in found if (one.why == DISPLACED) is displaced]
    last = [one for one in left if one.conflict == left[-1].conflict]
    return {one.which: one for one in sorted(last, key=lambda one: one.node == itself)}


def _before_undos(found: Sequence[Lost], itself: NodeId, which: str) -> Lost | None:
    """The other variant of a decision of which one was brought back: undos decide nothing.

    What they left there counts as nobody's change, as what the decision left would.
    """
    undos = [one for one in found if one.why == UNDONE]
    decided = _of_last([one for one in found if one.why != UNDONE], itself)
    other = decided.get(which)
    if other is None or not undos or undos[-1].id < other.id:
        return None
    return replace(other, result=undos[-1].result, after=undos[-1].after)

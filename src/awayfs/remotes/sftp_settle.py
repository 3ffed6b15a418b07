"""Tidying up after a guarded operation that was cut off.

N, O, P and S as in ``sftp_guard``; "N" means that it shows the same content as N.

    N    O    P       S       it was cut off                   settle does
    --   --   any     any     before it began, or at its end   nothing
    yes  --   other   any     before 2 (or 4)                  unlink N
    yes  yes  absent  any     between 2 and 4                  O back to P, unlink N
    yes  yes  "O"     any     while O was put back             unlink O, unlink N
    yes  yes  "N"     any     between 4 and 5                  unlink O if it is the expected
                                                               revision, else keep it; unlink N
    yes  yes  other   any     another writer took P            keep O, unlink N
    yes  any  "N"     "N"     rename: before S was removed     remove S if it is the expected
                                                               revision; unlink N
    yes  O=N  "N"     absent  rename: S was moved to O         unlink O, unlink N
    yes  --   not N   no dir  its directory was moved or       N gets a conflict name where
                              removed meanwhile                it lies
    --   yes  absent  --      remove: between 2 and 5          O back to P
    --   yes  "O"     --      RENAME cut between its halves    unlink O
    --   yes  any     --      another writer took P            unlink O if P is what was staged
                                                               or O what was to be removed,
                                                               else keep it

To *keep* is to give a conflict name beside P. The two paths of a rename may come in either
order: what is there tells them apart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from awayfs.core.errors import NotFound
from awayfs.core.types import NEVER_SEEN, Entry, Expected, RemotePath
from awayfs.ports.remote import ASIDE_SUFFIX, STAGED_SUFFIX, Intent
from awayfs.remotes.faults import reach
from awayfs.remotes.names import aside_name, staged_name
from awayfs.remotes.sftp_entries import basename, join, matches, parent
from awayfs.remotes.sftp_moves import Moves, own_names
from awayfs.remotes.sftp_view import View


class _Side(Struct, frozen=True):
    """One path of an intent, and what the operation required there."""

    path: RemotePath
    expected: Expected


class Settler:
    """``Remote.settle`` on one server."""

    def __init__(
        self, view: View, moves: Moves, sync: Callable[[RemotePath], Awaitable[None]]
    ) -> None:
        self._view = view
        self._moves = moves
        self._sync = sync

    async def settle(self, intent: Intent) -> None:
        """``Remote.settle``; the table is at the head of the module.

        The two paths of a rename may come in either order: what is there tells them apart.
        """
        sides = [_Side(intent.path, intent.expected)]
        if intent.other_path is not None:
            sides.append(_Side(intent.other_path, intent.other_expected or Expected(token=None)))
        for directory in dict.fromkeys(parent(side.path) for side in sides):
            own = join(directory, staged_name(intent.op))
            if await self._view.find(own) is not None:
                target, source = await self._which(sides, own)
                await self._settle_brought(intent, own, target, source)
        for directory in dict.fromkeys(parent(side.path) for side in sides):
            left = await self._view.find(join(directory, aside_name(intent.op)))
            if left is not None:
                target = _owner(sides, directory, left)
                await self._settle_aside(intent, left, target)

    async def _settle_brought(
        self, intent: Intent, own: RemotePath, target: _Side, source: _Side | None
    ) -> None:
        """N is there: see whether it became the target, and undo or finish."""
        path = target.path
        aside = own_names(intent.op, path)[1]
        committed = await self._moves.same(own, path)
        if committed:
            if not await self._moves.same(own, aside):
                await self._settle_replaced(intent, target, aside)
            await self._moves.drop(aside)
        elif source is None or not await self._moves.same(own, aside):
            await self._moves.put_back(aside, path, intent.op)
        reach("settle.target")
        if source is not None:
            await self._settle_source(intent, source.path, own, committed)
        await self._moves.drop(own)
        await self._sync(parent(path))

    async def _settle_replaced(self, intent: Intent, target: _Side, aside: RemotePath) -> None:
        """The new revision has the name: keep the one aside unless it was expected."""
        left = await self._view.find(aside)
        if left is not None and not await self._is_it(left, aside, target.expected):
            await self._moves.keep(aside, target.path, intent.op)

    async def _is_it(self, left: Entry, aside: RemotePath, expected: Expected) -> bool:
        """Whether what lies aside is what was to be displaced. It may have been written into after
        it was compared, and whoever was to keep it for that be gone.
        """
        if not matches(left, expected):
            return False
        return expected.digest is None or await self._moves.has(aside, expected.digest)

    async def _settle_source(
        self, intent: Intent, source: RemotePath, own: RemotePath, committed: bool
    ) -> None:
        """A rename's source: gone if the target has it, else at its name."""
        aside = own_names(intent.op, source)[1]
        if not await self._moves.same(own, aside):
            await self._moves.put_back(aside, source, intent.op)
        await self._moves.drop(aside)
        there = await self._view.find(source)
        if committed and there is not None and await self._moves.same(own, source):
            await self._remove_source(intent, source, own, aside)
        elif not committed and there is None:
            await self._return_source(intent, own, source)

    async def _return_source(self, intent: Intent, own: RemotePath, source: RemotePath) -> None:
        """N may bear the only name; where its directory is gone, it gets one where N lies."""
        try:
            await self._moves.put_back(own, source, intent.op)
        except NotFound:
            await self._moves.keep(own, join(parent(own), basename(source)), intent.op)

    async def _remove_source(
        self, intent: Intent, source: RemotePath, own: RemotePath, aside: RemotePath
    ) -> None:
        """Moved aside and looked at once more, as ``rename`` itself does it."""
        await self._moves.take(source, aside)
        if await self._moves.same(own, aside):
            await self._moves.drop(aside)
        else:
            await self._moves.put_back(aside, source, intent.op)

    async def _settle_aside(self, intent: Intent, left: Entry, target: _Side) -> None:
        """Only O is left: a remove, or the end of something else."""
        path = target.path
        aside = own_names(intent.op, path)[1]
        there = await self._view.find(path)
        if there is not None:
            staged = await self._is_staged(intent, there, path)
            done = (staged or not left.weak) and await self._is_it(left, aside, target.expected)
            if done or await self._moves.same(aside, path):
                await self._moves.drop(aside)
                return
        await self._moves.put_back(aside, path, intent.op)
        reach("settle.aside")
        await self._sync(parent(path))

    async def _is_staged(self, intent: Intent, there: Entry, path: RemotePath) -> bool:
        """Whether what was to be brought has its name. Of a ``put`` only its content is known."""
        if intent.staged is None or intent.staged.token != NEVER_SEEN:
            return intent.staged is not None and there.token == intent.staged.token
        known = intent.staged_digest
        return there.size == intent.staged.size and await self._moves.has(path, known)

    async def _which(self, sides: list[_Side], own: RemotePath) -> tuple[_Side, _Side | None]:
        """Target and source of the operation that made N, by what stands at its paths.

        N lies in the target's directory and shows the source's revision.
        """
        if len(sides) == 1:
            return sides[0], None
        one, other = sides
        near = [side for side in sides if parent(side.path) == parent(own)]
        if len(near) == 1:
            return near[0], other if near[0] is one else one
        absent = [side for side in sides if side.expected.token is None]
        if len(absent) == 1:  # nothing was required at the target
            return absent[0], other if absent[0] is one else one
        alike = [side for side in sides if await self._moves.same(own, side.path)]
        if len(alike) != 1:
            return one, other
        source = alike[0]
        aside = _aside_of(own)
        both = await self._view.find(one.path) and await self._view.find(other.path)
        left = await self._view.find(aside)
        if not both and (left is None or await self._moves.same(own, aside)):
            source = other if source is one else one  # the source is gone: this is the target
        return (other, one) if source is one else (one, other)


def _aside_of(own: RemotePath) -> RemotePath:
    """O beside N."""
    return own[: -len(STAGED_SUFFIX)] + ASIDE_SUFFIX


def _owner(sides: list[_Side], directory: RemotePath, left: Entry) -> _Side:
    """Which path what lies aside in ``directory`` came from, where there is no N."""
    near = [side for side in sides if parent(side.path) == directory]
    shown = [side for side in near if side.expected.token == left.token]
    present = [side for side in near if side.expected.token is not None]
    return (shown or present or near)[0]

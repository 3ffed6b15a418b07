"""An exchange of two names over SFTP, which has no such request (``Remote.exchange``).

O is ``.awayfs-<op>.old`` beside ``b`` and holds what was at ``a``; N is ``.awayfs-<op>.new`` beside
``a`` and holds what was at ``b``. Each is somebody's only revision, so it never goes but to a
public name. What is at either is known by these names alone, whatever it looks like. The table of
what may be found, and what ``settle`` makes of it, is at the head of ``directory_exchange``.

Both are taken by a move of one step (``Moves.take``) and given a name by an exclusive one
(``Moves.place``), so nobody's revision is written over: a stranger who has the name keeps it.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.errors import NotFound, Refused, RemoteError, Unreachable
from awayfs.core.types import Committed, Entry, Expected, Kind, Mismatch, OpId, Outcome, RemotePath
from awayfs.ports.remote import Crossing, Intent
from awayfs.remotes.faults import reach
from awayfs.remotes.sftp_entries import basename, join, matches, parent
from awayfs.remotes.sftp_moves import Moves, own_names
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_view import View


class _Side(Struct, frozen=True):
    """A public name, ours for what is taken from it, and what is required there."""

    path: RemotePath
    own: RemotePath
    expected: Expected


class Exchanger:
    """The two halves of an exchange in steps, on one server."""

    def __init__(
        self,
        view: View,
        moves: Moves,
        sync: Callable[[RemotePath], Awaitable[None]],
        paths: Paths,
    ) -> None:
        self._view = view
        self._moves = moves
        self._sync = sync
        self._paths = paths

    async def take_aside(
        self, op: OpId, a: RemotePath, b: RemotePath, a_expected: Expected, b_expected: Expected
    ) -> Outcome:
        """The first half: nothing has its name now, or nothing has moved."""
        if a.startswith(b + b"/") or b.startswith(a + b"/"):
            raise Refused(errno.EINVAL, "a directory cannot be moved into itself")
        own_a, own_b = own_names(op, b)[1], own_names(op, a)[0]
        sides = _Side(a, own_a, a_expected), _Side(b, own_b, b_expected)
        looks = [self._view.look(name) for name in (a, b, own_a, own_b)]
        *standing, left_a, left_b = [await self._view.found(look) for look in looks]
        if left_a is not None or left_b is not None:
            raise Refused(errno.EBUSY, "an earlier try was not settled")
        for side, entry in zip(sides, standing, strict=True):
            if entry is None or not matches(entry, side.expected):
                return Mismatch(entry)
        reach("exchange.checked")
        try:
            taken = await self._take(sides)
        except Unreachable:
            raise
        except RemoteError:
            await self._give_back(op, sides)
            raise
        if taken is None:
            await self._give_back(op, sides)
            return Mismatch(await self._first_that_differs(sides))
        for directory in dict.fromkeys((parent(a), parent(b))):
            await self._sync(directory)
        return Committed(replace(taken, name=basename(b)))

    async def _take(self, sides: Sequence[_Side]) -> Entry | None:
        """What was at the first name; None where one was not what it should be."""
        found: list[Entry] = []
        self._paths.forget()
        for side in sides:
            taken = await self._moves.take(side.path, side.own)
            self._paths.forget()
            reach("exchange.taken")
            if taken is None or not matches(taken, side.expected):
                return None
            found.append(taken)
        return found[0]

    async def _give_back(self, op: OpId, sides: Sequence[_Side]) -> None:
        for side in reversed(sides):
            await self._moves.put_back(side.own, side.path, op)
            self._paths.forget()

    async def _first_that_differs(self, sides: Sequence[_Side]) -> Entry | None:
        for side in sides:
            there = await self._view.find(side.path)
            if not matches(there, side.expected):
                return there
        return None

    async def settle(self, intent: Intent) -> None:
        """The second half, or back: by ``intent.crossing``. Idempotent."""
        a, b = intent.other_path or b"", intent.path
        over = intent.crossing is Crossing.OVER
        owned = own_names(intent.op, a)[0], own_names(intent.op, b)[1]
        error: RemoteError | None = None
        for own, path in zip(owned, (a, b) if over else (b, a), strict=True):
            try:
                await self._give(intent.op, own, path)
            except Unreachable:
                raise
            except RemoteError as failed:  # the other one gets its name whatever becomes of this
                error = failed
        if error is not None:
            raise error

    async def _give(self, op: OpId, own: RemotePath, path: RemotePath) -> None:
        """It may have been linked to that name already, and not yet have lost ours."""
        entry = await self._view.find(own)
        if entry is None:
            return
        self._paths.forget()
        if entry.kind is not Kind.DIRECTORY and await self._moves.same(own, path):
            await self._moves.drop(own)
        else:
            try:
                await self._moves.put_back(own, path, op)
            except NotFound:  # the directory is gone: a name where it lies
                await self._moves.keep(own, join(parent(own), basename(path)), op)
        self._paths.forget()
        reach("exchange.given")
        for directory in dict.fromkeys((parent(path), parent(own))):
            await self._sync(directory)

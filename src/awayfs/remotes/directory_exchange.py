"""An exchange of two names on a ``dir:`` volume without RENAME_EXCHANGE (``Remote.exchange``).

O is ``.awayfs-<op>.old`` beside ``b``, N is ``.awayfs-<op>.new`` beside ``a``. What stands there is
somebody's only revision, so it never goes but to a public name:

    a    b    O    N    it was cut off          BACK               OVER
    --   --   --   --   --------------------    ---------------    ----------------------------
    A    B    --   --   before it began         nothing            (cannot be: O, N are noted)
    --   B    A    --   after ``a`` was taken   O to ``a``         (the same)
    --   --   A    B    with both taken         N to ``b``, O ...  N to ``a``, O to ``b``
    B    --   A    --   while it was ended      --                 O to ``b``
    B    A    --   --   at its end              --                 nothing
    X    any  any  any  a stranger has ``a``    what would go there gets a conflict name

All that crosses directories is done before OVER is noted: what could be taken can be given.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack

from awayfs.core.errors import NotFound
from awayfs.core.types import Committed, Expected, Mismatch, OpId, Outcome, RemotePath
from awayfs.ports.remote import Crossing, Intent
from awayfs.remotes.directory_moves import (
    Mover,
    Place,
    came_out,
    is_object,
    revision,
    satisfies,
    sync_directory,
)
from awayfs.remotes.directory_tree import Tree
from awayfs.remotes.faults import reach
from awayfs.remotes.names import aside_name, staged_name


class Exchanger:
    """The two halves of an exchange in steps, on one tree."""

    def __init__(self, tree: Tree, mover: Mover) -> None:
        self._tree = tree
        self._mover = mover

    def take_aside(
        self, op: OpId, a: RemotePath, b: RemotePath, a_expected: Expected, b_expected: Expected
    ) -> Outcome:
        """The first half: nothing has its name now, or nothing has moved."""
        with ExitStack() as stack:
            first, second = (
                Place(*stack.enter_context(self._tree.parent(path))) for path in (a, b)
            )
            for place, expected in (first, a_expected), (second, b_expected):
                current = self._mover.look(place)
                if current is None or not satisfies(current, expected):
                    return Mismatch(current)
            sides = (
                (first, Place(second.directory, aside_name(op)), a_expected),
                (second, Place(first.directory, staged_name(op)), b_expected),
            )
            if any(self._mover.look(own) is not None for _, own, _ in sides):
                raise OSError(errno.EBUSY, "an earlier try was not settled")
            for place, own, expected in sides:
                try:
                    taken = self._has_taken(place, own, expected)
                except OSError:
                    self._give_back(op, sides)
                    raise
                if not taken:
                    self._give_back(op, sides)
                    return Mismatch(self._mover.look(place))
            sync_directory(first.directory)
            sync_directory(second.directory)
            return Committed(self._mover.look(sides[0][1]))

    def _has_taken(self, place: Place, own: Place, expected: Expected) -> bool:
        try:
            self._mover.move_aside(place, own)
        except FileNotFoundError:
            return False
        reach("exchange.taken")
        return came_out(self._mover.look(own), expected)

    def _give_back(self, op: OpId, sides: tuple[tuple[Place, Place, Expected], ...]) -> None:
        for place, own, _ in reversed(sides):
            if self._mover.look(own) is not None:
                self._mover.give_back(own, place, op)

    def settle(self, intent: Intent) -> None:
        """The second half, or back: by ``intent.crossing``. Idempotent."""
        a, b = intent.other_path or b"", intent.path
        over = intent.crossing is Crossing.OVER
        own = ((a, staged_name(intent.op)), (b, aside_name(intent.op)))
        error: OSError | None = None
        for (beside, name), path in zip(own, (a, b) if over else (b, a), strict=True):
            try:
                self._settle_one(intent.op, beside, name, path)
            except OSError as failed:
                error = failed
        if error is not None:
            raise error

    def _settle_one(self, op: OpId, beside: RemotePath, name: bytes, path: RemotePath) -> None:
        """Give what lies at ``name`` in the directory of ``beside`` the name ``path``."""
        with ExitStack() as stack:
            try:
                place = Place(*stack.enter_context(self._tree.parent(beside)))
            except (FileNotFoundError, NotFound):
                return  # the directory is gone, and everything in it
            own = Place(place.directory, name)
            if self._mover.look(own) is None:
                return
            try:
                public = Place(*stack.enter_context(self._tree.parent(path)))
            except (FileNotFoundError, NotFound):
                self._mover.keep(own, Place(own.directory, path.rpartition(b"/")[2]), op)
            else:
                self._give(op, own, public)
            reach("exchange.given")
            sync_directory(own.directory)

    def _give(self, op: OpId, own: Place, public: Place) -> None:
        """It may have been linked to that name already, and not yet have lost ours."""
        left, standing = self._mover.look(own), self._mover.look(public)
        if left is not None and standing is not None and is_object(standing, revision(left)):
            self._mover.drop(own)
        else:
            self._mover.give_back(own, public, op)
        sync_directory(public.directory)

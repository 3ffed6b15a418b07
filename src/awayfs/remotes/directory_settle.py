"""Tidying up after an operation on a ``dir:`` volume that was cut off.

What can be left over, by operation, and what becomes of it. ``N`` is what the operation
brings (staged, or the source of a rename), ``E`` the expected revision of the target, ``X``
anything else, ``–`` nothing. ``.new`` is always our own making and is simply discarded.

    operation    cut after                    target  .old    end
    -----------  ---------------------------  ------  ------  --------------------------------
    stage        any chunk                    any     –       discard .new
    make         made, attributes missing     –       –       discard .new
    replace      N moved to .old              E, X    N       discard .old: not done
                 exchange                     N       E       discard .old: done
                 exchange, wrong one out      N       X       exchange back, discard N
                 exchanged back               X       N       discard .old: not done
    (ASIDE)      target moved to .old         –       E, X    back to target: not done
                 N linked to target           N       E       discard .old: done
                 name taken meanwhile         X       E, X    .old gets a conflict name
    rename over  source moved to .old         E, X    N       back to source: not done
                 exchange                     N       E       discard .old: done
                 exchange, wrong one out      N       X       exchange back, N back to source
    (no flags)   N linked to target           N       E       discard .old, unlink source: done
                 N linked, source moved       N       N       discard .old, one file: done
    remove       target moved to .old         –       E, X    back to target: not done
                 name taken meanwhile         X       E, X    .old gets a conflict name
    link, rename to a free name, exchange     one step each: nothing is left over

Objects are told apart by identity, size and modification time, as ``came_out`` does: moving
them has changed their change times. The intent of a rename or exchange has both paths;
which of them is the source is found by looking, not by the order. Where nothing fits, the
revision gets a conflict name: an extra file is better than a lost one.
"""

from __future__ import annotations

import errno
import os

from msgspec.structs import replace

from awayfs.core.types import NEVER_SEEN, Entry, Expected, Kind, RemotePath
from awayfs.ports.remote import Intent
from awayfs.remotes.directory_content import digest_content
from awayfs.remotes.directory_moves import (
    NO_SUCH_WAY,
    Mover,
    Place,
    came_out,
    is_object,
    revision,
    sync_directory,
)
from awayfs.remotes.directory_tree import Tree
from awayfs.remotes.faults import reach
from awayfs.remotes.names import aside_name, staged_name


class Settler:
    """``Remote.settle`` for one tree."""

    def __init__(self, tree: Tree, mover: Mover) -> None:
        self._tree = tree
        self._mover = mover

    def settle(self, intent: Intent) -> None:
        """Bring what ``intent`` left half-done to one of its two ends; idempotent."""
        sides = [(intent.path, intent.expected)]
        if intent.other_path is not None:
            sides.append((intent.other_path, intent.other_expected or Expected(token=None)))
        for number, (path, expected) in enumerate(sides):
            other = sides[1 - number] if len(sides) == 2 else None
            self._settle_side(intent, path, expected, other)
        if intent.other_path is not None and intent.other_expected is not None:
            self._finish_rename(intent, intent.other_path, intent.other_expected)

    def _finish_rename(self, intent: Intent, source: RemotePath, brought: Expected) -> None:
        """Take away a source that was linked to its new name and not yet unlinked."""
        there, standing = self._at(source), self._at(intent.path)
        if there is None or standing is None or source == intent.path:
            return
        begun_as_two = intent.expected.token is None or not is_object(there, intent.expected)
        if not (begun_as_two and is_object(there, brought) and self._stands(there, standing)):
            return
        with self._tree.parent(source) as (directory, name):
            public, aside = Place(directory, name), Place(directory, aside_name(intent.op))
            self._mover.move_aside(public, aside)
            reach("settle.source-aside")
            left = self._mover.look(aside)
            if left is not None and self._stands(left, self._at(intent.path)):
                self._mover.drop(aside)
            else:
                self._mover.give_back(aside, public, intent.op)
            sync_directory(directory)

    def _settle_side(
        self,
        intent: Intent,
        path: RemotePath,
        expected: Expected,
        other: tuple[RemotePath, Expected] | None,
    ) -> None:
        if not path:
            return
        try:
            with self._tree.parent(path) as (directory, name):
                self._discard(Place(directory, staged_name(intent.op)))
                aside = Place(directory, aside_name(intent.op))
                left = self._mover.look(aside)
                if left is not None:
                    target = Place(directory, name)
                    self._place(intent, aside, left, target, expected, other)
                    sync_directory(directory)
        except FileNotFoundError:
            return  # the directory itself is gone, and everything in it

    def _place(
        self,
        intent: Intent,
        aside: Place,
        left: Entry,
        target: Place,
        expected: Expected,
        other: tuple[RemotePath, Expected] | None,
    ) -> None:
        """Decide where ``left``, found at ``.old``, belongs. See the table above."""
        mover, standing = self._mover, self._mover.look(target)
        brought = other[1] if other else self._staged(intent, aside, left, target, standing)
        if self._stands(left, standing) or (other and self._stands(left, self._at(other[0]))):
            mover.drop(aside)
        elif brought is not None and came_out(left, brought):
            self._return_brought(intent, aside, target, other)
        elif standing is None:
            mover.give_back(aside, target, intent.op)
        elif brought is not None and is_object(standing, brought):
            if came_out(left, expected) and self._dropped(aside):
                return
            self._undo_exchange(intent, aside, target, brought, other)
        else:
            mover.keep(aside, target, intent.op)
        reach("settle.placed")

    def _staged(
        self, intent: Intent, aside: Place, left: Entry, target: Place, standing: Entry | None
    ) -> Expected | None:
        """What was to be brought in. Of a ``put`` no more than its content is known.

        Where nothing stands at the target, what lies aside is what was there, equal or not. But
        what is to be exchanged lies there as well: the target was removed before, or since.
        """
        wanted, digest = intent.staged, intent.staged_digest
        if wanted is None or wanted.token != NEVER_SEEN:
            return _revision_or_none(wanted)
        if _with_content(target, standing, wanted, digest):
            return _revision_or_none(standing)
        may_be_ours = self._mover.can_exchange and not is_object(left, intent.expected)
        if (standing is not None or may_be_ours) and _with_content(aside, left, wanted, digest):
            return _revision_or_none(left)
        return None

    @staticmethod
    def _stands(left: Entry, standing: Entry | None) -> bool:
        """Whether ``left`` is only a second name of what stands at a proper one."""
        return standing is not None and is_object(standing, revision(left))

    def _at(self, path: RemotePath) -> Entry | None:
        try:
            with self._tree.parent(path) as (directory, name):
                return self._mover.look(Place(directory, name))
        except FileNotFoundError:
            return None

    def _return_brought(
        self, intent: Intent, aside: Place, target: Place, other: tuple[RemotePath, Expected] | None
    ) -> None:
        """What the operation was to bring in was not brought in, or was taken out again."""
        if other is None:
            self._mover.drop(aside)
            return
        try:
            with self._tree.parent(other[0]) as (directory, name):
                self._mover.give_back(aside, Place(directory, name), intent.op)
                sync_directory(directory)
        except FileNotFoundError:
            self._mover.keep(aside, target, intent.op)

    def _undo_exchange(
        self,
        intent: Intent,
        aside: Place,
        target: Place,
        brought: Expected,
        other: tuple[RemotePath, Expected] | None,
    ) -> None:
        """The target was another revision than expected: give it its name back."""
        standing = self._mover.look(target)
        if standing is None or not came_out(standing, brought):
            # Ours was written to while it stood there: it stays, the other is kept beside it.
            self._mover.keep(aside, target, intent.op)
            return
        try:
            self._mover.swap(aside, target)
        except OSError as error:
            if error.errno not in NO_SUCH_WAY | {errno.ENOENT}:
                raise
            self._mover.keep(aside, target, intent.op)
            return
        reach("settle.swapped-back")
        left = self._mover.look(aside)
        if left is not None and came_out(left, brought):
            self._return_brought(intent, aside, target, other)
        else:
            self._mover.keep(aside, target, intent.op)

    def _dropped(self, aside: Place) -> bool:
        """Drop the expected revision; False for a directory that has something in it."""
        try:
            self._mover.drop(aside)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        reach("settle.dropped")
        return True

    def _discard(self, staged: Place) -> None:
        """Remove what we made. A directory can only be empty: it never had a public name."""
        entry = self._mover.look(staged)
        if entry is None:
            return
        if entry.kind is Kind.DIRECTORY:
            os.rmdir(staged.name, dir_fd=staged.directory)
        else:
            self._mover.drop(staged)
        reach("settle.discarded")


def _with_content(place: Place, there: Entry | None, wanted: Entry, digest: bytes | None) -> bool:
    """Whether a regular file stands there that has this content."""
    if there is None or there.kind is not Kind.FILE or there.size != wanted.size:
        return False
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(place.name, flags, dir_fd=place.directory)
    except OSError:
        return False
    try:
        return digest_content(fd) == digest
    finally:
        os.close(fd)


def _revision_or_none(entry: Entry | None) -> Expected | None:
    """Carrying over owner and ACL may have changed attributes; the content has not."""
    return None if entry is None else replace(revision(entry), kind=None)

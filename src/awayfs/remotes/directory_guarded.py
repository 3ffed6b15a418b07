"""Guarded mutations of a ``dir:`` volume: no revision but the expected one is destroyed.

The pattern of all of them: look (whole token), move, look at what the move brought out
(``came_out``), look once more right before it is unlinked, unlink; and put everything back
where a look shows something else. What cannot be put back, because another writer has taken
the name meanwhile, gets a conflict name beside it. Of an operation's two names, ``.new`` has
only ever what we made and may be discarded at any time; ``.old`` has what must not be
destroyed unseen.

Putting something over a revision (``replace``, ``rename``) in the SWAP way:

    1  incoming → .old
    2  exchange .old, target        the target never goes missing
    3  look at .old twice, unlink

and in the ASIDE way, where there is no RENAME_EXCHANGE:

    1  target → .old                readers see no file for a moment
    2  look at .old
    3  incoming → target, exclusive
    4  look at .old again, unlink

A writer that opened the file before it was moved can still write into it. On local file
systems a lease tells whether there is one, and it gets ``WRITER_PATIENCE_S`` to finish before
the last look.

Residual risk. One that holds the file open for longer, or on a network mount where leases do
not tell, and writes after the last look (some 10 µs before the unlink) writes into a removed
file, as any writer does whose file another program renames over. See ``came_out`` for what
the first look cannot see. Where kernel timestamps are coarser than that, a target changed within
the last moments is let settle first, so that an edit after the look must show.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.errors import NotFound, Refused
from awayfs.core.types import Committed, Entry, Expected, Kind, Mismatch, OpId, Outcome, RemotePath
from awayfs.remotes import linux, progress
from awayfs.remotes.directory_attributes import carry_over
from awayfs.remotes.directory_facts import BTRFS, EXT, TMPFS, WELL_KNOWN, XFS
from awayfs.remotes.directory_moves import (
    NO_SUCH_WAY,
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

LONGEST_WAIT_S = 2.5
WRITER_PATIENCE_S = 0.05
WRITER_PAUSE_S = 0.001
_MULTIGRAIN = frozenset({EXT, XFS, BTRFS, TMPFS})


def _kernel_is_multigrain() -> bool:
    """Since 6.13 a change after a look gets a time of its own (multigrain-ts.rst)."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return found is not None and (int(found[1]), int(found[2])) >= (6, 13)


MULTIGRAIN_KERNEL = _kernel_is_multigrain()


class Incoming(Struct, frozen=True):
    """What an operation brings to a public name, pinned so that it stays what it was."""

    place: Place
    fd: int
    entry: Entry


class Guarded:
    """The guarded mutations of one tree."""

    def __init__(self, tree: Tree, mover: Mover) -> None:
        self._tree = tree
        self._mover = mover

    def replace(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """``Remote.replace``: the staged file takes the name."""
        with self._tree.parent(path) as (directory, name):
            target = Place(directory, name)
            staged = Place(directory, staged_name(op))
            with self._incoming(staged, f"nothing is staged for {op}") as incoming:
                current = self._mover.look(target)
                if not satisfies(current, expected):
                    return Mismatch(current)
                if current is None:
                    return self._into_vacancy(incoming, target)
                if current.kind is Kind.DIRECTORY:
                    raise Refused(errno.EISDIR, "a directory stands there")
                self._inherit(target, incoming)
                incoming = self._again(incoming)
                return self._over(op, incoming, target, expected)

    def remove(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """``Remote.remove``. A directory goes by rmdir(2): it can only be an empty one."""
        with self._tree.parent(path) as (directory, name):
            target = Place(directory, name)
            current = self._mover.look(target)
            if not satisfies(current, expected):
                return Mismatch(current)
            if current is None:
                return Committed(None)
            if current.kind is Kind.DIRECTORY:
                os.rmdir(name, dir_fd=directory)
            else:
                self._let_settle(target, current, expected)
                if not self._drop(op, target, expected):
                    return Mismatch(self._mover.look(target))
            reach("remove.removed")
            sync_directory(directory)
            return Committed(None)

    def rename(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        source_expected: Expected,
        path_expected: Expected,
    ) -> Outcome:
        """``Remote.rename``."""
        with (
            self._tree.parent(source) as (source_directory, source_name),
            self._tree.parent(path) as (directory, name),
        ):
            source_place = Place(source_directory, source_name)
            target = Place(directory, name)
            with self._incoming(source_place, "the source is gone") as incoming:
                if not satisfies(incoming.entry, source_expected):
                    raise NotFound("the source is not what it was")
                current = self._mover.look(target)
                if not satisfies(current, path_expected):
                    return Mismatch(current)
                if current is None:
                    return self._rename_into_vacancy(op, incoming, target, source_expected)
                _check_kinds(incoming.entry, current)
                if current.kind is Kind.DIRECTORY and not _is_empty(target):
                    raise Refused(errno.ENOTEMPTY)
                return self._over(op, incoming, target, path_expected, source_expected)

    def exchange(
        self, a: RemotePath, b: RemotePath, a_expected: Expected, b_expected: Expected
    ) -> Outcome:
        """``Remote.exchange``; ``Mismatch.current`` is of the first path that differs."""
        with (
            self._tree.parent(a) as (a_directory, a_name),
            self._tree.parent(b) as (b_directory, b_name),
        ):
            sides = (
                (Place(a_directory, a_name), a_expected),
                (Place(b_directory, b_name), b_expected),
            )
            for place, expected in sides:
                current = self._mover.look(place)
                if not satisfies(current, expected) or current is None:
                    return Mismatch(current)
            (first, _), (second, _) = sides
            self._mover.swap(first, second)
            reach("exchange.swapped")
            for place, expected in (first, b_expected), (second, a_expected):
                if not came_out(self._mover.look(place), expected):
                    self._mover.swap(first, second)
                    other = first if place is second else second
                    return Mismatch(self._mover.look(other))
            sync_directory(first.directory)
            sync_directory(second.directory)
            return Committed(self._mover.look(second))

    @contextmanager
    def _incoming(self, place: Place, otherwise: str) -> Iterator[Incoming]:
        try:
            fd = self._tree.pin(place.directory, place.name)
        except FileNotFoundError:
            raise NotFound(otherwise) from None
        try:
            yield Incoming(place, fd, self._entry_of(fd, place.name))
        finally:
            os.close(fd)

    def _entry_of(self, fd: int, name: bytes) -> Entry:
        return self._tree.entry(fd, name, linux.statx(fd, fresh=True))

    def _again(self, incoming: Incoming) -> Incoming:
        return replace(incoming, entry=self._entry_of(incoming.fd, incoming.place.name))

    def _inherit(self, target: Place, incoming: Incoming) -> None:
        try:
            fd = self._tree.pin(target.directory, target.name)
        except FileNotFoundError:
            return  # the move will find out
        try:
            carry_over(fd, incoming.fd)
        finally:
            os.close(fd)

    def _over(
        self,
        op: OpId,
        incoming: Incoming,
        target: Place,
        expected: Expected,
        incoming_expected: Expected | None = None,
    ) -> Outcome:
        """Put ``incoming`` in the place of the expected revision, by the best way there is."""
        current = self._mover.look(target)
        if current is not None:
            self._let_settle(target, current, expected)
            current = self._mover.look(target)
        if not satisfies(current, expected):
            return Mismatch(current)
        wanted = incoming_expected or revision(incoming.entry)
        if self._mover.can_exchange:
            outcome = self._over_by_swap(op, incoming, target, expected, wanted)
            if outcome is not None:
                return outcome
        return self._over_by_aside(op, incoming, target, expected, wanted)

    def _over_by_swap(
        self, op: OpId, incoming: Incoming, target: Place, expected: Expected, wanted: Expected
    ) -> Outcome | None:
        """The SWAP way; None, with everything as it was, where there is no exchange."""
        mover, aside = self._mover, Place(target.directory, aside_name(op))
        mover.move_aside(incoming.place, aside)
        reach("over.ready")
        if not came_out(mover.look(aside), wanted):
            mover.give_back(aside, incoming.place, op)
            raise NotFound("the source is not what it was")
        try:
            mover.swap(aside, target)
        except OSError as error:
            mover.give_back(aside, incoming.place, op)
            if error.errno in NO_SUCH_WAY:
                return None
            if error.errno == errno.ENOENT:
                return Mismatch(mover.look(target))
            raise
        reach("over.swapped")
        try:
            done = self._drop_aside(aside, expected)
        except OSError:
            self._swap_back(op, aside, incoming, target, wanted)
            raise
        if not done:
            self._swap_back(op, aside, incoming, target, wanted)
            return Mismatch(mover.look(target))
        return self._committed(incoming, target)

    def _swap_back(
        self, op: OpId, aside: Place, incoming: Incoming, target: Place, wanted: Expected
    ) -> None:
        """Undo an exchange that brought out something else than expected."""
        mover = self._mover
        try:
            mover.swap(aside, target)
        except FileNotFoundError:
            mover.give_back(aside, target, op)
            return
        reach("over.swapped-back")
        if came_out(mover.look(aside), wanted):
            mover.give_back(aside, incoming.place, op)
            return
        # In the moment that ours stood there, someone wrote to it or put theirs in its place:
        # theirs is the latest and gets the name again; what was there before is kept too.
        try:
            mover.swap(aside, target)
        except FileNotFoundError:
            mover.give_back(aside, target, op)
            return
        mover.keep(aside, target, op)

    def _over_by_aside(
        self, op: OpId, incoming: Incoming, target: Place, expected: Expected, wanted: Expected
    ) -> Outcome:
        """The ASIDE way."""
        mover, aside = self._mover, Place(target.directory, aside_name(op))
        try:
            mover.move_aside(target, aside)
        except FileNotFoundError:
            return Mismatch(None)
        reach("over.aside")
        if not came_out(mover.look(aside), expected):
            mover.give_back(aside, target, op)
            return Mismatch(mover.look(target))
        try:
            self._enter(incoming, target)
        except FileExistsError:
            # Created in the moment that the name was vacant. The expected revision could go,
            # but its writer might have meant to add to it.
            mover.keep(aside, target, op)
            return Mismatch(mover.look(target))
        except OSError:
            mover.give_back(aside, target, op)
            raise
        reach("over.entered")
        there = mover.look(target)
        if there is None or not is_object(there, wanted):
            mover.keep(aside, target, op)
            return Mismatch(mover.look(target))
        try:
            dropped = self._drop_aside(aside, expected)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            dropped = False
        if not dropped:
            mover.keep(aside, target, op)
        if incoming.place.name != staged_name(op):
            self._leave(op, incoming, wanted)
        mover.drop(Place(target.directory, staged_name(op)))
        return self._committed(incoming, target)

    def _enter(self, incoming: Incoming, target: Place) -> None:
        """Give the incoming object its new name; the old one may remain (see ``_leave``)."""
        if incoming.entry.kind is Kind.DIRECTORY:
            self._mover.move_in(incoming.place, target)
            return
        try:
            self._mover.link(incoming.place, target)
        except FileExistsError:
            raise
        except OSError:
            self._mover.move_in(incoming.place, target)

    def _leave(self, op: OpId, incoming: Incoming, wanted: Expected) -> None:
        """Take away the old public name of what was linked to a new one, if it is still that."""
        there = self._mover.look(incoming.place)
        if there is not None and is_object(there, wanted):
            self._drop(op, incoming.place, replace(wanted, content=False))

    def _drop(self, op: OpId, target: Place, expected: Expected) -> bool:
        """Remove a file by way of ``.old``; False, and put back, if it is not as expected."""
        aside = Place(target.directory, aside_name(op))
        try:
            self._mover.move_aside(target, aside)
        except FileNotFoundError:
            return False
        reach("drop.aside")
        if self._drop_aside(aside, expected):
            return True
        self._mover.give_back(aside, target, op)
        return False

    def _drop_aside(self, aside: Place, expected: Expected) -> bool:
        """Unlink what was brought out if it is the expected revision and stays it."""
        first = self._mover.look(aside)
        if first is None or not came_out(first, expected):
            return False
        reach("drop.verified")
        if expected.content and first.kind is Kind.FILE:
            self._let_writers_finish(aside)
        last = self._mover.look(aside)
        if last is None or (expected.content and last.token != first.token):
            return False
        self._mover.drop(aside)
        reach("drop.dropped")
        return True

    def _let_writers_finish(self, aside: Place) -> None:
        """Give those who have the file open for writing a moment; local file systems only."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(aside.name, flags, dir_fd=aside.directory)
        except OSError:
            return
        try:
            st = linux.statx(fd, fresh=False)
            if self._tree.facts(fd, st).magic not in WELL_KNOWN:
                return
            until = time.monotonic() + WRITER_PATIENCE_S
            while linux.held_by_a_writer(fd) and time.monotonic() < until:
                time.sleep(WRITER_PAUSE_S)
        finally:
            os.close(fd)

    def _into_vacancy(self, incoming: Incoming, target: Place) -> Outcome:
        reach("vacancy.ready")
        try:
            self._mover.move_in(incoming.place, target)
        except FileExistsError:
            return Mismatch(self._mover.look(target))
        return self._committed(incoming, target)

    def _rename_into_vacancy(
        self, op: OpId, incoming: Incoming, target: Place, expected: Expected
    ) -> Outcome:
        mover, source = self._mover, incoming.place
        try:
            linux.renameat2(
                source.directory, source.name, target.directory, target.name, linux.RENAME_NOREPLACE
            )
        except FileExistsError:
            return Mismatch(mover.look(target))
        except FileNotFoundError:
            raise NotFound("the source is gone") from None
        except OSError as error:
            if error.errno not in NO_SUCH_WAY:
                raise
            try:
                self._enter(incoming, target)
            except FileExistsError:
                return Mismatch(mover.look(target))
            reach("rename.entered")
            self._leave(op, incoming, expected)
            return self._committed(incoming, target)
        reach("rename.moved")
        # What is there now may be another's that replaced ours since, or replaced the source
        # just before; the two look alike, and it stands at a proper name in both cases. The
        # answer tells of our object, so the next observation shows the difference.
        return self._committed(incoming, target)

    def _committed(self, incoming: Incoming, target: Place) -> Committed:
        """What the operation put there, even where someone else's stands there by now.

        An entry that was written to meanwhile is returned with the change time of before, so
        that the next observation shows another token than this.
        """
        reach("committed")
        sync_directory(target.directory)
        if incoming.place.directory != target.directory:
            sync_directory(incoming.place.directory)
        now = self._entry_of(incoming.fd, target.name)
        unchanged = came_out(now, revision(incoming.entry))
        return Committed(now if unchanged else replace(incoming.entry, name=target.name))

    def _let_settle(self, target: Place, current: Entry, expected: Expected) -> None:
        """Wait until an edit after the next look must change the token, where that is unsure."""
        if not (current.weak and expected.content):
            return
        try:
            fd = self._tree.pin(target.directory, target.name)
        except FileNotFoundError:
            return
        try:
            st = linux.statx(fd, fresh=True)
            facts = self._tree.facts(fd, st)
            if MULTIGRAIN_KERNEL and facts.magic in _MULTIGRAIN:
                return
            wait = min(facts.settled_in_ns(st) / 1e9, LONGEST_WAIT_S)
        finally:
            os.close(fd)
        progress.tick(wait + 1.0)
        time.sleep(wait)


def _check_kinds(source: Entry, target: Entry) -> None:
    """What rename(2) says of directories and other things."""
    if source.kind is Kind.DIRECTORY and target.kind is not Kind.DIRECTORY:
        raise Refused(errno.ENOTDIR, "a directory cannot replace a file")
    if source.kind is not Kind.DIRECTORY and target.kind is Kind.DIRECTORY:
        raise Refused(errno.EISDIR, "a file cannot replace a directory")


def _is_empty(place: Place) -> bool:
    """Whether a directory has no entries; True where it cannot be read (rmdir will tell)."""
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(place.name, flags, dir_fd=place.directory)
    except OSError:
        return True
    try:
        return not os.listdir(fd)
    finally:
        os.close(fd)

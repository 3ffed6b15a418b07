"""Creating things in a ``dir:`` volume: staged files, directories, symlinks, nodes, links."""

from __future__ import annotations

import errno
import os

from msgspec.structs import replace

from awayfs.core.errors import Refused
from awayfs.core.types import (
    Attributes,
    Committed,
    Entry,
    Kind,
    Mismatch,
    OpId,
    Outcome,
    RemotePath,
)
from awayfs.remotes import linux
from awayfs.remotes.continuing import continues
from awayfs.remotes.directory_attributes import apply
from awayfs.remotes.directory_content import make_durable, stage_content, sync, tail_of
from awayfs.remotes.directory_moves import Mover, Place, sync_directory
from awayfs.remotes.directory_tree import Tree
from awayfs.remotes.faults import reach
from awayfs.remotes.names import staged_name

DEFAULT_FILE_MODE = 0o644
DEFAULT_DIRECTORY_MODE = 0o755

_CONTINUE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Maker:
    """Makes things under the staged name of an operation, complete before they are public."""

    def __init__(self, tree: Tree, mover: Mover) -> None:
        self._tree = tree
        self._mover = mover

    def stage(
        self,
        op: OpId,
        directory: RemotePath,
        fd: int,
        size: int,
        attributes: Attributes,
        start: int,
        token: bytes,
    ) -> Entry:
        """``Remote.stage``. Nobody else may read the file before its mode is set."""
        with self._tree.directory(directory) as parent:
            place = Place(parent, staged_name(op))
            target = self._continued(place, fd, start, token) if start else None
            if target is None:
                target, start = self._begun(place), 0
            try:
                reach("stage.created")
                self._learn_clock(target)
                stage_content(fd, target, start, size)
                reach("stage.written")
                mode = DEFAULT_FILE_MODE if attributes.mode is None else attributes.mode
                apply(target, replace(attributes, mode=mode))
                make_durable(target, size)
                return self._tree.entry(target, place.name, linux.statx(target, fresh=True))
            finally:
                os.close(target)

    def stage_part(
        self, op: OpId, directory: RemotePath, fd: int, start: int, end: int, token: bytes
    ) -> Entry | None:
        """``Remote.stage_part``."""
        with self._tree.directory(directory) as parent:
            place = Place(parent, staged_name(op))
            target = self._continued(place, fd, start, token) if start else self._begun(place)
            if target is None:
                return None
            try:
                reach("part.begun")
                stage_content(fd, target, start, end)
                reach("part.written")
                sync(target)
                reach("part.synced")
                return self._tree.entry(target, place.name, linux.statx(target, fresh=True))
            finally:
                os.close(target)

    def _begun(self, place: Place) -> int:
        """A new file. What is there is unlinked, not truncated: it may be a second name of what
        is public by now."""
        self._mover.drop(place)
        return os.open(place.name, _CREATE, 0o600, dir_fd=place.directory)

    def _continued(self, place: Place, fd: int, start: int, token: bytes) -> int | None:
        """What is staged, open for writing, if its first ``start`` bytes are those of ``fd``."""
        standing = self._mover.look(place)
        if standing is None or standing.kind is not Kind.FILE:
            return None
        try:
            target = os.open(place.name, _CONTINUE, dir_fd=place.directory)
        except OSError:  # it went, or may not be written to
            return None
        there = linux.statx(target, fresh=True)
        entry = self._tree.entry(target, place.name, there)
        if (
            entry.kind is Kind.FILE
            and there.nlink == 1
            and continues(entry, start, token, fd, tail_of(target, start))
        ):
            os.ftruncate(target, start)
            return target
        os.close(target)
        return None

    def discard_staged(self, op: OpId, directory: RemotePath) -> None:
        """``Remote.discard_staged``; fine if the directory is gone as well."""
        try:
            with self._tree.directory(directory) as parent:
                self._mover.drop(Place(parent, staged_name(op)))
        except FileNotFoundError:
            pass

    def make(
        self,
        op: OpId,
        path: RemotePath,
        kind: Kind,
        attributes: Attributes,
        target: bytes,
        rdev: int,
    ) -> Outcome:
        """``Remote.make``: made and given its attributes under the staged name, then moved."""
        if kind is Kind.FILE:
            raise Refused(errno.EINVAL, "files are staged, not made")
        with self._tree.parent(path) as (directory, name):
            public, staged = Place(directory, name), Place(directory, staged_name(op))
            standing = self._mover.look(public)
            if standing is not None:
                return Mismatch(standing)
            self._mover.drop(staged)
            _create(staged, kind, target, rdev)
            reach("make.created")
            try:
                entry = self._finish(staged, public, kind, attributes)
            except FileExistsError:
                self._mover.drop(staged)
                return Mismatch(self._mover.look(public))
            except OSError:
                self._mover.drop(staged)
                raise
            reach("make.moved")
            sync_directory(directory)
            return Committed(entry)

    def link(self, source: RemotePath, path: RemotePath) -> Outcome:
        """``Remote.link``: one step, exclusive by itself (link(2))."""
        with (
            self._tree.parent(source) as (source_directory, source_name),
            self._tree.parent(path) as (directory, name),
        ):
            public = Place(directory, name)
            try:
                self._mover.link(Place(source_directory, source_name), public)
            except FileExistsError:
                return Mismatch(self._mover.look(public))
            reach("link.linked")
            sync_directory(directory)
            return Committed(self._mover.look(public))

    def _finish(self, staged: Place, public: Place, kind: Kind, attributes: Attributes) -> Entry:
        fd = self._tree.pin(staged.directory, staged.name)
        try:
            default = DEFAULT_DIRECTORY_MODE if kind is Kind.DIRECTORY else DEFAULT_FILE_MODE
            mode = default if attributes.mode is None else attributes.mode
            apply(fd, replace(attributes, mode=mode))
            reach("make.ready")
            self._mover.move_in(staged, public)
            return self._tree.entry(fd, public.name, linux.statx(fd, fresh=True))
        finally:
            os.close(fd)

    def _learn_clock(self, fd: int) -> None:
        st = linux.statx(fd, fresh=True)
        self._tree.facts(fd, st).learn_clock(st.ctime_ns)


def _create(place: Place, kind: Kind, target: bytes, rdev: int) -> None:
    if kind is Kind.DIRECTORY:
        os.mkdir(place.name, 0o700, dir_fd=place.directory)
    elif kind is Kind.SYMLINK:
        os.symlink(target, place.name, dir_fd=place.directory)
    else:
        os.mknod(place.name, kind | 0o600, rdev, dir_fd=place.directory)

"""Steps that guarded operations are made of, each one call for the file system.

A *place* is a directory (an O_PATH descriptor) and a name in it. Names of operations
(``.awayfs-<op>.new`` and ``.old``) are used by nobody else, so only public names need care.

Three ways to move exclusively, best first: rename with RENAME_NOREPLACE; a hard link and an
unlink (NFS, Ceph and AFS clients refuse the flags with EINVAL); and, for directories and where
there are no links, a look followed by a plain rename. The last can overwrite what was created
between the two calls: an empty directory, or a file on a file system with neither.
"""

from __future__ import annotations

import errno
import os
import stat

from msgspec import Struct

from awayfs.core.types import Entry, Expected, Kind, OpId
from awayfs.remotes import linux
from awayfs.remotes.directory_facts import version_of
from awayfs.remotes.directory_tree import Tree
from awayfs.remotes.faults import reach
from awayfs.remotes.names import conflict_name

NO_SUCH_WAY = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
NO_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class Place(Struct, frozen=True):
    """A name in an open directory."""

    directory: int
    name: bytes


def satisfies(entry: Entry | None, expected: Expected) -> bool:
    """Whether what stands somewhere is what an operation requires there, before it begins."""
    if entry is None or expected.token is None:
        return entry is None and expected.token is None
    if expected.rights is not None and (entry.mode, entry.uid, entry.gid) != expected.rights:
        return False
    if expected.content:
        return _same_identity(entry, expected) and entry.token == expected.token
    return is_object(entry, expected)


def is_object(entry: Entry, expected: Expected) -> bool:
    """Same object, whatever it contains: by id, or by inode number where there is no id."""
    if not _same_identity(entry, expected):
        return False
    if entry.file_id is not None and expected.file_id is not None:
        return True
    wanted, is_there = version_of(expected.token), version_of(entry.token)
    return wanted is None or is_there is None or wanted.ino == is_there.ino


def came_out(entry: Entry | None, expected: Expected) -> bool:
    """Whether what our own move brought out is what was expected to be there.

    A move stamps the change time of what it moves, so the token cannot be compared. The rule:
    same identity, inode, size and modification time. As the whole token, change time included,
    was compared just before the move, what passes unseen is an edit within those few
    microseconds that keeps the size and sets the modification time back (utimensat(2)), and
    changes of attributes alone.
    """
    if entry is None or expected.token is None:
        return False
    if not expected.content:
        return is_object(entry, expected)
    wanted, is_there = version_of(expected.token), version_of(entry.token)
    if wanted is None or is_there is None or not _same_identity(entry, expected):
        return False
    return (wanted.ino, wanted.mtime_ns, wanted.size) == (
        is_there.ino,
        is_there.mtime_ns,
        is_there.size,
    )


def revision(entry: Entry) -> Expected:
    """The expectation that only this revision fulfils."""
    return Expected(entry.token, entry.file_id, entry.kind)


def _same_identity(entry: Entry, expected: Expected) -> bool:
    if expected.kind is not None and entry.kind is not expected.kind:
        return False
    both = entry.file_id is not None and expected.file_id is not None
    return not both or entry.file_id == expected.file_id


class Mover:
    """Moves between places of one tree. ``exchange``: RENAME_EXCHANGE may be tried at all."""

    def __init__(self, tree: Tree, exchange: bool = True) -> None:
        self.tree = tree
        self.can_exchange = exchange

    def look(self, place: Place) -> Entry | None:
        """What stands there now, asked of the server."""
        return self.tree.entry_at(place.directory, place.name)

    def swap(self, a: Place, b: Place) -> None:
        """Exchange two names; FileNotFoundError if one is gone."""
        linux.renameat2(a.directory, a.name, b.directory, b.name, linux.RENAME_EXCHANGE)

    def move_aside(self, public: Place, own: Place) -> None:
        """Move what stands at a public name to a name of ours; FileExistsError if taken."""
        if self._without_replacing(public, own):
            return
        if self.look(own) is not None:
            raise FileExistsError(errno.EEXIST, "a name of this operation is left over")
        os.rename(public.name, own.name, src_dir_fd=public.directory, dst_dir_fd=own.directory)

    def move_in(self, own: Place, public: Place) -> None:
        """Move from a name of ours to a public one; FileExistsError if something is there."""
        if self._without_replacing(own, public) or self._by_link(own, public):
            return
        if self.look(public) is not None:
            raise FileExistsError(errno.EEXIST, "the name is taken")
        os.rename(own.name, public.name, src_dir_fd=own.directory, dst_dir_fd=public.directory)

    def link(self, source: Place, path: Place) -> None:
        """A hard link, exclusive, of the object itself."""
        os.link(
            source.name,
            path.name,
            src_dir_fd=source.directory,
            dst_dir_fd=path.directory,
            follow_symlinks=False,
        )

    def keep(self, own: Place, beside: Place, op: OpId) -> bytes:
        """Give what stands at a name of ours a visible conflict name beside a public one."""
        attempt = 0
        while True:
            name = conflict_name(beside.name, op, attempt)
            try:
                self.move_in(own, Place(beside.directory, name))
                return name
            except FileExistsError:
                attempt += 1

    def give_back(self, own: Place, public: Place, op: OpId) -> None:
        """Put back what was moved aside, or keep it beside what has come there meanwhile."""
        try:
            self.move_in(own, public)
        except FileExistsError:
            self.keep(own, public, op)

    def drop(self, place: Place) -> None:
        """Remove a name of ours, a file or an empty directory; fine if there is none."""
        try:
            st = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                os.rmdir(place.name, dir_fd=place.directory)
            else:
                os.unlink(place.name, dir_fd=place.directory)
        except FileNotFoundError:
            pass

    def _without_replacing(self, source: Place, path: Place) -> bool:
        try:
            linux.renameat2(
                source.directory, source.name, path.directory, path.name, linux.RENAME_NOREPLACE
            )
            return True
        except OSError as error:
            if error.errno not in NO_SUCH_WAY:
                raise
            # EINVAL may also mean "into its own child"; a plain rename will say so again.
            return False

    def _by_link(self, source: Place, path: Place) -> bool:
        entry = self.look(source)
        if entry is None or entry.kind is Kind.DIRECTORY:
            return False
        try:
            self.link(source, path)
        except OSError as error:
            if error.errno in NO_LINK:
                return False
            raise
        reach("move.linked")
        os.unlink(source.name, dir_fd=source.directory)
        return True


def sync_directory(directory: int) -> None:
    """fsync(2) a directory that is open as O_PATH, where it can be read and synced."""
    try:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.EBADF):
            raise
    finally:
        os.close(fd)

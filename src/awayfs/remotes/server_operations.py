"""Operations with the steps and guards of ``sftp_guard``; part of ``server_program``.

One is done when it has an ``answer``. The phases are those of a batch.
"""

# Runs on the server: see ``server_program``. No future annotations, no "|": Python 3.6 reads this.

import errno
import functools
import os
import stat

from awayfs.remotes.server_batch import Operation, Shared  # they are sent before this one
from awayfs.remotes.server_steps import (
    ABSENT,
    ASKED_DIGEST,
    ASKED_FENCE,
    ASKED_MAKE,
    ASKED_PUT,
    ASKED_REMOVE,
    ASKED_RENAME,
    CREATE,
    DIRECTORY,
    DONE,
    FENCE,
    INHERIT,
    KEEP,
    MAKE,
    MISMATCH,
    PUT,
    PUT_BACK,
    READ,
    REMOVE,
    RENAME,
    SOURCE_BACK,
    Unusual,
    Wanted,
    allowed,
    back,
    begin_writeback,
    cut,
    drop,
    entry,
    hashed,
    is_same,
    is_simple,
    link,
    look,
    names_of,
    place,
    reach,
    take,
)


class Put(Operation):
    """``stage`` and ``replace`` in one."""

    syncs = True

    def __init__(self, shared: Shared, number: int, body: bytes) -> None:
        Operation.__init__(self, shared, number)
        op, path, self.mode, self.uid, self.gid, self.mtime, self.atime, flags, *wanted = (
            PUT.unpack_from(body)
        )
        kind, token, how = wanted
        parts = cut(body, PUT.size, op, path, token, Wanted.rest(how))
        self.path = parts[1]
        self.own, self.aside = names_of(parts[0])
        self.wanted = Wanted(kind, parts[2], how, parts[3]) if token else None
        self.inherits = flags & INHERIT
        self.content = parts[4]
        self.directory = self.fd = -1
        self.name = b""
        self.owner = (-1, -1)
        self.made = None  # type: os.stat_result | None

    def stage(self) -> None:
        self.directory, self.name = self.at(self.path)
        owner = None
        if self.wanted is not None:
            there = self.expected_there(self.wanted)
            if there is None:
                return
            owner = there.st_uid, there.st_gid
        self.fd = os.open(self.own, CREATE, 0o600, dir_fd=self.directory)
        reach("created")
        try:
            self.fill(owner)
        except OSError:
            drop(self.directory, self.own)
            raise
        reach("staged")

    def expected_there(self, wanted: Wanted) -> "os.stat_result | None":
        """What is to be replaced, if it is that; None: the answer was given."""
        there = look(self.directory, self.name)
        if there is None:
            self.tell(MISMATCH)
        elif not wanted.matches(self.directory, self.name, there):
            self.mismatch(self.directory, self.name)
        elif (
            not stat.S_ISREG(there.st_mode)
            or there.st_nlink != 1
            or look(self.directory, self.aside) is not None
        ):
            raise Unusual
        else:
            return there
        return None

    def fill(self, owner: "tuple[int, int] | None") -> None:
        """Content and attributes; the owner before the mode, as chown(2) clears setuid bits."""
        fd, content = self.fd, self.content
        written = os.write(fd, content) if content else 0
        while written < len(content):
            written += os.write(fd, content[written:])
        self.shared.learn(fd)
        if self.uid >= 0 or self.gid >= 0:
            self.give(self.uid, self.gid)
        found = os.fstat(fd) if owner is not None and self.inherits else None
        if found is not None and owner is not None and owner != (found.st_uid, found.st_gid):
            self.give(*owner)
        os.fchmod(fd, self.mode)
        if self.mtime >= 0:
            os.utime(fd, ns=(self.atime * 1000000000, self.mtime * 1000000000))
        begin_writeback(fd)
        self.made = os.fstat(fd)
        if self.made.st_size != len(content):
            raise OSError(errno.EIO, "what was written is not there")
        self.owner = owner or (-1, -1)

    def give(self, uid: int, gid: int) -> None:
        """Another owner, where we may: the content is worth having under this one, too."""
        allowed(os.fchown, self.fd, uid, gid)

    def sync(self) -> None:
        try:
            os.fsync(self.fd)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                return
            drop(self.directory, self.own)
            raise

    def act(self) -> None:
        reach("synced")
        try:
            self.changes(self.directory)
            ours, made = look(self.directory, self.own), self.made
            if ours is None or made is None or not is_same(ours, made):
                self.own = b""  # not ours any more
                raise Unusual
            if self.wanted is None:
                self.put_new(made)
            else:
                self.put_over(self.wanted)
        finally:
            if self.own:
                drop(self.directory, self.own)

    def put_new(self, made: os.stat_result) -> None:
        """The entry is that of what we staged: whoever writes there by now is not taken for us."""
        self.shared.go_on()
        if place(self.directory, self.own, self.name):
            self.own = b""
            reach("placed")
            self.tell(DONE, entry(made))
        else:
            self.mismatch(self.directory, self.name)

    def put_over(self, wanted: Wanted) -> None:
        there = self.expected_there(wanted)
        if there is None:
            return None
        if self.inherits and self.owner != (there.st_uid, there.st_gid):
            raise Unusual
        if not wanted.is_known(self.directory, self.name):
            return self.mismatch(self.directory, self.name)
        reach("checked")
        self.shared.go_on()
        if not take(self.directory, self.name, self.aside):
            return self.mismatch(self.directory, self.name)
        reach("taken")
        try:
            placed = wanted.is_it(self.directory, self.aside)
            if not placed:
                return self.undo()
            reach("compared")
            self.shared.go_on()
            placed = place(self.directory, self.own, self.name)
        except OSError:
            if not back(self.directory, self.aside, self.name):
                return self.mismatch(self.directory, self.name, PUT_BACK)
            raise
        self.own = b"" if placed else self.own
        self.half_done = True  # from here on a "no" would be no answer
        reach("placed")
        left = self.let_go(wanted)
        if placed and self.made is not None:
            self.tell(DONE | left, entry(self.made))
        else:
            self.mismatch(self.directory, self.name, left)
        return None

    def undo(self) -> None:
        """What was moved aside gets its name back, or is left to the other side."""
        flags = 0 if back(self.directory, self.aside, self.name) else PUT_BACK
        reach("put back")
        self.mismatch(self.directory, self.name, flags)

    def let_go(self, wanted: Wanted) -> int:
        """Unlink the revision that was replaced, unless it was written into since we looked."""
        if not wanted.is_it(self.directory, self.aside):
            return KEEP
        reach("looked again")
        self.shared.go_on()
        drop(self.directory, self.aside)
        reach("dropped")
        return 0

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Remove(Operation):
    """A name of a file or a symlink."""

    def __init__(self, shared: Shared, number: int, body: bytes) -> None:
        Operation.__init__(self, shared, number)
        op, path, kind, token, how = REMOVE.unpack_from(body)
        parts = cut(body, REMOVE.size, op, path, token, Wanted.rest(how))
        self.path = parts[1]
        self.aside = names_of(parts[0])[1]
        self.wanted = Wanted(kind, parts[2], how, parts[3])

    def act(self) -> None:
        wanted = self.wanted
        directory, name = self.at(self.path)
        there = look(directory, name)
        if there is None or not wanted.matches(directory, name, there):
            return self.mismatch(directory, name)
        if not is_simple(there) or look(directory, self.aside) is not None:
            raise Unusual
        if not wanted.is_known(directory, name):
            return self.mismatch(directory, name)
        reach("checked")
        self.changes(directory)
        self.shared.go_on()
        if not take(directory, name, self.aside):
            return self.mismatch(directory, name)
        reach("taken")
        if not wanted.is_it(directory, self.aside):
            flags = 0 if back(directory, self.aside, name) else PUT_BACK
            reach("put back")
            return self.mismatch(directory, name, flags)
        reach("compared")
        if wanted.digest and not wanted.is_it(directory, self.aside):
            return self.tell(DONE | KEEP)  # written into while it was read
        self.shared.go_on()
        drop(directory, self.aside)
        reach("dropped")
        return self.tell(DONE)


class Rename(Operation):
    """A file or a symlink gets a name that is free."""

    def __init__(self, shared: Shared, number: int, body: bytes) -> None:
        Operation.__init__(self, shared, number)
        op, source, path, kind, token, how = RENAME.unpack_from(body)
        parts = cut(body, RENAME.size, op, source, path, token, Wanted.rest(how))
        self.source, self.path = parts[1], parts[2]
        self.own, self.aside = names_of(parts[0])
        self.target = b""
        self.wanted = Wanted(kind, parts[3], how, parts[4])

    def act(self) -> None:
        wanted = self.wanted
        directory, name = self.at(self.source)
        to_directory, to = self.at(self.path)
        incoming = look(directory, name)
        if incoming is None or not wanted.matches(directory, name, incoming):
            return self.tell(ABSENT)
        aside = look(directory, self.aside) or look(to_directory, self.aside)
        if not is_simple(incoming) or aside is not None:
            raise Unusual
        if not wanted.is_known(directory, name):
            return self.tell(ABSENT)
        reach("checked")
        self.shared.go_on()
        if not link(directory, name, to_directory, self.own):
            raise Unusual  # an earlier try may have left one
        self.changes(to_directory)
        self.changes(directory)
        reach("linked")
        try:
            brought = look(to_directory, self.own)
            if brought is None or not wanted.is_it(to_directory, self.own):
                return self.tell(ABSENT)
            if stat.S_ISLNK(brought.st_mode):
                self.target = os.readlink(self.own, dir_fd=to_directory)
            self.shared.go_on()
            if not link(to_directory, self.own, to_directory, to):
                return self.mismatch(to_directory, to)
            reach("placed")
            self.drop_source(directory, name, brought)
            reach("source dropped")
        finally:
            if self.own:
                drop(to_directory, self.own)
            reach("dropped")
        return None

    def drop_source(self, directory: int, name: bytes, brought: os.stat_result) -> None:
        """The old name goes, unless another writer has put a revision there."""
        flags = 0
        shown = entry(brought) + (self.target if stat.S_ISLNK(brought.st_mode) else b"")
        # If anything fails now, it is for ``settle``, which needs N.
        own, self.own, self.half_done = self.own, b"", True
        self.shared.go_on()
        if take(directory, name, self.aside):
            reach("source taken")
            there = look(directory, self.aside)
            if there is not None and is_same(there, brought):
                self.shared.go_on()
                drop(directory, self.aside)
            elif not back(directory, self.aside, name):
                flags = SOURCE_BACK
        self.own = own
        self.tell(DONE | flags, shown)


class Make(Operation):
    """A directory."""

    def __init__(self, shared: Shared, number: int, body: bytes) -> None:
        Operation.__init__(self, shared, number)
        op, path, self.mode, self.uid, self.gid, self.mtime, self.atime = MAKE.unpack_from(body)
        self.path = cut(body, MAKE.size, op, path)[1]

    def act(self) -> None:
        directory, name = self.at(self.path)
        self.shared.go_on()
        try:
            # Its owner could not open what is not to be read.
            os.mkdir(name, self.mode & 0o777 | stat.S_IRWXU, dir_fd=directory)
        except FileExistsError:
            return self.mismatch(directory, name)
        reach("made")
        self.half_done = True
        self.changes(directory)
        fd = os.open(name, DIRECTORY, dir_fd=directory)
        try:
            self.shared.learn(fd)
            self.dress(fd)
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return self.tell(DONE, entry(found))

    def dress(self, fd: int) -> None:
        """Its attributes: what is refused is left as it is."""
        if self.uid >= 0 or self.gid >= 0:
            allowed(os.fchown, fd, self.uid, self.gid)
        if stat.S_IMODE(os.fstat(fd).st_mode) != self.mode:
            allowed(os.fchmod, fd, self.mode)
        if self.mtime >= 0:
            times = self.atime * 1000000000, self.mtime * 1000000000
            allowed(functools.partial(os.utime, ns=times), fd)


class Digest(Operation):
    """The content of a file that is small enough."""

    def __init__(self, shared: Shared, number: int, body: bytes) -> None:
        Operation.__init__(self, shared, number)
        self.path = body

    def act(self) -> None:
        directory, name = self.at(self.path)
        try:
            fd = os.open(name, READ, dir_fd=directory)
        except FileNotFoundError:
            return self.tell(ABSENT)
        try:
            found, digest = hashed(fd)
        finally:
            os.close(fd)
        return self.tell(DONE, entry(found) + digest)


class MakeFence(Operation):
    """Before all others."""

    def __init__(self, shared: Shared, number: int, body: bytes) -> None:
        Operation.__init__(self, shared, number)
        length, self.size, self.mtime = FENCE.unpack_from(body)
        self.name = cut(body, FENCE.size, length)[0]

    def act(self) -> None:
        directory, name = self.at(self.name)
        fd = os.open(name, CREATE, 0o600, dir_fd=directory)
        try:
            self.shared.learn(fd)
            os.ftruncate(fd, self.size)
            os.utime(fd, ns=(self.mtime * 1000000000, self.mtime * 1000000000))
            found = os.fstat(fd)
        finally:
            os.close(fd)
        self.shared.fence.made(self.name, found)
        self.tell(DONE, entry(found))


OPERATIONS = {
    ASKED_PUT: Put,
    ASKED_REMOVE: Remove,
    ASKED_RENAME: Rename,
    ASKED_DIGEST: Digest,
    ASKED_MAKE: Make,
    ASKED_FENCE: MakeFence,
}

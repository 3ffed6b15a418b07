"""Who works on the share: two clients in their mounts, and somebody on the server itself.

An actor goes on until it is stopped, and takes an error for what it is: an answer. What it removes
or writes over, it looks at before and after, so that the ledger knows exactly what went.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from awayfs.remotes import linux
from tests.storm.ledger import block, tokens_in
from tests.storm.world import World

AT_FDCWD = -100
NAMES = (
    *(b"a", b"b.txt", b"c.odt", b"D.TXT", b"d.txt", b"n\nl", b"inv\xff\xfe", "ü".encode()),
    *(b"x" * 200, b"f", b"g.db", b" sp ", b"-r"),
)
DIRECTORIES = (b"d1", b"d2", b"dd", b"D1", b"deep\xe9")
DEEPEST = 6
SIZES = (1, 1, 3, 20, 200, 3000, 20_000)
LARGE, LARGE_SHARE = 150_000, 0.02
"""In blocks, and how often."""
UNEVEN = 8
"""By this part sizes differ: over SFTP files of one size and second are the same until compared."""
PAUSE_S = 0.02
"""Between two operations, on average."""
AWAY_S = 0.3
"""What somebody waits whose mount or share is not there."""
SLOW_S = 8.0
CHUNK = 1 << 17
AWAY = (errno.ENOTCONN, errno.ECONNABORTED, errno.EPERM)
Operation = Callable[["Actor"], None]


def content(path: bytes) -> bytes:
    """All of a file, past the buffers of the library."""
    with open(path, "rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(1 << 20), b""))


def content_behind(fd: int) -> bytes:
    """The same of an open file, which may have no name any more."""
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        return file.read()


def is_file(path: bytes) -> bool:
    """Whether a regular file stands here, and no symlink to one."""
    return os.path.isfile(path) and not os.path.islink(path)


def exclusively_moved(source: bytes, target: bytes) -> None:
    """rename(2) that replaces nothing."""
    linux.renameat2(AT_FDCWD, source, AT_FDCWD, target, linux.RENAME_NOREPLACE)


def exchanged(one: bytes, other: bytes) -> None:
    """Each gets the other's name."""
    linux.renameat2(AT_FDCWD, one, AT_FDCWD, other, linux.RENAME_EXCHANGE)


class Actor:
    """A program on one of the mounts. ``letter`` marks its tokens."""

    def __init__(self, world: World, letter: str, root: str) -> None:
        self.world, self.record, self.ledger = world, world.record, world.ledger
        self.letter, self.root = letter, os.fsencode(root)
        self.draw = random.Random(f"{world.plan.seed}-{letter}")
        self.operations = 0
        self.errors: Counter[str] = Counter()
        self.slow: list[tuple[str, float]] = []
        self.doing: tuple[str, float] | None = None
        self.stopped = False

    def work(self, operations: Mapping[str, tuple[int, Operation]]) -> None:
        """Do this and that, each as often as its weight says, until stopped."""
        names, weights = list(operations), [weight for weight, _ in operations.values()]
        while not self.stopped:
            name = self.draw.choices(names, weights)[0]
            self.doing = name, time.monotonic()
            self.record.log(self.letter, "does", name)
            self._try(name, operations[name][1])
            took = time.monotonic() - self.doing[1]
            self.operations += 1
            if took > SLOW_S:
                self.slow.append((name, round(took, 1)))
                self.record.log(self.letter, "SLOW", name, took)
            self.doing = None
            time.sleep(PAUSE_S * self.draw.random() * 2)

    def _try(self, name: str, operation: Operation) -> None:
        try:
            operation(self)
        except OSError as error:
            self.errors[errno.errorcode.get(error.errno or 0, str(error.errno))] += 1
            self.record.log(self.letter, name, "failed", error)
            if error.errno in AWAY or not os.path.isdir(self.root):
                time.sleep(AWAY_S)
        except ValueError as error:  # a file became shorter than what was to be mapped of it
            self.record.log(self.letter, name, "failed", error)
        except Exception:
            self.record.problem(self.letter, name, traceback.format_exc())

    # -- what is there --------------------------------------------------------------------

    def directories(self) -> list[bytes]:
        """Where something can be made, the root first."""
        found = [self.root]
        for directory, names, _ in os.walk(self.root):
            for path in (os.path.join(directory, name) for name in names):
                deep = path.count(b"/") - self.root.count(b"/")
                if deep < DEEPEST and not os.path.islink(path):
                    found.append(path)
        return found

    def directory(self) -> bytes:
        """One below the root, if there is any."""
        found = self.draw.choice(self.directories()[1:] or [self.root])
        if found == self.root:
            raise FileNotFoundError(errno.ENOENT, "there is none")
        return found

    def files(self, kinds: Iterable[int] = (stat.S_IFREG,)) -> list[bytes]:
        """What is no directory and nothing of awayfs itself, by the types of stat(2)."""
        found = []
        for directory, _, names in os.walk(self.root):
            for path in (os.path.join(directory, name) for name in names):
                try:
                    kind = stat.S_IFMT(os.lstat(path).st_mode)
                except OSError:
                    continue
                if kind in kinds and b".awayfs" not in path:
                    found.append(path)
        return found

    def pick(self, *more: int) -> bytes:
        """A regular file, or one of ``more`` types."""
        found = self.files((stat.S_IFREG, *more))
        if not found:
            raise FileNotFoundError(errno.ENOENT, "there is none")
        return self.draw.choice(found)

    def new_path(self) -> bytes:
        """A place for something; often others want it, too."""
        name = self.draw.choice(NAMES)
        if self.draw.random() >= 0.7:
            name = b"u%s%d" % (self.letter.encode(), self.draw.randrange(40))
        return os.path.join(self.draw.choice(self.directories()), name)

    def tokens_of(self, path: bytes) -> set[bytes]:
        """What stands in a file, nothing if it is not there."""
        try:
            return tokens_in(content(path))
        except FileNotFoundError:
            return set()

    # -- what is written ------------------------------------------------------------------

    def new_content(self) -> tuple[bytes, int]:
        """A token, and in how many blocks it is to stand."""
        blocks = LARGE if self.draw.random() < LARGE_SHARE else self.draw.choice(SIZES)
        blocks += self.draw.randrange(1 + blocks // UNEVEN)
        return self.ledger.new(self.letter), blocks

    def put(self, fd: int, token: bytes, blocks: int, path: bytes, synced: bool) -> None:
        """Write, perhaps fsync, close; from then on it is owed."""
        owed = False
        try:
            data, at = block(token) * blocks, 0
            while at < len(data):
                at += os.write(fd, data[at : at + CHUNK])
            if synced:
                os.fsync(fd)
            if synced or self.may_be_displaced:
                owed = True
                self.keep(fd, path, token, blocks)
        finally:
            os.close(fd)
        if not owed:
            self.ledger.wrote(token, blocks, path)

    may_be_displaced = False

    def keep(self, fd: int, path: bytes, token: bytes, blocks: int) -> None:
        """What was written through ``fd`` is owed."""
        self.ledger.wrote(token, blocks, path)

    def emptied(self, path: bytes, mode: int) -> int:
        """A file opened for writing, new or without what it had."""
        old: set[bytes] = set()
        try:
            old = self.tokens_of(path) if os.path.lexists(path) else set()
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        finally:
            self.give_up(old, "empty", path)

    # -- what goes ------------------------------------------------------------------------

    def give_up(self, tokens: Iterable[bytes], what: str, path: bytes) -> None:
        """These may be gone: this actor sees them, and takes them away."""
        self.ledger.give_up(tokens, f"{self.letter} {what} {path!r}")

    def remove(self, path: bytes, why: str) -> None:
        """unlink(2). What it had is read before, from what is open, and again when it is gone."""
        fd = None if os.path.islink(path) else os.open(path, os.O_RDONLY)
        try:
            if fd is not None:
                os.read(fd, 1)  # its content must be here, or be fetched now
                self.give_up(self.tokens_of(path), why, path)
            os.unlink(path)
            self.record.log(self.letter, "removed", why, path)
            if fd is not None:
                self.give_up(tokens_in(content_behind(fd)), why, path)
        finally:
            if fd is not None:
                os.close(fd)

    def move(self, source: bytes, target: bytes, why: str) -> None:
        """rename(2). What the target had is read as for ``remove``."""
        fd = None
        if is_file(target):
            self.give_up(self.tokens_of(target), why, target)
            fd = os.open(target, os.O_RDONLY)
        try:
            os.rename(source, target)
            self.record.log(self.letter, "moved", why, source, "->", target)
            if fd is not None:
                self.give_up(tokens_in(content_behind(fd)), why, target)
        finally:
            if fd is not None:
                os.close(fd)


class OnServer(Actor):
    """Somebody on the server, whom nobody waits for: clients replace files meanwhile.

    So what it removes is moved away and looked at then, and what it wrote is owed only if the file
    still stands there: else a client had the right to replace what it had seen.
    """

    may_be_displaced = True
    _thrown_away = 0

    def keep(self, fd: int, path: bytes, token: bytes, blocks: int) -> None:
        try:
            status = os.fstat(fd)
            stands = status.st_nlink and os.path.samestat(status, os.lstat(path))
        except OSError:
            stands = False
        if stands:
            self.ledger.wrote(token, blocks, path)
        else:
            self.record.log("s was displaced", token, path)

    def emptied(self, path: bytes, mode: int) -> int:
        old: set[bytes] = set()
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
            old = tokens_in(content_behind(fd))
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            return fd
        finally:
            self.give_up(old, "empty", path)

    def remove(self, path: bytes, why: str) -> None:
        self._throw_away(path, why, path)

    def move(self, source: bytes, target: bytes, why: str) -> None:
        if not os.path.lexists(target) or os.path.isdir(target):
            exclusively_moved(source, target)
            self.record.log("s moved", why, source, "->", target)
            return
        exchanged(source, target)
        self._throw_away(source, why, target)

    def _throw_away(self, path: bytes, why: str, was: bytes) -> None:
        self._thrown_away += 1
        trash = os.path.join(self.world.trash, b"%d" % self._thrown_away)
        os.rename(path, trash)
        self.record.log("s threw away", why, was)
        if is_file(trash):
            self.give_up(tokens_in(content(trash)), why, was)

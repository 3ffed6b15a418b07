"""A thousand changes of every kind, mirrored on a local directory; then all three are equal.

The same seeded operation is carried out on the model, a plain directory, and on the mount, and
must end alike, in the same error where it fails. Then the server returns (or was there all the
time), and mount, server and model must show the same tree: names, types, content, modes,
times, targets and which names are one file.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import (
    Client,
    Server,
    assert_same_tree,
    eventually,
    mounted,
    needs_fuse,
    run,
    tree,
)

pytestmark = [*needs_fuse, pytest.mark.slow]

CHANGES = 1200
SECOND_NS = 1_000_000_000
DEEPEST = 12
MODES = (0o600, 0o644, 0o640, 0o755, 0o700, 0o444)
NAMES = (
    *(b"abcdefgh"[i : i + 1] for i in range(8)),
    b"with space",
    b"new\nline",
    b"\xff\xfe not text \x80",
    "zoë".encode(),
    b"-rf",
    b"x" * 255,
    b"\xe2\x82\xac" * 85,
    b"back\\slash",
)


class Mirror:
    """Does one random operation after the other on model and mount."""

    def __init__(self, seed: int, model: bytes, mount: bytes, *, special: bool) -> None:
        self.random = random.Random(seed)
        self.model = model
        self.mount = mount
        self.special = special
        self.done = 0
        self.failed = 0
        self.log: list[str] = []
        self.operations: list[tuple[int, Callable[[], None]]] = [
            (14, self.create),
            (10, self.write),
            (8, self.append),
            (5, self.truncate),
            (12, self.rename),
            (6, self.mkdir),
            (6, self.chmod),
            (6, self.utime),
            (4, self.symlink),
            (5, self.link),
            (2, self.mkfifo),
            (8, self.unlink),
            (3, self.rmdir),
            (4, self.save),
            (2, self.rename_directory),
        ]

    def run(self, changes: int) -> None:
        """Until so many have succeeded."""
        weights = [weight for weight, _ in self.operations]
        while self.done < changes:
            (_, operation) = self.random.choices(self.operations, weights)[0]
            operation()
            assert self.failed < 20 * changes, "hardly anything works"

    def both(self, what: str, act: Callable[[bytes], Any], *paths: bytes) -> bool:
        """The same on either side, with the same end; whether it was a success."""
        self.log.append(f"{what} {paths}")
        ends = [self._end(act, root) for root in (self.model, self.mount)]
        assert ends[0] == ends[1], f"{what} {paths}: model {ends[0]}, mount {ends[1]}"
        if ends[0] is None:
            self.done += 1
        else:
            self.failed += 1
        return ends[0] is None

    def _end(self, act: Callable[[bytes], Any], root: bytes) -> str | None:
        try:
            act(root)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return None

    def existing(self, wanted: Callable[[int], bool]) -> bytes | None:
        """A random path of the model whose mode suits."""
        found = []
        for directory, names, files in os.walk(self.model):
            for name in sorted([*names, *files]):
                path = os.path.join(directory, name)
                if wanted(os.lstat(path).st_mode):
                    found.append(os.path.relpath(path, self.model))
        return self.random.choice(sorted(found)) if found else None

    def somewhere(self) -> bytes:
        """A name in a random directory, free or not."""
        directory = self.existing(stat.S_ISDIR) if self.random.random() < 0.8 else None
        if directory is None or directory.count(b"/") >= DEEPEST:
            return self.random.choice(NAMES)
        return os.path.join(directory, self.random.choice(NAMES))

    def content(self) -> bytes:
        size = self.random.choice((0, 1, 17, 4096, 5000, 70_000))
        return self.random.randbytes(size)

    def timed(self, path: bytes) -> None:
        """Mostly the time is set after a change; else the mount's own counts for the model."""
        if self.random.random() < 0.3:
            return
        when = self.random.randrange(10**9, 17 * 10**8) * SECOND_NS
        when += self.random.randrange(SECOND_NS)
        times = (when, when)
        self.both("utime", lambda root: os.utime(os.path.join(root, path), ns=times), path)

    def _write_with(self, path: bytes, flags: int, data: bytes, offset: int | None) -> None:
        def act(root: bytes) -> None:
            fd = os.open(os.path.join(root, path), flags, 0o644)
            try:
                if offset is None:
                    os.write(fd, data)
                else:
                    os.pwrite(fd, data, offset)
            finally:
                os.close(fd)

        if self.both(f"write {flags:o} {len(data)} at {offset}", act, path):
            self.timed(path)

    def create(self) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW
        flags |= self.random.choice((os.O_EXCL, os.O_EXCL, os.O_TRUNC))
        path = self.somewhere()
        if self._is_fifo(path):
            return
        self._write_with(path, flags, self.content(), None)

    def write(self) -> None:
        path = self.existing(stat.S_ISREG)
        if path is not None:
            self._write_with(path, os.O_RDWR, self.content(), self.random.randrange(80_000))

    def append(self) -> None:
        path = self.existing(stat.S_ISREG)
        if path is not None:
            self._write_with(path, os.O_WRONLY | os.O_APPEND, self.content(), None)

    def truncate(self) -> None:
        path = self.existing(stat.S_ISREG)
        size = self.random.choice((0, 10, 4096, 100_000))
        if path is not None and self.both(
            f"truncate {size}", lambda root: os.truncate(os.path.join(root, path), size), path
        ):
            self.timed(path)

    def rename(self) -> None:
        source = self.existing(lambda mode: True)
        if source is not None:
            self._rename(source, self.somewhere())

    def rename_directory(self) -> None:
        source, target = self.existing(stat.S_ISDIR), self.existing(stat.S_ISDIR)
        if source is not None and target is not None:
            self._rename(source, self.random.choice((target, os.path.join(target, b"moved"))))

    def _rename(self, source: bytes, target: bytes) -> None:
        self.both(
            "rename",
            lambda root: os.rename(os.path.join(root, source), os.path.join(root, target)),
            source,
            target,
        )

    def save(self) -> None:
        """Write a temporary file, rename it over an existing one."""
        path = self.existing(stat.S_ISREG)
        if path is None:
            return
        temporary = os.path.join(os.path.dirname(path), b".save")
        data = self.content()
        self._write_with(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, data, None)
        self._rename(temporary, path)

    def mkdir(self) -> None:
        path, mode = self.somewhere(), self.random.choice((0o755, 0o700))
        self.both("mkdir", lambda root: os.mkdir(os.path.join(root, path), mode), path)

    def chmod(self) -> None:
        path = self.existing(lambda mode: not stat.S_ISLNK(mode))
        if path is None:
            return
        is_directory = os.path.isdir(os.path.join(self.model, path))
        mode = self.random.choice((0o755, 0o700) if is_directory else MODES)
        self.both(f"chmod {mode:o}", lambda root: os.chmod(os.path.join(root, path), mode), path)

    def utime(self) -> None:
        path = self.existing(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        if path is not None:
            when = self.random.randrange(17 * 10**17)
            self.both(
                f"utime {when}",
                lambda root: os.utime(os.path.join(root, path), ns=(when, when)),
                path,
            )

    def symlink(self) -> None:
        path, target = self.somewhere(), self.random.choice(NAMES)
        self.both("symlink", lambda root: os.symlink(target, os.path.join(root, path)), path)

    def link(self) -> None:
        source, path = self.existing(stat.S_ISREG), self.somewhere()
        if source is not None:
            self.both(
                "link",
                lambda root: os.link(os.path.join(root, source), os.path.join(root, path)),
                source,
                path,
            )

    def mkfifo(self) -> None:
        path = self.somewhere()
        if self.special:
            self.both("mkfifo", lambda root: os.mkfifo(os.path.join(root, path)), path)
        elif not os.path.lexists(os.path.join(self.model, path)):
            with pytest.raises(PermissionError):
                os.mkfifo(os.path.join(self.mount, path))

    def unlink(self) -> None:
        path = self.existing(lambda mode: not stat.S_ISDIR(mode))
        if path is not None:
            self.both("unlink", lambda root: os.unlink(os.path.join(root, path)), path)

    def rmdir(self) -> None:
        path = self.existing(stat.S_ISDIR)
        if path is not None:
            self.both("rmdir", lambda root: os.rmdir(os.path.join(root, path)), path)

    def _is_fifo(self, path: bytes) -> bool:
        try:
            return stat.S_ISFIFO(os.stat(os.path.join(self.model, path)).st_mode)
        except OSError:
            return False

    def take_times(self) -> None:
        """Files whose time nobody set bear the mount's in the model too."""
        for directory, _, files in os.walk(self.model):
            for name in files:
                path = os.path.join(directory, name)
                here = os.lstat(os.path.join(self.mount, os.path.relpath(path, self.model)))
                there = os.lstat(path)
                if there.st_mtime_ns > 17 * 10**17 and not stat.S_ISLNK(there.st_mode):
                    os.utime(path, ns=(here.st_mtime_ns, here.st_mtime_ns))


def _three_equal(client: Client, model: bytes) -> None:
    grain = client.server.time_grain_ns

    def look(root: str, **more: Any) -> dict[str, Any]:
        return tree(root, mtime_grain_ns=grain, **more)

    files = client.server.files
    assert_same_tree(
        look(files, directories_mtime=False), look(os.fsdecode(model), directories_mtime=False)
    )
    try:
        eventually(lambda: look(client.mountpoint) == look(files), "directory times alike")
    except AssertionError:
        assert_same_tree(look(client.mountpoint), look(files))


def _prefill(server: Server, model: bytes, seed: int) -> None:
    """The same things on either side, on the server before the mount looks.

    Hard links only where the protocol shows that two names are one file.
    """
    for root in (os.fsencode(server.root), model):
        chosen = random.Random(seed)
        for index in range(6):
            os.mkdir(os.path.join(root, b"d%d" % index))
        for index in range(60):
            path = os.path.join(root, b"d%d" % chosen.randrange(6), b"f%d" % index)
            with open(path, "wb") as file:
                file.write(chosen.randbytes(chosen.choice((0, 10, 5000, 70_000))))
            os.utime(path, ns=(10**18 + index * SECOND_NS, 10**18 + index * SECOND_NS))
            if index % 10 == 0 and server.scheme == "dir":
                os.link(path, os.path.join(root, b"linked%d" % index))


def _mirror(client: Client, model: bytes, seed: int) -> Mirror:
    mount = os.fsencode(client.mountpoint)
    return Mirror(seed, model, mount, special=client.server.special_files)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_offline_changes_arrive(kind: str, seed: int, tmp_path: Any) -> None:
    model = os.fsencode(str(tmp_path / "model"))
    os.mkdir(model)
    with mounted(kind, str(tmp_path)) as client:
        _prefill(client.server, model, seed)
        client.awayfs("pin", client.mountpoint)
        client.server.cut()
        client.offline()
        mirror = _mirror(client, model, seed)
        mirror.run(CHANGES)
        mirror.take_times()
        client.server.restore()
        client.online()
        client.sync()
        assert client.conflicts() == []
        _three_equal(client, model)


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_connected_changes_arrive(kind: str, tmp_path: Any) -> None:
    """Replay races with the operations themselves."""
    model = os.fsencode(str(tmp_path / "model"))
    os.mkdir(model)
    with mounted(kind, str(tmp_path)) as client:
        _prefill(client.server, model, 7)
        run("find", client.mountpoint)  # an upload keeps the hard links that are known
        mirror = _mirror(client, model, 7)
        mirror.run(CHANGES)
        mirror.take_times()
        client.sync()
        assert client.conflicts() == []
        _three_equal(client, model)

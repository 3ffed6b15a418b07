"""POSIX through a real mount, held against the same operations on a local file system.

Each scenario is a function of a directory that returns what it saw: values and errnos. It runs
in a plain directory and in the mount, online and offline, and must see the same. After all of
them the server returns and must have the same tree.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.harness import Client, assert_same_tree, eventually, mounted, needs_fuse, tree

pytestmark = needs_fuse

Scenario = Callable[[str], Any]
SCENARIOS: list[Scenario] = []
LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE = 1, 2, 8, 16
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400


def scenario(function: Scenario) -> Scenario:
    """Have it run everywhere."""
    SCENARIOS.append(function)
    return function


def tried(act: Callable[[], Any]) -> Any:
    """What the call gave: its value, or its errno by name."""
    try:
        return act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def write(path: str, data: bytes = b"x") -> str:
    with open(path, "wb") as file:
        file.write(data)
    return path


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def libc(name: str, *args: Any) -> None:
    """Call a C function that returns -1 on failure."""
    if getattr(LIBC, name)(*args) == -1:
        raise OSError(ctypes.get_errno(), name)


def renameat2(source: str, target: str, flags: int) -> None:
    libc("renameat2", AT_FDCWD, source.encode(), AT_FDCWD, target.encode(), flags)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    libc("fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


def moved(before: os.stat_result, after: os.stat_result) -> tuple[bool, bool]:
    """Whether mtime and ctime went on."""
    return after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns


def times(act: Callable[[], Any], *paths: str) -> list[tuple[bool, bool]]:
    """What an operation does to the times of some paths."""
    for path in paths:
        if os.path.isdir(path) or os.path.isfile(path):
            os.utime(path, ns=(10**18, 10**18))
    before = [os.lstat(path) for path in paths]
    threading.Event().wait(0.012)  # local ctimes go by the tick
    act()
    return [moved(old, os.lstat(path)) for old, path in zip(before, paths, strict=True)]


@scenario
def opening(d: str) -> Any:
    path = write(f"{d}/file", b"0123456789")
    create = os.O_CREAT | os.O_WRONLY
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    return [
        os.path.getsize(path),
        tried(lambda: os.open(path, create | os.O_EXCL)),
        tried(lambda: os.open(f"{path}/below", create)),
        tried(lambda: os.open(d, os.O_WRONLY)),
        tried(lambda: os.open(f"{d}/none", os.O_RDONLY)),
        tried(lambda: os.open(path, os.O_DIRECTORY)),
        tried(lambda: os.open(f"{d}/{'n' * 256}", create)),
        tried(lambda: os.close(os.open(f"{d}/{'n' * 255}", create))),
        tried(lambda: os.stat(f"{d}/{'x/' * 2100}")),
    ]


@scenario
def name_errors(d: str) -> Any:
    os.makedirs(f"{d}/full/inner")
    os.mkdir(f"{d}/empty")
    write(f"{d}/file")
    os.symlink("loop", f"{d}/loop")
    return [
        tried(lambda: os.rmdir(f"{d}/full")),
        tried(lambda: os.rmdir(f"{d}/file")),
        tried(lambda: os.rmdir(f"{d}/none")),
        tried(lambda: os.unlink(f"{d}/none")),
        tried(lambda: os.mkdir(f"{d}/file")),
        tried(lambda: os.mkdir(f"{d}/full")),
        tried(lambda: os.mkdir(f"{d}/file/x")),
        tried(lambda: os.symlink("x", f"{d}/file")),
        tried(lambda: os.link(f"{d}/file", f"{d}/full")),
        tried(lambda: os.link(f"{d}/none", f"{d}/new")),
        tried(lambda: os.link(f"{d}/full", f"{d}/new")),
        tried(lambda: os.rename(f"{d}/full", f"{d}/full/inner/x")),
        tried(lambda: os.rename(f"{d}/full", f"{d}/full")),
        tried(lambda: os.rename(f"{d}/empty", f"{d}/full")),
        tried(lambda: os.rename(f"{d}/file", f"{d}/full")),
        tried(lambda: os.rename(f"{d}/full", f"{d}/file")),
        tried(lambda: os.rename(f"{d}/none", f"{d}/x")),
        tried(lambda: os.rename(f"{d}/full", f"{d}/empty")),
        tried(lambda: os.stat(f"{d}/loop")),
        tried(lambda: os.readlink(f"{d}/file")),
        tried(lambda: os.truncate(f"{d}/empty", 3)),
        tried(lambda: os.truncate(f"{d}/file", -1)),
        sorted(os.listdir(d)),
    ]


@scenario
def rename_flags(d: str) -> Any:
    a, b = write(f"{d}/a", b"a"), write(f"{d}/b", b"b")
    os.makedirs(f"{d}/dir/deep")
    seen = [
        tried(lambda: renameat2(a, b, NOREPLACE)),
        tried(lambda: renameat2(a, f"{d}/free", NOREPLACE)),
        tried(lambda: renameat2(b, f"{d}/none", EXCHANGE)),
        tried(lambda: renameat2(f"{d}/free", b, EXCHANGE)),
        tried(lambda: renameat2(f"{d}/dir", f"{d}/dir/deep", EXCHANGE)),
        tried(lambda: renameat2(f"{d}/dir", b, EXCHANGE)),
        tried(lambda: renameat2(a, b, NOREPLACE | EXCHANGE)),
    ]
    return [*seen, read(f"{d}/free"), read(f"{d}/dir"), sorted(os.listdir(b))]


@scenario
def link_counts(d: str) -> Any:
    path = write(f"{d}/file")
    seen = [os.stat(path).st_nlink]
    os.link(path, f"{d}/second")
    os.link(path, f"{d}/third")
    seen += [os.stat(p).st_nlink for p in (path, f"{d}/second", f"{d}/third")]
    os.rename(f"{d}/second", path)  # two names of one file: nothing happens
    seen += [sorted(os.listdir(d))]
    os.unlink(f"{d}/third")
    seen += [os.stat(path).st_nlink]
    os.rename(write(f"{d}/other"), f"{d}/second")
    seen += [os.stat(path).st_nlink, os.stat(f"{d}/second").st_nlink]
    return seen


@scenario
def directory_link_counts(d: str) -> Any:
    top = f"{d}/top"
    os.mkdir(top)
    seen = [os.stat(top).st_nlink]
    os.mkdir(f"{top}/one")
    os.mkdir(f"{top}/two")
    seen.append(os.stat(top).st_nlink)
    os.rmdir(f"{top}/one")
    seen.append(os.stat(top).st_nlink)
    os.rename(f"{top}/two", f"{d}/two")
    seen.append(os.stat(top).st_nlink)
    return seen


@scenario
def times_of_operations(d: str) -> Any:
    file, sub = write(f"{d}/file"), f"{d}/sub"
    os.mkdir(sub)
    operations: list[tuple[Callable[[], Any], tuple[str, ...]]] = [
        (lambda: write(file, b"more"), (file, d)),
        (lambda: os.truncate(file, 2), (file, d)),
        (lambda: os.chmod(file, 0o600), (file, d)),
        (lambda: os.chown(file, os.getuid(), os.getgid()), (file, d)),
        (lambda: os.link(file, f"{sub}/link"), (file, sub, d)),
        (lambda: os.rename(f"{sub}/link", f"{d}/moved"), (file, sub, d)),
        (lambda: os.unlink(f"{d}/moved"), (file, sub, d)),
        (lambda: os.mkdir(f"{sub}/inner"), (sub, d)),
        (lambda: os.rename(f"{sub}/inner", f"{sub}/renamed"), (f"{sub}", d)),
        (lambda: os.rmdir(f"{sub}/renamed"), (sub, d)),
        (lambda: os.symlink("x", f"{sub}/s"), (sub, d)),
        (lambda: read(file), (file, d)),
        (lambda: os.utime(file, ns=(5, 7)), (d,)),
        (lambda: os.setxattr(file, "user.a", b"1"), (file, d)),
    ]
    return [times(act, *paths) for act, paths in operations]


def _also_by_the_server(seen: Any, expected: Any) -> Any:
    """Online a change time may also go on because the server's own arrives."""
    return [
        [
            (mtime, ctime or local_ctime)
            for (mtime, local_ctime), (_, ctime) in zip(*two, strict=True)
        ]
        for two in zip(seen, expected, strict=True)
    ]


@scenario
def setting_times(d: str) -> Any:
    path = write(f"{d}/file")
    os.utime(path, ns=(1_000_000_001, 2_000_000_003))
    seen: list[Any] = [(os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns)]

    class Timespec(ctypes.Structure):
        _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]

    now, omit = (1 << 30) - 1, (1 << 30) - 2
    pairs = (Timespec * 2)(Timespec(0, omit), Timespec(0, now))
    libc("utimensat", AT_FDCWD, path.encode(), pairs, 0)
    status = os.stat(path)
    seen.append((status.st_atime_ns, status.st_mtime_ns > 1_700_000_000 * 10**9))
    pairs = (Timespec * 2)(Timespec(0, omit), Timespec(77, 5))
    libc("utimensat", AT_FDCWD, path.encode(), pairs, 0)
    seen.append(os.stat(path).st_mtime_ns)
    os.symlink("nowhere", f"{d}/link")
    os.utime(f"{d}/link", ns=(5 * 10**9, 6 * 10**9), follow_symlinks=False)
    return [*seen, os.lstat(f"{d}/link").st_mtime_ns]


@scenario
def appending(d: str) -> Any:
    path = write(f"{d}/file", b"start\n")

    def work(letter: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(100):
            os.write(fd, letter * 19 + b"\n")
        os.close(fd)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = read(path).splitlines()
    return lines[0], sorted(set(lines[1:])), len(lines)


@scenario
def unlinked_while_open(d: str) -> Any:
    path = write(f"{d}/file", b"content")
    fd = os.open(path, os.O_RDWR)
    os.unlink(path)
    os.pwrite(fd, b"MORE", 3)
    os.ftruncate(fd, 100)
    os.fchmod(fd, 0o600)
    status = os.fstat(fd)
    seen = [status.st_nlink, status.st_size, os.pread(fd, 8, 0), tried(lambda: os.stat(path))]
    replaced = write(f"{d}/replaced", b"old")
    other = os.open(replaced, os.O_RDONLY)
    os.rename(write(f"{d}/new", b"new"), replaced)
    seen += [os.pread(other, 10, 0), os.fstat(other).st_nlink, read(replaced), os.listdir(d)]
    os.close(fd)
    os.close(other)
    return seen


@scenario
def nameless_files(d: str) -> Any:
    fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"nameless")
    seen = [os.fstat(fd).st_nlink, os.listdir(d)]
    source, target = f"/proc/self/fd/{fd}".encode(), f"{d}/named".encode()
    libc("linkat", AT_FDCWD, source, AT_FDCWD, target, AT_SYMLINK_FOLLOW)
    os.pwrite(fd, b"NAME", 0)
    os.close(fd)
    os.close(os.open(d, os.O_TMPFILE | os.O_RDWR, 0o640))
    status = os.stat(f"{d}/named")
    return [*seen, os.listdir(d), read(f"{d}/named"), status.st_nlink, oct(status.st_mode)]


@scenario
def mappings(d: str) -> Any:
    path = write(f"{d}/file", bytes(10_000))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        shared[5000:5005] = b"flush"
        shared.flush()
        seen = [read(path)[5000:5005]]
        os.pwrite(file.fileno(), b"pwrite", 100)
        seen.append(shared[100:106])
        shared[9000:9004] = b"late"
    with open(path, "rb") as file:
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=3)
        private[0:7] = b"private"
        seen.append(bytes(private[0:7]))
        private.close()
    content = read(path)
    return [*seen, content[:7], content[9000:9004], len(content)]


@scenario
def holes(d: str) -> Any:
    path = f"{d}/file"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x" * 8192, 1 << 20)
    size = os.fstat(fd).st_size
    seen: list[Any] = [
        size,
        os.lseek(fd, 0, os.SEEK_DATA),
        os.lseek(fd, 1 << 20, os.SEEK_HOLE),
        tried(lambda: os.lseek(fd, size, os.SEEK_DATA)),
        tried(lambda: os.lseek(fd, size + 1, os.SEEK_HOLE)),
    ]
    os.ftruncate(fd, 3 << 20)
    seen += [os.lseek(fd, size, os.SEEK_HOLE), os.pread(fd, 3, 2 << 20)]
    fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 1 << 20, 4096)
    seen += [os.pread(fd, 2, 1 << 20), os.pread(fd, 2, (1 << 20) + 4096)]
    fallocate(fd, ZERO_RANGE, (1 << 20) + 4096, 100)
    seen += [os.pread(fd, 102, (1 << 20) + 4096)]
    fallocate(fd, 0, 4 << 20, 100)
    fallocate(fd, KEEP_SIZE, 5 << 20, 100)
    seen += [os.fstat(fd).st_size, tried(lambda: fallocate(fd, PUNCH_HOLE, 0, 10))]
    seen += [tried(lambda: fallocate(fd, 0, 0, 0)), tried(lambda: fallocate(fd, 0, -1, 5))]
    os.ftruncate(fd, 10)
    os.ftruncate(fd, 20)
    seen.append(os.pread(fd, 30, 0))
    os.close(fd)
    return seen


@scenario
def range_copies(d: str) -> Any:
    source = os.open(write(f"{d}/a", bytes(range(256)) * 1000), os.O_RDONLY)
    target = os.open(f"{d}/b", os.O_CREAT | os.O_RDWR)
    seen = [
        os.copy_file_range(source, target, 1000, 500, 0),
        os.copy_file_range(source, target, 1000, 255_900, 2000),
        os.copy_file_range(source, target, 1000, 300_000, 0),
        tried(lambda: os.copy_file_range(target, source, 10, 0, 0)),
    ]
    os.close(source)
    os.close(target)
    return [*seen, read(f"{d}/b")]


@scenario
def extended_attributes(d: str) -> Any:
    path = write(f"{d}/file")
    seen = [
        tried(lambda: os.setxattr(path, "user.one", b"1")),
        tried(lambda: os.setxattr(path, "user.one", b"2", os.XATTR_CREATE)),
        tried(lambda: os.setxattr(path, "user.two", b"2", os.XATTR_REPLACE)),
        tried(lambda: os.setxattr(path, "user.one", b"1" * 900, os.XATTR_REPLACE)),
        tried(lambda: os.setxattr(path, "user.empty", b"")),
        tried(lambda: os.setxattr(d, "user.dir", b"d")),
        tried(lambda: os.getxattr(path, "user.none")),
        tried(lambda: os.removexattr(path, "user.none")),
        tried(lambda: os.getxattr(path, "user.one")),
        tried(lambda: os.removexattr(path, "user.one")),
    ]
    os.setxattr(path, "user.kept", b"kept")
    os.rename(path, f"{d}/renamed")
    names = [n for n in os.listxattr(f"{d}/renamed") if n.startswith("user.")]
    return [*seen, sorted(names), os.getxattr(f"{d}/renamed", "user.empty"), os.listxattr(d)]


@scenario
def modes_and_umask(d: str) -> Any:
    old = os.umask(0o027)
    try:
        os.close(os.open(f"{d}/file", os.O_CREAT, 0o777))
        os.mkdir(f"{d}/dir", 0o777)
        os.mkfifo(f"{d}/fifo", 0o666)
    finally:
        os.umask(old)
    os.mkdir(f"{d}/group")
    os.chmod(f"{d}/group", 0o2775)
    os.mkdir(f"{d}/group/below")
    write(f"{d}/group/file")
    os.mkdir(f"{d}/sticky")
    os.chmod(f"{d}/sticky", 0o1777)
    names = ("file", "dir", "fifo", "group", "group/below", "group/file", "sticky")
    return [oct(os.stat(f"{d}/{name}").st_mode) for name in names]


@scenario
def directories_read_while_they_change(d: str) -> Any:
    for index in range(300):
        write(f"{d}/f{index:03}", b"")
    seen: list[str] = []
    with os.scandir(d) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number == 10:
                os.unlink(f"{d}/f299")
                write(f"{d}/new")
    kept = {f"f{index:03}" for index in range(299)}
    return len(seen) == len(set(seen)), kept <= set(seen), len(os.listdir(d))


@scenario
def locks(d: str) -> Any:
    path = write(f"{d}/file")
    with open(path, "r+b") as one, open(path, "r+b") as two:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return tried(lambda: fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_set_id_bits_go(pair: tuple[str, Client], mode: int) -> None:
    local, client = pair

    def act(d: str) -> Any:
        seen: list[Any] = []
        for number, change in enumerate(
            (
                lambda p: os.chown(p, 1, 1),
                lambda p: _as(1000, lambda: write(p, b"written by another")),
                lambda p: _as(1000, lambda: os.truncate(p, 1)),
            )
        ):
            path = write(f"{d}/setid{mode:o}-{number}", b"text")
            os.chmod(path, mode | 0o002)
            change(path)
            seen.append(oct(os.stat(path).st_mode))
        return seen

    os.chmod(local, 0o777)
    if "allow_other" not in _options(client):
        pytest.skip("needs allow_other")
    assert act(client.path("other")) == act(local)


def _options(client: Client) -> str:
    with open("/proc/self/mountinfo") as file:
        return next(line for line in file if line.split()[4] == client.mountpoint)


def _as(uid: int, act: Callable[[], Any]) -> Any:
    """As another user, in a child."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            act()
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return errno.errorcode[code] if code else None


@pytest.fixture(scope="module", params=["online", "offline"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[str, Client]]:
    """A local directory and a mount of ``dir:``; afterwards the server must have it all."""
    base = tempfile.mkdtemp(prefix="awayfs-posix-")  # other users have to get there
    os.chmod(base, 0o711)
    local = f"{base}/local"
    os.mkdir(local)
    with mounted("dir", base, "allow_other") as client:
        os.chmod(client.home, 0o711)
        os.mkdir(client.path("other"))
        os.chmod(client.path("other"), 0o777)
        client.sync()
        if request.param == "offline":
            client.awayfs("pin", client.mountpoint)
            client.server.cut()
            client.offline()
        yield local, client
        if request.param == "offline":
            client.server.restore()
            client.online()
        client.sync(check=False)
        assert client.conflicts() == []
        _same_on_server(client)
    shutil.rmtree(base)


def _same_on_server(client: Client) -> None:
    """Directory times converge with the next observation."""

    def equal() -> bool:
        return tree(client.mountpoint) == tree(client.server.files)

    try:
        eventually(equal, "mount and server equal")
    except AssertionError:
        assert_same_tree(tree(client.mountpoint), tree(client.server.files))


@pytest.mark.parametrize("act", SCENARIOS, ids=lambda act: act.__name__)
def test_as_on_a_local_file_system(pair: tuple[str, Client], act: Scenario) -> None:
    local, client = pair
    seen = []
    for where in (os.path.join(local, act.__name__), client.path(act.__name__)):
        shutil.rmtree(where, ignore_errors=True)  # of a try before
        os.mkdir(where)
        seen.append(act(where))
    if act is times_of_operations and client.status()["mode"] != "disconnected":
        seen[0] = _also_by_the_server(seen[0], seen[1])
    assert seen[1] == seen[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")
def test_other_users_have_their_own_rights(pair: tuple[str, Client]) -> None:
    _, client = pair
    private, public = client.path("private"), client.path("other")
    os.mkdir(private, 0o700)
    write(f"{private}/file")
    assert _as(1000, lambda: os.listdir(private)) == "EACCES"
    assert _as(1000, lambda: os.stat(f"{private}/file")) == "EACCES"
    assert _as(1000, lambda: write(client.path("new"))) == "EACCES"
    made = f"{public}/made"
    assert _as(1000, lambda: write(made)) is None
    assert _as(1000, lambda: os.mkdir(f"{public}/madedir")) is None
    for path in (made, f"{public}/madedir"):
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (1000, 1000)
    assert _as(1001, lambda: write(made)) == "EACCES"
    assert _as(1001, lambda: os.chmod(made, 0o666)) == "EPERM"
    os.chmod(public, 0o1777)
    assert _as(1001, lambda: os.unlink(made)) == "EPERM"
    os.chmod(public, 0o777)

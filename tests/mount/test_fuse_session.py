"""The FUSE layer under a real kernel: a file system in memory, served by another process.

A process that touches its own mount from the thread that serves it waits for itself, so
`Mount` runs ``awayfs.testing.memory_mount`` as a child, and the file accesses happen here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from awayfs.fuse import wire
from awayfs.fuse.mount import (
    AlreadyMounted,
    DeadMount,
    MountBusy,
    MountError,
    NotMounted,
    find_mount,
    is_dead_mount,
    mount,
    unmount,
)
from awayfs.testing.memory_fs import IOCTL_INCREMENT

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60)]

SOURCE = Path(__file__).parents[2] / "src"


def _why_not() -> str | None:
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if os.geteuid() != 0:
        return "mounting directly needs root"
    return None


if _why_not():
    pytest.skip(f"real mounts: {_why_not()}", allow_module_level=True)


class Mount:
    """A mounted MemoryFS in a child process; `path` is where."""

    def __init__(self, path: Path, command: list[str] | None = None, **options: Any) -> None:
        self.path = path
        arguments = [sys.executable, "-m", "awayfs.testing.memory_mount", str(path)]
        self.child = subprocess.Popen(
            [*(command or []), *arguments, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        self.settled = self._answer()

    def _answer(self) -> Any:
        assert self.child.stdout is not None
        return json.loads(self.child.stdout.readline() or "null")

    def ask(self, command: str, *arguments: Any) -> Any:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.child.stdin.flush()
        return self._answer()

    def count(self, operation: str) -> int:
        found: int = self.ask("counts").get(operation, 0)
        return found

    def stop(self) -> None:
        with contextlib.suppress(MountError):
            unmount(self.path, lazy=True)
        try:
            self.child.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def kill(self) -> None:
        """End the daemon without unmounting."""
        self.child.kill()
        self.child.wait()


Mounter = Callable[..., Mount]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounter]:
    """A function that mounts; whatever it mounted is gone afterwards."""
    started: list[Mount] = []

    def start(**options: Any) -> Mount:
        path = tmp_path / f"mount{len(started)}"
        path.mkdir()
        started.append(Mount(path, **options))
        return started[-1]

    yield start
    for each in started:
        each.stop()
    assert not [m for m in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in m]


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


# operations


def test_names_and_data(mounted: Mounter) -> None:
    path = mounted().path
    os.umask(0o022)
    (path / "dir").mkdir()
    data = os.urandom(3_000_000)
    (path / "dir/file").write_bytes(data)
    assert (path / "dir/file").read_bytes() == data
    os.symlink("dir/file", path / "symlink")
    assert (path / "symlink").read_bytes() == data
    os.link(path / "dir/file", path / "linked")
    assert os.stat(path / "linked").st_nlink == 2
    os.mkfifo(path / "pipe")
    assert stat.S_ISFIFO(os.stat(path / "pipe").st_mode)
    assert sorted(os.listdir(path)) == ["dir", "linked", "pipe", "symlink"]
    assert stat.S_IMODE(os.stat(path / "dir").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(path / "dir/file").st_mode) == 0o644
    os.truncate(path / "linked", 10)
    assert (path / "linked").read_bytes() == data[:10]
    os.utime(path / "linked", ns=(-1_500_000_000, 7))
    assert os.stat(path / "linked").st_atime_ns == -1_500_000_000
    shutil.rmtree(path / "dir")
    assert sorted(os.listdir(path)) == ["linked", "pipe", "symlink"]


def test_a_big_directory_is_listed_with_attributes(mounted: Mounter) -> None:
    mount = mounted()
    names = {f"file-{number:04}" for number in range(1500)}
    for name in names:
        (mount.path / name).touch()
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2")
    before = mount.count("LOOKUP")
    with os.scandir(mount.path) as listing:
        found = {entry.name: entry.stat().st_size for entry in listing}
    assert set(found) == names
    # READDIRPLUS told the attributes: no name was looked up
    assert mount.count("LOOKUP") - before < 10
    assert mount.count("READDIRPLUS") > 0


libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(AT_FDCWD, bytes(old), AT_FDCWD, bytes(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def test_rename_with_flags(mounted: Mounter) -> None:
    path = mounted().path
    (path / "a").write_text("a")
    (path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        renameat2(path / "a", path / "b", wire.RENAME_NOREPLACE)
    renameat2(path / "a", path / "b", wire.RENAME_EXCHANGE)
    assert ((path / "a").read_text(), (path / "b").read_text()) == ("b", "a")
    os.rename(path / "a", path / "b")
    assert os.listdir(path) == ["b"]
    assert (path / "b").read_text() == "b"


def statx_btime(path: Path) -> tuple[int, int]:
    """The birth time that statx(2) gives: seconds, nanoseconds."""
    buffer = ctypes.create_string_buffer(256)
    assert libc.statx(AT_FDCWD, bytes(path), 0, wire.STATX_BTIME, buffer) == 0
    mask = int.from_bytes(buffer.raw[0:4], sys.byteorder)
    assert mask & wire.STATX_BTIME
    seconds = int.from_bytes(buffer.raw[80:88], sys.byteorder, signed=True)
    return seconds, int.from_bytes(buffer.raw[88:92], sys.byteorder)


def test_the_birth_time_is_told(mounted: Mounter) -> None:
    mount = mounted()
    if mount.settled["minor"] < 39:
        pytest.skip("this kernel has no FUSE_STATX")
    (mount.path / "file").touch()
    seconds, _ = statx_btime(mount.path / "file")
    assert abs(seconds - time.time()) < 60
    assert mount.count("STATX") == 1


def test_a_file_without_a_name(mounted: Mounter) -> None:
    mount = mounted()
    fd = os.open(mount.path, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(fd, b"nameless")
        assert os.pread(fd, 100, 0) == b"nameless"
        assert os.fstat(fd).st_nlink == 0
    finally:
        os.close(fd)
    assert os.listdir(mount.path) == []
    assert mount.count("TMPFILE") == 1


def test_an_ioctl(mounted: Mounter) -> None:
    mount = mounted()
    (mount.path / "file").touch()
    for path in (mount.path / "file", mount.path):
        fd = os.open(path, os.O_RDONLY)
        try:
            number = bytearray((41).to_bytes(8, sys.byteorder))
            fcntl.ioctl(fd, IOCTL_INCREMENT, number)
            assert int.from_bytes(number, sys.byteorder) == 42
            with pytest.raises(OSError) as caught:
                fcntl.ioctl(fd, 0x7702)
            assert caught.value.errno == errno.ENOTTY
        finally:
            os.close(fd)


def test_poll_is_woken(mounted: Mounter) -> None:
    mount = mounted()
    (mount.path / "pollable").touch()
    fd = os.open(mount.path / "pollable", os.O_RDONLY)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(50) == []
        threading.Timer(0.2, mount.ask, ["wake"]).start()
        assert poll.poll(10_000) == [(fd, select.POLLIN)]
    finally:
        os.close(fd)


def test_ranges_of_files(mounted: Mounter) -> None:
    mount = mounted()
    (mount.path / "file").write_bytes(b"0123456789" * 1000)
    with open(mount.path / "file", "r+b") as file, open(mount.path / "copy", "w+b") as copy:
        fd = file.fileno()
        os.posix_fallocate(fd, 0, 20_000)
        assert os.fstat(fd).st_size == 20_000
        assert os.lseek(fd, 5, os.SEEK_HOLE) == 20_000
        assert os.copy_file_range(fd, copy.fileno(), 5000, 5, 0) == 5000
        os.fsync(fd)
        with mmap.mmap(fd, 0) as mapped:
            assert mapped[:10] == b"0123456789"
            mapped[:3] = b"abc"
            mapped.flush()
    assert (mount.path / "copy").read_bytes() == (b"5678901234" * 500)
    assert (mount.path / "file").read_bytes()[:5] == b"abc34"
    counts = mount.ask("counts")
    assert counts.get("COPY_FILE_RANGE", 0) + counts.get("COPY_FILE_RANGE_64", 0) >= 1


def test_extended_attributes(mounted: Mounter) -> None:
    path = mounted().path
    os.setxattr(path, "user.awayfs.pin", b"5")
    os.setxattr(path, "user.with/slash", b"")
    assert os.getxattr(path, "user.awayfs.pin") == b"5"
    assert os.listxattr(path) == ["user.awayfs.pin", "user.with/slash"]
    os.removexattr(path, "user.with/slash")
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "user.with/slash")
    assert caught.value.errno == errno.ENODATA


def test_space(mounted: Mounter) -> None:
    found = os.statvfs(mounted().path)
    assert (found.f_blocks, found.f_bavail, found.f_frsize) == (1000, 500, 4096)


@pytest.mark.parametrize("code", [errno.ENETDOWN, 501, 505, 511])
def test_an_errno_comes_through(mounted: Mounter, code: int) -> None:
    with pytest.raises(OSError) as caught:
        os.stat(mounted().path / f"error-{code}")
    assert caught.value.errno == code


@pytest.mark.parametrize("name", ["error-512", "error-600", "broken"])
def test_what_the_kernel_cannot_carry_is_eio(mounted: Mounter, name: str) -> None:
    with pytest.raises(OSError) as caught:
        os.stat(mounted().path / name)
    assert caught.value.errno == errno.EIO


def test_a_signal_interrupts_the_caller(mounted: Mounter) -> None:
    mount = mounted()
    caller = subprocess.Popen(["stat", str(mount.path / "slow")])
    wait_until(lambda: mount.ask("log") == ["slow begins"])
    caller.kill()
    assert caller.wait(5) != 0
    wait_until(lambda: mount.ask("log") == ["slow begins", "slow cancelled"])
    assert mount.ask("pending") == 0
    assert os.listdir(mount.path) == []


def test_set_user_id_goes_with_a_write(mounted: Mounter) -> None:
    mount = mounted(mount={"allow_other": True, "suid": True})
    path = mount.path / "program"
    path.write_bytes(b"x")
    os.chmod(path, 0o4777)
    os.chmod(path.parent, 0o777)
    writer = "import sys; open(sys.argv[1], 'r+b').write(b'y')"
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing")
    parent = path.parent.parent
    while parent != Path("/tmp") and len(parent.parts) > 1:
        os.chmod(parent, 0o755)
        parent = parent.parent
    subprocess.run([*command, "/usr/bin/env", "python3", "-c", writer, str(path)], check=True)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o777


def test_writes_do_not_ask_for_capabilities(mounted: Mounter) -> None:
    mount = mounted()
    with open(mount.path / "file", "wb", buffering=0) as file:
        before = mount.count("GETXATTR")
        for _ in range(20):
            file.write(b"x" * 100)
        assert mount.count("GETXATTR") - before <= 1
    assert mount.count("WRITE") == 20


# notifications


def test_a_name_and_its_absence_are_remembered_until_told(mounted: Mounter) -> None:
    mount = mounted(valid=3600.0)
    (mount.path / "file").write_text("old")
    os.stat(mount.path / "file")
    nodeid = mount.ask("remove", "file")
    assert os.stat(mount.path / "file").st_ino == nodeid  # the kernel does not know better
    mount.ask("notify", "inval_entry", 1, "file")
    with pytest.raises(FileNotFoundError):
        os.stat(mount.path / "file")


def test_data_is_remembered_until_told(mounted: Mounter) -> None:
    mount = mounted(valid=3600.0, open_flags=wire.FOPEN_KEEP_CACHE)
    (mount.path / "file").write_text("old")
    assert (mount.path / "file").read_text() == "old"
    nodeid = mount.ask("set_data", "file", "new")
    assert (mount.path / "file").read_text() == "old"
    mount.ask("notify", "inval_inode", nodeid, 0, 0)
    assert (mount.path / "file").read_text() == "new"


def test_the_size_is_remembered_until_told(mounted: Mounter) -> None:
    mount = mounted(valid=3600.0, open_flags=wire.FOPEN_KEEP_CACHE)
    (mount.path / "file").write_text("old")
    assert os.stat(mount.path / "file").st_size == 3
    nodeid = mount.ask("set_data", "file", "longer")
    assert os.stat(mount.path / "file").st_size == 3
    mount.ask("notify", "inval_inode", nodeid, -1, 0)
    assert os.stat(mount.path / "file").st_size == 6


def test_what_the_kernel_does_not_know_is_passed_over(mounted: Mounter) -> None:
    mount = mounted()
    assert mount.ask("notify", "inval_inode", 12345, 0, 0) == [0, 1]
    assert mount.ask("notify", "inval_entry", 1, "nothing") == [0, 2]


def test_the_epoch_makes_all_names_be_looked_up_again(mounted: Mounter) -> None:
    mount = mounted(valid=3600.0)
    if mount.settled["minor"] < 44:
        pytest.skip("this kernel has no FUSE_NOTIFY_INC_EPOCH")
    (mount.path / "file").write_text("x")
    os.stat(mount.path / "file")
    before = mount.count("LOOKUP")
    os.stat(mount.path / "file")
    assert mount.count("LOOKUP") == before
    assert mount.ask("notify", "bump_epoch") == [1, 0]
    os.stat(mount.path / "file")
    assert mount.count("LOOKUP") == before + 1


def test_forgotten_nodes_are_told(mounted: Mounter) -> None:
    mount = mounted()
    for number in range(100):
        (mount.path / f"file{number}").touch()
    assert len(mount.ask("lookups")) == 100
    Path("/proc/sys/vm/drop_caches").write_text("2")
    wait_until(lambda: len(mount.ask("lookups")) == 0)


def test_a_notification_waits_for_a_lock_without_stopping_the_daemon(mounted: Mounter) -> None:
    mount = mounted()
    caller = subprocess.Popen(["stat", str(mount.path / "slow")])
    try:
        # the kernel holds the directory's lock until the look-up is answered
        wait_until(lambda: mount.ask("log") == ["slow begins"])
        mount.ask("tell", "inval_entry", 1, "anything")
        for _ in range(20):
            assert os.statvfs(mount.path).f_blocks == 1000
        assert mount.ask("told") == 0
    finally:
        caller.kill()
        caller.wait(10)
    wait_until(lambda: mount.ask("told") == 1)


# passthrough


@pytest.fixture
def through(mounted: Mounter, tmp_path: Path) -> Mount:
    """A mount whose files named pt* are backed by files in a directory beside it."""
    backing = tmp_path / "backing"
    backing.mkdir()
    mount = mounted(backing=str(backing), session={"passthrough": True})
    if not mount.settled["passthrough"] or not mount.ask("probe"):
        pytest.skip("this kernel, or this user, has no FUSE passthrough")
    return mount


def test_a_passthrough_read_is_not_seen(through: Mount, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    (through.path / "pt").touch()
    (tmp_path / "backing/pt").write_bytes(data)
    assert (through.path / "pt").read_bytes() == data
    with open(through.path / "pt", "rb") as file, mmap.mmap(file.fileno(), 0, prot=1) as mapped:
        assert mapped[:] == data
    assert through.count("READ") == 0


def test_writes_beside_a_passthrough_reader_are_seen(through: Mount, tmp_path: Path) -> None:
    (through.path / "pt").touch()
    (tmp_path / "backing/pt").write_bytes(b"0123456789")
    with open(through.path / "pt", "rb", buffering=0) as reader:
        assert reader.read(100) == b"0123456789"
        with open(through.path / "pt", "r+b", buffering=0) as writer:
            writer.write(b"abc")
            # the daemon got the write, and put it into the backing file
            assert through.ask("log") == ["write 0+3"]
            assert (tmp_path / "backing/pt").read_bytes() == b"abc3456789"
            # both see it
            assert os.pread(reader.fileno(), 100, 0) == b"abc3456789"
            assert os.pread(writer.fileno(), 100, 0) == b"abc3456789"
            os.pwrite(writer.fileno(), b"tail", 10)
            assert os.pread(reader.fileno(), 100, 10) == b"tail"
    assert (through.path / "pt").read_bytes() == b"abc3456789tail"


CACHED, DIRECT = 0, wire.FOPEN_DIRECT_IO
PASS, SEEN = wire.FOPEN_PASSTHROUGH, wire.FOPEN_PASSTHROUGH | wire.FOPEN_DIRECT_IO
SHOWN = {CACHED: "cached", DIRECT: "direct", PASS: "passthrough", SEEN: "passthrough+direct"}
REFUSED = {
    (CACHED, PASS),
    (CACHED, SEEN),
    (PASS, CACHED),
    (PASS, DIRECT),
    (SEEN, CACHED),
    (SEEN, DIRECT),
}


@pytest.mark.parametrize("second", SHOWN, ids=SHOWN.get)
@pytest.mark.parametrize("first", SHOWN, ids=SHOWN.get)
def test_which_ways_of_opening_go_together(through: Mount, first: int, second: int) -> None:
    (through.path / "pt").touch()
    through.ask("force", first)
    with open(through.path / "pt", "rb"):
        through.ask("force", second)
        if (first, second) in REFUSED:
            with pytest.raises(OSError) as caught:
                os.open(through.path / "pt", os.O_RDONLY)
            assert caught.value.errno == errno.EIO
        else:
            os.close(os.open(through.path / "pt", os.O_RDONLY))
    # the mode ends with the last close
    os.close(os.open(through.path / "pt", os.O_RDONLY))


@pytest.mark.parametrize(("flags", "fresh"), [(PASS, True), (PASS | wire.FOPEN_KEEP_CACHE, False)])
def test_another_backing_id_or_keeping_the_cache_is_refused(
    through: Mount, flags: int, fresh: bool
) -> None:
    (through.path / "pt").touch()
    with open(through.path / "pt", "rb"):
        through.ask("force", flags, fresh)
        with pytest.raises(OSError) as caught:
            os.open(through.path / "pt", os.O_RDONLY)
        assert caught.value.errno == errno.EIO


def test_writes_through_a_pure_passthrough_are_not_seen(through: Mount, tmp_path: Path) -> None:
    (through.path / "pt").touch()
    through.ask("force", PASS)
    with open(through.path / "pt", "r+b", buffering=0) as file:
        file.write(b"unseen")
        assert os.fstat(file.fileno()).st_size == 6
    assert (tmp_path / "backing/pt").read_bytes() == b"unseen"
    assert through.ask("log") == []


def test_a_shared_mapping_goes_past_the_daemon(through: Mount, tmp_path: Path) -> None:
    (through.path / "pt").write_bytes(b"0123456789")
    before = through.ask("log")
    with open(through.path / "pt", "r+b") as file, mmap.mmap(file.fileno(), 10) as mapped:
        mapped[:3] = b"abc"
        mapped.flush()
    assert (tmp_path / "backing/pt").read_bytes() == b"abc3456789"
    assert through.ask("log") == before == ["write 0+10"]


# mounting and unmounting


def test_an_unmount_ends_the_daemon(mounted: Mounter) -> None:
    mount = mounted()
    unmount(mount.path)
    assert mount.ask("closed") == "unmounted"
    assert find_mount(mount.path) is None
    with pytest.raises(NotMounted):
        unmount(mount.path)


def test_a_mount_in_use_is_busy(mounted: Mounter) -> None:
    mount = mounted()
    (mount.path / "file").touch()
    with open(mount.path / "file", "rb"), pytest.raises(MountBusy, match="in use"):
        unmount(mount.path)
    unmount(mount.path)


def test_a_lazy_unmount_goes_on_until_the_last_file_is_closed(mounted: Mounter) -> None:
    mount = mounted()
    (mount.path / "file").write_text("still here")
    with open(mount.path / "file") as file:
        unmount(mount.path, lazy=True)
        assert find_mount(mount.path) is None
        assert file.read() == "still here"
    assert mount.ask("closed") == "unmounted"


def test_a_kernel_abort_ends_the_daemon(mounted: Mounter) -> None:
    mount = mounted()
    control = Path("/sys/fs/fuse/connections")
    mounted_control = False
    if not any(control.iterdir()):
        subprocess.run(["mount", "-t", "fusectl", "fusectl", str(control)], check=True)
        mounted_control = True
    try:
        found = find_mount(mount.path)
        assert found is not None
        (control / found.device.decode().split(":")[1] / "abort").write_text("1")
    finally:
        if mounted_control:
            subprocess.run(["umount", str(control)], check=True)
    assert mount.ask("closed") == "aborted"
    with pytest.raises(OSError) as caught:
        os.listdir(mount.path)
    assert caught.value.errno == errno.ENOTCONN


def test_a_dead_mount_is_recognised_and_cleaned(mounted: Mounter) -> None:
    mount_ = mounted()
    assert not is_dead_mount(mount_.path)
    mount_.kill()
    assert is_dead_mount(mount_.path)
    with pytest.raises(DeadMount, match="daemon is gone"):
        mount(mount_.path, fsname="again")
    unmount(mount_.path, lazy=True)
    assert not is_dead_mount(mount_.path)


def test_a_stuck_mount_is_not_dead(mounted: Mounter) -> None:
    mount_ = mounted(valid=0.0)
    mount_.child.send_signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        assert not is_dead_mount(mount_.path)
        assert time.monotonic() - begin < 5
    finally:
        mount_.child.send_signal(signal.SIGCONT)


def test_mounting_twice_is_refused(mounted: Mounter) -> None:
    mount_ = mounted()
    with pytest.raises(AlreadyMounted, match="already mounted"):
        mount(mount_.path, fsname="again")


def test_a_bad_mount_point_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for name, why in [
        ("missing", "no such directory"),
        ("file", "not a directory"),
        ("full", "not empty"),
    ]:
        with pytest.raises(MountError, match=why) as caught:
            mount(tmp_path / name, fsname="x")
        assert "\n" not in str(caught.value)


def test_what_was_asked_of_the_mount_holds(mounted: Mounter) -> None:
    path = mounted(mount={"read_only": True, "noatime": True, "noexec": True}).path
    line = next(m for m in Path("/proc/mounts").read_text().splitlines() if str(path) in m)
    source, _, kind, options = line.split()[:4]
    assert (source, kind) == ("memory", "fuse.awayfs")
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= set(options.split(","))
    with pytest.raises(OSError) as caught:
        (path / "file").touch()
    assert caught.value.errno == errno.EROFS


def test_a_symlink_to_the_mount_point_will_do(mounted: Mounter, tmp_path: Path) -> None:
    mount_ = mounted()
    (tmp_path / "way").symlink_to(mount_.path)
    found = find_mount(tmp_path / "way")
    assert found is not None
    assert found.mountpoint == bytes(mount_.path)


def test_a_missing_helper_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "point").mkdir()
    with pytest.raises(MountError, match="fusermount3 is missing"):
        mount(tmp_path / "point", fsname="x", use_helper=True)


# without root


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A mount point that nobody owns, and the command prefix that makes one nobody."""
    for program in ("fusermount3", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    point = Path("/tmp") / f"awayfs-test-{os.getpid()}"
    point.mkdir()
    os.chown(point, 65534, 65534)
    os.chmod("/dev/fuse", 0o666)
    try:
        prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        if subprocess.run([*prefix, sys.executable, "-c", ""], check=False).returncode:
            pytest.skip("nobody cannot run this Python")
        yield point, prefix
    finally:
        os.chmod("/dev/fuse", mode)
        with contextlib.suppress(MountError):
            unmount(point, lazy=True)
        point.rmdir()


def test_what_the_helper_refuses_is_one_line(unprivileged: tuple[Path, list[str]]) -> None:
    point, prefix = unprivileged
    config = Path("/etc/fuse.conf")
    if config.exists() and "\nuser_allow_other" in "\n" + config.read_text():
        pytest.skip("allow_other is allowed here")
    mount_ = Mount(point, command=prefix, mount={"allow_other": True})
    try:
        assert "user_allow_other" in mount_.settled["error"]
        assert "\n" not in mount_.settled["error"]
    finally:
        mount_.stop()


def test_mounting_without_root(unprivileged: tuple[Path, list[str]]) -> None:
    point, prefix = unprivileged
    mount_ = Mount(point, command=prefix, session={"passthrough": True})
    try:
        assert "error" not in mount_.settled, mount_.settled
        write = f"open({str(point / 'file')!r}, 'w').write('mine')"
        subprocess.run([*prefix, sys.executable, "-c", write], check=True, timeout=20)
        with pytest.raises(PermissionError):  # not even root, without allow_other
            os.listdir(point)
        assert mount_.count("WRITE") == 1
        assert mount_.ask("probe") is False
        line = next(m for m in Path("/proc/mounts").read_text().splitlines() if str(point) in m)
        assert line.split()[2] == "fuse.awayfs"
        script = f"from awayfs.fuse.mount import unmount; unmount({str(point)!r})"
        subprocess.run(
            [*prefix, sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            check=True,
            timeout=20,
        )
        assert mount_.ask("closed") == "unmounted"
    finally:
        mount_.stop()

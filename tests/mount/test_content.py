"""Content that is not all here, or that both sides touch, through a real mount.

A placeholder or a partly cached file that is written to must end with the right bytes on either
side, whatever of it was here; what is not here is never taken for content.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.harness import Client, eventually, mounted, needs_fuse

pytestmark = needs_fuse

SIZE = 3_000_000
DATA = bytes(index * 7919 >> 8 & 0xFF for index in range(SIZE))


@pytest.fixture(params=["dir", "sftp"])
def client(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Client]:
    """A mount that looks at the server each time, with one large file there."""
    with mounted(request.param, str(tmp_path), "fresh=0") as client:
        with open(f"{client.server.root}/large", "wb") as file:
            file.write(DATA)
        yield client


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def partly(path: str) -> bool:
    """Have the middle here; whether it is, once the server's revision is old enough to trust."""
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 1_600_000) == DATA[1_600_000:1_601_000]
    os.stat(path)
    return os.getxattr(path, "user.awayfs.state") == b"partial"


def hold_middle(path: str) -> None:
    eventually(lambda: partly(path) and partly(path), "the middle is here")


def offline(client: Client) -> None:
    client.server.cut()
    client.offline()


def back(client: Client) -> None:
    client.server.restore()
    client.online()
    client.sync()
    assert client.conflicts() == []


def change(at: int, data: bytes, flags: int = os.O_WRONLY) -> Callable[[str, bytearray], None]:
    """Write at an offset, or with O_APPEND at the end, to the file and to what is expected."""

    def act(path: str, expected: bytearray) -> None:
        fd = os.open(path, flags)
        os.pwrite(fd, data, at) if not flags & os.O_APPEND else os.write(fd, data)
        os.close(fd)
        start = len(expected) if flags & os.O_APPEND else at
        expected.extend(bytes(max(0, start - len(expected))))
        expected[start : start + len(data)] = data

    return act


def resize(size: int) -> Callable[[str, bytearray], None]:
    """truncate(2)"""

    def act(path: str, expected: bytearray) -> None:
        os.truncate(path, size)
        del expected[size:]
        expected.extend(bytes(size - len(expected)))

    return act


CHANGES: dict[str, list[Callable[[str, bytearray], None]]] = {
    "write in the middle": [change(1_500_001, b"written" * 1000)],
    "write at the start": [change(0, b"start")],
    "write over the end": [change(SIZE - 3, b"over the end")],
    "write beyond the end": [change(SIZE + 100_000, b"far out")],
    "append": [change(0, b"appended" * 500, os.O_WRONLY | os.O_APPEND)],
    "cut": [resize(1_000_000)],
    "cut and grow": [resize(1_000_000), resize(2_000_000)],
    "empty": [resize(0)],
    "grow": [resize(SIZE + 50_000), change(10, b"and write")],
    "cut, then append": [resize(777), change(0, b"tail", os.O_WRONLY | os.O_APPEND)],
}


@pytest.mark.parametrize("known", ["placeholder", "middle"])
@pytest.mark.parametrize("when", ["online", "offline"])
def test_changes_of_what_is_not_all_here(client: Client, when: str, known: str) -> None:
    for what in CHANGES:
        shutil.copyfile(f"{client.server.root}/large", f"{client.server.root}/{what}")
    for what in CHANGES:
        if known == "middle":
            hold_middle(client.path(what))
        else:
            assert os.getxattr(client.path(what), "user.awayfs.state") == b"placeholder"
    if when == "offline":
        offline(client)
    expected = {what: bytearray(DATA) for what in CHANGES}
    for what, acts in CHANGES.items():
        for act in acts:
            act(client.path(what), expected[what])
        assert os.path.getsize(client.path(what)) == len(expected[what])
    if when == "offline":
        back(client)
    else:
        client.sync()
    for what, content in expected.items():
        assert read(f"{client.server.root}/{what}") == content, what
        assert read(client.path(what)) == content, what


def test_what_is_not_here_cannot_be_read_offline(client: Client) -> None:
    path = client.path("large")
    hold_middle(path)
    with open(path, "rb", buffering=0) as file:
        offline(client)
        assert os.pread(file.fileno(), 1000, 1_600_000) == DATA[1_600_000:1_601_000]
        with pytest.raises(OSError) as error:
            os.pread(file.fileno(), 10, 10)
        assert error.value.errno == errno.ENODATA
        os.close(os.open(path, os.O_RDONLY))
        mine = b"mine" * 1024  # a page: the kernel reads no less
        change(8192, mine)(path, bytearray(DATA))
        assert os.pread(file.fileno(), 4096, 8192) == mine
        with pytest.raises(OSError):
            os.pread(file.fileno(), 10, 8190)


def test_readers_and_writers_of_one_file(client: Client) -> None:
    """A reader that the kernel serves by itself sees what writers write."""
    path, expected = client.path("large"), bytearray(DATA)
    assert read(path) == DATA
    with open(path, "rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 10, 5) == DATA[5:15]
        for number in range(20):
            change(number * 100_000, b"%02d written" % number)(path, expected)
            assert os.pread(reader.fileno(), 20, number * 100_000) == bytes(
                expected[number * 100_000 : number * 100_000 + 20]
            )
        change(0, b"more at the end", os.O_WRONLY | os.O_APPEND)(path, expected)
        assert os.pread(reader.fileno(), 100, SIZE) == b"more at the end"
        with open(path, "rb", buffering=0) as second:
            assert os.pread(second.fileno(), SIZE, 0)[:100] == bytes(expected[:100])
    client.sync()
    assert read(f"{client.server.root}/large") == expected
    assert read(path) == expected


MAPPER = """
import mmap, os, sys
path, where = sys.argv[1], int(sys.argv[2])
reader = os.open(path, os.O_RDONLY)
os.pread(reader, 10, 0)
fd = os.open(path, os.O_RDWR)
view = mmap.mmap(fd, 0)
view[where:where + 6] = b"mapped"
view.close()
os.close(fd)
os.close(reader)
"""


def test_writing_through_a_mapping_beside_a_reader(client: Client) -> None:
    path, expected = client.path("large"), bytearray(DATA)
    assert read(path) == DATA
    subprocess.run([sys.executable, "-c", MAPPER, path, "123456"], check=True, timeout=30)
    expected[123456:123462] = b"mapped"
    assert read(path) == expected
    client.sync()
    assert read(f"{client.server.root}/large") == expected


@pytest.mark.parametrize("way", ["in place", "replaced"])
def test_the_server_changes_an_open_file(client: Client, way: str) -> None:
    path, there = client.path("large"), f"{client.server.root}/large"
    assert read(path) == DATA
    newer = b"newer" + DATA[: SIZE // 2]
    with open(path, "rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 5, 0) == DATA[:5]
        with open(there if way == "in place" else there + ".tmp", "wb") as file:
            file.write(newer)
        if way == "replaced":
            os.rename(there + ".tmp", there)
        os.stat(path)
        assert os.pread(reader.fileno(), 5, 0) in (DATA[:5], newer[:5])
    eventually(lambda: read(path) == newer, "the newer content")
    assert client.conflicts() == []


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_a_directory_of_twenty_thousand(kind: str, tmp_path: Any) -> None:
    count = 20_000
    with mounted(kind, str(tmp_path)) as client:
        where = f"{client.server.root}/many"
        os.mkdir(where)
        for index in range(count):
            os.close(os.open(f"{where}/name-{index:05}", os.O_CREAT | os.O_WRONLY))
        names = os.listdir(client.path("many"))
        assert len(names) == count and set(names) == {f"name-{i:05}" for i in range(count)}
        offline(client)
        with os.scandir(client.path("many")) as entries:
            assert sum(entry.stat().st_size == 0 for entry in entries) == count


def test_many_lookups_do_not_list_the_directory_each_time(client: Client) -> None:
    """With fresh=0 each lookup asks the server; that must not cost a whole listing."""
    where = f"{client.server.root}/many"
    os.mkdir(where)
    for index in range(3000):
        os.close(os.open(f"{where}/{index}", os.O_CREAT | os.O_WRONLY))
    os.listdir(client.path("many"))
    begin = time.monotonic()
    for index in range(200):
        os.stat(client.path("many", str(index)))
    assert time.monotonic() - begin < 10


def test_names_and_attributes_after_a_remount(client: Client) -> None:
    path = client.path("large")
    has_xattrs = client.server.scheme == "dir"
    before = os.stat(path)
    if has_xattrs:
        os.setxattr(path, "user.mine", b"kept")
    else:
        with pytest.raises(OSError) as error:
            os.setxattr(path, "user.mine", b"kept")
        assert error.value.errno == errno.EOPNOTSUPP
    os.setxattr(path, "user.awayfs.pin", b"1")
    assert "user.awayfs.pin" not in os.listxattr(path)
    version = os.getxattr(path, "user.awayfs.version")
    client.sync()
    client.umount()
    client.mount("fresh=0")
    after = os.stat(path)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.getxattr(path, "user.awayfs.pin")
    os.removexattr(path, "user.awayfs.pin")
    with pytest.raises(OSError):
        os.getxattr(path, "user.awayfs.pin")
    if has_xattrs:
        assert os.getxattr(path, "user.mine") == b"kept"
        assert os.getxattr(f"{client.server.root}/large", "user.mine") == b"kept"
    else:
        assert os.getxattr(path, "user.awayfs.version") == version
    space, there = os.statvfs(path), os.statvfs(client.server.root)
    assert space.f_blocks * space.f_frsize == there.f_blocks * there.f_frsize


def test_who_reads_a_new_file_sees_what_its_writer_writes(client: Client) -> None:
    """The writer of a new file passes by the page cache, which its readers use."""
    path = client.path("fresh")
    with open(path, "wb", buffering=0) as writer, open(path, "rb", buffering=0) as reader:
        expected = bytearray()
        for turn in range(20):
            data = b"%d," % turn * 700
            writer.write(data)
            expected += data
            assert os.pread(reader.fileno(), SIZE, 0) == expected
            assert os.fstat(reader.fileno()).st_size == len(expected)
        with mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == expected
            os.pwrite(writer.fileno(), b"changed", 4090)
            expected[4090:4097] = b"changed"
            assert mapped[:] == expected
    assert read(path) == expected
    client.sync()
    assert read(f"{client.server.root}/fresh") == expected

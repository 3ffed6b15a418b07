"""Files that a program has mapped, of which only a part is here, and that change on the server.

What was written through the mapping is an edit of the version that the program saw. The program is
a process of its own: where a page cannot be told any more it gets SIGBUS, and where anything hangs
it is the only one that does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_undo import here, kinds
from tests.harness import Client, eventually, mounted, needs_fuse

pytestmark = needs_fuse

PAGE = 4096
LARGE = 24 << 20
"""More than is fetched for a program that only may write."""
SMALL = 2 << 20
BOUND_S = 15.0

_PROGRAM = """
import mmap, os, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR)
pages = mmap.mmap(fd, 0)
os.close(fd)
busy = False
def read_on():
    while busy:
        for offset in range(0, 64 * 4096, 4096):
            pages[offset]
print("mapped", flush=True)
for line in sys.stdin:
    what, *rest = line.split()
    said = "done"
    if what == "read":
        said = bytes(pages[int(rest[0]):int(rest[0]) + 6]).decode("latin-1")
    elif what == "write":
        pages[int(rest[0]):int(rest[0]) + len(rest[1])] = rest[1].encode()
    elif what == "flush":
        pages.flush()
    elif what == "busy":
        busy = True
        threading.Thread(target=read_on, daemon=True).start()
    print(said, flush=True)
"""


class Mapper:
    """A program that has all of a file mapped, and does what it is told."""

    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._heard() == "mapped"

    def __call__(self, *words: object) -> str:
        """What it says; empty where it died of it."""
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return self._heard()

    def _heard(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], BOUND_S)
        assert ready, "the program hangs"
        return self.process.stdout.readline().decode().strip()

    def end(self) -> int:
        """Have it unmap the file; its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        return self.process.wait(BOUND_S)


@contextlib.contextmanager
def mapping(client: Client, name: str) -> Iterator[Mapper]:
    mapper = Mapper(client.path(name))
    try:
        yield mapper
        mapper.end()
    finally:
        mapper.process.kill()
        mapper.process.wait(BOUND_S)


def a_file(client: Client, size: int) -> Path:
    """One that is known here, and whose content is not."""
    file = client.on_server("f")
    file.write_bytes(b"b" * size)
    os.stat(client.path("f"))
    return file


def edited(client: Client, size: int) -> bytes:
    """The server's newer version, in the place of the older one, and seen here."""
    newer = edited_unseen(client, size)
    with contextlib.suppress(OSError):
        os.stat(client.path("f"))
    return newer


def edited_unseen(client: Client, size: int) -> bytes:
    """Never shorter in between: a program that reads beyond the end gets SIGBUS for that."""
    newer = b"t" * (size + 5)
    with open(os.path.join(client.server.files, "f"), "r+b") as file:
        file.write(newer)
    return newer


def variant(client: Client, which: str) -> bytes:
    return here(client, f".awayfs/conflicts/f/{which}").read_bytes()


def in_conflict(client: Client) -> None:
    eventually(lambda: [c["kind"] for c in client.conflicts()] == ["update/update"], "a conflict")


def test_a_part_is_here_and_was_written_to(client: Client) -> None:
    a_file(client, LARGE)
    with mapping(client, "f") as program:
        assert program("read", 0) == "bbbbbb"
        program("write", 0, "MAPPED")
        newer = edited(client, LARGE)
        in_conflict(client)
        program("write", PAGE, "LATER!")
        program("flush")
    client.sync(check=False)
    assert client.on_server("f").read_bytes() == newer
    assert variant(client, "server") == newer
    assert "a part of the local version was never here" in client.awayfs(
        "conflicts", client.mountpoint
    )
    assert "never here" in client.fails("resolve", client.path("f"), "--keep", "local")
    client.awayfs("resolve", client.path("f"), "--keep", "both")
    client.sync()
    copies = [name for name in os.listdir(client.server.root) if "partial conflict" in name]
    (saved,) = [name for name in copies if not name.endswith("known-ranges.txt")]
    kept = client.on_server(saved).read_bytes()
    assert (kept[:6], kept[PAGE : PAGE + 6]) == (b"MAPPED", b"LATER!")
    assert b"t" not in kept and len(kept) == LARGE


def test_the_server_is_first_and_a_missing_part_is_read(client: Client) -> None:
    """Of the version that the program saw there is no more to be had."""
    a_file(client, LARGE)
    with mapping(client, "f") as program:
        program("read", 0)
        newer = edited_unseen(client, LARGE)
        program("write", 0, "MAPPED")
        assert program("read", LARGE - 8192) == ""
        assert program.end() == -signal.SIGBUS
    in_conflict(client)
    assert client.on_server("f").read_bytes() == newer
    with open(client.path("f"), "rb") as file:
        assert file.read(PAGE) == b"MAPPED" + b"b" * (PAGE - 6)


def test_nobody_wrote_and_a_missing_part_is_read(client: Client) -> None:
    """The newer version is shown, all of it, and can be written to."""
    a_file(client, LARGE)
    with mapping(client, "f") as program:
        program("read", 0)
        edited_unseen(client, LARGE)
        assert program("read", LARGE - 8192) == "tttttt"
        assert program("read", 0) == "tttttt"
        program("write", 0, "MAPPED")
    client.sync()
    assert client.on_server("f").read_bytes() == b"MAPPED" + b"t" * (LARGE - 1)
    assert client.conflicts() == []


@pytest.mark.parametrize("first", ["program", "server"])
def test_a_small_file_is_there_as_a_whole(first: str, client: Client) -> None:
    """The rest of it comes while it is open."""
    a_file(client, SMALL)
    state = client.path("f")
    with mapping(client, "f") as program:
        program("read", 0)
        eventually(lambda: b"partial" not in os.getxattr(state, b"user.awayfs.state"), "the rest")
        if first == "program":
            program("write", 0, "MAPPED")
            newer = edited(client, SMALL)
        else:
            newer = edited_unseen(client, SMALL)
            program("write", 0, "MAPPED")
            os.stat(client.path("f"))
        in_conflict(client)
        assert program("read", SMALL - 8192) == "bbbbbb"
    assert client.on_server("f").read_bytes() == newer == variant(client, "server")
    assert variant(client, "local") == b"MAPPED" + b"b" * (SMALL - 6)
    assert variant(client, "base") == b"b" * SMALL


def test_the_link_is_cut_in_between(client: Client) -> None:
    a_file(client, LARGE)
    with mapping(client, "f") as program:
        program("read", 0)
        program("write", 0, "MAPPED")
        client.server.cut()
        newer = edited_unseen(client, LARGE)
        program("flush")
        program("write", PAGE, "SECOND")
        client.server.restore()
        assert kinds(client) == {"f": "update/update"}
    client.sync(check=False)
    assert client.on_server("f").read_bytes() == newer
    with open(client.path("f"), "rb") as file:
        assert file.read(6) == b"MAPPED"
        file.seek(PAGE)
        assert file.read(6) == b"SECOND"


def test_a_missing_part_while_the_link_is_cut(client: Client) -> None:
    """The program ends, and what it wrote is sent later."""
    a_file(client, LARGE)
    with mapping(client, "f") as program:
        program("read", 0)
        program("write", 0, "MAPPED")
        client.server.cut()
        assert program("read", LARGE - 8192) == ""
        assert program.end() == -signal.SIGBUS
    client.server.restore()
    client.online()
    client.sync()
    assert client.on_server("f").read_bytes() == b"MAPPED" + b"b" * (LARGE - 6)


def test_it_is_removed_on_the_server(client: Client) -> None:
    a_file(client, SMALL)
    with mapping(client, "f") as program:
        program("read", SMALL - 8192)
        program("write", 0, "MAPPED")
        os.unlink(client.on_server("f"))
        with contextlib.suppress(FileNotFoundError):
            os.stat(client.path("f"))
        eventually(lambda: client.conflicts(), "the conflict")
        assert kinds(client) == {"f": "update/remove"}
    assert here(client, "f").read_bytes()[:6] == b"MAPPED"
    client.awayfs("resolve", client.path("f"), "--keep", "local")
    client.sync()
    assert client.on_server("f").read_bytes() == b"MAPPED" + b"b" * (SMALL - 6)


def test_its_directory_is_removed_on_the_server(plain: Client) -> None:
    plain.on_server("d").mkdir()
    plain.on_server("d/f").write_bytes(b"b" * SMALL)
    plain.on_server("d/g").write_bytes(b"g")
    os.stat(plain.path("d/f"))
    with mapping(plain, "d/f") as program:
        program("read", SMALL - 8192)
        program("write", 0, "MAPPED")
        os.unlink(plain.on_server("d/f"))
        os.unlink(plain.on_server("d/g"))
        plain.on_server("d").rmdir()
        os.listdir(plain.mountpoint)
        eventually(lambda: plain.conflicts(), "the conflict")
    assert kinds(plain) == {"d/f": "update/remove"}
    assert here(plain, "d/f").read_bytes()[:6] == b"MAPPED"


def test_it_is_removed_on_the_server_and_nobody_wrote(client: Client) -> None:
    a_file(client, SMALL)
    with mapping(client, "f") as program:
        program("read", 0)
        os.unlink(client.on_server("f"))
        eventually(lambda: os.listdir(client.mountpoint) == [], "the removal")
    client.sync()
    assert client.conflicts() == [] and os.listdir(client.server.root) == []


@pytest.mark.parametrize("written", [True, False])
def test_another_takes_its_place_on_the_server(written: bool, client: Client) -> None:
    a_file(client, SMALL)
    newer = b"t" * (SMALL + 5)
    with mapping(client, "f") as program:
        program("read", SMALL - 8192)
        if written:
            program("write", 0, "MAPPED")
        client.on_server("new").write_bytes(newer)
        os.rename(client.on_server("new"), client.on_server("f"))
        os.stat(client.path("f"))
        if written:
            in_conflict(client)
        else:
            eventually(lambda: os.stat(client.path("f")).st_size == len(newer), "the other")
    client.sync(check=False)
    assert client.on_server("f").read_bytes() == newer
    shown = b"MAPPED" + b"b" * (SMALL - 6) if written else newer
    assert here(client, "f").read_bytes() == shown
    assert bool(client.conflicts()) == written


def test_a_program_that_reads_all_the_time(client: Client) -> None:
    """It keeps old pages coming, and gets the newer version all the same."""
    a_file(client, LARGE)
    with mapping(client, "f") as program:
        program("busy")
        newer = edited(client, LARGE)
        eventually(lambda: program("read", 0) == "tttttt", "the newer version")
        assert program("read", PAGE * 63) == "tttttt"
        program("write", PAGE, "MAPPED")
    client.sync()
    assert client.on_server("f").read_bytes() == newer[:PAGE] + b"MAPPED" + newer[PAGE + 6 :]
    assert client.conflicts() == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_what_the_kernel_keeps_back(size: int, tmp_path: Path) -> None:
    """With ``-o writeback`` an ordinary write(2) is seen late, too."""
    with mounted("dir", str(tmp_path), "fresh=0,writeback") as client:
        a_file(client, size)
        with open(client.path("f"), "rb") as file:
            file.read(PAGE)
        fd = os.open(client.path("f"), os.O_WRONLY)
        try:
            os.pwrite(fd, b"WRITTEN", 0)
            newer = edited(client, size)
            in_conflict(client)
        finally:
            os.close(fd)
        client.sync(check=False)
        assert client.on_server("f").read_bytes() == newer
        with open(client.path("f"), "rb") as file:
            assert file.read(PAGE) == b"WRITTEN" + b"b" * (PAGE - 7)


@pytest.mark.parametrize("written", ["before", "first"])
def test_a_discard_keeps_what_was_mapped(written: str, client: Client) -> None:
    """What a program wrote to its pages goes to the history with the rest."""
    file = client.on_server("f")
    file.write_bytes(b"b" * SMALL)
    here(client, "f").read_bytes()
    client.offline()
    if written == "before":
        with open(client.path("f"), "r+b") as change:
            change.seek(PAGE)
            change.write(b"TOLD")
    with mapping(client, "f") as program:
        program("read", 0)
        program("write", 0, "MAPPED")
        client.awayfs("discard", client.path("f"))
        assert here(client, "f").read_bytes() == b"b" * SMALL
    client.online()
    client.sync()
    assert file.read_bytes() == b"b" * SMALL and client.conflicts() == []
    client.awayfs("resolve", "--undo", client.path("f"))
    client.sync()
    mine = b"MAPPED" + b"b" * (PAGE - 6) + (b"TOLD" if written == "before" else b"bbbb")
    assert file.read_bytes() == mine + b"b" * (SMALL - PAGE - 4)

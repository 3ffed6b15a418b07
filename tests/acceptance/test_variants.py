"""Variants on real mounts: ``.awayfs``, ioctls from Python and C, ``-o conflicted``."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from awayfs import cachectl
from awayfs.cachectl import Flag, Variant
from tests.harness import (
    Client,
    assert_same_tree,
    eventually,
    mounted,
    needs_fuse,
    run,
    tree,
)

pytestmark = needs_fuse

REPOSITORY = Path(__file__).parents[2]
LARGE = b"local content, large enough that the kernel reads it by itself\n" * 4000


def write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def read_fd(fd: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def conflict(client: Client, name: str = "f", local: bytes = b"mine is longer\n") -> None:
    """One file, changed on both sides."""
    write(f"{client.server.files}/{name}", b"base\n")
    eventually(lambda: name in os.listdir(client.mountpoint), "the file")
    assert read(client.path(name)) == b"base\n"
    client.offline()
    write(client.path(name), local)
    write(f"{client.server.files}/{name}", b"theirs!\n")
    client.online()
    client.sync(check=False)
    assert [c["path"] for c in client.conflicts()] == [name]


def error_of(call: Any, *args: Any) -> str:
    with pytest.raises(OSError) as caught:
        call(*args)
    return errno.errorcode.get(caught.value.errno or 0, str(caught.value.errno))


# -- the whole trees --------------------------------------------------------------------------


def change_at_random(root: str, seed: int, steps: int) -> None:
    """Changes of every kind, as programs make them."""
    choose = random.Random(seed)
    for step in range(steps):
        paths = [os.path.join(d, n) for d, ds, fs in os.walk(root) for n in [*ds, *fs]]
        files = [p for p in paths if stat.S_ISREG(os.lstat(p).st_mode)]
        directories = [root] + [p for p in paths if os.path.isdir(p) and not os.path.islink(p)]
        place = os.path.join(choose.choice(directories), f"new{step}")
        match choose.randrange(10):
            case 0:
                write(place, choose.randbytes(choose.randrange(5000)))
            case 1:
                os.mkdir(place)
            case 2 if files:
                os.unlink(choose.choice(files))
            case 3 if files:
                os.rename(choose.choice(files), place)
            case 4 if files:  # an editor's save
                write(place, choose.randbytes(100))
                os.rename(place, choose.choice(files))
            case 5 if files:
                os.truncate(choose.choice(files), choose.randrange(3000))
            case 6 if files:
                os.chmod(choose.choice(files), choose.choice([0o600, 0o644, 0o755]))
            case 7:
                os.symlink("somewhere", place)
            case 8 if len(directories) > 1:
                moved = choose.choice(directories[1:])
                if not place.startswith(moved + "/"):
                    os.rename(moved, place)
            case _ if files:
                with open(choose.choice(files), "r+b") as file:
                    file.seek(choose.randrange(200))
                    file.write(choose.randbytes(choose.randrange(300)))


def make_tree(root: str) -> None:
    for number in range(6):
        os.makedirs(f"{root}/d{number}/inner")
        for name in ("one", "two"):
            write(f"{root}/d{number}/{name}", os.urandom(1000 + number))
            write(f"{root}/d{number}/inner/{name}", b"text %d\n" % number)
        os.symlink("one", f"{root}/d{number}/link")
    os.chmod(f"{root}/d1/one", 0o640)
    os.chmod(f"{root}/d2/inner", 0o750)
    write(os.path.join(root, "d3", "a name\nwith \udcff\\ all"), b"")


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_base_is_the_tree_as_of_going_offline(kind: str, tmp_path: Path) -> None:
    """Byte by byte after 200 random changes; and ``server`` is what the server has by then."""
    with mounted(kind, str(tmp_path)) as client:
        make_tree(client.server.files)
        client.awayfs("pin", client.mountpoint)
        client.awayfs("hoard")
        client.offline()
        before = tree(client.mountpoint, mtime_grain_ns=1_000_000_000, directories_mtime=False)
        change_at_random(client.mountpoint, 7, 200)
        base = client.path(".awayfs/base")
        shown = tree(base, mtime_grain_ns=1_000_000_000, directories_mtime=False)
        assert_same_tree(before, shown)
        assert shown != tree(client.mountpoint, mtime_grain_ns=1_000_000_000)
        assert ".awayfs" not in os.listdir(client.mountpoint)
        copied = str(tmp_path / "copy")
        run("cp", "-a", base, copied)
        assert_same_tree(
            before, tree(copied, mtime_grain_ns=1_000_000_000, directories_mtime=False)
        )
        run("diff", "-r", "--no-dereference", base, copied)
        write(f"{client.server.files}/theirs", b"made there")
        write(f"{client.server.files}/d0/one", b"changed there")
        client.online()
        client.sync(check=False)
        for _ in range(2):  # asked, and as last seen
            assert_same_tree(
                tree(client.server.files, mtime_grain_ns=1_000_000_000, directories_mtime=False),
                tree(
                    client.path(".awayfs/server"),
                    mtime_grain_ns=1_000_000_000,
                    directories_mtime=False,
                ),
            )
            client.awayfs("hoard", check=False)
            client.offline()


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_a_link_that_drops_before_the_servers_variant_is_here(kind: str, tmp_path: Path) -> None:
    """The conflict is found, listed and whole later, however far fetching came."""
    size = 48 << 20
    with mounted(kind, str(tmp_path)) as client:
        write(f"{client.server.files}/f", b"base\n")
        assert read(client.path("f")) == b"base\n"
        client.offline()
        write(client.path("f"), b"mine\n")
        theirs = os.urandom(1 << 20) * (size >> 20)
        write(f"{client.server.files}/f", theirs)
        client.online()
        time.sleep(0.05)
        client.server.cut()
        eventually(lambda: client.status()["mode"] != "reintegrating", "the loss", 30)
        client.awayfs("offline", client.mountpoint)
        client.server.restore()
        client.online()
        client.sync(check=False)
        server = client.path(".awayfs/conflicts/f/server")
        assert os.stat(server).st_size == size
        eventually(lambda: os.getxattr(server, "user.awayfs.state") == b"clean", "all of it", 60)
        client.offline()
        run("cmp", server, f"{client.server.files}/f")
        assert read(client.path("f")) == b"mine\n"


def test_a_large_tree_is_shown_and_other_programs_go_on(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path)) as client:
        os.mkdir(f"{client.server.files}/big")
        for number in range(20_000):
            os.close(os.open(f"{client.server.files}/big/{number:05}", os.O_CREAT | os.O_WRONLY))
        write(f"{client.server.files}/small", b"small\n")
        run("ls", client.path("big"))
        assert read(client.path("small")) == b"small\n"
        for name in ("base", "server"):
            found = tmp_path / f"{name}.found"
            command = ["find", client.path(f".awayfs/{name}/big"), "-name", "0*", "-size", "0"]
            slowest = 0.0
            with open(found, "wb") as output, subprocess.Popen(command, stdout=output) as listing:
                while listing.poll() is None:
                    began = time.monotonic()
                    assert read(client.path("small")) == b"small\n"
                    slowest = max(slowest, time.monotonic() - began)
            assert len(found.read_bytes().splitlines()) == 10_000
            assert slowest < 2.0  # measured: 0.15


def test_what_is_open_survives_the_decision(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path)) as client:
        conflict(client)
        names = ("base", "local", "server")
        opened = [os.open(client.path(f".awayfs/conflicts/f/{n}"), os.O_RDONLY) for n in names]
        client.awayfs("resolve", client.path("f"), "--keep", "server")
        assert read(client.path("f")) == b"theirs!\n"
        assert not os.path.exists(client.path(".awayfs/conflicts/f"))
        assert [read_fd(fd) for fd in opened] == [b"base\n", b"mine is longer\n", b"theirs!\n"]
        assert [os.fstat(fd).st_size for fd in opened] == [5, 15, 8]
        for fd in opened:
            os.close(fd)


def test_nothing_goes_in(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path)) as client:
        write(f"{client.server.files}/f", b"content\n")
        assert read(client.path("f"))
        base = client.path(".awayfs/base")
        assert error_of(os.mkdir, f"{base}/d") == "EROFS"
        assert error_of(os.unlink, f"{base}/f") == "EROFS"
        assert error_of(os.rename, client.path("f"), f"{base}/g") == "EROFS"
        assert error_of(os.open, f"{base}/f", os.O_RDWR) == "EROFS"
        assert error_of(os.open, f"{base}/new", os.O_RDWR | os.O_CREAT) == "EROFS"
        assert error_of(os.link, f"{base}/f", client.path("g")) == "EXDEV"
        run("cp", f"{base}/f", client.path("g"))
        assert read(client.path("g")) == b"content\n"


# -- ioctls -----------------------------------------------------------------------------------


def test_cachectl(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path)) as client:
        conflict(client, local=LARGE)
        path = client.path("f")
        assert cachectl.state(path).flags == Flag.DIRTY | Flag.CONFLICTED
        assert cachectl.state(path).mode in ("connected", "reintegrating")
        assert set(cachectl.variants(path)) == {Variant.BASE, Variant.LOCAL, Variant.SERVER}
        for which, content in {"base": b"base\n", "server": b"theirs!\n", "local": LARGE}.items():
            fd = cachectl.open(path, variant=which)
            assert os.fstat(fd).st_size == len(content)
            assert read_fd(fd) == content
            assert error_of(os.write, fd, b"x") == "EBADF"
            os.close(fd)
        assert error_of(cachectl.open, path, "merged") == "ENOENT"
        cachectl.pin(path, priority=3)
        assert cachectl.state(path).pin == 3
        cachectl.unpin(path)
        assert error_of(cachectl.unpin, path) == "ENODATA"
        write(f"{client.server.files}/far", b"far\n")
        eventually(lambda: "far" in os.listdir(client.mountpoint), "the file")
        assert cachectl.state(client.path("far")).flags == Flag.PLACEHOLDER
        cachectl.fetch(client.path("far"))
        assert cachectl.state(client.path("far")).flags == Flag.CLEAN
        assert cachectl.state(client.mountpoint).node == 1
        assert error_of(cachectl.state, str(tmp_path)) == "ENOTTY"


def test_a_descriptor_that_the_kernel_reads_by_itself_is_switched(tmp_path: Path) -> None:
    """The plain file stays what it is, for others and under another descriptor."""
    with mounted("dir", str(tmp_path)) as client:
        conflict(client, local=LARGE)
        plain = os.open(client.path("f"), os.O_RDONLY)
        other = os.open(client.path("f"), os.O_RDONLY)
        assert os.pread(plain, 100, 0) == LARGE[:100]
        cachectl.switch(plain, "server")
        assert read_fd(plain) == b"theirs!\n"
        assert os.pread(other, len(LARGE), 0) == LARGE
        cachectl.switch(other, "base")
        assert read_fd(other) == b"base\n"
        assert read(client.path("f")) == LARGE
        os.close(plain)
        os.close(other)


def test_a_descriptor_with_unsaved_data_is_not_switched(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path)) as client:
        write(f"{client.server.files}/f", b"base\n")
        assert read(client.path("f")) == b"base\n"
        client.offline()
        fd = os.open(client.path("f"), os.O_RDWR)
        os.write(fd, b"new")
        assert error_of(cachectl.switch, fd, "base") == "EBUSY"
        os.fsync(fd)
        cachectl.switch(fd, "base")
        assert read_fd(fd) == b"base\n"
        os.close(fd)
        assert read(client.path("f")) == b"newe\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users(tmp_path: Path) -> None:
    """Permissions of the file decide, not who can open ``.awayfs``."""
    os.chmod(tmp_path, 0o755)
    for parent in list(tmp_path.parents)[:3]:
        if parent != Path("/tmp"):
            os.chmod(parent, os.stat(parent).st_mode | 0o055)
    with mounted("dir", str(tmp_path), "allow_other") as client:
        os.chmod(client.home, 0o755)
        conflict(client)
        os.chmod(client.mountpoint, 0o755)
        program = (
            "import os, sys; from awayfs import cachectl\n"
            "path = sys.argv[1]\n"
            "def said(call, *args):\n"
            "    try: print(call(*args) and 'done')\n"
            "    except OSError as error: print(error.errno)\n"
            "os.setgroups([]); os.setgid(4711); os.setuid(4711)\n"
            "said(lambda: os.read(cachectl.open(path, 'server'), 100))\n"
            "said(lambda: cachectl.pin(path) or True)\n"
            "said(lambda: os.listdir(os.path.dirname(path) + '/.awayfs/base'))\n"
            "said(lambda: cachectl.state(path))\n"
        )
        said = run(sys.executable, "-c", program, client.path("f"), env=client.env).split()
        assert said == ["done", str(errno.EACCES), str(errno.EACCES), "done"]
        assert cachectl.state(client.path("f")).pin == -1


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (Debian: apt install gcc)")
def test_a_program_in_c(tmp_path: Path) -> None:
    """Built from the very page that documents the structs."""
    page = (REPOSITORY / "docs" / "ioctl.md").read_text(encoding="utf-8")
    header = re.findall(r"```c\n(.*?)```", page, re.S)
    assert len(header) == 1
    (tmp_path / "awayfs_ioctl.h").write_text(header[0])
    source = str(REPOSITORY / "tests" / "acceptance" / "cachectl.c")
    program = str(tmp_path / "cachectl")
    run("cc", "-Wall", "-Werror", "-O1", "-I", str(tmp_path), "-o", program, source)
    with mounted("dir", str(tmp_path)) as client:
        conflict(client)
        path = client.path("f")
        told = run(program, "state", path)
        assert "flags=34 " in told and "size=15 cached=15 pin=-1 variants=7" in told
        assert run(program, "variants", path).splitlines() == [
            "0 size=5 mode=100644 whole=1",
            "1 size=15 mode=100644 whole=1",
            "2 size=8 mode=100644 whole=1",
        ]
        root = client.mountpoint
        assert run(program, "show", path, root, "0") == "base\n"
        assert run(program, "show", path, root, "2") == "theirs!\n"
        run(program, "pin", path)
        assert " pin=42 " in run(program, "state", path)
        run(program, "unpin", path)
        run(program, "fetch", client.mountpoint)
        assert " mode=" in run(program, "state", client.mountpoint)


# -- what the plain name shows ----------------------------------------------------------------


def test_conflicted_server(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "conflicted=server") as client:
        write(f"{client.server.files}/f", b"base\n")
        assert read(client.path("f")) == b"base\n"
        reader = os.open(client.path("f"), os.O_RDONLY)
        assert os.pread(reader, 100, 0) == b"base\n"
        conflict(client, local=LARGE)
        there = os.stat(f"{client.server.files}/f")
        for _ in range(2):
            shown = os.stat(client.path("f"))
            assert (shown.st_size, shown.st_mtime_ns) == (8, there.st_mtime_ns)
            assert read(client.path("f")) == b"theirs!\n"
        assert os.pread(reader, 100, 0) == b"theirs!\n"
        os.close(reader)
        assert error_of(write, client.path("f"), b"more") == "EBUSY"
        assert error_of(os.truncate, client.path("f"), 0) == "EBUSY"
        assert read(client.path(".awayfs/conflicts/f/local")) == LARGE
        client.awayfs("resolve", client.path("f"), "--keep", "local")
        assert read(client.path("f")) == LARGE
        client.sync()
        assert read(f"{client.server.files}/f") == LARGE
        write(client.path("f"), b"goes on\n")


def test_conflicted_error(tmp_path: Path) -> None:
    with mounted("dir", str(tmp_path), "conflicted=error,errno=distinct") as client:
        conflict(client)
        with pytest.raises(OSError) as refused:
            read(client.path("f"))
        assert refused.value.errno == 505
        assert os.stat(client.path("f")).st_size == 15
        assert "f" in os.listdir(client.mountpoint)
        assert read(client.path(".awayfs/conflicts/f/server")) == b"theirs!\n"
        fd = cachectl.open(client.path("f"), variant="local")
        assert read_fd(fd) == b"mine is longer\n"
        os.close(fd)
        assert Flag.CONFLICTED in cachectl.state(client.path("f")).flags
        client.awayfs("resolve", client.path("f"), "--keep", "server")
        assert read(client.path("f")) == b"theirs!\n"

"""Inode numbers and file handles, as programs and an NFS server rely on them, on real mounts."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import Client, eventually, needs_fuse, run

pytestmark = needs_fuse
MANY = 2000


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def number(path: str) -> int:
    return os.lstat(path).st_ino


# -- a number is for good ------------------------------------------------------------------------


def test_a_file_keeps_its_number_all_its_life(client: Client) -> None:
    client.offline()
    os.mkdir(client.path("d"))
    write(client.path("d/f"), "made offline")
    os.symlink("f", client.path("d/link"))
    names = ("d", "d/f", "d/link")
    before = [number(client.path(name)) for name in names]
    assert len(set(before)) == 3

    def same(*shown: str) -> bool:
        return [number(client.path(name)) for name in shown or names] == before

    client.online()
    client.sync()
    assert same(), "the server's own ids came"
    assert os.path.exists(f"{client.server.root}/d/f")
    client.umount()
    client.mount("fresh=0")
    assert same(), "mounted again"
    client.kill()
    client.mount("fresh=0")
    assert same(), "after a crash"
    os.rename(client.path("d"), client.path("e"))
    os.rename(client.path("e/f"), client.path("e/g"))
    moved = ("e", "e/g", "e/link")
    assert same(*moved)
    client.sync()
    assert same(*moved), "replayed"
    write(f"{client.server.root}/e/g", "edited on the server, where it keeps its place")
    with open(client.path("e/g")) as file:
        assert "edited on the server" in file.read()
    assert same(*moved)


def test_a_rename_on_the_server(plain: Client) -> None:
    write(f"{plain.server.root}/f", "content")
    before = number(plain.path("f"))
    plain.offline()
    os.rename(f"{plain.server.root}/f", f"{plain.server.root}/g")
    plain.online()
    assert eventually(lambda: os.listdir(plain.mountpoint) == ["g"], "the new name")
    assert number(plain.path("g")) == before


@pytest.mark.parametrize("keep", ["local", "server", "both"])
def test_a_decision_leaves_the_number(client: Client, keep: str) -> None:
    write(client.path("f"), "base")
    client.sync()
    before = number(client.path("f"))
    client.offline()
    write(client.path("f"), "edited here")
    write(f"{client.server.root}/f", "edited there, too")
    client.online()
    client.sync(check=False)
    assert len(client.conflicts()) == 1
    assert number(client.path("f")) == before
    client.awayfs("resolve", client.path("f"), "--keep", keep)
    client.sync()
    if keep != "both":
        assert number(client.path("f")) == before
    numbers = [number(client.path(name)) for name in os.listdir(client.mountpoint)]
    assert before in numbers
    assert len(set(numbers)) == len(numbers)


def test_an_editors_save_is_a_file_of_its_own_as_on_a_disk(client: Client) -> None:
    """Who has the old one open keeps its number; the name shows that of what was moved over it.

    Programs find out by that that a file was replaced (``tail -F``).
    """
    write(client.path("f"), "old")
    client.sync()
    old = number(client.path("f"))
    with open(client.path("f")) as opened:
        write(client.path("f.tmp"), "new")
        saved = number(client.path("f.tmp"))
        os.rename(client.path("f.tmp"), client.path("f"))
        assert number(client.path("f")) == saved != old
        assert os.fstat(opened.fileno()).st_ino == old
        assert opened.read() == "old"
    client.sync()
    assert number(client.path("f")) == saved
    with open(f"{client.server.root}/f") as file:
        assert file.read() == "new"


def test_many_files_made_offline(plain: Client) -> None:
    plain.offline()
    os.mkdir(plain.path("d"))
    for name in range(MANY):
        os.close(os.open(plain.path("d", str(name)), os.O_CREAT | os.O_WRONLY))
    gone = {number(plain.path("d", str(name))) for name in range(0, MANY, 2)}
    for name in range(0, MANY, 2):
        os.unlink(plain.path("d", str(name)))
    for name in range(0, MANY, 2):
        os.close(os.open(plain.path("d", f"again{name}"), os.O_CREAT | os.O_WRONLY))
    found = {entry.name: entry.inode() for entry in os.scandir(plain.path("d"))}
    assert len(set(found.values())) == len(found) == MANY
    assert not gone & set(found.values()), "a number was given a second time"
    assert all(number(plain.path("d", name)) == found[name] for name in list(found)[::50])
    plain.kill()
    plain.mount("fresh=0")
    assert {entry.name: entry.inode() for entry in os.scandir(plain.path("d"))} == found


# -- programs that go by numbers -----------------------------------------------------------------


@pytest.mark.parametrize("where", ["offline", "connected"])
def test_hard_links_as_find_tar_rsync_and_du_see_them(
    plain: Client, tmp_path: Path, where: str
) -> None:
    if missing := [program for program in ("rsync", "tar") if shutil.which(program) is None]:
        pytest.skip(f"no {missing[0]} here")
    plain.offline()
    tree = plain.path("t")
    os.makedirs(f"{tree}/below")
    write(f"{tree}/a", "x" * 100_000)
    os.link(f"{tree}/a", f"{tree}/b")
    os.link(f"{tree}/a", f"{tree}/below/c")
    write(f"{tree}/single", "y" * 5000)
    if where == "connected":
        plain.online()
        plain.sync()
    found = run("find", tree, "-inum", str(number(f"{tree}/a")))
    assert sorted(found.split()) == [f"{tree}/a", f"{tree}/b", f"{tree}/below/c"]
    assert run("find", tree, "-links", "3").split().__len__() == 3 + (
        os.stat(tree).st_nlink == 3  # the directory itself
    )
    listing = run("tar", "-C", plain.mountpoint, "-cf", f"{tmp_path}/t.tar", "t", check=True)
    listing = run("tar", "-tvf", f"{tmp_path}/t.tar")
    assert listing.count("link to t/") == 2
    run("rsync", "-aH", f"{tree}/", f"{tmp_path}/copy/")
    copies = [os.stat(f"{tmp_path}/copy/{name}") for name in ("a", "b", "below/c")]
    assert {(s.st_ino, s.st_nlink) for s in copies} == {(copies[0].st_ino, 3)}
    assert run("rsync", "-aHni", f"{tree}/", f"{tmp_path}/copy/") == "", "nothing differs"
    size = int(run("du", "-s", "--apparent-size", "-B1", f"{tree}").split()[0])
    directories = sum(os.stat(path).st_size for path in (tree, f"{tree}/below"))
    assert size - directories == 105_000, "each file once"
    if where == "connected":
        there = [os.stat(f"{plain.server.root}/t/{name}") for name in ("a", "b", "below/c")]
        assert {(s.st_ino, s.st_nlink) for s in there} == {(there[0].st_ino, 3)}


# -- file handles, as an NFS server uses them ----------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
HANDLE_MOST = 128
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000


def handle_of(path: str) -> bytes:
    """name_to_handle_at(2)."""
    buffer = ctypes.create_string_buffer(8 + HANDLE_MOST)
    ctypes.c_uint32.from_buffer(buffer).value = HANDLE_MOST
    mount_id = ctypes.c_int()
    name = os.fsencode(path)
    if _libc.name_to_handle_at(AT_FDCWD, name, buffer, ctypes.byref(mount_id), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return buffer.raw[: 8 + int.from_bytes(buffer.raw[:4], "little")]


def opened(client: Client, handle: bytes, flags: int = os.O_RDONLY) -> int:
    """open_by_handle_at(2)."""
    buffer = ctypes.create_string_buffer(handle, len(handle))
    mount = os.open(client.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = _libc.open_by_handle_at(mount, buffer, flags)
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(fd)
    finally:
        os.close(mount)


def read_by(client: Client, handle: bytes) -> str:
    fd = opened(client, handle)
    with open(fd) as file:
        return file.read()


def forget_everything() -> None:
    """Have the kernel let go of all inodes that are not in use."""
    subprocess.run(["sync"], check=True, timeout=60)
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="wants root to open by handle")


@needs_root
def test_a_handle_opens_the_file_wherever_it_is(plain: Client) -> None:
    os.makedirs(plain.path("a/b"))
    write(plain.path("a/b/f"), "content")
    plain.sync()
    file, directory = handle_of(plain.path("a/b/f")), handle_of(plain.path("a/b"))
    forget_everything()
    assert read_by(plain, file) == "content"
    os.rename(plain.path("a/b"), plain.path("moved"))
    forget_everything()
    assert read_by(plain, file) == "content"
    fd = opened(plain, directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert os.listdir(fd) == ["f"]
        assert os.stat("..", dir_fd=fd).st_ino == number(plain.mountpoint)
        assert os.readlink(f"/proc/self/fd/{fd}") == plain.path("moved")
    finally:
        os.close(fd)


@needs_root
def test_a_handle_outlives_the_mount_and_works_offline(plain: Client) -> None:
    write(plain.path("f"), "content")
    plain.sync()
    handle = handle_of(plain.path("f"))
    plain.offline()
    plain.umount()
    plain.mount("fresh=0")
    assert read_by(plain, handle) == "content"
    fd = opened(plain, handle, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b", and more")
    os.close(fd)
    plain.online()
    plain.sync()
    with open(f"{plain.server.root}/f") as file:
        assert file.read() == "content, and more"


@needs_root
@pytest.mark.parametrize("where", ["offline", "connected"])
def test_a_handle_of_what_is_gone_is_stale(plain: Client, where: str) -> None:
    """And stays so: its number is never another file's."""
    write(plain.path("f"), "content")
    plain.sync()
    handle = handle_of(plain.path("f"))
    if where == "offline":
        plain.offline()
    os.unlink(plain.path("f"))
    if where == "connected":
        plain.sync()
    write(plain.path("f"), "another file")
    forget_everything()
    with pytest.raises(OSError, match="Stale") as caught:
        read_by(plain, handle)
    assert caught.value.errno == errno.ESTALE


@needs_root
def test_a_handle_is_not_good_for_other_state(plain: Client) -> None:
    """What this machine kept of the volume was forgotten: numbers begin anew."""
    for name in ("a", "b", "c"):
        write(plain.path(name), name)
    plain.sync()
    handles = [handle_of(plain.path(name)) for name in ("a", "b", "c")]
    volume = plain.status()["volume"]
    plain.umount()
    plain.awayfs("forget", volume, "--yes")
    plain.mount("fresh=0")
    os.listdir(plain.mountpoint)
    for handle in handles:
        with pytest.raises(OSError, match="Stale"):
            read_by(plain, handle)


@needs_root
def test_a_handle_into_the_volumes_own_tree_ends_with_the_mount(plain: Client) -> None:
    handle = handle_of(plain.path(".awayfs/status"))
    plain.umount()
    plain.mount("fresh=0")
    os.stat(plain.path(".awayfs/events"))
    with pytest.raises(OSError, match="Stale"):
        read_by(plain, handle)

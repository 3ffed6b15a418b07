"""Attributes that both sides set, and changes that the server refuses, on real mounts.

A server that is read-only or full is a small tmpfs in its place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from awayfs.testing.faulty import Plan, Trouble
from tests.harness import Client, eventually, make_server, mounted, needs_fuse, run

pytestmark = needs_fuse
SMALL_KIB, LARGE_KIB = 512, 4096
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="wants root to mount a tmpfs, or to chown"
)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture(params=["dir", "sftp"])
def client(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Client]:
    """A mount of a file and a directory, offline, that sees at once what happens there."""
    with mounted(request.param, str(tmp_path), "fresh=0") as client:
        write(f"{client.server.root}/f", "content")
        os.mkdir(f"{client.server.root}/d")
        os.chmod(f"{client.server.root}/f", 0o644)
        client.awayfs("pin", client.mountpoint)
        client.offline()
        yield client


def come_back(client: Client) -> list[tuple[str, str]]:
    client.online()
    client.sync(check=False)
    found = sorted((c["path"], c["kind"]) for c in client.conflicts())
    client.sync(check=False)
    assert sorted((c["path"], c["kind"]) for c in client.conflicts()) == found
    return found


@pytest.mark.parametrize(("keep", "outcome"), [("local", 0o600), ("server", 0o640)])
def test_a_mode_set_on_both_sides(client: Client, keep: str, outcome: int) -> None:
    os.chmod(client.path("f"), 0o600)
    os.chmod(f"{client.server.root}/f", 0o640)
    assert come_back(client) == [("f", "attribute")]
    assert (mode(client.path("f")), mode(f"{client.server.root}/f")) == (0o600, 0o640)
    assert read(client.path("f")) == "content"
    client.awayfs("resolve", client.path("f"), "--keep", keep)
    client.sync()
    assert client.conflicts() == []
    assert mode(client.path("f")) == mode(f"{client.server.root}/f") == outcome


def test_the_same_mode_set_on_both_sides(client: Client) -> None:
    os.chmod(client.path("f"), 0o600)
    os.chmod(f"{client.server.root}/f", 0o600)
    assert come_back(client) == []


def test_a_mode_set_here_and_content_there(client: Client) -> None:
    os.chmod(client.path("f"), 0o600)
    write(f"{client.server.root}/f", "edited there")
    assert come_back(client) == []
    assert read(client.path("f")) == "edited there"
    assert mode(f"{client.server.root}/f") == mode(client.path("f")) == 0o600


@needs_root
def test_a_mode_set_here_and_an_owner_there(client: Client) -> None:
    os.chmod(client.path("f"), 0o600)
    os.chown(f"{client.server.root}/f", 7, 8)
    assert come_back(client) == []
    there = os.lstat(f"{client.server.root}/f")
    assert (stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid) == (0o600, 7, 8)
    assert os.lstat(client.path("f")).st_uid == 7


@needs_root
def test_an_owner_set_on_both_sides(client: Client) -> None:
    os.chown(client.path("d"), 5, 5)
    os.chown(f"{client.server.root}/d", 7, 7)
    assert come_back(client) == [("d", "attribute")]
    client.awayfs("resolve", client.path("d"), "--keep", "local")
    client.sync()
    assert os.lstat(f"{client.server.root}/d").st_uid == 5


def test_a_time_set_here_and_content_there(client: Client) -> None:
    """Ours told of content that is gone."""
    os.utime(client.path("f"), (1_000_000_000, 1_000_000_000))
    write(f"{client.server.root}/f", "edited there")
    assert come_back(client) == []
    assert os.lstat(f"{client.server.root}/f").st_mtime > 1_500_000_000
    assert read(client.path("f")) == "edited there"


@pytest.mark.parametrize(("keep", "outcome"), [("local", b"here"), ("server", b"there")])
def test_an_extended_attribute_set_on_both_sides(
    tmp_path: object, keep: str, outcome: bytes
) -> None:
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        there, here = f"{client.server.root}/f", client.path("f")
        write(there, "content")
        os.setxattr(there, "user.same", b"base")
        os.setxattr(there, "user.theirs", b"base")
        assert os.getxattr(here, "user.same") == b"base"
        client.offline()
        os.setxattr(here, "user.same", b"first")
        os.setxattr(here, "user.same", b"here")
        os.setxattr(here, "user.ours", b"here")
        os.setxattr(there, "user.same", b"there")
        os.setxattr(there, "user.theirs", b"there")
        assert come_back(client) == [("f", "attribute")]
        assert os.getxattr(there, "user.same") == b"there"
        client.awayfs("resolve", here, "--keep", keep)
        client.sync()
        assert client.conflicts() == []
        for path in (there, here):
            assert os.getxattr(path, "user.same") == outcome
            assert os.getxattr(path, "user.theirs") == b"there"
            if keep == "local":
                assert os.getxattr(path, "user.ours") == b"here"


def test_an_extended_attribute_set_again_and_again_is_no_conflict(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        write(client.path("f"), "content")
        client.sync()
        for number in range(5):
            os.setxattr(client.path("f"), "user.x", b"%d" % number)
            if number % 2:
                client.sync()
        client.sync()
        assert client.conflicts() == []
        assert os.getxattr(f"{client.server.root}/f", "user.x") == b"4"


# --- refused ---------------------------------------------------------------------------------


@pytest.fixture(params=["dir", "sftp"])
def small(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Client]:
    """A mount of a server whose file system is a tmpfs of its own."""
    server = make_server(request.param, str(tmp_path))
    run("mount", "-t", "tmpfs", "-o", f"size={SMALL_KIB}k", "awayfs-test", server.root)
    client = Client(str(tmp_path), server)
    try:
        client.mount("fresh=0")
        yield client
    finally:
        client.close()
        server.close()
        run("umount", "-l", server.root)


def remount(client: Client, options: str) -> None:
    run("mount", "-o", f"remount,{options}", client.server.root)


@needs_root
def test_a_server_that_is_full_pauses_uploads(small: Client) -> None:
    content = "x" * (2 * SMALL_KIB * 1024)
    small.offline()
    write(small.path("large"), content)
    small.online()
    eventually(lambda: "the server is full" in small.log, "the pause")
    os.mkdir(small.path("d"))
    assert small.conflicts() == []
    assert small.status()["pending"]["records"] > 0
    assert read(small.path("large")) == content
    assert os.listdir(small.server.root) in ([], ["d"]), "a part of it was left there"
    said = small.fails("sync", "--wait", small.mountpoint, timeout=30)
    assert "the server is full: " in said and "wait for room there" in said
    remount(small, f"size={LARGE_KIB}k")
    small.sync()  # which asks at once, and not only after the pause
    assert read(f"{small.server.root}/large") == content
    assert small.conflicts() == []


@needs_root
def test_a_server_that_became_read_only_refuses(small: Client) -> None:
    write(small.path("before"), "sent")
    small.sync()
    remount(small, "ro")
    write(small.path("after"), "made here")
    write(small.path("before"), "edited here")
    small.sync(check=False)
    assert sorted((c["path"], c["kind"]) for c in small.conflicts()) == [
        ("after", "refused"),
        ("before", "refused"),
    ]
    assert "read" in small.awayfs("why", small.path("after")).lower()
    assert read(small.path("before")) == "edited here"
    assert read(f"{small.server.root}/before") == "sent"
    remount(small, "rw")
    small.awayfs("resolve", small.path("after"), "--keep", "local")
    small.awayfs("resolve", small.path("before"), "--keep", "server")
    small.sync()
    assert small.conflicts() == []
    assert read(f"{small.server.root}/after") == "made here"
    assert read(small.path("before")) == "sent"


@pytest.mark.parametrize("kind", ["dir", "sftp"])
@pytest.mark.parametrize("error", ["EFBIG", "EINVAL", "ENAMETOOLONG", "EPERM"])
def test_what_the_server_cannot_hold(tmp_path: object, kind: str, error: str) -> None:
    """Too large, or a name it does not take: parked with its data, the rest goes on."""
    server = make_server(kind, str(tmp_path))
    plan = Plan(f"{tmp_path}/trouble")
    client = Client(str(tmp_path), server, environment=plan.environment)
    try:
        client.mount()
        plan.add(Trouble("no", ("replace",), "unfit", error))
        write(client.path("unfit"), "stays here")
        write(client.path("fit"), "goes out")
        client.sync(check=False)
        assert [(c["path"], c["kind"]) for c in client.conflicts()] == [("unfit", "refused")]
        assert os.listdir(server.root) == ["fit"], "nothing staged is left there"
        assert read(client.path("unfit")) == "stays here"
        client.awayfs("resolve", client.path("unfit"), "--keep", "server")
        assert not os.path.exists(client.path("unfit"))
        assert client.conflicts() == []
    finally:
        client.close()
        server.close()

"""Who may do what, connected and not: daemons and programs of several users, on real mounts.

The server side is root's: it gives and withdraws. The client is somebody without rights of root's,
whose mount root itself cannot look into, so programs run as that user.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import pytest

from awayfs import errors
from tests.harness import Client, DirServer, Server, make_server, run
from tests.users import GID, UID, User, namespace, needs_users, python_for

pytestmark = needs_users

OTHER_GROUP = 61003

_DO = """
import os, sys
what, path, *more = sys.argv[1:]
try:
    if what == "read":
        print(open(path).read(), end="")
    elif what == "write":
        with open(path, "w") as file: file.write(more[0])
    elif what == "append":
        with open(path, "a") as file: file.write(more[0])
    elif what == "fill":
        with open(path, "w") as file: file.write("x" * int(more[0]))
    elif what == "list":
        print(" ".join(sorted(os.listdir(path))), end="")
    elif what == "truncate":
        os.truncate(path, 0)
    elif what == "mkdir":
        os.mkdir(path)
    elif what == "unlink":
        os.unlink(path)
    elif what == "chmod":
        os.chmod(path, int(more[0], 8))
    elif what == "allowed":
        print("".join(name for name, bit in zip("rwx", (4, 2, 1)) if os.access(path, bit)), end="")
except OSError as error:
    print(error.errno, file=sys.stderr)
    sys.exit(99)
"""


def do(user: User, what: str, path: str, *more: str) -> str:
    """Do something as a user; what was said. Raises the OSError that was met."""
    done = subprocess.run(
        [*user.prefix, "/usr/bin/python3", "-I", "-S", "-c", _DO, what, path, *more],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.returncode == 99:
        code = int(done.stderr)
        raise OSError(code, errors.strerror(code))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(user: User, what: str, path: str, *more: str) -> int:
    """The errno that it ends in."""
    with pytest.raises(OSError) as caught:
        do(user, what, path, *more)
    return caught.value.errno or 0


def write(path: str, text: str, mode: int = 0o644, uid: int = UID, gid: int = GID) -> None:
    with open(path, "w") as file:
        file.write(text)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


ACL = "system.posix_acl_access"


def deny(path: str, uid: int, allowed: int = 0) -> None:
    """Like ``setfacl -m u:UID:---``, with everything for all others (acl(5), version 2)."""
    undefined = 0xFFFFFFFF
    entries = [(1, 7, undefined), (2, allowed, uid), (4, 7, undefined), (16, 7, undefined)]
    entries.append((32, 7, undefined))
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, ACL, packed)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


@pytest.fixture
def base() -> Iterator[str]:
    """A directory that every user can reach."""
    path = tempfile.mkdtemp(prefix="awayfs-permissions-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def user(base: str) -> Iterator[User]:
    with namespace(base) as path:
        yield User(path)


def client_of(user: User, base: str, server: Server) -> Client:
    client = Client(base, server)
    for path in (client.home, client.mountpoint, client.state, client.runtime):
        os.chown(path, user.uid, user.gid)
    python, client.environment = python_for(user)
    client.command = (*user.prefix, python, "-m", "awayfs")
    return client


@pytest.fixture
def client(base: str, user: User) -> Iterator[Client]:
    """A user's mount of a directory that is the user's on the server."""
    server = DirServer(base)
    os.chown(server.root, UID, GID)
    client = client_of(user, base, server)
    try:
        client.mount("fresh=0,errno=distinct")
        yield client
    finally:
        client.close()


def parked(client: Client) -> list[tuple[str, str]]:
    return sorted((c["path"], c["kind"]) for c in client.conflicts())


# -- a grant is withdrawn, and given again -------------------------------------------------------


def test_a_file_that_may_not_be_written_any_more(client: Client, user: User) -> None:
    there = f"{client.server.root}/d"
    os.mkdir(there)
    os.chown(there, UID, GID)
    write(f"{there}/f", "base")
    assert do(user, "list", client.path("d")) == "f"
    assert do(user, "read", client.path("d/f")) == "base"
    client.offline()
    do(user, "write", client.path("d/f"), "edited here")
    do(user, "write", client.path("d/new"), "made here")
    do(user, "write", client.path("free"), "not concerned")
    os.chown(there, 0, 0)
    os.chmod(there, 0o755)
    client.online()
    client.sync(check=False)
    assert parked(client) == [("d/f", "refused"), ("d/new", "refused")]
    assert read(f"{client.server.root}/free") == "not concerned"
    assert (read(f"{there}/f"), os.listdir(there)) == ("base", ["f"])
    assert do(user, "read", client.path("d/f")) == "edited here"
    assert do(user, "read", client.path("d/new")) == "made here"
    assert "refused" in client.awayfs("why", client.path("d/f"))
    assert refused(user, "mkdir", client.path("d/more")) == errno.EACCES, (
        "the withdrawal is honoured"
    )
    client.sync(check=False)
    assert parked(client) == [("d/f", "refused"), ("d/new", "refused")]
    os.chown(there, UID, GID)
    client.sync()
    assert parked(client) == []
    assert (read(f"{there}/f"), read(f"{there}/new")) == ("edited here", "made here")


def test_what_is_refused_survives_the_daemon(client: Client, user: User) -> None:
    write(f"{client.server.root}/f", "base")
    assert do(user, "read", client.path("f")) == "base"
    client.offline()
    do(user, "write", client.path("f"), "edited here")
    os.chown(client.server.root, 0, 0)
    client.online()
    client.sync(check=False)
    assert parked(client) == [("f", "refused")]
    client.kill()
    client.umount()
    client.mount("fresh=0,errno=distinct")
    assert parked(client) == [("f", "refused")]
    assert do(user, "read", client.path("f")) == "edited here"
    os.chown(client.server.root, UID, GID)
    client.sync()
    assert read(f"{client.server.root}/f") == "edited here"


def test_a_file_that_may_not_be_read_any_more(client: Client, user: User) -> None:
    """What was read while it was allowed is closed on reconnection, and stays so offline."""
    write(f"{client.server.root}/f", "secret")
    assert do(user, "read", client.path("f")) == "secret"
    client.offline()
    assert do(user, "read", client.path("f")) == "secret"
    os.chown(f"{client.server.root}/f", 0, 0)
    os.chmod(f"{client.server.root}/f", 0o600)
    client.online()
    assert refused(user, "read", client.path("f")) == errno.EACCES
    client.offline()
    assert refused(user, "read", client.path("f")) == errno.EACCES


def test_a_directory_that_may_not_be_entered_any_more(client: Client, user: User) -> None:
    there = f"{client.server.root}/d"
    os.mkdir(there)
    write(f"{there}/f", "content")
    assert do(user, "read", client.path("d/f")) == "content"
    os.chmod(there, 0o700)
    assert refused(user, "read", client.path("d/f")) == errno.EACCES
    client.offline()
    assert refused(user, "read", client.path("d/f")) == errno.EACCES
    assert refused(user, "list", client.path("d")) == errno.EACCES


# -- unknown while offline -----------------------------------------------------------------------


def test_what_was_refused_and_cannot_be_asked_now(client: Client, user: User) -> None:
    """Its mode would let the user in, yet the server does not (it has an ACL for that).

    Offline, whether it would now is not known. That is so after the daemon's end as well.
    """
    for name in ("f", "never"):
        write(f"{client.server.root}/{name}", "content", uid=0, gid=0)
    deny(f"{client.server.root}/f", UID)
    assert do(user, "list", client.mountpoint) == "f never"
    assert refused(user, "read", client.path("f")) == errno.EACCES
    client.offline()
    assert refused(user, "read", client.path("f")) == errors.EDISCONPERM
    assert refused(user, "read", client.path("never")) == errors.EDISCONDATA
    assert "EDISCONPERM" in client.awayfs("why", client.path("f"))
    client.umount()
    client.mount("fresh=0,errno=distinct")
    assert refused(user, "read", client.path("f")) == errors.EDISCONPERM
    client.online()
    os.removexattr(f"{client.server.root}/f", ACL)
    assert do(user, "read", client.path("f")) == "content"
    client.offline()
    assert do(user, "read", client.path("f")) == "content"


def test_what_may_be_read_and_not_written(client: Client, user: User) -> None:
    """The mode says that the user may write; the server was asked, and says no."""
    there = f"{client.server.root}/f"
    write(there, "content", uid=0, gid=0)
    deny(there, UID, allowed=4)
    assert do(user, "read", client.path("f")) == "content"
    assert refused(user, "append", client.path("f"), "x") == errno.EACCES
    assert refused(user, "truncate", client.path("f")) == errno.EACCES
    client.offline()
    assert do(user, "read", client.path("f")) == "content"
    assert refused(user, "append", client.path("f"), "x") == errors.EDISCONPERM
    client.umount()
    client.mount("fresh=0,errno=distinct")
    assert refused(user, "append", client.path("f"), "x") == errors.EDISCONPERM
    assert "EDISCONPERM" in client.awayfs("why", client.path("f"))
    client.online()
    deny(there, UID, allowed=6)
    do(user, "append", client.path("f"), ", and more")
    client.sync()
    assert read(there) == "content, and more"


def test_what_was_read_and_may_not_be_any_more(client: Client, user: User) -> None:
    there = f"{client.server.root}/f"
    write(there, "content", uid=0, gid=0, mode=0o666)
    assert do(user, "read", client.path("f")) == "content"
    deny(there, UID)
    assert refused(user, "read", client.path("f")) == errno.EACCES
    client.offline()
    assert refused(user, "read", client.path("f")) == errors.EDISCONPERM
    client.online()
    os.removexattr(there, ACL)
    assert do(user, "read", client.path("f")) == "content"


def test_a_change_of_mode_made_here_is_not_held_against_the_user(
    client: Client, user: User
) -> None:
    """The server would not let the owner write either, before it has the new mode."""
    write(f"{client.server.root}/f", "content", mode=0o444)
    assert do(user, "read", client.path("f")) == "content"
    assert refused(user, "append", client.path("f"), "x") == errno.EACCES
    client.offline()
    do(user, "chmod", client.path("f"), "644")
    do(user, "append", client.path("f"), ", and more")
    client.online()
    client.sync()
    assert read(f"{client.server.root}/f") == "content, and more"


# -- several users, groups -----------------------------------------------------------------------


def test_supplementary_groups(client: Client, user: User) -> None:
    write(f"{client.server.root}/f", "the group's", mode=0o640, uid=0, gid=OTHER_GROUP)
    assert refused(user, "read", client.path("f")) == errno.EACCES
    client.umount()
    member = replace(user, groups=(OTHER_GROUP,))
    client.command = (*member.prefix, *client.command[len(user.prefix) :])
    client.mount("fresh=0")
    for _ in range(2):
        assert do(member, "read", client.path("f")) == "the group's"
        assert refused(member, "append", client.path("f"), "x") == errno.EACCES
        client.offline()


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_with_allow_other_the_modes_decide_for_each_user(base: str, kind: str) -> None:
    """Root's mount for everybody: what is cached for one is not open to another."""
    server = make_server(kind, base)
    client = Client(base, server)
    os.chmod(client.home, 0o755)
    os.chmod(client.mountpoint, 0o755)
    os.chmod(server.root, 0o755)
    try:
        client.mount("allow_other")
        write(f"{server.root}/mine", "secret", mode=0o600)
        write(f"{server.root}/group", "ours", mode=0o640, uid=0, gid=OTHER_GROUP)
        write(f"{server.root}/all", "public", mode=0o644)
        user = User("/proc/self/ns/mnt")
        stranger = replace(user, uid=61009, gid=61009)
        member = replace(stranger, groups=(OTHER_GROUP,))
        for _ in range(2):
            assert do(user, "read", client.path("mine")) == "secret"
            assert refused(stranger, "read", client.path("mine")) == errno.EACCES
            assert refused(stranger, "read", client.path("group")) == errno.EACCES
            assert do(member, "read", client.path("group")) == "ours"
            assert do(stranger, "read", client.path("all")) == "public"
            assert do(stranger, "allowed", client.path("mine")) == ""
            assert do(user, "allowed", client.path("mine")) == "rw"
            assert refused(stranger, "append", client.path("all"), "x") == errno.EACCES
            assert refused(stranger, "write", client.path("new"), "x") == errno.EACCES
            client.offline()
        do(user, "append", client.path("mine"), " more")
        client.online()
        client.sync()
        assert read(f"{server.root}/mine") == "secret more"
    finally:
        client.close()
        server.close()


# -- the modes lie -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dir", "sftp"])
def test_root_is_not_root_there(base: str, kind: str) -> None:
    """As with root_squash: modes say that root may, the server says no. Nothing is lost.

    The stand-in is a directory that not even root may change (chattr +i).
    """
    server = make_server(kind, base)
    there = f"{server.root}/d"
    os.mkdir(there)
    write(f"{there}/f", "base", uid=0, gid=0)
    client = Client(base, server)
    try:
        run("chattr", "+i", there, check=False)
        if "i" not in run("lsattr", "-d", there, check=False).partition(" ")[0]:
            pytest.skip("no immutable files here")
        client.mount("fresh=0")
        with open(client.path("d/f"), "w") as file:
            file.write("edited here")
        os.mkdir(client.path("free"))
        client.sync(check=False)
        assert parked(client) == [("d/f", "refused")]
        assert os.path.isdir(f"{server.root}/free")
        client.offline()
        with open(client.path("d/f"), "a") as file:
            file.write(" and again")
        assert read(client.path("d/f")) == "edited here and again"
        client.online()
        run("chattr", "-i", there)
        client.sync()
        assert read(f"{there}/f") == "edited here and again"
    finally:
        run("chattr", "-i", there, check=False)
        client.close()
        server.close()


def test_a_file_that_not_even_root_may_write(base: str) -> None:
    server = DirServer(base)
    there = f"{server.root}/f"
    write(there, "base", uid=0, gid=0)
    client = Client(base, server)
    try:
        run("chattr", "+i", there, check=False)
        if "i" not in run("lsattr", there, check=False).partition(" ")[0]:
            pytest.skip("no immutable files here")
        client.mount("fresh=0")
        assert read(client.path("f")) == "base"
        with pytest.raises(PermissionError):
            os.open(client.path("f"), os.O_WRONLY)
        client.offline()
        with pytest.raises(PermissionError):
            os.open(client.path("f"), os.O_WRONLY | os.O_APPEND)
        client.online()
        run("chattr", "-i", there)
        with open(client.path("f"), "a") as file:
            file.write(", and more")
        client.sync()
        assert read(there) == "base, and more"
    finally:
        run("chattr", "-i", there, check=False)
        client.close()


# -- each error has a number of its own ----------------------------------------------------------


def test_the_five_errors_with_errno_distinct(client: Client, user: User) -> None:
    client.umount()
    client.mount("fresh=0,errno=distinct,cache-size=1M,conflicted=error")
    root = client.server.root
    for name in ("f", "never", "forbidden"):
        write(f"{root}/{name}", "base", mode=0o644)
    os.mkdir(f"{root}/d")
    write(f"{root}/forbidden", "content", uid=0, gid=0)
    deny(f"{root}/forbidden", UID)
    assert do(user, "list", client.mountpoint) == "d f forbidden never"
    assert do(user, "read", client.path("f")) == "base"
    assert refused(user, "read", client.path("forbidden")) == errno.EACCES
    client.offline()
    do(user, "write", client.path("f"), "edited here")
    write(f"{root}/f", "edited there")
    assert refused(user, "read", client.path("d/unknown")) == errors.EDISCONNECTED
    assert refused(user, "read", client.path("never")) == errors.EDISCONDATA
    assert refused(user, "read", client.path("forbidden")) == errors.EDISCONPERM
    assert refused(user, "fill", client.path("large"), "2000000") == errors.EDISCONFULL
    client.online()
    client.sync(check=False)
    assert refused(user, "read", client.path("f")) == errors.ECONFLICTED

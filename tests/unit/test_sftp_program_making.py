"""Directories that the program on the server makes (``server_operations.Make``)."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.test_sftp_program import run
from tests.unit.test_sftp_remote import Url

from awayfs.core.errors import NotFound, Unreachable
from awayfs.core.types import ABSENT, Attributes, Committed, Kind, Mismatch
from awayfs.remotes.names import fence_name

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from by_program import WithProgram, acting
from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

SECOND_NS = 1_000_000_000
OLD_NS = 1_500_000_000 * SECOND_NS
WANTED = Attributes(mode=0o750, mtime_ns=OLD_NS, atime_ns=OLD_NS + 5 * SECOND_NS)

SOMEBODY = 61001
AS_SOMEBODY = f"""pass
import ctypes
ctypes.CDLL(None).setfsgid({SOMEBODY})
ctypes.CDLL(None).setfsuid({SOMEBODY})"""
"""The program has no more rights in the file system than a user then."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd"))) as running:
        yield running


def asked(remote: WithProgram) -> int:
    """How many requests the program has had."""
    return remote.program._next - 1


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o777, 0o500, 0o2770, 0o1777])
def test_it_gets_its_attributes_and_looks_as_sftp_shows_it(
    server: Sshd, tmp_path: Path, mode: int
) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        before = asked(remote)
        wanted = Attributes(mode=mode, mtime_ns=OLD_NS, atime_ns=OLD_NS + 5 * SECOND_NS)
        made = await remote.make("a", b"d", Kind.DIRECTORY, wanted)
        assert asked(remote) == before + 1
        assert made == Committed(await remote.stat(b"d"))
        found = os.stat(root + b"/d")
        assert stat.S_IMODE(found.st_mode) == mode
        assert (found.st_mtime, found.st_atime) == (1_500_000_000, 1_500_000_005)
        within = await remote.make("b", b"d/e", Kind.DIRECTORY, WANTED)
        assert within == Committed(await remote.stat(b"d/e"))

    run(server, tmp_path, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_it_belongs_to_whom_it_is_given(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        wanted = Attributes(mode=0o2750, uid=1234, gid=2345, mtime_ns=OLD_NS)
        made = await remote.make("a", b"d", Kind.DIRECTORY, wanted)
        assert made == Committed(await remote.stat(b"d"))
        found = os.stat(root + b"/d")
        assert (found.st_uid, found.st_gid) == (1234, 2345)
        assert stat.S_IMODE(found.st_mode) == 0o2750

    run(server, tmp_path, body)


@pytest.mark.parametrize("kind", ["directory", "file", "symlink", "dangling"])
def test_what_stands_there_is_left_as_it_is(server: Sshd, tmp_path: Path, kind: str) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        (tmp_path / "outside").mkdir()
        if kind == "directory":
            os.mkdir(root + b"/d", 0o711)
        elif kind == "file":
            Path(os.fsdecode(root), "d").write_bytes(b"theirs")
        else:
            target = tmp_path / ("outside" if kind == "symlink" else "nothing")
            os.symlink(target, root + b"/d")
        before = os.lstat(root + b"/d")
        made = await remote.make("a", b"d", Kind.DIRECTORY, WANTED)
        assert made == Mismatch(await remote.stat(b"d"))
        after = os.lstat(root + b"/d")
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
        assert not os.path.exists(tmp_path / "nothing")

    run(server, tmp_path, body)


def test_nothing_is_made_behind_a_symlink_or_in_what_is_gone(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        os.symlink(outside, root + b"/l")
        for path in (b"l/d", b"gone/d"):
            with pytest.raises(NotFound):
                await remote.make("a", path, Kind.DIRECTORY, WANTED)
        assert not list(outside.iterdir())

    run(server, tmp_path, body)


def test_symlinks_and_what_needs_a_umask_go_by_sftp(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        before = asked(remote)
        link = await remote.make("a", b"l", Kind.SYMLINK, Attributes(), b"target")
        made = await remote.make("b", b"d", Kind.DIRECTORY, Attributes())
        assert isinstance(link, Committed) and isinstance(made, Committed)
        assert asked(remote) == before
        assert os.readlink(root + b"/l") == b"target" and os.path.isdir(root + b"/d")

    run(server, tmp_path, body)


def test_one_that_is_made_when_it_dies_is_found_by_the_next_look(
    server: Sshd, tmp_path: Path
) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        with pytest.raises(Unreachable):
            await remote.make("a", b"d", Kind.DIRECTORY, WANTED)
        assert (await remote.stat(b"d")).kind is Kind.DIRECTORY
        again = await remote.make("a", b"d", Kind.DIRECTORY, WANTED)  # by SFTP
        assert again == Mismatch(await remote.stat(b"d"))

    run(server, tmp_path, body, acting("made", "os.kill(os.getpid(), 9)"))


def test_one_that_cannot_be_dressed_is_told_of_all_the_same(server: Sshd, tmp_path: Path) -> None:
    """As over SFTP: it stands, with the attributes that it has."""
    refused = "def no(*_given, **_more): raise PermissionError(1, 'no')\n"
    hook = acting("made", f"exec({refused!r}, globals()); os.fchmod = os.utime = no")

    async def body(remote: WithProgram, root: bytes) -> None:
        made = await remote.make("a", b"d", Kind.DIRECTORY, WANTED)
        assert made == Committed(await remote.stat(b"d"))

    run(server, tmp_path, body, hook)


def test_none_is_made_once_a_later_session_is_there(server: Sshd, tmp_path: Path) -> None:
    held = tmp_path / "held"
    wait = f"open({str(held)!r}, 'w').close(); time.sleep(1.0)"

    async def body(remote: WithProgram, root: bytes) -> None:
        putting = asyncio.ensure_future(remote.put("p", b"f", b"x", Attributes(mode=0o600), ABSENT))
        while not held.exists():
            await asyncio.sleep(0.01)
        making = asyncio.ensure_future(remote.make("a", b"d", Kind.DIRECTORY, WANTED))
        await asyncio.sleep(0.1)
        os.unlink(root + b"/" + fence_name(""))
        outcomes = await asyncio.gather(putting, making, return_exceptions=True)
        assert [type(one) for one in outcomes] == [Unreachable, Unreachable]
        assert not os.path.exists(root + b"/d")

    run(server, tmp_path, body, acting("created", wait))


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that any user may search, and whose owner is none that may do anything."""
    base = tempfile.mkdtemp(dir="/tmp")
    if os.geteuid() == 0:
        os.chown(base, SOMEBODY, SOMEBODY)
    os.chmod(base, 0o755)
    try:
        yield Path(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o2750, 0o300, 0])
def test_a_directory_may_be_made_that_cannot_be_read(server: Sshd, root: Path, mode: int) -> None:
    async def play() -> None:
        url = Url(os.fsencode(root), user=server.user, port=server.port)
        remote = WithProgram(url, server.options)
        remote.hook = AS_SOMEBODY if os.geteuid() == 0 else ""
        try:
            await remote.connect()
            wanted, before = Attributes(mode=mode, mtime_ns=OLD_NS), asked(remote)
            made = await remote.make("a", b"d", Kind.DIRECTORY, wanted)
            assert asked(remote) == before + 1
            assert isinstance(made, Committed)
            assert made.entry == await remote.stat(b"d")
            found = os.stat(root / "d")
            assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (mode, OLD_NS)
            again = await remote.make("b", b"d", Kind.DIRECTORY, wanted)
            assert again == Mismatch(made.entry)
        finally:
            await remote.close()

    asyncio.run(play())

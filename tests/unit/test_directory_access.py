"""``dir:`` where not everything is allowed, and where file systems differ."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from awayfs.core.errors import Refused, Unreachable
from awayfs.core.types import ABSENT, Attributes, Kind
from awayfs.remotes import directory_facts, directory_probe, directory_tree, linux
from awayfs.remotes.directory import DirectoryRemote
from awayfs.remotes.isolated import IsolatedRemote
from awayfs.remotes.spawning import COMMAND

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")


def as_nobody() -> tuple[str, ...]:
    """The worker, with no rights of root's."""
    ids = ("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    return ("setpriv", *ids, *COMMAND)


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """A directory that nobody may enter, in one that everybody may."""
    root = tmp_path / "share"
    root.mkdir()
    above = tmp_path
    while above != above.parent:
        with contextlib.suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o055)
        above = above.parent
    yield root
    root.chmod(0o700)


@root_only
def test_permission_denied(share: Path) -> None:
    (share / "file").write_text("theirs")
    (share / "private").mkdir(mode=0o700)
    (share / "write only").mkdir(mode=0o733)
    (share / "write only").chmod(0o733)
    (share / "private file").write_text("secret")
    (share / "private file").chmod(0o600)
    share.chmod(0o755)

    async def body() -> None:
        remote = IsolatedRemote(f"dir:{share}", {}, command=as_nobody())
        connected = await remote.connect()
        assert connected.own_uid == NOBODY
        assert not connected.capabilities.owner
        assert not connected.capabilities.read_only
        listed = {entry.name for entry in await remote.list(b"")}
        assert listed == {b"file", b"private", b"private file", b"write only"}
        fd = os.memfd_create("x")
        expected = ABSENT
        for call in (
            remote.list(b"private"),
            remote.list(b"write only"),
            remote.stat(b"private/x"),
            remote.fetch(b"private file", 0, 1, fd),
            remote.stage("op1", b"", fd, 0, Attributes()),
            remote.make("op2", b"new", Kind.DIRECTORY, Attributes()),
        ):
            with pytest.raises(Refused) as refused:
                await call
            assert refused.value.errno == errno.EACCES
        # What may be written but not listed still takes files.
        await remote.stage("op3", b"write only", fd, 0, Attributes(mode=0o600))
        await remote.replace("op3", b"write only/new", expected)
        assert (share / "write only" / "new").stat().st_uid == NOBODY
        file = await remote.stat(b"file")
        from awayfs.core.types import Expected

        with pytest.raises(Refused):
            await remote.remove("op4", b"file", Expected(file.token, file.file_id))
        with pytest.raises(Refused) as refused:
            await remote.set_attributes(b"file", Attributes(mode=0o777), Expected(file.token))
        assert refused.value.errno == errno.EPERM
        await remote.close()

    asyncio.run(body())
    assert (share / "file").read_text() == "theirs"


@contextlib.contextmanager
def mounted(target: Path, *arguments: str) -> Iterator[None]:
    """Something mounted for a while; skips the test where mounting is not allowed."""
    done = subprocess.run(["mount", *arguments, str(target)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.decode())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@root_only
def test_read_only_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", "ro", "none"):

        async def body() -> None:
            remote = DirectoryRemote(os.fsencode(tmp_path))
            connected = await remote.connect()
            assert connected.capabilities.read_only
            with pytest.raises(Refused) as refused:
                await remote.make("op1", b"new", Kind.DIRECTORY, Attributes())
            assert refused.value.errno == errno.EROFS

        asyncio.run(body())


@root_only
def test_an_unmounted_volume_is_not_an_empty_one(tmp_path: Path) -> None:
    async def body() -> None:
        remote = DirectoryRemote(os.fsencode(tmp_path))
        with mounted(tmp_path, "-t", "tmpfs", "none"):
            (tmp_path / "file").write_text("here")
            await remote.connect()
            assert len(await remote.list(b"")) == 1
        for call in (remote.list(b""), remote.stat(b"file"), remote.probe(), remote.connect()):
            with pytest.raises(Exception, match="another directory"):
                await call

    asyncio.run(body())


@root_only
def test_what_is_mounted_inside_does_not_share_ids(tmp_path: Path) -> None:
    """Root directories of two tmpfs have the same inode number."""

    async def body() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        remote = DirectoryRemote(os.fsencode(tmp_path))
        await remote.connect()
        with (
            mounted(tmp_path / "a", "-t", "tmpfs", "none"),
            mounted(tmp_path / "b", "-t", "tmpfs", "none"),
        ):
            ids = [entry.file_id for entry in await remote.list(b"")]
            assert len(set(ids)) == 2 or ids == [None, None]

    asyncio.run(body())


def test_probing_by_trying_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_facts, "WELL_KNOWN", frozenset())

    async def body() -> None:
        remote = DirectoryRemote(os.fsencode(tmp_path))
        able = (await remote.connect()).capabilities
        assert able.exchange
        assert able.hard_links
        assert able.symlinks
        assert able.special_files
        assert able.mode
        assert able.case_sensitive
        assert not able.read_only
        assert list(tmp_path.iterdir()) == []

    asyncio.run(body())


def test_an_unknown_file_system_keeps_tokens_weak_by_its_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server two minutes behind: what it stamps now is young all the same."""
    monkeypatch.setattr(directory_facts, "WELL_KNOWN", frozenset())
    real = directory_facts.time.time_ns
    monkeypatch.setattr(directory_facts.time, "time_ns", lambda: real() + 120 * 10**9)

    async def body() -> None:
        remote = DirectoryRemote(os.fsencode(tmp_path))
        await remote.connect()
        (tmp_path / "file").write_text("x")
        assert (await remote.stat(b"file")).weak
        await asyncio.sleep(0.5)
        assert not (await remote.stat(b"file")).weak

    asyncio.run(body())


@pytest.mark.parametrize("code", sorted(directory_tree.NO_ANSWER))
def test_errors_of_a_mount_without_a_server_are_unreachable(code: int) -> None:
    assert isinstance(directory_tree.translate(OSError(code, "")), Unreachable)


def test_a_file_as_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def body() -> None:
        with pytest.raises(Refused) as refused:
            await DirectoryRemote(os.fsencode(tmp_path / "file")).connect()
        assert refused.value.errno == errno.ENOTDIR
        with pytest.raises(Unreachable):
            await DirectoryRemote(os.fsencode(tmp_path / "gone")).connect()

    asyncio.run(body())


def test_calls_before_connect_are_unreachable(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(Unreachable):
            await DirectoryRemote(os.fsencode(tmp_path)).stat(b"x")

    asyncio.run(body())


def test_the_probe_does_not_write_to_well_known_file_systems(tmp_path: Path) -> None:
    before = tmp_path.stat()

    async def body() -> None:
        await DirectoryRemote(os.fsencode(tmp_path)).connect()

    asyncio.run(body())
    after = tmp_path.stat()
    if directory_probe.is_well_known(0xEF53, _statx_of(tmp_path)):
        assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def _statx_of(path: Path):  # type: ignore[no-untyped-def]
    from awayfs.remotes import linux

    fd = os.open(path, os.O_PATH)
    try:
        return linux.statx(fd, fresh=False)
    finally:
        os.close(fd)


def test_a_full_cache_disk_is_not_the_servers_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)

    async def body() -> None:
        remote = DirectoryRemote(os.fsencode(tmp_path))
        await remote.connect()
        fd = os.open("/dev/full", os.O_RDWR)
        try:
            with pytest.raises(OSError):
                await remote.fetch(b"file", 0, 100_000, fd)
        finally:
            os.close(fd)

    asyncio.run(body())


@root_only
def test_a_single_look_tells_what_the_account_may_do(share: Path) -> None:
    """Listings do not: each name would have to be asked for."""
    for name, mode in (("all", 0o666), ("read", 0o644), ("none", 0o600)):
        (share / name).write_text("content")
        (share / name).chmod(mode)
    (share / "link").symlink_to("all")
    share.chmod(0o755)

    async def body() -> None:
        remote = IsolatedRemote(f"dir:{share}", {}, command=as_nobody())
        await remote.connect()
        names = (b"all", b"read", b"none", b"link", b"")
        found = {name: (await remote.stat(name)).access for name in names}
        assert found == {b"all": 6, b"read": 4, b"none": 0, b"link": None, b"": 5}
        assert {entry.access for entry in await remote.list(b"")} == {None}
        await remote.close()

    asyncio.run(body())


@root_only
def test_what_cannot_be_asked_is_not_known(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox that answers EPERM to system calls that it does not know."""
    (share / "f").write_text("content")
    monkeypatch.setattr(linux, "SYS_FACCESSAT2", 100_000)
    fd = os.open(share / "f", os.O_PATH)
    try:
        assert linux.access(fd) is None
    finally:
        os.close(fd)

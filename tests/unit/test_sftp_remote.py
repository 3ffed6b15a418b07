"""The SFTP adapter against a real OpenSSH server: connecting, looking, moving content."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pytest

from awayfs.core.errors import (
    AuthenticationRequired,
    Implausible,
    NotFound,
    Refused,
    Unreachable,
    WrongServer,
)
from awayfs.core.types import ABSENT, Attributes, Committed, Expected, Kind, Mismatch
from awayfs.ports.remote import Guard
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp import SftpRemote

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sshd import Sshd, free_port, make_key, needs_sshd, serving

pytestmark = needs_sshd


@dataclass(frozen=True)
class Url:
    """As ``opening.VolumeUrl``."""

    path: bytes
    host: str = "127.0.0.1"
    user: str | None = None
    port: int | None = None
    scheme: str = "sftp"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as running:
        yield running


@pytest.fixture
def root(tmp_path: os.PathLike[str]) -> bytes:
    path = os.fsencode(tmp_path) + b"/root"
    os.mkdir(path)
    return path


def remote_for(server: Sshd, root: bytes, **options: str) -> SftpRemote:
    url = Url(root, user=server.user, port=server.port)
    return SftpRemote(url, {**server.options, **options})


def run(server: Sshd, root: bytes, test: Callable[[SftpRemote], Awaitable[None]]) -> None:
    """Run a test with a connected remote."""

    async def whole() -> None:
        remote = remote_for(server, root)
        try:
            await remote.connect()
            await test(remote)
        finally:
            await remote.close()

    asyncio.run(whole())


def write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@contextlib.contextmanager
def file_with(content: bytes = b"") -> Iterator[int]:
    fd = os.memfd_create("content")
    try:
        os.pwrite(fd, content, 0)
        yield fd
    finally:
        os.close(fd)


def connecting(remote: SftpRemote) -> Callable[[], object]:
    async def attempt() -> object:
        try:
            return await remote.connect()
        finally:
            await remote.close()

    return lambda: asyncio.run(attempt())


# Connecting


def test_connect(server: Sshd, root: bytes) -> None:
    async def whole() -> None:
        remote = remote_for(server, root)
        try:
            found = await remote.connect()
            again = await remote.connect()
        finally:
            await remote.close()
        can = found.capabilities
        assert can.guard is Guard.ASIDE and can.hard_links and can.symlinks
        assert not (can.stable_ids or can.strong_tokens or can.xattrs or can.special_files)
        assert not can.read_only and can.largest_io >= 32768
        assert found.root.kind is Kind.DIRECTORY
        assert found.identity == again.identity and found.identity is not None
        assert found.identity.startswith(b"SHA256:") and found.identity.endswith(root)

    asyncio.run(whole())


def test_unknown_host_key(server: Sshd, root: bytes, tmp_path: os.PathLike[str]) -> None:
    empty = os.path.join(tmp_path, "known")
    write(os.fsencode(empty), b"")
    with pytest.raises(WrongServer, match=r"not in known_hosts.*SHA256:.*ssh -p") as error:
        connecting(remote_for(server, root, known_hosts=empty))()
    assert "\n" not in str(error.value) and str(server.port) in str(error.value)


def test_no_known_hosts_file_at_all(server: Sshd, root: bytes) -> None:
    with pytest.raises(WrongServer):
        connecting(remote_for(server, root, known_hosts="/does/not/exist"))()


def test_config_cannot_switch_verification_off(
    server: Sshd, root: bytes, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncssh takes ``UserKnownHostsFile none`` for "accept any key"."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = os.path.join(tmp_path, "config")
    write(os.fsencode(config), b"UserKnownHostsFile none\nStrictHostKeyChecking no\n")
    options = {"identity": server.identity, "ssh_config": config}
    remote = SftpRemote(Url(root, user=server.user, port=server.port), options)
    with pytest.raises(WrongServer):
        connecting(remote)()


def test_changed_host_key(root: bytes, tmp_path: os.PathLike[str]) -> None:
    with serving(os.path.join(tmp_path, "s")) as server:
        server.new_host_key()
        server.restart()
        with pytest.raises(WrongServer, match=r"another host key.*ssh-keygen -R"):
            connecting(remote_for(server, root))()


def test_wrong_key(server: Sshd, root: bytes, tmp_path: os.PathLike[str]) -> None:
    stranger = os.path.join(tmp_path, "stranger")
    make_key(stranger)
    with pytest.raises(AuthenticationRequired, match="ssh-add"):
        connecting(remote_for(server, root, identity=stranger))()


def test_missing_key(server: Sshd, root: bytes) -> None:
    with pytest.raises(AuthenticationRequired, match="no-such-key"):
        connecting(remote_for(server, root, identity="/no-such-key"))()


def test_ssh_config(server: Sshd, root: bytes, tmp_path: os.PathLike[str]) -> None:
    config = os.path.join(tmp_path, "config")
    lines = f"""Host shortcut
        HostName 127.0.0.1
        Port {server.port}
        User {server.user}
        IdentityFile {server.identity}
        UserKnownHostsFile {server.known_hosts}
    """
    write(os.fsencode(config), lines.encode())
    connecting(SftpRemote(Url(root, host="shortcut"), {"ssh_config": config}))()


def test_host_key_alias(server: Sshd, root: bytes, tmp_path: os.PathLike[str]) -> None:
    known = os.path.join(tmp_path, "known")
    text = read(os.fsencode(server.known_hosts)).split(b" ", 1)[1]
    write(os.fsencode(known), b"nas " + text)
    connecting(remote_for(server, root, known_hosts=known, host_key_alias="nas"))()


def test_refused(server: Sshd, root: bytes) -> None:
    remote = SftpRemote(Url(root, user=server.user, port=free_port()), server.options)
    with pytest.raises(Unreachable, match="refuses"):
        connecting(remote)()


def test_unknown_name(server: Sshd, root: bytes) -> None:
    remote = SftpRemote(Url(root, host="nowhere.invalid", user="x"), server.options)
    with pytest.raises(Unreachable, match=r"nowhere\.invalid"):
        connecting(remote)()


def test_silent_port(server: Sshd, root: bytes) -> None:
    """Something accepts and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = Url(root, user=server.user, port=listener.getsockname()[1])
        remote = SftpRemote(url, {**server.options, "connect_timeout": "1"})
        started = time.monotonic()
        with pytest.raises(Unreachable):
            connecting(remote)()
        assert time.monotonic() - started < 3


def test_root_must_be_a_directory(server: Sshd, root: bytes) -> None:
    write(root + b"/f", b"")
    with pytest.raises(Unreachable, match="is it mounted"):
        connecting(remote_for(server, root + b"/missing"))()
    with pytest.raises(Refused) as error:
        connecting(remote_for(server, root + b"/f"))()
    assert error.value.errno == errno.ENOTDIR


def test_not_connected(server: Sshd, root: bytes) -> None:
    with pytest.raises(Unreachable):
        asyncio.run(remote_for(server, root).stat(b""))


def test_read_only_server(root: bytes, tmp_path: os.PathLike[str]) -> None:
    with serving(os.path.join(tmp_path, "s"), sftp_arguments="-R") as server:

        async def whole() -> None:
            remote = remote_for(server, root)
            try:
                assert (await remote.connect()).capabilities.read_only
                with file_with(b"x") as fd, pytest.raises(Refused):
                    await remote.stage("op", b"", fd, 1, Attributes())
            finally:
                await remote.close()

        asyncio.run(whole())


def test_server_without_extensions(root: bytes, tmp_path: os.PathLike[str]) -> None:
    """All the guarantees with nothing but the draft's requests."""
    denied = "hardlink,posix-rename,fsync,lsetstat,statvfs,limits,copy-data"
    with serving(os.path.join(tmp_path, "s"), sftp_arguments=f"-P {denied}") as server:

        async def whole(remote: SftpRemote) -> None:
            assert not (await remote.connect()).capabilities.hard_links
            with file_with(b"new") as fd:
                await remote.stage("op1", b"", fd, 3, Attributes(mode=0o600))
                made = await remote.replace("op1", b"a", ABSENT)
                assert isinstance(made, Committed) and made.entry is not None
                await remote.stage("op2", b"", fd, 3, Attributes(mode=0o600))
                assert isinstance(await remote.replace("op2", b"a", ABSENT), Mismatch)
                there = Expected(made.entry.token)
                assert isinstance(await remote.replace("op2", b"a", there), Committed)
            there = Expected((await remote.stat(b"a")).token)
            assert isinstance(await remote.rename("op3", b"a", b"b", there, ABSENT), Committed)
            assert isinstance(await remote.remove("op4", b"b", there), Committed)
            with pytest.raises(Refused):
                await remote.link("op5", b"x", b"y")
            assert (await remote.space()).blocks > 0
            assert os.listdir(root) == []

        run(server, root, whole)


# Looking


def test_stat_and_list(server: Sshd, root: bytes) -> None:
    names = [b"plain", b"sp ace", b"new\nline", b"\xff\xfe", b"\xc3\xa9", b"-dash", b"x" * 255]
    for name in names:
        write(root + b"/" + name, name)
    os.symlink(b"nowhere/\xff", root + b"/link")
    os.mkfifo(root + b"/fifo")
    os.mkdir(root + b"/dir")
    write(root + b"/.awayfs-abc.new", b"")
    write(root + b"/.awayfs-abc.old", b"")
    write(root + b"/.awayfs.toml", b"")

    async def test(remote: SftpRemote) -> None:
        found = {entry.name: entry for entry in await remote.list(b"")}
        assert set(found) == {*names, b"link", b"fifo", b"dir", b".awayfs.toml"}
        for name, entry in found.items():
            assert (await remote.stat(name)).token == entry.token
            real = os.lstat(root + b"/" + name)
            assert stat.S_IFMT(real.st_mode) == entry.kind
            assert stat.S_IMODE(real.st_mode) == entry.mode
            assert (real.st_uid, real.st_size) == (entry.uid, entry.size)
        assert found[b"link"].target == b"nowhere/\xff" and not found[b"link"].weak
        with pytest.raises(NotFound):
            await remote.stat(b"missing")
        with pytest.raises(NotFound):
            await remote.stat(b"plain/below")
        with pytest.raises(NotFound):
            await remote.list(b"missing")
        with pytest.raises(Refused) as error:
            await remote.stat(b"y" * 256)
        assert error.value.errno == errno.ENAMETOOLONG
        with pytest.raises(Refused):
            await remote.stat(b"nul\0nul")
        await remote.probe()

    run(server, root, test)


def test_large_listing(server: Sshd, root: bytes) -> None:
    for number in range(2500):
        write(root + b"/f%d" % number, b"")
    for number in range(100):
        os.symlink(b"t%d" % number, root + b"/l%d" % number)

    async def test(remote: SftpRemote) -> None:
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        remote.on_progress = tick
        found = await remote.list(b"")
        assert len(found) == 2600 and ticks > 20
        assert {e.name: e.target for e in found if e.target}[b"l42"] == b"t42"

    run(server, root, test)


def test_a_directory_renamed_while_it_is_listed_loses_no_symlink(server: Sshd, root: bytes) -> None:
    """Targets are read by path, which may be another one by then: no proof of absence."""
    os.mkdir(root + b"/d")
    os.symlink(b"x", root + b"/d/l")

    async def test(remote: SftpRemote) -> None:
        def tick() -> None:
            if os.path.isdir(root + b"/d"):
                os.rename(root + b"/d", root + b"/e")

        remote.on_progress = tick
        with pytest.raises(NotFound):
            await remote.list(b"d")
        assert [entry.target for entry in await remote.list(b"e")] == [b"x"]

    run(server, root, test)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to serve another account's view")
def test_unsearchable_directory_is_not_empty(root: bytes, tmp_path: os.PathLike[str]) -> None:
    """OpenSSH lists a directory without ``x`` as if it had no names at all."""
    os.mkdir(root + b"/d")
    write(root + b"/d/f", b"")

    async def test(remote: SftpRemote) -> None:
        # root may search anything, so the lie is told by the test: names without ``.``
        channel = remote._parts.session.quick
        real = channel.names

        async def without_names(handle: bytes, path: bytes) -> object:
            return None

        channel.names = without_names  # type: ignore[assignment,method-assign]
        assert await remote.list(b"d") == [], "searchable: believed"

        async def denied(path: bytes) -> object:
            raise Refused(errno.EACCES)

        channel.lstat = denied  # type: ignore[assignment,method-assign]
        with pytest.raises(Refused):
            await remote.list(b"d")
        channel.names = real  # type: ignore[method-assign]

    with serving(os.path.join(tmp_path, "s")) as server:
        run(server, root, test)


def test_same_second_same_size_is_weak(server: Sshd, root: bytes) -> None:
    async def test(remote: SftpRemote) -> None:
        write(root + b"/f", b"one")
        first = await remote.stat(b"f")
        assert first.weak
        write(root + b"/f", b"two")
        os.utime(root + b"/f", ns=(first.mtime_ns, first.mtime_ns))
        assert (await remote.stat(b"f")).token == first.token, "that is why it is weak"
        with file_with(b"x") as fd:  # shows us the server's clock
            await remote.stage("op", b"", fd, 1, Attributes())
        await remote.discard_staged("op", b"")
        os.utime(root + b"/f", (time.time() - 60, time.time() - 60))
        assert not (await remote.stat(b"f")).weak
        os.utime(root + b"/f", (time.time() + 60, time.time() + 60))
        assert (await remote.stat(b"f")).weak

    run(server, root, test)


# Content


@pytest.mark.parametrize("size", [0, 1, 16384, 70_000, 5_000_001])
def test_content_round_trip(server: Sshd, root: bytes, size: int) -> None:
    content = os.urandom(size)
    attributes = Attributes(mode=0o640, mtime_ns=1_600_000_000_500_000_000)

    async def test(remote: SftpRemote) -> None:
        with file_with(content) as fd:
            staged = await remote.stage("op", b"", fd, size, attributes)
        assert staged.size == size and staged.mode == 0o640
        assert staged.mtime_ns == 1_600_000_000_000_000_000
        assert await remote.list(b"") == []
        outcome = await remote.replace("op", b"f", ABSENT)
        assert isinstance(outcome, Committed) and outcome.entry is not None
        assert outcome.entry.token == (await remote.stat(b"f")).token
        assert read(root + b"/f") == content and os.listdir(root) == [b"f"]
        digest = await remote.digest(b"f")
        assert digest.blake2b == blake2b(content, digest_size=32).digest()
        with file_with() as fd:
            fetched = await remote.fetch(b"f", 0, size + 1000, fd)
            assert fetched.length == size and fetched.entry.token == outcome.entry.token
            assert os.pread(fd, size + 1, 0) == content

    run(server, root, test)


def test_ranges(server: Sshd, root: bytes) -> None:
    content = os.urandom(1_000_000)
    write(root + b"/f", content)

    async def test(remote: SftpRemote) -> None:
        for start, length in [(0, 10), (999_990, 100), (300_000, 400_000), (2_000_000, 5)]:
            with file_with() as fd:
                fetched = await remote.fetch(b"f", start, length, fd)
                expected = content[start : start + length]
                assert fetched.length == len(expected)
                assert os.pread(fd, length, start) == expected

    run(server, root, test)


def test_stage_takes_over_an_earlier_try(server: Sshd, root: bytes) -> None:
    """And never writes through a second name of the target."""
    write(root + b"/f", b"precious")
    os.link(root + b"/f", root + b"/.awayfs-op.new")

    async def test(remote: SftpRemote) -> None:
        with file_with(b"new") as fd:
            await remote.stage("op", b"", fd, 3, Attributes())
        assert read(root + b"/f") == b"precious"
        assert read(root + b"/.awayfs-op.new") == b"new"
        await remote.discard_staged("op", b"")
        await remote.discard_staged("op", b"")
        assert os.listdir(root) == [b"f"]

    run(server, root, test)


def test_stage_of_a_short_cache_file(server: Sshd, root: bytes) -> None:
    async def test(remote: SftpRemote) -> None:
        with file_with(b"short") as fd, pytest.raises(Implausible):
            await remote.stage("op", b"", fd, 100, Attributes())

    run(server, root, test)


def test_only_files_have_content(server: Sshd, root: bytes) -> None:
    os.mkfifo(root + b"/fifo")
    os.symlink(b"/etc/passwd", root + b"/link")
    os.mkdir(root + b"/dir")

    async def test(remote: SftpRemote) -> None:
        for name in (b"fifo", b"link", b"dir"):
            with file_with() as fd, pytest.raises(Refused):
                await asyncio.wait_for(remote.fetch(name, 0, 10, fd), 30)
            with pytest.raises(Refused):
                await asyncio.wait_for(remote.digest(name), 30)

    run(server, root, test)


def test_no_handle_leaks(server: Sshd, root: bytes) -> None:
    """Neither after use, nor after cancellation in the middle."""
    write(root + b"/f", os.urandom(3_000_000))
    for number in range(300):
        write(root + b"/n%d" % number, b"")

    async def test(remote: SftpRemote) -> None:
        async def fetch(fd: int) -> None:
            await remote.fetch(b"f", 0, 3_000_000, fd)

        channels = (remote._parts.session.quick, remote._parts.session.bulk)
        before = [channel._open_handles._value for channel in channels]
        with file_with() as fd:
            for wait in [0.0005 * step for step in range(40)]:
                for call in (fetch(fd), remote.list(b""), remote.digest(b"f")):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(call, wait)
            await asyncio.gather(*(fetch(fd) for _ in range(100)))
        await asyncio.sleep(0.2)
        assert [channel._open_handles._value for channel in channels] == before
        for pid in server.sessions():
            open_there = [
                name
                for name in os.listdir(f"/proc/{pid}/fd")
                if _link(f"/proc/{pid}/fd/{name}").startswith(os.fsdecode(root))
            ]
            assert open_there == []

    run(server, root, test)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


# Changes that destroy nothing


def test_make(server: Sshd, root: bytes) -> None:
    async def test(remote: SftpRemote) -> None:
        mode = Attributes(mode=0o2750, mtime_ns=10**18)
        made = await remote.make("o1", b"d", Kind.DIRECTORY, mode)
        assert isinstance(made, Committed) and made.entry is not None
        assert (made.entry.mode, made.entry.mtime_ns) == (0o2750, 10**18)
        link = await remote.make(
            "o2", b"l", Kind.SYMLINK, Attributes(mtime_ns=10**18), b"some where/\xff"
        )
        assert isinstance(link, Committed) and link.entry is not None
        assert os.readlink(root + b"/l") == b"some where/\xff" == link.entry.target
        assert link.entry.mtime_ns == 10**18 and not os.path.exists(root + b"/some where")
        for kind in (Kind.DIRECTORY, Kind.SYMLINK):
            for name in (b"d", b"l"):
                again = await remote.make("o3", name, kind, Attributes(), b"x")
                assert isinstance(again, Mismatch) and again.current is not None
                assert again.current.name == name
            with pytest.raises(NotFound):
                await remote.make("o4", b"no/such", kind, Attributes(), b"x")
        for kind in (Kind.FIFO, Kind.SOCKET, Kind.CHARACTER, Kind.BLOCK):
            with pytest.raises(Refused) as error:
                await remote.make("o5", b"s", kind, Attributes())
            assert error.value.errno == errno.EOPNOTSUPP
        with pytest.raises(Refused) as error:
            await remote.make("o6", b"n" * 256, Kind.DIRECTORY, Attributes())
        assert error.value.errno == errno.ENAMETOOLONG

    run(server, root, test)


def test_link(server: Sshd, root: bytes) -> None:
    write(root + b"/a", b"x")

    async def test(remote: SftpRemote) -> None:
        assert isinstance(await remote.link("o1", b"a", b"b"), Committed)
        assert os.path.samefile(root + b"/a", root + b"/b")
        assert isinstance(await remote.link("o2", b"a", b"b"), Mismatch)
        with pytest.raises(NotFound):
            await remote.link("o3", b"missing", b"c")

    run(server, root, test)


def test_attributes(server: Sshd, root: bytes) -> None:
    write(root + b"/f", b"x")
    os.symlink(b"f", root + b"/l")
    os.utime(root + b"/f", (1000, 2000))

    async def test(remote: SftpRemote) -> None:
        now = await remote.stat(b"f")
        there = Expected(now.token)
        changed = await remote.set_attributes(b"f", Attributes(mode=0o604), there)
        assert isinstance(changed, Committed) and changed.entry is not None
        assert changed.entry.mode == 0o604 and changed.entry.token == now.token
        await remote.set_attributes(b"f", Attributes(mtime_ns=3000 * 10**9), there)
        assert (os.stat(root + b"/f").st_atime, os.stat(root + b"/f").st_mtime) == (1000, 3000)
        late = await remote.set_attributes(b"f", Attributes(mode=0o777), there)
        assert isinstance(late, Mismatch), "the mtime is in the token"
        same_kind = Expected(now.token, content=False)
        await remote.set_attributes(b"f", Attributes(atime_ns=5000 * 10**9), same_kind)
        assert (os.stat(root + b"/f").st_atime, os.stat(root + b"/f").st_mtime) == (5000, 3000)
        link = Expected((await remote.stat(b"l")).token)
        await remote.set_attributes(b"l", Attributes(mtime_ns=7 * 10**9, mode=0o600), link)
        assert os.lstat(root + b"/l").st_mtime == 7 and os.stat(root + b"/f").st_mtime == 3000
        if os.geteuid() == 0:
            await remote.set_attributes(b"f", Attributes(uid=1234), same_kind)
            assert (os.stat(root + b"/f").st_uid, os.stat(root + b"/f").st_gid) == (1234, 0)
            await remote.set_attributes(b"l", Attributes(gid=99), link)
            assert os.lstat(root + b"/l").st_gid == 99
        assert await remote.xattrs(b"f") == {}
        with pytest.raises(Refused) as error:
            await remote.set_xattr(b"f", b"user.x", b"1", None)
        assert error.value.errno == errno.EOPNOTSUPP

    run(server, root, test)


def test_space(server: Sshd, root: bytes) -> None:
    async def test(remote: SftpRemote) -> None:
        told, real = await remote.space(), os.statvfs(root)
        assert (told.block_size, told.blocks, told.name_max) == (
            real.f_frsize,
            real.f_blocks,
            real.f_namemax,
        )

    run(server, root, test)


def test_a_staged_file_that_may_not_be_written_to_any_more_is_made_anew(
    server: Sshd, root: bytes, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier try came as far as to set the mode of a read-only file."""
    content = os.urandom(300_000)
    source = os.path.join(tmp_path, "source")
    with open(source, "wb") as file:
        file.write(content)

    async def body(remote: SftpRemote) -> None:
        with open(source, "rb") as file:
            fd = file.fileno()
            part = await remote.stage_part("op1", b"", fd, 0, 100_000)
            assert part is not None and remote._open is not None
            channel: Any = remote._open.transfer._channel
            opened = channel.opened

            def refusing(path: bytes, flags: int, *rest: Any) -> Any:
                if flags & packets.FOR_WRITING and not flags & packets.CREATED:
                    raise Refused(errno.EACCES, "permission denied")
                return opened(path, flags, *rest)

            monkeypatch.setattr(channel, "opened", refusing)
            given = 100_000, part.token
            assert await remote.stage_part("op1", b"", fd, 100_000, 200_000, part.token) is None
            staged = await remote.stage(
                "op1", b"", fd, len(content), Attributes(mode=0o444), *given
            )
        assert staged.size == len(content)
        with open(os.path.join(root, b".awayfs-op1.new"), "rb") as file:
            assert file.read() == content

    run(server, root, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_each_file_gets_its_owner_and_ours_is_not_taken_for_another(
    server: Sshd, root: bytes
) -> None:
    async def made(remote: SftpRemote, op: str, uid: int | None) -> int:
        with file_with(b"content") as fd:
            await remote.stage(op, b"", fd, 7, Attributes(mode=0o600, uid=uid, mtime_ns=10**18))
            await remote.replace(op, op.encode(), ABSENT)
        return os.stat(root + b"/" + op.encode()).st_uid

    async def test(remote: SftpRemote) -> None:
        assert [await made(remote, f"op{n}", 1234) for n in range(3)] == [1234] * 3
        for _ in range(2):  # what is known of the account lasts while nothing more is learned
            assert (await remote.connect()).own_uid == 0
        assert await made(remote, "op4", None) == 0
        with file_with(b"content") as fd:  # a try to go on with what was given away before
            entry = await remote.stage("op5", b"", fd, 7, Attributes(uid=1234))
            await remote.stage("op5", b"", fd, 7, Attributes(uid=0), 7, entry.token)
        assert os.stat(root + b"/.awayfs-op5.new").st_uid == 0
        assert (await remote.connect()).own_uid == 0

    run(server, root, test)


def test_an_upload_that_went_on_is_not_cut_off_by_a_session_that_was_held_up(
    server: Sshd, root: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server has from a session that was given up it does late: behind a slow fsync."""
    content, half, held = os.urandom(300_000), 100_000, list[tuple[int, int]]()

    async def test(remote: SftpRemote) -> None:
        parts = remote._open
        assert parts is not None

        def hold(_handle: bytes, attrs: packets.Attributes) -> asyncio.Future[None]:
            assert attrs.size is not None
            held.append((os.open(root + b"/.awayfs-op1.new", os.O_RDWR), attrs.size))
            raise Unreachable("given up")

        with file_with(content) as fd:
            part = await remote.stage_part("op1", b"", fd, 0, half)
            assert part is not None
            with open(root + b"/.awayfs-op1.new", "ab") as file:
                file.write(bytes(50_000))  # of a part that was cut off
            with monkeypatch.context() as patched:
                patched.setattr(parts.session.bulk, "fsetstat", hold)
                with contextlib.suppress(Unreachable):
                    await remote.stage_part("op1", b"", fd, half, 200_000, part.token)
            other = remote_for(server, root)
            await other.connect()
            await other.stage("op1", b"", fd, len(content), Attributes(), half, part.token)
            assert isinstance(await other.replace("op1", b"f", ABSENT), Committed)
            await other.close()
        for opened, size in held:
            os.ftruncate(opened, size)
            os.close(opened)
        assert read(root + b"/f") == content

    run(server, root, test)

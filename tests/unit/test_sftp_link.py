"""The SFTP adapter when the link breaks: killed servers, black holes, slow links."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from tests.harness import alive, eventually

from awayfs.core.errors import Unreachable
from awayfs.core.types import ABSENT, Attributes, Committed
from awayfs.remotes.sftp import SftpRemote

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

SIZE = 200_000_000


@dataclass(frozen=True)
class Url:
    """As ``opening.VolumeUrl``."""

    path: bytes
    user: str | None = None
    port: int | None = None
    host: str = "127.0.0.1"


Body = Callable[[SftpRemote, Sshd, bytes], Awaitable[None]]


def run(tmp_path: os.PathLike[str], body: Body, **options: str) -> None:
    """Run ``body`` with a connected remote and a server of its own."""
    root = os.fsencode(tmp_path) + b"/root"
    os.mkdir(root)

    async def whole(server: Sshd) -> None:
        url = Url(root, user=server.user, port=server.port)
        remote = SftpRemote(url, {**server.options, **options})
        try:
            await remote.connect()
            await body(remote, server, root)
        finally:
            await remote.close()

    with serving(os.path.join(tmp_path, "sshd")) as server:
        asyncio.run(whole(server))


async def fails_within(call: Awaitable[object], limit: float) -> float:
    """Seconds until ``Unreachable``, which must come within the limit."""
    started = time.monotonic()
    with pytest.raises(Unreachable):
        await asyncio.wait_for(call, limit + 5)
    took = time.monotonic() - started
    assert took < limit, f"{took:.1f} s"
    return took


def ticking(remote: SftpRemote, number: int) -> asyncio.Event:
    """An event that is set at the ``number``-th sign of progress."""
    event, count = asyncio.Event(), 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count >= number:
            event.set()

    remote.on_progress = tick
    return event


@contextlib.contextmanager
def big_file(remote_root: bytes | None = None):
    fd = (
        os.memfd_create("big")
        if remote_root is None
        else os.open(remote_root + b"/big", os.O_RDWR | os.O_CREAT)
    )
    try:
        os.ftruncate(fd, SIZE)
        yield fd
    finally:
        os.close(fd)


def many_files(root: bytes) -> None:
    for number in range(5000):
        os.close(os.open(root + b"/f%d" % number, os.O_CREAT | os.O_WRONLY))


async def interrupted(remote: SftpRemote, server: Sshd, call: Awaitable[object], at: int) -> None:
    """Kill the server in the middle of a call; then come back."""
    moving = ticking(remote, at)
    task = asyncio.ensure_future(call)
    await asyncio.wait_for(moving.wait(), 20)
    assert not task.done()
    server.kill()
    await fails_within(task, 1)
    await fails_within(remote.stat(b""), 0.5)
    await fails_within(remote.connect(), 2)
    server.start()
    await remote.connect()
    await remote.stat(b"")


def test_killed_while_listing(tmp_path):
    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        many_files(root)
        await interrupted(remote, server, remote.list(b""), 5)
        assert len(await remote.list(b"")) == 5000

    run(tmp_path, body)


def test_killed_while_fetching(tmp_path):
    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        with big_file(root), big_file() as fd:
            await interrupted(remote, server, remote.fetch(b"big", 0, SIZE, fd), 20)

    run(tmp_path, body)


def test_killed_while_staging(tmp_path):
    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        with big_file() as fd:
            call = remote.stage("op", b"", fd, SIZE, Attributes())
            await interrupted(remote, server, call, 20)
            staged = await remote.stage("op", b"", fd, 1000, Attributes())
            assert staged.size == 1000
            assert isinstance(await remote.replace("op", b"f", ABSENT), Committed)
            assert os.listdir(root) == [b"f"]

    run(tmp_path, body)


def test_black_hole(tmp_path):
    """Connected, but silent: keepalives notice within three seconds and a bit."""

    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        server.freeze()
        try:
            took = await fails_within(remote.stat(b"f"), 4)
            await fails_within(remote.stat(b"f"), 0.5)
        finally:
            server.thaw()
        print(f"black hole noticed after {took:.2f} s")
        await remote.connect()
        await remote.probe()

    run(tmp_path, body)


def test_what_was_not_sent_does_not_arrive_once_the_connection_is_given_up(tmp_path):
    """The kernel would go on trying, and a change be made when another session has done it again.

    With no time to linger it throws away what it has, also when this process is killed.
    """

    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        assert remote._open is not None
        own = remote._open.session.connection.get_extra_info("socket")
        lingers = own.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert struct.unpack("ii", lingers) == (1, 0)

    run(tmp_path, body)


@pytest.mark.parametrize("asked", [False, True])
def test_a_session_with_nothing_under_way_ends_in_order(tmp_path, asked, monkeypatch):
    """The server hears of it, and has no connection reset; there is nothing that could be late."""

    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        assert remote._open is not None
        session, lingers = remote._open.session, []
        own, ends = session.connection.get_extra_info("socket"), session.connection.close

        def close() -> None:
            told = own.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
            lingers.append(struct.unpack("ii", told)[0])
            ends()

        monkeypatch.setattr(session.connection, "close", close)
        if asked:
            session.bulk.wire._waiting[1 << 30] = lambda *_: None
        await remote.close()
        assert lingers == [int(asked)]

    run(tmp_path, body)


@pytest.mark.parametrize("what", ["stage", "fetch", "digest", "sync"])
def test_what_is_under_way_when_the_session_is_closed_has_lost_its_server(tmp_path, what):
    """Going offline amid a transfer; nobody cancelled it, and none waits for ever."""

    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        with open(root + b"/there", "wb") as file:
            file.truncate(SIZE)
        parts = remote._open
        assert parts is not None
        with big_file() as fd:
            if what == "stage":
                call = remote.stage("op", b"", fd, SIZE, Attributes())
            elif what == "fetch":
                call = remote.fetch(b"there", 0, SIZE, fd)
            elif what == "digest":
                call = remote.digest(b"there")
            else:
                call = parts.syncs.sync(b"")
            running = asyncio.ensure_future(call)
            await asyncio.sleep(0 if what == "sync" else 0.05)
            await remote.close()
            with pytest.raises(Unreachable):
                await asyncio.wait_for(running, 30)

    run(tmp_path, body)


def test_idle_black_hole_is_noticed_too(tmp_path):
    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        server.freeze()
        await asyncio.sleep(3.5)
        await fails_within(remote.stat(b"f"), 0.1)

    run(tmp_path, body)


def test_hung_sftp_process(tmp_path):
    """sshd answers keepalives while its SFTP process hangs, on a dead disk for one."""

    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        hung = [pid for pid in server.sessions() if _is_sftp(pid)]
        assert hung
        server.freeze(hung)
        await fails_within(remote.stat(b"f"), 5)
        server.kill()
        eventually(lambda: not any(map(alive, hung)), "the end of what hung")

    run(tmp_path, body, stall_timeout="2")


def _is_sftp(pid: int) -> bool:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"internal-sftp" in file.read()


def test_restarted_server(tmp_path):
    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        server.restart()
        await fails_within(remote.stat(b""), 1)
        await remote.connect()
        assert await remote.list(b"") == []

    run(tmp_path, body)


def test_a_refusal_leaves_the_session_alive(tmp_path):
    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        calls = [remote.stat(b"missing%d" % n) for n in range(200)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, Exception) for answer in answers)
        await remote.stat(b"")

    run(tmp_path, body)


class SlowLink:
    """A proxy with a bandwidth in each direction, and no more than a small buffer."""

    def __init__(self, port: int, bytes_per_second: int) -> None:
        self._to = port
        self._rate = bytes_per_second
        self.port = 0

    async def __aenter__(self) -> SlowLink:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to, limit=4096)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2048):
                await asyncio.sleep(len(data) / self._rate)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_slow_link_is_not_a_dead_one(tmp_path, direction):
    """Half a minute of data at once must not hold back the keepalives, nor a user's stat."""
    rate, size = 60_000, 700_000

    async def body(remote: SftpRemote, server: Sshd, root: bytes) -> None:
        async with SlowLink(server.port, rate) as link:
            url = Url(root, user=server.user, port=link.port)
            options = {**server.options, "host_key_alias": f"[127.0.0.1]:{server.port}"}
            slow = SftpRemote(url, options)
            try:
                await slow.connect()
                with open(root + b"/f", "wb") as file:
                    file.write(os.urandom(size))
                with big_file() as fd:
                    if direction == "up":
                        call = slow.stage("op", b"", fd, size, Attributes())
                    else:
                        call = slow.fetch(b"f", 0, size, fd)
                    task = asyncio.ensure_future(call)
                    slowest = 0.0
                    while not task.done():
                        started = time.monotonic()
                        await slow.stat(b"f")
                        slowest = max(slowest, time.monotonic() - started)
                        await asyncio.sleep(0.2)
                    await task
                print(f"{direction}: slowest stat {slowest:.2f} s")
                assert slowest < 3
            finally:
                await slow.close()

    run(tmp_path, body)

"""Many small files over one session: servers that allow little, break off, or talk nonsense."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.test_sftp_remote import remote_for

from awayfs.core.errors import RemoteError, Unreachable
from awayfs.ports.remote import Piece
from awayfs.remotes import progress
from awayfs.remotes.sftp import SftpRemote

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sshd import Sshd, needs_sshd

_, needs_server = needs_sshd
COUNT = 400


def played(
    directory: str, test: Callable[[SftpRemote, Sshd, list[Piece]], Awaitable[None]], **given: str
) -> None:
    """With a server of its own and a connected remote; the files are there."""
    root = os.path.join(directory, "root")
    os.makedirs(root)
    for number in range(COUNT):
        with open(f"{root}/{number}", "wb") as file:
            file.write(b"%04d" % number)
    pieces = [Piece(b"%d" % number, 4, number * 4) for number in range(COUNT)]
    server = Sshd(os.path.join(directory, "sshd"), **given)  # type: ignore[arg-type]
    server.start()

    async def whole() -> None:
        remote = remote_for(server, os.fsencode(root))
        try:
            await remote.connect()
            await test(remote, server, pieces)
        finally:
            await remote.close()

    try:
        asyncio.run(whole())
    finally:
        server.kill()


@needs_server
def test_a_server_that_allows_no_further_session_gives_none_of_them(
    tmp_path: os.PathLike[str],
) -> None:
    async def test(remote: SftpRemote, _: Sshd, pieces: list[Piece]) -> None:
        fd = os.memfd_create("landing")
        assert set(await remote.fetch_many(pieces, fd)) == {None}
        fetched = await remote.fetch(pieces[1].path, 0, 4, fd)
        assert fetched.length == 4 and os.pread(fd, 4, 0) == b"0001"
        assert set(await remote.fetch_many(pieces, fd)) == {None}
        os.close(fd)

    played(str(tmp_path), test, extra="MaxSessions 2")


@needs_server
def test_a_server_that_dies_meanwhile_is_unreachable(tmp_path: os.PathLike[str]) -> None:
    async def test(remote: SftpRemote, server: Sshd, pieces: list[Piece]) -> None:
        fd = os.memfd_create("landing")
        await remote.fetch_many(pieces[:2], fd)
        fetching = asyncio.ensure_future(remote.fetch_many(pieces, fd))
        await asyncio.sleep(0)
        server.kill()
        with pytest.raises(Unreachable):
            await asyncio.wait_for(fetching, 60)
        with pytest.raises(RemoteError):
            await remote.fetch_many(pieces, fd)
        os.close(fd)

    played(str(tmp_path), test)


@needs_server
def test_each_call_shows_signs_of_life_while_any_of_them_moves(tmp_path: os.PathLike[str]) -> None:
    """A call without is given up, and the worker with it: also one that waits behind others."""

    async def test(remote: SftpRemote, _: Sshd, pieces: list[Piece]) -> None:
        heard: list[int] = []

        async def fetch(number: int, some: list[Piece]) -> None:
            progress.listener.set(lambda _allow: heard.append(number))
            fd = os.memfd_create("landing")
            assert None not in await remote.fetch_many(some, fd)
            os.close(fd)

        await fetch(0, pieces[:1])
        heard.clear()
        halves = (pieces[:200], pieces[200:])
        await asyncio.gather(*(fetch(number, half) for number, half in enumerate(halves, 1)))
        assert {1, 2} == set(heard)

    played(str(tmp_path), test)


@needs_server
def test_a_landing_that_cannot_be_written_is_our_own_trouble(tmp_path: os.PathLike[str]) -> None:
    async def test(remote: SftpRemote, _: Sshd, pieces: list[Piece]) -> None:
        fd = os.open(os.devnull, os.O_RDONLY)
        with pytest.raises(OSError):
            await remote.fetch_many(pieces, fd)
        os.close(fd)
        fd = os.memfd_create("landing")
        assert None not in await remote.fetch_many(pieces, fd)
        os.close(fd)

    played(str(tmp_path), test)

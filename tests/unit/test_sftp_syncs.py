"""Who shares a sync of a directory, and what a server that cannot do it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from awayfs.core.errors import NotFound, Refused, RemoteError, Unreachable
from awayfs.remotes import sftp_syncs
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_errors import Failed, Unsupported
from awayfs.remotes.sftp_syncs import DirectorySyncs


class Server:
    """A channel whose answers the test gives."""

    def __init__(self) -> None:
        self.opens = 0
        self.refuses: RemoteError | None = None
        self.syncs: list[asyncio.Future[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.ensure_future(work)

    @asynccontextmanager
    async def opened(self, path: bytes, _flags: int) -> Any:
        self.opens += 1
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        yield path

    def fsync(self, _handle: bytes) -> asyncio.Future[None]:
        self.syncs.append(asyncio.get_running_loop().create_future())
        return self.syncs[-1]


Test = Callable[[DirectorySyncs, Server], Coroutine[Any, Any, None]]


def played(test: Test) -> None:
    async def whole() -> None:
        server = Server()
        await test(DirectorySyncs(cast(Channel, server)), server)

    asyncio.run(whole())


async def asked(syncs: DirectorySyncs, count: int) -> list[asyncio.Future[None]]:
    calls = [asyncio.ensure_future(syncs.sync(b"d")) for _ in range(count)]
    await asyncio.sleep(0.01)
    return calls


def test_each_waits_for_a_sync_that_began_after_its_change() -> None:
    async def test(syncs: DirectorySyncs, server: Server) -> None:
        early = await asked(syncs, 3)
        late = await asked(syncs, 3)
        assert len(server.syncs) == 1
        server.syncs[0].set_result(None)
        await asyncio.sleep(0.01)
        assert all(call.done() for call in early) and not any(call.done() for call in late)
        assert len(server.syncs) == 2 and server.opens == 1
        server.syncs[1].set_result(None)
        await asyncio.gather(*early, *late)
        (again,) = await asked(syncs, 1)
        assert server.opens == 2, "nobody waited any more"
        server.syncs[2].set_result(None)
        await again

    played(test)


def test_a_directory_is_opened_anew_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may stand there by now."""
    monkeypatch.setattr(sftp_syncs, "BELIEVED_S", -1.0)

    async def test(syncs: DirectorySyncs, server: Server) -> None:
        calls = await asked(syncs, 1)
        for number in range(3):
            calls += await asked(syncs, 1)
            server.syncs[number].set_result(None)
            await asyncio.sleep(0.01)
        server.syncs[3].set_result(None)
        await asyncio.gather(*calls)
        assert server.opens == 4

    played(test)


@pytest.mark.parametrize(
    ("refusal", "opens"),
    [(NotFound("gone"), 2), (Refused(13, "no"), 2), (Unsupported("no fsync"), 2), (Failed("?"), 1)],
)
def test_a_refusal_is_no_error_and_a_failure_is_final(refusal: RemoteError, opens: int) -> None:
    async def test(syncs: DirectorySyncs, server: Server) -> None:
        server.refuses = refusal
        for _ in range(2):
            await asyncio.gather(*await asked(syncs, 2))
        assert server.opens == opens

    played(test)


def test_who_waits_is_told_when_the_connection_ends() -> None:
    async def test(syncs: DirectorySyncs, server: Server) -> None:
        early, late = await asked(syncs, 1), await asked(syncs, 1)
        server.refuses = Unreachable("gone")
        server.syncs[0].set_exception(Unreachable("gone"))
        for call in (*early, *late):
            with pytest.raises(Unreachable):
                await call
        server.refuses = None
        calls = await asked(syncs, 1)
        server.syncs[1].set_result(None)
        await calls[0]

    played(test)


def test_who_is_cancelled_leaves_the_others_their_sync() -> None:
    async def test(syncs: DirectorySyncs, server: Server) -> None:
        one, other = await asked(syncs, 2)
        one.cancel()
        await asyncio.sleep(0.01)
        server.syncs[0].set_result(None)
        await other
        assert one.cancelled()

    played(test)

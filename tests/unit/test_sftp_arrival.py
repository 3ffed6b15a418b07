"""What is looked at while connecting over SFTP, in one round trip with all first questions."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sftp_world import SftpWorld
from tests.unit.test_sftp_remote import Url

from awayfs.core.errors import Refused, Unreachable, WrongServer
from awayfs.core.types import Kind
from awayfs.ports.remote import Connected
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.names import fence_name
from awayfs.remotes.sftp import SftpRemote
from awayfs.remotes.sftp_wire import Wire

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

WITNESSES = (b"f", b"d/g", b"gone", b"d/gone", b"l/g", b"f/x", b"d")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd"))) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "f").write_bytes(b"f")
    (root / "d/g").write_bytes(b"g")
    (root / "l").symlink_to("d")
    return root


def connected(server: Sshd, path: str, **options: str) -> Connected:
    async def play() -> Connected:
        url = Url(os.fsencode(path), user=server.user, port=server.port)
        remote = SftpRemote(url, {**server.options, **options})
        try:
            found = await remote.connect(WITNESSES)
            assert found.root == await remote.stat(b"")
            for witness, entry in (found.seen or {}).items():
                assert entry == await remote.stat(witness)
            return found
        finally:
            await remote.close()

    return asyncio.run(play())


def test_it_sees_what_stands_there_and_follows_no_symlink(server: Sshd, root: Path) -> None:
    found = connected(server, os.fspath(root))
    assert found.root.kind is Kind.DIRECTORY
    assert found.seen is not None and set(found.seen) == {b"f", b"d/g", b"d"}
    assert found.identity is not None and found.identity.endswith(b" " + os.fsencode(root))


@pytest.mark.parametrize("how", ["symlink", "dots", "slashes", "relative"])
def test_it_looks_again_by_the_real_path(server: Sshd, root: Path, how: str) -> None:
    link = root.parent / "link"
    link.symlink_to("root")
    named = {
        "symlink": os.fspath(link),
        "dots": f"{root.parent}/d/../root/.",
        "slashes": f"/{root}//",
        "relative": os.path.relpath(root, os.path.expanduser("~")),
    }[how]
    (root.parent / "d").mkdir()
    found = connected(server, named)
    assert found.root.kind is Kind.DIRECTORY
    assert found.seen is not None and set(found.seen) == {b"f", b"d/g", b"d"}
    assert found.identity is not None and found.identity.endswith(b" " + os.fsencode(root))


def test_what_an_earlier_program_acted_by_is_gone(server: Sshd, root: Path) -> None:
    fence = root / os.fsdecode(fence_name("me"))
    other = root / os.fsdecode(fence_name("you"))
    fence.write_bytes(b"")
    other.write_bytes(b"")
    connected(server, os.fspath(root), client="me")
    assert not fence.exists() and other.exists()


def test_a_root_that_is_none_is_told(server: Sshd, root: Path) -> None:
    with pytest.raises(Refused, match="not a directory"):
        connected(server, os.fspath(root / "f"))
    with pytest.raises(Unreachable, match="is it mounted"):
        connected(server, os.fspath(root / "nowhere" / "at all"))
    with pytest.raises(Unreachable, match="is it mounted"):
        connected(server, os.fspath(root / "nowhere"))


def test_a_server_that_is_older_than_before_is_known_by_that_look(
    server: Sshd, tmp_path: Path
) -> None:
    async def play() -> None:
        world = SftpWorld(tmp_path, server)
        try:
            for number in range(3):
                path = world.share / f"f{number}"
                path.write_bytes(b"new")
                os.utime(path, (1_600_000_000, 1_600_000_000))
            await world.online()
            for number in range(3):
                await world.cached(f"f{number}")
            world.volume.link.offline_by_hand()
            remote: Any = world.volume.link.remote
            remote.stat = _nobody_asks
            await world.volume.link.online_by_hand()
            world.volume.link.offline_by_hand()
            for number in range(3):
                path = world.share / f"f{number}"
                path.write_bytes(b"older")
                os.utime(path, (1_500_000_000, 1_500_000_000))
            os.utime(world.share, (1_500_000_000, 1_500_000_000))
            with pytest.raises(WrongServer, match="older state"):
                await world.volume.link.online_by_hand()
        finally:
            await world.end()

    asyncio.run(play())


async def _nobody_asks(path: bytes) -> None:
    raise AssertionError(f"a look of its own at {path!r}")


def test_it_greets_without_waiting_for_the_subsystem() -> None:
    class Chan:
        written: list[bytes] = []

        def get_extra_info(self, _name: str, default: str) -> str:
            return default

        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            self.written.append(data)

    async def play() -> None:
        wire, chan = Wire(), Chan()
        wire.connection_made(chan)
        assert not chan.written  # the request for the subsystem goes first
        await asyncio.sleep(0)
        assert chan.written == [packets.INIT]

    asyncio.run(play())

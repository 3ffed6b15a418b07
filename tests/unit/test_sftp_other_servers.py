"""Servers with other ways than OpenSSH's, and steps in the middle that fail."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from sftp_server import Parts, SmallServer, served

from awayfs.core.errors import Implausible, Refused, RemoteError
from awayfs.core.types import Attributes, Committed, Digest, Kind
from awayfs.ports.remote import Piece
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_changes import Changes
from awayfs.remotes.sftp_connection import Extensions
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_small import SmallFiles

MTIME = 1_000_000_000
WANTED = Attributes(mode=0o640, mtime_ns=MTIME * 10**9)
CONTENT = b"what is sent"


async def stage(parts: Parts, name: bytes = b"new") -> bytes:
    fd = os.memfd_create("content")
    try:
        os.pwrite(fd, CONTENT, 0)
        entry = await parts.transfer.stage(name, fd, len(CONTENT), WANTED, False)
        return entry.token
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["SSH-2.0-Go", "SSH-2.0-rclone/1.60"])
def test_what_a_server_writes_late_is_dressed_synced_and_looked_at_after_that(
    tmp_path: Path, name: str
) -> None:
    """As those do that are made with pkg/sftp."""

    async def test(parts: Parts) -> None:
        parts.server.late = {packets.WRITE}
        assert await stage(parts) == b"f:%d:%d" % (len(CONTENT), MTIME)
        assert int((tmp_path / "new").stat().st_mtime) == MTIME
        asked = parts.server.asked
        assert asked.index(packets.WRITE) < asked.index(packets.FSETSTAT)
        assert asked.index(packets.WRITE) < asked.index(packets.FSYNC)

    served(tmp_path, test, name)


def test_a_server_that_keeps_the_order_is_sent_all_at_once(tmp_path: Path) -> None:
    async def test(parts: Parts) -> None:
        await stage(parts)
        before = parts.server.pieces
        await stage(parts, b"other")
        assert parts.server.pieces == before + 2  # open; and write, attributes, fsync, a look

    served(tmp_path, test)


def test_a_server_that_reads_late_is_asked_for_the_entry_after_that(tmp_path: Path) -> None:
    """Else content of two revisions could be taken for that of the earlier one."""
    (tmp_path / "f").write_bytes(b"one")

    async def test(parts: Parts) -> None:
        parts.server.late = {packets.READ}
        digest: Digest = await parts.transfer.digest(b"f")
        assert digest.entry.size == 3
        small = SmallFiles(parts.channel, Paths(parts.channel))
        server = SmallServer(small._wire, "SSH-2.0-Go")
        server.late = {packets.READ}
        fd = os.memfd_create("landing")
        landed = await small.fetch(
            [Piece(b"f", 3, 0), Piece(b"gone", 3, 8)], fd, lambda _allow: None
        )
        assert landed[1] is None and landed[0] is not None and landed[0].length == 3
        assert os.pread(fd, 9, 0) == b"one"
        os.close(fd)
        for asked in (parts.server.asked, server.asked):
            kinds = [kind for kind in asked if kind in (packets.READ, packets.FSTAT)]
            assert kinds == [packets.READ, packets.FSTAT]
        assert not server.handles and not small.open_handles

    served(tmp_path, test, "SSH-2.0-Go")


def test_all_reads_come_short(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(CONTENT * 99)

    async def test(parts: Parts) -> None:
        parts.server.shortest = 7
        fd = os.memfd_create("landing")
        fetched = await parts.transfer.fetch(b"f", 3, 999, fd)
        assert fetched.length == 999
        assert os.pread(fd, 2000, 3) == (CONTENT * 99)[3:1002]
        os.close(fd)
        digest = await parts.transfer.digest(b"f")
        assert digest.entry.size == len(CONTENT) * 99

    served(tmp_path, test)


FAILING: list[tuple[int | bytes, int]] = [
    *((packets.WRITE, code) for code in (3, 4, 14, 15)),
    *((packets.FSETSTAT, code) for code in (3, 4)),
    *((packets.FSTAT, code) for code in (2, 4)),
    *((packets.FSYNC, code) for code in (3, 4, 14)),
    *((packets.OPEN, code) for code in (3, 4)),
]


@pytest.mark.parametrize("name", ["SSH-2.0-OpenSSH_9", "SSH-2.0-Go"])
@pytest.mark.parametrize(("what", "code"), FAILING)
def test_a_step_that_fails_fails_the_upload(
    tmp_path: Path, what: int | bytes, code: int, name: str
) -> None:
    """And more often than there are handles leaves none open, nor room in the window taken."""

    async def test(parts: Parts) -> None:
        parts.server.refuses[what] = code
        for _ in range(50):
            with pytest.raises(RemoteError) as failed:
                await stage(parts)
        refused = isinstance(failed.value, Refused)
        assert refused or (what, code) == (packets.FSTAT, 2)
        await asyncio.sleep(0.01)
        assert parts.channel.window._used == 0
        parts.server.refuses.clear()
        assert await stage(parts) == b"f:%d:%d" % (len(CONTENT), MTIME)

    served(tmp_path, test, name)


@pytest.mark.parametrize("what", [packets.CLOSE, packets.FSYNC])
def test_what_does_not_matter_does_not_fail_the_upload(tmp_path: Path, what: int | bytes) -> None:
    """A CLOSE of what is durable already, and an fsync that the server turns out not to have."""

    async def test(parts: Parts) -> None:
        parts.server.refuses[what] = 8
        for n in range(9):
            await stage(parts, b"%d" % n)
            assert (tmp_path / str(n)).read_bytes() == CONTENT

    served(tmp_path, test)


def changes(parts: Parts) -> Changes:
    able = Extensions(True, True, False, True, False)
    return Changes(parts.channel, parts.view, parts.clock, able)


@pytest.mark.parametrize(
    ("name", "swaps"),
    [
        *(("SSH-2.0-OpenSSH_9", True), ("SSH-2.0-mod_sftp", True)),
        *(("SSH-2.0-Go", True), ("SSH-2.0-dropbear", True), ("SSH-2.0-Other", False)),
    ],
)
def test_a_symlink_is_made_at_its_path_on_every_server(
    tmp_path: Path, name: str, swaps: bool
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (root / "d").mkdir()
    (root / ".awayfs-op0.new").write_text("left by an earlier try")

    async def test(parts: Parts) -> None:
        for n, path in enumerate((b"one", b"d/two")):
            target = os.fsencode(outside)
            made = await changes(parts).make(f"op{n}", path, Kind.SYMLINK, Attributes(), target)
            assert isinstance(made, Committed) and made.entry is not None
            assert made.entry.target == target
        assert parts.server.asked.count(packets.SYMLINK) <= 4

    served(root, test, name, swaps)
    assert not os.path.lexists(outside)
    assert {path.name for path in root.iterdir()} - {".awayfs-op0.new"} == {"d", "one"}
    assert [path.name for path in (root / "d").iterdir()] == ["two"]


def test_no_symlink_is_made_where_neither_order_is_proven(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()

    async def test(parts: Parts) -> None:
        parts.server.refuses[packets.SYMLINK] = 4
        with pytest.raises(Refused):
            await changes(parts).make("op", b"s", Kind.SYMLINK, Attributes(), os.fsencode(outside))
        assert parts.wire.swaps_symlink is None

    served(root, test, "SSH-2.0-Other")
    assert not os.path.lexists(outside) and not list(root.iterdir())


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1])
def test_a_size_that_no_file_can_have_is_not_believed(tmp_path: Path, size: int) -> None:
    """Nothing here could keep such a number, and whoever tried would fail for another reason."""

    async def test(parts: Parts) -> None:
        (tmp_path / "file").write_bytes(CONTENT)
        found = await parts.channel.lstat(b"file")
        found.size = size
        with pytest.raises(Implausible, match=str(size)):
            parts.view.entry(b"file", found, 0)
        found.size = (1 << 63) - 1
        assert parts.view.entry(b"file", found, 0).size == found.size

    served(tmp_path, test)

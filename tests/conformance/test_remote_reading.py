"""Looking at a server: connect, probe, stat, list, fetch, digest, xattrs, space."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import stat

import pytest
from case import Case, cache_file

from awayfs.core.errors import NotFound, Refused, RemoteError, Unreachable, WrongServer
from awayfs.core.types import Attributes, Committed, Expected, Kind, Mismatch
from awayfs.ports.remote import Landed, Piece

HOSTILE = [
    b"plain",
    b"-rf",
    b" leading and trailing ",
    b"new\nline",
    b"tab\tand\x01control",
    b"\xff\xfe not utf-8 \x80",
    b"umlaut \xc3\xa4",
    b"umlaut a\xcc\x88",
    b"back\\slash",
    b"glob*?[x]",
    b"quote'\"",
    b"...",
    b"Case",
    b"case",
    b".awayfs.toml",
    b".awayfs-UPPER.new",
    b"x" * 255,
]


def test_connect_tells_root_and_capabilities(run):
    async def body(case: Case) -> None:
        connected = case.connected
        assert connected.root.kind is Kind.DIRECTORY
        assert not connected.capabilities.read_only
        assert connected.capabilities.in_flight > 0
        assert case.names() == set()
        again = await case.remote.connect()
        assert again.identity == connected.identity
        await case.remote.probe()

    run(body)


def test_close_never_raises(run):
    async def body(case: Case) -> None:
        await case.remote.close()
        await case.remote.close()

    run(body)


def test_after_close_the_server_is_away_until_the_next_connect(run):
    async def body(case: Case) -> None:
        await case.remote.close()
        with pytest.raises(Unreachable):
            await case.remote.stat(b"")
        await case.remote.connect()
        await case.remote.stat(b"")

    run(body)


def test_stat_of_each_kind(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"12345")
        os.chmod(case.at(b"file"), 0o640)
        os.utime(case.at(b"file"), ns=(10**18, 10**18 + 5 * 10**9))
        os.mkdir(case.at(b"dir"))
        os.symlink(b"nowhere/at\xff all", case.at(b"link"))
        os.mkfifo(case.at(b"fifo"))
        listener = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(case.root)
        listener.bind("socket")
        os.chdir(here)
        listener.close()
        os.mknod(case.at(b"null"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        file = await case.remote.stat(b"file")
        assert (file.name, file.kind, file.mode, file.size) == (b"file", Kind.FILE, 0o640, 5)
        assert file.mtime_ns == 10**18 + 5 * 10**9
        link = await case.remote.stat(b"link")
        assert (link.kind, link.target) == (Kind.SYMLINK, b"nowhere/at\xff all")
        kinds = {entry.name: entry.kind for entry in await case.remote.list(b"")}
        for name, kind in kinds.items():
            assert (await case.remote.stat(name)).kind is kind
        assert kinds[b"dir"] is Kind.DIRECTORY
        if case.connected.capabilities.special_files:
            assert kinds[b"fifo"] is Kind.FIFO
            assert kinds[b"socket"] is Kind.SOCKET
            assert kinds[b"null"] is Kind.CHARACTER
            assert (await case.remote.stat(b"null")).rdev == os.makedev(1, 3)
        root = await case.remote.stat(b"")
        assert root.kind is Kind.DIRECTORY

    run(body)


@pytest.mark.parametrize("path", [b"gone", b"gone/below", b"file/below", b"dir/gone"])
def test_absence_is_proven(run, path):
    async def body(case: Case) -> None:
        case.write(b"file", b"")
        os.mkdir(case.at(b"dir"))
        with pytest.raises(NotFound):
            await case.remote.stat(path)
        with pytest.raises(NotFound), cache_file() as fd:
            await case.remote.fetch(path, 0, 10, fd)
        with pytest.raises(NotFound):
            await case.remote.digest(path)
        with pytest.raises((NotFound, Refused)):
            await case.remote.list(path)

    run(body)


def test_hostile_names_come_and_go_unchanged(run):
    async def body(case: Case) -> None:
        for number, name in enumerate(HOSTILE):
            case.write(name, b"%d" % number) if len(name) < 240 else open(
                case.at(name), "wb"
            ).close()
        listed = {entry.name: entry for entry in await case.remote.list(b"")}
        assert set(listed) == set(HOSTILE)
        for number, name in enumerate(HOSTILE):
            assert (await case.remote.stat(name)).token == listed[name].token
            await case.create(f"n{number}", b"made " + name[:250], name)
            assert case.read(b"made " + name[:250]) == name

    run(body)


@pytest.mark.parametrize("path", [b"..", b"a/../b", b"a//b", b"/a", b"a/", b".", b"a/./b", b"a\0b"])
def test_paths_that_are_none_are_refused(run, path):
    async def body(case: Case) -> None:
        os.mkdir(case.at(b"a"))
        case.write(b"b", b"")
        with pytest.raises((Refused, NotFound)):
            await case.remote.stat(path)

    run(body)


def test_symlinks_lead_nowhere(run):
    async def body(case: Case) -> None:
        outside = case.root + b"-outside"
        os.mkdir(outside)
        with open(outside + b"/secret", "wb") as file:
            file.write(b"secret")
        os.symlink(outside, case.at(b"door"))
        os.symlink(outside + b"/secret", case.at(b"key"))
        assert (await case.remote.stat(b"door")).kind is Kind.SYMLINK
        for path in (b"door/secret", b"door/new"):
            with pytest.raises(RemoteError):
                await case.remote.stat(path)
            with pytest.raises(RemoteError):
                await case.create("s1", path, b"overwritten")
        with pytest.raises(RemoteError):
            await case.remote.list(b"door")
        with pytest.raises(RemoteError):
            await case.content(b"key")
        assert os.listdir(outside) == [b"secret"]

    run(body)


def test_paths_may_be_deeper_than_path_max(run):
    async def body(case: Case) -> None:
        if case.connected.capabilities.guard.value != "swap":
            pytest.skip("the server takes paths as strings")
        path = b""
        for level in range(45):
            path = path + b"/" + b"d" * 200 if path else b"d" * 200
            made = await case.remote.make(f"d{level}", path, Kind.DIRECTORY, Attributes())
            assert isinstance(made, Committed)
        assert len(path) > 2 * 4096
        await case.create("deep", path + b"/file", b"deep")
        assert (await case.content(path + b"/file"))[0] == b"deep"
        assert [e.name for e in await case.remote.list(path)] == [b"file"]

    run(body)


def test_listing_hides_the_names_of_operations(run):
    async def body(case: Case) -> None:
        for name in (b".awayfs-abc.new", b".awayfs-0z9.old", b"visible", b".awayfs-abc.other"):
            case.write(name, b"")
        names = {entry.name for entry in await case.remote.list(b"")}
        assert names == {b"visible", b".awayfs-abc.other"}

    run(body)


def test_big_listing_is_complete(run):
    async def body(case: Case) -> None:
        os.mkdir(case.at(b"many"))
        wanted = {b"file-%05d" % number for number in range(5000)}
        for name in wanted:
            os.close(os.open(case.at(b"many/" + name), os.O_CREAT | os.O_WRONLY))
        listed = [entry.name for entry in await case.remote.list(b"many")]
        assert len(listed) == 5000
        assert set(listed) == wanted

    run(body)


def test_listing_a_changing_directory_has_all_that_stayed(run):
    async def body(case: Case) -> None:
        stayed = {b"stayed-%d" % number for number in range(300)}
        for name in stayed:
            case.write(name, b"")
        stop = False

        def churn() -> None:
            number = 0
            while not stop:
                case.write(b"come and go", b"")
                os.rename(case.at(b"come and go"), case.at(b"moved-%d" % (number % 7)))
                number += 1

        thread = asyncio.get_running_loop().run_in_executor(None, churn)
        try:
            for _ in range(10):
                names = [entry.name for entry in await case.remote.list(b"")]
                assert stayed <= set(names)
                assert len(names) == len(set(names))
        finally:
            stop = True
            await thread

    run(body)


def test_a_file_cannot_be_listed(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"")
        with pytest.raises((NotFound, Refused)):
            await case.remote.list(b"file")

    run(body)


def test_fetch_copies_ranges_to_their_offset(run):
    async def body(case: Case) -> None:
        data = os.urandom(300_000)
        case.write(b"file", data)
        with cache_file(b"z" * 100) as fd:
            fetched = await case.remote.fetch(b"file", 1000, 5000, fd)
            assert fetched.length == 5000
            assert os.pread(fd, 5000, 1000) == data[1000:6000]
            assert os.pread(fd, 100, 0) == b"z" * 100
            assert fetched.entry.token == (await case.remote.stat(b"file")).token
            end = await case.remote.fetch(b"file", 299_000, 10_000, fd)
            assert end.length == 1000
            assert (await case.remote.fetch(b"file", 400_000, 10, fd)).length == 0
            assert os.fstat(fd).st_size == 300_000

    run(body)


def test_fetch_replaces_stale_bytes_with_holes(run):
    async def body(case: Case) -> None:
        with open(case.at(b"sparse"), "wb") as file:
            file.truncate(1 << 20)
            file.seek(1 << 19)
            file.write(b"middle")
        with cache_file(b"stale" * 100_000) as fd:
            fetched = await case.remote.fetch(b"sparse", 0, 1 << 20, fd)
            assert fetched.length == 1 << 20
            assert os.pread(fd, 1 << 20, 0) == case.read(b"sparse")

    run(body)


def test_only_files_have_content(run):
    async def body(case: Case) -> None:
        os.mkdir(case.at(b"dir"))
        os.mkfifo(case.at(b"fifo"))
        for path in (b"dir", b"fifo"):
            with pytest.raises(RemoteError), cache_file() as fd:
                await asyncio.wait_for(case.remote.fetch(path, 0, 1, fd), 60)

    run(body)


def test_digest(run):
    async def body(case: Case) -> None:
        for data in (b"", b"x", os.urandom(3_000_000)):
            case.write(b"file", data)
            digest = await case.remote.digest(b"file")
            assert digest.blake2b == hashlib.blake2b(data, digest_size=32).digest()
            assert digest.entry.token == (await case.remote.stat(b"file")).token

    run(body)


def test_big_sparse_files_go_both_ways(run, tmp_path):
    async def body(case: Case) -> None:
        size = 96 << 20
        with open(tmp_path / "cache", "w+b") as cache:
            cache.truncate(size)
            for offset in (0, 10 << 20, size - 7):
                os.pwrite(cache.fileno(), b"content", offset)
            staged = await case.remote.stage("big", b"", cache.fileno(), size, Attributes())
            assert staged.size == size
        from awayfs.core.types import ABSENT

        assert isinstance(await case.remote.replace("big", b"big", ABSENT), Committed)
        with open(tmp_path / "back", "w+b") as back:
            fetched = await case.remote.fetch(b"big", 0, size, back.fileno())
            assert fetched.length == size
        wanted = hashlib.sha256((tmp_path / "cache").read_bytes()).digest()
        assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == wanted
        assert hashlib.sha256(case.read(b"big")).digest() == wanted

    run(body)


def test_an_edit_shows_in_the_token_or_the_token_was_weak(run):
    async def body(case: Case) -> None:
        path = case.at(b"file")
        with open(path, "wb") as file:
            file.write(b"0000")
        fd = os.open(path, os.O_WRONLY)
        for number in range(1, 200):
            before = await case.remote.stat(b"file")
            os.pwrite(fd, b"%04d" % number, 0)
            after = await case.remote.stat(b"file")
            assert after.token != before.token or before.weak or after.weak
        os.close(fd)

    run(body)


def test_tokens_become_strong_with_age_where_they_can(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"x")
        young = await case.remote.stat(b"file")
        await asyncio.sleep(2.5)
        old = await case.remote.stat(b"file")
        assert old.token == young.token
        assert not old.weak

    run(body)


def test_file_ids_survive_renames_and_are_not_reused(run):
    async def body(case: Case) -> None:
        case.needs("stable_ids")
        seen = set()
        for number in range(50):
            case.write(b"file", b"%d" % number)
            first = await case.remote.stat(b"file")
            os.rename(case.at(b"file"), case.at(b"moved"))
            assert (await case.remote.stat(b"moved")).file_id == first.file_id
            assert first.file_id not in seen
            seen.add(first.file_id)
            os.unlink(case.at(b"moved"))

    run(body)


def test_xattrs(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"")
        os.symlink(b"x", case.at(b"link"))
        assert await case.remote.xattrs(b"file") == {}
        case.needs("xattrs")
        before = await case.remote.stat(b"file")
        same = Expected(before.token, before.file_id, before.kind, content=False)
        told = await case.remote.set_xattr(b"file", b"user.k\xff", b"v\0\xff", same)
        assert isinstance(told, Committed) and told.entry and told.entry.token != before.token
        assert await case.remote.xattrs(b"file") == {b"user.k\xff": b"v\0\xff"}
        assert os.getxattr(case.at(b"file"), b"user.k\xff") == b"v\0\xff"
        await case.remote.set_xattr(b"file", b"user.k\xff", None, same)
        assert await case.remote.xattrs(b"file") == {}
        with pytest.raises(Refused) as missing:
            await case.remote.set_xattr(b"file", b"user.k\xff", None, None)
        assert missing.value.errno == errno.ENODATA
        with pytest.raises(Refused):
            await case.remote.set_xattr(b"file", b"trusted.k", b"v", same)
        os.rename(case.at(b"file"), case.at(b"was file"))
        os.mkdir(case.at(b"file"))
        assert isinstance(await case.remote.set_xattr(b"file", b"user.k", b"v", same), Mismatch)
        assert os.listxattr(case.at(b"file")) == os.listxattr(case.at(b"was file")) == []
        assert await case.remote.xattrs(b"link") == {}

    run(body)


def test_space(run):
    async def body(case: Case) -> None:
        space = await case.remote.space()
        real = os.statvfs(case.root)
        assert space.blocks * space.block_size == real.f_blocks * real.f_frsize
        assert 0 < space.blocks_available <= space.blocks_free <= space.blocks
        assert space.name_max == 255

    run(body)


def test_a_missing_root_proves_nothing(run):
    async def body(case: Case) -> None:
        case.write(b"file", b"")
        os.rename(case.root, case.root + b"-moved")
        try:
            for call in (
                case.remote.probe(),
                case.remote.stat(b"file"),
                case.remote.list(b""),
                case.remote.connect(),
            ):
                with pytest.raises((Unreachable, WrongServer)):
                    await call
        finally:
            os.rename(case.root + b"-moved", case.root)
        await case.remote.connect()
        assert (await case.remote.stat(b"file")).name == b"file"

    run(body)


def test_another_root_is_another_server(run):
    async def body(case: Case) -> None:
        case.needs("stable_ids")
        case.write(b"file", b"")
        os.rename(case.root, case.root + b"-moved")
        os.mkdir(case.root)
        for call in (case.remote.probe(), case.remote.stat(b"file"), case.remote.list(b"")):
            with pytest.raises(WrongServer):
                await call

    run(body)


def test_many_small_files_come_at_once(run):
    """What did not come is None, and says nothing of the others."""

    async def body(case: Case) -> None:
        os.mkdir(case.at(b"d"))
        contents = {b"d/%d" % n: os.urandom(n * 37 % 5000) for n in range(1, 700)}
        contents[b"larger"] = os.urandom(60_000)
        for path, data in contents.items():
            case.write(path, data)
        os.symlink(b"larger", case.at(b"symlink"))
        os.symlink(b"d", case.at(b"way"))
        os.mkfifo(case.at(b"fifo"))
        wrong = [b"symlink", b"fifo", b"d", b"gone", b"way/5", b"gone/below"]
        pieces, offset = [], 0
        for path in [*wrong[:3], *contents, *wrong[3:]]:
            length = len(contents.get(path, b"12345"))
            pieces.append(Piece(path, length, offset))
            offset += length
        with cache_file() as fd:
            answers = await case.remote.fetch_many(pieces, fd)
            for piece, landed in zip(pieces, answers, strict=True):
                if piece.path in wrong:
                    assert landed is None, piece.path
                else:
                    token = (await case.remote.stat(piece.path)).token
                    assert landed == Landed(piece.length, token)
                    read = os.pread(fd, piece.length, piece.offset)
                    assert read == contents[piece.path], piece.path

    run(body)


def test_small_files_that_became_longer_or_shorter_show_it(run):
    async def body(case: Case) -> None:
        case.write(b"a", b"12345678")
        case.write(b"b", b"123")
        with cache_file() as fd:
            longer, shorter = await case.remote.fetch_many(
                [Piece(b"a", 5, 0), Piece(b"b", 5, 5)], fd
            )
            assert longer == Landed(5, (await case.remote.stat(b"a")).token)
            assert shorter == Landed(3, (await case.remote.stat(b"b")).token)
            assert os.pread(fd, 20, 0) == b"12345123"

    run(body)


def test_two_batches_and_a_cancelled_one_share_the_way(run):
    async def body(case: Case) -> None:
        for n in range(300):
            case.write(b"%d" % n, b"%03d" % n)
        pieces = [Piece(b"%d" % n, 3, n * 3) for n in range(300)]
        with cache_file() as one, cache_file() as two, cache_file() as three:
            given_up = asyncio.ensure_future(case.remote.fetch_many(pieces, three))
            rest = asyncio.gather(*(case.remote.fetch_many(pieces, fd) for fd in (one, two)))
            await asyncio.sleep(0)  # begun, and not over yet
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            for answers in await rest:
                assert None not in answers
            wanted = b"".join(b"%03d" % n for n in range(300))
            assert os.pread(one, 1000, 0) == os.pread(two, 1000, 0) == wanted

    run(body)

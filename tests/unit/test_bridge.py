"""Bridge, volume and store over a fake kernel and a directory: what no mount is needed for."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from awayfs.core.modes import Mode, ModeState
from awayfs.fuse import bridge_files, wire
from awayfs.fuse.bridge import Bridge
from awayfs.fuse.bridge_shared import Shared
from awayfs.fuse.session import Session
from awayfs.remotes.directory import DirectoryRemote
from awayfs.store.store import Store
from awayfs.testing.fake_kernel import ROOT, FakeKernel
from awayfs.volume.context import Context, NoKernel, VolumeOptions
from awayfs.volume.link import Link
from awayfs.volume.volume import Volume


class Setup:
    """A fake kernel's mount of a directory."""

    def __init__(self, kernel: FakeKernel, volume: Volume, server: str, shared: Shared) -> None:
        self.kernel, self.volume, self.server, self.shared = kernel, volume, server, shared

    async def drained(self) -> None:
        """The journal is empty."""
        async with asyncio.timeout(60):
            while self.volume.store.journal.count():
                self.volume.replay.wake()
                await asyncio.sleep(0.01)

    def there(self, name: str) -> bytes:
        """A file's content on the server."""
        with open(os.path.join(self.server, name), "rb") as file:
            return file.read()

    def put(self, name: str, data: bytes) -> None:
        """Write a file on the server."""
        with open(os.path.join(self.server, name), "wb") as file:
            file.write(data)


@asynccontextmanager
async def mounted(
    base: str, *, distinct: bool = False, volume_options: dict[str, Any] | None = None
) -> AsyncIterator[Setup]:
    """Everything but a kernel: the volume is connected and begins to replay."""
    server, state = f"{base}/server", f"{base}/state"
    for directory in (server, state):
        os.makedirs(directory, exist_ok=True)
    store = Store.open(state, create=True)
    remote = DirectoryRemote(os.fsencode(server))
    starting = ModeState(Mode.DISCONNECTED, False, "starting", time.time_ns())
    link = Link(remote, time.time_ns, starting)
    chosen = {"fresh_s": 0.0, "uid": os.getuid(), "gid": os.getgid(), **(volume_options or {})}
    options = VolumeOptions(**chosen)
    volume = Volume(Context(store, link, options, time.time_ns), "test")
    await link.connect()
    async with FakeKernel() as kernel:
        kernel.uid, kernel.gid = os.getuid(), os.getgid()
        shared = Shared(volume)
        session = Session(kernel.fd, Bridge(shared, distinct_errno=distinct).handlers)
        session.attach()
        await kernel.init()
        volume.start()
        try:
            yield Setup(kernel, volume, server, shared)
        finally:
            session.close()
            await asyncio.wait([asyncio.ensure_future(session.wait_closed())])
            await volume.stop()
            store.close()
    kernel.close_daemon_end()


def run(base: Any, test: Callable[[Setup], Awaitable[None]], **options: Any) -> None:
    """One test in one event loop, with a limit."""

    async def inside() -> None:
        async with mounted(str(base), **options) as setup:
            await test(setup)

    asyncio.run(asyncio.wait_for(inside(), 90))


async def error_of(call: Awaitable[Any]) -> str:
    """The errno that a request ends in."""
    with pytest.raises(OSError) as caught:
        await call
    return errno.errorcode[caught.value.errno or 0]


def test_who_opens_a_new_file_beside_its_writer_passes_by_the_page_cache_too(
    tmp_path: Any,
) -> None:
    """Else a page that is read while it is written to would be the old one for good."""

    async def body(s: Setup) -> None:
        s.shared.direct = True
        forgotten: list[int] = []
        s.volume.context.kernel = NoKernel()
        s.volume.context.kernel.forget_node = forgotten.append  # type: ignore[method-assign]
        entry, writer = await s.kernel.create(ROOT, b"new", flags=os.O_WRONLY)
        assert writer.flags & wire.FOPEN_DIRECT_IO
        others = [await s.kernel.open(entry.nodeid, how) for how in (os.O_RDONLY, os.O_RDWR)]
        for other in others:
            assert other.flags & wire.FOPEN_DIRECT_IO
            assert not other.flags & wire.FOPEN_KEEP_CACHE
        assert entry.nodeid not in forgotten
        await s.kernel.release(entry.nodeid, writer.fh)
        assert entry.nodeid in forgotten, "what a mapping may have brought back"
        later = await s.kernel.open(entry.nodeid)
        assert not later.flags & wire.FOPEN_DIRECT_IO
        for one in (*others, later):
            await s.kernel.release(entry.nodeid, one.fh)

    run(tmp_path, body)


def test_a_file_goes_to_the_server_and_comes_from_it(tmp_path: Any) -> None:
    async def body(s: Setup) -> None:
        await s.kernel.write_file(ROOT, b"here", b"made here")
        s.put("there", b"made there")
        entry = await s.kernel.lookup(ROOT, b"there")
        assert await s.kernel.read_file(entry.nodeid) == b"made there"
        await s.drained()
        assert s.there("here") == b"made here"
        assert {e.name for e in await s.kernel.listdir(ROOT)} >= {b"here", b"there"}

    run(tmp_path, body)


def test_names_change_on_both_sides(tmp_path: Any) -> None:
    async def body(s: Setup) -> None:
        directory = (await s.kernel.mkdir(ROOT, b"d")).nodeid
        file = (await s.kernel.write_file(directory, b"f", b"1")).nodeid
        await s.kernel.link(file, ROOT, b"second")
        await s.kernel.symlink(ROOT, b"link", b"d/f")
        await s.kernel.rename(directory, b"f", ROOT, b"moved")
        assert (await s.kernel.getattr(file)).nlink == 2
        assert await error_of(s.kernel.unlink(ROOT, b"d")) == "EISDIR"
        assert await error_of(s.kernel.rmdir(ROOT, b"moved")) == "ENOTDIR"
        assert await error_of(s.kernel.rename(ROOT, b"none", ROOT, b"x")) == "ENOENT"
        assert await error_of(s.kernel.mkdir(ROOT, b"moved")) == "EEXIST"
        await s.kernel.rmdir(ROOT, b"d")
        await s.drained()
        assert sorted(os.listdir(s.server)) == ["link", "moved", "second"]
        assert os.stat(f"{s.server}/moved").st_nlink == 2
        assert os.readlink(f"{s.server}/link") == "d/f"

    run(tmp_path, body)


def test_truncating_at_open_leaves_nothing_behind(tmp_path: Any) -> None:
    async def body(s: Setup) -> None:
        s.put("file", b"a long text that was there before")
        node = (await s.kernel.lookup(ROOT, b"file")).nodeid
        opened = await s.kernel.open(node, os.O_WRONLY | os.O_TRUNC)
        await s.kernel.write(node, opened.fh, b"short")
        await s.kernel.release(node, opened.fh)
        assert (await s.kernel.getattr(node)).size == 5
        await s.drained()
        assert s.there("file") == b"short"

    run(tmp_path, body)


def test_attributes_and_extended_attributes(tmp_path: Any) -> None:
    async def body(s: Setup) -> None:
        node = (await s.kernel.write_file(ROOT, b"f", b"x")).nodeid
        attr = await s.kernel.setattr(node, mode=0o600)
        assert stat.S_IMODE(attr.mode) == 0o600
        await s.kernel.setxattr(node, b"user.a", b"1")
        assert await s.kernel.listxattr(node) == [b"user.a"]
        assert await error_of(s.kernel.getxattr(node, b"user.b")) == "ENODATA"
        assert await error_of(s.kernel.setxattr(node, b"trusted.x", b"1")) == "ENOTSUP"
        assert b"dirty" in await s.kernel.getxattr(node, b"user.awayfs.state")
        await s.drained()
        assert await s.kernel.getxattr(node, b"user.awayfs.state") == b"clean"
        assert stat.S_IMODE(os.stat(f"{s.server}/f").st_mode) == 0o600
        assert os.getxattr(f"{s.server}/f", "user.a") == b"1"

    run(tmp_path, body)


@pytest.mark.parametrize("distinct", [False, True])
def test_what_is_not_here_has_its_own_error_offline(tmp_path: Any, distinct: bool) -> None:
    async def body(s: Setup) -> None:
        s.put("file", b"content")
        os.mkdir(f"{s.server}/unlisted")
        node = (await s.kernel.lookup(ROOT, b"file")).nodeid
        directory = (await s.kernel.lookup(ROOT, b"unlisted")).nodeid
        s.volume.link.offline_by_hand()
        opened = await s.kernel.open(node)
        with pytest.raises(OSError) as reading:
            await s.kernel.read(node, opened.fh)
        with pytest.raises(OSError) as looking:
            await s.kernel.lookup(directory, b"x")
        codes = (reading.value.errno, looking.value.errno)
        assert codes == ((502, 501) if distinct else (errno.ENODATA, errno.ENETDOWN))
        await s.kernel.release(node, opened.fh)
        await s.kernel.write_file(ROOT, b"offline", b"made offline")
        assert (await s.kernel.lookup(ROOT, b"offline")).attr.size == 12

    run(tmp_path, body, distinct=distinct)


def test_an_unlinked_open_file_works_on_and_is_not_sent(tmp_path: Any) -> None:
    async def body(s: Setup) -> None:
        entry, opened = await s.kernel.create(ROOT, b"gone", os.O_RDWR)
        await s.kernel.write(entry.nodeid, opened.fh, b"before")
        await s.kernel.unlink(ROOT, b"gone")
        await s.kernel.write(entry.nodeid, opened.fh, b" after", 6)
        assert await s.kernel.read(entry.nodeid, opened.fh) == b"before after"
        assert (await s.kernel.getattr(entry.nodeid, opened.fh)).nlink == 0
        await s.kernel.release(entry.nodeid, opened.fh)
        await s.drained()
        assert os.listdir(s.server) == []

    run(tmp_path, body)


def test_an_unknown_hard_link_of_a_file_that_is_going_out_is_no_rename(tmp_path: Any) -> None:
    """The upload makes a new object; the old one, seen under its other name, is a file apart."""

    async def body(s: Setup) -> None:
        s.put("one", b"old content")
        os.mkdir(f"{s.server}/d")
        os.link(f"{s.server}/one", f"{s.server}/d/two")
        node = (await s.kernel.lookup(ROOT, b"one")).nodeid
        directory = (await s.kernel.lookup(ROOT, b"d")).nodeid
        replace = s.volume.link.remote.replace
        seen: list[bytes] = []

        async def not_found(node: int, _count: int) -> int:  # as in a share of many directories
            return len(s.volume.store.server.names(node))

        async def replace_and_look(*args: Any) -> Any:
            outcome = await replace(*args)
            if not seen:  # another's lookup comes between the act and its commit
                other = await s.kernel.lookup(directory, b"two")
                seen.append(await s.kernel.read_file(other.nodeid))
            return outcome

        s.volume.observer.find_names = not_found  # type: ignore[method-assign]
        s.volume.link.remote.replace = replace_and_look  # type: ignore[method-assign]
        opened = await s.kernel.open(node, os.O_WRONLY)
        await s.kernel.write(node, opened.fh, b"NEW")
        await s.kernel.release(node, opened.fh)
        await s.drained()
        assert seen == [b"old content"]
        assert (await s.kernel.lookup(ROOT, b"one")).nodeid == node
        assert (s.there("one"), s.there("d/two")) == (b"NEW content", b"old content")

    run(tmp_path, body)


def test_who_is_interrupted_while_his_write_is_sent_has_written(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With writes=through. Told EINTR, he would write again, at the end of a log for example."""

    async def body(s: Setup) -> None:
        entry, opened = await s.kernel.create(ROOT, b"log", 0o644)

        async def never(_node: int) -> None:
            await asyncio.sleep(30)

        monkeypatch.setattr(s.volume.replay, "wait_for_node", never)
        form = wire.WRITE_IN.pack(fh=opened.fh, offset=0, size=4, write_flags=0, flags=0)
        unique = await s.kernel.start(wire.Opcode.WRITE, entry.nodeid, form + b"line")
        await s.kernel.statfs()
        await s.kernel.interrupt(unique)
        assert wire.WRITE_OUT.unpack(await s.kernel.finish(unique))["size"] == 4
        await s.kernel.release(entry.nodeid, opened.fh)

    run(tmp_path, body, volume_options={"writes": "through"})


@pytest.mark.parametrize("fails", ["_notice_mapped_writes", "drop_content", "closed"])
def test_nothing_is_left_of_a_file_whose_closing_failed(
    fails: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody closes it once more: whatever cannot be written down, it goes with its node."""

    async def body(s: Setup) -> None:
        backings: list[int] = []
        monkeypatch.setattr(
            bridge_files, "close_backing", lambda _, number: backings.append(number)
        )
        s.put("file", b"content")
        node = (await s.kernel.lookup(ROOT, b"file")).nodeid
        handle = await s.kernel.open(node, os.O_RDWR)
        assert await s.kernel.read(node, handle.fh) == b"content"
        base = s.volume.store.server.get(node)
        await s.kernel.unlink(ROOT, b"file")
        await s.drained()
        opened = s.volume.context.opened.get(node)
        assert opened is not None
        opened.passthrough = 7
        opened.outdated = fails == "drop_content"
        monkeypatch.setattr(s.volume.store.server, "get", lambda _: base)
        owner = {"drop_content": s.volume._adopter, "closed": s.volume.culling}
        monkeypatch.setattr(owner.get(fails, s.volume.files), fails, failing)
        assert await error_of(s.kernel.release(node, handle.fh)) == "ENOSPC"
        monkeypatch.undo()
        assert not s.shared.handles and not s.volume.context.opened.all() and backings == [7]
        assert s.volume.store.nodes.get(node) is None

    run(tmp_path, body)


def failing(*_: object) -> None:
    raise OSError(errno.ENOSPC, "no room")


def test_what_close_says_of_the_cache_file_makes_nobody_forget_what_was_written(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def closed(fd: int) -> None:
        close(fd)
        if fd in failing_fds:
            raise OSError(errno.EIO, "not written back")

    failing_fds: set[int] = set()

    async def body(s: Setup) -> None:
        entry, handle = await s.kernel.create(ROOT, b"file", os.O_RDWR)
        await s.kernel.write(entry.nodeid, handle.fh, b"content")
        opened = s.volume.context.opened.get(entry.nodeid)
        assert opened is not None and opened.unsaved
        failing_fds.add(opened.fd)
        monkeypatch.setattr(os, "close", closed)
        await s.kernel.release(entry.nodeid, handle.fh)
        monkeypatch.undo()
        assert (await s.kernel.getattr(entry.nodeid)).size == len(b"content")
        await s.drained()
        assert s.there("file") == b"content"

    run(tmp_path, body)


def test_a_file_that_is_opened_again_at_once_has_no_backing_file_of_before(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel knows none of that number any more, and refuses to open it."""

    async def body(s: Setup) -> None:
        backings: list[int] = []
        monkeypatch.setattr(
            bridge_files, "close_backing", lambda _, number: backings.append(number)
        )
        s.volume.link.offline_by_hand()
        entry, handle = await s.kernel.create(ROOT, b"file", os.O_RDWR)
        opened = s.volume.context.opened.get(entry.nodeid)
        assert opened is not None
        opened.passthrough = 7
        await s.kernel.write(entry.nodeid, handle.fh, b"content")
        await s.kernel.release(entry.nodeid, handle.fh)
        assert backings == [7]
        again = await s.kernel.open(entry.nodeid, os.O_RDWR)
        assert not again.flags & wire.FOPEN_PASSTHROUGH
        await s.kernel.release(entry.nodeid, again.fh)
        assert backings == [7]

    run(tmp_path, body)

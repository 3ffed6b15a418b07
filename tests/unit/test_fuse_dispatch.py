"""A session against a fake kernel: every operation, every way to fail, and its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awayfs.fuse import requests, wire
from awayfs.fuse.negotiate import Negotiated, SessionError, SessionOptions, negotiate
from awayfs.fuse.notify import Notifier
from awayfs.fuse.replies import attr_out
from awayfs.fuse.session import Ended, Session
from awayfs.fuse.wire import Init, Notify, Opcode
from awayfs.testing.fake_connection import EVERYTHING
from awayfs.testing.fake_kernel import ROOT, FakeKernel
from awayfs.testing.fake_replies import ProtocolViolation
from awayfs.testing.memory_fs import IOCTL_INCREMENT, MemoryFS


class Setup:
    """A fake kernel, a session and a file system, connected."""

    def __init__(self, kernel: FakeKernel, session: Session, fs: MemoryFS) -> None:
        self.kernel, self.session, self.fs = kernel, session, fs


@asynccontextmanager
async def connected(
    *, init: bool = True, want: SessionOptions | None = None, **handlers: Any
) -> AsyncIterator[Setup]:
    """A session of a MemoryFS, with `handlers` (by request's name) instead of its own."""
    fs = MemoryFS()
    table = dict(fs.handlers)
    for name, handler in handlers.items():
        kind = getattr(requests, name)
        table.pop(kind, None)
        if handler is not None:
            table[kind] = handler
    async with FakeKernel() as kernel:
        session = Session(kernel.fd, table, want=want)
        session.attach()
        if init:
            await kernel.init()
        try:
            yield Setup(kernel, session, fs)
        finally:
            session.close()
            await asyncio.wait([asyncio.ensure_future(session.wait_closed())])
    kernel.close_daemon_end()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 90))


# what INIT settles


def offer(minor: int = wire.MINOR, flags: Init = EVERYTHING, major: int = 7) -> bytes:
    return wire.INIT_IN_EXT.pack(
        major=major,
        minor=minor,
        max_readahead=1 << 17,
        flags=flags & 0xFFFFFFFF,
        flags2=flags >> 32,
    )


def settle(body: bytes, **options: Any) -> Negotiated:
    reply, settled = negotiate(body, SessionOptions(**options))
    assert settled is not None
    assert len(reply) == wire.INIT_OUT.size
    return settled


@pytest.mark.parametrize(("minor", "used"), [(31, 31), (38, 38), (45, 45), (99, wire.MINOR)])
def test_the_older_protocol_is_used(minor: int, used: int) -> None:
    assert settle(offer(minor)).minor == used


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 40)])
def test_an_old_kernel_is_refused(major: int, minor: int) -> None:
    with pytest.raises(SessionError, match=f"FUSE {major}.{minor}; awayfs needs 7.31"):
        negotiate(offer(minor, major=major), SessionOptions())


def test_a_kernel_with_a_newer_major_is_told_ours() -> None:
    reply, settled = negotiate(offer(major=8), SessionOptions())
    assert settled is None
    assert wire.INIT_OUT.unpack(reply)["major"] == 7


def test_nothing_is_asked_that_is_not_offered() -> None:
    for bit in range(43):
        settled = settle(offer(flags=Init(1 << bit) | Init.INIT_EXT))
        assert settled.flags & ~(Init(1 << bit) | Init.INIT_EXT) == 0


UNWANTED = (
    Init.POSIX_LOCKS
    | Init.FLOCK_LOCKS
    | Init.POSIX_ACL
    | Init.SUBMOUNTS
    | Init.NO_OPEN_SUPPORT
    | Init.NO_OPENDIR_SUPPORT
    | Init.AUTO_INVAL_DATA
    | Init.WRITEBACK_CACHE
    | Init.PASSTHROUGH
    | Init.SECURITY_CTX
    | Init.CREATE_SUPP_GROUP
    | Init.SETXATTR_EXT
    | Init.OVER_IO_URING
    | Init.REQUEST_TIMEOUT
    | Init.READDIRPLUS_AUTO
    | Init.NO_EXPORT_SUPPORT
)


def test_what_would_change_the_meaning_is_not_asked_by_default() -> None:
    assert settle(offer()).flags & UNWANTED == 0


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("writeback", Init.WRITEBACK_CACHE),
        ("passthrough", Init.PASSTHROUGH),
        ("readdirplus_auto", Init.READDIRPLUS_AUTO),
    ],
)
def test_an_option_asks_for_its_flag(option: str, flag: Init) -> None:
    assert flag in settle(offer(), **{option: True}).flags


def test_writers_pass_by_the_page_cache_where_the_kernel_keeps_it_coherent() -> None:
    assert settle(offer(flags=EVERYTHING)).direct
    assert not settle(offer(flags=EVERYTHING & ~Init.DIRECT_IO_ALLOW_MMAP)).direct
    assert not settle(offer(flags=EVERYTHING), writeback=True).direct


def test_passthrough_and_writeback_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude"):
        SessionOptions(writeback=True, passthrough=True)


def test_upper_flags_count_only_with_the_extension() -> None:
    without = settle(offer(flags=EVERYTHING & ~Init.INIT_EXT), passthrough=True)
    short = settle(offer()[: wire.INIT_IN.size], passthrough=True)
    assert not without.passthrough
    assert not short.passthrough


def test_writes_are_small_without_max_pages() -> None:
    assert settle(offer()).max_write == 1 << 20
    assert settle(offer(flags=EVERYTHING & ~Init.MAX_PAGES)).max_write == 1 << 17


def test_the_session_says_what_was_settled() -> None:
    async def test() -> None:
        async with connected(init=False) as setup:
            with pytest.raises(RuntimeError):
                _ = setup.session.negotiated
            waiting = asyncio.create_task(setup.session.wait_ready())
            await setup.kernel.init()
            assert (await waiting) == setup.session.negotiated
            assert setup.session.negotiated.max_readahead == 1 << 17
            assert setup.session.negotiated.epoch

    run(test)


def test_the_session_of_an_old_kernel_ends_with_the_reason() -> None:
    async def test() -> None:
        fs = MemoryFS()
        async with FakeKernel(minor=30) as kernel:
            session = Session(kernel.fd, fs.handlers)
            session.attach()
            with pytest.raises(OSError, match="Protocol error"):
                await kernel.init()
            with pytest.raises(SessionError, match=r"7.30"):
                await session.wait_closed()
            with pytest.raises(SessionError, match=r"7.30"):
                await session.wait_ready()
        kernel.close_daemon_end()

    run(test)


# every operation


def test_names() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            directory = await kernel.mkdir(ROOT, b"dir", 0o777)
            assert stat.S_IMODE(directory.attr.mode) == 0o755
            file = await kernel.write_file(directory.nodeid, b"file", b"content")
            assert (await kernel.walk(b"dir/file")).nodeid == file.nodeid
            assert await kernel.read_file(file.nodeid) == b"content"
            linked = await kernel.link(file.nodeid, ROOT, b"linked")
            assert linked.attr.nlink == 2
            symlink = await kernel.symlink(ROOT, b"symlink", b"dir/file")
            assert await kernel.readlink(symlink.nodeid) == b"dir/file"
            pipe = await kernel.mknod(ROOT, b"pipe", stat.S_IFIFO | 0o666)
            assert stat.S_ISFIFO(pipe.attr.mode)
            device = await kernel.mknod(ROOT, b"device", stat.S_IFCHR | 0o600, os.makedev(300, 999))
            assert device.attr.rdev == os.makedev(300, 999)
            await kernel.rename(ROOT, b"linked", directory.nodeid, b"moved")
            with pytest.raises(FileExistsError):
                await kernel.rename(ROOT, b"pipe", ROOT, b"symlink", wire.RENAME_NOREPLACE)
            await kernel.rename(ROOT, b"pipe", ROOT, b"symlink", wire.RENAME_EXCHANGE)
            assert (await kernel.lookup(ROOT, b"pipe")).nodeid == symlink.nodeid
            with pytest.raises(OSError, match="not empty"):
                await kernel.rmdir(ROOT, b"dir")
            await kernel.unlink(directory.nodeid, b"file")
            await kernel.unlink(directory.nodeid, b"moved")
            await kernel.rmdir(ROOT, b"dir")
            with pytest.raises(FileNotFoundError):
                await kernel.lookup(ROOT, b"dir")
            assert (await kernel.lookup(ROOT, b"..")).nodeid == ROOT

    run(test)


def test_attributes() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            file = await kernel.write_file(ROOT, b"file", b"0123456789")
            assert (await kernel.getattr(file.nodeid)).size == 10
            attr = await kernel.setattr(
                file.nodeid, mode=0o600, uid=5, gid=6, size=4, atime_ns=-5, mtime_ns=7_000_000_008
            )
            assert (attr.mode, attr.uid, attr.gid, attr.size) == (0o100600, 5, 6, 4)
            assert (attr.atime_ns, attr.mtime_ns) == (-5, 7_000_000_008)
            assert (await kernel.statx(file.nodeid)).btime_ns > 10**18
            await kernel.access(file.nodeid, os.R_OK)
            assert (await kernel.statfs())["bavail"] == 500
            with pytest.raises(OSError, match="Stale"):
                await kernel.getattr(999)

    run(test)


def test_extended_attributes() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            await kernel.setxattr(ROOT, b"user.a", b"val\0ue")
            await kernel.setxattr(ROOT, b"user.b", b"")
            assert await kernel.getxattr(ROOT, b"user.a") == b"val\0ue"
            assert await kernel.getxattr_size(ROOT, b"user.a") == 6
            assert await kernel.listxattr(ROOT) == [b"user.a", b"user.b"]
            with pytest.raises(OSError) as caught:
                await kernel.getxattr(ROOT, b"user.a", 5)
            assert caught.value.errno == errno.ERANGE
            await kernel.removexattr(ROOT, b"user.a")
            with pytest.raises(OSError) as caught:
                await kernel.getxattr(ROOT, b"user.a")
            assert caught.value.errno == errno.ENODATA

    run(test)


def test_open_files() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            data = os.urandom(300_000)
            file = await kernel.write_file(ROOT, b"file", data)
            opened = await kernel.open(file.nodeid, os.O_RDWR)
            nodeid, fh = file.nodeid, opened.fh
            assert await kernel.read(nodeid, fh) == data
            assert await kernel.read(nodeid, fh, 299_990, 100) == data[-10:]
            await kernel.fallocate(nodeid, fh, 0, 400_000)
            assert (await kernel.getattr(nodeid, fh)).size == 400_000
            assert await kernel.lseek(nodeid, fh, 10, os.SEEK_HOLE) == 400_000
            with pytest.raises(OSError) as caught:
                await kernel.lseek(nodeid, fh, 400_001, os.SEEK_DATA)
            assert caught.value.errno == errno.ENXIO
            temporary, other = await kernel.tmpfile(ROOT)
            for wide in (True, False):
                copied = await kernel.copy_file_range(
                    (nodeid, fh, 5), (temporary.nodeid, other.fh, 0), 100, wide=wide
                )
                assert copied == 100
            assert await kernel.read(temporary.nodeid, other.fh) == data[5:105]
            result = await kernel.ioctl(nodeid, fh, IOCTL_INCREMENT, (41).to_bytes(8, "little"), 8)
            assert result == (0, (42).to_bytes(8, "little"))
            with pytest.raises(OSError) as caught:
                await kernel.ioctl(nodeid, fh, 1)
            assert caught.value.errno == errno.ENOTTY
            await kernel.fsync(nodeid, fh, data_only=True)
            await kernel.syncfs()
            await kernel.release(nodeid, fh)

    run(test)


@pytest.mark.parametrize("plus", [False, True])
def test_listings(plus: bool) -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            names = {b"n" * length for length in range(1, 200)}
            for name in names:
                await kernel.mknod(ROOT, name, stat.S_IFREG | 0o644)
            await kernel.forget_all()
            found = await kernel.listdir(ROOT, plus=plus, size=1000)
            assert {item.name for item in found} == names | {b".", b".."}
            assert len(found) == len(names) + 2
            assert all((item.entry is not None) == (plus and item.kind == 8) for item in found)
            opened = await kernel.opendir(ROOT)
            await kernel.fsyncdir(ROOT, opened.fh)
            assert dict(setup.fs.lookups._counts) == dict(kernel.lookups)
            assert sum(kernel.lookups.values()) == (len(names) if plus else 0)

    run(test)


def test_lookups_come_back_to_nothing() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            file = await kernel.write_file(ROOT, b"file", b"")
            await kernel.lookup(ROOT, b"file")
            await kernel.listdir(ROOT)
            await kernel.mkdir(ROOT, b"dir")
            assert setup.fs.lookups[file.nodeid] == 3
            await kernel.forget(file.nodeid, 1)
            await kernel.getattr(ROOT)
            assert setup.fs.lookups[file.nodeid] == 2
            await kernel.forget_all()
            await kernel.getattr(ROOT)
            assert len(setup.fs.lookups) == 0

    run(test)


def test_poll_and_its_wakeup() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel, fs = setup.kernel, setup.fs
            fs.notifier = notifier = Notifier(kernel.fd)
            try:
                file = await kernel.write_file(ROOT, b"pollable", b"")
                opened = await kernel.open(file.nodeid)
                assert await kernel.poll(file.nodeid, opened.fh, select.POLLIN, kh=77) == 0
                fs.wake()
                await notifier.drain()
                await kernel.getattr(ROOT)
                assert [(n.code, n.fields) for n in kernel.notifications] == [
                    (Notify.POLL, {"kh": 77})
                ]
                assert await kernel.poll(file.nodeid, opened.fh, select.POLLIN) == select.POLLIN
            finally:
                notifier.close()

    run(test)


def test_notifications() -> None:
    async def test() -> None:
        async with connected() as setup:
            notifier = Notifier(setup.kernel.fd)
            try:
                notifier.inval_inode(5)
                notifier.inval_inode(6, -1)
                notifier.inval_entry(1, b"name")
                notifier.inval_entry(1, b"soft", expire_only=True)
                assert notifier.bump_epoch()
                await notifier.drain()
                await setup.kernel.getattr(ROOT)
                assert notifier.sent == 5
            finally:
                notifier.close()
            told = [(n.code, n.fields, n.rest) for n in setup.kernel.notifications]
            assert told == [
                (Notify.INVAL_INODE, {"ino": 5, "off": 0, "len": 0}, b""),
                (Notify.INVAL_INODE, {"ino": 6, "off": -1, "len": 0}, b""),
                (Notify.INVAL_ENTRY, {"parent": 1, "namelen": 4, "flags": 0}, b"name"),
                (Notify.INVAL_ENTRY, {"parent": 1, "namelen": 4, "flags": 1}, b"soft"),
                (Notify.INC_EPOCH, {}, b""),
            ]

    run(test)


def test_an_older_kernel_is_not_told_what_it_does_not_know() -> None:
    notifier = Notifier(-1, minor=43)
    try:
        assert not notifier.bump_epoch()
    finally:
        notifier.close()
    assert (notifier.sent, notifier.missed) == (0, 0)


# how handlers fail


@pytest.mark.parametrize("code", [1, errno.EACCES, errno.ENETDOWN, 501, 505, 511])
def test_an_errno_reaches_the_caller(code: int) -> None:
    async def test() -> None:
        async with connected() as setup:
            with pytest.raises(OSError) as caught:
                await setup.kernel.lookup(ROOT, b"error-%d" % code)
            assert caught.value.errno == code

    run(test)


@pytest.mark.parametrize("name", [b"error-512", b"error-0", b"error--2", b"error-99999", b"broken"])
def test_what_no_errno_tells_is_eio_and_logged(
    name: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with connected() as setup:
            with pytest.raises(OSError) as caught:
                await setup.kernel.lookup(ROOT, name)
            assert caught.value.errno == errno.EIO
            await setup.kernel.getattr(ROOT)

    with caplog.at_level(logging.ERROR):
        run(test)
    assert "Traceback" in caplog.text


async def _later(outcome: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


BAD_RESULTS: dict[str, Callable[[Any], Any]] = {
    "None": lambda request: None,
    "None, later": lambda request: _later(None),
    "a string": lambda request: "reply",
    "a string, later": lambda request: _later("reply"),
    "a number": lambda request: 5,
    "a list of numbers": lambda request: [1, 2],
    "an exception, later": lambda request: _later(ValueError("on purpose")),
    "an errno too great, later": lambda request: _later(OSError(999, "on purpose")),
}


@pytest.mark.parametrize("case", BAD_RESULTS)
def test_a_bad_result_is_eio(case: str) -> None:
    async def test() -> None:
        async with connected(Getattr=BAD_RESULTS[case]) as setup:
            with pytest.raises(OSError) as caught:
                await setup.kernel.getattr(ROOT)
            assert caught.value.errno == errno.EIO
            assert setup.session.pending == 0
            await setup.kernel.statfs()

    run(test)


GOOD = attr_out(MemoryFS().root.attr)


@pytest.mark.parametrize(
    "result",
    [
        GOOD,
        bytearray(GOOD),
        memoryview(GOOD),
        [GOOD],
        (GOOD[:50], bytearray(GOOD[50:90]), memoryview(GOOD)[90:]),
    ],
    ids=lambda result: type(result).__name__,
)
@pytest.mark.parametrize("awaited", [False, True])
def test_a_reply_may_be_any_buffer(result: Any, awaited: bool) -> None:
    async def test() -> None:
        handler = (lambda request: _later(result)) if awaited else (lambda request: result)
        async with connected(Getattr=handler) as setup:
            assert (await setup.kernel.getattr(ROOT)).ino == 1

    run(test)


def test_a_future_is_as_good_as_a_coroutine() -> None:
    async def test() -> None:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        async with connected(Getattr=lambda request: future) as setup:
            asyncio.get_running_loop().call_later(0.01, future.set_result, GOOD)
            assert (await setup.kernel.getattr(ROOT)).ino == 1

    run(test)


def test_requests_are_served_while_others_wait() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            slow = [await kernel.start(Opcode.LOOKUP, ROOT, b"slow\0") for _ in range(10)]
            await kernel.getattr(ROOT)
            assert setup.session.pending == 10
            for unique in slow:
                await kernel.interrupt(unique)
            for unique in slow:
                with pytest.raises(InterruptedError):
                    await kernel.finish(unique)
            assert setup.session.pending == 0

    run(test)


def test_an_unknown_operation_is_enosys() -> None:
    async def test() -> None:
        async with connected(Flush=None) as setup:
            for opcode in (Opcode.FLUSH, Opcode.GETLK, Opcode.BMAP, Opcode.SETUPMAPPING, 4000):
                with pytest.raises(OSError) as caught:
                    await setup.kernel.call(opcode, ROOT, bytes(48))
                assert caught.value.errno == errno.ENOSYS

    run(test)


def test_before_init_nothing_is_handled() -> None:
    async def test() -> None:
        async with connected(init=False) as setup:
            with pytest.raises(OSError) as caught:
                await setup.kernel.call(Opcode.STATFS, ROOT)
            assert caught.value.errno == errno.EIO

    run(test)


def test_destroy_is_answered() -> None:
    async def test() -> None:
        async with connected() as setup:
            await setup.kernel.call(Opcode.DESTROY, 0, size=0)

    run(test)


# interrupts


def test_an_interrupt_cancels_the_task() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            unique = await kernel.start(Opcode.LOOKUP, ROOT, b"slow\0")
            await kernel.getattr(ROOT)
            await kernel.interrupt(unique)
            with pytest.raises(InterruptedError):
                await kernel.finish(unique)
            assert setup.fs.log == ["slow begins", "slow cancelled"]

    run(test)


def test_an_interrupt_right_behind_its_request_cancels_it() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            unique = kernel.next_unique()
            waiting = kernel.expect(unique)
            # both are there when the session wakes, so the task has not begun yet
            kernel._ours.send(kernel.message(Opcode.LOOKUP, ROOT, b"slow\0", unique))
            body = wire.INTERRUPT_IN.pack(unique=unique)
            kernel._ours.send(kernel.message(Opcode.INTERRUPT, 0, body, unique | 1))
            assert await waiting == (errno.EINTR, b"")
            assert setup.session.pending == 0

    run(test)


def test_a_handler_may_finish_in_spite_of_an_interrupt() -> None:
    async def stubborn(request: Any) -> bytes:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            pass
        return GOOD

    async def test() -> None:
        async with connected(Getattr=stubborn) as setup:
            unique = await setup.kernel.start(Opcode.GETATTR, ROOT, wire.GETATTR_IN.pack())
            await setup.kernel.statfs()
            await setup.kernel.interrupt(unique)
            assert await setup.kernel.finish(unique) == GOOD

    run(test)


def test_an_interrupt_of_what_is_not_known_is_eagain_once() -> None:
    async def test() -> None:
        async with connected() as setup:
            kernel = setup.kernel
            early = 1000
            waiting = kernel.expect(early | 1)
            await kernel.interrupt(early)
            assert await waiting == (errno.EAGAIN, b"")
            await kernel.interrupt(early)  # a second answer would be a violation
            await kernel.getattr(ROOT)

    run(test)


# malformed requests


def test_a_malformed_request_is_eio() -> None:
    async def test() -> None:
        async with connected() as setup:
            for opcode, body in [
                (Opcode.LOOKUP, b""),
                (Opcode.LOOKUP, b"no NUL"),
                (Opcode.GETATTR, b"short"),
                (Opcode.WRITE, wire.WRITE_IN.pack(size=100)),
                (Opcode.INTERRUPT, b""),
            ]:
                with pytest.raises(OSError) as caught:
                    await setup.kernel.call(opcode, ROOT, body)
                assert caught.value.errno == errno.EIO
            await setup.kernel.getattr(ROOT)

    run(test)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([*Opcode]), st.integers(0, 2**32 - 1)),
            st.integers(0, 3),
            st.binary(max_size=120),
            st.integers(-40, 3),
        ),
        max_size=20,
    )
)
def test_whatever_comes_is_answered_once(messages: list[tuple[int, int, bytes, int]]) -> None:
    quiet = wire.NO_REPLY | {Opcode.INTERRUPT, Opcode.INIT}

    async def test() -> None:
        logging.disable(logging.CRITICAL)
        async with connected(Lookup=lambda request: b"") as setup:
            kernel = setup.kernel
            waiting = []
            for opcode, nodeid, body, lie in messages:
                unique = kernel.next_unique()
                future = kernel.expect(unique)
                if opcode in quiet:
                    continue
                message = bytearray(kernel.message(opcode, nodeid, body, unique))
                if lie > 0:
                    message[0] ^= lie  # another length than it says
                elif lie < 0:
                    del message[max(16, len(message) + lie) :]
                await kernel.send_raw(bytes(message))
                waiting.append(future)
            for future in waiting:
                code, payload = await future
                assert 0 <= code <= wire.MAX_ERRNO
                assert not (code and payload)
            await kernel.getattr(ROOT)

    try:
        run(test)
    finally:
        logging.disable(logging.NOTSET)


@given(st.binary(max_size=15))
@settings(max_examples=20, deadline=None)
def test_a_message_without_unique_is_passed_over(data: bytes) -> None:
    async def test() -> None:
        async with connected() as setup:
            if data:
                await setup.kernel.send_raw(data)
            await setup.kernel.getattr(ROOT)

    run(test)


# the end


def test_unmounting_ends_the_session_and_its_tasks() -> None:
    async def test() -> None:
        async with connected() as setup:
            await setup.kernel.start(Opcode.LOOKUP, ROOT, b"slow\0")
            await setup.kernel.getattr(ROOT)
            setup.kernel.unmount()
            assert await setup.session.wait_closed() in (Ended.UNMOUNTED, Ended.ABORTED)
            assert setup.session.pending == 0
            assert setup.fs.log[-1] == "slow cancelled"

    run(test)


def test_closing_ends_the_session() -> None:
    async def test() -> None:
        async with connected() as setup:
            await setup.kernel.start(Opcode.LOOKUP, ROOT, b"slow\0")
            await setup.kernel.getattr(ROOT)
            setup.session.close()
            setup.session.close()
            assert await setup.session.wait_closed() is Ended.CLOSED
            assert setup.session.pending == 0

    run(test)


def test_a_session_that_ends_before_init_says_so() -> None:
    async def test() -> None:
        async with connected(init=False) as setup:
            setup.session.close()
            with pytest.raises(SessionError, match="before INIT"):
                await setup.session.wait_ready()

    run(test)


def test_requests_are_counted() -> None:
    async def test() -> None:
        async with connected() as setup:
            for _ in range(3):
                await setup.kernel.getattr(ROOT)
            assert setup.session.requests == {"INIT": 1, "GETATTR": 3}

    run(test)


def test_many_requests_leave_the_loop_its_turn() -> None:
    async def test() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async with connected() as setup:
            ticking = asyncio.create_task(tick())
            await asyncio.gather(*(setup.kernel.getattr(ROOT) for _ in range(500)))
            assert ticks > 500 // 64
            ticking.cancel()

    run(test)


# the fake kernel is strict itself


@pytest.mark.parametrize(
    "reply",
    [
        b"short",
        wire.OUT_HEADER.pack(len=17, unique=2),
        wire.OUT_HEADER.pack(len=16, error=-512, unique=2),
        wire.OUT_HEADER.pack(len=16, error=5, unique=2),
        wire.OUT_HEADER.pack(len=20, error=-5, unique=2) + b"more",
        wire.OUT_HEADER.pack(len=16, unique=4),
        wire.OUT_HEADER.pack(len=16, error=99),
    ],
)
def test_a_reply_that_a_kernel_would_refuse_is_a_violation(reply: bytes) -> None:
    async def test() -> None:
        with pytest.raises(ProtocolViolation):
            async with FakeKernel() as kernel:
                await kernel.start(Opcode.STATFS, ROOT)
                os.write(kernel.fd, reply)
                await asyncio.sleep(0.01)
        kernel.close_daemon_end()

    run(test)

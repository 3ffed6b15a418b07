"""One SFTP session, with a server that answers late, wrongly, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.errors import Implausible, NotFound, Refused, RemoteError, Unreachable
from awayfs.core.types import Attributes
from awayfs.ports.remote import Piece
from awayfs.remotes import progress
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_errors import Unsupported
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_small import SmallFiles
from awayfs.remotes.sftp_transfer import Transfer
from awayfs.remotes.sftp_view import View
from awayfs.remotes.sftp_wire import MOST_UNSENT, Wire

HEAD = struct.Struct(">IBI")
HANDLES = 2
ATTRS = packets.with_attributes(packets.ATTRS, b"", packets.Attributes(size=7))[1][4:]


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def status(code: int, text: bytes = b"no") -> bytes:
    return struct.pack(">I", code) + string(text) + string(b"en")


class Far:
    """The other end, in asyncssh's place: what was asked, and what it answers."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.pieces: list[bytes] = []
        self.asked: list[tuple[int, int, bytes]] = []
        self.aborted = False
        wire.connection_made(self)

    def get_extra_info(self, _name: str, _default: str) -> str:
        return "SSH-2.0-Other"

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes) -> None:
        if data != packets.INIT:  # a turn after the session was made
            self.pieces.append(data)
            self.asked += list(packets.Replies().feed(data))

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True

    def version(self, number: int = 3, extensions: bytes = b"") -> None:
        self.send(packets.VERSION, number, extensions)

    def send(self, kind: int, number: int, body: bytes) -> None:
        self.wire.data_received(HEAD.pack(5 + len(body), kind, number) + body, None)

    async def answer(self, kind: int, body: bytes, at: int = -1) -> None:
        """Answer the last request, or another one."""
        await asyncio.sleep(0)
        self.send(kind, self.asked[at][1], body)


def played(test: Callable[[Channel, Far], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        wire = Wire()
        far = Far(wire)
        known = b"".join(string(name) + string(v) for name, v in packets.KNOWN.items())
        far.version(extensions=known)
        await test(Channel(wire, b"/root", HANDLES), far)

    asyncio.run(whole())


def test_what_is_asked_in_one_turn_leaves_in_one_piece() -> None:
    async def test(channel: Channel, far: Far) -> None:
        looks = [channel.lstat(b"%d" % n) for n in range(5)]
        await asyncio.sleep(0)
        assert len(far.pieces) == 1 and len(far.asked) == 5
        for n, look in reversed(list(enumerate(looks))):
            await far.answer(packets.ATTRS, ATTRS, n)
            assert (await look).size == 7

    played(test)


def test_of_many_that_are_asked_in_one_turn_the_first_leave_before_its_end() -> None:
    async def test(channel: Channel, far: Far) -> None:
        looks = [channel.lstat(b"%d" % n) for n in range(MOST_UNSENT + 5)]
        assert len(far.pieces) == 1 and len(far.asked) == MOST_UNSENT
        await asyncio.sleep(0)
        assert len(far.pieces) == 2 and len(far.asked) == len(looks)
        channel.lstat(b"later")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(far.pieces) == 3 and all(far.pieces)

    played(test)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (packets.STATUS, status(2), NotFound),
        (packets.STATUS, status(0), Implausible),
        (packets.STATUS, b"\0", Implausible),
        (packets.DATA, string(b"x"), Implausible),
        (packets.ATTRS, ATTRS + b"\0", Implausible),
        (packets.ATTRS, b"", Implausible),
    ],
)
def test_an_answer_that_is_none_concerns_its_request_alone(
    kind: int, body: bytes, expected: type[RemoteError]
) -> None:
    async def test(channel: Channel, far: Far) -> None:
        look, other = channel.lstat(b"f"), channel.unlink(b"g")
        await far.answer(kind, body, 0)
        await far.answer(packets.STATUS, status(0), 1)
        with pytest.raises(expected):
            await look
        assert await other is None

    played(test)


def _another_number(far: Far) -> None:
    far.send(packets.STATUS, 12345, status(0))


def _the_same_number_twice(far: Far) -> None:
    far.send(packets.ATTRS, far.asked[0][1], ATTRS)
    far.send(packets.ATTRS, far.asked[0][1], ATTRS)


def _another_version(far: Far) -> None:
    far.version(3)


def _a_packet_of_gigabytes(far: Far) -> None:
    far.wire.data_received(struct.pack(">IBI", 0xFFFF_FFFF, 101, 1), None)


def _the_end(far: Far) -> None:
    far.wire.connection_lost(None)


def _no_more(far: Far) -> None:
    assert not far.wire.eof_received()


@pytest.mark.parametrize(
    "end",
    [
        *(_another_number, _the_same_number_twice, _another_version, _a_packet_of_gigabytes),
        *(_the_end, _no_more),
    ],
)
def test_who_waits_is_told_when_the_session_ends(end: Callable[[Far], None]) -> None:
    """Unreachable, whatever ended it: what was asked may have been done."""

    async def test(channel: Channel, far: Far) -> None:
        first, second = channel.lstat(b"f"), channel.rename_over(b"a", b"b")
        await asyncio.sleep(0)
        end(far)
        with contextlib.suppress(Unreachable):
            await first
        for lost in (second, channel.lstat(b"later")):
            with pytest.raises(Unreachable):
                await lost
        assert channel.silent_for() == 0.0

    played(test)


@pytest.mark.parametrize(
    ("first", "number", "body"),
    [
        (packets.VERSION, 4, b""),
        (packets.VERSION, 3, b"\0\0\0\7x"),
        (packets.STATUS, 1, status(0)),
    ],
)
def test_a_session_that_does_not_begin_as_it_should(first: int, number: int, body: bytes) -> None:
    async def play() -> None:
        wire = Wire()
        far = Far(wire)
        far.send(first, number, body)
        assert isinstance(wire.ended, Implausible) and far.aborted

    asyncio.run(play())


def test_handles_are_counted_until_they_are_closed() -> None:
    async def test(channel: Channel, far: Far) -> None:
        async def use(path: bytes) -> None:
            async with channel.opened(path, packets.FOR_READING):
                pass

        users = [asyncio.ensure_future(use(b"%d" % n)) for n in range(HANDLES + 2)]
        await asyncio.sleep(0.01)
        assert len(far.asked) == HANDLES
        await far.answer(packets.STATUS, status(2), 0)  # never open: the next one may go
        await far.answer(packets.HANDLE, string(b"h1"), 1)
        await asyncio.sleep(0.01)
        assert [kind for kind, _, _ in far.asked[HANDLES:]] == [packets.OPEN, packets.CLOSE]
        await far.answer(packets.STATUS, status(0))
        await asyncio.sleep(0.01)
        assert far.asked[-1][0] == packets.OPEN
        for user in users:
            user.cancel()
        await asyncio.wait(users)

    played(test)


def test_a_handle_that_comes_after_its_caller_was_cancelled_is_closed() -> None:
    async def test(channel: Channel, far: Far) -> None:
        async def use() -> None:
            async with channel.opened(b"f", packets.FOR_READING):
                raise AssertionError("cancelled before")

        user = asyncio.ensure_future(use())
        await asyncio.sleep(0.01)
        user.cancel()
        await asyncio.wait([user])
        await far.answer(packets.HANDLE, string(b"late"))
        await asyncio.sleep(0)
        assert far.asked[-1][0] == packets.CLOSE and far.asked[-1][2] == string(b"late")
        assert channel._open_handles._value == HANDLES - 1
        await far.answer(packets.STATUS, status(0))
        assert channel._open_handles._value == HANDLES

    played(test)


def test_a_handle_that_comes_as_its_caller_is_cancelled_is_closed() -> None:
    """Its caller has it already, and does not know."""

    async def test(channel: Channel, far: Far) -> None:
        async def use() -> None:
            async with channel.opened(b"f", packets.FOR_READING):
                raise AssertionError("cancelled before")

        for kind, body in ((packets.HANDLE, string(b"h")), (packets.STATUS, status(4))):
            user = asyncio.ensure_future(use())
            await asyncio.sleep(0.01)
            await far.answer(kind, body)
            user.cancel()
            await asyncio.wait([user])
            assert user.cancelled()
        await asyncio.sleep(0)
        assert [kind for kind, _, _ in far.asked] == [packets.OPEN, packets.CLOSE, packets.OPEN]
        assert channel._open_handles._value == HANDLES - 1
        await far.answer(packets.STATUS, status(0), 1)
        assert channel._open_handles._value == HANDLES

    played(test)


def test_a_listing_of_nothing_without_an_end() -> None:
    async def test(channel: Channel, far: Far) -> None:
        async def listed() -> int:
            return sum([len(block) async for block in channel.readdir(b"d")])

        listing = asyncio.ensure_future(listed())
        await asyncio.sleep(0.01)
        await far.answer(packets.HANDLE, string(b"h"))
        await asyncio.sleep(0.01)
        at = 1
        while not listing.done():
            assert at < 1000
            await far.answer(packets.NAME, bytes(4), at)
            await asyncio.sleep(0)
            at += 1
        with pytest.raises(Implausible):
            await listing

    played(test)


def test_more_data_than_was_asked_for() -> None:
    async def test(channel: Channel, far: Far) -> None:
        reading = asyncio.ensure_future(channel.read(b"h", 0, 4))
        await asyncio.sleep(0.01)
        await far.answer(packets.DATA, string(b"12345"))
        with pytest.raises(Implausible):
            await reading
        reading = asyncio.ensure_future(channel.read(b"h", 5, 4))
        await asyncio.sleep(0.01)
        await far.answer(packets.STATUS, status(1))
        assert await reading == b""

    played(test)


def test_an_extension_that_is_not_offered_is_not_asked_for() -> None:
    async def play() -> None:
        wire = Wire()
        far = Far(wire)
        far.version()
        channel = Channel(wire, b"/", HANDLES)
        for asked in (channel.hard_link(b"a", b"b"), channel.fsync(b"h"), channel.statvfs(b"")):
            with pytest.raises(Unsupported) as error:
                await asked
            assert error.value.errno == errno.EOPNOTSUPP
        await asyncio.sleep(0)
        assert far.asked == []

    asyncio.run(play())


@pytest.mark.parametrize(("swaps", "first"), [(True, b"target"), (False, b"/root/l")])
def test_the_order_of_a_symlinks_paths(swaps: bool, first: bytes) -> None:
    async def test(channel: Channel, far: Far) -> None:
        made = channel.symlink(b"target", b"l", swaps)
        await far.answer(packets.STATUS, status(0))
        assert await made is None
        assert far.asked[0][2].startswith(string(first))

    played(test)


@pytest.mark.parametrize("server", ["SSH-2.0-OpenSSH_9.2p1 Debian", "SSH-2.0-Go", "OpenSSH"])
@pytest.mark.parametrize("missing", [None, packets.LSETSTAT])
def test_who_counts_as_openssh(server: str, missing: bytes | None) -> None:
    """Its RENAME is relied on: a name alone, or what others have too, is not enough."""

    async def test(channel: Channel, _far: Far) -> None:
        channel.wire.server = server
        channel.wire.extensions -= {missing}
        assert channel.wire.is_openssh is ("OpenSSH_9" in server and missing is None)

    played(test)


def test_each_answer_is_a_sign_of_life_of_the_call_that_asked() -> None:
    async def test(channel: Channel, far: Far) -> None:
        heard: list[float] = []

        async def call() -> None:
            progress.listener.set(heard.append)
            await channel.lstat(b"f")

        running = asyncio.ensure_future(call())
        await asyncio.sleep(0.01)
        assert heard == [] and channel.silent_for() > 0
        await far.answer(packets.ATTRS, ATTRS)
        await running
        assert heard == [progress.KEEP]

    played(test)


U32 = st.sampled_from([0, 1, 2, 3, 7, 255, 1 << 31, 0xFFFF_FFFF]).map(
    lambda n: struct.pack(">I", n)
)
STRING = st.sampled_from([b"", b"h", b"..", b"a/b", b"a\0b", b"h" * 256, b"h" * 300]).map(string)
MANY_MORE = struct.pack(">II", 0x8000_0000, 0x7FFF_FFFF)
FILE = packets.with_attributes(packets.ATTRS, b"", packets.Attributes(7, 0, 0, 0o100644, 1, 1))[1][
    4:
]
PARTS = st.one_of(U32, STRING, st.sampled_from([ATTRS, FILE, MANY_MORE]), st.binary(max_size=60))
BODIES = st.one_of(
    st.sampled_from(
        [
            string(b"12345678"),
            ATTRS,
            FILE,
            status(0),
            status(1),
            status(4),
            status(4)[:9],
            b"\0\0\0\4",
        ]
    ),
    STRING,
    st.lists(PARTS, max_size=6).map(b"".join),
    st.builds(lambda n, name: n + (name + bytes(4) + FILE) * 2, U32, STRING),
)
"""Of replies: such as they should be, and what may come of parts that are what they should be."""

PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda kind, number, body, more: HEAD.pack(5 + len(body) + more, kind, number) + body,
            st.sampled_from([0, 2, 101, 101, 102, 102, 103, 104, 105, 105, 201, 255]),
            st.integers(0, 12),
            BODIES,
            st.sampled_from([0] * 9 + [-4, 4, 1 << 30]),
        ),
    ),
    max_size=16,
)


@given(PIECES)
def test_whatever_a_server_sends_each_request_ends(pieces: list[bytes]) -> None:
    """With a value or an error of the port's, at the latest when the connection ends."""

    async def test(channel: Channel, far: Far) -> None:
        async def opened() -> None:
            async with channel.opened(b"f", packets.FOR_READING) as handle:
                await channel.fstat(handle)

        async def listed() -> None:
            async for _block in channel.readdir(b"d"):
                pass

        calls: list[Awaitable[object]] = [
            *(channel.lstat(b"a"), channel.realpath(b"b"), channel.unlink(b"c")),
            *(channel.statvfs(b""), channel.read(b"h", 0, 10), opened(), listed()),
        ]
        running = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        for piece in pieces:
            far.wire.data_received(piece, None)
            await asyncio.sleep(0)
        far.wire.connection_lost(None)
        for answer in await asyncio.gather(*running, return_exceptions=True):
            assert not isinstance(answer, BaseException) or isinstance(answer, RemoteError)
        assert channel._open_handles._value == HANDLES
        assert not isinstance(far.wire.ended, Refused)

    played(test)


RIGHT = {
    **dict.fromkeys((packets.LSTAT, packets.FSTAT), (packets.ATTRS, FILE)),
    **dict.fromkeys((packets.OPEN, packets.OPENDIR), (packets.HANDLE, string(b"h"))),
    packets.READDIR: (packets.NAME, struct.pack(">I", 1) + string(b"name") + bytes(4) + FILE),
}


def right(asked: int, request: bytes) -> tuple[int, bytes]:
    """What answers a request; anything else is done."""
    if asked == packets.READ:
        return packets.DATA, string(b"1234567"[: int.from_bytes(request[-4:], "big")])
    return RIGHT.get(asked, (packets.STATUS, status(0)))


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([None] * 30 + [101, 102, 103, 104, 105, 201]),
        st.integers(0, 5).flatmap(lambda n: BODIES if n == 5 else st.none()),
    ),
    min_size=14,
    max_size=40,
)
"""Which of the requests under way is answered next, by what kind and body; None: the right one."""


async def answered(far: Far, steps: list[tuple[int, int | None, bytes | None]]) -> None:
    """Play them, then lose the connection."""
    under_way: list[tuple[int, int, bytes]] = []
    seen = 0
    for which, kind, body in steps:
        for _ in range(12):  # a call may need some turns of the loop to go on
            await asyncio.sleep(0)
        under_way += far.asked[seen:]
        seen = len(far.asked)
        if not under_way:
            break
        asked, number, request = under_way.pop(which % len(under_way))
        right_kind, right_body = right(asked, request)
        answer = right_body if body is None else body
        far.send(right_kind if kind is None else kind, number, answer)
    far.wire.connection_lost(None)


async def ended(*running: asyncio.Task[Any]) -> list[object]:
    """What came of calls, none of which waits for ever."""
    _, still = await asyncio.wait(running, timeout=5)
    assert not still
    return [call.exception() or call.result() for call in running]


@given(STEPS)
def test_whatever_a_server_answers_small_files_end_and_land_where_they_should(
    steps: list[tuple[int, int | None, bytes | None]],
) -> None:
    """And what holds room for them gives it back."""

    async def test(channel: Channel, _far: Far) -> None:
        small = SmallFiles(channel, Paths(channel))
        far = Far(small._wire)
        far.version()
        fd = os.memfd_create("landing")
        wanted = [Piece(b"f", 7, 1), Piece(b"g", 0, 20), Piece(b"h", 1, 30)]
        fetching = asyncio.create_task(small.fetch(wanted, fd, lambda _allow: None))
        await answered(far, steps)
        (answer,) = await ended(fetching)
        assert isinstance(answer, list | RemoteError)
        ours = {1, 2, 3, 4, 5, 6, 7, 30}
        assert not any(byte for at, byte in enumerate(os.pread(fd, 99, 0)) if at not in ours)
        assert not small.window._used
        os.close(fd)

    played(test)


@given(STEPS)
def test_whatever_a_server_answers_content_and_names_are_whole_or_an_error(
    steps: list[tuple[int, int | None, bytes | None]],
) -> None:
    async def test(channel: Channel, far: Far) -> None:
        clock = ServerClock()
        view = View(channel, clock, Paths(channel), lambda _allow: None)
        transfer = Transfer(channel, view, clock, lambda _allow: None)
        fd = os.memfd_create("content")
        os.pwrite(fd, b"7654321", 0)
        calls: list[Coroutine[Any, Any, object]] = [
            *(transfer.digest(b"f"), transfer.fetch(b"f", 0, 7, fd), view.list(b"d")),
            transfer.stage(b"n", fd, 7, Attributes(mode=0o600, mtime_ns=1), True),
        ]
        running = [asyncio.create_task(call) for call in calls]
        await answered(far, steps)
        for answer in await ended(*running):
            assert not isinstance(answer, BaseException) or isinstance(answer, RemoteError)
        await asyncio.sleep(0)
        assert channel._open_handles._value == HANDLES and not channel.window._used
        os.close(fd)

    played(test)

"""Frames between daemon and worker: when they leave (``remotes.channel``)."""

from __future__ import annotations

import asyncio
import os
import resource
import socket

from awayfs.remotes.channel import MOST_FRAMES, Channel


def test_of_many_frames_of_one_turn_the_first_leave_before_its_end() -> None:
    """In order, and each with its descriptor, however they are cut into pieces."""
    count = 3 * MOST_FRAMES + 5
    got: list[tuple[int, bytes]] = []
    told = asyncio.Event()

    async def play() -> None:
        ours, theirs = socket.socketpair()

        def on_frame(document: bytes) -> None:
            (fd,) = far.take_descriptors(1)
            got.append((int(document), os.pread(fd, 9, 0)))
            os.close(fd)
            if len(got) == count:
                told.set()

        far = Channel(theirs, on_frame, told.set)
        near = Channel(ours, lambda _document: None, told.set)
        for number in range(count):
            fd = os.memfd_create("content")
            os.pwrite(fd, b"%d" % number, 0)
            near.send(b"%d" % number, [fd])
            os.close(fd)
            if number == MOST_FRAMES:  # in the same turn
                assert theirs.recv(1, socket.MSG_PEEK)
        await asyncio.wait_for(told.wait(), 30)
        near.close()
        far.close()

    asyncio.run(play())
    assert got == [(number, b"%d" % number) for number in range(count)]


def test_where_a_descriptor_cannot_be_received_none_is_taken_for_another_ones() -> None:
    """The kernel drops what this process may not have any more: who goes on gets the next one."""
    got: list[tuple[bytes, bytes]] = []
    ended: list[str] = []

    async def play() -> None:
        ours, theirs = socket.socketpair()

        def on_frame(document: bytes) -> None:
            (fd,) = far.take_descriptors(1)
            got.append((document, os.pread(fd, 9, 0)))
            os.close(fd)

        far = Channel(theirs, on_frame, lambda: ended.append("far"))
        near = Channel(ours, lambda _document: None, lambda: ended.append("near"))
        files = {name: os.memfd_create("content") for name in (b"A", b"B")}
        for name, fd in files.items():
            os.pwrite(fd, name, 0)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        near.send(b"A", [files[b"A"]])
        near._on_writable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            await asyncio.sleep(0.02)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        near.send(b"B", [files[b"B"]])
        await asyncio.sleep(0.02)
        near.close()
        far.close()
        for fd in files.values():
            os.close(fd)

    asyncio.run(play())
    assert not [pair for pair in got if pair[0] != pair[1]]
    assert "far" in ended

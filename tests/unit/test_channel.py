"""Frames between daemon and worker: when they leave (``remotes.channel``)."""

from __future__ import annotations

import asyncio
import os
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

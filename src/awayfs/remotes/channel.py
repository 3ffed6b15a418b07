"""Frames and file descriptors over a connected stream socket, on an event loop."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

from awayfs.remotes.protocol import LARGEST_FRAME

READ_SIZE = 256 << 10
MOST_DESCRIPTORS = 16
"""With one ``sendmsg``; a descriptor more begins another one."""

MOST_FRAMES = 64
"""With one ``sendmsg``: few enough for IOV_MAX."""

_LENGTH = struct.Struct("<I")


class Channel:
    """One end of the socket between daemon and worker. Nothing here ever blocks.

    ``on_frame(document)`` is called for each frame; it takes the descriptors that came with
    it by ``take_descriptors``. ``on_end()`` is called once, when the other end is gone, what it
    sent makes no sense, or a descriptor could not be received.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()
        self._received: deque[int] = deque()
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()
        self._flushing = False
        self._open = True
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def send(self, document: bytes, descriptors: list[int] | None = None) -> None:
        """Send one frame, with all others of this turn of the loop, or as soon as there is room.

        The caller keeps its descriptors.
        """
        if not self._open:
            return
        # The caller may close its own before there is room to send.
        own = [os.dup(fd) for fd in descriptors or []]
        frame = memoryview(_LENGTH.pack(len(document)) + document)
        self._unsent.append((frame, own))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._on_writable)
        elif len(self._unsent) == MOST_FRAMES:
            self._on_writable()  # the other end need not wait for the end of a long turn

    def take_descriptors(self, count: int) -> list[int]:
        """The next ``count`` descriptors that arrived, now the caller's to close."""
        return [self._received.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close the socket and what was not sent or taken; ``on_end`` is not called."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for fd in self._received:
            os.close(fd)
        for _, own in self._unsent:
            _close_all(own)
        self._received.clear()
        self._unsent.clear()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._on_end()

    def _on_readable(self) -> None:
        # One read per turn of the loop, so that a big listing leaves room for others.
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                READ_SIZE, socket.CMSG_SPACE(MOST_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end()
            return
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self._received.extend(numbers)
        # Where this process may have no more of them, the kernel drops descriptors. Each that came
        # after would be taken for another one's, and the wrong file would be read or written.
        if not data or flags & socket.MSG_CTRUNC:
            self._end()
            return
        self._read += data
        self._deliver()

    def _deliver(self) -> None:
        position = 0
        while self._open and len(self._read) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._read, position)
            start = position + _LENGTH.size
            if length > LARGEST_FRAME:
                self._end()
                return
            if len(self._read) < start + length:
                break
            document = bytes(self._read[start : start + length])
            position = start + length
            self._on_frame(document)
        del self._read[:position]

    def _on_writable(self) -> None:
        if not self._open:
            return
        try:
            while self._unsent:
                self._send_some()
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
            return
        except OSError:
            self._loop.call_soon(self._end)
            return
        self._flushing = False
        self._loop.remove_writer(self._sock.fileno())

    def _send_some(self) -> None:
        """Several frames at once, as far as their descriptors fit; the other end takes these in
        the order of the frames."""
        frames: list[memoryview] = []
        own: list[int] = []
        for frame, descriptors in self._unsent:
            if len(frames) == MOST_FRAMES or len(own) + len(descriptors) > MOST_DESCRIPTORS:
                break
            frames.append(frame)
            own += descriptors
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", own))]
        sent = self._sock.sendmsg(frames, rights if own else [])
        for _frame in frames:  # descriptors are gone with the first byte
            _close_all(self._unsent.popleft()[1])
        while frames and sent >= len(frames[0]):
            sent -= len(frames.pop(0))
        left: list[tuple[memoryview, list[int]]] = [(frame, []) for frame in frames]
        if left:
            left[0] = (left[0][0][sent:], [])
        self._unsent.extendleft(reversed(left))


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
    descriptors.clear()

"""A TCP proxy that makes a link long: each byte arrives a while after it was sent.

``python -m bench.delay LISTEN-PORT TARGET-PORT SECONDS`` delays each way by so much, on
127.0.0.1. Bandwidth is not limited: what was sent together arrives together. It runs on the
processors of what is measured, so it does little: one timer for each piece that arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import cast

HELD = 64 << 20
"""Bytes on the way at once; then the sender has to wait."""


class _End(asyncio.Protocol):
    """One end of a connection; what comes in goes out at the other, later."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._on_way: deque[bytes] = deque()
        self._held = 0
        self._waits = False
        self.other: _End | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._held += len(data)
        if self._held > HELD and not self._waits:
            self._waits = True
            self.transport.pause_reading()
        self._on_way.append(data)
        self._loop.call_later(self._delay_s, self._arrive)

    def _arrive(self) -> None:
        """The first piece on the way: timers of one moment may come in any order."""
        assert self.other is not None
        data = self._on_way.popleft()
        self.other.transport.write(data)
        self._held -= len(data)
        if self._waits and self._held <= HELD:
            self._waits = False
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self._loop.call_later(self._delay_s, self.other.transport.close)


async def serve(port: int, target: int, delay_s: float) -> None:
    """Pass connections to ``port`` on to ``target``, for ever."""
    loop = asyncio.get_running_loop()

    class Near(_End):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()
            self._joining = loop.create_task(self._join())

        async def _join(self) -> None:
            _, self.other = await loop.create_connection(lambda: _End(delay_s), "127.0.0.1", target)
            self.other.other = self
            self.transport.resume_reading()

    server = await loop.create_server(lambda: Near(delay_s), "127.0.0.1", port)
    await server.serve_forever()


@contextlib.contextmanager
def delayed(port: int, target: int, delay_s: float) -> Iterator[None]:
    """The proxy in a process of its own."""
    arguments = [sys.executable, "-m", "bench.delay", str(port), str(target), str(delay_s)]
    process = subprocess.Popen(arguments)
    try:
        _wait_for(port)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError("the proxy does not listen")


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))

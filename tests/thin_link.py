"""A TCP proxy with a bandwidth in each direction, which counts what passes and can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator

from tests.harness import Client, SftpServer

PIECE = 4096
BUFFER = 32 << 10
"""Bytes held in a socket's buffer at most, as in a modem's."""


class ThinLink:
    """Listens on ``port``. ``rate``: bytes a second each way, None for all there is."""

    def __init__(self, target: int) -> None:
        self.rate: int | None = None
        self.up = self.down = 0
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def cut(self) -> None:
        """End all connections; new ones are let through."""
        self._loop.call_soon_threadsafe(self._drop)

    def close(self) -> None:
        """Let nothing through any more."""
        self._loop.call_soon_threadsafe(self._drop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target, limit=PIECE)
        own = {writer, back}
        self._writers |= own
        for one in own:
            one.transport.set_write_buffer_limits(BUFFER)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, back, "up"), self._pump(there, writer, "down"))
        self._writers -= own

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        free_at = 0.0
        try:
            while data := await reader.read(PIECE):
                if self.rate is not None:
                    free_at = max(free_at, self._loop.time()) + len(data) / self.rate
                    await asyncio.sleep(free_at - self._loop.time())
                setattr(self, way, getattr(self, way) + len(data))
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


@contextlib.contextmanager
def behind_thin_link(base: str) -> Iterator[tuple[Client, ThinLink]]:
    """A client, not mounted, of a real sshd behind such a link."""
    os.makedirs(base, exist_ok=True)
    server = SftpServer(base)
    link = ThinLink(server.sshd.port)
    direct, through = str(server.sshd.port), str(link.port)
    server.url = server.url.replace(f":{direct}/", f":{through}/")
    with open(server.sshd.known_hosts, "r+") as file:
        file.write(file.read().replace(direct, through))
    client = Client(base, server)
    try:
        yield client, link
    finally:
        client.close()
        server.close()
        link.close()

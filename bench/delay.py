"""A TCP proxy that makes a link long: each byte arrives a while after it was sent.

``python -m bench.delay LISTEN-PORT TARGET-PORT SECONDS`` delays each way by so much, on
127.0.0.1. Bandwidth is not limited: what was sent together arrives together.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

READ = 1 << 20
HELD = 512
"""Pieces on the way at once, each of up to READ bytes."""


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD)

    async def arrive() -> None:
        while True:
            at, data = await way.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    arriving = asyncio.ensure_future(arrive())
    data = b"-"
    while data:
        try:
            data = await reader.read(READ)
        except ConnectionError:
            data = b""
        await way.put((loop.time() + delay_s, data))
    with contextlib.suppress(ConnectionError):
        await arriving


async def serve(port: int, target: int, delay_s: float) -> None:
    """Pass connections to ``port`` on to ``target``, for ever."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        for end in (writer, back):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(_pump(reader, back, delay_s), _pump(there, writer, delay_s))

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=READ)
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

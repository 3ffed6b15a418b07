"""A program writes to a file, by write(2) or through a mapping, that is edited on the server too.

Each side has its own blocks and writes each of them once, so whatever is acknowledged has to be
somewhere in the end: on the server, in a conflict copy there, or in the history.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Iterator

import pytest

from tests.harness import Client, mounted, needs_fuse

pytestmark = [*needs_fuse, pytest.mark.slow]

BLOCK, COUNT = 64, 2048
SECONDS = 6.0


@pytest.fixture(params=["dir", "sftp"])
def client(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Client]:
    with mounted(request.param, str(tmp_path), "fresh=0") as mount:
        yield mount


def block(who: str, number: int) -> bytes:
    return f"<{who} {number}>".encode().ljust(BLOCK, b".")


class Writers:
    """Those who write, each in a thread of its own, and what was acknowledged to them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.there = f"{client.server.root}/f"
        self.written: list[bytes] = []
        self._until = time.monotonic() + SECONDS
        self._failed: list[BaseException] = []

    def run(self, mapped: bool) -> None:
        steps = [lambda: self._program(mapped), self._server, self._reader, self._resolver]
        threads = [threading.Thread(target=self._noting, args=(step,)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 60)
        assert not self._failed and not any(thread.is_alive() for thread in threads)

    def _noting(self, step: object) -> None:
        try:
            step()  # type: ignore[operator]
        except BaseException as error:
            self._failed.append(error)

    def _over(self) -> bool:
        return time.monotonic() > self._until

    def _program(self, mapped: bool) -> None:
        """A few blocks, then a rest in which they are sent."""
        number = 1
        while not self._over() and number < COUNT:
            with open(self.client.path("f"), "rb+", buffering=0) as file:
                memory = mmap.mmap(file.fileno(), BLOCK * COUNT) if mapped else None
                mine = range(number, min(number + 10, COUNT), 2)
                for number in mine:
                    if memory is not None:
                        memory[number * BLOCK : (number + 1) * BLOCK] = block("ours", number)
                        time.sleep(0.01)
                        memory.flush()
                    else:
                        os.pwrite(file.fileno(), block("ours", number), number * BLOCK)
                        time.sleep(0.01)
                if memory is not None:
                    memory.close()
                os.fsync(file.fileno())
            self.written += [block("ours", one) for one in mine]
            number += 2
            time.sleep(0.05 * (number % 9))

    def _server(self) -> None:
        """In place; the file may be set aside for a moment, and what was open be replaced."""
        for number in range(0, COUNT, 2):
            if self._over():
                return
            with contextlib.suppress(FileNotFoundError), open(self.there, "rb+", 0) as file:
                os.pwrite(file.fileno(), block("theirs", number), number * BLOCK)
            time.sleep(0.04 * (number % 7))

    def _reader(self) -> None:
        while not self._over():
            with contextlib.suppress(OSError), open(self.client.path("f"), "rb") as file:
                file.read()
            time.sleep(0.02)

    def _resolver(self) -> None:
        while not self._over():
            time.sleep(0.5)
            both(self.client)


def both(client: Client) -> None:
    if client.conflicts():
        client.awayfs("resolve", "--keep", "both", client.mountpoint, check=False)


def all_there_is(client: Client) -> bytes:
    found = b""
    for folder in client.server.root, client.state:
        for above, _, names in os.walk(folder):
            if folder == client.server.root or "/history" in above:
                for name in names:
                    with open(os.path.join(above, name), "rb") as file:
                        found += file.read()
    return found


@pytest.mark.parametrize("how", ["written", "mapped"])
def test_no_acknowledged_write_is_lost(client: Client, how: str) -> None:
    with open(f"{client.server.root}/f", "wb") as file:
        file.write(b"-" * BLOCK * COUNT)
    writers = Writers(client)
    writers.run(mapped=how == "mapped")
    for _ in range(5):
        client.sync(check=False)
        both(client)
    client.sync()
    assert client.conflicts() == []
    found = all_there_is(client)
    assert len(writers.written) > 20
    assert [one for one in writers.written if one not in found] == []

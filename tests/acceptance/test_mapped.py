"""Programs that write through a shared mapping, beside a reader that the kernel itself serves."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness import Client, eventually, mounted, needs_fuse

pytestmark = needs_fuse
SIZE = 256 << 10


@contextmanager
def mapped_beside_a_reader(client: Client, name: str) -> Iterator[mmap.mmap]:
    """The shared, writable mapping of a file that is cached and open for passthrough reading."""
    with open(f"{client.server.root}/{name}", "wb") as file:
        file.write(b"a" * SIZE)
    with open(client.path(name), "rb") as file:
        assert file.read() == b"a" * SIZE
    if "passthrough True" not in client.log:
        pytest.skip("this kernel, or this user, has no FUSE passthrough")
    reader = os.open(client.path(name), os.O_RDONLY)
    writer = os.open(client.path(name), os.O_RDWR)
    try:
        memory = mmap.mmap(writer, SIZE)
    finally:
        os.close(writer)
    try:
        with memory:
            yield memory
    finally:
        os.close(reader)


def head_of(client: Client, name: str) -> bytes:
    with open(f"{client.server.root}/{name}", "rb") as file:
        return file.read(3)


def test_what_is_mapped_after_a_sync_survives_the_daemon(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        with mapped_beside_a_reader(client, "f") as memory:
            memory[:3] = b"one"
            memory.flush()
            said = client.awayfs("sync", client.mountpoint, "--wait", timeout=60)
            assert "everything is sent; 1 open file" in said
            assert head_of(client, "f") == b"one"
            memory[:3] = b"two"
            memory.flush()
            client.kill()
        client.mount()
        client.sync()
        assert head_of(client, "f") == b"two"
        assert client.conflicts() == [] and client.status()["pending"]["records"] == 0


def test_what_is_mapped_is_sent_when_it_is_closed(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        with mapped_beside_a_reader(client, "f") as memory:
            memory[:3] = b"one"
        eventually(lambda: head_of(client, "f") == b"one", "the upload after the close")
        eventually(lambda: client.status()["pending"]["records"] == 0, "an empty journal")
        assert client.conflicts() == []


def test_a_close_that_waits_for_the_server_ends_while_the_file_is_mapped(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "writes=close") as client:
        with mapped_beside_a_reader(client, "f") as memory:
            memory[:3] = b"one"
            fd = os.open(client.path("f"), os.O_RDWR)
            os.pwrite(fd, b"end", SIZE - 3)
            os.fsync(fd)
            assert head_of(client, "f") == b"one"
            os.close(fd)
            memory[:3] = b"two"
        eventually(lambda: head_of(client, "f") == b"two", "the upload after the close")

"""A cache that is too small: reading goes on, nothing unsent goes, ENOSPC comes in time."""

from __future__ import annotations

import errno
import os

import pytest

from tests.harness import eventually, mounted, needs_fuse, run

pytestmark = needs_fuse

MIB = 1 << 20


def test_a_file_larger_than_the_cache_is_read_from_the_server(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "cache-size=1M") as client:
        data = os.urandom(5 * MIB)
        with open(f"{client.server.root}/big", "wb") as file:
            file.write(data)
        for _ in range(2):
            with open(client.path("big"), "rb") as file:
                assert file.read() == data
        assert client.status()["cache"]["bytes"] <= MIB


def test_many_writes_while_connected_wait_for_room(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "cache-size=1M") as client:
        os.listdir(client.mountpoint)
        data = {number: os.urandom(200_000) for number in range(20)}
        for number, content in data.items():
            with open(client.path(str(number)), "wb") as file:
                file.write(content)
        client.sync()
        for number, content in data.items():
            with open(f"{client.server.root}/{number}", "rb") as file:
                assert file.read() == content
        eventually(lambda: client.status()["cache"]["bytes"] <= MIB + 200_000, "the limit to hold")


def test_a_change_in_a_file_larger_than_the_cache_is_sent(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "cache-size=1M") as client:
        data = bytearray(os.urandom(12 * MIB))
        with open(f"{client.server.root}/big", "wb") as file:
            file.write(data)
        with open(client.path("big"), "r+b") as file:
            file.seek(6 * MIB)
            file.write(b"changed")
        data[6 * MIB : 6 * MIB + 7] = b"changed"
        client.sync()
        with open(f"{client.server.root}/big", "rb") as file:
            assert file.read() == data
        eventually(lambda: client.status()["cache"]["bytes"] <= MIB, "the limit to hold again")


def test_offline_the_writer_is_told_before_anything_is_lost(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "cache-size=1M") as client:
        os.listdir(client.mountpoint)
        client.offline()
        written: dict[str, bytes] = {}
        with pytest.raises(OSError) as full:
            for number in range(20):
                content = os.urandom(100_000)
                fd = os.open(client.path(str(number)), os.O_WRONLY | os.O_CREAT)
                try:
                    assert os.write(fd, content) == len(content)
                finally:
                    os.close(fd)
                written[str(number)] = content
        assert full.value.errno == errno.ENOSPC
        assert len(written) >= 9
        for name, content in written.items():
            with open(client.path(name), "rb") as file:
                assert file.read() == content
        client.online()
        client.sync()
        for name, content in written.items():
            with open(f"{client.server.root}/{name}", "rb") as file:
                assert file.read() == content
        run("sh", "-c", f"echo room > {client.path('after')}")

"""What a conformance test works with: the remote, and the server's own directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from awayfs.core.types import ABSENT, Attributes, Committed, Entry, Expected, Outcome
from awayfs.ports.remote import Connected, Remote
from awayfs.remotes.names import FENCE_SUFFIX

IDENTITY = Attributes()


@dataclass
class Case:
    """A connected remote; methods without ``async`` act on the server's directory directly."""

    remote: Remote
    root: bytes
    connected: Connected
    cut_at: Callable[[int], None]
    puts: bool = False

    def at(self, path: bytes) -> bytes:
        """The path on the local disk."""
        return self.root + b"/" + path if path else self.root

    def write(self, path: bytes, data: bytes) -> None:
        """Another client saves a file, by rename."""
        beside = self.at(path) + b".writing"
        with open(beside, "wb") as file:
            file.write(data)
        os.rename(beside, self.at(path))

    def read(self, path: bytes) -> bytes:
        """What the server has."""
        with open(self.at(path), "rb") as file:
            return file.read()

    def names(self, path: bytes = b"") -> set[bytes]:
        """All names on the server, those of operations too."""
        return {name for name in os.listdir(self.at(path)) if not name.endswith(FENCE_SUFFIX)}

    def contents(self, path: bytes = b"") -> dict[bytes, bytes]:
        """Names and contents of all regular files directly in a directory."""
        found = {}
        for name in self.names(path):
            inner = os.path.join(self.at(path), name)
            if stat.S_ISREG(os.lstat(inner).st_mode):
                with open(inner, "rb") as file:
                    found[name] = file.read()
        return found

    def needs(self, capability: str) -> None:
        """Skip the test where the server cannot do it."""
        if not getattr(self.connected.capabilities, capability):
            pytest.skip(f"no {capability}")

    async def expected(self, path: bytes, content: bool = True) -> Expected:
        """The precondition that what is there now is there."""
        entry = await self.remote.stat(path)
        return Expected(entry.token, entry.file_id, entry.kind, content)

    async def stage(
        self, op: str, data: bytes, directory: bytes = b"", attributes: Attributes = IDENTITY
    ) -> Entry:
        """Stage some bytes."""
        with cache_file(data) as fd:
            return await self.remote.stage(op, directory, fd, len(data), attributes)

    async def save(self, op: str, path: bytes, data: bytes, expected: Expected) -> Outcome:
        """Stage and replace, or both in one."""
        if self.puts:
            return await self.remote.put(op, path, data, Attributes(mode=0o644), expected)
        await self.stage(op, data, path.rpartition(b"/")[0])
        return await self.remote.replace(op, path, expected)

    def refused(self, op: str, data: bytes) -> dict[bytes, bytes]:
        """What a ``save`` leaves that was a mismatch."""
        return {} if self.puts else {b".awayfs-%s.new" % op.encode(): data}

    async def create(self, op: str, path: bytes, data: bytes) -> Entry:
        """Save a file that was not there."""
        outcome = await self.save(op, path, data, ABSENT)
        assert isinstance(outcome, Committed)
        assert outcome.entry is not None
        return outcome.entry

    async def content(self, path: bytes) -> tuple[bytes, Entry]:
        """A whole file as the remote has it."""
        with cache_file(b"") as fd:
            fetched = await self.remote.fetch(path, 0, 1 << 30, fd)
            return os.pread(fd, fetched.length, 0), fetched.entry


@contextmanager
def cache_file(data: bytes = b"") -> Iterator[int]:
    """A descriptor of a file with ``data`` in it, as the cache would pass one."""
    fd = os.memfd_create("cache")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def refused(outcome: Outcome) -> Entry | None:
    """The current entry of a Mismatch."""
    assert not isinstance(outcome, Committed), outcome
    return outcome.current

"""``dir:`` in the test's own process and behind a worker.

Twice more in the own process as on lesser file systems: without RENAME_EXCHANGE, and, like an
NFS client, without any flags of renameat2(2).
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote_from_bytes

from factories import Factory, Served, cut_here, cut_worker

from awayfs.ports.remote import Connected, Guard
from awayfs.remotes import faults, linux
from awayfs.remotes.directory import DirectoryRemote
from awayfs.remotes.opening import open_remote


@asynccontextmanager
async def plain(scratch: bytes) -> AsyncIterator[Served]:
    """``DirectoryRemote`` in this process."""
    remote = DirectoryRemote(scratch)
    try:
        yield Served(remote, scratch, cut_here)
    finally:
        faults.disarm()
        await remote.close()


@asynccontextmanager
async def isolated(scratch: bytes) -> AsyncIterator[Served]:
    """``dir:`` through a worker process."""
    remote = open_remote("dir:" + quote_from_bytes(scratch), {})
    try:
        yield Served(remote, scratch, cut_worker(remote))
    finally:
        await remote.close()


class WithoutExchange(DirectoryRemote):
    """As if the probe had found no exchange."""

    def _connect(self) -> Connected:
        found = super()._connect()
        self._mover.can_exchange = self._exchanges_in_one = False
        able = replace(found.capabilities, exchange=False, guard=Guard.ASIDE)
        return replace(found, capabilities=able)


@asynccontextmanager
async def aside(scratch: bytes) -> AsyncIterator[Served]:
    """The ASIDE way with RENAME_NOREPLACE."""
    remote = WithoutExchange(scratch)
    try:
        yield Served(remote, scratch, cut_here)
    finally:
        faults.disarm()
        await remote.close()


@asynccontextmanager
async def without_flags(scratch: bytes) -> AsyncIterator[Served]:
    """The ASIDE way with hard links, on a file system that takes no flags."""
    real = linux.renameat2

    def plain_only(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int = 0) -> None:
        if flags:
            raise OSError(errno.EINVAL, "no flags here")
        real(old_dir, old, new_dir, new)

    linux.renameat2 = plain_only
    try:
        async with aside(scratch) as served:
            yield served
    finally:
        linux.renameat2 = real


def factories() -> list[Factory]:
    """All the ways to run ``DirectoryRemote``."""
    return [
        Factory("dir", plain),
        Factory("dir-isolated", isolated, isolated=True),
        Factory("dir-aside", aside),
        Factory("dir-noflags", without_flags),
    ]

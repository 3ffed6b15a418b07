"""``dir:`` in the test's own process and behind a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote_from_bytes

from factories import Factory, Served, cut_here, cut_worker

from awayfs.remotes import faults
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


def factories() -> list[Factory]:
    """Both ways to run ``DirectoryRemote``."""
    return [Factory("dir", plain), Factory("dir-isolated", isolated, isolated=True)]

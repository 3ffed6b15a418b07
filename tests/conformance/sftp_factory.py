"""``sftp://`` against a real OpenSSH server, in the test's own process and behind a worker."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote_from_bytes

from factories import Factory, Served, cut_here, cut_worker

from awayfs.remotes import faults
from awayfs.remotes.opening import open_remote, parse_url
from awayfs.remotes.sftp import SftpRemote

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from by_program import WithProgram, killing
from sshd import Sshd, needs_sshd, serving


def url_of(server: Sshd, scratch: bytes) -> str:
    """The URL of a directory of this machine, seen through ``server``."""
    return f"sftp://{server.user}@127.0.0.1:{server.port}{quote_from_bytes(scratch)}"


@asynccontextmanager
async def plain(scratch: bytes) -> AsyncIterator[Served]:
    """``SftpRemote`` in this process; the server allows nothing but SFTP."""
    with (
        tempfile.TemporaryDirectory(prefix="awayfs-sshd-") as place,
        serving(place, sftp_only=True) as server,
    ):
        remote = SftpRemote(parse_url(url_of(server, scratch)), server.options)
        try:
            yield Served(remote, scratch, cut_here)
        finally:
            faults.disarm()
            await remote.close()


@asynccontextmanager
async def by_program(scratch: bytes) -> AsyncIterator[Served]:
    """``SftpRemote`` in this process, with a program of ours on the server."""
    with (
        tempfile.TemporaryDirectory(prefix="awayfs-sshd-") as place,
        serving(place) as server,
    ):
        remote = WithProgram(parse_url(url_of(server, scratch)), server.options)

        def cut_at(nth: int) -> None:
            cut_here(nth)  # what goes by SFTP
            remote.hook = killing(nth) if nth else ""

        try:
            yield Served(remote, scratch, cut_at, puts=True)
        finally:
            faults.disarm()
            await remote.close()


@asynccontextmanager
async def isolated(scratch: bytes) -> AsyncIterator[Served]:
    """``SftpRemote`` through a worker process, and a server with a shell."""
    with (
        tempfile.TemporaryDirectory(prefix="awayfs-sshd-") as place,
        serving(place) as server,
    ):
        remote = open_remote(url_of(server, scratch), server.options)
        cut_at = cut_worker(remote)
        cut_at(0)  # its imports take longer than most tests; ``dir-isolated`` begins a worker anew
        try:
            yield Served(remote, scratch, cut_at)
        finally:
            await remote.close()


def factories() -> list[Factory]:
    """All ways to run ``SftpRemote``."""
    marks = tuple(needs_sshd)
    return [
        Factory("sftp", plain, marks=marks),
        Factory("sftp-program", by_program, marks=marks),
        Factory("sftp-isolated", isolated, isolated=True, marks=marks),
    ]

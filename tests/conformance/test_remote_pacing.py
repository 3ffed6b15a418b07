"""Limits of bytes a second, and who goes first: what somebody reads, before all else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from case import Case

from awayfs.core.types import Attributes
from awayfs.ports.remote import Piece
from awayfs.remotes import pacing

Run = Callable[[Callable[[Case], Awaitable[None]]], None]
KIB = 1 << 10


def limit(case: Case, up: int | None, down: int | None) -> None:
    """Through the worker process, or here where the adapter runs here."""
    through_worker = getattr(case.remote, "limit", None)
    if through_worker is not None:
        through_worker(up, down)
    else:
        pacer = pacing.Pacer()
        pacer.limit(up, down)
        pacing.pacer.set(pacer)


def open_with(tmp_path: Path, content: bytes = b"") -> int:
    fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.pwrite(fd, content, 0)
    return fd


def test_content_moves_no_faster_than_it_may(run: Run, tmp_path: Path) -> None:
    content = os.urandom(240 * KIB)

    async def body(case: Case) -> None:
        case.write(b"f", content)
        for number in range(10):
            case.write(b"small%d" % number, content[: 20 * KIB])
        small = [Piece(b"small%d" % n, 20 * KIB, n * 20 * KIB) for n in range(10)]
        limit(case, 200 * KIB, 200 * KIB)
        fd = open_with(tmp_path)
        began = time.monotonic()
        await case.remote.fetch(b"f", 0, len(content), fd)
        assert time.monotonic() - began > 0.5
        assert os.pread(fd, len(content), 0) == content
        began = time.monotonic()
        await case.remote.fetch_many(small, fd)
        assert time.monotonic() - began > 0.5
        began = time.monotonic()
        await case.remote.stage("op", b"", open_with(tmp_path, content), len(content), Attributes())
        assert time.monotonic() - began > 0.5
        assert case.contents()[b".awayfs-op.new"] == content

    run(body)


def test_what_somebody_reads_goes_before_a_hoard_walk(run: Run, tmp_path: Path) -> None:
    async def body(case: Case) -> None:
        case.write(b"hoarded", os.urandom(600 * KIB))
        case.write(b"read", b"r" * 60 * KIB)
        limit(case, None, 300 * KIB)
        with pacing.nobody_waits():
            walks = [
                asyncio.ensure_future(
                    case.remote.fetch(b"hoarded", 0, 600 * KIB, open_with(tmp_path))
                )
                for _ in range(4)
            ]
        await asyncio.sleep(0.5)
        await case.remote.fetch(b"read", 0, 60 * KIB, open_with(tmp_path))
        assert not any(walk.done() for walk in walks)
        for walk in walks:
            walk.cancel()
        await asyncio.gather(*walks, return_exceptions=True)

    run(body)


def test_what_somebody_reads_goes_before_uploads(run: Run, tmp_path: Path) -> None:
    """They hold no slot, and no place in a window, that it would have to wait for."""
    content = os.urandom(600 * KIB)

    async def body(case: Case) -> None:
        case.write(b"read", b"r" * 60 * KIB)
        limit(case, 300 * KIB, None)
        fds = [open_with(tmp_path, content) for _ in range(8)]
        uploads = [
            asyncio.ensure_future(case.remote.stage(f"op{n}", b"", fd, len(content), Attributes()))
            for n, fd in enumerate(fds)
        ]
        await asyncio.sleep(0.5)
        await case.remote.fetch(b"read", 0, 60 * KIB, open_with(tmp_path))
        assert not any(upload.done() for upload in uploads)
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    run(body)


def test_a_limit_that_is_taken_away_holds_nothing_back(run: Run, tmp_path: Path) -> None:
    content = os.urandom(64 * KIB)

    async def body(case: Case) -> None:
        limit(case, KIB, KIB)
        limit(case, None, None)
        upload = case.remote.stage(
            "op", b"", open_with(tmp_path, content), len(content), Attributes()
        )
        await asyncio.wait_for(upload, 30)  # a minute's work under the limit

    run(body)

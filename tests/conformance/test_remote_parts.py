"""Uploads in parts: what goes on, what must not, and what a cut at any point leaves."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest
from case import Case, cache_file

from awayfs.core.errors import Unreachable
from awayfs.core.types import ABSENT, Attributes, Committed
from awayfs.remotes.faults import Cut

Run = Callable[[Callable[[Case], Awaitable[None]]], None]
KIB = 1 << 10
CONTENT = os.urandom(400 * KIB)
STAGED = b".awayfs-op1.new"
HALF = 200 * KIB
PRIVATE = 0o600


async def first_half(case: Case, fd: int) -> bytes:
    """Stage it; the token after it."""
    entry = await case.remote.stage_part("op1", b"", fd, 0, HALF)
    assert entry is not None
    assert entry.size == HALF
    return entry.token


def test_parts_make_a_whole(run: Run) -> None:
    async def body(case: Case) -> None:
        with cache_file(CONTENT) as fd:
            token = await first_half(case, fd)
            assert os.stat(case.at(STAGED)).st_mode & 0o777 == PRIVATE
            second = await case.remote.stage_part("op1", b"", fd, HALF, 300 * KIB, token)
            assert second is not None
            staged = await case.remote.stage(
                "op1", b"", fd, len(CONTENT), Attributes(mode=0o640), 300 * KIB, second.token
            )
        assert staged.size == len(CONTENT)
        assert case.read(STAGED) == CONTENT
        assert isinstance(await case.remote.replace("op1", b"f", ABSENT), Committed)
        assert case.contents() == {b"f": CONTENT}
        assert os.stat(case.at(b"f")).st_mode & 0o777 == 0o640

    run(body)


def test_what_was_sent_is_not_sent_again(run: Run) -> None:
    """Told by the first bytes, which nobody compares, and which are others by now."""

    async def body(case: Case) -> None:
        with cache_file(CONTENT) as fd:
            token = await first_half(case, fd)
            os.pwrite(fd, b"never sent", 0)
            await case.remote.stage("op1", b"", fd, len(CONTENT), Attributes(), HALF, token)
        assert case.read(STAGED) == CONTENT

    run(body)


def spoil(case: Case, how: str) -> None:
    place = case.at(STAGED)
    if how == "gone":
        os.unlink(place)
    elif how == "shorter":
        os.truncate(place, HALF - 1)
    elif how == "other end":
        with open(place, "r+b") as file:
            file.truncate(HALF + 10)
            file.seek(HALF - 5)
            file.write(b"other")
    elif how == "changed":  # neither its length nor its end
        status = os.stat(place)
        with open(place, "r+b") as file:
            file.write(b"other")
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns + 5_000_000_000))
    elif how == "symlink":
        os.rename(place, case.at(b"aside"))
        os.symlink(b"aside", place)
    elif how == "fifo":
        os.unlink(place)
        os.mkfifo(place)
    else:
        assert how == "directory"
        os.unlink(place)
        os.mkdir(place)


HOWS = ["gone", "shorter", "other end", "changed", "symlink", "fifo"]


@pytest.mark.parametrize("how", [*HOWS, "directory"])
def test_what_is_not_ours_is_not_gone_on_with(run: Run, how: str) -> None:
    async def body(case: Case) -> None:
        with cache_file(CONTENT) as fd:
            token = await first_half(case, fd)
            spoil(case, how)
            before = case.contents()
            part = await case.remote.stage_part("op1", b"", fd, HALF, 300 * KIB, token)
            assert part is None
            assert case.contents() == before
            if how == "directory":
                return
            await case.remote.stage("op1", b"", fd, len(CONTENT), Attributes(), HALF, token)
        assert not os.path.islink(case.at(STAGED))
        assert case.read(STAGED) == CONTENT
        if how == "symlink":
            assert case.read(b"aside") == CONTENT[:HALF]

    run(body)


def test_what_a_cut_part_left_behind_the_last_one_is_written_anew(run: Run) -> None:
    async def body(case: Case) -> None:
        with cache_file(CONTENT) as fd:
            token = await first_half(case, fd)
            with open(case.at(STAGED), "ab") as file:
                file.write(bytes(300 * KIB))  # more than there is to come, and none of it right
            await case.remote.stage("op1", b"", fd, len(CONTENT), Attributes(), HALF, token)
        assert case.read(STAGED) == CONTENT

    run(body)


def test_a_part_that_is_cut_off_anywhere_is_gone_on_with(run: Run) -> None:
    async def body(case: Case) -> None:
        with cache_file(CONTENT) as fd:
            for nth in range(1, 20):
                token = await first_half(case, fd)
                case.cut_at(nth)
                await case.remote.connect()
                cut = False
                try:
                    await case.remote.stage_part("op1", b"", fd, HALF, 300 * KIB, token)
                except (Cut, Unreachable):
                    cut = True
                case.cut_at(0)
                await case.remote.connect()
                await case.remote.stage("op1", b"", fd, len(CONTENT), Attributes(), HALF, token)
                assert case.read(STAGED) == CONTENT, nth
                if not cut:
                    break
            assert nth > 3

    run(body)

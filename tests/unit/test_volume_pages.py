"""Asking the kernel for written pages, with a kernel that has some, or hands over none.

The handle stands for a program that has the file mapped; its late write comes while the kernel is
asked for it, as in a real mount.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import ECONFLICTED, UsageError
from awayfs.core.types import Range
from awayfs.store.nodes import Node
from awayfs.volume import pages, rest
from awayfs.volume.context import NoKernel
from awayfs.volume.files import FileHandle
from awayfs.volume.pages import END, PAGE, outside

SIZE = 64 * PAGE
NEWER = b"t" * (SIZE + 5)


async def nothing() -> None:
    pass


class Kernel(NoKernel):
    """Remembers what it was asked for; ``handing_over`` is what happens meanwhile."""

    def __init__(self) -> None:
        self.asked: list[list[Range]] = []
        self.handing_over: Callable[[], Awaitable[None]] = nothing

    def forget_pages(self, node: int, ranges: Iterable[Range]) -> None:
        self.asked.append(list(ranges))

    async def settled(self) -> None:
        await self.handing_over()


async def mapped(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, FileHandle, Kernel]:
    """A file of which the first half is here, open in a program that may have mapped it."""
    monkeypatch.setattr(rest, "SMALL", 0)
    kernel = world.volume.context.kernel = Kernel()
    (world.share / "f").write_bytes(b"b" * SIZE)
    file = await world.find("f")
    await world.volume.fetcher.ensure(file.id, 0, SIZE // 2)
    handle = world.volume.files.open(world.shown(file), writing=True)
    world.volume.files.note_pages(handle)
    return file, handle, kernel


def replaced(world: World) -> None:
    (world.share / "f").write_bytes(NEWER)


def late_write(world: World, handle: FileHandle, kernel: Kernel) -> Callable[[], Awaitable[None]]:
    async def hand_over() -> None:
        kernel.handing_over = nothing
        world.volume.files.write_mapped(handle, 0, b"MAPPED" + b"b" * (PAGE - 6))

    return hand_over


@pytest.mark.parametrize(
    ("ranges", "left"),
    [
        ([], [(0, END)]),
        ([(0, PAGE)], [(PAGE, END)]),
        ([(PAGE, 2 * PAGE)], [(0, PAGE), (2 * PAGE, END)]),
        ([(PAGE + 1, PAGE + 2)], [(0, PAGE), (2 * PAGE, END)]),
        ([(5 * PAGE, 6 * PAGE), (1, 2)], [(PAGE, 5 * PAGE), (6 * PAGE, END)]),
        ([(0, 3 * PAGE), (PAGE, 2 * PAGE)], [(3 * PAGE, END)]),
    ],
)
def test_pages_outside_of_ranges(
    ranges: list[tuple[int, int]], left: list[tuple[int, int]]
) -> None:
    assert outside([Range(*one) for one in ranges]) == [Range(*one) for one in left]


def test_what_comes_late_is_an_edit_of_the_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        file, handle, kernel = await mapped(world, monkeypatch)
        kernel.handing_over = late_write(world, handle, kernel)
        replaced(world)
        with pytest.raises(OSError) as caught:
            await world.read(handle, SIZE - PAGE, PAGE)
        assert caught.value.errno == ECONFLICTED
        await world.drained()
        assert (world.share / "f").read_bytes() == NEWER
        assert [c.kind for c in world.store.conflicts.of_node(file.id)] == ["update/update"]
        assert (await world.read(handle, 0, PAGE))[:7] == b"MAPPEDb"

    played(tmp_path, play)


def test_pages_that_a_read_waits_for_are_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor those that are not here: nobody can have written to them."""

    async def play(world: World) -> None:
        _, handle, kernel = await mapped(world, monkeypatch)
        replaced(world)
        assert await world.read(handle, SIZE // 2 - PAGE, 2 * PAGE) == NEWER[: 2 * PAGE]
        assert kernel.asked[0] == [Range(0, SIZE // 2 - PAGE), Range(SIZE, END)]

    played(tmp_path, play)


def test_a_read_that_is_answered_meanwhile_has_the_kernel_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It brought an old page back, which the program then writes to."""

    async def play(world: World) -> None:
        file, handle, kernel = await mapped(world, monkeypatch)

        async def read_one_more() -> None:
            kernel.handing_over = late_write(world, handle, kernel)
            assert world.volume.files.read(handle, 0, PAGE) == b"b" * PAGE

        kernel.handing_over = read_one_more
        replaced(world)
        with pytest.raises(OSError) as caught:
            await world.read(handle, SIZE - PAGE, PAGE)
        assert caught.value.errno == ECONFLICTED and len(kernel.asked) == 2
        await world.drained()
        assert world.store.conflicts.of_node(file.id)
        assert (world.share / "f").read_bytes() == NEWER

    played(tmp_path, play)


def test_a_read_between_two_times_waits_and_gets_the_newer_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        _, handle, kernel = await mapped(world, monkeypatch)
        late: list[asyncio.Task[bytes]] = []

        async def read_one_more() -> None:
            kernel.handing_over = nothing
            world.volume.files.read(handle, 0, PAGE)
            asyncio.get_running_loop().call_later(
                pages.PARKED_S / 2,
                lambda: late.append(asyncio.ensure_future(world.read(handle, PAGE, PAGE))),
            )

        kernel.handing_over = read_one_more
        replaced(world)
        assert await world.read(handle, SIZE - PAGE, PAGE) == b"t" * PAGE
        assert await late[0] == b"t" * PAGE
        assert Range(PAGE, 2 * PAGE) not in kernel.asked[1]
        assert kernel.asked[1][0] == Range(0, PAGE)

    played(tmp_path, play)


def test_a_read_ahead_into_what_is_asked_for_is_told_to_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel waits for its pages, which wait for the kernel: not so."""

    async def play(world: World) -> None:
        _, handle, kernel = await mapped(world, monkeypatch)
        told: list[int | None] = []

        async def read_ahead() -> None:
            kernel.handing_over = nothing
            with pytest.raises(OSError) as caught:
                world.volume.files.read(handle, SIZE // 2 - PAGE, 2 * PAGE)
            told.append(caught.value.errno)

        kernel.handing_over = read_ahead
        replaced(world)
        assert await world.read(handle, SIZE - PAGE, PAGE) == b"t" * PAGE
        assert told == [errno.EAGAIN]

    played(tmp_path, play)


def test_a_kernel_that_hands_nothing_over_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads of what is here go on, others fail, and nothing is taken over until it does."""
    monkeypatch.setattr(pages, "PATIENCE_S", 0.2)
    monkeypatch.setattr(pages, "AGAIN_S", 0.2)

    async def play(world: World) -> None:
        _, handle, kernel = await mapped(world, monkeypatch)
        stuck = asyncio.Event()

        async def wait() -> None:
            await stuck.wait()

        kernel.handing_over = wait
        replaced(world)
        with pytest.raises(OSError) as caught:
            await asyncio.wait_for(world.read(handle, SIZE - PAGE, PAGE), 5)
        assert caught.value.errno == errno.EIO
        assert await world.read(handle, 0, PAGE) == b"b" * PAGE
        stuck.set()
        for _ in range(100):
            if handle.opened.asking is None:
                break
            await asyncio.sleep(0.05)
        assert await world.read(handle, 0, PAGE) == b"t" * PAGE

    played(tmp_path, play)


def test_nothing_is_given_up_while_the_kernel_hands_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PATIENCE_S", 0.1)

    async def play(world: World) -> None:
        _, handle, kernel = await mapped(world, monkeypatch)
        kernel.handing_over = asyncio.Event().wait  # type: ignore[assignment]
        with pytest.raises(UsageError, match="try again"):
            await world.volume.context.pages.have([handle.opened])

    played(tmp_path, play)


def test_a_write_that_waits_for_the_rest_does_not_hold_the_kernel_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has the pages of a write(2) locked as well."""

    async def play(world: World) -> None:
        file, handle, kernel = await mapped(world, monkeypatch)
        monkeypatch.setattr(rest, "SMALL", 8 << 20)
        monkeypatch.setattr(rest, "PATIENCE_S", 60.0)
        written = asyncio.Event()
        kernel.handing_over = written.wait  # type: ignore[assignment]

        async def write() -> None:
            wait = world.volume.files.before_write(handle, 0, 4)
            assert wait is not None
            await wait
            world.volume.files.write(handle, 0, b"told")
            written.set()

        replaced(world)
        await asyncio.wait_for(write(), 5)
        await world.drained()
        assert (world.share / "f").read_bytes() == NEWER
        assert world.store.conflicts.of_node(file.id)

    played(tmp_path, play)


def test_small_files_that_come_together_are_not_laid_beside_an_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        file, handle, kernel = await mapped(world, monkeypatch)
        stuck = asyncio.Event()
        kernel.handing_over = stuck.wait  # type: ignore[assignment]
        replaced(world)
        world.volume.observer.look_again(file.id)
        await world.find("f")
        base = world.store.server.get(file.id)
        assert base is not None and base.size == len(NEWER) and handle.opened.outdated
        await world.volume.fetcher.fetch_small({file.id: base})
        assert not world.store.content.covers(file.id, 0, SIZE)
        world.volume.files.write_mapped(handle, 0, b"MAPPED" + b"b" * (PAGE - 6))
        stuck.set()
        await world.drained()
        assert os.pread(handle.opened.fd, SIZE, 0).count(b"t") == 0
        assert (world.share / "f").read_bytes() == NEWER

    played(tmp_path, play)

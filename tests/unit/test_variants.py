"""The ``.awayfs`` tree, ioctls and ``-o conflicted`` over a fake kernel."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_bridge import Setup, error_of, mounted

from awayfs import cachectl
from awayfs.core import ioctls
from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import Unreachable
from awayfs.core.ioctls import Flag, State, Variant
from awayfs.core.permissions import READ, WRITE, Caller, Rights, allows, may_change_state
from awayfs.store.conflicts import Conflict, Place
from awayfs.testing.fake_kernel import ROOT
from awayfs.volume.virtual_conflicts import arranged


def run(base: Any, test: Callable[[Setup], Awaitable[None]], **options: Any) -> None:
    """One test in one event loop, with a limit."""

    async def inside() -> None:
        async with mounted(str(base), **options) as setup:
            await test(setup)

    asyncio.run(asyncio.wait_for(inside(), 90))


async def at(s: Setup, path: str) -> int:
    """The node at a path, ``.awayfs`` included."""
    node = ROOT
    for part in os.fsencode(path).split(b"/"):
        node = (await s.kernel.lookup(node, part)).nodeid
        if not node:  # the kernel was told to remember that nothing is there
            raise FileNotFoundError(errno.ENOENT, path)
    return node


async def text(s: Setup, path: str) -> bytes:
    return await s.kernel.read_file(await at(s, path))


async def conflict(s: Setup, name: str = "f") -> Conflict:
    """Changed on both sides: base, mine, theirs."""
    s.put(name, b"base")
    node = await at(s, name)
    await s.kernel.read_file(node)
    s.volume.link.offline_by_hand()
    await change(s, node, b"mine is longer")
    s.put(name, b"theirs!")
    await s.volume.link.online_by_hand()
    return await found(s)


async def change(s: Setup, node: int, data: bytes) -> None:
    """Write anew what a file holds."""
    opened = await s.kernel.open(node, os.O_WRONLY | os.O_TRUNC)
    await s.kernel.write(node, opened.fh, data)
    await s.kernel.release(node, opened.fh)


async def found(s: Setup) -> Conflict:
    async with asyncio.timeout(60):
        while not s.volume.store.conflicts.count():
            s.volume.replay.hurry()
            await asyncio.sleep(0.01)
    return s.volume.store.conflicts.all()[-1]


# -- rights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "caller", "access", "answer"),
    [
        (0o400, Caller(0, 0), WRITE, True),
        (0o640, Caller(7, 9), WRITE, True),
        (0o640, Caller(8, 9), READ, True),
        (0o640, Caller(8, 9), WRITE, False),
        (0o640, Caller(8, 5, {9}), READ, True),
        (0o640, Caller(8, 5), READ, False),
        (0o604, Caller(8, 5), READ, True),
        (0o077, Caller(7, 5), READ, False),
        (0o404, Caller(8, 9), READ, False),
    ],
)
def test_rights(mode: int, caller: Caller, access: int, answer: bool) -> None:
    assert allows(Rights(7, 9, mode), caller, access) is answer


def test_an_owner_may_pin_what_is_read_only() -> None:
    assert may_change_state(Rights(7, 9, 0o444), Caller(7, 1))
    assert not may_change_state(Rights(7, 9, 0o444), Caller(8, 9))
    assert may_change_state(Rights(7, 9, 0o464), Caller(8, 9))


# -- ioctl structs ----------------------------------------------------------------------------


def test_structs_survive_the_way() -> None:
    state = State(Flag.DIRTY | Flag.PARTIAL, "stopped", 5, 1 << 40, 7, ioctls.PIN_INHERITED, 3)
    assert State.unpack(state.pack()) == state
    facts = {Variant.SERVER: ioctls.VariantFacts(9, -1, 0o100644, True)}
    assert ioctls.unpack_variants(ioctls.pack_variants(b"x", facts)) == facts
    assert ioctls.unpack_open(ioctls.pack_open(b"n", 2, b"a/b")) == (2, b"a/b")
    assert ioctls.name_of(ioctls.pack_pin(b"name", 3)) == b"name"
    with pytest.raises(ValueError):
        ioctls.pack_name(b"x" * 256)


# -- where conflicts stand --------------------------------------------------------------------


def placed(*paths: tuple[int, int, str]) -> dict[int, str]:
    shown = arranged(
        (Place(number, node, "", 0, b""), tuple(os.fsencode(path).split(b"/")))
        for number, node, path in paths
    )
    return {number: b"/".join(path).decode() for number, path in shown.paths.items()}


def test_every_conflict_has_a_place_of_its_own() -> None:
    assert placed((1, 1, "a/b"), (2, 2, "a")) == {1: "a/b", 2: "a"}
    assert placed((1, 1, "d"), (2, 2, "d/base"), (3, 3, "d/base/x"), (4, 4, "e/base")) == {
        1: "d",
        2: "d/base~",
        3: "d/base~/x",
        4: "e/base",
    }
    assert placed((1, 1, "f"), (2, 1, "f"), (3, 2, "f")) == {1: "f", 2: "f", 3: "f~3"}
    assert placed((1, 1, "d/server"), (2, 2, "d"), (3, 3, "d/server~"))[1] == "d/server~"


# -- the tree ---------------------------------------------------------------------------------


def test_the_trees_of_a_conflict(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        await conflict(s)
        top = await at(s, ".awayfs")
        assert {e.name for e in await s.kernel.listdir(top)} >= {
            b"base",
            b"conflicts",
            b"lost+found",
            b"server",
            b"status",
        }
        assert b".awayfs" not in {e.name for e in await s.kernel.listdir(ROOT)}
        where = await at(s, ".awayfs/conflicts/f")
        names = {e.name for e in await s.kernel.listdir(where)} - {b".", b".."}
        assert names == {b"base", b"local", b"server"}
        for variant, content in {"base": b"base", "local": b"mine is longer"}.items():
            assert await text(s, f".awayfs/conflicts/f/{variant}") == content
        assert await text(s, ".awayfs/conflicts/f/server") == b"theirs!"
        assert await text(s, ".awayfs/base/f") == b"base"
        assert await text(s, ".awayfs/server/f") == b"theirs!"
        s.volume.link.offline_by_hand()
        assert await text(s, ".awayfs/server/f") == b"theirs!"
        assert (await s.kernel.getattr(await at(s, ".awayfs/server/f"))).size == 7
        merged = s.volume.store.conflicts.all()[0].id
        with open(f"{s.volume.store.directory}/variants/{merged}.merged", "wb") as file:
            file.write(b"both")
        assert await text(s, ".awayfs/conflicts/f/merged") == b"both"

    run(tmp_path, body)


def test_what_is_open_stays_when_the_conflict_goes(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        found_one = await conflict(s)
        plain = await at(s, "f")
        keeps = await s.kernel.open(plain)  # so that the cache file is emptied in place
        opened = {}
        for variant in ("base", "local", "server"):
            node = await at(s, f".awayfs/conflicts/f/{variant}")
            opened[variant] = node, await s.kernel.open(node)
        await s.volume.resolve(found_one, Resolution.SERVER)
        assert not s.volume.store.conflicts.count()
        expected = {"base": b"base", "local": b"mine is longer", "server": b"theirs!"}
        for variant, (node, fh) in opened.items():
            assert await s.kernel.read(node, fh.fh, 0, 100) == expected[variant]
            assert (await s.kernel.getattr(node)).size == len(expected[variant])
        assert await error_of(at(s, ".awayfs/conflicts/f")) == "ENOENT"
        for node, fh in opened.values():
            await s.kernel.release(node, fh.fh)
        assert await error_of(s.kernel.getattr(opened["base"][0])) == "ENOENT"
        await s.kernel.release(plain, keeps.fh)
        assert not s.volume.context.held._held

    run(tmp_path, body)


def test_an_open_variant_does_not_follow_later_writes(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        s.put("f", b"one")
        file = await at(s, "f")
        await s.kernel.read_file(file)
        base = await at(s, ".awayfs/base/f")
        before = await s.kernel.open(base)
        await change(s, file, b"two and more")
        assert await s.kernel.read(base, before.fh, 0, 100) == b"one"
        await s.kernel.release(base, before.fh)

    run(tmp_path, body)


def test_nothing_in_it_can_be_changed(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        s.put("f", b"one")
        await at(s, "f")
        base, file = await at(s, ".awayfs/base"), await at(s, ".awayfs/base/f")
        kernel = s.kernel
        for attempt in (
            kernel.open(file, os.O_WRONLY),
            kernel.open(file, os.O_RDWR | os.O_TRUNC),
            kernel.mkdir(base, b"d"),
            kernel.unlink(base, b"f"),
            kernel.rename(base, b"f", ROOT, b"g"),
            kernel.rename(ROOT, b"f", base, b"g"),
            kernel.symlink(base, b"s", b"t"),
            kernel.setattr(file, mode=0o600),
            kernel.setxattr(file, b"user.x", b"y"),
        ):
            assert await error_of(attempt) == "EROFS"
        assert await error_of(kernel.link(file, ROOT, b"g")) == "EXDEV"
        assert await kernel.read_file(file) == b"one"

    run(tmp_path, body)


def test_kinds_modes_and_links(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        os.mkdir(f"{s.server}/d", 0o750)
        s.put("d/f", b"content")
        os.chmod(f"{s.server}/d/f", 0o604)
        os.link(f"{s.server}/d/f", f"{s.server}/d/g")
        os.symlink("f", f"{s.server}/d/s")
        os.mkfifo(f"{s.server}/d/p", 0o600)
        os.utime(f"{s.server}/d/f", ns=(5, 1_234_567_890_123_456_789))
        await at(s, "d/f")
        for tree in ("base", "server"):
            entries = {
                e.name: e.kind for e in await s.kernel.listdir(await at(s, f".awayfs/{tree}/d"))
            }
            assert {n: k for n, k in entries.items() if n not in (b".", b"..")} == {
                b"f": stat.S_IFREG >> 12,
                b"g": stat.S_IFREG >> 12,
                b"s": stat.S_IFLNK >> 12,
                b"p": stat.S_IFIFO >> 12,
            }
            attr = await s.kernel.getattr(await at(s, f".awayfs/{tree}/d/f"))
            assert (attr.mode, attr.size, attr.nlink) == (stat.S_IFREG | 0o604, 7, 2)
            assert attr.mtime_ns == 1_234_567_890_123_456_789
            other = await s.kernel.getattr(await at(s, f".awayfs/{tree}/d/g"))
            assert attr.ino == other.ino != (await s.kernel.getattr(await at(s, "d/f"))).ino
            assert await s.kernel.readlink(await at(s, f".awayfs/{tree}/d/s")) == b"f"
            assert await text(s, f".awayfs/{tree}/d/f") == b"content"

    run(tmp_path, body)


def test_the_server_tree_shows_what_was_never_adopted(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        await at(s, ".awayfs/base")
        s.volume.link.offline_by_hand()
        await s.kernel.write_file(ROOT, b"new", b"mine")
        s.put("new", b"a stranger's")
        assert await error_of(text(s, ".awayfs/server/new")) in ("ENETDOWN", "ENOENT")
        await s.volume.link.online_by_hand()
        await found(s)
        assert await text(s, ".awayfs/server/new") == b"a stranger's"
        assert await error_of(at(s, ".awayfs/base/new")) == "ENOENT"
        s.volume.link.offline_by_hand()
        assert await text(s, ".awayfs/server/new") == b"a stranger's"

    run(tmp_path, body)


def test_what_is_not_here_offline_is_said(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        os.mkdir(f"{s.server}/d")
        s.put("d/f", b"content")
        s.put("g", b"content")
        await s.kernel.listdir(ROOT)
        await at(s, "d")
        await at(s, "g")
        s.volume.link.offline_by_hand()
        for tree in ("base", "server"):
            assert await error_of(text(s, f".awayfs/{tree}/g")) == "ENODATA"
            assert await error_of(at(s, f".awayfs/{tree}/d/f")) == "ENETDOWN"
            assert await error_of(s.kernel.listdir(await at(s, f".awayfs/{tree}/d"))) == "ENODATA"
            assert await error_of(at(s, f".awayfs/{tree}/nothing")) == "ENOENT"
            state = await s.kernel.getxattr(await at(s, f".awayfs/{tree}/g"), b"user.awayfs.state")
            assert state == b"placeholder"

    run(tmp_path, body)


def test_a_base_goes_along_with_a_rename_that_is_sent(tmp_path: Path) -> None:
    """The server gives a renamed file another token, and the base is of that one then."""

    async def body(s: Setup) -> None:
        s.put("f", b"base")
        await s.kernel.read_file(await at(s, "f"))
        s.volume.link.offline_by_hand()
        await s.kernel.rename(ROOT, b"f", ROOT, b"g")
        file = await at(s, "g")
        opened = await s.kernel.open(file, os.O_RDWR)
        await s.kernel.write(file, opened.fh, b"mine")
        await s.volume.link.online_by_hand()  # it is still being written: the rename goes alone
        async with asyncio.timeout(60):
            while os.path.exists(f"{s.server}/f"):
                await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            while s.volume.store.journal.count() > 1:
                await asyncio.sleep(0.01)
        s.volume.link.offline_by_hand()
        assert await text(s, ".awayfs/base/g") == b"base"
        await s.kernel.release(file, opened.fh)

    run(tmp_path, body)


@pytest.mark.parametrize("way", ["write", "truncate", "open", "punch", "copy"])
def test_every_change_keeps_the_base(way: str, tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        s.put("f", b"base" * 1000)
        s.put("other", b"x" * 100)
        file, other = await at(s, "f"), await at(s, "other")
        await s.kernel.read_file(file)
        await s.kernel.read_file(other)
        s.volume.link.offline_by_hand()
        kernel = s.kernel
        if way == "truncate":
            await kernel.setattr(file, size=3)
        elif way == "open":
            opened = await kernel.open(file, os.O_WRONLY | os.O_TRUNC)
            await kernel.release(file, opened.fh)
        else:
            opened = await kernel.open(file, os.O_RDWR)
            source = await kernel.open(other)
            if way == "write":
                await kernel.write(file, opened.fh, b"new", 5)
            elif way == "punch":
                await kernel.fallocate(file, opened.fh, 0, 2000, 3)
            else:
                await kernel.copy_file_range((other, source.fh, 0), (file, opened.fh, 0), 100)
            await kernel.release(other, source.fh)
            await kernel.release(file, opened.fh)
        assert await kernel.read_file(file) != b"base" * 1000
        assert await text(s, ".awayfs/base/f") == b"base" * 1000

    run(tmp_path, body)


def test_a_base_beyond_the_limit_is_not_kept_and_not_made_up(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        s.put("f", b"base" * 1000)
        file = await at(s, "f")
        await s.kernel.read_file(file)
        s.volume.link.offline_by_hand()
        opened = await s.kernel.open(file, os.O_RDWR)
        await s.kernel.write(file, opened.fh, b"new")
        await s.kernel.release(file, opened.fh)
        if s.volume.store.content.base_path(file) is not None:
            pytest.skip("the file system of the tests shares blocks, so there is no limit")
        assert await error_of(text(s, ".awayfs/base/f")) == "ENODATA"
        await s.volume.link.online_by_hand()
        async with asyncio.timeout(60):
            while s.volume.store.journal.count():
                s.volume.replay.wake()
                await asyncio.sleep(0.01)
        assert await text(s, ".awayfs/base/f") == b"new" + (b"base" * 1000)[3:]

    run(tmp_path, body, volume_options={"base_limit": 100})


def test_a_large_directory_does_not_block_the_loop(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        os.mkdir(f"{s.server}/big")
        for number in range(20_000):
            os.close(os.open(f"{s.server}/big/{number:05}", os.O_CREAT | os.O_WRONLY))
        await s.kernel.listdir(await at(s, "big"))
        slowest = 0.0
        ending = False

        async def watch() -> None:
            nonlocal slowest
            while not ending:
                began = time.monotonic()
                await asyncio.sleep(0)
                slowest = max(slowest, time.monotonic() - began)

        watching = asyncio.ensure_future(watch())
        s.volume.link.offline_by_hand()
        for tree in ("base", "server"):
            names = await s.kernel.listdir(await at(s, f".awayfs/{tree}/big"))
            assert len([n for n in names if n.name not in (b".", b"..")]) == 20_000
        ending = True
        await watching
        assert slowest < 1.0  # measured: 0.06

    run(tmp_path, body)


def test_lost_and_found(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        state = s.volume.store.directory
        os.makedirs(f"{state}/lost+found")
        os.makedirs(f"{state}/damaged-1")
        for name in ("lost+found/content-7", "damaged-1/volume.db"):
            with open(f"{state}/{name}", "wb") as file:
                file.write(b"kept")
        s.volume.link.offline_by_hand()
        await s.kernel.write_file(ROOT, b"no:good", b"unsent")
        node = await at(s, "no:good")
        seq = s.volume.store.journal.of_node(node)[0].seq
        s.volume.store.conflicts.add(
            node, ConflictKind.REFUSED, ROOT, b"no:good", 1, record_seqs=(seq,)
        )
        top = {e.name for e in await s.kernel.listdir(await at(s, ".awayfs/lost+found"))}
        assert top >= {b"refused", b"nameless", b"content-7", b"damaged-1"}
        assert await text(s, ".awayfs/lost+found/content-7") == b"kept"
        assert await text(s, ".awayfs/lost+found/damaged-1/volume.db") == b"kept"
        assert await text(s, ".awayfs/lost+found/refused/no:good") == b"unsent"
        assert await error_of(at(s, ".awayfs/lost+found/volume.db")) == "ENOENT"
        await s.kernel.unlink(ROOT, b"no:good")
        assert await text(s, f".awayfs/lost+found/nameless/no:good.{node}") == b"unsent"

    run(tmp_path, body)


def test_numbers_go_when_the_kernel_forgets(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        s.put("f", b"x")
        await at(s, "f")
        node = await at(s, ".awayfs/base/f")
        before = len(s.volume.virtual._ids)
        await s.kernel.forget(node)
        async with asyncio.timeout(60):
            while len(s.volume.virtual._ids) == before:
                await asyncio.sleep(0.01)
        assert await error_of(s.kernel.getattr(node)) == "ESTALE"
        assert await at(s, ".awayfs/base/f") != node

    run(tmp_path, body)


# -- the server's variant, when the link drops ------------------------------------------------


def test_a_conflict_found_while_the_link_drops(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        fetch = s.volume.link.remote.fetch
        drops = True

        async def dropped(path: bytes, offset: int, length: int, fd: int) -> Any:
            if drops and os.path.getsize(f"{s.server}/f") == len(b"theirs!"):
                raise Unreachable("the cable")
            return await fetch(path, offset, length, fd)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(s.volume.link.remote, "fetch", dropped)
            one = await conflict(s)
            assert not one.server_complete
            s.volume.link.offline_by_hand()
            server = await at(s, ".awayfs/conflicts/f/server")
            assert (await s.kernel.getattr(server)).size == len(b"theirs!")
            assert await s.kernel.getxattr(server, b"user.awayfs.state") == b"placeholder"
            assert await error_of(s.kernel.read_file(server)) == errno.errorcode[errno.ENODATA]
            drops = False
            await s.volume.link.online_by_hand()
            async with asyncio.timeout(60):
                while not s.volume.store.conflicts.all()[0].server_complete:
                    await asyncio.sleep(0.01)
        s.volume.link.offline_by_hand()
        assert await text(s, ".awayfs/conflicts/f/server") == b"theirs!"

    run(tmp_path, body)


def test_an_unfetched_variant_is_fetched_when_it_is_read(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        one = await conflict(s)
        os.unlink(s.volume.store.conflicts.variant_path(one.id, "server"))
        s.volume.store.conflicts.update(one.id, server_variant=None, server_complete=False)
        assert await text(s, ".awayfs/conflicts/f/server") == b"theirs!"
        async with asyncio.timeout(60):
            while not s.volume.store.conflicts.all()[0].server_complete:
                await asyncio.sleep(0.01)

    run(tmp_path, body)


# -- ioctls -----------------------------------------------------------------------------------


async def ioctl(s: Setup, node: int, fh: int, number: int, data: bytes) -> bytes:
    size = (number >> 16 & 0x3FFF) if number >> 31 else 0
    result, answer = await s.kernel.ioctl(node, fh, number, data, size)
    assert result == 0
    return answer


def test_ioctls_tell_and_change_state(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        await conflict(s)
        node = await at(s, "f")
        fh = (await s.kernel.open(node)).fh
        state = State.unpack(await ioctl(s, node, fh, ioctls.STATE, ioctls.pack_state(b"")))
        assert state.flags == Flag.DIRTY | Flag.CONFLICTED
        assert (state.node, state.size, state.pin) == (node, 14, ioctls.NOT_PINNED)
        assert state.variants == 0b111
        await ioctl(s, node, fh, ioctls.PIN, ioctls.pack_pin(b"", 7))
        root = (await s.kernel.opendir(ROOT)).fh
        named = ioctls.pack_state(b"f")
        assert State.unpack(await ioctl(s, ROOT, root, ioctls.STATE, named)).pin == 7
        await ioctl(s, ROOT, root, ioctls.UNPIN, ioctls.pack_name(b"f"))
        again = ioctl(s, ROOT, root, ioctls.UNPIN, ioctls.pack_name(b"f"))
        assert await error_of(again) == "ENODATA"
        s.put("far", b"y" * 100)
        await ioctl(s, ROOT, root, ioctls.FETCH, ioctls.pack_name(b"far"))
        far = await at(s, "far")
        assert s.volume.store.content.covers(far, 0, 100)
        known = ioctls.unpack_variants(
            await ioctl(s, node, fh, ioctls.VARIANTS, ioctls.pack_variants(b"", {}))
        )
        assert {which: facts.size for which, facts in known.items()} == {
            Variant.BASE: 4,
            Variant.LOCAL: 14,
            Variant.SERVER: 7,
        }
        for name in (b"..", b"a/b"):
            bad = ioctl(s, ROOT, root, ioctls.STATE, ioctls.pack_state(name))
            assert await error_of(bad) == "EINVAL"
        assert await error_of(s.kernel.ioctl(node, fh, 0x5401, b"", 60)) == "ENOTTY"
        short = s.kernel.ioctl(node, fh, ioctls.STATE, b"x", 320)
        assert await error_of(short) == "EINVAL"

    run(tmp_path, body)


def test_tickets_are_for_who_asked_and_only_for_a_while(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        await conflict(s)
        node = await at(s, "f")
        fh = (await s.kernel.open(node)).fh

        async def ticket(variant: int) -> str:
            data = ioctls.pack_open(b"", variant)
            return ioctls.unpack_open(await ioctl(s, node, fh, ioctls.OPEN_VARIANT, data))[
                1
            ].decode()

        assert await text(s, await ticket(Variant.BASE)) == b"base"
        assert await text(s, await ticket(Variant.SERVER)) == b"theirs!"
        assert await error_of(ticket(Variant.MERGED)) == "ENOENT"
        assert await error_of(ticket(9)) == "EINVAL"
        mine = await at(s, await ticket(Variant.LOCAL))
        me, s.kernel.uid = s.kernel.uid, 4711
        assert await error_of(s.kernel.open(mine)) == "EACCES"
        os.chmod(f"{s.server}/f", 0o600)
        pin = ioctl(s, node, fh, ioctls.PIN, ioctls.pack_pin(b"", 1))
        assert await error_of(pin) == "EACCES"
        s.kernel.uid = me
        late = await ticket(Variant.BASE)
        for one in s.volume.virtual.tickets._tickets.values():
            one.until_ns = 0
        assert await error_of(at(s, late)) == "ENOENT"
        writer = (await s.kernel.open(node, os.O_RDWR)).fh
        await s.kernel.write(node, writer, b"x")
        unsaved = ioctl(s, node, writer, ioctls.OPEN_VARIANT, ioctls.pack_open(b"", 0))
        assert await error_of(unsaved) == "EBUSY"
        await s.kernel.fsync(node, writer)
        await ioctl(s, node, writer, ioctls.OPEN_VARIANT, ioctls.pack_open(b"", 0))

    run(tmp_path, body)


# -- what the plain name shows ----------------------------------------------------------------


def test_conflicted_server_shows_the_servers(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        one = await conflict(s)
        node = await at(s, "f")
        attr = await s.kernel.getattr(node)
        there = os.stat(f"{s.server}/f")
        assert (attr.size, attr.mtime_ns) == (7, there.st_mtime_ns)
        assert await s.kernel.read_file(node) == b"theirs!"
        listed = {e.name: e for e in await s.kernel.listdir(ROOT)}
        assert listed[b"f"].entry is None or listed[b"f"].entry.attr.size == 7
        for attempt in (
            s.kernel.open(node, os.O_RDWR),
            s.kernel.open(node, os.O_RDONLY | os.O_TRUNC),
            s.kernel.setattr(node, size=0),
            s.kernel.setattr(node, mode=0o600),
        ):
            assert await error_of(attempt) == "EBUSY"
        assert await text(s, ".awayfs/conflicts/f/local") == b"mine is longer"
        await s.volume.resolve(one, Resolution.LOCAL)
        assert await s.kernel.read_file(node) == b"mine is longer"
        await s.drained()
        assert s.there("f") == b"mine is longer"

    run(tmp_path, body, volume_options={"conflicted": "server"})


def test_conflicted_server_and_what_was_open_before(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        s.put("f", b"base")
        node = await at(s, "f")
        reader = (await s.kernel.open(node)).fh
        writer = (await s.kernel.open(node, os.O_RDWR)).fh
        await conflict(s)
        assert await s.kernel.read(node, reader, 0, 100) == b"theirs!"
        assert await error_of(s.kernel.write(node, writer, b"late")) == "EBUSY"
        assert await error_of(s.kernel.fallocate(node, writer, 0, 0, 100)) == "EBUSY"
        assert await s.kernel.write(node, writer, b"MAP!", cached=True) == 4
        assert await text(s, ".awayfs/conflicts/f/local") == b"MAP! is longer"

    run(tmp_path, body, volume_options={"conflicted": "server"})


def test_conflicted_error_refuses_to_open(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        await conflict(s)
        node = await at(s, "f")
        assert (await s.kernel.getattr(node)).size == 14
        assert await error_of(s.kernel.open(node)) == "EBUSY"
        assert await error_of(s.kernel.setattr(node, size=0)) == "EBUSY"
        assert b"f" in {e.name for e in await s.kernel.listdir(ROOT)}
        assert await text(s, ".awayfs/conflicts/f/server") == b"theirs!"
        root = (await s.kernel.opendir(ROOT)).fh
        named = ioctls.pack_open(b"f", Variant.LOCAL)
        answer = await ioctl(s, ROOT, root, ioctls.OPEN_VARIANT, named)
        assert await text(s, ioctls.unpack_open(answer)[1].decode()) == b"mine is longer"

    run(tmp_path, body, volume_options={"conflicted": "error"})


def test_the_kernel_is_told_of_conflicts_that_change_what_is_shown(tmp_path: Path) -> None:
    async def body(s: Setup) -> None:
        told: list[int] = []

        class Kernel:
            def forget_entry(self, parent: int, name: bytes) -> None: ...

            def forget_node(self, node: int) -> None:
                told.append(node)

            def forget_all(self) -> None: ...

            def forget_pages(self, node: int, ranges: object) -> None: ...

            async def settled(self) -> None: ...

            def wake(self, poller: int) -> None: ...

        s.volume.context.kernel = Kernel()
        node = (await s.kernel.write_file(ROOT, b"f", b"x")).nodeid
        told.clear()
        one = s.volume.store.conflicts.add(node, ConflictKind.REFUSED, ROOT, b"f", 1)
        assert told == [node]
        s.volume.store.conflicts.remove(one.id)
        assert told == [node, node]

    run(tmp_path, body, volume_options={"conflicted": "error"})


def test_numbers_used() -> None:
    """What is written in docs/ioctl.md and compiled into programs."""
    assert [hex(n) for n in (ioctls.STATE, ioctls.PIN, ioctls.UNPIN)] == [
        "0xc140a901",
        "0x4108a902",
        "0x4100a903",
    ]
    assert [hex(n) for n in (ioctls.FETCH, ioctls.VARIANTS, ioctls.OPEN_VARIANT)] == [
        "0x4100a904",
        "0xc168a905",
        "0xd000a906",
    ]


@pytest.mark.parametrize("call", [cachectl.open, cachectl.switch])
def test_a_variant_that_no_file_has(call: Callable[[int, str], int], tmp_path: Path) -> None:
    """One clear error, of Python programs' own making: no descriptor is asked."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ValueError, match="'x' is no variant; there are base, local"):
            call(fd, "x")
    finally:
        os.close(fd)

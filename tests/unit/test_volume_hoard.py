"""Hoard walks: what is pinned is here after one, whatever happened before it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.test_volume_review import World, played

from awayfs.core.errors import UsageError
from awayfs.core.modes import Mode
from awayfs.core.types import Kind, NodeId
from awayfs.ports.remote import Landed, Piece
from awayfs.volume import hoarding
from awayfs.volume.hoard import Walk


async def walked(world: World, *starts: NodeId) -> Walk:
    """A whole walk; over everything pinned, with one listing of it all, without a start."""
    walk = Walk()
    places = starts or world.volume.hoard.pinned_places()
    async for step in world.volume.hoard.walk(*places, pinned_only=not starts):
        walk = step
    assert all(is_undecided(world, path) for path, _ in walk.failed), walk.failed
    return walk


def is_undecided(world: World, path: str) -> bool:
    """Whether what is here is not meant to be what the server has, which may not have it any more.

    A change waits that is in conflict, or depends on one.
    """
    node = world.store.nodes.resolve(os.fsencode(path))
    return node is not None and bool(
        world.store.conflicts.of_node(node.id) or world.store.journal.has_any(node.id)
    )


def is_here(world: World, node: NodeId, content: bytes) -> bool:
    """Whether the cache has just these bytes for a node."""
    held = world.store.content
    if not held.covers(node, 0, len(content)):
        return False
    with open(held.fd_path(node), "rb") as file:
        return hashlib.sha256(file.read(len(content))).digest() == hashlib.sha256(content).digest()


def holds(world: World, path: str) -> bool:
    """Whether a directory that the server may not have any more is kept for a change in it."""
    node = world.store.nodes.resolve(os.fsencode(path))
    return node is not None and world.store.journal.works_in(node.id)


async def all_pinned_is_here(world: World, walk: Walk) -> None:
    """Every file that is pinned is whole, by hash, and the check says so; the server is not asked.

    Were it asked, a token that was weak could be strong by now, and what was fetched in doubt.
    What a walk could not have, it told.
    """
    told = {path for path, _ in walk.failed}
    for place in world.volume.hoard.pinned_places():
        missing = [path for path, _ in (await world.volume.hoard.check(place)).missing]
        assert [path for path in missing if path not in told and not holds(world, path)] == []
    for directory, _, names in os.walk(world.share):
        for name in names:
            path = os.path.join(directory, name)
            shown = os.path.relpath(path, world.share)
            node = world.store.nodes.resolve(os.fsencode(shown))
            content = Path(path).read_bytes()
            if node is None or is_undecided(world, shown):
                continue
            if world.volume.context.effective.is_pinned(node.id) and content:
                assert is_here(world, node.id, content), path


NAMES = ("a", "b", "c", "d/a", "d/b", "d/e/a", "f/a", "f/b")
DIRECTORIES = ("d", "d/e", "f", "g")
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.integers(0, 200_000)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("move"), st.sampled_from(NAMES + DIRECTORIES), st.sampled_from(NAMES)),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(DIRECTORIES)),
    st.tuples(st.just("pin"), st.sampled_from(NAMES + DIRECTORIES), st.integers(0, 9)),
    st.tuples(st.just("unpin"), st.sampled_from(NAMES + DIRECTORIES), st.just(0)),
    st.tuples(st.just("read"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("rename here"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("edit here"), st.sampled_from(NAMES), st.integers(1, 9000)),
    st.tuples(st.just("cull"), st.just(""), st.just(0)),
    st.tuples(st.just("walk"), st.just(""), st.just(0)),
)
contents = itertools.count()


async def _do(world: World, what: str, name: str, value: Any) -> None:
    path, volume = world.share / name, world.volume
    if what == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((b"%d " % next(contents) * value)[:value])
    elif what == "remove":
        path.unlink(missing_ok=True)
    elif what == "move":
        target = world.share / value
        target = target / path.name if target.is_dir() else target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    elif what == "pin":
        world.store.pins.add((await world.find(name)).id, value, True)
    elif what == "unpin":
        volume.unpin_node((await world.find(name)).id)
    elif what == "read":
        await world.cached(name)
    elif what == "rename here":
        node = await world.find(name)
        (parent, own), to = world.store.nodes.names(node.id)[0], os.path.dirname(value)
        into = (await world.find(to)).id if to else 1
        volume.changes.rename(parent, own, into, os.fsencode(os.path.basename(value)), 0)
        await world.drained()
    elif what == "edit here":
        world.write(await world.cached(name), 0, os.urandom(value))
        await world.drained()
    elif what == "cull":
        await volume.culling.empty()
    else:
        await walked(world)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=3, max_size=25))
def test_a_walk_makes_everything_pinned_complete(steps: list[tuple[str, str, Any]]) -> None:
    """After any sequence of pins, unpins, changes on both sides, moves and culls."""

    async def play(world: World) -> None:
        for directory in DIRECTORIES:
            (world.share / directory).mkdir(parents=True, exist_ok=True)
        for name in NAMES[::2]:
            (world.share / name).write_bytes(b"first " * 1000)
        world.store.pins.add((await world.find("d")).id, 1, True)
        for step in steps:
            try:
                await _do(world, *step)
            except (OSError, shutil.Error):
                pass  # it is not there, or stands in the way
        await all_pinned_is_here(world, await walked(world))

    with tempfile.TemporaryDirectory() as place:
        played(Path(place), play)


def test_many_small_and_some_large_files_come(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        for number in range(600):
            (world.share / f"{number}").write_bytes(os.urandom(number * 7))
        for number in range(3):
            (world.share / f"large{number}").write_bytes(os.urandom(3 << 20))
        world.store.pins.add(1, 5, True)
        walk = await walked(world)
        assert walk.done == walk.total == 603
        await all_pinned_is_here(world, walk)
        assert (await walked(world)).bytes == 0

    played(tmp_path, play)


def test_a_walk_believes_no_listing_from_before_it(tmp_path: Path) -> None:
    """However fresh: who packs for a journey wants what was put there a moment ago, too."""

    async def play(world: World) -> None:
        world.store.node_settings.set(1, "fresh", "3600")
        (world.share / "d").mkdir()
        await world.volume.observer.directory(1)
        directory = world.store.nodes.resolve(b"d")
        assert directory is not None
        await world.volume.observer.directory(directory.id)
        fresh = world.volume.tree.directory_is_fresh
        while not (fresh(1) and fresh(directory.id)):
            await asyncio.sleep(0.05)
            await world.volume.observer.directory(1)
            await world.volume.observer.directory(directory.id)
        (world.share / "d" / "late").write_bytes(b"late")
        world.store.pins.add(1, 5, True)
        walk = await walked(world)
        assert world.store.nodes.resolve(b"d/late") is not None
        await all_pinned_is_here(world, walk)

    played(tmp_path, play)


def test_a_walk_believes_no_listing_that_began_before_it(tmp_path: Path) -> None:
    """The server had read the directory when somebody put a file there; then the walk began."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        directory = (await world.find("d")).id
        observer, read, goes_on = world.volume.observer, asyncio.Event(), asyncio.Event()
        listed = observer._strays.listed_unless

        async def slowly(path: bytes, known: bytes) -> Any:
            found = await listed(path, known)
            read.set()
            await goes_on.wait()
            return found

        observer._strays.listed_unless = slowly  # type: ignore[method-assign]
        before = asyncio.ensure_future(observer.directory(directory))
        await read.wait()
        (world.share / "d" / "late").write_bytes(b"late")
        world.store.pins.add(directory, 5, True)
        walking = asyncio.ensure_future(walked(world))
        await asyncio.sleep(0.05)
        goes_on.set()
        await before
        walk = await walking
        assert walk.total == 1
        await all_pinned_is_here(world, walk)

    played(tmp_path, play)


async def _until(what: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(400):
        if await what():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("did not come about")


def test_what_comes_to_a_pinned_place_is_fetched_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made there, moved there on the server or here; moved out, it may go."""
    monkeypatch.setattr(hoarding, "SOON_S", 0.01)

    async def play(world: World) -> None:
        for directory in ("kept", "other", "other/deep"):
            (world.share / directory).mkdir()
        for name in ("other/a", "other/deep/b", "other/c"):
            (world.share / name).write_bytes(name.encode() * 99)
        for directory in ("", "kept", "other", "other/deep"):
            await world.volume.observer.directory((await world.find(directory)).id)
        kept, other = await world.find("kept"), await world.find("other")
        task = world.volume.context.spawn(world.volume.hoarding.run())
        world.volume.pin_node(kept.id, 7)
        os.rename(world.share / "other/a", world.share / "kept/a")
        (world.share / "kept/new").write_bytes(b"new" * 50_000)
        await world.volume.observer.directory(kept.id)
        world.volume.changes.rename(other.id, b"deep", kept.id, b"deep", 0)
        for name, content in (
            ("kept/a", b"other/a" * 99),
            ("kept/deep/b", b"other/deep/b" * 99),
            ("kept/new", b"new" * 50_000),
        ):

            async def here(name: str = name, content: bytes = content) -> bool:
                return is_here(world, (await world.find(name)).id, content)

            await _until(here)
        left = await world.find("other/c")
        assert not world.store.content.ranges(left.id), "is not pinned"
        moved = await world.find("kept/a")
        world.volume.changes.rename(kept.id, b"a", other.id, b"a", 0)
        assert not world.volume.context.effective.is_pinned(moved.id)
        task.cancel()

    played(tmp_path, play)


def test_a_new_version_of_a_pinned_file_is_fetched_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hoarding, "SOON_S", 0.01)

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"old")
        node = await world.cached("f")
        world.volume.context.spawn(world.volume.hoarding.run())
        world.volume.pin_node(node.id, 7)
        (world.share / "f").write_bytes(b"new content")
        await world.find("f")

        async def here() -> bool:
            return is_here(world, node.id, b"new content")

        await _until(here)

    played(tmp_path, play)


def test_a_weak_link_is_left_alone_until_it_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hoarding, "SOON_S", 0.01)

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"content")
        node = await world.find("f")
        link = world.volume.link
        strong = link.state
        link.state = type(strong)(Mode.WRITE_BEHIND, cause="metered")
        world.volume.context.spawn(world.volume.hoarding.run())
        world.volume.pin_node(node.id, 7)
        await asyncio.sleep(0.2)
        assert not world.store.content.ranges(node.id)
        link.state = strong
        world.volume.hoarding.begin()

        async def here() -> bool:
            return is_here(world, node.id, b"content")

        await _until(here)

    played(tmp_path, play)


def test_what_came_of_another_revision_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server changes a file while it is on the way with others, or while it is written here."""

    async def play(world: World) -> None:
        for name in ("a", "b", "c"):
            (world.share / name).write_bytes(b"first " + name.encode())
        nodes = {name: await world.find(name) for name in ("a", "b", "c")}
        remote: Any = world.volume.link.remote
        real = remote.fetch_many

        async def meanwhile(pieces: Sequence[Piece], fd: int) -> Sequence[Landed | None]:
            landed: Sequence[Landed | None] = await real(pieces, fd)
            (world.share / "b").write_bytes(b"other b")
            await world.volume.observer.name(1, b"b")
            world.write(nodes["c"], 0, b"LOCAL")
            return landed

        monkeypatch.setattr(remote, "fetch_many", meanwhile)
        await walked(world, 1)
        assert is_here(world, nodes["a"].id, b"first a")
        assert is_here(world, nodes["b"].id, b"other b")
        handle = world.volume.files.open(world.shown(nodes["c"]), writing=False)
        assert (await world.read(handle, 0, 99))[:5] == b"LOCAL"
        world.volume.files.close(handle)

    played(tmp_path, play)


def test_suspect_small_files_are_compared_together(tmp_path: Path) -> None:
    """What is the same stays, what is not is replaced; no file is asked for alone."""

    async def play(world: World) -> None:
        for name in ("same", "other"):
            (world.share / name).write_bytes(name.encode())
        nodes = [await world.cached(name) for name in ("same", "other")]
        for node in nodes:
            world.store.content.set_token(node.id, b"a token that was weak")
        with open(world.store.content.fd_path(nodes[1].id), "r+b") as file:
            file.write(b"wrong")
        walk = await walked(world, 1)
        assert walk.done == 2
        assert is_here(world, nodes[0].id, b"same")
        assert is_here(world, nodes[1].id, b"other")
        assert (await world.volume.hoard.check(1)).missing == []

    played(tmp_path, play)


def test_the_check_names_what_would_be_missing(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "d" / "never").mkdir(parents=True)
        (world.share / "d" / "f").write_bytes(b"12345")
        (world.share / "here").write_bytes(b"1")
        os.symlink("here", world.share / "link")
        await world.volume.observer.directory(1)
        await world.volume.observer.directory((await world.find("d")).id)
        here = await world.cached("here")
        await world.volume.tree.xattrs(here.id)
        missing = dict((await world.volume.hoard.check(1)).missing)
        assert missing["d/f"] == "the content is not all here"
        assert missing["d/never"] == "the directory was never listed"
        assert "here" not in missing
        await walked(world, 1)
        inventory = await world.volume.hoard.check(1)
        assert inventory.missing == [] and inventory.files == 2
        assert world.store.nodes.get(here.id) is not None
        link = await world.find("link")
        assert link.kind is Kind.SYMLINK and link.target == b"here"

    played(tmp_path, play)


def test_a_pin_larger_than_the_limit_says_so_and_fetches_nothing(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "large").write_bytes(bytes(2 << 20))
        with pytest.raises(UsageError, match="cache-size"):
            await walked(world, (await world.find("large")).id)
        assert world.store.content.usage() == 0

    played(tmp_path, play, cache_limit=1 << 20)


@pytest.mark.timeout(30)
def test_a_walk_passes_by_what_a_program_has_open_and_whole(tmp_path: Path) -> None:
    """Its ranges are written down when it is closed; a walk that waited for them held all up."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"content")
        node = await world.cached("f")
        handle = world.volume.files.open(node, writing=True)
        world.volume.files.write(handle, 7, b" and more")
        assert handle.opened.whole
        with world.store.transaction():
            world.store.content.drop_ranges(node.id)
            world.store.content.add_range(node.id, 0, 7)
        assert await world.volume.hoard._in_pieces(node.id) == 0
        world.volume.files.close(handle)

    played(tmp_path, play)

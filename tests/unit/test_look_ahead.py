"""Which directories are listed ahead of a walk, and how many."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World

from awayfs.core.types import ROOT, Kind
from awayfs.store.store import Store
from awayfs.volume.ahead import FIRST, MOST, coming
from awayfs.volume.context import VolumeOptions

TREE = ["a", "a/a", "a/b", "a/b/c", "b", "c", "c/d"]


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ("", TREE),
        ("a", TREE[1:]),
        ("a/b", ["a/b/c", "b", "c", "c/d"]),
        ("a/b/c", ["b", "c", "c/d"]),
        ("c", ["c/d"]),
        ("c/d", []),
    ],
)
def test_what_comes_after_a_directory(tmp_path: Path, start: str, wanted: list[str]) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    ids = {"": ROOT}
    for path in [*TREE, "a/file", "bb", "zz"]:
        above, _, name = path.rpartition("/")
        kind = Kind.DIRECTORY if path in TREE else Kind.FILE
        times = {"atime_ns": 0, "mtime_ns": 0, "ctime_ns": 0, "btime_ns": 0}
        with store.transaction():
            ids[path] = store.nodes.add(kind, 0o755, 0, 0, **times).id
            store.nodes.add_name(ids[above], name.encode(), ids[path])
    paths = {node: path for path, node in ids.items()}
    assert [paths[node] for node in coming(store.nodes, ids[start])] == wanted
    store.close()


class Walked(World):
    """Forty directories in a share; counts what the server is asked to list."""

    def __init__(self, tmp_path: Path, fresh_s: float) -> None:
        self.share = tmp_path / "share"
        for number in range(40):
            (self.share / f"d{number:02}").mkdir(parents=True)
        self.state = str(tmp_path / "state")
        self.options = VolumeOptions(fresh_s=fresh_s, uid=os.getuid(), gid=os.getgid())
        self.open()
        self.asked: list[bytes] = []
        listed = self.volume.link.remote.list_unless

        async def list_unless(path: bytes, fingerprint: bytes) -> Any:
            self.asked.append(path)
            return await listed(path, fingerprint)

        self.volume.link.remote.list_unless = list_unless  # type: ignore[method-assign]

    async def open_directory(self, path: str) -> None:
        await self.volume.tree.open_directory((await self.find(path)).id)

    async def idle(self) -> None:
        """Until nothing is listed any more."""
        await self.volume.tree.ahead.idle()


def walk(tmp_path: Path, fresh_s: float, play: Any) -> None:
    async def run() -> None:
        world = Walked(tmp_path, fresh_s)
        try:
            await world.online()
            await world.open_directory("")
            await world.idle()
            await play(world)
        finally:
            await world.end()

    asyncio.run(run())


def test_a_walk_finds_the_next_directories_listed(tmp_path: Path) -> None:
    async def play(world: Walked) -> None:
        for number in range(40):
            await world.open_directory(f"d{number:02}")
            await world.idle()
            ahead = world.volume.tree.ahead
            assert len(ahead._expected) <= MOST
        assert sorted(world.asked) == [b"", *(f"d{n:02}".encode() for n in range(40))]

    walk(tmp_path, 600.0, play)


def test_who_opens_one_directory_has_few_others_listed(tmp_path: Path) -> None:
    async def play(world: Walked) -> None:
        world.asked.clear()
        await world.open_directory("d20")
        await world.idle()
        assert world.asked == [b"d20", b"d21", b"d22"][: 1 + FIRST]

    walk(tmp_path, 600.0, play)


def test_nothing_is_listed_ahead_that_would_be_outdated_at_once(tmp_path: Path) -> None:
    async def play(world: Walked) -> None:
        world.asked.clear()
        await world.open_directory("d20")
        await world.idle()
        assert set(world.asked) == {b"d20"}

    walk(tmp_path, 0.0, play)


def test_nothing_is_listed_ahead_while_away(tmp_path: Path) -> None:
    async def play(world: Walked) -> None:
        world.volume.link.offline_by_hand()
        world.asked.clear()
        await world.open_directory("")
        assert world.asked == []

    walk(tmp_path, 600.0, play)


def test_after_an_absence_all_that_was_listed_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: Walked) -> None:
        monkeypatch.setattr("awayfs.volume.sweep.STEADY_S", 0.01)
        await world.open_directory("d03")
        await world.open_directory("d30")
        await world.idle()
        known = set(world.asked)
        assert {b"", b"d03", b"d30"} <= known < {b"", *(f"d{n:02}".encode() for n in range(40))}
        world.volume.context.spawn(world.volume.sweep.run())
        world.volume.link.offline_by_hand()
        (world.share / "d30" / "new").write_bytes(b"made meanwhile")
        (world.share / "d04" / "too").write_bytes(b"not known before")
        world.asked.clear()
        await world.volume.link.online_by_hand()
        async with asyncio.timeout(60):
            while len(world.asked) < len(known):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert set(world.asked) == known and len(world.asked) == len(known)
        directory = (await world.find("d30")).id
        assert world.store.nodes.child(directory, b"new") is not None

    walk(tmp_path, 600.0, play)


def test_who_asks_for_one_name_does_not_wait_for_a_long_listing(tmp_path: Path) -> None:
    """As right after an absence, when nothing is fresh and the directory is large."""

    async def play(world: Walked) -> None:
        for name in ("first", "second", "third"):
            (world.share / "d05" / name).write_text(name)
        go_on, remote = asyncio.Event(), world.volume.link.remote
        listed = remote.list_unless

        async def list_unless(path: bytes, fingerprint: bytes) -> Any:
            if path == b"d05":
                await go_on.wait()
            return await listed(path, fingerprint)

        remote.list_unless = list_unless  # type: ignore[method-assign]
        for name in ("first", "second", "third"):
            node = await asyncio.wait_for(world.find(f"d05/{name}"), 30)
            assert node.size == len(name)
        directory = await world.find("d05")
        assert world.store.server.listed_ns(directory.id) is None
        go_on.set()
        while world.store.server.listed_ns(directory.id) is None:
            await asyncio.sleep(0.01)  # the listing was not given up
        assert [name for name, _ in world.store.nodes.children(directory.id)] == [
            b"first",
            b"second",
            b"third",
        ]

    walk(tmp_path, 600.0, play)

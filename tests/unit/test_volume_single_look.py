"""One look at one name proves no more than what that name is: what was there may be elsewhere."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from test_volume_review import World, played

from awayfs.core.errors import Refused
from awayfs.core.types import ROOT


def test_a_look_at_one_name_does_not_pass_the_brakes(tmp_path: Path) -> None:
    """A file system that was mounted below the share is not: its empty mount point shows."""

    async def play(world: World) -> None:
        (world.share / "keep").write_bytes(b"")
        (world.share / "d").mkdir()
        for number in range(40):
            (world.share / f"d/{number}").write_bytes(b"W")
        directory = await world.find("d")
        await world.volume.observer.directory(ROOT)
        await world.volume.observer.directory(directory.id)
        (world.share / "d").rename(tmp_path / "unmounted")
        (world.share / "d").mkdir()
        found = world.volume.tree.lookup(ROOT, b"d")
        try:
            await found
        except OSError:
            pass
        assert len(world.store.nodes.children(directory.id)) == 40
        assert not world.volume.link.usable

    played(tmp_path, play)


def test_what_another_took_the_name_of_keeps_its_pin(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d/f").write_bytes(b"W")
        directory, file = await world.find("d"), await world.cached("d/f")
        await world.volume.observer.directory(ROOT)
        world.store.pins.add(directory.id, 10, recursive=True)
        (world.share / "d").rename(world.share / "old")
        (world.share / "d").mkdir()
        await world.volume.tree.lookup(ROOT, b"d")
        await world.volume.observer.directory(ROOT)
        assert world.store.nodes.child_id(ROOT, b"old") == directory.id
        assert world.store.nodes.child_id(directory.id, b"f") == file.id
        assert world.store.pins.get(directory.id) is not None

    played(tmp_path, play)


def test_a_file_that_another_took_the_name_of_stays_the_same(tmp_path: Path) -> None:
    """Both were renamed there, one to the name of the other, which has a third by now."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"aa")
        (world.share / "b").write_bytes(b"b")
        a, b = await world.cached("a"), await world.cached("b")
        await world.volume.observer.directory(ROOT)
        world.store.pins.add(a.id, 10, recursive=True)
        (world.share / "a").rename(world.share / "c")
        (world.share / "b").rename(world.share / "a")
        await world.volume.tree.lookup(ROOT, b"a")
        await world.volume.observer.directory(ROOT)
        names = {name: node.id for name, node in world.store.nodes.children(ROOT)}
        assert names == {b"c": a.id, b"a": b.id}

    played(tmp_path, play)


def test_a_name_in_a_directory_that_may_not_be_listed_is_believed_alone(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        (world.share / "d/f").mkdir()
        directory, inner = await world.find("d"), await world.find("d/f")
        remote: Any = world.volume.link.remote

        async def refused(*_arguments: Any) -> Any:
            raise Refused(errno.EACCES, "not to be listed")

        remote.list_unless = remote.list = refused
        (world.share / "d/f").rmdir()
        (world.share / "d/f").write_bytes(b"a file now")
        found = await world.find("d/f")
        assert found.id != inner.id
        assert world.store.nodes.child_id(directory.id, b"f") == found.id

    played(tmp_path, play)

"""Hard links on the server, seen and edited through one name or the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import Resolution


async def content(world: World, path: str) -> bytes:
    """What a reader of one name gets."""
    node = await world.cached(path)
    handle = world.volume.files.open(node, writing=False)
    try:
        return await world.read(handle, 0, 1 << 20)
    finally:
        world.volume.files.close(handle)


def save_over(path: Path, data: bytes) -> None:
    """As an editor does: a new file takes the name."""
    new = path.with_name("new")
    new.write_bytes(data)
    os.rename(new, path)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("saved", ["a", "d/b"])
def test_a_name_saved_over_leaves_what_the_name_in_another_directory_shows(
    saved: str, linked: bool, tmp_path: Path
) -> None:
    """``linked``: what was put there has a further name itself, which is not seen here."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        (world.share / "d").mkdir()
        os.link(world.share / "a", world.share / "d" / "b")
        assert await content(world, "a") == await content(world, "d/b") == b"one"
        node = await world.find("a")
        assert (await world.find("d/b")).id == node.id
        save_over(world.share / saved, b"another")
        if linked:
            os.link(world.share / saved, tmp_path / "elsewhere")
        other = "d/b" if saved == "a" else "a"
        for path in (saved, other, saved):
            wanted = b"another" if path == saved else b"one"
            assert await content(world, path) == wanted
        assert (await world.find(saved)).id != (await world.find(other)).id

    played(tmp_path, play)


@pytest.mark.parametrize("edited", ["a", "d/b"])
def test_a_name_saved_over_while_the_file_is_edited_by_the_other(
    edited: str, tmp_path: Path
) -> None:
    """The edit goes out, and the name that is another file by now is not made anew from it."""

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"one")
        (world.share / "d").mkdir()
        os.link(world.share / "a", world.share / "d" / "b")
        for path in ("a", "d/b"):
            await content(world, path)
        other = "d/b" if edited == "a" else "a"
        save_over(world.share / other, b"another")
        world.write(await world.find(edited), 0, b"two")
        await world.drained()
        for conflict in world.store.conflicts.all():
            await world.volume.resolve(conflict, Resolution.BOTH)
        await world.drained()
        await world.volume.observer.directory((await world.find("d")).id)
        shown = {path: await content(world, path) for path in names(world.share)}
        assert shown == names(world.share)
        assert b"two" in shown.values() and b"another" in shown.values()

    played(tmp_path, play)


def names(root: Path) -> dict[str, bytes]:
    """Every file of a tree by its path, with its content."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

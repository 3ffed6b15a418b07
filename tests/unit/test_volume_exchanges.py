"""An exchange of two names that the server comes between: decided each way, cached or not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, loses_next_answer, played

from awayfs.core.conflicts import Resolution
from awayfs.core.errors import UsageError
from awayfs.core.types import ROOT, Attributes, Range
from awayfs.remotes.directory_facts import FileSystem
from awayfs.store.fsck import check
from awayfs.volume.changes import RENAME_EXCHANGE

A, B = b"A" * 100, b"B" * 200


async def exchanged(world: World, *, linked: bool = False, cached: bytes = b"") -> None:
    """``a`` and ``b`` in ``d``: exchanged here, not sent yet."""
    (world.share / "d").mkdir()
    (world.share / "d/a").write_bytes(A)
    (world.share / "d/b").write_bytes(B)
    if linked:
        os.link(world.share / "d/a", world.share / "d/z")
        os.link(world.share / "d/b", world.share / "d/y")
    directory = (await world.find("d")).id
    await world.volume.observer.directory(directory)
    for name in cached:
        await world.cached(f"d/{chr(name)}")
    world.volume.changes.rename(directory, b"a", directory, b"b", RENAME_EXCHANGE)


def there(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (world.share / "d").iterdir()}


async def decided(world: World, way: str) -> str | None:
    await world.drained()
    (conflict,) = world.store.conflicts.all()
    done = await world.volume.deciding.keep(conflict.id, way)
    await world.drained()
    directory = (await world.find("d")).id
    await world.volume.observer.directory(directory)
    here = {os.fsdecode(name) for name, _ in world.store.nodes.children(directory)}
    assert here == set(there(world))
    assert not world.store.conflicts.all() and not world.store.journal.count()
    assert check(world.store) == []
    for name, content in there(world).items():
        node = await world.cached(f"d/{name}")
        assert Path(world.store.content.fd_path(node.id)).read_bytes() == content
    return done.copy


@pytest.mark.parametrize("way", ["local", "server", "both"])
@pytest.mark.parametrize("moved", ["a", "b"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_elsewhere_on_the_server_is_fetched(
    linked: bool, moved: str, way: str, tmp_path: Path
) -> None:
    """Nothing of it was here; under the name that it got there it can be had."""

    async def play(world: World) -> None:
        await exchanged(world, linked=linked)
        (world.share / "d" / moved).rename(world.share / "d/moved")
        await decided(world, way)
        names = {"moved": A if moved == "a" else B, **({"z": A, "y": B} if linked else {})}
        stays = {"b": B} if moved == "a" else {"a": A}
        assert there(world) == names | (stays if way == "server" else {"a": B, "b": A})

    played(tmp_path, play)


@pytest.mark.parametrize("way", ["local", "server", "both"])
@pytest.mark.parametrize("removed", ["a", "b"])
def test_what_has_another_name_on_the_server_is_fetched_from_there(
    removed: str, way: str, tmp_path: Path
) -> None:
    async def play(world: World) -> None:
        await exchanged(world, linked=True)
        (world.share / "d" / removed).unlink()
        await decided(world, way)
        stays = {"b": B} if removed == "a" else {"a": A}
        names = stays if way == "server" else {"a": B, "b": A}
        assert there(world) == {"z": A, "y": B} | names

    played(tmp_path, play)


@pytest.mark.parametrize("removed", ["a", "b"])
def test_of_what_is_nowhere_the_other_one_has_its_new_name(removed: str, tmp_path: Path) -> None:
    """``local`` cannot be carried out, and says what can; nothing of it was there to be saved."""

    async def play(world: World) -> None:
        await exchanged(world)
        (world.share / "d" / removed).unlink()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        with pytest.raises(UsageError, match=r"use --keep both.*, or --keep server"):
            await world.volume.deciding.keep(conflict.id, "local")
        assert world.store.conflicts.all() == [conflict]
        assert await decided(world, "both") is None
        assert there(world) == ({"a": B} if removed == "a" else {"b": A})

    played(tmp_path, play)


def test_what_is_known_of_a_lost_content_is_saved(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await exchanged(world)
        node = await world.find("d/a")
        handle = world.volume.files.open(node, writing=True)
        world.store.content.open(node.id)
        with world.store.transaction():
            os.pwrite(handle.opened.fd, B[:50], 0)
            world.store.content.add_range(node.id, 0, 50)
        world.volume.files.close(handle)
        assert world.store.content.ranges(node.id) == [Range(0, 50)]
        (world.share / "d/b").unlink()
        copy = await decided(world, "both")
        assert copy is not None and "partial" in copy
        found = there(world)
        assert found.pop("b") == A and found.pop(copy) == B[:50] + bytes(150)
        (note,) = found.values()
        assert b"0 to 50" in note

    played(tmp_path, play)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("other", ["is removed", "stays"])
@pytest.mark.parametrize("way", ["exchanged", "moved"])
def test_what_left_a_directory_that_is_nowhere_any_more_is_made_anew_where_it_is(
    way: str, other: str, keep: Resolution, tmp_path: Path
) -> None:
    """Removed here, and there with the one that it was in, which is made anew."""

    async def play(world: World) -> None:
        changes = world.volume.changes
        (world.share / "p/d").mkdir(parents=True)
        (world.share / "p/d/f").write_bytes(A)
        (world.share / "x").write_bytes(B)
        (world.share / "another").touch()  # an empty share is believed to be by accident
        above, directory = (await world.find("p")).id, (await world.find("p/d")).id
        node, _ = await world.cached("p/d/f"), await world.cached("x")
        for listed in (above, directory):
            await world.volume.observer.directory(listed)
        changes.link(node.id, ROOT, b"linked")
        changes.set_attributes(above, Attributes(mode=0o700))
        shutil.rmtree(world.share / "p")
        await world.drained()
        found = {conflict.node for conflict in world.store.conflicts.all()}
        assert found == {node.id, above}
        changes.unlink(ROOT, b"linked")
        if way == "exchanged":
            changes.rename(ROOT, b"x", directory, b"f", RENAME_EXCHANGE)
            changes.rename(directory, b"f", ROOT, b"y", 0)
        else:
            changes.rename(ROOT, b"x", ROOT, b"y", 0)
            changes.rename(directory, b"f", ROOT, b"x", 0)
        if other == "is removed":
            changes.unlink(ROOT, b"y")
        changes.rmdir(above, b"d")
        for _ in range(4):
            for conflict in reversed(world.store.conflicts.all()):  # the directory's first
                await world.volume.resolve(conflict, keep)
            await world.drained()
        assert not world.store.conflicts.all() and not world.store.journal.count()
        there = {path.name: path.is_file() and path.read_bytes() for path in world.share.iterdir()}
        assert (A in there.values()) is (keep is not Resolution.SERVER)
        assert B in there.values() or other == "is removed"
        await world.volume.observer.directory(ROOT)
        assert {name for name, _ in world.store.nodes.children(ROOT)} == set(map(str.encode, there))

    played(tmp_path, play)


@pytest.mark.parametrize("call", ["exchange", "settle"])
@pytest.mark.parametrize("kind", ["directories", "files that look alike"])
def test_a_lost_answer_repeats_no_exchange_where_nothing_tells_the_two_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: str
) -> None:
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)

    async def play(world: World) -> None:
        inside = "/in" if kind == "directories" else ""
        for name, content in ("a", "A"), ("b", "B"):
            place = world.share / (name + inside)
            place.parent.mkdir(exist_ok=True)
            place.write_text(content)
            os.utime(place, (10**9, 10**9))
            await world.find(name)
        world.volume.changes.rename(ROOT, b"a", ROOT, b"b", RENAME_EXCHANGE)
        loses_next_answer(world, call)
        await world.drained()
        await world.online()
        await world.drained()
        assert not world.store.journal.count() and not world.store.conflicts.count()
        assert (world.share / f"a{inside}").read_text() == "B"
        assert (world.share / f"b{inside}").read_text() == "A"

    played(tmp_path, play)

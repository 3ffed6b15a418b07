"""What is here and has no place on the server goes, or is made there, and never stays apart.

A decision may leave a thing where it was moved here, since the directory that it goes home to was
removed here. Then the server may have that directory no more, and nothing is known of a place.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played
from tests.unit.test_volume_rings import WAYS, decided, in_step, look, seen, there, tree

from awayfs.core.errors import Refused
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.store.nodes import Node
from awayfs.volume.changes import RENAME_EXCHANGE

SETTLED_S = 0.03
"""After so long, a token of a local file system is strong."""


async def left_where_it_was_moved(world: World, work: Callable[[], object] = bool) -> Node:
    """``p/d/x`` was moved here, ``p/d`` removed, and the server's new name for it decided for.

    ``work`` is done before that.
    """
    p, d = await seen(world, "p", "p/d")
    x = await world.find("p/d/x")
    world.volume.changes.rename(d, b"x", ROOT, b"y", 0)
    world.volume.changes.rmdir(p, b"d")
    work()
    os.rename(world.share / "p/d/x", world.share / "p/d/x2")
    await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
    (conflict,) = world.store.conflicts.all()
    await world.volume.deciding.keep(conflict.id, "server")
    time.sleep(SETTLED_S)
    for _ in range(2):  # what is as it was is not compared again
        await look(world)
    assert "y" in tree(world)
    return x


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", ["none", "new", "edit"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_directory(when: str, work: str, way: str, tmp_path: Path) -> None:
    """What was made in it is asked about, or has come back with its directory by then.

    Which of the two depends on what goes out first: that, or the removal of what it is in there.
    It is gone only where somebody was asked, and gave it up.
    """

    async def play(world: World) -> None:
        (world.share / "p/d/x").mkdir(parents=True)
        (world.share / "p/d/x/file").write_bytes(b"content")
        file = await world.cached("p/d/x/file")
        x = (await world.find("p/d/x")).id

        def do() -> None:
            if work == "new":
                changes = world.volume.changes
                made = changes.create(x, b"new", Kind.FILE, 0o644, os.getuid(), os.getgid())
                world.write(made, 0, b"CONTENT")
            elif work == "edit":
                world.write(file, 0, b"CONTENT")

        await left_where_it_was_moved(world, do if when == "before" else bool)
        shutil.rmtree(world.share / "p/d/x2")
        if when == "after":
            do()
        await world.drained()
        await look(world)
        asked = any(conflict.name in (b"new", b"file") for conflict in world.store.conflicts.all())
        assert asked or work != "edit"
        said = await decided(world, way)
        await in_step(world)
        assert not world.store.conflicts.all() or (not asked and "rm -r" in said[-1])
        kept = [path for path in there(world) if path.endswith(("/new", "/file"))]
        if work == "none" or (way == "server" and asked):
            assert kept == []
        else:
            assert (world.share / kept[0]).read_bytes() == b"CONTENT" and len(kept) == 1

    played(tmp_path, play)


@pytest.mark.parametrize("used", ["not", "read", "mapped"])
def test_a_file(used: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "p/d").mkdir(parents=True)
        (world.share / "p/d/x").write_bytes(b"content")
        x = await left_where_it_was_moved(world)
        os.unlink(world.share / "p/d/x2")
        handle = world.volume.files.open(x, writing=used == "mapped") if used != "not" else None
        if handle is not None:
            handle.opened.mappable = used == "mapped"
        await world.drained()
        await look(world)
        if handle is not None:
            world.volume.files.close(handle)
        await look(world)
        await in_step(world)

    played(tmp_path, play)


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY])
def test_what_is_made_here_where_it_was_to_go_home(kind: Kind, tmp_path: Path) -> None:
    """The directory is back, and the same is made in it before anybody looked: they are one."""

    async def play(world: World) -> None:
        (world.share / "p/d").mkdir(parents=True)
        if kind is Kind.FILE:
            (world.share / "p/d/x").write_bytes(b"content")
        else:
            (world.share / "p/d/x").mkdir()
            (world.share / "p/d/x/file").write_bytes(b"content")
        d = (await world.find("p/d")).id
        await left_where_it_was_moved(world)
        await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
        assert {"p/d", "y"} <= tree(world)
        made = world.volume.changes.create(d, b"x2", kind, 0o755, os.getuid(), os.getgid())
        if kind is Kind.FILE:
            world.write(made, 0, b"content")
        await world.drained()
        await look(world)
        await in_step(world)
        assert "y" not in tree(world)

    played(tmp_path, play)


# -- what is made anew with its directory -------------------------------------------------------


@pytest.mark.parametrize("way", ["local", "both"])
@pytest.mark.parametrize("change", ["content", "rights", "both"])
def test_what_was_changed_in_a_directory_is_made_anew_with_it(
    change: str, way: str, tmp_path: Path
) -> None:
    """Its change was recorded before its creation, and cannot go out before that."""

    async def play(world: World) -> None:
        (world.share / "d/below").mkdir(parents=True)
        (world.share / "d/below/file").write_bytes(b"content")
        (world.share / "d/below/file").chmod(0o644)
        await seen(world, "d", "d/below")
        file = await world.cached("d/below/file")
        world.volume.changes.rename(ROOT, b"d", ROOT, b"e", 0)
        if change != "rights":
            world.write(file, 0, b"CONTENT")
        if change != "content":
            world.volume.changes.set_attributes(file.id, Attributes(mode=0o640))
        shutil.rmtree(world.share / "d")
        await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
        await decided(world, way)
        await in_step(world)
        made = world.share / "e/below/file"
        assert made.read_bytes() == (b"content" if change == "rights" else b"CONTENT")
        assert made.stat().st_mode & 0o777 == (0o644 if change == "content" else 0o640)

    played(tmp_path, play)


@pytest.mark.parametrize("tried", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_edit_of_what_is_not_all_here_is_not_lost_with_its_directory(
    way: str, tried: bool, tmp_path: Path
) -> None:
    """It cannot be made anew: that is for whoever made it to decide, as of any such file."""

    async def play(world: World) -> None:
        (world.share / "d/below").mkdir(parents=True)
        (world.share / "d/below/file").write_bytes(b"content" * 1000)
        await seen(world, "d", "d/below")
        file = await world.find("d/below/file")
        world.volume.changes.rename(ROOT, b"d", ROOT, b"e", 0)
        world.write(file, 0, b"CONTENT")
        shutil.rmtree(world.share / "d")
        if tried:
            await world.drained()
        else:
            await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
        said = await decided(world, way)
        if way == "local":
            assert tree(world) - there(world) == {"e/below/file"}
            assert said and all("--keep both" in text for text in said)
            return
        await in_step(world)
        known = [path for path in there(world) if path.endswith(")")]
        contents = [(world.share / path).read_bytes()[:8] for path in known]
        assert contents == ([b"CONTENT\0"] if way == "both" else [])
        given_up = [lost for lost in world.store.history.all() if lost.content]
        assert len(given_up) == (way == "server")

    played(tmp_path, play)


# -- an exchange --------------------------------------------------------------------------------


async def refused(*_: object) -> None:
    raise Refused(13, "not you")


@pytest.mark.parametrize("work", ["none", "x", "y"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cause", ["y", "d/x", "refused"])
def test_one_of_two_comes_from_a_directory_that_was_removed_here(
    cause: str, way: str, work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in sight at every step, and its work is sent or, by the decision, given up."""

    async def play(world: World) -> None:
        files: dict[str, Node] = {}
        for name, place in (("x", "d/x"), ("y", "y")):
            (world.share / place).mkdir(parents=True)
            (world.share / place / name).write_bytes(b"content")
            files[name] = await world.cached(f"{place}/{name}")
        d, _, _ = await seen(world, "d", "d/x", "y")
        changes = world.volume.changes
        changes.rename(d, b"x", ROOT, b"y", RENAME_EXCHANGE)
        changes.rename(d, b"x", ROOT, b"z", 0)
        changes.rmdir(ROOT, b"d")
        if work in files:
            world.write(files[work], 0, b"CONTENT")
        if cause == "refused":
            monkeypatch.setattr(world.volume.link.remote, "exchange", refused)
        else:
            shutil.rmtree(world.share / cause)
        await world.volume.replay.steps.alone(world.store.journal.all()[0].seq)
        monkeypatch.undo()
        (conflict,) = world.store.conflicts.all()
        kept = "local" if cause == "refused" and way == "both" else way
        await world.volume.deciding.keep(conflict.id, kept)
        in_sight(world, files["x"].id, files["y"].id)
        await world.drained()
        in_sight(world, files["x"].id, files["y"].id)
        await look(world)
        in_sight(world, files["x"].id, files["y"].id)
        await decided(world, kept)
        await in_step(world)
        assert not world.store.conflicts.all()
        contents = {p.name: p.read_bytes() for p in world.share.rglob("?/?") if p.is_file()}
        contents |= {p.name: p.read_bytes() for p in world.share.rglob("d/x/x")}
        expected = {name: b"CONTENT" if name == work else b"content" for name in files}
        if kept == "server" and cause != "refused":
            del expected[cause[-1]]
        assert contents == expected

    played(tmp_path, play)


def in_sight(world: World, *nodes: NodeId) -> None:
    """What is here of these can be reached."""
    for node in nodes:
        assert world.store.nodes.get(node) is None or world.store.nodes.path(node)


@pytest.mark.parametrize("way", ["local", "both"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_directory_in_one_that_is_made_anew_is_no_link(
    elsewhere: bool, way: str, tmp_path: Path
) -> None:
    """It is known of by another name there, or by none: then it is made anew, too."""

    async def play(world: World) -> None:
        (world.share / "d/sub").mkdir(parents=True)
        (world.share / "d/sub/file").write_bytes(b"content")
        await world.cached("d/sub/file")
        d, _ = await seen(world, "d", "d/sub")
        world.volume.changes.rename(ROOT, b"d", ROOT, b"e", 0)
        if elsewhere:
            os.rename(world.share / "d/sub", world.share / "sub")
        shutil.rmtree(world.share / "d")
        await world.drained()
        server, nodes = world.store.server, world.store.nodes
        if elsewhere:
            nodes.move_name(ROOT, b"sub", d, b"sub")  # as when another had its name here
        else:
            server.remove_name(d, b"sub")
        (conflict,) = world.store.conflicts.all()
        await world.volume.deciding.keep(conflict.id, way)
        links = [r for r in world.store.journal.all() if r.kind is RecordKind.LINK]
        kinds = [node.kind for r in links if (node := nodes.get(r.node)) is not None]
        assert Kind.DIRECTORY not in kinds
        await world.drained()
        await look(world)
        await in_step(world)
        inside = {"sub", "sub/file"} if elsewhere else {"e/sub", "e/sub/file"}
        assert tree(world) == {"e", *inside}
        assert (world.share / min(inside) / "file").read_bytes() == b"content"

    played(tmp_path, play)

"""The answer to a move is lost of what somebody had changed on the server just before.

It is not what was known of it any more, but it is what was sent away: nothing is in conflict with
itself, and nothing is moved twice.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, loses_next_answer, played

from awayfs.core.types import ROOT
from awayfs.remotes.directory_facts import FileSystem
from awayfs.volume.changes import RENAME_EXCHANGE


async def tried_to_the_end(world: World, *, dies: bool) -> None:
    """All is sent, and nothing is in conflict."""
    if dies:
        world.die()
        world.open()
    await world.online()
    await world.drained()
    assert (world.store.journal.all(), world.store.conflicts.all()) == ([], [])


async def tried_again(world: World, *, dies: bool) -> dict[str, bytes]:
    """What the server has after that."""
    await tried_to_the_end(world, dies=dies)
    return {path.name: path.read_bytes() for path in world.share.iterdir()}


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("changed", ["saved over", "edited"])
@pytest.mark.parametrize(
    ("move", "ids"),
    [(move, ids) for move in ("rename", "rename over", "exchange") for ids in (True, False)],
)
def test_what_was_changed_there_moves_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    move: str,
    changed: str,
    dies: bool,
    ids: bool,
) -> None:
    if not ids:
        monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"W")
        (world.share / "c").write_bytes(b"C")
        await world.cached("a")
        await world.cached("c")
        to, flags = (b"b", 0) if move == "rename" else (b"c", 0)
        world.volume.changes.rename(
            ROOT, b"a", ROOT, to, RENAME_EXCHANGE if move == "exchange" else flags
        )
        if changed == "saved over":
            (world.share / "a").unlink()
        (world.share / "a").write_bytes(b"changed there")
        loses_next_answer(world, "exchange" if move == "exchange" else "rename")
        await world.drained()
        there = await tried_again(world, dies=dies)
        others = {"rename": {"c": b"C"}, "rename over": {}, "exchange": {"a": b"C"}}
        assert there == {to.decode(): b"changed there", **others[move]}
        await world.volume.observer.directory(ROOT)
        for name, content in there.items():
            node = await world.cached(name)
            assert Path(world.store.content.fd_path(node.id)).read_bytes() == content

    played(tmp_path, play)


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("what", ["file", "edited", "symlink", "directory"])
@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("over", [False, True])
def test_a_name_that_was_left_is_taken_again_by_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: bool, ids: bool, what: str, dies: bool
) -> None:
    """What stands under the new name is what went there, and in no conflict with itself."""
    if not ids:
        monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)

    async def play(world: World) -> None:
        a, b = world.share / "a", world.share / "b"

        def put(path: Path, text: str, at_s: int) -> None:
            if what == "symlink":
                path.symlink_to(text)
            elif what == "directory":
                path.mkdir()
                (path / text).write_bytes(b"")
            else:
                path.write_text(text)
            os.utime(path, (at_s, at_s), follow_symlinks=False)

        put(a, "moved", 1_000_000_000)
        if over:
            b.mkdir() if what == "directory" else b.write_bytes(b"displaced")
            displaced = await world.find("b")
            if what == "directory":
                await world.volume.observer.directory(displaced.id)
        node = await world.find("a")
        await world.volume.observer.directory(ROOT)
        world.volume.changes.rename(ROOT, b"a", ROOT, b"b", 0)
        if what == "edited":
            a.write_text("edited")
        loses_next_answer(world, "rename")
        await world.drained()
        put(a, "taken", 1_100_000_000)
        await tried_to_the_end(world, dies=dies)
        shown = await world.find("b")
        assert shown.id == node.id
        assert (await world.find("a")).id != node.id
        told = {"file": "moved", "edited": "edited"}
        for path, text in ((a, "taken"), (b, told.get(what, "moved"))):
            if what == "symlink":
                assert os.readlink(path) == text
            elif what == "directory":
                assert os.listdir(path) == [text]
            else:
                assert path.read_text() == text

    played(tmp_path, play)


@pytest.mark.parametrize("lost", ["replace", "link"])
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("removed", ["one", "both"])
def test_an_edit_goes_on_by_the_name_that_it_began_with(
    tmp_path: Path,
    removed: str,
    dies: bool,
    lost: str,
) -> None:
    """Of two names; that one is removed here meanwhile, and it would go by the other from then on.

    Then what it had put in place before was somebody else's, and the removal in conflict with it.
    """

    async def play(world: World) -> None:
        (world.share / "a").write_bytes(b"W")
        os.link(world.share / "a", world.share / "b")
        node = await world.cached("a")
        assert (await world.find("b")).id == node.id
        world.write(node, 0, b"changed here")
        first, second = (b"a", b"b") if removed == "one" else (b"b", b"a")
        if removed == "both":
            world.volume.changes.unlink(ROOT, second)
        loses_next_answer(world, lost)
        await world.drained()
        assert (world.share / os.fsdecode(first)).read_bytes() == b"changed here"
        world.volume.changes.unlink(ROOT, first)
        there = await tried_again(world, dies=dies)
        assert there == ({} if removed == "both" else {"b": b"changed here"})

    played(tmp_path, play)

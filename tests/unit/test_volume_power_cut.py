"""A power cut takes what was not made durable, and nothing that was settled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.types import ROOT, Kind
from awayfs.daemon import fsck
from awayfs.store.fsck import check
from awayfs.store.nodes import Node
from awayfs.store.store import Store


def cut_power(
    world: World, torn: Node, before_start: Callable[[str], object] = lambda _state: None
) -> None:
    """The machine goes down; the database came to the disk, and this file's bytes did not."""
    path = os.path.relpath(world.store.content.fd_path(torn.id), world.state)
    world.die()
    os.truncate(f"{world.state}/{path}", 0)
    Path(world.state, "running").write_text("another boot")
    before_start(world.state)
    world.open()


def save(world: World, name: bytes, data: bytes) -> Node:
    """As an editor does: written beside it, and renamed over it."""
    changes = world.volume.changes
    node, opened = changes.create_open(
        ROOT, name + b"~", 0o644, os.getuid(), os.getgid(), writing=True
    )
    world.write(node, 0, data)
    world.volume.context.opened.release(opened, writing=True)
    changes.rename(ROOT, name + b"~", ROOT, name, 0)
    return node


@pytest.mark.parametrize("keep", [Resolution.LOCAL, Resolution.SERVER, Resolution.BOTH])
def test_a_save_that_was_not_durable_replaces_nothing_unseen(
    tmp_path: Path, keep: Resolution
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"settled")
        await world.cached("f")
        world.volume.link.offline_by_hand()
        cut_power(world, save(world, b"f", b"saved"))
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"settled"
        (conflict,) = world.store.conflicts.all()
        await world.volume.resolve(conflict, keep)
        await world.drained()
        kept = b"" if keep is Resolution.LOCAL else b"settled"
        assert (world.share / "f").read_bytes() == kept
        assert not world.store.conflicts.all() and not world.store.journal.count()

    played(tmp_path, play)


def checked(state: str) -> None:
    fsck.main([state, "--repair"])


def refused(state: str) -> None:
    """A mount that does not come about, of another URL, say."""
    Store.open(state, create=True).close()


def killed(state: str) -> None:
    """Before it has looked at what it found."""
    store = Store.open(state, create=True)
    store.db.close()
    store._lock.release()


@pytest.mark.parametrize("before_start", [checked, refused, killed])
def test_who_opens_first_after_a_power_cut_need_not_be_who_sends(
    tmp_path: Path, before_start: Callable[[str], object]
) -> None:
    """For the next one the machine was not down; what is torn must not replace anything still."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"settled")
        file = await world.cached("f")
        world.volume.link.offline_by_hand()
        world.write(file, 0, b"edited here")
        cut_power(world, file, before_start)
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"settled"
        assert world.store.conflicts.count() == 1
        world.die()
        world.open()
        assert world.store.suspect == [] and world.store.conflicts.count() == 1

    played(tmp_path, play)


@pytest.mark.parametrize("known", [True, False])
def test_nor_does_it_replace_a_durable_save_that_was_not_sent(tmp_path: Path, known: bool) -> None:
    async def play(world: World) -> None:
        if known:
            (world.share / "f").write_bytes(b"settled")
            await world.cached("f")
        await world.volume.observer.directory(ROOT)
        world.volume.link.offline_by_hand()
        save(world, b"f", b"saved and durable")
        await world.volume.durable(None)
        cut_power(world, save(world, b"f", b"saved again"))
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"saved and durable"
        assert world.store.conflicts.count() == 1

    played(tmp_path, play)


def test_a_new_file_that_was_not_durable_just_goes_out(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await world.volume.observer.directory(ROOT)
        world.volume.link.offline_by_hand()
        cut_power(world, save(world, b"f", b"saved"))
        await world.online()
        await world.drained()
        assert os.listdir(world.share) == ["f"]
        assert not world.store.conflicts.all() and not world.store.journal.count()

    played(tmp_path, play)


@pytest.mark.parametrize("choice", ["local", "server", "both", "base", "with"])
def test_what_was_renamed_over_a_file_that_the_server_has_no_more(
    choice: str, tmp_path: Path
) -> None:
    """Nothing stands there that the rename would have to be based on, or taken back for."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"base")
        file = await world.cached("f")
        world.write(file, 0, b"EDITED")
        (world.share / "f").unlink()
        await world.drained()
        (conflict,) = world.store.conflicts.all()
        await world.volume.deciding.keep(conflict.id, "local")  # it is to be made anew
        world.volume.link.offline_by_hand()
        owner = (os.getuid(), os.getgid())
        made = world.volume.changes.create(ROOT, b"g", Kind.FILE, 0o644, *owner)
        await world.volume.durable(None)
        world.die()  # so that what was made before is no save of an editor's
        world.open()
        world.write(world.shown(made), 0, b"torn")
        world.volume.changes.rename(ROOT, b"g", ROOT, b"f", 0)
        cut_power(world, made)
        (conflict,) = world.store.conflicts.all()
        assert conflict.server_entry is None
        await world.online()
        if choice == "with":
            (tmp_path / "given").write_bytes(b"given")
            staged = await world.volume.deciding.staged_copy(str(tmp_path / "given"))
            await world.volume.deciding.take(conflict.id, staged)
        else:
            await world.volume.deciding.keep(conflict.id, choice)
        await world.drained()
        kept = {"local": b"", "base": b"base", "with": b"given"}.get(choice, b"EDITED")
        found = {path.name: path.read_bytes() for path in world.share.iterdir()}
        assert found.pop("f") == kept
        assert list(found.values()) == ([b""] if choice == "both" else [])
        assert not world.store.conflicts.all() and not world.store.journal.count()
        history = world.store.history
        lost = [history.content_path(one.id) for one in history.all() if one.content]
        gone = choice != "local"
        assert [Path(path).read_bytes() for path in lost] == ([b""] if gone else [])
        assert check(world.store) == []

    played(tmp_path, play)

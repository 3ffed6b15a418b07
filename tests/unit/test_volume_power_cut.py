"""A power cut takes what was not made durable, and nothing that was settled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.conflicts import Resolution
from awayfs.core.types import ROOT
from awayfs.daemon import fsck
from awayfs.store.nodes import Node
from awayfs.store.store import Store


def cut_power(
    world: World, torn: Node, before_start: Callable[[str], object] = lambda _state: None
) -> None:
    """The machine goes down; the database came to the disk, and this file's bytes did not."""
    world.die()
    os.truncate(world.store.content.fd_path(torn.id).replace("/state/", "/state+/"), 0)
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

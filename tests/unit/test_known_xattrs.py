"""Extended attributes that somebody sets on the server, around what happens here meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_volume_review import World, played

from awayfs.core.types import Attributes
from awayfs.store.nodes import Node

SETTLED_S = 0.05
"""After so long the change time of a local file is that of no later change."""


def _there(path: Path) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}


async def _known(world: World) -> Node:
    """A file that is here with its attributes; the server's clock has gone on since."""
    (world.share / "f").write_text("theirs")
    os.setxattr(world.share / "f", "user.before", b"1")
    time.sleep(SETTLED_S)
    node = await world.cached("f")
    assert await world.volume.tree.xattrs(node.id) == {b"user.before": b"1"}
    return node


def _write(world: World, node: Node) -> None:
    world.write(node, 0, b"ours..")


def _chmod(world: World, node: Node) -> None:
    world.volume.changes.set_attributes(node.id, Attributes(mode=0o600))


def _setxattr(world: World, node: Node) -> None:
    world.volume.changes.set_xattr(node.id, b"user.ours", b"2", 0)


def _rename(world: World, node: Node) -> None:
    (parent, name) = world.store.nodes.names(node.id)[0]
    world.volume.changes.rename(parent, name, parent, b"g", 0)


CHANGES: dict[str, Callable[[World, Node], None]] = {
    "write": _write,
    "chmod": _chmod,
    "setxattr": _setxattr,
    "rename": _rename,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_set_on_the_server_is_seen_after_a_change_of_ours_went_out(
    tmp_path: Path, change: str
) -> None:
    """The upload goes out over the revision with the attribute, which was not looked at before."""

    async def play(world: World) -> None:
        node = await _known(world)
        CHANGES[change](world, node)
        os.setxattr(world.share / "f", "user.theirs", b"3")
        os.removexattr(world.share / "f", "user.before")
        time.sleep(SETTLED_S)
        await world.drained()
        file = world.share / ("g" if change == "rename" else "f")
        assert _there(file)[b"user.theirs"] == b"3"
        await world.volume.observer.directory(world.store.nodes.names(node.id)[0][0])
        assert await world.volume.tree.xattrs(node.id) == _there(file)

    played(tmp_path, play)


def test_attributes_that_nobody_changed_there_are_known_after_an_upload(tmp_path: Path) -> None:
    """So that they can be read while the server is away, and count as here for a hoard walk."""

    async def play(world: World) -> None:
        node = await _known(world)
        _write(world, node)
        await world.drained()
        assert (world.share / "f").read_text() == "ours.."
        os.setxattr(world.share / "f", "user.theirs", b"3")  # nobody has looked since
        assert await world.volume.tree.xattrs(node.id) == {b"user.before": b"1"}

    played(tmp_path, play)


def test_an_answer_that_was_outrun_is_not_kept(tmp_path: Path) -> None:
    """Read before somebody set one, and back only when the newer revision had been seen."""

    async def play(world: World) -> None:
        node = await _known(world)
        os.setxattr(world.share / "f", "user.theirs", b"3")
        time.sleep(SETTLED_S)
        await world.find("f")
        remote = world.volume.link.remote
        read = remote.xattrs

        async def outrun(path: bytes) -> dict[bytes, bytes]:
            found = await read(path)
            os.setxattr(world.share / "f", "user.theirs", b"4")
            time.sleep(SETTLED_S)
            await world.find("f")
            return found

        remote.xattrs = outrun  # type: ignore[method-assign]
        await world.volume.tree.xattrs(node.id)
        remote.xattrs = read  # type: ignore[method-assign]
        assert await world.volume.tree.xattrs(node.id) == _there(world.share / "f")

    played(tmp_path, play)


def test_what_is_set_here_shows_with_what_the_server_has(tmp_path: Path) -> None:
    """Also when it was removed there meanwhile, or its removal has not come there yet."""

    async def play(world: World) -> None:
        node = await _known(world)
        os.setxattr(world.share / "f", "user.theirs", b"3")
        time.sleep(SETTLED_S)
        await world.find("f")
        world.volume.changes.set_xattr(node.id, b"user.ours", b"2", 0)
        world.volume.changes.set_xattr(node.id, b"user.before", None, 0)
        shown = await world.volume.tree.xattrs(node.id)
        assert shown == {b"user.ours": b"2", b"user.theirs": b"3"}

    played(tmp_path, play)

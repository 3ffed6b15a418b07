"""Files with one size and one modification time, as they are made in one go, over SFTP.

It shows no more of a file, so that another one under the name that ours is to have looks like ours.
It must not be taken for it: what is here would pass for its content, and an edit go out over it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sftp_world import SftpWorld, played

from awayfs.core.types import ROOT, Kind
from awayfs.volume.changes import RENAME_EXCHANGE
from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

LONG_AGO = 1_600_000_000
NAMES = {"linked": "new", "renamed": "new", "renamed by case": "F"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


async def begun(world: SftpWorld) -> None:
    """A directory was made, so that the server's clock is known, and old tokens count as strong."""
    world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, os.getuid(), os.getgid())
    await world.drained()


def put(world: SftpWorld, name: str, text: str, at: int = LONG_AGO) -> None:
    (world.share / name).write_text(text)
    os.utime(world.share / name, (at, at))


@pytest.mark.parametrize("how", NAMES)
def test_what_looks_like_it_under_the_new_name_is_not_overwritten(
    server: Sshd, tmp_path: Path, how: str
) -> None:
    async def play(world: SftpWorld) -> None:
        await begun(world)
        put(world, "f", "one")
        node, changes, name = await world.cached("f"), world.volume.changes, NAMES[how]
        if how == "linked":
            changes.link(node.id, ROOT, name.encode())
        else:
            changes.rename(ROOT, b"f", ROOT, name.encode(), 0)
        put(world, name, "uno")
        if how == "renamed":
            (world.share / "f").unlink()
        await world.drained()
        world.rewritten(node.id, b"mine")
        await world.drained()
        assert world.files()[name] == b"uno"
        assert world.store.conflicts.count() == 1

    played(server, tmp_path, play)


def test_what_looks_as_if_it_had_been_exchanged_is_shown_as_it_is(
    server: Sshd, tmp_path: Path
) -> None:
    async def play(world: SftpWorld) -> None:
        await begun(world)
        put(world, "f", "one")
        put(world, "g", "two", LONG_AGO + 1)
        for name in "fg":
            await world.cached(name)
        world.volume.changes.rename(ROOT, b"f", ROOT, b"g", RENAME_EXCHANGE)
        put(world, "f", "due", LONG_AGO + 1)
        put(world, "g", "uno")
        await world.drained()
        await world.volume.observer.directory(ROOT)
        shown = {}
        for name in "fg":
            node = await world.cached(name)
            handle = world.volume.files.open(node, writing=False)
            shown[name] = await world.read(handle, 0, 100)
            world.volume.files.close(handle)
        assert shown == {name: world.files()[name] for name in "fg"}
        assert set(shown.values()) == {b"uno", b"due"}

    played(server, tmp_path, play)

"""One upload that takes long, or one record that could not be read, holds nothing else up."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.records import RecordState
from awayfs.core.types import ROOT, Kind
from awayfs.volume import replay


def test_what_is_changed_during_a_long_upload_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "LONG_S", 0.05, raising=False)

    async def play(world: World) -> None:
        remote = world.volume.link.remote
        stage, begun, over = remote.stage, asyncio.Event(), asyncio.Event()

        async def slowly(*arguments: Any) -> Any:
            if arguments[3] == 4:
                begun.set()
                await over.wait()
            return await stage(*arguments)

        monkeypatch.setattr(remote, "stage", slowly)
        large = world.volume.changes.create(ROOT, b"large", Kind.FILE, 0o644, 0, 0)
        world.write(large, 0, b"long")
        drain = asyncio.ensure_future(world.drained())
        await asyncio.wait_for(begun.wait(), 60)
        small = world.volume.changes.create(ROOT, b"small", Kind.FILE, 0o644, 0, 0)
        world.write(small, 0, b"1")
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not world.store.journal.has_any(small.id):
                break
        assert os.listdir(world.share) == ["small"]
        over.set()
        await drain
        assert sorted(os.listdir(world.share)) == ["large", "small"]

    played(tmp_path, play)


@pytest.mark.parametrize("when", [1, 2])
def test_a_journal_that_cannot_be_read_for_a_moment_is_sent_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """As on a full disk, on which SQLite may be unable to read."""

    async def play(world: World) -> None:
        world.volume.changes.create(ROOT, b"a", Kind.DIRECTORY, 0o755, 0, 0)
        queue, asked = world.volume.replay._queue, 0
        known, follow = queue._state, queue._follow

        def state(seq: int) -> RecordState:
            nonlocal asked
            asked += 1
            if asked == 1 == when:
                raise OSError(errno.ENOSPC, "no room for the database")
            return known(seq)

        def followed(seq: int) -> None:
            nonlocal asked
            asked += 1
            if asked == 2 == when:
                raise OSError(errno.ENOSPC, "no room for the database")
            follow(seq)

        monkeypatch.setattr(queue, "_state", state)
        monkeypatch.setattr(queue, "_follow", followed)
        with pytest.raises(OSError, match="no room"):
            await world.drained()
        world.volume.changes.rename(ROOT, b"a", ROOT, b"b", 0)
        await world.drained()
        assert os.listdir(world.share) == ["b"]
        assert world.store.journal.count() == 0

    played(tmp_path, play)


def test_an_attribute_that_was_removed_here_is_not_read_from_the_server_again(
    tmp_path: Path,
) -> None:
    async def play(world: World) -> None:
        file = world.share / "f"
        file.write_bytes(b"x")
        os.setxattr(file, "user.a", b"1")
        os.setxattr(file, "user.b", b"1")
        tree, changes = world.volume.tree, world.volume.changes
        node = await world.find("f")
        assert set(await tree.xattrs(node.id)) == {b"user.a", b"user.b"}
        world.volume.link.offline_by_hand()
        changes.set_xattr(node.id, b"user.a", None, 0)
        file.write_bytes(b"other")
        await world.volume.link.online_by_hand()
        await world.volume.observer.directory(ROOT)
        assert set(await tree.xattrs(node.id)) == {b"user.b"}
        await world.drained()
        assert os.listxattr(file) == ["user.b"]

    played(tmp_path, play)

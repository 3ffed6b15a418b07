"""What is displaced and cannot be told from what somebody wrote in the same moment is kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from test_volume_review import World, played

from awayfs.core.types import ROOT, Entry, Kind
from awayfs.remotes.directory_facts import Version
from awayfs.remotes.directory_tree import Tree
from awayfs.store.fsck import check

FIRST, SECOND = b"first", b"other"


@pytest.fixture
def changed_ns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Both contents have one token, and it is weak: as over SFTP in one second, which is this."""
    entry, changed_ns = Tree.entry, [time.time_ns()]

    def shown(*arguments: Any, **named: Any) -> Entry:
        found = entry(*arguments, **named)
        if found.kind is not Kind.FILE:
            return found
        token = Version(0, 0, 0, found.size).token()
        return replace(found, token=token, weak=True, mtime_ns=changed_ns[0], ctime_ns=None)

    monkeypatch.setattr(Tree, "entry", shown)
    return changed_ns


@pytest.mark.parametrize("how", ["removed", "renamed over", "written over"])
@pytest.mark.parametrize("read", [False, True])
def test_an_edit_of_the_same_moment_is_nowhere_lost(
    tmp_path: Path, changed_ns: list[int], how: str, read: bool
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(FIRST)
        (world.share / "g").write_bytes(b"ours, longer")
        node = await world.find("f")
        await world.cached("g")
        if read:
            await world.cached("f")
        if how == "removed":
            world.volume.changes.unlink(ROOT, b"f")
        elif how == "renamed over":
            world.volume.changes.rename(ROOT, b"g", ROOT, b"f", 0)
        else:
            world.volume.files.truncate(node, 0)
            world.write(world.shown(node), 0, b"ours")
        (world.share / "f").write_bytes(SECOND)
        await world.drained()
        history = world.store.history
        kept = [Path(history.content_path(one.id)).read_bytes() for one in history.of(b"f", None)]
        there = (world.share / "f").read_bytes() if (world.share / "f").exists() else b""
        if read:  # then a digest tells
            assert there == SECOND and world.store.conflicts.count() == 1
        else:
            assert there != SECOND and kept == [SECOND]
            assert not world.store.conflicts.count() and not world.store.journal.count()
        assert check(world.store) == []

    played(tmp_path, play)


def test_what_was_old_when_it_was_seen_is_not_fetched(
    tmp_path: Path, changed_ns: list[int]
) -> None:
    changed_ns[0] -= 3600 * 10**9

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(FIRST)
        await world.find("f")
        world.volume.changes.unlink(ROOT, b"f")
        await world.drained()
        assert not (world.share / "f").exists() and not world.store.history.of(b"f", None)

    played(tmp_path, play)

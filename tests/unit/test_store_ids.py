"""Ids of nodes, which are inode numbers: each is given out once, whatever happens."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.nodes import LOST
from awayfs.store.store import Store
from awayfs.volume.virtual_node import VIRTUAL_BASE

TIMES = {"atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3, "btime_ns": 4}
MANY = 1_000_000
TOGETHER = 50_000


def made(store: Store, count: int) -> list[NodeId]:
    """So many nodes in one transaction, without names."""
    with store.transaction():
        return [store.nodes.add(Kind.FILE, 0o644, 0, 0, **TIMES).id for _ in range(count)]


@pytest.mark.slow
def test_a_million_made_offline_stay_unique(tmp_path: Path) -> None:
    """Half of them removed on the way, with the newest among those, and the store opened anew."""
    directory = str(tmp_path / "v")
    store = Store.open(directory, create=True)
    seen: set[NodeId] = {ROOT}
    while len(seen) <= MANY:
        new = made(store, TOGETHER)
        assert len(set(new)) == len(new)
        assert seen.isdisjoint(new)
        seen.update(new)
        with store.transaction():
            for node in new[TOGETHER // 2 :]:
                store.db.execute("DELETE FROM nodes WHERE id = ?", (node,))
        if len(seen) % 200_000 < TOGETHER:
            store.close()
            store = Store.open(directory)
    assert store.nodes.count() == 1 + MANY // 2
    assert max(seen) < VIRTUAL_BASE
    store.close()


def test_no_id_of_a_removed_node_comes_again(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    last = made(store, 3)
    for node in last:
        store.nodes.remove(node)
    store.close()
    store = Store.open(str(tmp_path / "v"))
    assert min(made(store, 3)) > max(last)
    store.close()


def test_a_change_that_came_to_nothing_takes_its_id_along(tmp_path: Path) -> None:
    """Nobody was told of it, so that it may be given to the next."""
    store = Store.open(str(tmp_path / "v"), create=True)
    (first,) = made(store, 1)
    with pytest.raises(KeyError), store.transaction():
        made(store, 5)
        raise KeyError
    assert store.nodes.get(first + 1) is None
    assert made(store, 1) == [first + 1]
    store.close()


def test_ids_that_a_power_cut_took_are_passed_over(tmp_path: Path) -> None:
    """They were told, and may be known to somebody; what they named is lost."""
    directory = tmp_path / "v"
    store = Store.open(str(directory), create=True, boot_id="first")
    made(store, 2)
    shutil.copytree(directory, tmp_path / "disk")
    told = made(store, 1000)
    again = Store.open(str(tmp_path / "disk"), boot_id="second")
    assert again.nodes.get(told[-1]) is None, "lost"
    new = made(again, 1000)
    assert not set(told) & set(new)
    assert min(new) - max(told) < 2 * LOST
    again.close()
    store.close()


def test_a_killed_daemon_takes_no_id_and_none_is_skipped(tmp_path: Path) -> None:
    """The page cache survives: nothing acknowledged is gone."""
    directory = tmp_path / "v"
    store = Store.open(str(directory), create=True, boot_id="same")
    told = made(store, 10)
    shutil.copytree(directory, tmp_path / "disk")
    again = Store.open(str(tmp_path / "disk"), boot_id="same")
    assert made(again, 1) == [told[-1] + 1]
    again.close()
    store.close()


def test_a_salvage_passes_over_more_than_can_have_been_lost(tmp_path: Path) -> None:
    directory = tmp_path / "v"
    store = Store.open(str(directory), create=True)
    told = made(store, 20_000)
    store.close()
    path = directory / "volume.db"
    with sqlite3.connect(path) as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with open(path, "r+b") as file:
        file.truncate(pages // 2 * size)  # the newest rows, and the counter it may be
    again = Store.open(str(directory))
    assert again.salvaged is not None
    assert again.nodes.count() < 20_000
    assert min(made(again, 10)) > max(told)
    again.close()

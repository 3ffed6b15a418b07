"""Changes that go out without a look at the server, where nothing or something changed there."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_volume_review import World, loses_next_answer, played

from awayfs.core.conflicts import ConflictKind
from awayfs.core.types import ROOT
from awayfs.remotes.directory_facts import FileSystem

LONG_AGO = 1_500_000_000
SETTLED_S = 0.1
"""Longer than a change time takes to prove something."""

ACTS = ["edit", "remove", "rename"]


@pytest.fixture(autouse=True)
def without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)


async def known(world: World, path: str) -> None:
    """A file that was there for long, and is here as well."""
    (world.share / path).write_bytes(b"base")
    os.chmod(world.share / path, 0o644)
    os.utime(world.share / path, (LONG_AGO, LONG_AGO))
    await asyncio.sleep(SETTLED_S)
    await world.cached(path)


async def act(world: World, what: str) -> None:
    """Something is done to ``f``, away from the server."""
    node, changes = await world.find("f"), world.volume.changes
    if what == "edit":
        world.write(world.shown(node), 0, b"ours")
    elif what == "remove":
        changes.unlink(ROOT, b"f")
    else:
        changes.rename(ROOT, b"f", ROOT, b"g", 0)


def looks(world: World, monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each path is looked at from now on."""
    remote, counted = world.volume.link.remote, Counter[bytes]()
    stat = remote.stat

    async def counting(path: bytes) -> Any:
        counted[path] += 1
        return await stat(path)

    monkeypatch.setattr(remote, "stat", counting)
    return counted


DONE = {"edit": {"f": b"ours"}, "remove": {}, "rename": {"g": b"base"}}


def standing(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in world.share.iterdir()}


@pytest.mark.parametrize("what", ACTS)
def test_nobody_looks_where_nothing_changed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        await known(world, "f")
        await act(world, what)
        counted = looks(world, monkeypatch)
        await world.drained()
        assert standing(world) == DONE[what]
        assert not counted
        assert not world.store.conflicts.count() and not world.store.journal.count()

    played(tmp_path, play)


@pytest.mark.parametrize("what", ACTS)
def test_a_mode_that_was_set_on_the_server_stays(what: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await known(world, "f")
        await act(world, what)
        os.chmod(world.share / "f", 0o600)
        await world.drained()
        assert standing(world) == DONE[what]
        for path in world.share.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600
        assert not world.store.conflicts.count()

    played(tmp_path, play)


@pytest.mark.parametrize("what", ACTS)
def test_an_edit_on_the_server_is_met(what: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await known(world, "f")
        await act(world, what)
        (world.share / "f").write_bytes(b"theirs")
        await world.drained()
        assert standing(world) == {"g" if what == "rename" else "f": b"theirs"}
        kinds = [conflict.kind for conflict in world.store.conflicts.all()]
        expected = {
            "edit": [ConflictKind.UPDATE_UPDATE],
            "remove": [ConflictKind.REMOVE_UPDATE],
            "rename": [],
        }
        assert kinds == expected[what]

    played(tmp_path, play)


@pytest.mark.parametrize("what", ACTS)
def test_a_removal_on_the_server_is_met(what: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await known(world, "f")
        await act(world, what)
        os.unlink(world.share / "f")
        await world.drained()
        assert standing(world) == {}
        kinds = [conflict.kind for conflict in world.store.conflicts.all()]
        assert kinds == ([] if what == "remove" else [ConflictKind.UPDATE_REMOVE])

    played(tmp_path, play)


def test_a_name_that_was_taken_on_the_server_is_met(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await known(world, "f")
        await act(world, "rename")
        (world.share / "g").write_bytes(b"theirs")
        await world.drained()
        assert standing(world) == {"f": b"base", "g": b"theirs"}
        assert world.store.conflicts.count() == 1

    played(tmp_path, play)


@pytest.mark.parametrize("what", ACTS)
@pytest.mark.parametrize("meanwhile", [None, b"theirs"])
def test_a_lost_answer_is_no_conflict_with_oneself(
    what: str, meanwhile: bytes | None, tmp_path: Path
) -> None:
    """And what somebody writes after it is kept."""

    async def play(world: World) -> None:
        await known(world, "f")
        await act(world, what)
        call = {"edit": "put", "remove": "remove", "rename": "rename"}[what]
        loses_next_answer(world, call)
        await world.drained()
        name = "g" if what == "rename" else "f"
        if meanwhile is not None:
            (world.share / name).write_bytes(meanwhile)
        if not world.volume.link.usable:
            await world.online()
        await world.drained()
        expected = {name: meanwhile} if meanwhile is not None else DONE[what]
        assert standing(world) == expected
        if meanwhile is None:
            assert not world.store.conflicts.count()
        assert not world.store.journal.count() or world.store.conflicts.count()

    played(tmp_path, play)

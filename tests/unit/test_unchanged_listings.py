"""A listing that is as it was says so of each entry, and only where that is known of all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from test_volume_review import World, played

from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.volume.admission import ACCEPTED
from awayfs.volume.adopt import Adopter
from awayfs.volume.adopted_attributes import AdoptedAttributes

SETTLED_S = 0.05
"""After that tokens of a local directory are strong."""


async def listed(world: World, node: int = ROOT) -> bool:
    """List a directory; whether its entries came with the answer."""
    came: list[bool] = []
    asked = world.volume.link.remote.list_unless

    async def list_unless(path: bytes, fingerprint: bytes) -> Any:
        found = await asked(path, fingerprint)
        came.append(found.entries is not None)
        return found

    world.volume.link.remote.list_unless = list_unless  # type: ignore[method-assign]
    try:
        await world.volume.observer.directory(node)
    finally:
        world.volume.link.remote.list_unless = asked  # type: ignore[method-assign]
    return any(came)


async def settled(world: World) -> None:
    """A share with a file and a directory, of which all is known and strong."""
    (world.share / "f").write_bytes(b"content")
    (world.share / "d").mkdir()
    time.sleep(SETTLED_S)
    await listed(world)
    await listed(world)
    assert world.store.server.fingerprint(ROOT) is not None


def test_what_is_as_it_was_is_seen_again_without_its_entries(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await settled(world)
        node = (await world.find("f")).id
        before = world.store.server.seen_ns(node)
        world.store.server.stale_all()
        assert world.store.server.seen_ns(node) == 0
        assert not await listed(world)
        after = world.store.server.seen_ns(node)
        assert before is not None and after is not None and after > before
        assert after == world.store.server.listed_ns(ROOT)

    played(tmp_path, play)


def replaced(share: Path) -> None:
    (share / "new").write_bytes(b"content")
    os.rename(share / "new", share / "f")


@pytest.mark.parametrize(
    "change",
    [
        lambda share: (share / "f").write_bytes(b"changed"),
        lambda share: (share / "f").chmod(0o600),
        lambda share: (share / "f").unlink(),
        lambda share: os.rename(share / "f", share / "g"),
        lambda share: (share / "more").touch(),
        lambda share: (share / "d" / "inside").touch(),
        lambda share: os.link(share / "f", share / "d" / "hard"),
        lambda share: shutil.copystat(share, share / "f"),
        replaced,
    ],
)
def test_whatever_changes_there_is_found(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    async def play(world: World) -> None:
        await settled(world)
        change(world.share)
        assert await listed(world)
        time.sleep(SETTLED_S)
        await listed(world)
        assert not await listed(world), "and is known then"

    played(tmp_path, play)


def test_what_was_left_to_replay_is_never_taken_for_known(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await settled(world)
        file = await world.cached("f")
        world.write(file, 0, b"ours")
        (world.share / "f").write_bytes(b"theirs")
        time.sleep(SETTLED_S)
        for _ in range(3):
            assert await listed(world)
        assert world.store.server.fingerprint(ROOT) is None
        await world.drained()
        assert world.store.conflicts.count() == 1
        assert (world.share / "f").read_bytes() == b"theirs"

    played(tmp_path, play)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_name_is_shown_once_no_record_takes_it_away(tmp_path: Path, forgotten: bool) -> None:
    """Whatever became of the record. ``forgotten``: the node is gone, too."""

    async def play(world: World) -> None:
        await settled(world)
        file, store = await world.cached("f"), world.store
        world.volume.changes.unlink(ROOT, b"f")
        store.nodes.update(file.id, mode=0o600)
        await listed(world)
        assert store.nodes.child_id(ROOT, b"f") is None
        store.journal.remove([record.seq for record in store.journal.all()])
        if forgotten:
            store.nodes.remove(file.id)
        assert await listed(world)
        shown = await world.find("f")
        assert (shown.id == file.id) != forgotten
        assert shown.mode == 0o644 and shown.size == len(b"content")
        await listed(world)
        assert not await listed(world), "and all is known then"

    played(tmp_path, play)


@pytest.mark.parametrize("taken", [False, True])
def test_a_name_that_no_record_brings_goes_where_the_file_has_another(
    tmp_path: Path, taken: bool
) -> None:
    """Unless that one is ``taken`` here: no file is without a name."""

    async def play(world: World) -> None:
        await settled(world)
        file, nodes = await world.cached("f"), world.store.nodes
        world.volume.changes.rename(ROOT, b"f", ROOT, b"g", 0)
        made = world.volume.changes.create(ROOT, b"h", Kind.FILE, 0o644, os.getuid(), os.getgid())
        if taken:
            world.volume.changes.rename(ROOT, b"h", ROOT, b"f", 0)
        await listed(world)
        assert nodes.names(file.id) == [(ROOT, b"g")]
        renames = [r.seq for r in world.store.journal.all() if r.node == file.id]
        world.store.journal.remove(renames)
        await listed(world)
        assert nodes.names(file.id) == [(ROOT, b"g" if taken else b"f")]
        assert nodes.names(made.id) == [(ROOT, b"f" if taken else b"h")]

    played(tmp_path, play)


def test_what_becomes_known_while_the_server_is_asked_counts(tmp_path: Path) -> None:
    """The answer is of before; what it is compared with has gone meanwhile."""

    async def play(world: World) -> None:
        await settled(world)
        asked, calls = world.volume.link.remote.list_unless, 0

        async def list_unless(path: bytes, fingerprint: bytes) -> Any:
            nonlocal calls
            calls += 1
            found = await asked(path, fingerprint)
            if calls == 1:
                (world.share / "f").write_bytes(b"sent by us")
                await world.volume.observer.name(ROOT, b"f")
            return found

        world.volume.link.remote.list_unless = list_unless  # type: ignore[method-assign]
        await world.volume.observer.directory(ROOT)
        node = await world.find("f")
        assert calls == 2 and node.size == len(b"sent by us")

    played(tmp_path, play)


def test_a_directorys_time_comes_back_with_a_listing_that_is_as_it_was(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await settled(world)
        node = await world.find("d")
        world.store.nodes.update(node.id, mtime_ns=node.mtime_ns + 5 * 10**9)
        assert not await listed(world)
        assert (await world.find("d")).mtime_ns == node.mtime_ns

    played(tmp_path, play)


@pytest.mark.parametrize("grain_ns", [1, 4_000_000, 1_000_000_000])
def test_a_directory_shows_the_servers_time_but_for_what_that_cannot_hold(
    grain_ns: int, tmp_path: Path
) -> None:
    """Changed here and there in one tick of a clock, it shows the server's to the last digit; the
    fraction of a second that a server cuts off stays.
    """

    async def play(world: World) -> None:
        await settled(world)
        connected = world.volume.link.connected
        assert connected is not None
        able = replace(connected.capabilities, time_granularity_ns=grain_ns)
        world.volume.link.connected = replace(connected, capabilities=able)
        node, base = await world.find("d"), world.store.server.get((await world.find("d")).id)
        assert base is not None
        attributes = AdoptedAttributes(world.volume.context)
        for there in (1_700_000_000_279_245_926, 1_700_000_000_000_000_000):
            here = there + 499_384
            world.store.nodes.update(node.id, mtime_ns=here)
            with world.store.transaction():
                attributes.directory_time(node.id, structs.replace(base.entry(), mtime_ns=there))
            is_cut_off = grain_ns > 1 and there % grain_ns == 0
            assert world.shown(node).mtime_ns == (here if is_cut_off else there)

    played(tmp_path, play)


def test_a_directory_with_unsent_changes_keeps_its_time(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        await settled(world)
        node = await world.find("d")
        world.volume.changes.set_attributes(node.id, Attributes(mtime_ns=7))
        assert not await listed(world)
        assert (await world.find("d")).mtime_ns == 7

    played(tmp_path, play)


def test_entries_are_not_seen_one_by_one(tmp_path: Path, monkeypatch: Any) -> None:
    async def play(world: World) -> None:
        await settled(world)
        monkeypatch.setattr(Adopter, "steps", None)
        assert not await listed(world)

    played(tmp_path, play)


def test_what_was_seen_as_it_was_since_a_server_was_accepted_bears_witness(tmp_path: Path) -> None:
    """A listing says it of each entry; should an older state answer next, that is noticed."""

    async def play(world: World) -> None:
        await settled(world)
        world.volume.link.offline_by_hand()
        world.volume.accept_server()
        await world.volume.link.online_by_hand()
        since = int(world.store.facts.get(ACCEPTED) or 0)
        await listed(world)
        await listed(world)
        assert world.store.server.fingerprint(ROOT) is not None
        node = world.store.nodes.child_id(ROOT, b"f")
        assert since and node in world.store.server.youngest(8, since)

    played(tmp_path, play)

"""Staged files that a session made when its work was done already are reaped, no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played

from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.remotes.directory import DirectoryRemote
from awayfs.remotes.names import is_hidden
from awayfs.volume.op_ids import move_op

CLIENT = "testclient"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (b".awayfs-testclient4.new", False),
        (b".awayfs-testclient4.old", False),
        (b".awayfs-testclien4.new", True),
        (b".awayfs-otherclient4.new", True),
        (b".awayfs-testclient4.txt", False),
        (b"plain", False),
    ],
)
def test_a_listing_hides_what_is_not_its_clients(name: bytes, hidden: bool) -> None:
    assert is_hidden(name, CLIENT) == hidden


def test_without_a_client_all_staged_names_are_hidden() -> None:
    assert is_hidden(b".awayfs-testclient4.new", "")


def as_client(world: World) -> None:
    """Have listings show what this client staged, as the daemon has them."""
    remote = world.volume.link.remote
    assert isinstance(remote, DirectoryRemote)
    remote._client = CLIENT


def test_what_a_late_session_left_is_reaped_when_it_is_seen(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        as_client(world)
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        await world.drained()
        others = (".awayfs-otherclient4.new", ".awayfs-otherclient4.old", ".awayfs-testclientx")
        for name in (".awayfs-testclient4.new", *others):
            (world.share / "d" / name).write_bytes(b"late")
        await world.volume.observer.directory(directory.id)
        assert sorted(os.listdir(world.share / "d")) == sorted(others)
        shown = [name for name, _ in world.store.nodes.children(directory.id)]
        assert shown == [b".awayfs-testclientx"]

    played(tmp_path, play)


def test_what_a_cut_move_staged_may_be_the_only_name(tmp_path: Path) -> None:
    """Its directory was moved to where nobody looked for it: it is named, not reaped."""

    async def play(world: World) -> None:
        as_client(world)
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        await world.drained()
        place = world.share / "d"
        (place / ".awayfs-testclient04.new").write_bytes(b"the only one")
        os.symlink("nowhere", place / ".awayfs-testclient05.new")
        (place / ".awayfs-testclient7.old").write_bytes(b"set aside")
        (place / "target").write_bytes(b"there as well")
        os.link(place / "target", place / ".awayfs-testclient06.new")
        await world.volume.observer.directory(directory.id)
        names = {b"recovered (conflict testclient%s)" % n for n in (b"04", b"05", b"7")}
        names.add(b"target")
        assert {os.fsencode(name) for name in os.listdir(place)} == names
        assert {name for name, _ in world.store.nodes.children(directory.id)} == names
        assert (place / "recovered (conflict testclient04)").read_bytes() == b"the only one"

    played(tmp_path, play)


def test_what_a_move_under_way_has_staged_is_left_alone(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        as_client(world)
        (world.share / "f").write_bytes(b"content")
        await world.volume.observer.directory(ROOT)
        world.volume.link.offline_by_hand()
        world.volume.changes.rename(ROOT, b"f", ROOT, b"g", 0)
        (record,) = world.store.journal.all()
        await world.volume.link.online_by_hand()
        staged = f".awayfs-{move_op(CLIENT, record.seq)}.new"
        os.rename(world.share / "f", world.share / staged)
        await world.volume.observer.directory(ROOT)
        assert os.listdir(world.share) == [staged]

    played(tmp_path, play)


def test_what_is_still_to_be_sent_is_not_reaped(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        as_client(world)
        world.volume.link.offline_by_hand()
        file = world.volume.changes.create(ROOT, b"f", Kind.FILE, 0o644, 0, 0)
        (record,) = world.store.journal.of_node(file.id)
        await world.volume.link.online_by_hand()
        op = world.volume.replay._actor.op_id(record)
        with open(world.share / "content", "w+b") as content:
            await world.volume.link.remote.stage(op, b"", content.fileno(), 0, Attributes())
        await world.volume.observer.directory(ROOT)
        assert f".awayfs-{op}.new" in os.listdir(world.share)
        assert world.store.nodes.child_id(ROOT, f".awayfs-{op}.new".encode()) is None

    played(tmp_path, play)


def test_a_directory_with_a_stray_in_it_can_be_removed(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        as_client(world)
        world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        await world.drained()
        (world.share / "d" / ".awayfs-testclient4.new").write_bytes(b"late")
        world.volume.changes.rmdir(ROOT, b"d")
        await world.drained()
        assert os.listdir(world.share) == []

    played(tmp_path, play)


def test_what_somebody_else_named_like_a_stray_is_a_file(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        as_client(world)
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        await world.drained()
        place = os.fsencode(world.share / "d")
        foreign = {b".awayfs-testclient\xff.new", b".awayfs-testclient4_0.new"}
        for name in foreign:
            with open(place + b"/" + name, "wb") as file:
                file.write(b"whose?")
        with open(place + b"/.awayfs-testclient" + b"z" * 22 + b".new", "wb") as file:
            file.write(b"no record has such a number")
        await world.volume.observer.directory(directory.id)
        assert set(os.listdir(place)) == foreign
        assert {name for name, _ in world.store.nodes.children(directory.id)} == foreign

    played(tmp_path, play)

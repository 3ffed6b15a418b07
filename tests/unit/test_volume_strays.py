"""Staged files that a session made when its work was done already are reaped, no others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sftp_world import SftpWorld
from sftp_world import played as played_over_sftp
from test_volume_review import Play, World, played

from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.remotes.directory import DirectoryRemote
from awayfs.remotes.names import is_hidden
from awayfs.volume.op_ids import move_op
from sshd import Sshd, needs_sshd, serving

CLIENT = "testclient"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (b".awayfs-testclient4.new", False),
        (b".awayfs-testclient4.old", False),
        (b".awayfs-testclien4.new", True),
        (b".awayfs-otherclient4.new", True),
        (b".awayfs-testclient.fence", True),
        (b".awayfs-otherclient.fence", True),
        (b".awayfs-testclient4.txt", False),
        (b"plain", False),
    ],
)
def test_a_listing_hides_what_is_not_its_clients(name: bytes, hidden: bool) -> None:
    assert is_hidden(name, CLIENT) == hidden


def test_without_a_client_all_staged_names_are_hidden() -> None:
    assert is_hidden(b".awayfs-testclient4.new", "")


@pytest.mark.parametrize("suffix", [b"new", b"old", b"fence"])
def test_nothing_gets_a_name_here_that_listings_hide(
    over_both: Callable[[Play], None], suffix: bytes
) -> None:
    """It would be taken for removed on the server as soon as its directory is listed."""

    async def play(world: World) -> None:
        name, changes = b".awayfs-abc." + suffix, world.volume.changes
        with pytest.raises(PermissionError):
            changes.create(ROOT, name, Kind.FILE, 0o644, os.getuid(), os.getgid())
        changes.create(ROOT, b"f", Kind.FILE, 0o644, os.getuid(), os.getgid())
        with pytest.raises(PermissionError):
            changes.rename(ROOT, b"f", ROOT, name, 0)

    over_both(play)


def as_client(world: World) -> None:
    """Have listings show what this client staged, as the daemon has them."""
    remote = world.volume.link.remote
    if isinstance(remote, DirectoryRemote):
        remote._client = CLIENT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


@pytest.fixture(params=["dir", pytest.param("sftp", marks=needs_sshd)])
def over_both(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Play], None]:
    """Run a story over either protocol: with ids and without."""
    if request.param == "dir":
        return lambda play: played(tmp_path, play)
    server = request.getfixturevalue("server")
    return lambda play: played_over_sftp(server, tmp_path, play)


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


@pytest.mark.parametrize("kind", ["one content", "two contents", "one file", "one file, named"])
def test_both_that_a_cut_move_left_are_sorted_out(
    over_both: Callable[[Play], None], kind: str
) -> None:
    """The source was staged and set aside: one name is enough for one content, and none is lost."""

    async def play(world: World) -> None:
        as_client(world)
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        await world.drained()
        place = world.share / "d"
        staged, aside = (place / f".awayfs-testclient04.{end}" for end in ("new", "old"))
        staged.write_bytes(b"one")
        if kind == "two contents":
            aside.write_bytes(b"two")
        elif kind == "one content":
            aside.write_bytes(b"one")
        else:
            os.link(staged, aside)
        if kind == "one file, named":
            os.link(staged, place / "its own")
        for path in place.iterdir():
            os.utime(path, (1_600_000_000, 1_600_000_000))
        for _ in range(3):
            await world.volume.observer.directory(directory.id)
        found = {path.name: path.read_bytes() for path in place.iterdir()}
        assert not [name for name in found if name.startswith(".awayfs-")], found
        wanted = {"one", "two"} if kind == "two contents" else {"one"}
        assert {data.decode() for data in found.values()} == wanted
        has_ids = not isinstance(world, SftpWorld)
        if kind != "one content" or not has_ids:
            assert len(found) == len(wanted)
        shown = {name for name, _ in world.store.nodes.children(directory.id)}
        assert shown == {os.fsencode(name) for name in found}

    over_both(play)


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
        op = world.volume.replay.steps._actor.op_id(record)
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


def test_what_a_late_session_moved_aside_gets_its_own_name_again(
    over_both: Callable[[Play], None],
) -> None:
    """It was to be replaced, and had been, by another session; nobody removed it."""

    async def play(world: World) -> None:
        as_client(world)
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        node = world.volume.changes.create(directory.id, b"f", Kind.FILE, 0o644, 0, 0)
        world.write(node, 0, b"what was sent")
        await world.drained()
        observer = world.volume.observer
        for look in (observer.directory(directory.id), observer.name(directory.id, b"f")):
            os.rename(world.share / "d" / "f", world.share / "d" / ".awayfs-testclient3.old")
            await look
            assert os.listdir(world.share / "d") == ["f"]
            assert [name for name, _ in world.store.nodes.children(directory.id)] == [b"f"]
            assert world.store.nodes.child_id(directory.id, b"f") == node.id
        assert (world.share / "d" / "f").read_bytes() == b"what was sent"

    over_both(play)


def test_what_is_another_revision_gets_no_name_of_what_is_gone(
    over_both: Callable[[Play], None],
) -> None:
    async def play(world: World) -> None:
        as_client(world)
        directory = world.volume.changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        node = world.volume.changes.create(directory.id, b"f", Kind.FILE, 0o644, 0, 0)
        world.write(node, 0, b"what was sent")
        await world.drained()
        os.unlink(world.share / "d" / "f")
        (world.share / "d" / ".awayfs-testclient3.old").write_bytes(b"older")
        await world.volume.observer.directory(directory.id)
        assert os.listdir(world.share / "d") == ["recovered (conflict testclient3)"]

    over_both(play)


@pytest.mark.parametrize("change", ["edit", "rename", "mode"])
def test_what_a_late_session_moved_aside_is_in_no_conflict_with_a_change_that_waits(
    over_both: Callable[[Play], None], change: str
) -> None:
    async def play(world: World) -> None:
        as_client(world)
        changes = world.volume.changes
        directory = changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, 0, 0)
        node = changes.create(directory.id, b"f", Kind.FILE, 0o644, 0, 0)
        world.write(node, 0, b"what was sent")
        await world.drained()
        os.rename(world.share / "d" / "f", world.share / "d" / ".awayfs-testclient3.old")
        if change == "edit":
            world.write(world.shown(node), 0, b"WHAT")
        elif change == "rename":
            changes.rename(directory.id, b"f", directory.id, b"h", 0)
        else:
            changes.set_attributes(node.id, Attributes(mode=0o600))
        await world.drained()
        assert not world.store.conflicts.count() and not world.store.journal.count()
        name = "h" if change == "rename" else "f"
        assert os.listdir(world.share / "d") == [name]
        data = (world.share / "d" / name).read_bytes()
        assert data == (b"WHAT was sent" if change == "edit" else b"what was sent")

    over_both(play)

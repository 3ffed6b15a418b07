"""A file's other names are made anew after an upload, whatever is cut off around it.

Over SFTP there are no ids and no link counts: which name still shows the revision that an upload
displaced is told by tokens and content alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sftp_world import SftpWorld, losing, played
from test_replay_cut_off import cutting

from awayfs.core.types import ROOT, Attributes, Kind
from awayfs.volume.link import Link
from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

LONG_AGO_NS = 528_706_426_688_832_741
ANSWERS = 24
UPLOAD_ANSWERS = 14
"""At least as many as the stories below have."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd")), sftp_only=True) as sshd:
        yield sshd


def assert_together(world: SftpWorld, content: bytes, *names: str) -> None:
    """All is sent, without a conflict, and these are names of one file with that content."""
    assert not world.store.conflicts.count() and not world.store.journal.count()
    assert {name: world.files()[name] for name in names} == dict.fromkeys(names, content)
    assert len({(world.share / name).stat().st_ino for name in names}) == 1


def test_a_time_whose_answer_was_lost_before_an_upload(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload displaces a revision that was not yet noted as the base."""

    async def play(world: SftpWorld) -> None:
        node = world.made(b"a", b"one")
        world.volume.changes.link(node, ROOT, b"b")
        await world.settled()
        remote: Any = world.volume.link.remote
        monkeypatch.setattr(remote, "set_attributes", losing(remote.set_attributes))
        world.volume.changes.set_attributes(node, Attributes(mtime_ns=LONG_AGO_NS))
        await world.drained()
        monkeypatch.undo()
        world.rewritten(node, b"two")
        await world.settled()
        assert_together(world, b"two", "a", "b")

    played(server, tmp_path, play)


def test_what_an_upload_displaces_need_not_be_the_base(server: Sshd, tmp_path: Path) -> None:
    """The same content under another time: somebody else touched it."""

    async def play(world: SftpWorld) -> None:
        node = world.made(b"a", b"one")
        world.volume.changes.link(node, ROOT, b"b")
        await world.settled()
        world.volume.link.offline_by_hand()
        world.rewritten(node, b"two")
        os.utime(world.share / "a", ns=(LONG_AGO_NS, LONG_AGO_NS))
        await world.volume.link.online_by_hand()
        await world.settled()
        assert_together(world, b"two", "a", "b")

    played(server, tmp_path, play)


@pytest.mark.parametrize("nth", range(1, ANSWERS))
def test_whatever_answer_is_lost(
    nth: int, server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stores, a time between them, and a rename of the other name that an editor goes over."""

    async def play(world: SftpWorld) -> None:
        changes, count = world.volume.changes, 0
        node = world.made(b"a", b"one")
        changes.link(node, ROOT, b"b")
        await world.settled()
        call = Link.call

        async def counted(link: Link, operation: Any) -> Any:
            nonlocal count
            count += 1
            if count != nth:
                return await call(link, operation)
            return await call(link, losing(operation))

        monkeypatch.setattr(Link, "call", counted)
        world.rewritten(node, b"two")
        changes.set_attributes(node, Attributes(mtime_ns=LONG_AGO_NS))
        await world.drained()
        world.rewritten(node, b"tri")
        await world.drained()
        await world.settled()
        assert_together(world, b"tri", "a", "b")
        changes.rename(ROOT, b"b", ROOT, b"c", 0)
        world.made(b"new", b"editor")
        changes.rename(ROOT, b"new", ROOT, b"c", 0)
        await world.settled()
        assert world.files() == {"a": b"tri", "c": b"editor"}
        assert not world.store.conflicts.count()
        assert count < ANSWERS * 3

    played(server, tmp_path, play)


@pytest.mark.parametrize("nth", range(1, UPLOAD_ANSWERS))
@pytest.mark.parametrize("gone", [b"a", b"b"])
def test_a_name_goes_after_an_answer_was_lost_of_an_edit_that_another_follows(
    nth: int, gone: bytes, server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try goes by the name that stays, with the content of by then."""

    async def play(world: SftpWorld) -> None:
        changes, count = world.volume.changes, 0
        node = world.made(b"a", b"one")
        changes.link(node, ROOT, b"b")
        await world.settled()
        call = Link.call

        async def counted(link: Link, operation: Any) -> Any:
            nonlocal count
            count += 1
            if count != nth:
                return await call(link, operation)
            return await call(link, losing(operation))

        with monkeypatch.context() as patch:
            patch.setattr(Link, "call", counted)
            world.rewritten(node, b"two")
            await world.drained()
        assert count < UPLOAD_ANSWERS * 2
        world.rewritten(node, b"three")
        changes.unlink(ROOT, gone)
        await world.settled()
        assert not world.store.conflicts.count()
        assert world.files() == {"b" if gone == b"a" else "a": b"three"}

    played(server, tmp_path, play)


def test_a_stranger_that_its_token_takes_for_the_old_revision_stays(
    server: Sshd, tmp_path: Path
) -> None:
    """Another name was saved over there, with a file as long and of the same second."""

    async def play(world: SftpWorld) -> None:
        node = world.made(b"a", b"one")
        world.volume.changes.link(node, ROOT, b"b")
        await world.settled()
        world.volume.link.offline_by_hand()
        world.rewritten(node, b"two")
        times = (world.share / "b").stat().st_mtime_ns
        (world.share / "other").write_bytes(b"six")
        os.utime(world.share / "other", ns=(times, times))
        os.rename(world.share / "other", world.share / "b")
        await world.volume.link.online_by_hand()
        await world.drained()
        assert world.files() == {"a": b"two", "b": b"six"}

    played(server, tmp_path, play)


def test_a_name_that_becomes_known_while_others_are_made_anew(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is set aside is found again under the name that it was taken from."""

    async def play(world: SftpWorld) -> None:
        changes = world.volume.changes
        directory = changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, os.getuid(), os.getgid())
        node = world.made(b"m", b"one")
        changes.link(node, directory.id, b"x")
        await world.settled()
        remote: Any = world.volume.link.remote
        replace, cut = remote.replace, cutting(remote.replace, 2)
        ways = {b"d/x": cut}
        monkeypatch.setattr(remote, "replace", lambda *a: ways.get(a[1], replace)(*a))
        world.rewritten(node, b"two")
        await world.drained()
        monkeypatch.undo()
        assert {name[-4:] for name in os.listdir(world.share / "d")} == {".new", ".old"}
        os.link(world.share / "m", world.share / "a")
        world.store.server.add_name(ROOT, b"a", node)
        world.store.nodes.add_name(ROOT, b"a", node)
        await world.settled()
        assert_together(world, b"two", "m", "a")
        assert os.listdir(world.share / "d") == ["x"]
        assert os.path.samefile(world.share / "d" / "x", world.share / "m")

    played(server, tmp_path, play)


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_name_stays_though_what_it_was_to_follow_is_in_conflict(
    nth: int, server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows the old content or the new, whatever becomes of the record that was cut off."""

    async def play(world: SftpWorld) -> None:
        node = world.made(b"a", b"one")
        world.volume.changes.link(node, ROOT, b"b")
        await world.settled()
        remote: Any = world.volume.link.remote
        replace, cut = remote.replace, cutting(remote.replace, nth)
        ways = {b"b": cut}
        monkeypatch.setattr(remote, "replace", lambda *a: ways.get(a[1], replace)(*a))
        world.rewritten(node, b"two")
        await world.drained()
        monkeypatch.undo()
        if not world.volume.link.usable:
            (world.share / "other").write_bytes(b"of somebody else")
            os.rename(world.share / "other", world.share / "a")
        await world.online()
        await world.drained()
        there = world.files()
        assert sorted(there) == ["a", "b"]
        assert there["b"] in (b"one", b"two")

    played(server, tmp_path, play)


async def shown(world: SftpWorld, path: str) -> bytes:
    """What a reader of a name gets."""
    node = await world.cached(path)
    handle = world.volume.files.open(node, writing=False)
    try:
        return await world.read(handle, 0, 100)
    finally:
        world.volume.files.close(handle)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("looked", ["", "a", "d/b"])
@pytest.mark.parametrize("saved", ["a", "d/b"])
def test_a_name_saved_over_there_shows_what_it_has_and_the_other_what_it_had(
    saved: str, looked: str, edited: bool, server: Sshd, tmp_path: Path
) -> None:
    """``looked``: read before anything is listed. ``edited``: changed here meanwhile."""

    async def play(world: SftpWorld) -> None:
        changes = world.volume.changes
        directory = changes.create(ROOT, b"d", Kind.DIRECTORY, 0o755, os.getuid(), os.getgid())
        node = world.made(b"a", b"one")
        changes.link(node, directory.id, b"b")
        await world.settled()
        world.volume.link.offline_by_hand()
        if edited:
            world.rewritten(node, b"twofold")
        (world.share / "other").write_bytes(b"of somebody else")
        os.rename(world.share / "other", world.share / saved)
        await world.volume.link.online_by_hand()
        await world.drained()
        if world.store.conflicts.count():
            assert edited and saved == "a"
            return
        if looked:
            world.volume.observer.drop_content(node)
            assert await shown(world, looked) == (world.share / looked).read_bytes()
        for place in (ROOT, directory.id):
            await world.volume.observer.directory(place)
        for path in ("a", "d/b"):
            assert await shown(world, path) == (world.share / path).read_bytes()

    played(server, tmp_path, play)

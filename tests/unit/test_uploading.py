"""Large uploads in parts: cut off, gone on with, and never with another content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_volume_review import World, played

from awayfs.core import parts
from awayfs.core.errors import Unreachable
from awayfs.core.parts import next_part
from awayfs.core.types import ROOT, Kind
from awayfs.store.nodes import Node
from awayfs.volume import uploading

PART = 100_000
SIZE = 1_000_000
CONTENT = os.urandom(SIZE)


@pytest.mark.parametrize(
    ("length", "took_s", "wanted"),
    [
        pytest.param(1 << 20, 0.5, 2 << 20, id="quick"),
        pytest.param(1 << 20, 5.0, 1 << 20, id="just right"),
        pytest.param(1 << 20, 30.0, 512 << 10, id="slow"),
        pytest.param(parts.LARGEST_PART, 0.1, parts.LARGEST_PART, id="large enough"),
        pytest.param(parts.SMALLEST_PART, 99.0, parts.SMALLEST_PART, id="small enough"),
    ],
)
def test_parts_follow_the_link(length: int, took_s: float, wanted: int) -> None:
    assert next_part(length, took_s) == wanted


@given(st.lists(st.floats(0, 1000), max_size=50), st.booleans())
def test_parts_stay_within_bounds(took: list[float], weak: bool) -> None:
    length = parts.first_part(weak)
    for one in took:
        length = next_part(length, one)
        assert parts.SMALLEST_PART <= length <= parts.LARGEST_PART


class Wire:
    """Counts what is sent, and is cut before a part as it is told."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[int, int]] = []
        self.cut_at: int | None = None
        remote = world.volume.link.remote
        stage, stage_part = remote.stage, remote.stage_part

        async def part(op: str, directory: bytes, fd: int, start: int, end: int, *rest: Any) -> Any:
            if start == self.cut_at:
                self.cut_at = None
                raise Unreachable("cut")
            done = await stage_part(op, directory, fd, start, end, *rest)
            if done is not None:
                self.sent.append((start, end))
            return done

        async def last(*given: Any) -> Any:
            self.sent.append(((*given, 0)[5], given[3]))
            return await stage(*given)

        monkeypatch.setattr(remote, "stage", last)
        monkeypatch.setattr(remote, "stage_part", part)

    @property
    def bytes(self) -> int:
        return sum(end - start for start, end in self.sent)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "SMALLEST_PART", PART)
    monkeypatch.setattr(uploading, "first_part", lambda _weak: PART)
    monkeypatch.setattr(uploading, "next_part", lambda length, _took_s: length)


def large(world: World) -> Node:
    node = world.volume.changes.create(ROOT, b"large", Kind.FILE, 0o644, 0, 0)
    world.write(node, 0, CONTENT)
    return node


async def cut_off(world: World, wire: Wire, at: int) -> None:
    wire.cut_at = at
    await world.drained()
    assert not world.volume.link.usable
    assert sorted(os.listdir(world.share)) != ["large"]
    wire.sent.clear()


def test_an_upload_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        wire = Wire(world, monkeypatch)
        large(world)
        await cut_off(world, wire, 6 * PART)
        await world.online()
        await world.drained()
        assert os.listdir(world.share) == ["large"]
        assert (world.share / "large").read_bytes() == CONTENT
        assert wire.bytes == 4 * PART

    played(tmp_path, play)


def test_an_upload_goes_on_after_the_daemon_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        wire = Wire(world, monkeypatch)
        large(world)
        await cut_off(world, wire, 6 * PART)
        world.die()
        world.open()
        await world.online()
        wire = Wire(world, monkeypatch)
        await world.drained()
        assert (world.share / "large").read_bytes() == CONTENT
        assert wire.bytes == 4 * PART

    played(tmp_path, play)


@pytest.mark.parametrize("at", [0, SIZE - 10])
def test_another_content_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    async def play(world: World) -> None:
        wire = Wire(world, monkeypatch)
        node = large(world)
        await cut_off(world, wire, 6 * PART)
        world.write(world.shown(node), at, b"edited")
        await world.online()
        await world.drained()
        edited = bytearray(CONTENT)
        edited[at : at + 6] = b"edited"
        assert os.listdir(world.share) == ["large"]
        assert (world.share / "large").read_bytes() == edited
        assert wire.bytes == SIZE

    played(tmp_path, play)


@pytest.mark.parametrize("spoiled", [b"", b"x" * 6 * PART, b"x" * SIZE])
def test_a_staged_file_that_is_not_ours_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: bytes
) -> None:
    async def play(world: World) -> None:
        wire = Wire(world, monkeypatch)
        large(world)
        await cut_off(world, wire, 6 * PART)
        (staged,) = list(world.share.iterdir())
        staged.write_bytes(spoiled)
        await world.online()
        await world.drained()
        assert os.listdir(world.share) == ["large"]
        assert (world.share / "large").read_bytes() == CONTENT

    played(tmp_path, play)


def test_an_upload_that_is_not_wanted_any_more_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else made the name meanwhile, with other content: a conflict."""

    async def play(world: World) -> None:
        wire = Wire(world, monkeypatch)
        large(world)
        await cut_off(world, wire, 6 * PART)
        (world.share / "large").write_bytes(b"theirs")
        await world.online()
        await world.drained()
        assert os.listdir(world.share) == ["large"]
        assert (world.share / "large").read_bytes() == b"theirs"
        assert world.store.conflicts.count() == 1

    played(tmp_path, play)


def test_an_upload_follows_a_directory_that_was_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        directory = await world.find("d")
        wire = Wire(world, monkeypatch)
        node = world.volume.changes.create(directory.id, b"large", Kind.FILE, 0o644, 0, 0)
        world.write(node, 0, CONTENT)
        wire.cut_at = 6 * PART
        await world.drained()
        os.rename(world.share / "d", world.share / "e")
        await world.online()
        await world.volume.observer.directory(ROOT)
        await world.drained()
        assert os.listdir(world.share / "e") == ["large"]
        assert (world.share / "e" / "large").read_bytes() == CONTENT

    played(tmp_path, play)


def test_a_file_that_changes_meanwhile_is_sent_as_it_is_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        wire = Wire(world, monkeypatch)
        node = large(world)
        remote = world.volume.link.remote
        stage_part = remote.stage_part

        async def edited_after(*given: Any) -> Any:
            done = await stage_part(*given)
            if given[3] == 3 * PART and len(wire.sent) < 6:
                world.write(world.shown(node), 10, b"edited")
            return done

        monkeypatch.setattr(remote, "stage_part", edited_after)
        for _ in range(3):
            await world.drained()
        wanted = bytearray(CONTENT)
        wanted[10:16] = b"edited"
        assert os.listdir(world.share) == ["large"]
        assert (world.share / "large").read_bytes() == wanted

    played(tmp_path, play)


@pytest.mark.parametrize("dies", [False, True])
def test_a_part_that_went_out_while_the_file_changed_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """A program writes something else for a moment: the file then is what the digest was of."""

    async def play(world: World) -> None:
        node, place = large(world), 2 * PART + 10
        remote = world.volume.link.remote
        stage_part = remote.stage_part

        async def edited_meanwhile(*given: Any) -> Any:
            if given[3] == 2 * PART:
                world.write(world.shown(node), place, b"for a moment")
            return await stage_part(*given)

        async def cut(*_: Any) -> None:
            raise Unreachable("cut")

        with monkeypatch.context() as patched:
            patched.setattr(remote, "stage_part", edited_meanwhile)
            patched.setattr(remote, "discard_staged", cut)
            await world.drained()
        assert not world.volume.link.usable
        world.write(world.shown(node), place, CONTENT[place : place + 12])
        if dies:
            world.die()
            world.open()
        await world.online()
        await world.drained()
        assert os.listdir(world.share) == ["large"]
        assert (world.share / "large").read_bytes() == CONTENT

    played(tmp_path, play)


def test_what_went_out_in_one_go_since_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts, then another content whole, then the first one in parts again; all cut off."""

    async def play(world: World) -> None:
        wire, node, place = Wire(world, monkeypatch), large(world), PART + 10
        await cut_off(world, wire, 6 * PART)
        remote = world.volume.link.remote
        stage = remote.stage

        async def cut_off_late(op: str, directory: bytes, *given: Any) -> Any:
            await stage(op, directory, *given)
            os.truncate(world.share / f".awayfs-{op}.new", 8 * PART)
            raise Unreachable("cut")

        world.write(world.shown(node), place, b"for a while")
        await world.online()
        with monkeypatch.context() as good_link:
            good_link.setattr(uploading, "first_part", lambda _weak: SIZE)
            good_link.setattr(remote, "stage", cut_off_late)
            await world.drained()
        assert not world.volume.link.usable
        world.write(world.shown(node), place, CONTENT[place : place + 11])
        await world.online()
        await world.drained()
        assert os.listdir(world.share) == ["large"]
        assert (world.share / "large").read_bytes() == CONTENT

    played(tmp_path, play)

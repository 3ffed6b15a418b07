"""``journal export`` and ``journal import`` beside a server, and programs, that go on meanwhile."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.test_volume_importing import archive, base, edit_of, imported, node
from tests.unit.test_volume_review import World, played

from awayfs.cli import archive as cli_archive
from awayfs.cli.unpack import unpack
from awayfs.control.client import MountInfo
from awayfs.control.manifest import NodeFacts, RecordFacts
from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import UsageError
from awayfs.core.types import ROOT, Kind
from awayfs.store.nodes import Node
from awayfs.volume.exporting import Exporter
from awayfs.volume.importing import Importer
from awayfs.volume.slices import Slices
from awayfs.volume.suspects import digest_of_file

Edit = tuple[list[NodeFacts], list[RecordFacts]]


async def edit_in_step(world: World, content: bytes, **more: Any) -> Edit:
    """An edit of ``f``, whose base is what the server shows now."""
    now = world.store.server.get((await world.find("f")).id)
    assert now is not None
    known: dict[str, Any] = {"token": now.token, "mtime_ns": now.mtime_ns, "size": now.size}
    return edit_of(b"f", content, **{**known, **more})


def placed(tmp_path: Path, edit: Edit, content: bytes = b"") -> bytes:
    place = archive(tmp_path / "archive", *edit)
    (tmp_path / "archive/local-2").write_bytes(content)
    return place


# -- what the server has by now ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["store", "remove"])
@pytest.mark.parametrize("seen", ["", "fetched", "put there by us"])
@pytest.mark.parametrize("same", [True, False])
def test_a_weak_token_does_not_tell_what_the_server_has(
    how: str, seen: str, same: bool, tmp_path: Path
) -> None:
    """Two versions of one second and one size have the same; the archived digest is asked."""

    async def play(world: World) -> None:
        file, before = world.share / "f", tmp_path / "before"
        file.write_bytes(b"theirs")
        before.write_bytes(b"theirs" if same else b"before")
        node = await world.cached("f") if seen == "fetched" else await world.find("f")
        if seen == "put there by us":
            now, digest = world.store.server.get(node.id), digest_of_file(str(file))
            assert now is not None
            world.store.server.set(node.id, now.entry(), seen_ns=0, digest=digest)
        edit = await edit_in_step(world, b"mine", weak=True, digest=digest_of_file(str(before)))
        if how == "remove":
            facts = edit[0][0]
            facts.stored, facts.path, facts.ranges, facts.member = False, None, [], None
            edit = [facts], [RecordFacts(seq=1, kind="remove", node=2, parent=1, name=b"f")]
        importer = await imported(world, placed(tmp_path, edit, b"mine"))
        known = seen == "put there by us" and not same
        assert importer.report()["moved_on"] == (["f"] if known else [])
        await world.drained()
        conflicts = [one.kind for one in world.store.conflicts.all()]
        if same:
            assert conflicts == []
            assert not file.exists() if how == "remove" else file.read_bytes() == b"mine"
        else:
            removed = ConflictKind.REMOVE_UPDATE
            assert conflicts == [ConflictKind.UPDATE_UPDATE if how == "store" else removed]
            assert file.read_bytes() == b"theirs"

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["remove", "rename"])
def test_what_was_imported_and_sent_is_not_somebody_elses_version(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content goes out before the import takes another name of the file away."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        os.link(world.share / "f", world.share / "g")
        await world.cached("g")
        told = digest_of_file(str(world.share / "f"))
        edit = await edit_in_step(world, b"mine", weak=True, digest=told)
        if how == "remove":
            edit[1].append(RecordFacts(seq=2, kind="remove", node=2, parent=1, name=b"g"))
        else:
            new = node(3, size=3, ranges=[(0, 3)], member="files/g", stored=True, path=b"g")
            over = {"parent": 1, "name": b"new", "to_parent": 1, "to_name": b"g", "replaced": 2}
            edit[0].append(new)
            edit[1].append(RecordFacts(seq=2, kind="create", node=3, parent=1, name=b"new"))
            edit[1].append(RecordFacts(seq=3, kind="store", node=3))
            edit[1].append(RecordFacts(seq=4, kind="rename", node=3, **over))

        class Sending(Slices):
            async def pause(self) -> None:
                await world.drained()

        importer = Importer(world.volume, placed(tmp_path, edit, b"mine"))
        (tmp_path / "archive/local-3").write_bytes(b"new")
        await importer.load(force=True)
        monkeypatch.setattr("awayfs.volume.importing.Slices", Sending)
        async for _ in importer.apply():
            pass
        await world.drained()
        assert world.store.conflicts.all() == []
        found = {p.name: p.read_bytes() for p in world.share.iterdir()}
        assert found == {"f": b"mine"} | ({"g": b"new"} if how == "rename" else {})

    played(tmp_path, play)


def test_content_for_a_file_that_only_its_reader_sees_makes_it_again(tmp_path: Path) -> None:
    """It was removed on the server since the import began; nothing of a nameless one is sent."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        file = await world.cached("f")
        edit = await edit_in_step(world, b"mine")
        edit[1].append(RecordFacts(seq=2, kind="setattr", node=2, mode=0o600))
        importer = Importer(world.volume, placed(tmp_path, edit, b"mine"))
        handle = world.volume.files.open(file, writing=False)
        await importer.load(force=True)
        (world.share / "f").unlink()
        await world.volume.observer.directory(ROOT)
        async for _ in importer.apply():
            pass
        await world.drained()
        assert importer.report()["skipped"] == []
        assert (world.share / "f").read_bytes() == b"mine"
        assert (world.share / "f").stat().st_mode & 0o777 == 0o600
        assert await world.read(handle, 0, 10) == b"theirs"
        world.volume.files.close(handle)

    played(tmp_path, play)


# -- a part of a content ----------------------------------------------------------------------

SIZE = 3 << 20
KNOWN = [(0, 10), (1 << 20, SIZE)]
JOINED = b"m" * 10 + b"t" * ((1 << 20) - 10) + b"m" * (2 << 20)


async def part(world: World, tmp_path: Path) -> bytes:
    edit = await edit_in_step(world, b"m" * SIZE)
    edit[0][0].ranges = KNOWN
    return placed(tmp_path, edit, b"m" * 10 + bytes((1 << 20) - 10) + b"m" * (2 << 20))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", [1, 2, 3, "journaled"])
def test_a_daemon_that_dies_in_an_import_sends_no_half_of_a_part(
    when: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"t" * SIZE)
        place, pread, read = await part(world, tmp_path), os.pread, list[int]()

        def dies(fd: int, length: int, offset: int) -> bytes:
            read.append(offset)
            if len(read) == when:
                raise Killed
            return pread(fd, length, offset)

        def die(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr("awayfs.volume.imported.os.pread", dies)
            if when == "journaled":
                patched.setattr("awayfs.volume.replacing.fault", die)
            await imported(world, place)
        world.die()
        world.open()
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"t" * SIZE
        await imported(world, place)
        await world.drained()
        assert (world.share / "f").read_bytes() == JOINED
        assert world.store.conflicts.all() == []

    played(tmp_path, play)


@pytest.mark.parametrize("why", ["away", "gone", "short", "open"])
def test_a_part_without_the_rest_changes_nothing(why: str, tmp_path: Path) -> None:
    """Zeros in the gaps, or the server's content cut off, are what nobody ever wrote."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"t" * SIZE)
        file = await world.find("f")
        place = await part(world, tmp_path)
        handle = None
        if why == "gone":
            (world.share / "f").unlink()
        elif why == "away":
            world.volume.link.lost("away")
        elif why == "short":
            os.truncate(tmp_path / "archive/local-2", 2 << 20)
        else:
            handle = world.volume.files.open(file, writing=True)
        if why == "short":
            with pytest.raises(OSError, match="shorter"):
                await imported(world, place)
        else:
            importer = await imported(world, place)
            assert [why for why in importer.report()["skipped"] if "store" in why["why"]]
        if handle is not None:
            world.volume.files.close(handle)
        assert not world.store.journal.count()
        if why == "away":
            await world.online()
        await world.drained()
        found = {p.name: p.read_bytes() for p in world.share.iterdir()}
        assert found == ({} if why == "gone" else {"f": b"t" * SIZE})

    played(tmp_path, play)


# -- one moment -------------------------------------------------------------------------------


def test_a_time_that_was_set_before_the_last_write_is_not_that_of_the_content(
    tmp_path: Path,
) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        file = await world.cached("f")
        edit = await edit_in_step(world, b"mine")
        edit[0][0].mtime_ns = 2 * 10**18
        edit[1].append(RecordFacts(seq=2, kind="setattr", node=2, mtime_ns=10**18))
        edit[1].append(RecordFacts(seq=3, kind="store", node=2))
        await imported(world, placed(tmp_path, edit, b"mine"))
        assert world.shown(file).mtime_ns == 2 * 10**18
        await world.drained()
        assert (world.share / "f").stat().st_mtime_ns == 2 * 10**18

    played(tmp_path, play)


def test_content_of_what_has_no_path_any_more_empties_no_file(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        edit = await edit_in_step(world, b"")
        edit[0][0].path = edit[0][0].member = None
        edit[0][0].ranges = []
        await imported(world, placed(tmp_path, edit))
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs"

    played(tmp_path, play)


def test_the_first_write_to_a_file_that_was_told_of_is_exported_with_its_content(
    tmp_path: Path,
) -> None:
    """Else its record is in the archive, and says that the file is empty."""

    async def play(world: World) -> None:
        def made(name: bytes) -> Node:
            return world.volume.changes.create(ROOT, name, Kind.FILE, 0o644, 0, 0)

        first, others = made(b"first"), [made(b"%d" % number) for number in range(150)]
        told: dict[int, NodeFacts] = {}
        kinds: list[str] = []
        async for facts in Exporter(world.volume.context).facts():
            if isinstance(facts, NodeFacts):
                told[facts.id] = facts
                if facts.id == others[10].id:
                    world.write(first, 0, b"content")
            elif facts.node == first.id:
                kinds.append(facts.kind)
        assert kinds == ["create", "store"]
        facts = told[first.id]
        assert (facts.stored, facts.size, facts.ranges) == (True, 7, [(0, 7)])

    played(tmp_path, play)


def test_what_is_removed_while_it_is_exported_is_not_exported_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = edit_of(b"f", b"new")[0][0]
    facts.id, facts.base, facts.member = 7, None, None
    record = RecordFacts(seq=1, kind="store", node=7)

    def request(
        _mount: object,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        on_progress: Any = None,
    ) -> dict[str, Any]:
        if method == "session_read":
            return {"data": base64.b64encode(b"new").decode(), "stamp": 1}
        told = msgspec.to_builtins(facts)
        if params:
            told |= {"size": 0, "ranges": [], "path": None, "stored": False}
        on_progress({"nodes": [told], "records": [] if params else [msgspec.to_builtins(record)]})
        return {"volume": {"url": "dir:/x"}, "host": "here", "made_ns": 0}

    monkeypatch.setattr(cli_archive, "request", request)
    mount = MountInfo("v", "dir:/x", b"/mnt", 1, 0, "", running=True, mounted=True)
    done = cli_archive.export(mount, os.fsencode(tmp_path / "work.tar"), [])
    assert (done.files, done.missing) == (0, [])
    (tmp_path / "out").mkdir()
    manifest = unpack(os.fsencode(tmp_path / "work.tar"), str(tmp_path / "out"))
    assert (manifest.nodes[0].path, manifest.nodes[0].member) == (None, None)


# -- attributes, and who may change anything ----------------------------------------------------


def xattr_edit(edit: Edit, value: bytes | None) -> Edit:
    """Beside an edit of the content, one of an attribute."""
    edit[1].append(
        RecordFacts(seq=2, kind="setxattr", node=2, xattr_name=b"user.x", xattr_value=value)
    )
    return edit


@pytest.mark.parametrize("there", [True, False])
def test_an_attribute_that_nobody_read_here_yet_is_removed(there: bool, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        if there:
            os.setxattr(world.share / "f", b"user.x", b"1")
        await world.cached("f")
        edit = xattr_edit(await edit_in_step(world, b"mine"), None)
        importer = await imported(world, placed(tmp_path, edit, b"mine"))
        assert importer.report()["applied"] == (2 if there else 1)
        await world.drained()
        assert os.listxattr(world.share / "f") == []

    played(tmp_path, play)


def test_an_attribute_that_somebody_else_sets_after_an_import_is_a_conflict(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        os.setxattr(world.share / "f", b"user.x", b"1")
        edit = xattr_edit(await edit_in_step(world, b"mine"), b"2")
        edit[0][0].stored = False
        await imported(world, placed(tmp_path, (edit[0], edit[1][1:])))
        os.setxattr(world.share / "f", b"user.x", b"theirs")
        await world.drained()
        assert os.getxattr(world.share / "f", b"user.x") == b"theirs"
        assert [one.kind for one in world.store.conflicts.all()] == [ConflictKind.ATTRIBUTE]

    played(tmp_path, play)


GONE = {
    "exchanged with what is gone": [
        {"kind": "exchange", "node": 2, "parent": 1, "name": b"f",
         "to_parent": 1, "to_name": b"gone", "replaced": 4},
    ],
    "renamed over what it is in": [
        {"kind": "rename", "node": 3, "parent": 5, "name": b"x", "to_parent": 1, "to_name": b"d"},
    ],
    "linked over what it is in": [
        {"kind": "link", "node": 3, "parent": 1, "name": b"d"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", GONE)
def test_what_cannot_be_done_any_more_is_left_out_of_a_dry_run_too(
    case: str, tmp_path: Path
) -> None:
    """Somebody else removed, or moved, what a record speaks of."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        for name in ("f", "d/x"):
            (world.share / name).write_bytes(b"theirs")
        await world.cached("f")
        await world.cached("d/x")
        await world.volume.tree.open_directory((await world.find("d")).id)
        nodes = [
            node(2, base=base(b"f", Kind.FILE)),
            node(3, base=base(b"d/x", Kind.FILE)),
            node(4, base=base(b"gone", Kind.FILE)),
            node(5, Kind.DIRECTORY, base=base(b"d")),
        ]
        records = [RecordFacts(seq=1, **GONE[case][0])]
        importer = await imported(world, placed(tmp_path, (nodes, records)))
        assert importer.report()["applied"] == 0
        await world.drained()
        found = {str(p.relative_to(world.share)) for p in world.share.rglob("*")}
        assert found == {"f", "d", "d/x"}

    played(tmp_path, play)


def test_a_directory_that_is_made_again_is_the_imports_own(tmp_path: Path) -> None:
    """It is gone from the server, and what the archive does to it follows what it does in it."""

    async def play(world: World) -> None:
        nodes = [
            node(2, Kind.DIRECTORY, base=base(b"above/d")),
            node(3, Kind.DIRECTORY, base=base(b"above")),
            node(4, size=3, ranges=[(0, 3)], member="files/f", stored=True, path=b"other/d/f"),
        ]
        records = [
            RecordFacts(seq=1, kind="create", node=4, parent=2, name=b"f"),
            RecordFacts(seq=2, kind="store", node=4),
            RecordFacts(seq=3, kind="setattr", node=2, mode=0o700),
            RecordFacts(seq=4, kind="create", node=5, parent=3, name=b"g"),
            RecordFacts(
                seq=5, kind="rename", node=3, parent=1, name=b"above", to_parent=1, to_name=b"other"
            ),
        ]
        nodes.append(node(5))
        place = placed(tmp_path, (nodes, records))
        (tmp_path / "archive/local-4").write_bytes(b"new")
        importer = await imported(world, place)
        assert importer.report()["skipped"] == []
        await world.drained()
        assert (world.share / "other/d/f").read_bytes() == b"new"
        assert (world.share / "other/d").stat().st_mode & 0o777 == 0o700

    played(tmp_path, play)


def test_nothing_is_imported_into_what_is_mounted_read_only(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        await world.cached("f")
        place = placed(tmp_path, await edit_in_step(world, b"mine"), b"mine")
        with pytest.raises(UsageError, match="read-only"):
            await imported(world, place)
        with pytest.raises(UsageError, match="read-only"):
            await Importer(world.volume, place).load(force=True)
        assert not world.store.journal.count()

    played(tmp_path, play, read_only=True)

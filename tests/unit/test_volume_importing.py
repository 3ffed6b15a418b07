"""``journal import`` of archives that nobody of ours wrote, and beside a user who works on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.test_volume_review import World, played

from awayfs.control.manifest import (
    BaseFacts,
    Manifest,
    NodeFacts,
    RecordFacts,
    VolumeFacts,
)
from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import UsageError
from awayfs.core.types import Kind
from awayfs.store.fsck import check
from awayfs.volume.discard import Discarder
from awayfs.volume.exporting import Exporter
from awayfs.volume.importing import Importer
from awayfs.volume.suspects import digest_of_file

ROOT_FACTS: dict[str, Any] = {
    "id": 1,
    "kind": int(Kind.DIRECTORY),
    "mode": 0o755,
    "uid": 0,
    "gid": 0,
    "rdev": 0,
    "size": 0,
    "mtime_ns": 0,
}


def base(path: bytes, kind: Kind = Kind.DIRECTORY, **more: Any) -> BaseFacts:
    facts: dict[str, Any] = {"mode": 0o755, "uid": 0, "gid": 0, "size": 0, "mtime_ns": 0}
    return BaseFacts(
        **{**facts, "path": path, "kind": int(kind), "token": b"", "weak": True, **more}
    )


def node(number: int, kind: Kind = Kind.FILE, **more: Any) -> NodeFacts:
    return NodeFacts(**{**ROOT_FACTS, "id": number, "kind": int(kind), **more})


def archive(place: Path, nodes: list[NodeFacts], records: list[RecordFacts]) -> bytes:
    place.mkdir()
    root = node(1, Kind.DIRECTORY, base=base(b""))
    manifest = Manifest(
        format=1,
        volume=VolumeFacts(url="dir:/x"),
        host="h",
        made_ns=0,
        nodes=[root, *nodes],
        records=records,
    )
    (place / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return os.fsencode(place)


async def rehearsed(world: World, place: bytes) -> dict[str, Any]:
    """What a dry run says, which changes nothing."""
    importer = Importer(world.volume, place, rehearsed=True)
    await importer.load(force=True)
    waiting = world.store.journal.count()
    async for _ in importer.apply():
        pass
    assert world.store.journal.count() == waiting
    return importer.report()


async def imported(world: World, place: bytes) -> Importer:
    """An import; the dry run before it says the same."""
    said = await rehearsed(world, place)
    importer = Importer(world.volume, place)
    await importer.load(force=True)
    async for _ in importer.apply():
        pass
    assert said == importer.report()
    return importer


BIG = 1 << 40
HOSTILE: dict[str, tuple[list[NodeFacts], list[RecordFacts]]] = {
    "a user's number": (
        [node(2, uid=BIG)],
        [RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x")],
    ),
    "a negative number": (
        [node(2, gid=-5)],
        [RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x")],
    ),
    "a device's number": (
        [node(2, Kind.FIFO, rdev=1 << 70)],
        [RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x")],
    ),
    "a mode in a record": (
        [node(2)],
        [
            RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x"),
            RecordFacts(seq=2, kind="setattr", node=2, mode=1 << 33),
        ],
    ),
    "an owner in a record": (
        [node(2)],
        [
            RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x"),
            RecordFacts(seq=2, kind="setattr", node=2, uid=-2),
        ],
    ),
    "a time beyond all": (
        [node(2)],
        [
            RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x"),
            RecordFacts(seq=2, kind="setattr", node=2, mtime_ns=1 << 80),
        ],
    ),
    "no directory": ([node(2)], [RecordFacts(seq=1, kind="create", node=2, name=b"x")]),
    "no new directory": (
        [node(2)],
        [
            RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x"),
            RecordFacts(seq=2, kind="rename", node=2, parent=1, name=b"x", to_name=b"y"),
        ],
    ),
    "a file at the root": (
        [node(2, base=base(b"", Kind.FILE)), node(3)],
        [RecordFacts(seq=1, kind="create", node=3, parent=2, name=b"x")],
    ),
    "content of the root": (
        [node(2, base=base(b"", Kind.FILE), stored=True)],
        [RecordFacts(seq=1, kind="store", node=2)],
    ),
    "content of a directory": (
        [node(2, base=base(b"d"), size=0, stored=True)],
        [RecordFacts(seq=1, kind="store", node=2)],
    ),
    "an attribute without a name": (
        [node(2)],
        [
            RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"x"),
            RecordFacts(seq=2, kind="setxattr", node=2, xattr_value=b"x"),
        ],
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_manifest_that_no_export_wrote_is_refused(what: str, tmp_path: Path) -> None:
    """Before anything was changed."""

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        await world.find("d")
        place = archive(tmp_path / "archive", *HOSTILE[what])
        with pytest.raises(UsageError, match="damaged or not ours"):
            await imported(world, place)
        assert not world.store.journal.count() and check(world.store) == []

    played(tmp_path, play)


def test_names_and_devices_that_an_archive_may_not_make(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = [node(2), node(3, Kind.BLOCK, rdev=0x800), node(4, mode=0o4755), node(5)]
        records = [
            RecordFacts(seq=1, kind="create", node=2, parent=1, name=b".awayfs"),
            RecordFacts(seq=2, kind="create", node=3, parent=1, name=b"disk"),
            RecordFacts(seq=3, kind="create", node=4, parent=1, name=b"suid"),
            RecordFacts(seq=4, kind="create", node=5, parent=1, name=b"later"),
            RecordFacts(seq=5, kind="setattr", node=5, mode=0o6755),
        ]
        importer = await imported(world, archive(tmp_path / "archive", nodes, records))
        skipped = [one["why"] for one in importer.report()["skipped"]]
        assert len(skipped) == 2 and "create of record 1" in skipped[0], skipped
        assert "device" in skipped[1]
        for name in (b"suid", b"later"):
            found = world.store.nodes.resolve(name)
            assert found is not None and found.mode == 0o755
        assert check(world.store) == []

    played(tmp_path, play)


def test_rings_are_not_made(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        nodes = [node(n, Kind.DIRECTORY) for n in (2, 3)]
        records = [
            RecordFacts(seq=1, kind="create", node=2, parent=1, name=b"a"),
            RecordFacts(seq=2, kind="create", node=3, parent=2, name=b"b"),
            RecordFacts(
                seq=3, kind="rename", node=2, parent=1, name=b"a", to_parent=3, to_name=b"c"
            ),
            RecordFacts(seq=4, kind="link", node=2, parent=3, name=b"c"),
            RecordFacts(
                seq=5, kind="exchange", node=2, parent=1, name=b"a", to_parent=2, to_name=b"b",
                replaced=3,
            ),
            RecordFacts(seq=6, kind="remove", node=2, parent=1, name=b"a"),
        ]  # fmt: skip
        importer = await imported(world, archive(tmp_path / "archive", nodes, records))
        assert importer.report()["applied"] == 2
        assert check(world.store) == []
        assert world.store.nodes.resolve(b"a/b") is not None

    played(tmp_path, play)


def test_what_a_user_changes_meanwhile_is_his(tmp_path: Path) -> None:
    """An import takes its time; what it has not come to yet may be worked on by then."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        (world.share / "g").write_bytes(b"theirs")
        for name in "fg":
            await world.cached(name)
        nodes = [
            node(
                number,
                base=base(name, Kind.FILE, size=6),
                path=name,
                stored=True,
                size=3,
                ranges=[(0, 3)],
                member="files/" + name.decode(),
            )
            for number, name in ((2, b"f"), (3, b"g"))
        ]
        records = [
            RecordFacts(seq=1, kind="store", node=2),
            RecordFacts(seq=2, kind="store", node=3),
            RecordFacts(seq=3, kind="remove", node=3, parent=1, name=b"g"),
        ]
        place = archive(tmp_path / "archive", nodes, records)
        for number in (2, 3):
            (tmp_path / "archive" / f"local-{number}").write_bytes(b"old")
        importer = Importer(world.volume, place)
        await importer.load(force=True)
        world.write(await world.find("g"), 0, b"new work")
        async for _ in importer.apply():
            pass
        found = world.store.nodes.resolve(b"g")
        assert found is not None
        path = world.store.content.fd_path(found.id)
        assert Path(path).read_bytes() == b"new work"
        assert ["changed here" in one["why"] for one in importer.report()["skipped"]] == [
            True,
            True,
        ]
        assert importer.report()["applied"] == 1

    played(tmp_path, play)


def edit_of(name: bytes, content: bytes, **more: Any) -> tuple[list[NodeFacts], list[RecordFacts]]:
    """An edit of a file, whose base was another one than what the server has now."""
    facts = node(
        2,
        base=base(name, Kind.FILE, **{"size": 6, "token": b"older", **more}),
        path=name,
        stored=True,
        size=len(content),
        ranges=[(0, len(content))],
        member="files/" + name.decode(),
    )
    return [facts], [RecordFacts(seq=1, kind="store", node=2)]


@pytest.mark.parametrize("way", ["nobody", "reader", "passthrough", "mapping"])
def test_a_newer_version_is_not_replaced_whoever_has_it_open(way: str, tmp_path: Path) -> None:
    """The base is set back to the archived one; where that cannot be, nothing is done."""
    size = 100_000

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"t" * size)
        file = await world.cached("f")
        place = archive(tmp_path / "archive", *edit_of(b"f", b"mine"))
        (tmp_path / "archive/local-2").write_bytes(b"mine")
        files, handle = world.volume.files, None
        if way != "nobody":
            handle = files.open(world.shown(file), writing=way == "mapping")
        if handle is not None and way == "passthrough":
            handle.opened.passthrough = 7
        if handle is not None and way == "mapping":
            files.note_pages(handle)
        importer = await imported(world, place)
        assert importer.report()["moved_on"] == ["f"]
        await world.drained()
        assert (world.share / "f").read_bytes() == b"t" * size
        done = way in ("nobody", "reader")
        assert bool(world.store.conflicts.of_node(file.id)) == done
        assert ["has it open" in s["why"] for s in importer.report()["skipped"]] == [True] * (
            not done
        )
        if handle is not None and done:
            assert os.pread(handle.opened.fd, 10, 0) == b"mine"

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["remove", "rename"])
def test_an_imported_content_stays_when_another_of_its_names_goes(how: str, tmp_path: Path) -> None:
    """Also where the server has moved on: what was imported is one side of the conflict."""

    async def play(world: World) -> None:
        for name in ("f", "other"):
            (world.share / name).write_bytes(b"theirs")
        os.link(world.share / "f", world.share / "g")
        for name in ("f", "g", "other"):
            await world.cached(name)
        nodes, records = edit_of(b"f", b"mine, and longer")
        nodes.append(node(3, base=base(b"other", Kind.FILE, size=6, token=b"older"), path=b"other"))
        if how == "remove":
            records.append(RecordFacts(seq=2, kind="remove", node=2, parent=1, name=b"g"))
        else:
            names = {"parent": 1, "name": b"other", "to_parent": 1, "to_name": b"g"}
            records.append(RecordFacts(seq=2, kind="rename", node=3, replaced=2, **names))
        place = archive(tmp_path / "archive", nodes, records)
        (tmp_path / "archive/local-2").write_bytes(b"mine, and longer")
        importer = await imported(world, place)
        assert importer.report()["skipped"] == []
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs"
        handle = world.volume.files.open(await world.find("f"), writing=False)
        assert await world.read(handle, 0, 100) == b"mine, and longer"
        world.volume.files.close(handle)
        assert world.store.conflicts.of_node((await world.find("f")).id)

    played(tmp_path, play)


def test_a_daemon_that_dies_in_an_import_sends_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 5 << 20

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        file = await world.cached("f")
        now = world.store.server.get(file.id)
        assert now is not None
        edit = edit_of(b"f", b"m" * size, token=now.token)
        place = archive(tmp_path / "archive", *edit)
        (tmp_path / "archive/local-2").write_bytes(b"m" * size)

        class Killed(BaseException):
            pass

        def die(*_: object) -> None:
            raise Killed

        monkeypatch.setattr("awayfs.volume.replacing.fault", die)
        monkeypatch.setattr("awayfs.volume.files.fault", die)
        with pytest.raises(Killed):
            await imported(world, place)
        monkeypatch.undo()
        world.die()
        world.open()
        await world.online()
        await world.drained()
        assert (world.share / "f").read_bytes() == b"theirs"
        await imported(world, place)
        await world.drained()
        assert (world.share / "f").read_bytes() == b"m" * size
        assert world.store.conflicts.all() == []

    played(tmp_path, play)


def test_an_archive_does_not_tell_what_the_server_has(tmp_path: Path) -> None:
    """What it calls the base is not what a discard goes back to, unless the server moved on."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        file = await world.find("f")
        now = world.store.server.get(file.id)
        assert now is not None
        edit = edit_of(b"f", b"mine", token=now.token, member="base/f")
        place = archive(tmp_path / "archive", *edit)
        (tmp_path / "archive/local-2").write_bytes(b"mine")
        (tmp_path / "archive/base-2").write_bytes(b"a lie!")
        await imported(world, place)
        discarder = Discarder(world.volume.context, world.volume.changes, world.volume.replay)
        async for _ in discarder.discard(await discarder.planner.plan({file.id})):
            pass
        shown = await world.cached("f")
        assert Path(world.store.content.fd_path(shown.id)).read_bytes() == b"theirs"

    played(tmp_path, play)


@pytest.mark.parametrize("how", ["rights", "edit", "edit of the same looks"])
@pytest.mark.parametrize("digest", [True, False])
def test_what_counts_as_another_version(how: str, digest: bool, tmp_path: Path) -> None:
    """A change time is none, if a digest can tell; what cannot be told is a conflict, and said."""

    async def play(world: World) -> None:
        file = world.share / "f"
        file.write_bytes(b"theirs")
        os.utime(file, ns=(10**18, 10**18))
        seen = world.store.server.get((await world.find("f")).id)
        assert seen is not None
        known = digest_of_file(str(file)) if digest else None
        edit = edit_of(b"f", b"mine", token=seen.token, mtime_ns=10**18, digest=known)
        if how == "rights":
            file.chmod(0o600)
        else:
            file.write_bytes(b"newer!")
        if how == "edit of the same looks":
            os.utime(file, ns=(10**18, 10**18))
        place = archive(tmp_path / "archive", *edit)
        (tmp_path / "archive/local-2").write_bytes(b"mine")
        importer = await imported(world, place)
        told = not digest or how == "edit"
        assert importer.report()["moved_on"] == (["f"] if told else [])
        await world.drained()
        conflicts = [one.kind for one in world.store.conflicts.all()]
        if how == "rights" and digest:
            assert conflicts == [] and file.read_bytes() == b"mine"
        else:
            assert conflicts == [ConflictKind.UPDATE_UPDATE]
            assert file.read_bytes() == (b"theirs" if how == "rights" else b"newer!")

    played(tmp_path, play)


def test_an_archived_base_that_is_not_what_it_says_is_not_believed(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        file = world.share / "f"
        file.write_bytes(b"theirs")
        seen = world.store.server.get((await world.find("f")).id)
        assert seen is not None
        told = digest_of_file(str(file))
        edit = edit_of(
            b"f", b"mine", token=seen.token, mtime_ns=seen.mtime_ns, digest=told, member="base/f"
        )
        file.chmod(0o600)
        place = archive(tmp_path / "archive", *edit)
        (tmp_path / "archive/local-2").write_bytes(b"mine")
        (tmp_path / "archive/base-2").write_bytes(b"a lie!")
        await imported(world, place)
        discarder = Discarder(world.volume.context, world.volume.changes, world.volume.replay)
        node = await world.find("f")
        async for _ in discarder.discard(await discarder.planner.plan({node.id})):
            pass
        shown = await world.cached("f")
        assert Path(world.store.content.fd_path(shown.id)).read_bytes() == b"theirs"

    played(tmp_path, play)


def test_an_import_can_be_done_twice(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        file = await world.cached("f")
        now = world.store.server.get(file.id)
        assert now is not None
        nodes, records = edit_of(b"f", b"mine", token=now.token)
        nodes.append(node(3, size=3, ranges=[(0, 3)], member="files/g", stored=True, path=b"g"))
        records.append(RecordFacts(seq=2, kind="create", node=3, parent=1, name=b"g"))
        records.append(RecordFacts(seq=3, kind="store", node=3))
        place = archive(tmp_path / "archive", nodes, records)
        (tmp_path / "archive/local-2").write_bytes(b"mine")
        (tmp_path / "archive/local-3").write_bytes(b"new")
        for _ in range(2):
            importer = await imported(world, place)
            assert importer.report()["skipped"] == []
            await world.drained()
            assert world.store.conflicts.all() == [] and not world.store.journal.count()
            assert (world.share / "f").read_bytes() == b"mine"
            assert (world.share / "g").read_bytes() == b"new"
            assert sorted(os.listdir(world.share)) == ["f", "g"]

    played(tmp_path, play)


def in_step(world: World, number: int, at: bytes, kind: Kind, **more: Any) -> NodeFacts:
    """A node of an archive that was made in this volume, based on what the server has now."""
    found = world.store.nodes.resolve(at)
    assert found is not None
    now = world.store.server.get(found.id)
    assert now is not None
    known = base(at, kind, token=now.token, size=now.size, mtime_ns=now.mtime_ns)
    return node(number, kind, base=known, **more)


def test_a_dry_run_counts_what_the_import_leaves_out(tmp_path: Path) -> None:
    """Each for another reason, and what comes of the records before it counts."""

    async def play(world: World) -> None:
        share = world.share
        for name in ("full", "empty", "away", "top", "top/inner"):
            (share / name).mkdir()
        for path in ("f", "g", "full/file", "taken", "moved", "away/x", "partial"):
            (share / path).write_bytes(b"theirs")
        for name in ("f", "g", "full/file", "taken", "moved", "away/x", "partial"):
            await world.cached(name)
        await world.find("top/inner")
        for place in ("empty", "top", "full", "away", "top/inner"):
            await world.volume.tree.open_directory((await world.find(place)).id)
        world.write(await world.find("taken"), 0, b"unsent")
        world.volume.changes.rename(1, b"moved", 1, b"elsewhere", 0)
        new = node(20, path=b"new")
        nodes = [
            in_step(world, 2, b"full", Kind.DIRECTORY),
            in_step(world, 3, b"empty", Kind.DIRECTORY),
            in_step(world, 4, b"away", Kind.DIRECTORY),
            in_step(world, 5, b"top", Kind.DIRECTORY),
            in_step(world, 6, b"top/inner", Kind.DIRECTORY),
            in_step(world, 7, b"f", Kind.FILE, stored=True, size=9, path=b"f"),
            in_step(world, 8, b"g", Kind.FILE),
            node(9, base=base(b"partial", Kind.FILE, token=b"older", size=9), path=b"partial",
                 stored=True, size=9, ranges=[(2, 4)], member="files/partial"),
            node(10, base=base(b"gone", Kind.FILE, token=b"older")),
            node(11, Kind.CHARACTER),
            node(12), node(13), node(14, Kind.DIRECTORY), node(15), new,
        ]  # fmt: skip
        steps: list[dict[str, Any]] = [
            {"kind": "remove", "node": 2, "parent": 1, "name": b"full"},  # not empty
            {"kind": "remove", "node": 3, "parent": 1, "name": b"empty"},
            {"kind": "create", "node": 12, "parent": 3, "name": b"x"},  # removed just now
            {"kind": "create", "node": 13, "parent": 1, "name": b"taken"},  # unsent changes
            {"kind": "rename", "node": 5, "parent": 1, "name": b"top",
             "to_parent": 6, "to_name": b"ring"},
            {"kind": "rename", "node": 6, "parent": 5, "name": b"inner",
             "to_parent": 1, "to_name": b"inner"},
            {"kind": "rename", "node": 5, "parent": 1, "name": b"top",
             "to_parent": 6, "to_name": b"no ring"},
            {"kind": "store", "node": 7},  # not in the archive
            {"kind": "remove", "node": 8, "parent": 1, "name": b"h"},  # elsewhere
            {"kind": "store", "node": 9},  # a part of another version
            {"kind": "setattr", "node": 10, "mode": 0o600},  # gone
            {"kind": "create", "node": 11, "parent": 1, "name": b"device"},
            {"kind": "create", "node": 14, "parent": 1, "name": b"d"},
            {"kind": "create", "node": 15, "parent": 14, "name": b"x"},
            {"kind": "remove", "node": 14, "parent": 1, "name": b"d"},  # not empty
            {"kind": "remove", "node": 15, "parent": 14, "name": b"x"},
            {"kind": "remove", "node": 14, "parent": 1, "name": b"d"},
            {"kind": "create", "node": 20, "parent": 1, "name": b"away"},  # gives way
            {"kind": "setxattr", "node": 20, "xattr_name": b"security.x", "xattr_value": b"x"},
            {"kind": "setxattr", "node": 20, "xattr_name": b"user.x", "xattr_value": b"x"},
            {"kind": "link", "node": 20, "parent": 1, "name": b"l" * 255},
            {"kind": "link", "node": 20, "parent": 4, "name": b"in what gave way"},
        ]  # fmt: skip
        records = [RecordFacts(seq=seq, **step) for seq, step in enumerate(steps, 1)]
        importer = await imported(world, archive(tmp_path / "archive", nodes, records))
        report = importer.report()
        assert (report["records"], report["applied"]) == (len(steps), 10), report

    played(tmp_path, play)


def test_no_stamp_of_a_content_comes_twice(tmp_path: Path) -> None:
    """What was sent is not counted any more: an export would take parts for a whole."""

    async def play(world: World) -> None:
        (world.share / "f").write_bytes(b"theirs")
        file = await world.cached("f")
        exporter = Exporter(world.volume.context)
        stamps = [exporter.stamp(file.id)]
        for size in (7, 8, 9):
            handle = world.volume.files.open(world.shown(file), writing=True)
            for number in range(9):
                world.volume.files.write(handle, 0, b"%d" % number * size)
                stamps.append(exporter.stamp(file.id))
            world.volume.files.close(handle)
            await world.volume.durable(None)
            await world.drained()
        stamps.append(exporter.stamp(file.id))
        assert len(set(stamps)) == len(stamps), stamps

    played(tmp_path, play)

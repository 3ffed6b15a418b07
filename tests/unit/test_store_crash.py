"""Crashes: killed processes, power cuts, full disks, damaged databases."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from awayfs.core.errors import StoreError
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Entry, Kind
from awayfs.store import sync
from awayfs.store.db import Database
from awayfs.store.fsck import check
from awayfs.store.store import Store

TIMES = {"atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3, "btime_ns": 4}


def create_file(store: Store, name: bytes, data: bytes, parent: int = ROOT) -> int:
    """A file made here and not sent: node, name, content, records."""
    with store.transaction():
        node = store.nodes.add(Kind.FILE, 0o644, 0, 0, size=len(data), **TIMES).id
        store.nodes.add_name(parent, name, node)
        store.journal.append(RecordKind.CREATE, node, parent=parent, name=name)
        fd = store.content.open(node)
        os.pwrite(fd, data, 0)
        os.close(fd)
        store.content.add_range(node, 0, len(data))
        store.journal.append(RecordKind.STORE, node)
    return node


def read(store: Store, node: int) -> bytes:
    return Path(store.content.fd_path(node)).read_bytes()


# -- order of durability --------------------------------------------------------------------


def test_content_then_directory_then_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    node = create_file(store, b"f", b"data")
    seen: list[str] = []
    monkeypatch.setattr(sync, "fsync_path", seen.append)
    path = store.content.fd_path(node)
    work = store.begin_sync([node])
    work.run()
    assert seen == [path, os.path.dirname(path), store.db.wal_path]
    assert store.content.unsynced() == [node], "only finish_sync says so"
    store.finish_sync(work)
    assert store.content.unsynced() == []
    seen.clear()
    store.sync([])
    assert seen == [store.db.wal_path]
    store.close()


def test_a_write_during_a_sync_stays_unsynced(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    node = create_file(store, b"f", b"data")
    work = store.begin_sync()
    store.content.add_range(node, 0, 4)
    work.run()
    store.finish_sync(work)
    assert store.content.unsynced() == [node]
    store.sync()
    store.content.mark_unsynced(node)
    assert store.content.unsynced() == [node]
    store.close()


def test_a_failed_fsync_marks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    node = create_file(store, b"f", b"data")

    def fail(path: str) -> None:
        raise OSError(errno.EIO, "injected", path)

    monkeypatch.setattr(sync, "fsync_path", fail)
    with pytest.raises(OSError, match="injected"):
        store.sync()
    monkeypatch.undo()
    assert store.content.unsynced() == [node]
    store.close()


def test_syncs_and_checkpoints_run_beside_commits(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    failures: list[BaseException] = []
    stop = threading.Event()

    def checkpoints() -> None:
        try:
            while not stop.is_set():
                store.checkpoint()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=checkpoints)
    thread.start()
    for n in range(40):
        create_file(store, b"f%d" % n, b"x" * n)
        work = store.begin_sync()
        runner = threading.Thread(target=work.run)
        runner.start()
        create_file(store, b"g%d" % n, b"y")
        runner.join()
        store.finish_sync(work)
    stop.set()
    thread.join()
    assert failures == [] and len(store.content.unsynced()) <= 1
    assert store.nodes.count() == 81 and check(store) == []
    store.close()


# -- killed at random points ----------------------------------------------------------------

_VICTIM = """
import os, random, sys
from test_store_crash import create_file
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Kind
from awayfs.store.store import Store

store = Store.open(sys.argv[1], create=True)
rng = random.Random(int(sys.argv[2]))
mine = []
for n in range(100000):
    what = rng.random()
    if what < 0.6 or not mine:
        name = b"%s-%d" % (sys.argv[2].encode(), n)
        data = name * rng.randrange(1, 50)
        mine.append((create_file(store, name, data), name, data))
        print("+", name.decode(), len(data), flush=True)
    elif what < 0.75:
        node, name, data = mine.pop(rng.randrange(len(mine)))
        print("?", name.decode(), 0, flush=True)
        with store.transaction():
            store.nodes.remove_name(ROOT, name)
            store.journal.append(RecordKind.REMOVE, node, parent=ROOT, name=name)
            store.journal.remove([r.seq for r in store.journal.of_node(node)])
            store.nodes.remove(node)
    elif what < 0.9:
        node, name, data = mine[rng.randrange(len(mine))]
        path = store.content.stage_path()
        with open(path, "wb") as file:
            file.write(name * 3)
        print("?", name.decode(), 0, flush=True)
        with store.transaction():
            store.content.replace_with(node, path, len(name) * 3, b"t")
            store.nodes.update(node, size=len(name) * 3)
    elif what < 0.95:
        store.sync()
    else:
        store.checkpoint()
"""


def test_kill_at_random_points(tmp_path: Path) -> None:
    """What was acknowledged before SIGKILL is there with its content; fsck is content."""
    state = str(tmp_path / "v")
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    )
    rng = random.Random(7)
    acknowledged: dict[str, int | None] = {}
    for turn in range(8):
        victim = subprocess.Popen(
            [sys.executable, "-c", _VICTIM, state, str(turn)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert victim.stdout is not None
        lines = [victim.stdout.readline()]
        time.sleep(rng.uniform(0.0, 0.3))
        victim.send_signal(signal.SIGKILL)
        lines += victim.stdout.read().splitlines()
        victim.wait()
        for line in lines:
            if len(line.split()) == 3:
                sign, name, size = line.split()
                acknowledged[name] = int(size) if sign == "+" else None
        store = Store.open(state, create=False)
        assert store.salvaged is None and store.suspect == []
        assert [p for p in check(store) if not p.leftover] == []
        for name, size in acknowledged.items():
            node = store.nodes.child(ROOT, name.encode())
            if size is not None:
                assert node is not None and store.content.covers(node.id, 0, size)
                assert read(store, node.id) == name.encode() * (size // len(name))
            elif node is not None:
                assert read(store, node.id) in {name.encode() * n for n in range(1, 51)}
        store.close()
    assert len(acknowledged) > 20


# -- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mountpoint = tmp_path / "small"
    mountpoint.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "awayfs-test", str(mountpoint)], check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", "-l", str(mountpoint)], check=True)


def test_a_full_disk_fails_cleanly(small_disk: Path) -> None:
    """ENOSPC rolls back database and memory alike, and all goes on once there is room."""
    store = Store.open(str(small_disk / "v"), create=True)
    ballast = small_disk / "ballast"
    made: list[int] = []
    with ballast.open("wb") as file:
        file.write(bytes(1_000_000))
    with pytest.raises(OSError, match="room") as caught:
        while True:
            with store.transaction():
                node = store.nodes.add(Kind.FILE, 0o644, 0, 0, size=1, **TIMES).id
                store.nodes.add_name(ROOT, b"%d" % node, node)
                store.journal.append(RecordKind.STORE, node, name=b"n" * 200)
                store.content.add_range(node, 0, 10)
            made.append(node)
    assert caught.value.errno == errno.ENOSPC
    assert store.journal.count() == len(made) == store.journal.pending_bytes()
    assert store.content.usage() == 10 * len(made) and len(store.content.unsynced()) == len(made)
    assert store.nodes.count() == len(made) + 1, "reading goes on"
    ballast.unlink()
    after = create_file(store, b"after", b"x")
    assert after not in made and read(store, after) == b"x"
    store.close()
    store = Store.open(str(small_disk / "v"), create=False)
    assert store.nodes.count() == len(made) + 2 and store.salvaged is None
    store.close()


def test_no_room_to_open(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(4 * 1024 * 1024 - 8192))
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Store.open(str(small_disk / "v"), create=True)
    assert "\n" not in str(caught.value)


# -- damage ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume whose daemon was killed: half of it checkpointed, half in the log."""
    here = tmp_path_factory.mktemp("crashed")
    store = Store.open(str(here / "live"), create=True)
    for n in range(200):
        node = create_file(store, b"f%d" % n, b"content %d" % n)
        if n % 2:
            seen = Entry(b"f", Kind.FILE, 0o644, 0, 0, 5, 6, b"t%d" % n, file_id=b"i%d" % n)
            store.server.set(node, seen, seen_ns=1)
            store.server.add_name(ROOT, b"f%d" % n, node)
        if n == 100:
            store.sync()
            store.checkpoint()
    shutil.copytree(here / "live", here / "crashed")
    store.close()
    return here / "crashed"


def sent(store: Store, count: int) -> int:
    """Records come and go; the last one's number."""
    seq = 0
    for _ in range(count):
        seq = store.journal.append(RecordKind.SETXATTR, ROOT, xattr_name=b"user.x").seq
        store.journal.remove([seq])
    return seq


def test_no_number_of_a_record_is_given_out_again_after_a_salvage(tmp_path: Path) -> None:
    """Operation ids are made of them, and name what is staged on the server."""
    store = Store.open(str(tmp_path / "v"), create=True)
    last = sent(store, 3000)
    store.close()
    database = tmp_path / "v" / "volume.db"
    database.write_bytes(b"\xff" * len(database.read_bytes()))
    (tmp_path / "v" / "running").write_text("another boot\n")
    store = Store.open(str(tmp_path / "v"))
    assert store.salvaged is not None and sent(store, 1) > last
    store.close()


def test_no_number_of_a_record_is_given_out_again_after_a_power_cut(tmp_path: Path) -> None:
    """What was sent and then lost with the log's end had numbers, too."""
    store = Store.open(str(tmp_path / "v"), create=True, boot_id="before")
    sent(store, 10)
    store.sync([])
    shutil.copytree(tmp_path / "v", tmp_path / "cut")
    last = sent(store, 500)
    store.close()
    store = Store.open(str(tmp_path / "cut"), boot_id="after")
    assert store.salvaged is None and sent(store, 1) > last
    store.close()


def all_contents(directory: Path) -> set[bytes]:
    files = [p for d in ("content", "lost+found") for p in (directory / d).rglob("*")]
    return {p.read_bytes() for p in files if p.is_file()}


def open_damaged(directory: Path) -> Store:
    """Opening may only succeed; and then the store is sound and no content is gone."""
    store = Store.open(str(directory), create=False)
    left = [p for p in check(store) if not p.leftover]
    assert left == [], [p.text for p in left]
    assert {b"content %d" % n for n in range(200)} <= all_contents(directory)
    if store.salvaged is not None:
        assert os.path.isdir(store.salvaged.set_aside)
        assert create_file(store, b"new", b"n") > 201
        assert store.content.covers(store.nodes.child_id(ROOT, b"new") or 0, 0, 1)
    return store


@pytest.mark.parametrize("seed", range(24))
def test_garbage_in_the_database(crashed: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    shutil.copytree(crashed, tmp_path / "v")
    name = "volume.db-wal" if seed % 4 == 3 else "volume.db"
    path = tmp_path / "v" / name
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 3, 20))):
        at = rng.randrange(len(data))
        length = rng.choice((1, 16, 2048))
        data[at : at + length] = rng.choice((bytes(length), rng.randbytes(length)))
    path.write_bytes(data)
    open_damaged(tmp_path / "v").close()
    open_damaged(tmp_path / "v").close()


@pytest.mark.parametrize("seed", range(8))
def test_truncated_database(crashed: Path, tmp_path: Path, seed: int) -> None:
    shutil.copytree(crashed, tmp_path / "v")
    path = tmp_path / "v" / ("volume.db-wal" if seed % 2 else "volume.db")
    os.truncate(path, random.Random(seed).randrange(path.stat().st_size))
    open_damaged(tmp_path / "v").close()


@pytest.mark.parametrize("page", range(1, 34))
def test_one_bad_page(crashed: Path, tmp_path: Path, page: int) -> None:
    """One page of garbage costs little: most records of the journal survive."""
    shutil.copytree(crashed, tmp_path / "v")
    with open(tmp_path / "v" / "volume.db", "r+b") as file:
        file.seek((page - 1) * 2048)
        file.write(b"\xa5" * 2048)
    store = open_damaged(tmp_path / "v")
    assert store.journal.count() > 300, store.salvaged
    assert sum(store.nodes.child(ROOT, b"f%d" % n) is not None for n in range(200)) > 150
    store.close()


@pytest.mark.parametrize("lost", ["volume.db", "volume.db-wal", "running"])
def test_a_missing_file(crashed: Path, tmp_path: Path, lost: str) -> None:
    shutil.copytree(crashed, tmp_path / "v")
    os.unlink(tmp_path / "v" / lost)
    store = Store.open(str(tmp_path / "v"), create=True)
    assert [p for p in check(store) if not p.leftover] == []
    assert {b"content %d" % n for n in range(200)} <= all_contents(tmp_path / "v")
    assert (store.salvaged is None) == (lost == "running")
    store.close()


def test_an_interrupted_salvage_is_finished(crashed: Path, tmp_path: Path) -> None:
    shutil.copytree(crashed, tmp_path / "v")
    path = tmp_path / "v" / "volume.db"
    shutil.copy(path, tmp_path / "v" / "volume.db.salvaged")
    store = open_damaged(tmp_path / "v")
    assert store.salvaged is None and not os.path.exists(f"{path}.salvaged")
    store.close()
    os.rename(path, f"{path}.salvaged")
    store = open_damaged(tmp_path / "v")
    assert store.salvaged is None and store.journal.count() == 400
    store.close()


@pytest.mark.parametrize("known_by", ["base", "time", "size"])
def test_an_edit_whose_record_is_lost_does_not_pass_for_the_servers(
    tmp_path: Path, known_by: str
) -> None:
    """It was made durable, as fsync asks for, so nothing but the damaged journal spoke of it."""
    store = Store.open(str(tmp_path / "v"), create=True)
    node = create_file(store, b"f", b"old content")
    store.journal.remove(store.journal.seqs_of(node))
    there = Entry(b"f", Kind.FILE, 0o644, 0, 0, 11, 2, b"token")
    store.server.set(node, there, seen_ns=1)
    store.server.add_name(ROOT, b"f", node)
    store.content.set_token(node, b"token")
    if known_by == "base":
        assert store.content.keep_base(node, 1 << 20)
    store.journal.append(RecordKind.STORE, node)
    data = b"new content, longer" if known_by == "size" else b"new content"
    Path(store.content.fd_path(node)).write_bytes(data)
    changed = {"size": len(data), "mtime_ns": 3 * 10**9 if known_by == "time" else 2}
    store.nodes.update(node, **changed)
    store.content.mark_unsynced(node)
    store.sync()
    store.checkpoint()
    page = store.db.value("SELECT rootpage FROM sqlite_schema WHERE name = 'journal'")
    store.close()
    with open(tmp_path / "v" / "volume.db", "r+b") as file:
        file.seek((page - 1) * 2048)
        file.write(b"\xa5" * 2048)
    (tmp_path / "v" / "running").write_text("this boot\n")
    (tmp_path / "v" / "volume.db-wal").touch()
    store = Store.open(str(tmp_path / "v"), boot_id="this boot")
    assert store.salvaged is not None and not store.journal.has_store(node)
    assert data in all_contents(tmp_path / "v") and not store.content.ranges(node)
    found = store.nodes.get(node)
    assert found is not None and (found.size, found.mtime_ns) == (11, 2)
    assert check(store) == []
    store.close()


def test_damage_found_while_running_is_eio(crashed: Path, tmp_path: Path) -> None:
    """A page that goes bad later fails the operation, and the next open salvages."""
    shutil.copytree(crashed, tmp_path / "v")
    Store.open(str(tmp_path / "v"), create=False).close()
    root = Database.open(str(tmp_path / "v" / "volume.db"))
    page = root.value("SELECT rootpage FROM sqlite_schema WHERE name = 'names'")
    root.close()
    with open(tmp_path / "v" / "volume.db", "r+b") as file:
        file.seek((page - 1) * 2048)
        file.write(b"\xa5" * 2048)
    store = Store.open(str(tmp_path / "v"), create=False)
    with pytest.raises(OSError, match="damaged") as caught:
        store.nodes.child(ROOT, b"f1")
    assert caught.value.errno == errno.EIO
    store.close()
    store = open_damaged(tmp_path / "v")
    assert store.salvaged is not None and store.nodes.child(ROOT, b"f1") is not None
    store.close()

"""What goes out without a look ends as after a look, whatever happened on the server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from test_volume_review import World, played

from awayfs.core.records import Record, RecordKind
from awayfs.remotes.directory_facts import FileSystem
from awayfs.volume.replay_facts import FactFinder

OLD_S = 1_400_000_000
Change = Callable[[Path], object]
Act = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystem, "file_id", lambda *_: None)
    monkeypatch.setattr(FileSystem, "settled_in_ns", lambda *_: 0)


def write(path: Path, data: bytes, mtime: int = OLD_S) -> None:
    path.write_bytes(data)
    os.utime(path, (mtime, mtime))


def moved(share: Path) -> None:
    (share / "d").rename(share / "e")


def copied(share: Path) -> None:
    """As if nothing had happened, but that all is another's."""
    moved(share)
    shutil.copytree(share / "e", share / "d", symlinks=True)


def linked(share: Path) -> None:
    moved(share)
    (share / "d").symlink_to("e")


def replaced(share: Path) -> None:
    moved(share)
    write(share / "d", b"a file")


def another(share: Path) -> None:
    (share / "d/f").rename(share / "d/g")
    write(share / "d/f", b"quite another", OLD_S + 9)


def directory(share: Path) -> None:
    (share / "d/f").unlink()
    (share / "d/f").mkdir()


def symlink(share: Path) -> None:
    (share / "d/f").unlink()
    (share / "d/f").symlink_to("k")


THERE: dict[str, Change] = {
    "nothing": lambda share: None,
    "edited": lambda share: write(share / "d/f", b"their edit, which is longer", OLD_S + 9),
    "edited to the same size": lambda share: write(share / "d/f", b"BASE", OLD_S + 9),
    "another mode": lambda share: (share / "d/f").chmod(0o600),
    "removed": lambda share: (share / "d/f").unlink(),
    "renamed": lambda share: (share / "d/f").rename(share / "d/g"),
    "renamed alike": lambda share: (share / "d/f").rename(share / "d/n"),
    "the name taken": lambda share: write(share / "d/n", b"theirs", OLD_S + 9),
    "the name taken by a directory": lambda share: (share / "d/n").mkdir(),
    "another": another,
    "a directory": directory,
    "a symlink": symlink,
    "its directory renamed": moved,
    "its directory removed": lambda share: shutil.rmtree(share / "d"),
    "its directory copied": copied,
    "its directory a symlink": linked,
    "its directory a file": replaced,
}


async def stores(world: World) -> None:
    world.write(await world.cached("d/f"), 0, b"our edit")


async def removes(world: World) -> None:
    world.volume.changes.unlink((await world.find("d")).id, b"f")


async def renames(world: World) -> None:
    place = (await world.find("d")).id
    world.volume.changes.rename(place, b"f", place, b"n", 0)


def shown(share: Path) -> dict[str, object]:
    """All of a share: kinds, contents, modes."""
    found: dict[str, object] = {}
    for path in sorted(share.rglob("*")):
        name = str(path.relative_to(share))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = (path.read_bytes(), path.stat().st_mode)
        else:
            found[name] = "directory"
    return found


Ended = tuple[dict[str, object], list[str], list[tuple[str, str]]]


def ended(
    base: Path, act: Act, change: Change, monkeypatch: pytest.MonkeyPatch, look: bool
) -> Ended:
    """The share, the conflicts and the journal at the end, having looked first or not."""
    went: list[RecordKind] = []
    results: list[Ended] = []
    may_go = FactFinder.may_go_unseen

    def noted(finder: FactFinder, record: Record, earlier: Any) -> bool:
        may = may_go(finder, record, earlier)
        if may:
            went.append(record.kind)
        return may and not look

    async def play(world: World) -> None:
        (world.share / "d").mkdir()
        for name in ("d/f", "d/k"):
            write(world.share / name, b"base")
        await world.find("d/f")
        await act(world)
        change(world.share)
        for _ in range(3):
            await world.drained()
        conflicts = sorted(str(one.kind) for one in world.store.conflicts.all())
        left = sorted((one.kind.name, one.state.name) for one in world.store.journal.all())
        results.append((shown(world.share), conflicts, left))

    base.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(FactFinder, "may_go_unseen", noted)
        played(base, play)
    assert went
    return results[0]


@pytest.mark.parametrize("act", [stores, removes, renames])
@pytest.mark.parametrize("there", THERE)
def test_it_ends_as_with_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, act: Act
) -> None:
    given = act, THERE[there], monkeypatch
    looked = ended(tmp_path / "looked", *given, look=True)
    assert ended(tmp_path / "unseen", *given, look=False) == looked
    assert not any(".awayfs-" in name for name in looked[0])

"""The history of variants that lost: rows with their files, fsck, salvage, culling."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.history import DAY_NS, Limits, Weight, to_cull
from awayfs.store.fsck import check
from awayfs.store.history import Lost
from awayfs.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(str(tmp_path / "v"), create=True)
    yield opened
    opened.close()


def keep(
    store: Store, text: bytes, conflict: int = 1, path: bytes = b"d/f", **more: object
) -> Lost:
    staged = store.content.stage_path()
    Path(staged).write_bytes(text)
    fields = {"which": "local", "mode": 0o644, "mtime_ns": 5, "kept_ns": 9, "why": "server", **more}
    return store.history.add(Lost(conflict, 3, path, size=len(text), **fields), staged)  # type: ignore[arg-type]


def bytes_of(store: Store, lost: Lost) -> bytes:
    return Path(store.history.content_path(lost.id)).read_bytes()


def test_a_variant_comes_back_as_it_was(store: Store) -> None:
    kept = keep(store, b"mine", result=b"digest")
    assert store.history.get(kept.id) == kept and bytes_of(store, kept) == b"mine"
    assert store.history.all() == [kept] == store.history.of(b"d/f", None)
    assert store.history.of(b"elsewhere", 3) == [kept] and store.history.of(b"x", 4) == []
    store.history.set_result(1, b"other")
    assert store.history.all()[0].result == b"other"
    assert check(store) == []
    store.history.remove([kept.id, 77])
    assert store.history.all() == [] and os.listdir(f"{store.directory}/history") == []


def test_a_rollback_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyError), store.transaction():
        keep(store, b"mine")
        raise KeyError
    assert store.history.all() == [] and os.listdir(f"{store.directory}/history") == []


def test_what_waits_for_a_decision_is_not_told(store: Store) -> None:
    """A decision that was cut off left it; the next one replaces it."""
    conflict = store.conflicts.add(3, "update/update", 1, b"f", 5)
    keep(store, b"first", conflict.id)
    assert store.history.all() == [] == store.history.of(b"d/f", 3)
    second = keep(store, b"second", conflict.id)
    store.conflicts.remove(conflict.id)
    assert store.history.all() == [second] and bytes_of(store, second) == b"second"
    assert len(os.listdir(f"{store.directory}/history")) == 1


def test_fsck_finds_a_missing_file_and_a_stray(store: Store) -> None:
    kept = keep(store, b"mine")
    os.unlink(store.history.content_path(kept.id))
    Path(f"{store.directory}/history/99").write_bytes(b"stray")
    found = check(store, repair=True)
    assert [problem.rule for problem in found] == ["history", "stray"] and found[1].leftover
    assert check(store) == [] and store.history.all() == []
    assert Path(f"{store.directory}/lost+found/history-99").read_bytes() == b"stray"


@pytest.mark.parametrize("left", [b"longer than it was", b"cut"])
def test_what_is_left_of_a_variant_that_is_not_whole_is_not_deleted(
    left: bytes, store: Store
) -> None:
    kept = keep(store, b"content")
    Path(store.history.content_path(kept.id)).write_bytes(left)
    assert [problem.rule for problem in check(store, repair=True)] == ["history"]
    (lost,) = Path(store.directory, "lost+found").iterdir()
    assert lost.read_bytes() == left and str(kept.id) in lost.name
    assert check(store) == [] and store.history.get(kept.id) is None


def test_a_salvage_carries_the_history_over(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "v"), create=True)
    kept = keep(store, b"mine")
    store.close()
    path = tmp_path / "v" / "volume.db"
    with sqlite3.connect(path) as db:  # the index is gone, so the file is not sound
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'history_by_path'"
        ).fetchone()
        (page,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    with open(path, "r+b") as file:
        file.seek((root - 1) * page)
        file.write(b"\xff" * page)
    (tmp_path / "v" / "running").write_text("this boot")
    (tmp_path / "v" / "volume.db-wal").touch()
    store = Store.open(str(tmp_path / "v"), boot_id="this boot")
    assert store.salvaged is not None and store.history.all() == [kept]
    assert bytes_of(store, kept) == b"mine" and keep(store, b"next", 2).id > kept.id
    store.close()


def test_numbers_of_decisions_without_a_conflict_are_their_own(store: Store) -> None:
    first = store.history.new_decision()
    keep(store, b"a", first)
    assert first < 0 and store.history.new_decision() < first


LIMITS = Limits(age_days=1, total=10)


def test_two_decisions_that_are_under_way_have_a_number_each(store: Store) -> None:
    """A discard that waits keeps nothing yet; what is kept meanwhile must not be replaced by it."""
    waiting, other = store.history.new_decision(), store.history.new_decision()
    kept = [keep(store, text, number) for text, number in ((b"a", other), (b"b", waiting))]
    assert [bytes_of(store, one) for one in kept] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("kept", "gone"),
    [
        ([], []),
        ([Weight(1, 0, 1)], [1]),  # too old
        ([Weight(1, 5 * DAY_NS, 4), Weight(2, 5 * DAY_NS, 4)], []),
        ([Weight(1, 5 * DAY_NS, 4), Weight(2, 5 * DAY_NS, 8)], [1]),  # the oldest makes room
        ([Weight(1, 5 * DAY_NS, 1), Weight(2, 5 * DAY_NS, 99)], [2]),  # larger than all
        ([Weight(1, 9 * DAY_NS, 1)], []),  # kept in the future: the clock was set back
    ],
)
def test_culling(kept: list[Weight], gone: list[int]) -> None:
    assert to_cull(kept, int(5.5 * DAY_NS), LIMITS) == gone


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 12))))
def test_culling_leaves_what_fits(pairs: list[tuple[int, int]]) -> None:
    kept = [Weight(n, days * DAY_NS, size) for n, (days, size) in enumerate(pairs)]
    gone = set(to_cull(kept, 5 * DAY_NS, LIMITS))
    left = [w for w in kept if w.id not in gone]
    assert sum(w.size for w in left) <= 10 and all(w.kept_ns >= 4 * DAY_NS for w in left)
    again = to_cull(left, 5 * DAY_NS, LIMITS)
    assert again == []

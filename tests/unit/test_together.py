"""Steps of several records in one transaction (``volume.together``)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awayfs.store.store import Store
from awayfs.volume.together import Together


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(str(tmp_path / "volume"), create=True)) as opened:
        yield opened


class Steps:
    """Steps that set facts, and what happened in which order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.together = Together(store)
        self.seen: list[str] = []

    def setting(self, name: str, fail: Exception | None = None) -> Callable[[], str]:
        def work() -> str:
            self._store.facts.set(name, name)
            if fail is not None:
                raise fail
            self.seen.append("step")
            self._store.db.on_commit(lambda: self.seen.append("commit"))
            return name

        return work


def test_what_is_asked_for_at_once_is_one_transaction(store: Store) -> None:
    steps = Steps(store)

    async def play() -> list[str]:
        return list(
            await asyncio.gather(*(steps.together.do(steps.setting(f"n{i}")) for i in range(3)))
        )

    assert asyncio.run(play()) == ["n0", "n1", "n2"]
    assert steps.seen == ["step"] * 3 + ["commit"] * 3
    assert store.facts.get("n2") == "n2"


def test_one_that_fails_takes_nothing_from_the_others(store: Store) -> None:
    steps = Steps(store)

    async def play() -> list[object]:
        return list(
            await asyncio.gather(
                steps.together.do(steps.setting("a")),
                steps.together.do(steps.setting("b", OSError(5, "no"))),
                steps.together.do(steps.setting("c")),
                return_exceptions=True,
            )
        )

    first, second, third = asyncio.run(play())
    assert (first, third) == ("a", "c")
    assert isinstance(second, OSError)
    assert [store.facts.get(name) for name in "abc"] == ["a", None, "c"]


def test_a_single_one_that_fails_runs_once(store: Store) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        raise ValueError

    with pytest.raises(ValueError):
        asyncio.run(Together(store).do(work))
    assert runs == [1]


def test_who_was_cancelled_before_its_turn_does_nothing(store: Store) -> None:
    steps = Steps(store)

    async def play() -> None:
        given_up = asyncio.ensure_future(steps.together.do(steps.setting("given up")))
        kept = asyncio.ensure_future(steps.together.do(steps.setting("kept")))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await kept == "kept"

    asyncio.run(play())
    assert store.facts.get("given up") is None


def test_a_long_row_of_them_leaves_others_their_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awayfs.volume.slices.SLICE_S", 0.0)
    steps, turns = Steps(store), list[int]()

    async def other() -> None:
        while len(turns) < 1000:
            turns.append(1)
            await asyncio.sleep(0)

    async def play() -> None:
        beside = asyncio.ensure_future(other())
        await asyncio.gather(*(steps.together.do(steps.setting(f"n{i}")) for i in range(20)))
        beside.cancel()

    asyncio.run(play())
    assert len(turns) >= 10


def test_who_waits_is_told_when_no_transaction_can_begin(store: Store) -> None:
    """What was closed is written down at its begin, for which a full disk has no room."""
    steps = Steps(store)

    def written_down() -> None:
        store.db.on_rollback(store.db.defer, written_down)
        if room:
            return
        raise OSError(errno.ENOSPC, "full")

    room: list[str] = []

    async def play() -> list[object]:
        store.db.defer(written_down)
        async with asyncio.timeout(10):
            told = await asyncio.gather(
                steps.together.do(steps.setting("a")),
                steps.together.do(steps.setting("b")),
                return_exceptions=True,
            )
            room.append("given up")
            return [*told, await steps.together.do(steps.setting("c"))]

    first, second, third = asyncio.run(play())
    assert isinstance(first, OSError) and isinstance(second, OSError)
    assert third == "c"
    assert [store.facts.get(name) for name in "abc"] == [None, None, "c"]

"""Operations cut off at every point there is, and what ``settle`` makes of it.

Each case starts from a known server, is cut at the first point, the second, and so on until
it is no longer cut, and after each cut the volume is connected again and settled twice. Then
no name of the operation may be left, every revision must still be there, and the outcome must
be one of the two ends.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b

import pytest
from case import Case, cache_file

from awayfs.core.errors import NotFound, Unreachable
from awayfs.core.types import (
    ABSENT,
    NEVER_SEEN,
    Attributes,
    Committed,
    Entry,
    Expected,
    Kind,
    Outcome,
)
from awayfs.ports.remote import Intent
from awayfs.remotes.faults import Cut

MOST_POINTS = 60

State = dict[bytes, bytes]


@dataclass
class Scenario:
    """``act`` runs the operation ``op`` and returns its outcome; the rest says what may be."""

    before: State
    after: State
    act: Callable[[Case, str, list[Intent]], Awaitable[Outcome | Entry | None]]


async def _replace(case: Case, op: str, intents: list[Intent]) -> Outcome:
    expected = await case.expected(b"f")
    intents.append(Intent(op, b"f", expected))
    with cache_file(b"ours") as fd:
        staged = await case.remote.stage(op, b"", fd, 4, Attributes())
    intents.append(Intent(op, b"f", expected, staged=staged))
    return await case.remote.replace(op, b"f", expected)


async def _create(case: Case, op: str, intents: list[Intent]) -> Outcome:
    intents.append(Intent(op, b"f", ABSENT))
    with cache_file(b"ours") as fd:
        staged = await case.remote.stage(op, b"", fd, 4, Attributes())
    intents.append(Intent(op, b"f", ABSENT, staged=staged))
    return await case.remote.replace(op, b"f", ABSENT)


def _put_intent(op: str, expected: Expected) -> Intent:
    """What the server will show of it is not known; its content is."""
    size, digest = len(b"ours"), blake2b(b"ours", digest_size=32).digest()
    unseen = Entry(b"", Kind.FILE, 0o644, 0, 0, size, 0, NEVER_SEEN, weak=True)
    return Intent(op, b"f", expected, staged=unseen, staged_digest=digest)


async def _put(case: Case, op: str, intents: list[Intent]) -> Outcome:
    expected = await case.expected(b"f")
    intents.append(_put_intent(op, expected))
    return await case.remote.put(op, b"f", b"ours", Attributes(), expected)


async def _put_new(case: Case, op: str, intents: list[Intent]) -> Outcome:
    intents.append(_put_intent(op, ABSENT))
    return await case.remote.put(op, b"f", b"ours", Attributes(), ABSENT)


async def _remove(case: Case, op: str, intents: list[Intent]) -> Outcome:
    expected = await case.expected(b"f")
    intents.append(Intent(op, b"f", expected))
    return await case.remote.remove(op, b"f", expected)


async def _rename(case: Case, op: str, intents: list[Intent]) -> Outcome:
    source = await case.expected(b"f")
    intents.append(Intent(op, b"g", ABSENT, b"f", source))
    return await case.remote.rename(op, b"f", b"g", source, ABSENT)


async def _rename_over(case: Case, op: str, intents: list[Intent]) -> Outcome:
    source, target = await case.expected(b"f"), await case.expected(b"g")
    intents.append(Intent(op, b"g", target, b"f", source))
    return await case.remote.rename(op, b"f", b"g", source, target)


async def _make(case: Case, op: str, intents: list[Intent]) -> Outcome:
    intents.append(Intent(op, b"d", ABSENT))
    return await case.remote.make(op, b"d", Kind.DIRECTORY, Attributes(mode=0o700))


async def _symlink(case: Case, op: str, intents: list[Intent]) -> Outcome:
    intents.append(Intent(op, b"l", ABSENT))
    return await case.remote.make(op, b"l", Kind.SYMLINK, Attributes(), b"x")


async def _link(case: Case, op: str, intents: list[Intent]) -> Outcome:
    intents.append(Intent(op, b"g", ABSENT))
    return await case.remote.link(op, b"f", b"g")


async def _exchange(case: Case, op: str, intents: list[Intent]) -> Outcome:
    case.needs("exchange")
    a, b = await case.expected(b"f"), await case.expected(b"g")
    intents.append(Intent(op, b"f", a, b"g", b))
    return await case.remote.exchange(op, b"f", b"g", a, b)


SCENARIOS = {
    "replace": Scenario({b"f": b"old"}, {b"f": b"ours"}, _replace),
    "create": Scenario({}, {b"f": b"ours"}, _create),
    "put": Scenario({b"f": b"old"}, {b"f": b"ours"}, _put),
    "put-equal": Scenario({b"f": b"ours", b"g": b"x"}, {b"f": b"ours", b"g": b"x"}, _put),
    "put-new": Scenario({}, {b"f": b"ours"}, _put_new),
    "remove": Scenario({b"f": b"old", b"g": b"x"}, {b"g": b"x"}, _remove),
    "rename": Scenario({b"f": b"old"}, {b"g": b"old"}, _rename),
    "rename-over": Scenario({b"f": b"new", b"g": b"old"}, {b"g": b"new"}, _rename_over),
    "make": Scenario({}, {b"d": b"<directory>"}, _make),
    "symlink": Scenario({}, {b"l": b"<x>"}, _symlink),
    "link": Scenario({b"f": b"x"}, {b"f": b"x", b"g": b"x"}, _link),
    "exchange": Scenario({b"f": b"1", b"g": b"2"}, {b"f": b"2", b"g": b"1"}, _exchange),
}


def state(case: Case) -> State:
    """All names with what is there."""
    found = case.contents()
    for name in case.names() - set(found):
        link = os.path.islink(case.at(name))
        found[name] = b"<" + os.readlink(case.at(name)) + b">" if link else b"<directory>"
    return found


def reset(case: Case, wanted: State) -> None:
    """Make the server's root have these files and nothing else."""
    for name in case.names():
        path = case.at(name)
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    for name, data in wanted.items():
        case.write(name, data)


async def cut_run(case: Case, scenario: Scenario, nth: int) -> tuple[bool, list[Intent]]:
    """Run the operation with a cut at the ``nth`` point; whether it was cut, and its intents."""
    intents: list[Intent] = []
    case.cut_at(nth)
    try:
        await case.remote.connect()
        await scenario.act(case, f"op{nth}", intents)
        cut = False
    except (Cut, Unreachable):
        cut = True
    finally:
        case.cut_at(0)
    await case.remote.connect()
    return cut, intents


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_cut_settles_to_one_of_two_ends(run, name):
    scenario = SCENARIOS[name]

    async def body(case: Case) -> None:
        cuts = set()
        for nth in range(1, MOST_POINTS):
            reset(case, scenario.before)
            cut, intents = await cut_run(case, scenario, nth)
            if not cut:
                assert state(case) == scenario.after
                break
            if intents:
                await case.remote.settle(intents[-1])
            first = state(case)
            assert first in (scenario.before, scenario.after), f"cut {nth}"
            if intents:
                await case.remote.settle(intents[-1])
            assert state(case) == first
            cuts.add(tuple(sorted(first)))
        else:
            pytest.fail("it never got through")
        assert nth > 1, "there are no points to cut at"

    run(body)


async def cut_settling(case: Case, intent: Intent, nth: int) -> bool:
    """Settle with a cut at the ``nth`` point; whether it was cut."""
    case.cut_at(nth)
    try:
        await case.remote.settle(intent)
        return False
    except (Cut, Unreachable):
        return True
    finally:
        case.cut_at(0)
        await case.remote.connect()


@pytest.mark.parametrize("name", ["replace", "put", "put-equal", "remove", "rename-over"])
def test_settling_may_be_cut_off_as_well(run, factory, name):
    """A link that dies again and again: twice at the same place, and then it holds."""
    scenario, every = SCENARIOS[name], 9 if factory.isolated else 1  # each cut takes a process

    async def body(case: Case) -> None:
        for nth in range(1, MOST_POINTS, every):
            for within in range(1, MOST_POINTS, every):
                reset(case, scenario.before)
                cut, intents = await cut_run(case, scenario, nth)
                if not cut or not intents:
                    break
                if not await cut_settling(case, intents[-1], within):
                    break
                await cut_settling(case, intents[-1], within)
                await case.remote.settle(intents[-1])
                assert state(case) in (scenario.before, scenario.after), f"cuts {nth}, {within}"
            if not cut:
                break

    run(body)


@pytest.mark.parametrize("name", ["replace", "put", "put-equal", "remove", "rename-over"])
def test_without_the_staged_entry_nothing_is_lost(run, name):
    """The caller may not have stored what ``stage`` answered before it was cut itself."""
    scenario = SCENARIOS[name]

    async def body(case: Case) -> None:
        for nth in range(1, MOST_POINTS):
            reset(case, scenario.before)
            cut, intents = await cut_run(case, scenario, nth)
            if not cut:
                break
            bare = intents[-1]
            await case.remote.settle(
                Intent(bare.op, bare.path, bare.expected, bare.other_path, bare.other_expected)
            )
            found = state(case)
            assert not any(n.startswith(b".awayfs-") for n in found), (nth, found)
            assert found.get(b"f", found.get(b"g")) is not None or name == "remove"

    run(body)


@pytest.mark.parametrize("name", ["replace", "put", "put-equal", "remove", "rename-over"])
def test_a_stranger_who_comes_after_the_cut_is_kept(run, name):
    """Between cut and settle, another client saves the target: both revisions stay."""
    scenario = SCENARIOS[name]
    target = b"g" if name == "rename-over" else b"f"

    async def body(case: Case) -> None:
        for nth in range(1, MOST_POINTS):
            reset(case, scenario.before)
            cut, intents = await cut_run(case, scenario, nth)
            if not cut:
                break
            case.write(target, b"stranger")
            await case.remote.settle(intents[-1])
            found = state(case)
            assert found[target] == b"stranger", f"cut {nth}"
            assert not any(n.startswith(b".awayfs-") for n in found), (nth, found)
            if name == "rename-over":
                assert b"new" in found.values() or found[target] == b"stranger"
            await case.remote.settle(intents[-1])
            assert state(case) == found

    run(body)


@pytest.mark.parametrize("name", ["replace", "put", "put-equal", "remove", "rename-over"])
def test_a_lost_answer_is_settled_as_done(run, name):
    """The operation went through and only the answer is missing."""
    scenario = SCENARIOS[name]

    async def body(case: Case) -> None:
        reset(case, scenario.before)
        intents: list[Intent] = []
        assert isinstance(await scenario.act(case, "op1", intents), Committed)
        await case.remote.settle(intents[-1])
        assert state(case) == scenario.after

    run(body)


def test_settle_of_something_that_never_began(run):
    async def body(case: Case) -> None:
        case.write(b"f", b"x")
        expected = await case.expected(b"f")
        await case.remote.settle(Intent("op1", b"f", expected))
        await case.remote.settle(Intent("op1", b"gone/f", ABSENT))
        await case.remote.settle(Intent("op1", b"f", expected, b"gone/g", ABSENT))
        assert state(case) == {b"f": b"x"}
        with pytest.raises(NotFound):
            await case.remote.stat(b"g")

    run(body)


def test_settle_leaves_other_operations_alone(run):
    async def body(case: Case) -> None:
        await case.stage("op1", b"one")
        await case.stage("op2", b"two")
        await case.remote.settle(Intent("op1", b"f", Expected(None)))
        assert state(case) == {b".awayfs-op2.new": b"two"}

    run(body)

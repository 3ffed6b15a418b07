"""An exchange where the server has no such step: taken aside, then given to each other's names.

As in ``test_remote_settle`` it is cut at every point there is. What the caller has on record
(``Crossing``) says to which of two ends ``settle`` brings it, and names are all that it goes by:
the two files have one size and one time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable

import pytest
from case import Case

from awayfs.core.errors import Refused, Unreachable
from awayfs.core.types import Committed, Expected, Mismatch
from awayfs.ports.remote import Crossing, Intent
from awayfs.remotes.faults import Cut
from awayfs.remotes.names import FENCE_SUFFIX

MOST_POINTS = 40
A, B = b"one", b"two"
TIME = (1_600_000_000, 1_600_000_000)
Tree = dict[bytes, bytes]

PAIRS: dict[str, tuple[bytes, bytes]] = {
    "files": (b"f", b"g"),
    "files of two directories": (b"d/f", b"e/f"),
    "directories": (b"f/", b"g/"),
    "directories of two directories": (b"d/f/", b"e/g/"),
    "a file and a directory": (b"d/f", b"g/"),
    "a directory and a symlink": (b"f/", b"d/g@"),
}


def put(case: Case, path: bytes, data: bytes) -> bytes:
    """What ``PAIRS`` names: a directory, a symlink, or a file; its path."""
    bare = path.rstrip(b"/@")
    os.makedirs(os.path.dirname(case.at(bare)), exist_ok=True)
    if path.endswith(b"/"):
        os.mkdir(case.at(bare))
        case.write(bare + b"/in", data)
        os.utime(case.at(bare + b"/in"), TIME)
    elif path.endswith(b"@"):
        os.symlink(data, case.at(bare))
    else:
        case.write(bare, data)
        os.utime(case.at(bare), TIME)
    return bare


def tree(case: Case) -> Tree:
    """Every file and symlink, and every name that an operation uses; no fence."""
    found: Tree = {}
    for folder, folders, files in os.walk(case.root):
        for name in (*folders, *files):
            if name.endswith(FENCE_SUFFIX):
                continue
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, case.root)
            if os.path.islink(path):
                found[shown] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[shown] = file.read()
            elif name.startswith(b".awayfs"):
                found[shown] = b"<directory>"
    return found


def emptied(case: Case) -> None:
    for name in case.names():
        path = case.at(name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def swapped(before: Tree, a: bytes, b: bytes) -> Tree:
    def there(path: bytes) -> bytes:
        for one, other in ((a, b), (b, a)):
            if path == one or path.startswith(one + b"/"):
                return other + path[len(one) :]
        return path

    return {there(path): data for path, data in before.items()}


async def intent_for(case: Case, op: str, a: bytes, b: bytes) -> Intent:
    """What is on record before anything moves."""
    of_a, of_b = [await case.expected(path, content=False) for path in (a, b)]
    return Intent(op, b, of_b, a, of_a, crossing=Crossing.BACK)


def over(intent: Intent) -> Intent:
    return Intent(
        intent.op,
        intent.path,
        intent.expected,
        intent.other_path,
        intent.other_expected,
        crossing=Crossing.OVER,
    )


async def take_aside(case: Case, intent: Intent) -> Committed | Mismatch:
    a, of_a = intent.other_path, intent.other_expected
    assert a is not None and of_a is not None
    return await case.remote.exchange(intent.op, a, intent.path, of_a, intent.expected)


async def is_cut(case: Case, nth: int, act: Callable[[], Awaitable[object]]) -> bool:
    case.cut_at(nth)
    try:
        await case.remote.connect()
        await act()
        return False
    except (Cut, Unreachable):
        return True
    finally:
        case.cut_at(0)
        await case.remote.connect()


def in_steps(case: Case) -> None:
    if case.connected.capabilities.exchange:
        pytest.skip("the server exchanges in one step")


@pytest.mark.parametrize("pair", PAIRS)
def test_cut_before_the_note_goes_back_and_after_it_goes_on(run, pair):
    async def body(case: Case) -> None:
        in_steps(case)
        for half in Crossing.BACK, Crossing.OVER:
            for nth in range(1, MOST_POINTS):
                emptied(case)
                a, b = (put(case, p, d) for p, d in zip(PAIRS[pair], (A, B), strict=True))
                before = tree(case)
                intent = await intent_for(case, f"op{nth}", a, b)
                if half is Crossing.BACK:
                    cut = await is_cut(case, nth, lambda: take_aside(case, intent))  # noqa: B023
                    end = before
                else:
                    assert isinstance(await take_aside(case, intent), Committed)
                    intent = over(intent)
                    cut = await is_cut(case, nth, lambda: case.remote.settle(intent))  # noqa: B023
                    end = swapped(before, a, b)
                await case.remote.settle(intent)
                assert tree(case) == end, (half, nth)
                await case.remote.settle(intent)
                assert tree(case) == end, (half, nth)
                if not cut:
                    break
            else:
                pytest.fail("it never got through")
            assert nth > 1, "there are no points to cut at"

    run(body)


@pytest.mark.parametrize("half", [Crossing.BACK, Crossing.OVER])
@pytest.mark.parametrize("name", [b"f", b"g"])
def test_a_stranger_who_takes_a_name_meanwhile_keeps_it(run, half, name):
    async def body(case: Case) -> None:
        in_steps(case)
        put(case, b"f", A), put(case, b"g", B)
        intent = await intent_for(case, "op1", b"f", b"g")
        assert isinstance(await take_aside(case, intent), Committed)
        assert len(case.names()) == 2 and not case.names() & {b"f", b"g"}
        case.write(name, b"stranger's")
        await case.remote.settle(intent if half is Crossing.BACK else over(intent))
        found = tree(case)
        assert found[name] == b"stranger's"
        assert sorted(found.values()) == sorted([A, B, b"stranger's"])
        other = b"g" if name == b"f" else b"f"
        is_back = half is Crossing.BACK
        assert found[other] == (B if other == b"g" else A) if is_back else (A, B)[other == b"f"]
        assert not [shown for shown in found if shown.startswith(b".awayfs")]

    run(body)


@pytest.mark.parametrize("name", [b"f", b"g"])
def test_what_differs_stops_it_and_nothing_has_moved(run, name):
    async def body(case: Case) -> None:
        in_steps(case)
        put(case, b"f", A), put(case, b"g", B)
        intent = await intent_for(case, "op1", b"f", b"g")
        os.unlink(case.at(name))
        assert await take_aside(case, intent) == Mismatch(None)
        os.mkdir(case.at(name))
        outcome = await take_aside(case, intent)
        assert isinstance(outcome, Mismatch) and outcome.current is not None
        assert case.names() == {b"f", b"g"}

    run(body)


def test_a_directory_and_what_is_in_it_cannot_be_exchanged(run):
    async def body(case: Case) -> None:
        in_steps(case)
        put(case, b"d/f", A)
        for pair in (b"d", b"d/f"), (b"d/f", b"d"):
            intent = await intent_for(case, "op1", *pair)
            with pytest.raises(Refused):
                await take_aside(case, intent)
            await case.remote.settle(intent)
            assert tree(case) == {b"d/f": A}

    run(body)


def test_where_the_directory_is_gone_it_gets_a_name_where_it_lies(run):
    async def body(case: Case) -> None:
        in_steps(case)
        put(case, b"d/f", A), put(case, b"g", B)
        intent = await intent_for(case, "op1", b"d/f", b"g")
        assert isinstance(await take_aside(case, intent), Committed)
        os.rename(case.at(b"d"), case.at(b"elsewhere"))
        await case.remote.settle(intent)
        found = tree(case)
        (recovered,) = [n for n in found if found[n] == A]
        assert b"/" not in recovered and not recovered.startswith(b".awayfs")
        (left,) = [n for n in found if found[n] == B]  # for the listing of that directory to find
        assert left == b"elsewhere/.awayfs-op1.new"

    run(body)


def test_settle_leaves_what_is_no_exchange_alone(run):
    async def body(case: Case) -> None:
        case.write(b"f", A)
        for crossing in Crossing.BACK, Crossing.OVER:
            nothing = Expected(None)
            await case.remote.settle(
                Intent("op1", b"gone/g", nothing, b"f", nothing, crossing=crossing)
            )
        assert tree(case) == {b"f": A}

    run(body)


def test_what_an_earlier_try_took_aside_is_not_overwritten(run):
    """It may be the only name of a file, and it is settled first."""

    async def body(case: Case) -> None:
        in_steps(case)
        a, b = put(case, b"d/f", b"A"), put(case, b"g", b"B")
        op = "op1"
        assert isinstance(await take_aside(case, await intent_for(case, op, a, b)), Committed)
        put(case, a, b"a stranger's")
        put(case, b, b"another's")
        before = tree(case)
        with pytest.raises(Refused):
            await take_aside(case, await intent_for(case, op, a, b))
        assert tree(case) == before
        assert {b"A", b"B", b"a stranger's", b"another's"} <= set(before.values())

    run(body)

"""A node that was renamed on both sides, where its name on the server was another's.

Directories changed places there, or one took the name of another that was moved or removed, or
something was made here under that name meanwhile. Whatever is decided ends the conflict, nothing
is lost, and once more changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.test_volume_review import World, played
from tests.unit.test_volume_rings import WAYS, in_step, look, there, tree

from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import Unreachable, UsageError
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.store.fsck import check

Move = tuple[str, str]
"""An old and a new path; "" makes a directory, or removes one, and "new" makes a file."""

CHANGED_PLACES = [("a", "t"), ("b", "a"), ("t", "b")]
IN_A_RING = [("a", "t"), ("b", "a"), ("c", "b"), ("t", "c")]
CASES: dict[str, tuple[Sequence[Move], Sequence[Move]]] = {
    "changed places": ([("a", "x"), ("b", "y")], CHANGED_PLACES),
    "changed places, one renamed here": ([("a", "x")], CHANGED_PLACES),
    "a ring": ([("a", "x"), ("b", "y"), ("c", "z")], IN_A_RING),
    "a ring the other way": ([("c", "x"), ("b", "y"), ("a", "z")], IN_A_RING),
    "a ring, two renamed here": ([("a", "x"), ("b", "y")], IN_A_RING),
    "a chain": (
        [("a", "x"), ("b", "y"), ("c", "z")],
        [("c", "w"), ("b", "c"), ("a", "b")],
    ),
    "what was there is moved away": ([("a", "x"), ("b", "p/b")], [("b", "c/z"), ("a", "b")]),
    "what was there is removed": ([("a", "x"), ("p", "c/p")], [("p", ""), ("a", "p")]),
    "what was there is in it": (
        [("a", "x"), ("b", "y")],
        [("b", "t"), ("a", "b"), ("t", "b/t")],
    ),
    "another has the name here": (
        [("a", "x"), ("b", "y"), ("c", "b")],
        [("b", "z"), ("a", "b")],
    ),
    "into a directory made here": (
        [("", "x"), ("a", "x/a"), ("b", "x/b")],
        CHANGED_PLACES,
    ),
    "made here where it went": ([("a", "p/x"), ("", "y")], [("a", "y")]),
    "made here before": ([("", "y"), ("a", "p/x")], [("a", "y")]),
    "made here and worked in": ([("a", "p/x"), ("", "y"), ("new", "y/new")], [("a", "y")]),
    "moved into what was made here": ([("", "y"), ("a", "y/a")], [("a", "y")]),
    "what it goes into is made where it went": (
        [("", "b/x"), ("a", "b/x/y"), ("", "y"), ("b", "y/b")],
        [("a", "y")],
    ),
    "another of its name there": ([("a", "x")], [("a", "y"), ("", "a")]),
}


def start(share: Path) -> None:
    for name in "abc":
        (share / name).mkdir(parents=True)
        (share / name / f"in-{name}").write_text(f"content of {name}")
    (share / "p").mkdir()


def place(world: World, path: str) -> tuple[NodeId, bytes]:
    *above, name = os.fsencode(path).split(b"/")
    directory = ROOT
    for part in above:
        found = world.store.nodes.child_id(directory, part)
        assert found is not None
        directory = found
    return directory, name


def move_here(world: World, moves: Sequence[Move]) -> None:
    changes, owner = world.volume.changes, (os.getuid(), os.getgid())
    for old, new in moves:
        if old == "":
            changes.create(*place(world, new), Kind.DIRECTORY, 0o755, *owner)
        elif old == "new":
            made = changes.create(*place(world, new), Kind.FILE, 0o644, *owner)
            world.write(made, 0, b"content of new")
        else:
            changes.rename(*place(world, old), *place(world, new), 0)


def move_there(share: Path, moves: Sequence[Move]) -> None:
    for old, new in moves:
        if not old:
            (share / new).mkdir()
        elif not new:
            (share / old).rmdir()
        else:
            os.rename(share / old, share / new)


async def known(world: World) -> None:
    """All of the share is seen, and its content is here."""
    await look(world)
    for path in list(world.share.rglob("*")):
        if path.is_file():
            await world.cached(str(path.relative_to(world.share)))


async def keep(world: World, number: int, way: str) -> None:
    """Decide; where the conflict is to be found anew, replay does that meanwhile."""
    deciding = asyncio.create_task(world.volume.deciding.keep(number, way))
    while not (await asyncio.wait([deciding], timeout=0.2))[0]:
        await world.drained()
    await deciding


async def ended(world: World, way: str, rounds: int = 4) -> None:
    """All is decided one way, as often as something is found that is to be decided."""
    for _ in range(rounds):
        for conflict in world.store.conflicts.all():
            if world.store.conflicts.get(conflict.id) is not None:
                with suppress(UsageError):  # that tells to decide anew
                    await keep(world, conflict.id, way)
        await world.drained()
        await look(world)
    await world.drained()
    assert not world.store.conflicts.all()


def contents(share: Path) -> list[str]:
    return sorted(path.read_text() for path in share.rglob("*") if path.is_file())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_a_decision_ends_the_conflict(case: str, way: str, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        start(world.share)
        await known(world)
        here, on_server = CASES[case]
        move_here(world, here)
        move_there(world.share, on_server)
        await look(world)
        await world.drained()
        assert world.store.conflicts.all()
        await ended(world, way)
        await in_step(world)
        made = ["content of new"] if way != "server" and ("new", "y/new") in here else []
        assert [text for text in contents(world.share) if text != "content of new"] == [
            f"content of {name}" for name in "abc"
        ]
        assert set(made) <= set(contents(world.share))

    played(tmp_path, play)


def test_ours_is_as_it_was_meant_whatever_had_the_names_there(tmp_path: Path) -> None:
    async def play(world: World) -> None:
        start(world.share)
        await known(world)
        move_here(world, [("a", "x"), ("b", "y"), ("c", "z")])
        move_there(world.share, IN_A_RING)
        await look(world)
        await world.drained()
        await ended(world, "local")
        assert there(world) == {"p", "x", "x/in-a", "y", "y/in-b", "z", "z/in-c"}

    played(tmp_path, play)


async def one_of_two(world: World) -> Conflict:
    """The conflict about one of two that changed places; the other one's was not found yet."""
    start(world.share)
    await known(world)
    move_here(world, [("a", "x"), ("b", "y")])
    move_there(world.share, CHANGED_PLACES)
    await look(world)
    await world.volume.replay.steps.one(world.store.journal.all()[0].seq)
    (first,) = world.store.conflicts.all()
    assert check(world.store) == []
    return first


def test_a_decision_about_one_decides_nothing_about_the_other(tmp_path: Path) -> None:
    """The other one was known where the first is found, and has no conflict of its own yet."""

    async def play(world: World) -> None:
        first = await one_of_two(world)
        await keep(world, first.id, "local")
        await world.drained()
        (second,) = world.store.conflicts.all()
        assert (second.kind, second.name) == (ConflictKind.RENAME_RENAME, b"y")
        assert {"x/in-a", "a/in-b"} <= there(world), "the server's rename was overwritten unasked"
        await ended(world, "server")
        await in_step(world)

    played(tmp_path, play)


@pytest.mark.parametrize("remounted", [False, True])
def test_one_that_lost_its_name_to_another_is_found_again(remounted: bool, tmp_path: Path) -> None:
    async def play(world: World) -> None:
        first = await one_of_two(world)
        await keep(world, first.id, "local")
        if remounted:
            world.die()
            world.open()
            await world.online()
        await world.drained()
        (second,) = world.store.conflicts.all()
        assert second.kind == ConflictKind.RENAME_RENAME
        await ended(world, "local")
        await in_step(world)
        assert {"x/in-a", "y/in-b"} <= there(world)

    played(tmp_path, play)


def test_what_is_made_here_where_another_went_is_not_taken_for_it(tmp_path: Path) -> None:
    """Else two nodes here would be one object on the server."""

    async def play(world: World) -> None:
        start(world.share)
        await known(world)
        move_here(world, [("a", "p/x"), ("", "y")])
        move_there(world.share, [("a", "y")])
        await world.drained()
        kinds = {conflict.kind for conflict in world.store.conflicts.all()}
        assert kinds == {ConflictKind.RENAME_RENAME, ConflictKind.NAME_NAME}
        ids = [world.store.server.get(node) for node in range(1, 30)]
        known_ids = [one.file_id for one in ids if one is not None]
        assert len(known_ids) == len(set(known_ids))

    played(tmp_path, play)


@pytest.mark.parametrize("way", WAYS)
def test_two_nodes_that_were_taken_for_one_are_two_again(way: str, tmp_path: Path) -> None:
    """States of before that was told apart may have them."""

    async def play(world: World) -> None:
        start(world.share)
        await known(world)
        move_here(world, [("a", "p/x"), ("", "y"), ("new", "y/new")])
        move_there(world.share, [("a", "y")])
        await look(world)
        made, store = world.store.nodes.child_id(ROOT, b"y"), world.store
        assert made is not None
        with store.transaction():
            creation = store.journal.of_node(made)[0]
            store.journal.remove([creation.seq])
            store.server.set(made, await world.volume.link.remote.stat(b"y"), seen_ns=0)
            store.server.add_name(ROOT, b"y", made)
        await world.drained()
        await ended(world, way)
        await in_step(world)
        assert {"content of a", "content of new"} <= set(contents(world.share))

    played(tmp_path, play)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize(
    ("here", "on_server"),
    [
        ([("a", "x")], [("a", "y")]),
        ([("a", "x")], [("a", "y"), ("", "a")]),
        ([("a", "x"), ("b", "w")], CHANGED_PLACES),
        ([("b", "w"), ("a", "x")], CHANGED_PLACES),
    ],
)
def test_what_is_made_in_it_meanwhile_is_where_it_is(
    here: Sequence[Move], on_server: Sequence[Move], seen: bool, way: str, tmp_path: Path
) -> None:
    async def play(world: World) -> None:
        start(world.share)
        await known(world)
        move_here(world, [*here, ("new", "x/new")])
        move_there(world.share, on_server)
        if seen:
            await look(world)
        await world.drained()
        there_now = "b" if on_server == CHANGED_PLACES else "y"
        assert {f"{there_now}/in-a", f"{there_now}/new"} <= there(world)
        await ended(world, way)
        await in_step(world)
        end = "x" if way == "local" else there_now
        assert {f"{end}/in-a", f"{end}/new"} <= there(world)

    played(tmp_path, play)


DEATHS = [("a ring", "local", point) for point in ("resolve.found", "resolve.decided")]
DEATHS += [("a ring", "local", point) for point in ("replay.acted", "replay.committed")]
DEATHS += [("a ring", "server", point) for point in ("resolve.found", "resolve.decided")]
INTO_MADE = "moved into what was made here"
DEATHS += [(INTO_MADE, "local", f"resolve.{at}") for at in ("moving", "moved", "decided")]
DEATHS += [(INTO_MADE, "both", point) for point in ("resolve.decided", "replay.acted")]
DEATHS += [(INTO_MADE, "server", "resolve.decided")]


@pytest.mark.parametrize(("case", "way", "point"), DEATHS)
def test_a_daemon_that_dies_over_it_leaves_it_to_the_next(
    case: str, way: str, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(world: World) -> None:
        start(world.share)
        await known(world)
        here, on_server = CASES[case]
        move_here(world, here)
        move_there(world.share, on_server)
        await look(world)
        await world.drained()
        left = world.state + ".killed"

        async def gone(*_: object) -> None:
            raise Unreachable("killed")

        def killed(name: str) -> None:
            """What is on disk now is what the next one finds, and nothing more is sent."""
            if name == point and not os.path.exists(left):
                shutil.copytree(world.state, left)
                monkeypatch.setattr(world.volume.link, "call", gone)
                raise Unreachable("killed")

        for module in (
            "resolve",
            "resolve_moved",
            "resolve_strangers",
            "replay_steps",
            "replay_commit",
        ):
            monkeypatch.setattr(f"awayfs.volume.{module}.fault", killed)
        try:
            await ended(world, way)
        except Unreachable:
            pass
        monkeypatch.undo()
        world.die()
        world.state = left
        world.open()
        await world.online()
        assert tree(world) and check(world.store) == []
        await world.drained()
        await ended(world, way)
        await in_step(world)
        assert contents(world.share) == [f"content of {name}" for name in "abc"]

    played(tmp_path, play)

"""What the model found, as the scripts that it shrank the failures to."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterator

import pytest
from tests.model.limits import bounded_time
from tests.model.remote import Refusal
from tests.model.script import Step, play
from tests.model.world import World

from awayfs.core.conflicts import Resolution
from awayfs.core.types import NodeId

SETTLED_S = 0.03
"""After so long, a token of a local file system is strong."""


@pytest.fixture
def world() -> Iterator[World]:
    """Directories ``d`` and ``e``; files ``a``, ``b``, ``d/a``, ``d/b`` and ``e/a``."""
    world = World()
    for path in ("d", "e", "d/e"):
        world.serve(("mkdir", path))
    for path in ("a", "b", "d/a", "d/b", "e/a", "d/e/a"):
        world.serve(("write", path, "create"))
    try:
        yield world
    finally:
        world.close()


def offline(world: World, who: str, *ops: tuple[object, ...]) -> None:
    """A client works offline."""
    world.client(who).go_offline()
    for op in ops:
        world.act(who, op)
    assert not [line for line in world.log if line.count(": ") > 1], world.log


@pytest.mark.parametrize("decisions", range(3))
def test_what_a_file_displaced_before_it_was_removed_goes_too(world: World, decisions: int) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("rename", "d/a", "a"), ("unlink", "a"))
    world.serve(("unlink", "d/a"))
    world.converge()


@pytest.mark.parametrize("decisions", range(3))
@pytest.mark.parametrize("gone", ["a", "b", "ab"])
def test_an_exchange_of_what_is_gone_on_the_server_can_be_decided(
    world: World, gone: str, decisions: int
) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("exchange", "a", "b"))
    for name in gone:
        world.serve(("unlink", name))
    world.converge()


@pytest.mark.parametrize("decisions", range(3))
def test_an_exchange_of_a_directory_with_a_file_that_is_gone(world: World, decisions: int) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("exchange", "e", "a"), ("write", "a/a", "append"))
    world.serve(("unlink", "a"))
    world.converge()


@pytest.mark.parametrize("decisions", range(3))
def test_a_rename_of_what_is_gone_to_a_name_that_is_taken(world: World, decisions: int) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("rename", "a", "d/c"))
    world.serve(("unlink", "a"))
    world.serve(("write", "d/c", "create"))
    world.converge()


@pytest.mark.parametrize("path", ["b", "e"])
def test_what_is_removed_here_and_of_another_kind_there_is_the_servers(
    world: World, path: str
) -> None:
    offline(world, "a", ("unlink", path) if path == "b" else ("remove", path))
    world.serve(("retype", path))
    world.do(world.client("a"), "a: sync", world.client("a").sync())
    world.check_no_conflict()
    world.converge()


@pytest.mark.parametrize("gone", [("unlink", "e/b"), ("remove", "e"), ("retype", "e")])
def test_a_name_that_went_on_the_server_is_not_linked_again(
    world: World, gone: tuple[str, str]
) -> None:
    world.serve(("unlink", "e/a"))
    world.serve(("link", "a", "e/b"))
    offline(world, "a", ("write", "a", "new"))
    world.serve(gone)
    world.do(world.client("a"), "a: sync", world.client("a").sync())
    world.check_no_conflict()
    world.converge()
    assert not (world.share.root / "e/b").exists()


def test_a_name_is_not_missing_because_its_file_was_found_elsewhere(world: World) -> None:
    client = world.client("a")
    world.serve(("exchange", "e/a", "d/a"))
    world.do(client, "a: sync", client.sync())
    assert {"d/a", "e/a"} <= client.tree().keys()
    world.converge()


def test_what_comes_under_a_name_that_was_removed_here_stops_no_listing(world: World) -> None:
    world.serve(("remove", "d/e"))
    offline(world, "a", ("rename", "e/a", "d/a"), ("rmdir", "e"))
    world.serve(("exchange", "e", "d/b"))
    client = world.client("a")
    assert world.do(client, "a: sync", client.sync()), world.log
    world.converge()


@pytest.mark.parametrize("decisions", range(3))
def test_a_saved_file_that_was_exchanged_since_can_be_decided(world: World, decisions: int) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("save", "d/a", "over"), ("exchange", "a", "d/a"))
    world.serve(("exchange", "e/a", "d/a"))
    world.converge()


@pytest.mark.parametrize("decisions", range(3))
@pytest.mark.parametrize("later", [("rename", "a", "e/c"), ("unlink", "a")])
def test_a_saved_file_that_was_moved_or_removed_since_can_be_decided(
    world: World, later: tuple[str, ...], decisions: int
) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("rename", "b", "a"), later)
    world.serve(("write", "a", "append"))
    world.converge()


@pytest.mark.parametrize("decisions", range(3))
@pytest.mark.parametrize("more", [(), (("rename", "d/a", "b"),)])
def test_a_decision_about_a_content_leaves_a_later_exchange(
    world: World, more: tuple[tuple[str, ...], ...], decisions: int
) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("write", "b", "new"))
    world.serve(("write", "b", "append"))
    client = world.client("a")
    world.do(client, "a: sync", client.sync())
    offline(world, "a", ("exchange", "b", "d/a"), *more)
    world.converge()


def test_a_directory_that_went_with_what_came_from_it_leaves_nothing(world: World) -> None:
    world.client("b")
    world.serve(("unlink", "a"))
    world.serve(("link", "d/b", "a"))
    world.serve(("remove", "d"))
    world.converge()


def test_an_edit_of_what_both_renamed_alike_is_not_overwritten(world: World) -> None:
    offline(world, "a", ("rename", "b", "e/c"), ("write", "e/c", "new"))
    world.serve(("rename", "b", "e/c"))
    world.serve(("write", "e/c", "append"))
    time.sleep(SETTLED_S)
    client = world.client("a")
    world.do(client, "a: sync", client.sync())
    assert [c.kind for c in client.store.conflicts.all()] == ["update/update"]
    world.converge()


def test_a_ring_of_renames_of_which_one_is_not_taken_over_stops_no_listing(world: World) -> None:
    offline(world, "a", ("rename", "d/b", "e/c"), ("rename", "e/c", "d/b"))
    world.serve(("exchange", "d/a", "d/b"))
    client = world.client("a")
    world.do(client, "a: online", client.go_online())
    assert world.do(client, "a: look", client.look()), world.log
    world.converge()


@pytest.mark.parametrize("decisions", range(3))
def test_what_changed_places_there_and_was_renamed_here_is_not_listed_for_ever(
    world: World, decisions: int
) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("rename", "d/b", "d/c"), ("rename", "e", "f"))
    world.serve(("exchange", "e", "d/b"))
    client = world.client("a")
    with bounded_time(10):
        world.do(client, "a: sync", client.sync())
    world.converge()


def test_a_decision_that_came_too_late_does_not_wait_for_what_waits_for_it(world: World) -> None:
    client = world.client("a")
    offline(world, "a", ("write", "a", "append"))
    world.serve(("write", "a", "append"))
    world.do(client, "a: sync", client.sync())
    offline(world, "a", ("rename", "a", "d/c"))
    world.serve(("write", "a", "new"))
    world.do(client, "a: sync", client.sync())
    [conflict] = client.store.conflicts.all()
    with bounded_time(10):
        assert not world.do(client, "a: decide", client.resolve(conflict, Resolution.LOCAL))
    assert client.store.conflicts.all() != [conflict]
    world.converge()


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("gone", [("unlink", "a"), ("retype", "a")])
@pytest.mark.parametrize(
    "later",
    [("rename", "a", "d/c"), ("rename", "a", "b"), ("exchange", "a", "b"), ("exchange", "b", "a")],
)
def test_what_is_made_anew_goes_where_it_was_moved_since(
    world: World, later: tuple[str, ...], gone: tuple[str, str], keep: Resolution
) -> None:
    _moved_while_in_conflict(world, ("write", "a", "append"), gone, later, keep)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("gone", [("remove", "d"), ("retype", "d")])
@pytest.mark.parametrize(
    "later",
    [("rename", "d", "f"), ("exchange", "d", "e"), ("exchange", "e", "d"), ("exchange", "b", "d")],
)
def test_a_directory_that_is_made_anew_goes_where_it_was_moved_since(
    world: World, later: tuple[str, ...], gone: tuple[str, str], keep: Resolution
) -> None:
    _moved_while_in_conflict(world, ("chmod", "d", 0o600), gone, later, keep)


def _moved_while_in_conflict(
    world: World,
    change: tuple[object, ...],
    gone: tuple[str, str],
    later: tuple[str, ...],
    keep: Resolution,
) -> None:
    client = world.client("a")
    offline(world, "a", change)
    world.serve(gone)
    world.do(client, "a: sync", client.sync())
    offline(world, "a", later)
    world.do(client, "a: sync", client.sync())
    [conflict] = client.store.conflicts.all()
    assert world.do(client, "a: decide", client.resolve(conflict, keep)), world.log
    world.converge()


@pytest.mark.parametrize("move", [("rename", "d", "f"), ("exchange", "d", "e")])
def test_an_edit_in_a_directory_whose_move_was_cut_off_meets_no_removal(
    world: World, move: tuple[str, ...]
) -> None:
    """The edit is the earlier record, and waited while the file was being written."""
    client = world.client("a")
    offline(world, "a", ("hold", "d/a"), ("scribble",), move)

    async def send() -> None:
        await client.go_online()
        await client.volume.replay._drain()

    client.arm("replay.acted", 1)
    world.do(client, "a: send", send())
    assert client.deaths == 1
    world.do(client, "a: sync", client.sync())
    assert not client.store.conflicts.count(), client.store.conflicts.all()
    world.converge()


@pytest.mark.parametrize("calls", range(8, 17))
@pytest.mark.parametrize("last", [("unlink", "a"), ("write", "a", "new"), ("rename", "a", "b")])
def test_a_time_that_was_set_during_a_cut_off_upload_is_nobody_elses_edit(
    world: World, calls: int, last: tuple[str, ...]
) -> None:
    client = world.client("a")
    offline(world, "a", ("write", "a", "append"))
    client.way.cut = (calls, "after")
    world.do(client, "a: sync", client.sync())
    client.way.cut = None
    client.go_offline()
    world.act("a", ("utime", "a"))
    world.act("a", last)
    world.do(client, "a: sync", client.sync())
    assert not client.store.conflicts.count(), client.store.conflicts.all()


@pytest.mark.parametrize("keep", [Resolution.LOCAL, Resolution.SERVER])
@pytest.mark.parametrize(
    ("there", "later"),
    [
        (("unlink", "a"), ("rename", "d/a", "a")),
        (("unlink", "a"), ("write", "b", "new")),
        (("unlink", "a"), ("rename", "b", "a")),
        (("unlink", "b"), ("rename", "b", "d/c")),
        (("rename", "b", "x"), ("exchange", "a", "b")),
        (("rename", "a", "b"), ("unlink", "b")),
        (("rename", "a", "b"), ("rename", "b", "a")),
    ],
)
def test_what_is_done_with_an_exchange_in_conflict_goes_on_from_the_decision(
    world: World, there: tuple[str, ...], later: tuple[str, ...], keep: Resolution
) -> None:
    _worked_on_while_in_conflict(world, ("exchange", "a", "b"), there, [later], keep)


@pytest.mark.parametrize("keep", [Resolution.LOCAL, Resolution.SERVER])
@pytest.mark.parametrize(
    "later",
    [
        [("write", "a/new", "create"), ("mkdir", "a/dir"), ("write", "a/dir/x", "create")],
        [("rename", "a", "f"), ("rename", "d/a", "f/b"), ("rename", "f", "d/f")],
    ],
)
def test_what_is_made_in_an_exchanged_directory_that_is_gone_there_comes_along(
    world: World, later: list[tuple[str, ...]], keep: Resolution
) -> None:
    _worked_on_while_in_conflict(world, ("exchange", "a", "e"), ("remove", "e"), later, keep)


@pytest.mark.parametrize("keep", list(Resolution))
@pytest.mark.parametrize("change", [("chmod", "e", 0o600), ("rename", "e", "f")])
def test_what_is_moved_into_a_directory_that_is_gone_there_comes_along(
    world: World, change: tuple[object, ...], keep: Resolution
) -> None:
    at = change[2] if change[0] == "rename" else "e"
    later = [("rename", at, "g"), ("write", "g/new", "create"), ("rename", "d/a", "g/b")]
    _worked_on_while_in_conflict(
        world, change, ("remove", "e"), [*later, ("rename", "g", "d/g")], keep
    )


def _worked_on_while_in_conflict(
    world: World,
    change: tuple[object, ...],
    there: tuple[str, ...],
    later: list[tuple[object, ...]],
    keep: Resolution,
) -> None:
    client = world.client("a")
    offline(world, "a", change)
    world.serve(there)
    world.do(client, "a: sync", client.sync())
    offline(world, "a", *later)
    world.do(client, "a: sync", client.sync())
    for conflict in client.store.conflicts.all():
        world.do(client, "a: decide", client.resolve(conflict, keep))
    world.converge()


@pytest.mark.parametrize("keep", list(Resolution))
def test_a_conflict_copy_is_shown_though_something_was_renamed_over_it_since(
    world: World, keep: Resolution
) -> None:
    change, there = ("rename", "d/a", "d/b"), ("write", "d/b", "new")
    _worked_on_while_in_conflict(world, change, there, [("rename", "a", "d/b")], keep)


@pytest.mark.parametrize("decisions", range(3))
@pytest.mark.parametrize(
    "change",
    [("save", "b", "backup"), ("write", "b", "new"), ("unlink", "b"), ("chmod", "b", 0o600)],
)
def test_a_link_to_another_file_in_the_place_of_ours_is_that_other_file(
    world: World, change: tuple[object, ...], decisions: int
) -> None:
    world.rng.seed(decisions)
    offline(world, "a", change)
    world.serve(("unlink", "b"))
    world.serve(("link", "d/b", "b"))
    client = world.client("a")
    world.do(client, "a: sync", client.sync())
    world.converge()


def test_a_directory_made_on_both_sides_has_the_rights_that_it_has_there(world: World) -> None:
    offline(world, "a", ("mkdir", "f"))
    world.serve(("mkdir", "f"))
    world.serve(("chmod", "f", 0o600))
    client = world.client("a")
    world.do(client, "a: sync", client.sync())
    world.check_no_conflict()


@pytest.mark.parametrize("decisions", range(3))
def test_a_directory_that_lost_its_name_to_one_made_anew_is_found_again(
    world: World, decisions: int
) -> None:
    world.rng.seed(decisions)
    for path in ("d/e/a", "e/a"):
        world.serve(("unlink", path))
    offline(world, "a", ("rename", "e", "d/e"))
    world.serve(("rename", "d/e", "e"))
    client = world.client("a")
    world.do(client, "a: sync", client.sync())
    world.converge()


@pytest.mark.parametrize("keep", list(Resolution))
def test_a_file_is_made_anew_under_a_name_that_it_keeps(world: World, keep: Resolution) -> None:
    change, later = ("link", "d/a", "e/c"), [("retype", "d/a")]
    _worked_on_while_in_conflict(world, change, ("retype", "d"), later, keep)


def test_each_name_of_a_file_is_taken_over_though_the_file_was_just_seen(world: World) -> None:
    client = world.client("a")
    world.serve(("link", "e/a", "c"))
    world.serve(("exchange", "d/e", "e/a"))
    world.do(client, "a: sync", client.sync())
    world.check_no_conflict()


@pytest.mark.parametrize("decisions", range(6))
def test_a_rename_that_is_given_up_brings_no_name_back_that_is_gone(
    world: World, decisions: int
) -> None:
    world.rng.seed(decisions)
    client = world.client("a")
    for there in (("retype", "d/b"), ("remove", "d")):
        offline(world, "a", ("save", "d/b", "over"))
        world.serve(there)
        world.do(client, "a: sync", client.sync())
    world.converge()


def test_the_rest_of_a_file_is_not_laid_over_what_was_written_since(world: World) -> None:
    client = world.client("a")
    world.serve(("write", "d/a", "append"))
    world.act("a", ("hold", "d/a"))
    world.act("a", ("write", "d/a", "new"))
    world.do(client, "a: sync", client.sync())
    world.converge()


@pytest.mark.parametrize("first", [Resolution.BOTH, Resolution.SERVER])
@pytest.mark.parametrize("later", [("unlink", "d/b"), ("rename", "d/b", "d/c")])
def test_what_was_renamed_over_and_that_taken_away_again_stays_away(
    world: World, later: tuple[str, ...], first: Resolution
) -> None:
    client = world.client("a")
    offline(world, "a", ("rename", "d/a", "d/b"))
    world.serve(("write", "d/b", "new"))
    world.do(client, "a: sync", client.sync())
    offline(world, "a", ("rename", "a", "d/b"), later)
    _decided(world, first, Resolution.LOCAL)


def test_a_node_goes_along_when_the_servers_version_of_its_name_goes_aside(world: World) -> None:
    client = world.client("a")
    world.serve(("write", "a", "new"))
    offline(world, "a", ("save", "a", "backup"), ("save", "a", "backup"))
    world.do(client, "a: sync", client.sync())
    offline(world, "a", ("unlink", "d/b"), ("rename", "a", "d/b"))
    world.serve(("write", "d/b", "append"))
    _decided(world, Resolution.SERVER, Resolution.LOCAL)


def _decided(world: World, *decisions: Resolution) -> None:
    """What is found at each synchronisation is decided alike."""
    client = world.client("a")
    for keep in decisions:
        world.do(client, "a: sync", client.sync())
        for conflict in client.store.conflicts.all():
            assert world.do(client, "a: decide", client.resolve(conflict, keep)), world.log
    world.converge()


@pytest.mark.parametrize("names", ["ba", "bc", "bA"])
def test_a_file_saved_over_one_name_and_linked_to_another_is_one_file(
    world: World, names: str
) -> None:
    client = world.client("a")
    saved, linked = names
    world.serve(("unlink", saved))
    world.serve(("write", saved, "create"))
    if linked == "a":
        world.serve(("unlink", linked))
    world.serve(("link", saved, linked))
    world.do(client, "a: sync", client.sync())
    world.check_no_conflict()


@pytest.mark.parametrize("keep", list(Resolution))
def test_a_further_name_stays_with_the_file_whose_content_is_decided_about(
    world: World, keep: Resolution
) -> None:
    change, there = ("write", "a", "new"), ("write", "a", "middle")
    _worked_on_while_in_conflict(world, change, there, [("link", "a", "e/c")], keep)
    assert "e/c" in world.share.tree()


@pytest.mark.parametrize(
    "there", [("retype", "a"), ("write", "a", "append"), ("save", "a", "over")]
)
@pytest.mark.parametrize("later", [("unlink", "a"), ("write", "a", "new"), ("rename", "b", "a")])
def test_a_decision_about_rights_is_none_about_content(
    world: World, later: tuple[str, ...], there: tuple[str, ...]
) -> None:
    _rights_in_conflict(world, "a", later, there)


def test_a_decision_about_rights_is_none_about_what_else_has_the_name(world: World) -> None:
    _rights_in_conflict(world, "e", ("remove", "e"), ("retype", "e"))


def _rights_in_conflict(
    world: World, path: str, later: tuple[str, ...], there: tuple[str, ...]
) -> None:
    client = world.client("a")
    offline(world, "a", ("chmod", path, 0o600))
    world.serve(("chmod", path, 0o640))
    world.do(client, "a: sync", client.sync())
    offline(world, "a", later)
    world.do(client, "a: sync", client.sync())
    world.serve(there)
    for conflict in client.store.conflicts.all():
        world.do(client, "a: decide", client.resolve(conflict, Resolution.LOCAL))
    world.do(client, "a: sync", client.sync())
    world.check_kept("when it was sent")
    world.converge()


@pytest.mark.parametrize("decisions", range(6))
def test_a_directory_that_came_back_while_it_was_given_up_is_shown(
    world: World, decisions: int
) -> None:
    world.rng.seed(decisions)
    world.serve(("unlink", "d/e/a"))
    client = world.client("a")
    offline(world, "a", ("write", "e/a", "append"))
    world.serve(("remove", "e"))
    world.do(client, "a: sync", client.sync())
    offline(world, "a", ("rename", "e", "d/e"))
    world.do(client, "a: sync", client.sync())
    world.converge()


def test_an_exchange_is_not_taken_back_under_what_took_a_name_meanwhile(world: World) -> None:
    later = [("unlink", "b"), ("write", "b", "create"), ("rename", "a", "d/c")]
    client = world.client("a")
    offline(world, "a", ("exchange", "a", "b"))
    world.serve(("unlink", "a"))
    world.do(client, "a: sync", client.sync())
    offline(world, "a", *later)
    [conflict] = client.store.conflicts.all()
    world.do(client, "a: online", client.go_online())
    assert not world.do(client, "a: decide", client.resolve(conflict, Resolution.SERVER))
    assert "another has its name here" in world.log[-1]
    world.converge()


def test_what_was_renamed_and_removed_is_shown_again_where_it_is() -> None:
    """The rename was given up where the server had moved its directory on."""
    ours = [("rename", "e/a", "d/a"), ("exchange", "d/b", "e")]
    theirs = [("exchange", "e", "d/b")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 12887}),
        ("clash", {"who": "b", "ours": ours, "by": "a", "theirs": theirs}),
        ("clash", {"who": "b", "ours": [("retype", "d/a")], "by": "b", "theirs": []}),
    ]
    assert play("apart", steps) is None


def test_a_link_seen_in_a_directory_that_took_the_place_of_one_given_up() -> None:
    """What it was called in the one that is nowhere any more is no name of it."""
    theirs = [("save", "d/b", "over")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 27483}),
        ("clash", {"who": "b", "ours": [("retype", "d")], "by": "s", "theirs": theirs}),
        ("clash", {"who": "b", "ours": [], "by": "a", "theirs": [("link", "d/b", "d/a")]}),
    ]
    assert play("apart", steps) is None


def test_what_an_exchange_brought_into_a_directory_is_not_made_there_a_second_time() -> None:
    """The directory was made anew, and the exchange waited for a decision of its own."""
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 8844}),
        ("clash", {"who": "a", "ours": [], "by": "b", "theirs": []}),
        ("server", {"ops": [("retype", "e")]}),
        ("clash", {"who": "b", "ours": [("chmod", "e", 384)], "by": "b", "theirs": []}),
        ("work_offline", {"who": "b", "ops": [("exchange", "e/a", "a")]}),
    ]
    assert play("apart", steps) is None


def test_what_was_renamed_into_a_directory_is_not_made_there_a_second_time() -> None:
    renaming = {"who": "b", "ops": [("rename", "d/a", "e/a")], "name": "journal.appended"}
    theirs = [("remove", "e"), ("exchange", "d/a", "d/e")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 55582}),
        ("change_and_die", {**renaming, "count": 3}),
        ("clash", {"who": "b", "ours": [], "by": "a", "theirs": theirs}),
        ("clash", {"who": "b", "ours": [("xattr", "e", "y")], "by": "a", "theirs": []}),
    ]
    assert play("apart", steps) is None


def test_what_was_saved_over_a_rename_that_is_given_up_displaces_what_that_had() -> None:
    """Else the server seemed to have changed it, again and again."""
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 54992}),
        (
            "clash",
            {
                "who": "a",
                "ours": [("write", "a", "append")],
                "by": "a",
                "theirs": [("save", "a", "over")],
            },
        ),
        ("clash", {"who": "a", "ours": [("rename", "a", "d/b")], "by": "a", "theirs": []}),
        ("change", {"who": "a", "ops": [("exchange", "d/a", "e"), ("save", "d/b", "over")]}),
    ]
    assert play("apart", steps) is None


def test_one_of_several_names_that_was_moved_aside_is_shown() -> None:
    """Here the name was a directory's, and the file had another one."""
    ours = [("link", "e/a", "d/b"), ("exchange", "e/a", "d/e")]
    steps: list[Step] = [
        ("begin", {"without": ["d/b"], "decisions": 8081}),
        ("clash", {"who": "a", "ours": ours, "by": "a", "theirs": [("rename", "e/a", "b")]}),
        ("clash", {"who": "a", "ours": [], "by": "a", "theirs": [("retype", "d/e")]}),
    ]
    assert play("apart", steps) is None


def test_what_a_rename_displaced_goes_though_its_node_was_renamed_on_and_is_made_anew() -> None:
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 33672}),
        ("change", {"who": "a", "ops": [("rename", "e", "d/e")]}),
        ("server", {"ops": [("remove", "e")]}),
        ("change", {"who": "a", "ops": [("rename", "d/e", "e")]}),
    ]
    assert play("apart", steps) is None


def test_an_exchange_of_what_was_exchanged_is_given_up_with_one_name_each() -> None:
    renaming = [("rename", "d/b", "a")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 39345}),
        ("clash", {"who": "b", "ours": [("exchange", "b", "d/b")], "by": "b", "theirs": renaming}),
        ("clash", {"who": "b", "ours": renaming, "by": "a", "theirs": []}),
        ("work_offline", {"who": "b", "ops": [("exchange", "a", "b")]}),
    ]
    assert play("apart", steps) is None


def test_a_file_in_a_directory_made_anew_is_linked_where_the_server_has_it_elsewhere() -> None:
    theirs = [("write", "a", "new"), ("chmod", "e", 384)]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 60464}),
        ("clash", {"who": "b", "ours": [], "by": "s", "theirs": [("rename", "a", "e/a")]}),
        ("clash", {"who": "b", "ours": [], "by": "a", "theirs": [("link", "e/a", "a")]}),
        ("clash", {"who": "a", "ours": [("retype", "e")], "by": "s", "theirs": []}),
        ("clash", {"who": "a", "ours": [], "by": "b", "theirs": theirs}),
    ]
    assert play("apart", steps) is None


def test_what_comes_back_has_the_rights_that_the_server_knows() -> None:
    """They were set here, and not sent, since it had been saved over."""
    ours = [("chmod", "d/a", 384), ("save", "d/a", "over")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 46372}),
        ("clash", {"who": "a", "ours": ours, "by": "a", "theirs": [("exchange", "d", "b")]}),
    ]
    assert play("apart", steps) is None


def test_what_is_moved_aside_after_a_rename_of_ours_has_one_name() -> None:
    ours = [("rename", "a", "b"), ("rename", "d/b", "d/a")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 925}),
        ("work_offline", {"who": "b", "ops": [("save", "a", "backup"), ("unlink", "b")]}),
        ("clash", {"who": "b", "ours": ours, "by": "b", "theirs": [("rename", "d/b", "b")]}),
    ]
    assert play("apart", steps) is None


def test_what_a_chain_of_decisions_leaves_free_is_shown() -> None:
    ours = [("rename", "b", "a"), ("exchange", "a", "d")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 18366}),
        ("clash", {"who": "a", "ours": ours, "by": "s", "theirs": [("unlink", "b")]}),
    ]
    assert play("apart", steps) is None


def test_what_was_renamed_on_both_sides_is_no_conflict_of_kinds_whatever_has_its_name() -> None:
    theirs = [("exchange", "a", "e")]
    steps: list[Step] = [
        ("begin", {"without": ["d"], "decisions": 399}),
        (
            "clash",
            {"who": "b", "ours": [("rename", "e", "d")], "by": "b", "theirs": theirs},
        ),
    ]
    assert play("apart", steps) is None


def test_a_name_that_was_linked_where_another_file_stood_by_then_is_that_files() -> None:
    """The client knew one file as two, each with a part of its names."""
    ours, created = [("link", "d/b", "d/a")], [("write", "d/a", "create")]
    linking = {"who": "b", "ops": [("link", "d/a", "b")], "name": "files.written", "count": 2}
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 357}),
        ("server", {"ops": [("rename", "d/a", "b")]}),
        ("clash", {"who": "a", "ours": ours, "by": "a", "theirs": created}),
        ("clash", {"who": "a", "ours": [], "by": "b", "theirs": [("rename", "b", "a")]}),
        ("change_and_die", linking),
    ]
    assert play("apart", steps) is None


def test_what_was_staged_in_a_directory_that_was_exchanged_meanwhile_is_reaped() -> None:
    """Listings hid from a client of the model what it had staged itself."""
    ours = [("write", "d/a", "create"), ("xattr", "d", "y")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 31572}),
        ("clash", {"who": "a", "ours": [], "by": "a", "theirs": [("unlink", "d/a")]}),
        ("clash", {"who": "a", "ours": ours, "by": "b", "theirs": [("exchange", "e", "d")]}),
    ]
    assert play("apart", steps) is None


def test_a_name_that_no_record_takes_away_any_more_is_shown() -> None:
    """What had displaced it was given up before its own rename had gone out."""
    theirs = [("unlink", "b"), ("rename", "a", "d/a")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 48485}),
        (
            "clash",
            {
                "who": "a",
                "ours": [("exchange", "d/a", "b")],
                "by": "b",
                "theirs": [("rename", "d/a", "e/a")],
            },
        ),
        (
            "clash",
            {
                "who": "a",
                "ours": [("write", "a", "append")],
                "by": "s",
                "theirs": [("unlink", "a")],
            },
        ),
        ("clash", {"who": "b", "ours": [], "by": "a", "theirs": theirs}),
    ]
    assert play("apart", steps) is None


def test_what_is_shown_again_is_not_what_was_here_before_it_was_cut_short() -> None:
    """Of a file that is empty on the server, the first no bytes are what anything begins with."""
    saved = [("save", "e/a", "over")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 1274}),
        ("change", {"who": "b", "ops": [("rename", "a", "d/a")]}),
        (
            "clash",
            {"who": "a", "ours": [], "by": "s", "theirs": [("write", "d/a", "truncate")]},
        ),
        ("clash", {"who": "a", "ours": [("unlink", "a")], "by": "b", "theirs": saved}),
    ]
    assert play("apart", steps) is None


def test_what_was_renamed_away_and_back_is_not_where_a_rename_given_up_had_put_it() -> None:
    theirs = [("exchange", "d/e", "a")]
    away, back = [("rename", "d/a", "e/a")], [("rename", "e/a", "d/a")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 46850}),
        ("clash", {"who": "a", "ours": [("rename", "a", "d/a")], "by": "a", "theirs": theirs}),
        ("clash", {"who": "a", "ours": away, "by": "a", "theirs": []}),
        ("clash", {"who": "b", "ours": [], "by": "a", "theirs": back}),
    ]
    assert play("apart", steps) is None


def test_a_rename_to_a_name_that_another_then_leaves_is_not_undone_by_that() -> None:
    """An exchange was given up between the two: neither was sent, and nothing told of them."""
    saved = [("save", "d/b", "over"), ("exchange", "d/b", "e/a"), ("rename", "d/a", "e/a")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 62566}),
        ("change", {"who": "b", "ops": [("symlink", "b", "a")]}),
        ("clash", {"who": "a", "ours": saved, "by": "s", "theirs": [("unlink", "e/a")]}),
        ("work_offline", {"who": "b", "ops": [("remove", "d")]}),
        ("clash", {"who": "a", "ours": [("rename", "d/b", "d/a")], "by": "b", "theirs": []}),
    ]
    assert play("apart", steps) is None


def test_what_was_renamed_back_is_where_it_was_though_the_server_renamed_it_too() -> None:
    """What the first rename started from was moved along with it."""
    steps: list[Step] = [
        ("begin", {"without": ["d/e"], "decisions": 30259}),
        ("work_offline", {"who": "a", "ops": [("rename", "d/a", "d/e")]}),
        ("clash", {"who": "b", "ours": [("rename", "d/a", "b")], "by": "a", "theirs": []}),
        ("clash", {"who": "b", "ours": [("rename", "b", "d/a")], "by": "s", "theirs": []}),
    ]
    assert play("apart", steps) is None


def test_the_servers_rights_are_kept_of_a_file_that_went_with_an_edit_to_be_sent() -> None:
    ours = [("chmod", "e/a", 416), ("write", "e/a", "append")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 64800}),
        ("clash", {"who": "a", "ours": ours, "by": "a", "theirs": [("chmod", "e/a", 384)]}),
        ("server", {"ops": [("unlink", "e/a")]}),
    ]
    assert play("apart", steps) is None


def test_a_rename_is_not_taken_back_into_a_directory_that_is_gone() -> None:
    """It was seen to be there, the directory was removed, and the server's way was decided for."""
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 3205}),
        (
            "clash",
            {
                "who": "a",
                "ours": [("save", "e/a", "backup")],
                "by": "b",
                "theirs": [("rename", "e/a", "d/a")],
            },
        ),
        ("sync_amid", {"who": "a", "calls": 1, "op": ("remove", "d")}),
    ]
    assert play("apart", steps) is None


def test_a_directory_that_came_out_of_what_it_displaced_goes_back_into_it() -> None:
    """Each would else wait for the other, and hide what the server has there."""
    ours = [("rename", "e/a", "d/a"), ("rename", "d/e", "e")]
    theirs = [("rename", "e/a", "b"), ("rename", "d", "e")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 20574}),
        ("clash", {"who": "a", "ours": ours, "by": "s", "theirs": theirs}),
    ]
    assert play("apart", steps) is None


def test_an_attribute_is_set_on_nothing_that_took_the_place_just_then() -> None:
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 49427}),
        ("change", {"who": "b", "ops": [("xattr", "e", "x")]}),
        ("sync_amid", {"who": "b", "calls": 3, "op": ("exchange", "a", "e")}),
    ]
    assert play("apart", steps) is None


@pytest.mark.parametrize("there", [("rename", "b", "a"), ("exchange", "d/a", "a")])
def test_what_could_not_go_home_makes_way_once_its_directory_is_back(
    there: tuple[str, ...],
) -> None:
    """Its name here is another's on the server by then: both are as there in the end."""
    removed = {"who": "a", "ours": [("rmdir", "e")], "by": "b", "theirs": []}
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 1, "always": "server"}),
        (
            "clash",
            {"who": "a", "ours": [("rename", "e/a", "a")], "by": "a", "theirs": [there]},
        ),
        ("clash", removed),
    ]
    assert play("apart", steps) is None


def test_what_is_left_of_an_exchange_with_what_was_given_up_goes_out() -> None:
    """Its conflict went with that: it would be parked for ever."""
    ours = [("chmod", "d", 384), ("exchange", "e", "d/e")]
    removed = [("unlink", "d/b"), ("rmdir", "d/e")]
    steps: list[Step] = [
        ("begin", {"without": ["d/a"], "decisions": 21731, "always": "server"}),
        ("work_offline", {"who": "b", "ops": [("rename", "b", "d/b")]}),
        ("clash", {"who": "a", "ours": [("save", "d/b", "over")], "by": "a", "theirs": []}),
        ("clash", {"who": "a", "ours": [], "by": "b", "theirs": ours}),
        ("clash", {"who": "a", "ours": removed, "by": "b", "theirs": []}),
        ("clash", {"who": "a", "ours": [], "by": "a", "theirs": [("rmdir", "d")]}),
    ]
    assert play("apart", steps) is None


def test_a_file_is_read_where_it_is_though_a_link_stands_where_it_was_seen() -> None:
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 52765, "always": "server"}),
        (
            "clash",
            {
                "who": "b",
                "ours": [("save", "e/a", "over")],
                "by": "b",
                "theirs": [("exchange", "e/a", "b")],
            },
        ),
        ("clash", {"who": "a", "ours": [], "by": "a", "theirs": [("unlink", "b")]}),
        ("clash", {"who": "a", "ours": [], "by": "a", "theirs": [("symlink", "b", "a")]}),
    ]
    assert play("apart", steps) is None


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("always", list(map(str, Resolution)))
def test_what_was_saved_over_a_rename_that_is_given_up_displaces_what_that_did(
    always: str, ids: bool
) -> None:
    ours: list[tuple[str, ...]] = [("rename", "d/a", "b")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 1, "always": always, "ids": ids}),
        ("clash", {"who": "a", "ours": ours, "by": "a", "theirs": [("unlink", "d/a")]}),
        ("change", {"who": "a", "ops": [("save", "b", "over")]}),
        ("resolve", {"who": "a", "number": 1, "keep": "server"}),
    ]
    assert play("apart", steps) is None


@pytest.mark.parametrize("always", list(map(str, Resolution)))
def test_what_was_moved_into_a_directory_that_is_gone_and_removed_with_it_goes(always: str) -> None:
    ours: list[tuple[str, ...]] = [("rename", "e", "d/e"), ("xattr", "d", "y")]
    theirs: list[tuple[str, ...]] = [("exchange", "d", "e/a")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 6802, "always": always, "ids": False}),
        ("clash", {"who": "a", "ours": ours, "by": "b", "theirs": theirs}),
        ("clash", {"who": "a", "ours": [("retype", "d")], "by": "a", "theirs": []}),
    ]
    assert play("apart", steps) is None


def test_an_exchange_whose_answer_was_lost_is_known_by_kinds_without_ids() -> None:
    ops: list[tuple[str, ...]] = [("save", "e/a", "over"), ("utime", "d/b"), ("xattr", "d/b", "x")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 33300, "ids": False}),
        ("change", {"who": "b", "ops": ops}),
        ("change", {"who": "b", "ops": [("exchange", "d/e", "d/b")]}),
        ("sync_and_cut", {"who": "b", "calls": 15, "how": "inside3"}),
    ]
    assert play("in-turns", steps) is None


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("always", list(map(str, Resolution)))
def test_what_moves_into_a_directory_that_is_made_anew_where_it_stood(
    always: str, ids: bool
) -> None:
    """It leaves the name, the directory is made there, and it moves in: not in one step."""
    moved: list[tuple[str, ...]] = [("rename", "e", "d/e")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 55064, "always": always, "ids": ids}),
        ("clash", {"who": "a", "ours": [("exchange", "e", "d")], "by": "s", "theirs": moved}),
        ("clash", {"who": "a", "ours": moved, "by": "s", "theirs": []}),
    ]
    assert play("apart", steps) is None


@pytest.mark.parametrize("always", [None, *map(str, Resolution)])
def test_what_an_exchange_puts_into_itself_steps_aside_where_it_was_moved_on(
    always: str | None,
) -> None:
    """The place that it left for is to be made anew where it stands: each waited for the other."""
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 3688, "always": always, "ids": True}),
        (
            "clash",
            {
                "who": "b",
                "ours": [("exchange", "d/e", "a")],
                "by": "s",
                "theirs": [("rmdir", "d/e")],
            },
        ),
        (
            "clash",
            {
                "who": "b",
                "ours": [("exchange", "a", "d"), ("rename", "a", "d/b")],
                "by": "s",
                "theirs": [],
            },
        ),
        ("clash", {"who": "b", "ours": [], "by": "s", "theirs": [("rename", "a", "d/a")]}),
    ]
    assert play("apart", steps) is None


def test_a_copy_of_what_is_known_has_zeros_for_the_rest() -> None:
    """The base was looked at while its token was weak, and a link gave the file another one."""
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 64147, "always": "both", "ids": False}),
        ("sync", {"who": "a"}),
        ("server", {"ops": [("write", "d/b", "new")]}),
        ("change", {"who": "a", "ops": [("chmod", "d/b", 384)]}),
        ("work_offline", {"who": "a", "ops": [("write", "d/b", "append")]}),
        ("server", {"ops": [("link", "d/b", "c")]}),
    ]
    assert play("apart", steps) is None


def test_a_name_that_went_is_no_edit_of_what_the_others_show_without_ids() -> None:
    """Two names of one file are two files here, and the change time of both is another."""
    linked: list[tuple[str, ...]] = [("write", "e/a", "truncate"), ("link", "a", "d/a")]
    ours: list[tuple[str, ...]] = [("save", "d/a", "over"), ("unlink", "a"), ("remove", "e")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 52125, "ids": False}),
        ("change", {"who": "b", "ops": [("unlink", "d/a")]}),
        ("server", {"ops": linked}),
        ("change", {"who": "b", "ops": ours}),
    ]
    assert play("in-turns", steps) is None


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("calls", range(12, 18))
def test_an_exchange_of_directories_whose_answer_was_lost_is_not_taken_back(
    calls: int, ids: bool
) -> None:
    """Without ids nothing tells that it was done, unless the steps of it are noted."""
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 1, "ids": ids}),
        ("work_offline", {"who": "b", "ops": [("exchange", "d", "e")]}),
        ("sync_and_cut", {"who": "b", "calls": calls, "how": "after"}),
    ]
    assert play("in-turns", steps) is None


@pytest.mark.parametrize("always", list(map(str, Resolution)))
def test_what_a_decision_gave_up_stays_in_the_history_where_it_was_cut_off_at_its_end(
    always: str,
) -> None:
    """All was done but for the conflict, about which it was decided once more."""
    ours, theirs = [("write", "a", "new")], [("save", "a", "over")]
    die = {"who": "a", "number": 1, "keep": "server", "name": "resolve.decided"}
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 1, "always": always}),
        ("clash", {"who": "a", "ours": ours, "by": "a", "theirs": theirs}),
        ("resolve_and_die", die),
    ]
    assert play("apart", steps) is None


@pytest.mark.parametrize("gone", [("unlink", "a"), ("retype", "a")])
def test_an_edit_is_kept_where_rights_were_refused_and_the_file_went(
    world: World, gone: tuple[str, str]
) -> None:
    """To give the rights up is a decision about no more than that."""
    client = world.client("a")
    offline(world, "a", ("chmod", "a", 0o600), ("write", "a", "append"))
    client.way.refusal = Refusal(0, errno.EACCES, of=("set_attributes",))
    world.do(client, "a: sync", client.sync())
    client.way.refusal = None
    world.serve(gone)
    [conflict] = client.store.conflicts.all()
    world.do(client, "a: decide", client.resolve(conflict, Resolution.SERVER))
    world.check_kept("after the decision")
    world.converge()


@pytest.mark.parametrize("keep", ["local", "both"])
@pytest.mark.parametrize("op", [("discard", 2), ("drop", 1)])
def test_what_is_to_be_made_anew_is_kept_where_it_is_discarded(
    keep: str, op: tuple[str, int]
) -> None:
    """One record stands for the creation and for the content then."""
    contest = [("", ("write", "d/b", "middle")), ("s", ("retype", "d/b"))]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 1}),
        (
            "decide_beside",
            {"who": "b", "contest": contest, "op": ("decide", 1, keep), "beside": [(1, "", op)]},
        ),
    ]
    assert play("decided", steps) is None


@pytest.mark.parametrize("turns", range(11, 17))
def test_a_content_decides_nothing_about_what_is_removed_meanwhile(turns: int) -> None:
    """An edit of it would wait for ever."""
    contest = [("", ("unlink", "a")), ("s", ("write", "a", "middle"))]
    beside, ours = [(turns, "", ("decide", 2, "base"))], [("save", "a", "over")]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 3819, "always": "server"}),
        ("sync_beside", {"who": "b", "contest": contest, "ours": ours, "beside": beside}),
    ]
    assert play("decided", steps) is None


def test_a_content_decides_nothing_about_a_save_that_was_removed_meanwhile() -> None:
    contest = [("", ("save", "d/a", "over")), ("s", ("save", "d/a", "backup"))]
    removed = {"who": "b", "contest": contest, "ours": [("unlink", "d/a")], "beside": []}
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 1, "always": "both"}),
        ("sync_beside", removed),
        ("decide", {"who": "b", "contest": [], "op": ("decide", 2, "base")}),
    ]
    assert play("decided", steps) is None


@pytest.mark.parametrize("turns", range(12, 18))
def test_what_is_removed_while_a_decision_is_taken_back_stays_removed(turns: int) -> None:
    contest = [("", ("rename", "b", "d/c")), ("s", ("exchange", "b", "d/a"))]
    beside = [(turns, "", ("remove", "d")), (1, "", ("undo", 5, True))]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 33177, "always": "server"}),
        ("sync_beside", {"who": "a", "contest": contest, "ours": [], "beside": beside}),
    ]
    assert play("decided", steps) is None


def test_what_comes_back_by_discarding_its_removal_has_the_rights_of_the_base(
    world: World,
) -> None:
    """They were set before it was removed, and so were not to be sent any more."""
    client = world.client("a")
    offline(world, "a", ("chmod", "a", 0o600), ("unlink", "a"))
    world.loop.run_until_complete(client.volume.replay.tidy())
    world.act("a", ("discard", -1))
    assert client.tree() == world.share.tree()
    world.converge()


def test_two_that_had_one_path_by_turns_are_both_kept_when_they_are_discarded() -> None:
    contest = [("", ("write", "b", "middle")), ("s", ("retype", "b"))]
    later = [("", ("rename", "a", "b")), ("", ("write", "b", "middle"))]
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 53698, "always": "server", "ids": False}),
        ("contend", {"who": "b", "contest": contest}),
        ("decide", {"who": "b", "contest": later, "op": ("discard", 3)}),
    ]
    assert play("decided", steps) is None


def test_a_discard_waits_for_a_decision_that_looked_at_the_server(world: World) -> None:
    """It has the server's revision of that moment for the base, of which nothing is here then."""
    client = world.client("a")
    world.act("a", ("write", "a", "new"))
    offline(world, "a", ("write", "a", "append"))
    world.serve(("save", "a", "over"))
    world.do(client, "a: sync", client.sync())
    [conflict] = client.store.conflicts.all()
    seen: list[NodeId] = []

    async def decide_and_discard() -> None:
        async with client.volume.deciding._locked(conflict.id):
            discarding = asyncio.ensure_future(client.act(("discard", -1)))
            await asyncio.sleep(0.2)
            seen.extend(r.node for r in client.store.journal.all())
        await discarding

    assert world.do(client, "a: discard", decide_and_discard()), world.log
    assert seen == [conflict.node]
    assert not client.store.journal.count()
    world.converge()


def test_a_rename_that_arrived_by_what_was_decided_about_its_target_is_done() -> None:
    """What it was to displace was its own file by then, which stood under the new name."""

    def contend(who: str, *contest: tuple[str, tuple[str, ...]]) -> Step:
        return "contend", {"who": who, "contest": list(contest)}

    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 9112, "ids": True}),
        contend("a", ("s", ("rename", "d/b", "d/c")), ("", ("retype", "d/a"))),
        contend("b", ("", ("save", "e/a", "over")), ("s", ("write", "e/a", "new"))),
        contend("a", ("", ("rename", "b", "d/c")), ("s", ("exchange", "b", "d/a"))),
        contend(
            "b",
            ("", ("rename", "b", "a")),
            ("s", ("exchange", "b", "d/a")),
            ("s", ("write", "e/a", "append")),
        ),
        (
            "decide",
            {
                "who": "b",
                "contest": [("", ("rename", "a", "b")), ("", ("rename", "b", "d/c"))],
                "op": ("decide", 1, "base"),
            },
        ),
    ]
    assert play("decided", steps) is None


def test_what_an_exchange_put_in_a_renames_place_has_a_way_home_before_it_leaves() -> None:
    """The rename was decided against, and its file's name on the server is another's here."""
    steps: list[Step] = [
        ("begin", {"without": [], "decisions": 61505, "always": None, "ids": False}),
        (
            "decide_beside",
            {
                "who": "b",
                "contest": [
                    ("", ("chmod", "b", 384)),
                    ("s", ("rename", "b", "d/c")),
                    ("", ("exchange", "d/b", "d/a")),
                    ("s", ("retype", "d/b")),
                ],
                "op": ("decide", 2, "base"),
                "beside": [],
            },
        ),
        (
            "decide",
            {"who": "a", "contest": [("s", ("retype", "e/a"))], "op": ("decide", 1, "server")},
        ),
        ("decide", {"who": "a", "contest": [("", ("retype", "d/b"))], "op": ("cull",)}),
        ("work_offline", {"who": "b", "ops": [("exchange", "d/a", "e/a")]}),
        (
            "sync_refused",
            {
                "who": "b",
                "ours": [("utime", "d/a")],
                "calls": 10,
                "code": "EACCES",
                "inside": 0,
                "times": 1,
            },
        ),
        (
            "decide_beside",
            {
                "who": "a",
                "contest": [("s", ("exchange", "e/a", "d/a"))],
                "op": ("drop", 3),
                "beside": [],
            },
        ),
        ("take_back", {"who": "b", "contest": [], "choice": "local", "force": True}),
    ]
    assert play("decided", steps) is None

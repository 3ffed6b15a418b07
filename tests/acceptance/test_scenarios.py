"""Every conflict scenario on a real mount: what is kept, where the two sides meet, what is said.

The rows of ``scenarios.json`` come from other systems' tests and tell what those expect; here
only their policy-neutral part binds (``keep``), with DESIGN section 5 for the rest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.acceptance import scenario_player as player
from tests.acceptance.scenario_hooks import LASTING
from tests.acceptance.scenario_player import Played, Player, Row
from tests.harness import Client, make_server, mounted, needs_fuse

pytestmark = [*needs_fuse, pytest.mark.slow]

ROWS = player.load()
KEEPS = ("local", "server", "both")
FULL = (("dir", "local"), ("sftp", "rotated"))
RUNS = [("dir", "local"), ("dir", "server"), ("dir", "both"), ("sftp", "rotated")]


def is_played(row: Row, kind: str, keep: str) -> bool:
    """All rows once a remote; those with something to decide with every decision on ``dir``."""
    return (kind, keep) in FULL or (bool(row.local and row.remote) and not row.alone)


def groups(kind: str, keep: str) -> Iterator[tuple[str, list[Row]]]:
    """Rows that share a mount, and what they have in common."""
    rows = [row for row in ROWS if is_played(row, kind, keep)]
    together = [row for row in rows if not row.alone]
    yield "cached", [row for row in together if not row.uncached and not row.hook]
    yield "uncached", [row for row in together if row.uncached]
    yield "troubled", [row for row in together if row.hook]
    for row in rows:
        if row.alone:
            yield "alone", [row]


def decision(keep: str, row: Row, number: int) -> str:
    """What is decided of a row; where the server refused there are no two sides to keep."""
    chosen = KEEPS[number % 3] if keep == "rotated" else keep
    return "local" if chosen == "both" and row.hook in ("deny", "perm") else chosen


def play(kind: str, keep: str, base: str, rows: list[Row]) -> dict[str, Played]:
    """Play some rows in one mount, decide their conflicts, and clean up."""
    server = make_server(kind, base)
    client = Client(base, server)
    stage = Player(client, rows)
    try:
        stage.prepare()
        stage.take_along(pinned=not rows[0].uncached)
        stage.diverge()
        if rows[0].then:
            stage.continue_alone()
        stage.report()
        stage.decide(partial(decision, keep))
    finally:
        client.close()
        server.close()
    return stage.played


def told() -> dict[str, tuple[str, str, str]]:
    """Row → hook, outcome while the trouble lasts ("" if it does not), outcome afterwards."""
    document = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "CONFLICTS.md")
    with open(document, encoding="utf-8") as file:
        section = file.read().partition("## When the server has trouble")[2].partition("\n## ")[0]
    found: dict[str, tuple[str, str, str]] = {}
    for line in section.splitlines():
        cells = [re.findall("`([^`]+)`", cell) for cell in line.strip("|").split("|")]
        for id in re.findall(r"\bS\d{3}\b", line.partition("|")[2].partition("|")[0]):
            hook, during, after = ("".join(cell[:1]) for cell in cells[1:4])
            found[id] = (hook, during, after)
    return found


TOLD = told()


class Stage:
    """Rows that share a mount, on one kind of remote, with one way of deciding."""

    def __init__(self, kind: str, keep: str, name: str, rows: list[Row]) -> None:
        self.kind, self.keep, self.name, self.rows = kind, keep, name, rows
        self._played: list[dict[str, Played] | Exception] = []

    def played(self, attempt: int, base: Callable[[], object]) -> dict[str, Played]:
        """What came out, played once for all tests, and once more for those that are tried again.

        ``base`` makes a directory for it. An error is one of all the rows.
        """
        if len(self._played) < min(attempt, 2):
            try:
                self._played.append(play(self.kind, self.keep, str(base()), self.rows))
            except Exception as error:
                self._played.append(error)
        found = self._played[-1]
        if isinstance(found, Exception):
            raise found
        return found

    def cases(self) -> list[Any]:
        """A test for each row; tests/conftest.py knows by their names which belong together."""
        name = f"{self.kind}-{self.keep}-{self.name}"
        return [pytest.param(self, row, id=f"{name}-{row.id}") for row in self.rows]


STAGES = [Stage(*run, *group) for run in RUNS for group in groups(*run)]
EDITED_AFTERWARDS = {"S085": {"W"}}
"""What must be there while the server refuses the edit that replaces it when it may be written."""


@pytest.mark.parametrize(("stage", "row"), [case for stage in STAGES for case in stage.cases()])
def test_scenario(
    stage: Stage,
    row: Row,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    attempt = getattr(request.node, "execution_count", 1)
    played = stage.played(attempt, lambda: tmp_path_factory.mktemp("scenarios"))[row.id]
    # SFTP has no special files: EPERM at once
    allowed = "mkfifo" if stage.kind == "sftp" else None
    trouble = [line for line in played.trouble if line.split()[0] != allowed]
    assert not trouble
    _check_found(played)
    _check_decided(played)
    if row.hook:
        _check_troubled(played)


def _check_found(played: Played) -> None:
    """After coming back: nothing lost, both sides meet but for conflicts, and it stays so."""
    row, found, again = played.row, played.found, played.again
    assert found is not None and again is not None
    lost = set(row.keep) - EDITED_AFTERWARDS.get(row.id, set()) - found.reachable()
    assert not lost, f"lost without a decision: {lost}"
    assert not found.differences()
    if not (row.local and row.remote) and not row.then and row.hook != "mark-conflict":
        assert found.kinds == [], "a conflict although only one side changed anything"
    assert found.settled() == again.settled(), "a second synchronisation is not idle"


def _check_troubled(played: Played) -> None:
    """While the server has trouble nothing is lost, and what is said then and later is written."""
    row, during, found = played.row, played.during, played.found
    while_it_lasts, afterwards = TOLD[row.id][1:]
    assert found is not None
    assert found.outcome == afterwards
    if during is None or row.hook not in LASTING:
        assert while_it_lasts == "", "the document tells of trouble that does not last"
        return
    assert set(row.keep) <= during.reachable(), "lost while the server had trouble"
    assert during.outcome == while_it_lasts


def _check_decided(played: Played) -> None:
    """After the decision: no conflict, nothing unsent, one tree; what was not given up is there."""
    row, decided = played.row, played.decided
    assert decided is not None
    assert decided.kinds == []
    assert decided.records == []
    assert not decided.differences()
    given_up = played.keep in ("local", "server") and played.found and played.found.kinds
    if not given_up:
        lost = set(row.keep) - EDITED_AFTERWARDS.get(row.id, set()) - decided.reachable()
        assert not lost, f"lost by keeping both: {lost}"


def test_the_document_tells_of_every_row_with_a_hook() -> None:
    assert {id: told[0] for id, told in TOLD.items()} == {r.id: r.hook for r in ROWS if r.hook}


def test_a_shorter_save_leaves_nothing_of_the_longer_one(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        player.write(f"{client.server.root}/f", "a long line\n")
        client.awayfs("pin", client.mountpoint)
        client.offline()
        player.write(client.path("f"), "short\n")
        with open(client.path("f")) as file:
            assert file.read() == "short\n"


def test_what_was_made_in_a_directory_follows_it_where_the_server_moved_it(
    tmp_path: object,
) -> None:
    with mounted("dir", str(tmp_path), "fresh=0") as client:
        player.make_base(client.server.root, {"d/old": "W", "far/away/x": "W"})
        client.awayfs("pin", client.mountpoint)
        client.offline()
        player.write(client.path("d/new"), "L")
        os.rename(f"{client.server.root}/d", f"{client.server.root}/far/away/d")
        client.online()
        client.sync()
        assert player.contents(player.look(client.server.root)) == {"W", "L"}
        assert sorted(os.listdir(f"{client.server.root}/far/away/d")) == ["new", "old"]
        assert sorted(os.listdir(client.path("far/away/d"))) == ["new", "old"]
        assert sorted(os.listdir(client.mountpoint)) == ["far"]

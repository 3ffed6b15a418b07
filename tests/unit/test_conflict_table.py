"""The tables of ``docs/CONFLICTS.md``, the rules of replay, and their cases say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.conflict_table import KEPT, SETTLED, Kept, Settled
from tests.unit.test_core_decide import CASES

from awayfs.core.conflicts import ConflictKind
from awayfs.core.decide import AlreadyDone, Apply, Conflict, Decision, NeedDigest, Refused, decide

DOCUMENT = Path(__file__).parents[2] / "docs" / "CONFLICTS.md"


def table(heading: str) -> list[str]:
    """The lines of the first table below a heading, without its head."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    lines = section.partition("\n|")[2].partition("\n\n")[0].splitlines()
    return lines[2:]


def test_the_document_tells_what_is_settled() -> None:
    assert table("Settled without asking") == [row.line() for row in SETTLED]


def test_the_document_tells_what_is_a_conflict() -> None:
    assert table("Conflicts") == [row.line() for row in KEPT]


@pytest.mark.parametrize(
    ("row", "case"),
    [(row, case) for row in SETTLED for case in row.cases],
    ids=lambda v: str(v)[:60],
)
def test_what_is_settled_is_decided_without_asking(row: Settled, case: str) -> None:
    decision = decide(CASES[case][0])
    assert isinstance(decision, Apply | AlreadyDone | NeedDigest), row.line()


@pytest.mark.parametrize(
    ("row", "case"), [(row, case) for row in KEPT for case in row.cases], ids=lambda v: str(v)[:60]
)
def test_what_is_a_conflict_is_found_as_that(row: Kept, case: str) -> None:
    assert kind_of(decide(CASES[case][0])) == row.kind


def test_every_case_of_a_conflict_is_in_the_table() -> None:
    told = {case for row in KEPT for case in row.cases}
    assert told == {name for name, (facts, _) in CASES.items() if kind_of(decide(facts))}


def test_every_kind_of_conflict_is_told() -> None:
    assert {row.kind for row in KEPT} == {str(kind) for kind in ConflictKind}


def kind_of(decision: Decision) -> str | None:
    """The kind of conflict, a refusal included; None when there is none."""
    if isinstance(decision, Refused):
        return str(ConflictKind.REFUSED)
    return str(decision.kind) if isinstance(decision, Conflict) else None

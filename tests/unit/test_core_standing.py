"""Where a node can stand: by a table, and for any tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.namespace import Slot
from awayfs.core.standing import place_for
from awayfs.core.types import ROOT, NodeId

HOME, ELSEWHERE, NOWHERE = (2, b"home"), (3, b"elsewhere"), (4, b"in itself")
ABOVE = {ROOT: [ROOT], 2: [2, ROOT], 3: [3, ROOT], 4: [4, 5, ROOT], 5: [5, ROOT]}


@pytest.mark.parametrize(
    ("wanted", "taken", "expected"),
    [
        ([HOME, ELSEWHERE], [], HOME),
        ([NOWHERE, ELSEWHERE], [], ELSEWHERE),
        ([(5, b"in itself"), HOME], [], HOME),
        ([HOME, ELSEWHERE], [HOME], ELSEWHERE),
        ([NOWHERE], [], (ROOT, b"name")),
        ([NOWHERE], [(ROOT, b"name")], (ROOT, b"name.5")),
        ([], [(ROOT, b"name"), (ROOT, b"name.5")], (ROOT, b"name.5.3")),
    ],
)
def test_the_first_place_that_is_possible(
    wanted: list[Slot], taken: list[Slot], expected: Slot
) -> None:
    found = place_for(5, b"name", wanted, ABOVE.__getitem__, lambda slot: slot not in taken)
    assert found == expected


def test_a_name_stays_within_what_a_name_may_have() -> None:
    long, free = b"n" * 255, {(ROOT, b"n" * 200 + b".5")}
    assert place_for(5, long, [], ABOVE.__getitem__, free.__contains__) in free


@given(st.data())
def test_a_tree_stays_a_tree(data: st.DataObject) -> None:
    """Whatever is wanted, and whatever is taken: every directory still leads to the root."""
    count = data.draw(st.integers(2, 8))
    parents = {n: data.draw(st.integers(ROOT, n - 1)) for n in range(ROOT + 1, ROOT + count)}
    node = data.draw(st.sampled_from(sorted(parents)))
    del parents[node]

    def above(directory: NodeId) -> list[NodeId]:
        way = [directory]
        while (up := parents.get(way[-1])) is not None and up not in way:
            way.append(up)
        return way

    slots = st.tuples(st.integers(ROOT, ROOT + count - 1), st.sampled_from([b"a", b"b"]))
    wanted, taken = data.draw(st.lists(slots)), data.draw(st.sets(slots))
    place = place_for(node, b"a", wanted, above, lambda slot: slot not in taken)
    assert place not in taken
    possible = [s for s in wanted if s not in taken and node not in above(s[0])]
    assert place == possible[0] if possible else place[0] == ROOT
    parents[node] = place[0]
    assert len(above(node)) == len(set(above(node))) and node not in above(place[0])

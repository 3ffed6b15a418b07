"""Where a node was before some records, held against the reference model."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from test_core_namespace import History, histories

from awayfs.core.earlier_names import name_after, names_before
from awayfs.core.records import Record, RecordKind


@settings(max_examples=200, deadline=None)
@given(histories(), st.data())
def test_the_names_before_are_those_that_it_had(history: History, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(history.records)))
    before, later = history.replay(history.records[:kept]), history.records[kept:]
    for node in before.nodes:
        own = [r for r in later if node in (r.node, r.replaced)]
        now, then = history.tree.slots(node), before.slots(node)
        assert sorted(names_before(node, now, own)) == sorted(then)
        left = [after for name in then if (after := name_after(node, name, own)) is not None]
        assert len(set(left)) == len(left) and set(left) <= set(now)
        if not any(record.kind is RecordKind.LINK for record in own):
            assert sorted(left) == sorted(now)


def test_what_was_taken_away_comes_first() -> None:
    moved = Record(2, RecordKind.RENAME, 5, parent=1, name=b"b", to_parent=1, to_name=b"c")
    assert names_before(5, [(1, b"a"), (1, b"c")], [moved]) == [(1, b"b"), (1, b"a")]

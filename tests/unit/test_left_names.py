"""A file that loses one of its names by our own doing stays known; anybody else's change not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from awayfs.core.types import Entry, Kind
from awayfs.store.server import ServerNode
from awayfs.volume.left_names import Left, _is_ours

BASE = Entry(
    name=b"one",
    kind=Kind.FILE,
    mode=0o644,
    uid=1,
    gid=1,
    size=5,
    mtime_ns=10,
    token=b"before",
    file_id=b"i",
    nlink=2,
    ctime_ns=20,
    btime_ns=5,
)
AFTER = replace(BASE, name=b"two", token=b"after", nlink=1, ctime_ns=30, weak=True)


def known(entry: Entry) -> ServerNode:
    names = set(Entry.__slots__) - {"name", "access"}
    fields = {name: getattr(entry, name) for name in names}
    return ServerNode(node=7, digest=None, seen_ns=0, **fields)


@pytest.mark.parametrize(
    ("before", "changed", "ours"),
    [
        (BASE, {}, True),
        (None, {}, True),
        (replace(BASE, token=b"other"), {}, False),
        (BASE, {"size": 6}, False),
        (BASE, {"mtime_ns": 11}, False),
        (BASE, {"mode": 0o600}, False),
        (replace(BASE, mode=0o600), {"mode": 0o600}, True),  # set there, and here as well
        (None, {"mode": 0o600}, False),
        (BASE, {"file_id": b"j"}, False),
        (BASE, {"kind": Kind.FIFO}, False),
    ],
)
def test_only_the_link_count_may_differ(
    before: Entry | None, changed: dict[str, Any], ours: bool
) -> None:
    assert _is_ours(known(BASE), Left(7, before, replace(AFTER, **changed))) is ours

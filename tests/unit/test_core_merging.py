"""Merging of text: a table of cases, and what must hold for any three texts."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awayfs.core import merging
from awayfs.core.merging import (
    LARGEST_TEXT,
    Hunk,
    Merged,
    has_markers,
    hunks_of,
    lines_of,
    why_not_text,
)
from awayfs.volume.merge_process import aligned

BASE = b"one\ntwo\nthree\nfour\nfive\n"


def hunks(base: bytes, local: bytes, server: bytes) -> list[Hunk]:
    """As diff3 tells them."""
    with tempfile.TemporaryDirectory() as place:
        paths = [Path(place, name) for name in ("base", "local", "server")]
        for path, content in zip(paths, (base, local, server), strict=True):
            path.write_bytes(content)
        return hunks_of(aligned(*map(str, paths)))


def merge_text(base: bytes, local: bytes, server: bytes) -> Merged:
    return merging.merge_text(base, local, server, hunks(base, local, server))


def merge_union(base: bytes, local: bytes, server: bytes) -> Merged:
    return merging.merge_union(base, local, server, hunks(base, local, server))


def test_what_diff3_says_is_read() -> None:
    base = b"".join(b"%d\n" % n for n in range(1, 9))
    local = base.replace(b"2\n", b"two\n").replace(b"8\n", b"acht")
    server = base.replace(b"5\n", b"").replace(b"8\n", b"eight\n") + b"9\n"
    assert hunks(base, local, server) == [
        Hunk("local", (1, 2), (1, 2), (1, 2)),
        Hunk("server", (4, 5), (4, 4), (4, 5)),
        Hunk("both", (7, 8), (6, 8), (7, 8)),
    ]


@pytest.mark.parametrize("answer", [b"diff3: gone\n", b"====4\n", b"====\n1:1c\nx\n"])
def test_what_diff3_never_says(answer: bytes) -> None:
    with pytest.raises(ValueError, match="diff3"):
        hunks_of(answer)


# name: base, local, server, merged
CASES = {
    "apart": (b"1 2 3 4 5", b"one 2 3 4 5", b"1 2 3 4 five", b"one 2 3 4 five"),
    "inserted and removed": (b"1 2 3 4", b"0 1 2 3 4", b"1 2 3", b"0 1 2 3"),
    "the same on both": (b"1 2 3 4", b"x 2 3 y", b"x 2 3 4", b"x 2 3 y"),
    "only ours": (b"1 2", b"x", b"1 2", b"x"),
    "only the server's": (b"1 2", b"1 2", b"x", b"x"),
    "emptied by both": (b"1", b"", b"", b""),
    "line endings stay": (b"1\r 2 3\r 4", b"x\r 2 3\r 4", b"1\r 2 3\r y", b"x\r 2 3\r y"),
}


@pytest.mark.parametrize("name", CASES)
def test_clean(name: str) -> None:
    base, local, server, merged = (text.replace(b" ", b"\n") for text in CASES[name])
    for end in (b"", b"\n"):  # a last line without an ending stays without one
        got = merge_text(base + end, local + end, server + end)
        assert (got.content, got.clean) == (merged + end, True)


@pytest.mark.parametrize(
    ("base", "local", "server"),
    [
        (BASE, BASE.replace(b"two", b"2"), BASE.replace(b"two", b"zwei")),
        (BASE, BASE.replace(b"two", b"2"), BASE.replace(b"three", b"3")),  # next to each other
        (BASE, BASE + b"six\n", BASE + b"sechs\n"),
        (BASE, b"", BASE.replace(b"two", b"2")),  # emptied here, edited there
        (b"a", b"b", b"c"),
        (b"", b"a\r\nb", b"c\r\n"),
    ],
)
def test_unclean(base: bytes, local: bytes, server: bytes) -> None:
    got = merge_text(base, local, server)
    assert not got.clean and has_markers(got.content)
    assert {line.rstrip() for line in lines_of(local + b"\n" + server)} - {b""} <= {
        line.rstrip() for line in lines_of(got.content)
    }


def test_markers_stand_in_lines_of_their_own() -> None:
    got = merge_text(b"", b"a\r\nb", b"c").content
    assert got == b"<<<<<<< local\r\na\r\nb\r\n=======\r\nc\r\n>>>>>>> server\r\n"


@pytest.mark.parametrize(
    ("base", "local", "server", "merged"),
    [
        (b"a\n", b"a\nb\n", b"a\nc\n", b"a\nc\nb\n"),
        (b"a\n", b"a\nx\nb\n", b"a\nx\nc\n", b"a\nx\nc\nb\n"),  # what both added is there once
        (b"a", b"a\nb", b"a\nc", b"a\nc\nb\n"),
        (b"", b"b\n", b"c\n", b"c\nb\n"),
        (b"a\n", b"a\nb\n", b"a\n", b"a\nb\n"),
    ],
)
def test_union(base: bytes, local: bytes, server: bytes, merged: bytes) -> None:
    assert merge_union(base, local, server).content == merged


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", None),
        ("ä\n".encode(), None),
        (b"a\0b", "it is binary"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"x" * (LARGEST_TEXT + 1), "it is larger than 4 MiB"),
    ],
)
def test_what_is_text(content: bytes, why: str | None) -> None:
    assert why_not_text(content) == why


def test_a_heading_is_no_marker() -> None:
    assert not has_markers(b"Title\n=======\n\n<<<<<<< is how git marks it\n")
    assert has_markers(b"x\n<<<<<<< local\na\n=======\nb\n>>>>>>> server\n")
    assert not has_markers(b"=======\n>>>>>>> x\n<<<<<<< x\n>>>>>>> x\n")
    assert has_markers(b"<<<<<<< HEAD\r\na\r\n=======\r\nb\r\n>>>>>>> x\r\n")


# -- properties -----------------------------------------------------------------------------

line = st.sampled_from([b"a\n", b"b\n", b"c\r\n", b"\n", b"d\n", b"e\n"])
text = st.lists(line, max_size=12).map(b"".join)
any_text = st.tuples(text, st.sampled_from([b"", b"tail"])).map(b"".join)


@settings(deadline=None, max_examples=40)  # three processes each
@given(any_text, any_text)
def test_one_side_unchanged_or_both_alike(base: bytes, changed: bytes) -> None:
    for merge in (merge_text, merge_union):
        assert merge(base, changed, changed).content == changed
        assert merge(base, base, changed).content == changed
        assert merge(base, changed, base).content == changed
        assert merge(base, changed, base).clean


@settings(deadline=None, max_examples=40)  # three processes each
@given(any_text, any_text, any_text)
def test_nothing_that_a_side_added_is_lost(base: bytes, local: bytes, server: bytes) -> None:
    """Clean or with markers: lines that a side has more often than the base are there."""
    known = Counter(_bare(base))
    for merge in (merge_text, merge_union):
        merged = Counter(_bare(merge(base, local, server).content))
        for side in (local, server):
            for added, number in (Counter(_bare(side)) - known).items():
                assert merged[added] >= min(number, 1), (merge, added)


@settings(deadline=None, max_examples=40)  # three processes each
@given(any_text, any_text, any_text)
def test_a_clean_merge_is_the_same_from_both_sides(
    base: bytes, local: bytes, server: bytes
) -> None:
    here, there = merge_text(base, local, server), merge_text(base, server, local)
    assert here.clean == there.clean
    if here.clean:
        assert here.content == there.content
        assert set(_bare(here.content)) <= {*_bare(base), *_bare(local), *_bare(server)}


@settings(deadline=None, max_examples=40)  # three processes each
@given(any_text, any_text, any_text)
def test_an_unclean_merge_is_marked(base: bytes, local: bytes, server: bytes) -> None:
    merged = merge_text(base, local, server)
    assert has_markers(merged.content) != merged.clean


def _bare(content: bytes) -> list[bytes]:
    return [one.rstrip(b"\r\n") for one in lines_of(content)]


@pytest.mark.parametrize("lines", [b"<<<<<<< a\n", b"<<<<<<< a\n=======\n", b"=======\n"])
def test_looking_for_markers_takes_no_time(lines: bytes) -> None:
    """The daemon waits for it, and the lines come from the share."""
    began = time.monotonic()
    assert not has_markers(lines * ((1 << 20) // len(lines)))
    assert time.monotonic() - began < 1.0

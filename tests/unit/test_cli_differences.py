"""Differences of content as text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awayfs.cli.differences import LINES_MAX, NO_NEWLINE, compare, harmless
from awayfs.cli.session import quoted

EXAMPLES = int(os.environ.get("AWAYFS_EXAMPLES", "200"))
HEAD = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


def patched(base: bytes, lines: tuple[str, ...]) -> bytes:
    """The base with a unified difference applied, each context line compared."""
    old = base.decode().split("\n")
    old = [line + "\n" for line in old[:-1]] + ([old[-1]] if old[-1] else [])
    new: list[str] = []
    at = 0
    for number, line in enumerate(lines):
        head = HEAD.fullmatch(line)
        bare = number + 1 < len(lines) and lines[number + 1] == NO_NEWLINE
        text = line[1:] + ("" if bare else "\n")
        if head:
            start = int(head[1]) - (0 if head[2] == "0" else 1)
            new += old[at:start]
            at = start
        elif line == NO_NEWLINE:
            continue
        elif line[0] in " -":
            assert old[at] == text
            at += 1
        if not head and line[0] in " +":
            new.append(text)
    return "".join(new + old[at:]).encode()


texts = st.lists(st.sampled_from(["a\n", "b\n", "\n", "c\r\n", "d"]), max_size=30).map(
    lambda lines: "".join(lines).encode()
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(texts, texts)
def test_a_difference_leads_from_one_to_the_other(base: bytes, local: bytes) -> None:
    compared = compare(base, local)
    if base == local:
        assert compared.why == "the same content"
    else:
        assert patched(base, compared.lines) == local


@pytest.mark.skipif(shutil.which("patch") is None, reason="no patch(1)")
@pytest.mark.parametrize(
    ("base", "local"),
    [
        ("", "new\n"),
        ("gone\n", ""),
        ("".join(f"{n}\n" for n in range(100)), "".join(f"{n + (n == 50)}\n" for n in range(100))),
        ("one\ntwo", "one\ntwo\n"),
    ],
)
def test_patch_takes_it(base: str, local: str, tmp_path: Path) -> None:
    compared = compare(base.encode(), local.encode())
    (tmp_path / "file").write_text(base)
    text = "\n".join(["--- a/file", "+++ b/file", *compared.lines, ""])
    subprocess.run(
        ["patch", "-p1", "file"], input=text, text=True, cwd=tmp_path, check=True, timeout=20
    )
    assert (tmp_path / "file").read_text() == local if local else True


def test_only_what_is_near_is_shown() -> None:
    base = [f"{n}\n" for n in range(50_000)]
    local = [*base[:25_000], "here\n", *base[25_000:]]
    compared = compare("".join(base).encode(), "".join(local).encode())
    assert compared.lines[0] == "@@ -24998,6 +24998,7 @@" and len(compared.lines) == 8
    assert (compared.added, compared.removed) == (1, 0)


@pytest.mark.parametrize(
    ("base", "local", "why"),
    [
        (b"a\0", b"b", "binary files differ"),
        (b"a", b"\0", "binary files differ"),
        (b"same", b"same", "the same content"),
        (b"\n" * 10, b"x\n" * (LINES_MAX + 1), f"more than {LINES_MAX} lines differ"),
    ],
)
def test_what_is_said_instead(base: bytes, local: bytes, why: str) -> None:
    assert compare(base, local).why == why


def test_bytes_that_are_no_utf8_are_text_all_the_same() -> None:
    assert compare(b"\xff\n", b"\xfe\n").lines == ("@@ -1 +1 @@", "-\udcff", "+\udcfe")
    assert harmless("+\udcff\t\x1b[1m\r") == "+\\xff\t\\x1b[1m\\r"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a/b c", "a/b c"),
        ("tail ", '"tail "'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("\x1b\n", '"\\x1b\\n"'),
        ("\udcff", '"\\xff"'),
    ],
)
def test_quoting(path: str, shown: str) -> None:
    assert quoted(path) == shown

"""What comes of merging three variants of a text, and when it is a text at all.

Conservative: only UTF-8 without NUL is text, and changes that touch each other are left to a
person. Which lines belong together is diff3(1)'s to say (docs/adr/0010); lines are compared as
bytes with their endings, so that these come through as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

LARGEST_TEXT = 4 << 20
"""Bytes of one variant: beyond, aligning lines takes longer than anybody would wait."""
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_RANGE = re.compile(rb"^([123]):(\d+)(?:,(\d+))?([ac])$")
_START, _MIDDLE, _END = b"<<<<<<<", b"=======", b">>>>>>>"
_MARKED = tuple(re.compile(mark, re.M) for mark in (rb"^<{7} ", rb"^={7}\r?$", rb"^>{7} "))


class Merged(Struct, frozen=True):
    """A merged text; ``clean`` without places where both sides changed the same."""

    content: bytes
    clean: bool


def why_not_text(content: bytes) -> str | None:
    """Why these bytes are not merged line by line; None when they are text."""
    if len(content) > LARGEST_TEXT:
        return f"it is larger than {LARGEST_TEXT >> 20} MiB"
    if b"\0" in content:
        return "it is binary"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "it is not UTF-8"
    return None


def has_markers(content: bytes) -> bool:
    """Whether a merge was left unfinished in it."""
    at = 0
    for mark in _MARKED:  # one after the other: what comes from the share may begin many
        found = mark.search(content, at)
        if found is None:
            return False
        at = found.end()
    return True


class Hunk(Struct, frozen=True):
    """Lines in which the three differ, as (first, after the last) from 0.

    ``changed`` says by whom: ``local``, ``server``, ``alike`` (both did the same), ``both``.
    """

    changed: str
    local: tuple[int, int]
    server: tuple[int, int]
    base: tuple[int, int]


_CHANGED = {b"====": "both", b"====1": "local", b"====2": "server", b"====3": "alike"}


def hunks_of(answer: bytes) -> list[Hunk]:
    """What ``diff3 --text LOCAL SERVER BASE`` printed; ValueError for anything else.

    The third file is the one that diff3 compares both others with. ``1:4,6c`` are the lines 4 to
    6 of the first file, ``1:3a`` none after line 3. The files come in any order, and the lines
    themselves begin with two spaces.
    """
    hunks: list[Hunk] = []
    changed, ranges = "", dict[bytes, tuple[int, int]]()
    for line in answer.split(b"\n"):
        if line in _CHANGED:
            changed, ranges = _CHANGED[line], {}
        elif found := _RANGE.match(line):
            file, first, last = found[1], int(found[2]), int(found[3] or found[2])
            ranges[file] = (first, first) if found[4] == b"a" else (first - 1, last)
            if len(ranges) == 3:
                hunks.append(Hunk(changed, ranges[b"1"], ranges[b"2"], ranges[b"3"]))
        elif line and not line.startswith((b"  ", b"\\ ")):
            raise ValueError(f"not what diff3 prints: {line[:80]!r}")
    return hunks


def merge_text(base: bytes, local: bytes, server: bytes, hunks: Sequence[Hunk]) -> Merged:
    """Three ways; where both changed the same, both stand there between markers."""
    quick = _without_lines(base, local, server)
    if quick is not None:
        return Merged(quick, True)
    merged: list[bytes] = []
    clean = True
    ending = _ending(local)
    for ours, theirs in _groups(base, local, server, hunks):
        if theirs is not None:
            clean = False
            merged += _between_markers(ours, theirs, ending)
        else:
            merged += ours
    return Merged(b"".join(merged), clean)


def merge_union(base: bytes, local: bytes, server: bytes, hunks: Sequence[Hunk]) -> Merged:
    """Three ways; where both changed the same, the server's lines come first, then ours.

    For files that are only appended to. Lines that both sides added alike are there once.
    """
    quick = _without_lines(base, local, server)
    if quick is not None:
        return Merged(quick, True)
    merged: list[bytes] = []
    for ours, theirs in _groups(base, local, server, hunks):
        if theirs is not None:
            merged += _ended([*theirs, *_not_in(ours, theirs)], _ending(local))
        else:
            merged += ours
    return Merged(b"".join(merged), True)


def _without_lines(base: bytes, local: bytes, server: bytes) -> bytes | None:
    """The outcome where one side changed nothing, or both the same."""
    if local == server or server == base:
        return local
    return server if local == base else None


def lines_of(content: bytes) -> list[bytes]:
    """Lines with their endings; only a newline ends one."""
    return _LINE.findall(content)


def _groups(
    base: bytes, local: bytes, server: bytes, hunks: Sequence[Hunk]
) -> Iterator[tuple[list[bytes], list[bytes] | None]]:
    """Runs of lines: the ones to take, or ours and theirs where both changed the same."""
    ours, theirs, former = lines_of(local), lines_of(server), lines_of(base)
    done = 0
    for hunk in hunks:
        first, after = hunk.local
        yield ours[done:first], None
        done = after
        if hunk.changed == "server":
            yield theirs[slice(*hunk.server)], None
        elif hunk.changed != "both":
            yield ours[first:after], None
        else:
            yield _parted(ours[first:after], theirs[slice(*hunk.server)], former[slice(*hunk.base)])
    yield ours[done:], None


def _parted(
    ours: list[bytes], theirs: list[bytes], former: list[bytes]
) -> tuple[list[bytes], list[bytes] | None]:
    """What diff3 calls a change of both, for the case that one side did nothing after all."""
    if ours == theirs or theirs == former:
        return ours, None
    return (theirs, None) if ours == former else (ours, theirs)


def _between_markers(local: Sequence[bytes], server: Sequence[bytes], ending: bytes) -> list[bytes]:
    return [
        _START + b" local" + ending,
        *_ended(local, ending),
        _MIDDLE + ending,
        *_ended(server, ending),
        _END + b" server" + ending,
    ]


def _ended(lines: Sequence[bytes], ending: bytes) -> list[bytes]:
    """The lines, each with an ending: what follows must not go on in the last one."""
    return [line if line.endswith(b"\n") else line + ending for line in lines]


def _not_in(lines: Sequence[bytes], others: Sequence[bytes]) -> list[bytes]:
    """The lines after those with which both begin alike."""
    same = 0
    while same < min(len(lines), len(others)) and lines[same] == others[same]:
        same += 1
    return list(lines[same:])


def _ending(content: bytes) -> bytes:
    """How the first line of a text ends."""
    first, newline, _ = content.partition(b"\n")
    return b"\r\n" if newline and first.endswith(b"\r") else b"\n"

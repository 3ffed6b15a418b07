"""What comes of merging three variants of a text, and when it is a text at all.

Conservative: only UTF-8 without NUL is text, and changes that touch each other are left to a
person. The alignment is ``merge3``'s; lines are compared as bytes with their endings, so that
these come through as they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from merge3 import Merge3

LARGEST_TEXT = 4 << 20
"""Bytes of one variant: beyond, aligning lines takes longer than anybody would wait."""
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_START, _MIDDLE, _END = b"<<<<<<<", b"=======", b">>>>>>>"
_MARKED = re.compile(rb"^<{7} [^\n]*$.*?^={7}\r?$.*?^>{7} [^\n]*$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Merged:
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
    return _MARKED.search(content) is not None


def merge_text(base: bytes, local: bytes, server: bytes) -> Merged:
    """Three ways; where both changed the same, both stand there between markers."""
    quick = _without_lines(base, local, server)
    if quick is not None:
        return Merged(quick, True)
    merged: list[bytes] = []
    clean = True
    ending = _ending(local)
    for what, parts in _groups(base, local, server):
        if what == "conflict":
            clean = False
            merged += _between_markers(parts[1], parts[2], ending)
        else:
            merged += parts[0]
    return Merged(b"".join(merged), clean)


def merge_union(base: bytes, local: bytes, server: bytes) -> Merged:
    """Three ways; where both changed the same, the server's lines come first, then ours.

    For files that are only appended to. Lines that both sides added alike are there once.
    """
    quick = _without_lines(base, local, server)
    if quick is not None:
        return Merged(quick, True)
    merged: list[bytes] = []
    for what, parts in _groups(base, local, server):
        if what == "conflict":
            merged += _ended([*parts[2], *_not_in(parts[1], parts[2])], _ending(local))
        else:
            merged += parts[0]
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
    base: bytes, local: bytes, server: bytes
) -> Iterator[tuple[str, list[Sequence[bytes]]]]:
    """Runs of lines: what they are, and the lines; of a ``conflict`` base's, ours, theirs."""
    merge = Merge3(lines_of(base), lines_of(local), lines_of(server))
    for what, *parts in merge.merge_groups():
        yield what, list(parts)


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

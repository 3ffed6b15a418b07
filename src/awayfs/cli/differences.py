"""Differences of content as text: unified, counted, and harmless on a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from awayfs.cli import show

SIZE_MAX: Final = 4 << 20
"""Larger files are not compared line by line."""
LINES_MAX: Final = 4000
"""Nor are files that differ in more lines than this; ``difflib`` takes too long."""
_SNIFFED: Final = 8192
NO_NEWLINE: Final = "\\ No newline at end of file"


@dataclass(frozen=True, slots=True)
class Compared:
    """``lines`` of a unified difference without its head, or ``why`` there are none."""

    lines: tuple[str, ...] = ()
    added: int = 0
    removed: int = 0
    why: str = ""


def compare(base: bytes, local: bytes) -> Compared:
    """What changed from ``base`` to ``local``."""
    if base == local:
        return Compared(why="the same content")
    if is_binary(base) or is_binary(local):
        return Compared(why="binary files differ")
    old, new = _lines(base), _lines(local)
    head, tail = _common(old, new)
    differing = max(len(old), len(new)) - head - tail
    if differing > LINES_MAX:
        return Compared(why=f"more than {LINES_MAX} lines differ")
    lines = tuple(_unified(old, new, head, tail))
    added = sum(line.startswith("+") for line in lines)
    return Compared(lines, added, sum(line.startswith("-") for line in lines))


def is_binary(content: bytes) -> bool:
    """A file with a NUL near its beginning is no text; git decides the same way."""
    return b"\0" in content[:_SNIFFED]


def harmless(line: str) -> str:
    """A line of a file, with what could act on a terminal escaped; tabs stay."""
    return "\t".join(show.printable(part) if part else "" for part in line.split("\t"))


def _lines(content: bytes) -> list[str]:
    """Lines with their newline; only ``\\n`` ends one, so that ``\\r`` and others are seen."""
    text = content.decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _common(old: list[str], new: list[str]) -> tuple[int, int]:
    """Number of equal lines at the beginning and at the end."""
    shorter = min(len(old), len(new))
    head = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    rest = shorter - head
    tail = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    return head, tail


def _unified(old: list[str], new: list[str], head: int, tail: int) -> Iterator[str]:
    """Lines without newlines; equal lines far from any difference are not looked at again."""
    context = 3
    start = max(0, head - context)
    cut = max(0, tail - context)
    a, b = old[start : len(old) - cut], new[start : len(new) - cut]
    for group in difflib.SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(context):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(start, first[1], last[2])} +{_range(start, first[3], last[4])} @@"
        for tag, from_a, to_a, from_b, to_b in group:
            if tag == "equal":
                yield from _marked(" ", a[from_a:to_a])
                continue
            yield from _marked("-", a[from_a:to_a])
            yield from _marked("+", b[from_b:to_b])


def _range(start: int, begin: int, end: int) -> str:
    """A range of lines as diff(1) writes it: of an empty one, the line before."""
    length = end - begin
    first = start + begin + (1 if length else 0)
    return str(first) if length == 1 else f"{first},{length}"


def _marked(mark: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line.removesuffix("\n")
        if not line.endswith("\n"):
            yield NO_NEWLINE

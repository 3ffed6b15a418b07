"""Path patterns, matched in a time that grows with pattern and path alone.

``*`` and ``?`` stop at a slash, ``**`` does not; ``**/`` is any directory or none; ``[...]`` is a
set. Patterns and names both come from the share, so neither may decide how long a match takes: all
places in the pattern that can be reached are followed at once, as the bits of a number.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SET = re.compile(r"\[([!^]?)(\]?[^\]/]+|\])\]")
_ANY, _NAME, _DIRECTORIES = "**", "*", "**/"
LETTERS_KNOWN = 256
"""So many steps are remembered a pattern: names may have any of a million letters."""


class Pattern:
    """One pattern; ``re.error`` for a set that makes no sense."""

    def __init__(self, text: str) -> None:
        self._literal: dict[str, int] = {}
        self._sets: list[tuple[int, re.Pattern[str]]] = []
        self._one = self._any = self._name = self._directories = 0
        self._steps: dict[str, tuple[int, int]] = {}
        bit = 1
        for part in _without_repeats(_parts(text)):
            self._put(part, bit)
            bit <<= 1
        self._end = bit

    def fits(self, path: str) -> bool:
        """Whether the whole of a path fits."""
        return self._reaches_end(path, above=False)

    def fits_or_below(self, path: str) -> bool:
        """Whether the whole of a path fits, or that of a directory above it."""
        return self._reaches_end(path, above=True)

    def _reaches_end(self, path: str, *, above: bool) -> bool:
        places = self._entered(1)
        for letter in path:
            if above and letter == "/" and places & self._end:
                return True
            if letter not in self._steps:
                if len(self._steps) >= LETTERS_KNOWN:
                    self._steps.clear()
                self._steps[letter] = self._step(letter)
            step, stay = self._steps[letter]
            places = self._entered((places & step) << 1) | (places & stay)
            if not places:
                return False
        return bool(places & self._end)

    def _put(self, part: str, bit: int) -> None:
        if part == _ANY:
            self._any |= bit
        elif part == _NAME:
            self._name |= bit
        elif part == _DIRECTORIES:
            self._directories |= bit
        elif part == "?":
            self._one |= bit
        elif len(part) > 1 and part[0] == "[":
            self._sets.append((bit, _set(part)))
        else:
            letter = part[-1]
            self._literal[letter] = self._literal.get(letter, 0) | bit

    def _entered(self, places: int) -> int:
        """With what follows a place that needs no letter."""
        free = self._any | self._name | self._directories
        while (more := places | (places & free) << 1) != places:
            places = more
        return places

    def _step(self, letter: str) -> tuple[int, int]:
        """The places that a letter leads on from, and those that it leaves us at."""
        step = self._literal.get(letter, 0) | self._any
        stay = self._any | self._directories
        if letter == "/":
            return step | self._directories, stay
        for bit, letters in self._sets:
            if letters.match(letter):
                step |= bit
        return step | self._one | self._name, stay | self._name


@lru_cache(maxsize=4096)
def pattern(text: str) -> Pattern:
    """The pattern of a text; one that ends in a slash means everything inside."""
    return Pattern(text + "**" if text.endswith("/") else text)


def _parts(text: str) -> list[str]:
    """The parts of a pattern; a plain letter stands behind a backslash."""
    found: list[str] = []
    at = 0
    while at < len(text):
        if text.startswith(_DIRECTORIES, at):
            part = _DIRECTORIES
        elif text.startswith(_ANY, at):
            part = _ANY
        elif text[at] in "*?":
            part = text[at]
        elif text[at] == "[" and (match := _SET.match(text, at)):
            part = match[0]
        else:
            part = text[at]
            found.append("\\" + part)
            at += 1
            continue
        found.append(part)
        at += len(part)
    return found


def _without_repeats(parts: list[str]) -> list[str]:
    """The same with no two in a row that need no letter and could be one."""
    found: list[str] = []
    for part in parts:
        before = found[-1] if found else ""
        if part == before == _DIRECTORIES or (before == _ANY and part in (_NAME, _DIRECTORIES)):
            continue
        if part == _ANY and before in (_ANY, _NAME, _DIRECTORIES):
            found[-1] = _ANY
            continue
        found.append(part)
    return found


def _set(part: str) -> re.Pattern[str]:
    found = _SET.fullmatch(part)
    assert found is not None
    inner = re.sub(r"([\\\[\]^&~|])", r"\\\1", found[2])
    return re.compile(f"[{'^' if found[1] else ''}{inner}]", re.S)

"""How operation ids are made: the client's letters, and the record's number.

An operation that goes with a record's own has a letter and more: ``CLIENT SEQ l INDEX`` for a
hard link that is made anew, ``CLIENT r SEQ d NODE`` for a directory that comes back,
``CLIENT m SEQ`` for a stranger that goes aside.
"""

from __future__ import annotations

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """A number in the letters that an ``OpId`` may have."""
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text or "0"

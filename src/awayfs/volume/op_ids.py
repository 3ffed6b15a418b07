"""How operation ids are made: the client's letters, and the record's number.

An operation that goes with a record's own has a letter and more: ``CLIENT SEQ l INDEX`` for a
hard link that is made anew, ``CLIENT r SEQ d NODE`` for a directory that comes back,
``CLIENT 0m SEQ`` for a stranger that goes aside. What is moved has ``0`` before the number, with
which no number begins: what such an operation stages may be the only name of somebody's file.
"""

from __future__ import annotations

from awayfs.core.types import OpId

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """A number in the letters that an ``OpId`` may have."""
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text or "0"


def move_op(client: str, seq: int) -> OpId:
    """The operation of a record that moves what stands on the server."""
    return f"{client}0{base36(seq)}"


def aside_op(client: str, seq: int) -> OpId:
    """The operation that moves a stranger aside for a record."""
    return f"{client}0m{base36(seq)}"


def is_move(op: OpId, client: str) -> bool:
    """Whether an operation of a client's may have staged the only name of a file."""
    return op.startswith(f"{client}0")

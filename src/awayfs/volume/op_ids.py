"""How operation ids are made: the client's letters, and the record's number.

    CLIENT SEQ              a record's own operation
    CLIENT 0 SEQ            a record's own, where it moves what stands on the server
    CLIENT 00 l MARK SEQ    a hard link that is made anew for a record
    CLIENT 00 r MARK SEQ    a directory that comes back for a record
    CLIENT 00 m MARK SEQ    a stranger that goes aside for a record
    CLIENT 00 k MARK        a stray that gets a name; no record's

SEQ has no zero in front and MARK a fixed length, so that an id is of one kind and of one record.
What a move stages may be the only name of somebody's file.
"""

from __future__ import annotations

import hashlib
from typing import Final

from awayfs.core.types import NodeId, OpId

DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
LAST_SEQ: Final = 2**63 - 1
MARK: Final = 7  # 32 letters are all that an id may have: 10 of the client, a number up to 2**51

_LINK, _REVIVE, _ASIDE, _NAMING = "lrmk"


def base36(number: int) -> str:
    """A number in the letters that an ``OpId`` may have."""
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text or "0"


def own_op(client: str, seq: int) -> OpId:
    """The operation of a record: the same at every try, unlike any other client's."""
    return client + base36(seq)


def move_op(client: str, seq: int) -> OpId:
    """The operation of a record that moves what stands on the server."""
    return f"{client}0{base36(seq)}"


def link_op(client: str, seq: int, parent: NodeId, name: bytes) -> OpId:
    """The operations that make one more name of a file anew, after it was uploaded for a record.

    They are the name's, however many others are known by the next try.
    """
    return f"{client}00{_LINK}{_mark(b'%d/%s' % (parent, name))}{base36(seq)}"


def revive_op(client: str, seq: int, directory: NodeId) -> OpId:
    """The operation that brings back a directory for a record."""
    return f"{client}00{_REVIVE}{_mark(b'%d' % directory)}{base36(seq)}"


def aside_op(client: str, seq: int) -> OpId:
    """The operation that moves a stranger aside for a record."""
    return f"{client}00{_ASIDE}{_mark(b'')}{base36(seq)}"


def naming_op(client: str, stray: OpId) -> OpId:
    """The operation that gives a name to what ``stray`` left."""
    return f"{client}00{_NAMING}{_mark(stray.encode('ascii'))}"


def is_move(op: OpId, client: str) -> bool:
    """Whether an operation of a client's may have staged the only name of a file."""
    rest = op.removeprefix(client)
    if rest.startswith("00"):
        return rest[2:3] in (_ASIDE, _NAMING)
    return rest.startswith("0")


def record_of(op: OpId, client: str) -> int | None:
    """The number of the record that an operation of a client's was for; None if for none."""
    rest = op.removeprefix(client)
    if rest.startswith("00"):
        rest = rest[3 + MARK :]
    elif rest.startswith("0"):
        rest = rest[1:]
    seq = int(rest, 36) if rest else 0
    return seq if 0 < seq <= LAST_SEQ else None


def _mark(text: bytes) -> str:
    """A few letters, always as many, that stand for a text."""
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
    return base36(number % 36**MARK).rjust(MARK, "0")

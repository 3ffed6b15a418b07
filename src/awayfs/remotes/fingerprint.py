"""The fingerprint of a listing, by which one that is as it was need not be sent or compared.

It has two parts: of all that the entries are but for whether their tokens are weak, and of the
names of the files whose tokens are. A token that was strong when it was seen proves, seen again,
that nothing changed, weak or not by now. So the first part alone stands for a listing of which no
token is weak, and is found again in one of which all are: as in SFTP's first of each session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from operator import attrgetter, itemgetter

import msgspec

from awayfs.core.diff import is_open_question
from awayfs.core.types import Entry
from awayfs.ports.remote import Listing

SIZE = 16
_encode = msgspec.msgpack.Encoder().encode
_but_weak = attrgetter(
    "name", *(name for name in Entry.__struct_fields__ if name not in ("name", "weak"))
)


def fingerprint_of(entries: Iterable[Entry]) -> bytes:
    """BLAKE2b-128 of each part, whatever the order of entries; of no weak tokens, nothing."""
    strong = _digest(sorted(map(_but_weak, entries), key=itemgetter(0)))
    weak = sorted(entry.name for entry in entries if is_open_question(entry))
    return strong + _digest(weak) if weak else strong


def listing(entries: list[Entry], asked: bytes) -> Listing:
    """The answer to ``Remote.list_unless``."""
    fingerprint = fingerprint_of(entries)
    if_strong = fingerprint[:SIZE]
    if asked in (fingerprint, if_strong):
        return Listing(asked, if_strong, None)
    return Listing(fingerprint, if_strong, entries)


def _digest(value: object) -> bytes:
    return hashlib.blake2b(_encode(value), digest_size=SIZE).digest()

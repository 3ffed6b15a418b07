"""Who wrote what, and who may have taken it away again.

All content is made of tokens, each written once and never again. A token may be gone only if
somebody removed or overwrote it in whose view it stood, or a decision gave it up. "View" is the
local tree for a client, the directory itself for whoever works on the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SIZE = 8
_TOKEN = re.compile(rb"<[abs]\d{5}>")


def tokens_in(data: bytes) -> frozenset[bytes]:
    """The tokens of some content."""
    return frozenset(_TOKEN.findall(data))


def is_whole(data: bytes, *, partial: bool = False) -> bool:
    """Whether content consists of tokens and nothing else; where it says so of itself, of zeros for
    those that nobody has."""
    if partial:
        data = data.replace(bytes(SIZE), b"")
    return len(data) % SIZE == 0 and len(_TOKEN.findall(data)) * SIZE == len(data)


class Ledger:
    """All tokens of one run."""

    def __init__(self) -> None:
        self._count = 0
        self.written: set[bytes] = set()
        self.given_up: dict[bytes, str] = {}

    def new(self, who: str) -> bytes:
        """A token that nobody has written yet."""
        self._count += 1
        return b"<%s%05d>" % (who.encode(), self._count)

    def wrote(self, token: bytes) -> None:
        """It was acknowledged."""
        self.written.add(token)

    def give_up(self, tokens: Iterable[bytes], why: str) -> None:
        """Somebody who saw them took them away."""
        for token in tokens:
            self.given_up.setdefault(token, why)

    @property
    def owed(self) -> set[bytes]:
        """What must still be somewhere."""
        return self.written - self.given_up.keys()

"""Who wrote what, how often, and who may have taken it away again.

All content consists of blocks, each with a token that is drawn once. A token is owed from the
moment its writer was told that it is safe: in as many blocks as were written. It may be gone only
if somebody removed or overwrote it who saw it, or who is told afterwards what it was.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable

from tests.storm.record import Record

BLOCK = 32
FILL = b"z"
"""What is written to be lost."""
_BLOCK = re.compile(rb"(<[abs]\d{6}>)\.{23}")


def block(token: bytes) -> bytes:
    """The content that bears a token."""
    return token.ljust(BLOCK, b".")


def tokens_in(data: bytes) -> set[bytes]:
    """The tokens of some content."""
    return set(_BLOCK.findall(data))


def counted(data: bytes) -> Counter[bytes]:
    """In how many blocks each token stands."""
    return Counter(_BLOCK.findall(data))


def torn(data: bytes) -> bytes:
    """What is neither a whole block nor a hole nor fill: nobody has ever written it so."""
    return _BLOCK.sub(b"", data).replace(b"\0", b"").replace(FILL, b"")


class Ledger:
    """All tokens of one storm. Actors are threads, so it is for all of them."""

    def __init__(self, record: Record) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._record = record
        self.written: dict[bytes, int] = {}
        self.where: dict[bytes, bytes] = {}
        self.given_up: dict[bytes, str] = {}

    def new(self, who: str) -> bytes:
        """A token that nobody has written yet; ``who`` is one letter."""
        with self._lock:
            self._count += 1
            return b"<%s%06d>" % (who.encode(), self._count)

    def wrote(self, token: bytes, blocks: int, path: bytes) -> None:
        """So many blocks of it were acknowledged."""
        with self._lock:
            self.written[token] = blocks
            self.where[token] = path
        self._record.log("WROTE", token.decode(), blocks, path)

    def give_up(self, tokens: Iterable[bytes], why: str) -> None:
        """They may be gone from now on."""
        tokens = sorted(tokens)
        with self._lock:
            for token in tokens:
                self.given_up.setdefault(token, why)
        if tokens:
            self._record.log("GIVEN UP", ",".join(token.decode() for token in tokens), why)

    def missing(self, found: Counter[bytes]) -> dict[bytes, int]:
        """What is owed and was not found, or not all of it; ``found`` has the most blocks seen."""
        return {
            token: blocks
            for token, blocks in self.written.items()
            if token not in self.given_up and found[token] < blocks
        }

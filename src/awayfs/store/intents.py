"""Replayed operations that may have been executed without our hearing of it.

There are as many as are on their way, so that all of them are known in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from awayfs.ports.remote import Intent
from awayfs.store.db import Database

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Intent).decode

_SET: Final = "INSERT OR REPLACE INTO intents VALUES (?, ?, ?)"
_CLEAR: Final = "DELETE FROM intents WHERE seq = ?"

REFUSED: Final = "refused"
"""The stage of an upload whose last try is known to have replaced nothing."""


class Intents:
    """At most one intent a record; ``stage`` is the volume's word for how far it came."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._read: dict[int, tuple[Intent, str]] | None = None
        db.on_forget.append(self._forget)

    def _forget(self) -> None:
        self._read = None

    @property
    def _known(self) -> dict[int, tuple[Intent, str]]:
        if self._read is None:
            rows = self._db.rows("SELECT seq, intent, stage FROM intents ORDER BY seq")
            self._read = {seq: (_decode(intent), stage) for seq, intent, stage in rows}
        return self._read

    def get(self, seq: int) -> tuple[Intent, str] | None:
        """The intent of a record and its stage."""
        return self._known.get(seq)

    def is_refused(self, seq: int) -> bool:
        """Whether the server refused the last try of an upload, so that it replaced nothing."""
        found = self._known.get(seq)
        return found is not None and found[1] == REFUSED

    def all(self) -> list[tuple[int, Intent, str]]:
        """(seq, intent, stage) of all, by seq."""
        return [(seq, *found) for seq, found in sorted(self._known.items())]

    def set(self, seq: int, intent: Intent, stage: str) -> None:
        """Set or overwrite."""
        self.set_all({seq: intent}, stage)

    def set_all(self, intents: Mapping[int, Intent], stage: str) -> None:
        """Those of several records, by seq, at the same stage."""
        with self._db.transaction():
            self._db.execute_many(_SET, [(s, stage, _encode(one)) for s, one in intents.items()])
            self._known.update({seq: (intent, stage) for seq, intent in intents.items()})

    def clear(self, seq: int) -> None:
        """The operation is settled; fine if there is none."""
        self.clear_all((seq,))

    def clear_all(self, seqs: Iterable[int]) -> None:
        """The same of several."""
        known = self._known
        if there := [seq for seq in seqs if seq in known]:
            with self._db.transaction():
                self._db.execute_many(_CLEAR, [(seq,) for seq in there])
                for seq in there:
                    known.pop(seq, None)

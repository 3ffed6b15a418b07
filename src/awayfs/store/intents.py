"""Replayed operations that may have been executed without our hearing of it."""

from __future__ import annotations

from typing import Final

import msgspec

from awayfs.ports.remote import Intent
from awayfs.store.db import Database

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Intent).decode

REFUSED: Final = "refused"
"""The stage of an upload whose last try is known to have replaced nothing."""


class Intents:
    """At most one intent a record; ``stage`` is the volume's word for how far it came."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, seq: int) -> tuple[Intent, str] | None:
        """The intent of a record and its stage."""
        row = self._db.row("SELECT intent, stage FROM intents WHERE seq = ?", (seq,))
        return None if row is None else (_decode(row[0]), row[1])

    def is_refused(self, seq: int) -> bool:
        """Whether the server refused the last try of an upload, so that it replaced nothing."""
        row = self._db.row("SELECT stage FROM intents WHERE seq = ?", (seq,))
        return row is not None and row[0] == REFUSED

    def all(self) -> list[tuple[int, Intent, str]]:
        """(seq, intent, stage) of all, by seq."""
        rows = self._db.rows("SELECT seq, intent, stage FROM intents ORDER BY seq")
        return [(seq, _decode(intent), stage) for seq, intent, stage in rows]

    def set(self, seq: int, intent: Intent, stage: str) -> None:
        """Set or overwrite."""
        with self._db.transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO intents VALUES (?, ?, ?)", (seq, stage, _encode(intent))
            )

    def clear(self, seq: int) -> None:
        """The operation is settled; fine if there is none."""
        with self._db.transaction():
            self._db.execute("DELETE FROM intents WHERE seq = ?", (seq,))

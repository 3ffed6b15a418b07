"""Renames that save a file: of one that was made here only to take the name of another.

Who gives up such a save wants the version of the server, and no file under the name that the editor
wrote to. That has to be known after a restart, too, and when the file is on the server already.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from awayfs.store.db import Database

_PREFIX: Final = "save."


class Saves:
    """Their sequence numbers, while they are in the journal."""

    def __init__(self, db: Database) -> None:
        self._db = db
        keys = db.rows("SELECT key FROM facts WHERE key GLOB 'save.*'")
        self._seqs = {int(key.removeprefix(_PREFIX)) for (key,) in keys}

    def __contains__(self, seq: int) -> bool:
        return seq in self._seqs

    def add(self, seq: int) -> None:
        """A record saves a file. Needs a transaction around it."""
        self._db.execute("INSERT INTO facts VALUES (?, '')", (f"{_PREFIX}{seq}",))
        self._seqs.add(seq)
        self._db.on_rollback(self._seqs.discard, seq)

    def clear_all(self, seqs: Iterable[int]) -> None:
        """Records leave the journal. Needs a transaction around it."""
        for seq in self._seqs.intersection(seqs):
            self._db.execute("DELETE FROM facts WHERE key = ?", (f"{_PREFIX}{seq}",))
            self._seqs.discard(seq)
            self._db.on_rollback(self._seqs.add, seq)

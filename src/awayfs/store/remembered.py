"""Rows that were read a moment ago, and are asked for again: no query for them.

Whoever changes a row forgets it, or remembers it as it is then. What a transaction did is void
when it is rolled back, so that all is forgotten then (``Database.forget``).
"""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeVar

from awayfs.store.db import Database

K = TypeVar("K")
V = TypeVar("V")
_MOST: Final = 8192


class Remembered(dict[K, V]):
    """Values by key; of too many those go that were kept first."""

    def __init__(self, db: Database) -> None:
        db.on_forget.append(self.clear)

    def keep(self, key: K, value: V) -> None:
        """Remember one."""
        if len(self) >= _MOST:  # many at once: to find the first of a dict costs what is gone
            for old in list(islice(self, _MOST // 4)):
                del self[old]
        self[key] = value

    def forget(self, key: K) -> None:
        """It may be another one from now on."""
        self.pop(key, None)

"""Rows that were read a moment ago, and are asked for again: no query for them.

Whoever changes a row forgets it, or remembers it as it is then. What a transaction did is void
when it is rolled back, so that all is forgotten then (``Database.forget``).
"""

from __future__ import annotations

from typing import Final, TypeVar

from awayfs.store.db import Database

K = TypeVar("K")
V = TypeVar("V")
_MOST: Final = 4096


class Remembered(dict[K, V]):
    """Values by key; of too many the one that was kept first goes."""

    def __init__(self, db: Database) -> None:
        db.on_forget.append(self.clear)

    def keep(self, key: K, value: V) -> None:
        """Remember one."""
        if len(self) >= _MOST and key not in self:
            del self[next(iter(self))]
        self[key] = value

    def forget(self, key: K) -> None:
        """It may be another one from now on."""
        self.pop(key, None)

"""Small settings and marks of a volume."""

from __future__ import annotations

from awayfs.store.db import Database


class Facts:
    """Text by key. Keys the store itself uses start with ``store.`` or ``server.``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, key: str) -> str | None:
        """The value, or None where none was set."""
        value: str | None = self._db.value("SELECT value FROM facts WHERE key = ?", (key,))
        return value

    def set(self, key: str, value: str) -> None:
        """Set or overwrite."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (key, value),
            )

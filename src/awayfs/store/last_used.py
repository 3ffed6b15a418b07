"""When content was used last, and how often lately: what culling goes by."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from awayfs.core.types import NodeId
from awayfs.store.db import Database


class Use(Struct, frozen=True):
    """When content was used last, how often lately, and how many bytes of it are here."""

    used_ns: int
    node: NodeId
    uses: int
    bytes: int


class LastUsed:
    """Columns of ``content``, written with the timed sync. ``has`` tells whose content is here."""

    def __init__(self, db: Database, has: Callable[[NodeId], bool]) -> None:
        self._db = db
        self._has = has
        self._noted: dict[NodeId, int] = {}

    def mark(self, node: NodeId, ns: int) -> None:
        """Note a use; written with the next timed sync."""
        self._noted[node] = ns

    def flush(self) -> None:
        """Write the noted uses; lost uses after a crash only make culling less apt.

        What follows within a minute is the same use; after a month, counting begins anew.
        """
        if self._noted:
            noted, self._noted = self._noted, {}
            with self._db.transaction():
                self._db.execute_many(
                    "UPDATE content SET uses = CASE WHEN ?1 - used_ns < 60000000000 THEN uses"
                    " WHEN ?1 - used_ns > 2592000000000000 THEN 1 ELSE min(uses + 1, 255) END,"
                    " used_ns = ?1 WHERE node = ?2",
                    [(ns, node) for node, ns in noted.items()],
                )

    def of(self, node: NodeId) -> int:
        """When it was used last; -1 where there is no content."""
        if node in self._noted and self._has(node):
            return self._noted[node]
        row = self._db.row("SELECT used_ns FROM content WHERE node = ?", (node,))
        return -1 if row is None else int(row[0])

    def in_order(self, after: tuple[int, NodeId], limit: int) -> list[Use]:
        """At most ``limit`` contents, least recently used first, beyond (time, node)."""
        self.flush()
        rows = self._db.rows(
            'SELECT used_ns, node, uses, (SELECT total("end" - start) FROM ranges'
            " WHERE ranges.node = content.node) FROM content"
            " WHERE (used_ns, node) > (?, ?) ORDER BY used_ns, node LIMIT ?",
            (*after, limit),
        )
        return [Use(used_ns, node, uses, int(size)) for used_ns, node, uses, size in rows]

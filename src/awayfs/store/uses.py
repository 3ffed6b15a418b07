"""What was learned of the uses of files, saved now and then: losing some of it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from awayfs.core.learning import Use
from awayfs.core.types import NodeId
from awayfs.store.db import Database

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(dict[int, float]).decode


class Uses:
    """One row a file."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self) -> Iterator[tuple[NodeId, Use]]:
        """Everything saved, the oldest use first; a row that cannot be read is left out."""
        rows = self._db.rows("SELECT node, directory, weight, at_s, beside FROM uses ORDER BY at_s")
        for node, directory, weight, at_s, beside in rows:
            try:
                yield node, Use(weight, at_s, directory, _unpack(beside))
            except msgspec.MsgspecError:
                continue

    def save(self, uses: Mapping[NodeId, Use | None]) -> None:
        """Save some; None removes."""
        with self._db.transaction():
            self._db.execute_many(
                "INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?, ?)",
                [
                    (node, use.directory, use.weight, use.at_s, _pack(use.beside))
                    for node, use in uses.items()
                    if use is not None
                ],
            )
            self._db.execute_many(
                "DELETE FROM uses WHERE node = ?",
                [(node,) for node, use in uses.items() if use is None],
            )

    def clear(self) -> None:
        """Forget everything."""
        with self._db.transaction():
            self._db.execute("DELETE FROM uses")

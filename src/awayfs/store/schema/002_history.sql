-- Schema 2: what a decision about a conflict gave up, until it is culled by age or size.

-- Losing variants of decided conflicts; the bytes of a file are in history/ID.
CREATE TABLE history (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    conflict INTEGER NOT NULL,           -- conflicts.id that was decided: what lost together
    node     INTEGER NOT NULL,           -- nodes.id at that time
    path     BLOB NOT NULL,              -- where it was shown, from the volume's root
    which    TEXT NOT NULL,              -- 'local' or 'server'; 'current' of an undo
    mode     INTEGER NOT NULL,           -- permission bits
    mtime_ns INTEGER NOT NULL,
    size     INTEGER NOT NULL,           -- bytes of history/ID
    kept_ns  INTEGER NOT NULL,           -- when it was decided
    why      TEXT NOT NULL,              -- the decision in words
    result   BLOB                        -- BLAKE2b-256 of what was decided for; NULL: not known
) STRICT;
CREATE INDEX history_by_conflict ON history (conflict);
CREATE INDEX history_by_path ON history (path);

-- Schema 8: what was used lately, and together with what (core.learning).

CREATE TABLE uses (
    node      INTEGER PRIMARY KEY,       -- nodes.id of a file
    directory INTEGER NOT NULL,          -- nodes.id where it was used last
    weight    REAL NOT NULL,             -- what was left of its uses at at_s
    at_s      REAL NOT NULL,             -- last use, seconds since 1970
    beside    BLOB NOT NULL              -- msgpack of {nodes.id: weight}: used together with it
) STRICT;

-- Schema 9: what the server did not let this account do when it was last asked.

CREATE TABLE refusals (
    node   INTEGER PRIMARY KEY,          -- nodes.id
    denied INTEGER NOT NULL              -- bits: 4 reading, 2 writing, 8 what was asked for
) STRICT;

-- Schema 5: what a decision gave up beside content: names, attributes, targets, and kinds.

CREATE TABLE history_shapes (
    id      INTEGER PRIMARY KEY,         -- history.id
    before  BLOB NOT NULL,               -- msgpack of store.history.Shape: what was given up
    after   BLOB,                        -- the same of what it was given up for; NULL: not known
    content INTEGER NOT NULL             -- 1: history/ID has content; 0: there is no such file
) STRICT;

-- Schema 3: extended attributes as they were before the first unsent change of each.

CREATE TABLE xattr_bases (
    node  INTEGER NOT NULL,              -- nodes.id
    name  BLOB NOT NULL,                 -- full name, b'user.…'
    value BLOB,                          -- NULL: it was not there
    PRIMARY KEY (node, name)
) STRICT, WITHOUT ROWID;

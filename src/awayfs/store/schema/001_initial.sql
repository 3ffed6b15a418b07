-- Schema 1 of a volume's database. Names are BLOB (bytes as the kernel gives them), times are
-- integer nanoseconds since 1970, sizes and offsets are bytes. A boolean is 0 or 1.

-- Small settings and marks of the volume: identity, mode, boot id, epochs.
CREATE TABLE facts (
    key   TEXT PRIMARY KEY,              -- dotted name, e.g. 'server.epoch'
    value TEXT NOT NULL                  -- text; the owner of the key knows its format
) STRICT, WITHOUT ROWID;

-- File system objects as this machine shows them. A row lives as long as a name, an open
-- handle or a journal record needs it.
CREATE TABLE nodes (
    id       INTEGER PRIMARY KEY AUTOINCREMENT, -- local id = st_ino; never reused; 1 is the root
    kind     INTEGER NOT NULL,           -- S_IFMT bits
    mode     INTEGER NOT NULL,           -- permission bits, 0 to 07777
    uid      INTEGER NOT NULL,
    gid      INTEGER NOT NULL,
    rdev     INTEGER NOT NULL,           -- device number of character and block nodes, else 0
    size     INTEGER NOT NULL,           -- bytes
    atime_ns INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    btime_ns INTEGER NOT NULL,
    nlink    INTEGER NOT NULL,           -- directories: 2 + subdirectories; others: their names
    target   BLOB                        -- where a symlink points; NULL for other kinds
) STRICT;

-- The local tree: one row a directory entry.
CREATE TABLE names (
    parent INTEGER NOT NULL,             -- nodes.id of the directory
    name   BLOB NOT NULL,                -- one path component
    node   INTEGER NOT NULL,             -- nodes.id of what is there
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_node ON names (node);

-- Extended attributes as this machine shows them.
CREATE TABLE xattrs (
    node  INTEGER NOT NULL,              -- nodes.id
    name  BLOB NOT NULL,                 -- full name, b'user.…'
    value BLOB NOT NULL,
    PRIMARY KEY (node, name)
) STRICT, WITHOUT ROWID;

-- What was last seen on the server and adopted, or what our own replay put there: the base of
-- every local change. Columns mirror core.types.Entry.
CREATE TABLE server_nodes (
    node     INTEGER PRIMARY KEY,        -- nodes.id
    kind     INTEGER NOT NULL,           -- S_IFMT bits
    mode     INTEGER NOT NULL,
    uid      INTEGER NOT NULL,
    gid      INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    token    BLOB NOT NULL,              -- version token, opaque
    weak     INTEGER NOT NULL,           -- 1: equal tokens do not prove equal content
    file_id  BLOB,                       -- identity that survives renames on the server
    nlink    INTEGER NOT NULL,
    rdev     INTEGER NOT NULL,
    target   BLOB,
    ctime_ns INTEGER,                    -- the server's change time, where it tells
    btime_ns INTEGER,                    -- the server's birth time, where it tells
    digest   BLOB,                       -- BLAKE2b-256 of the content of this revision, if known
    seen_ns  INTEGER NOT NULL,           -- when it was seen; counts only within its epoch
    epoch    INTEGER NOT NULL            -- value of fact 'server.epoch' when it was seen
) STRICT;
CREATE INDEX server_nodes_by_file_id ON server_nodes (file_id) WHERE file_id IS NOT NULL;

-- The server's tree as last seen; node is the local id of what was there.
CREATE TABLE server_names (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    node   INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX server_names_by_node ON server_names (node);

-- Directories whose server names are complete: a row means that they were listed once.
CREATE TABLE server_listings (
    directory INTEGER PRIMARY KEY,       -- nodes.id
    listed_ns INTEGER NOT NULL,          -- when; counts only within its epoch
    epoch     INTEGER NOT NULL
) STRICT;

-- The journal: local changes in the order they were acknowledged (core.records.Record).
CREATE TABLE journal (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT, -- order; never reused
    kind        TEXT NOT NULL,           -- RecordKind
    node        INTEGER NOT NULL,        -- nodes.id; may outlive the node (REMOVE)
    parent      INTEGER NOT NULL,        -- 0 where the kind has none
    name        BLOB NOT NULL,
    to_parent   INTEGER NOT NULL,        -- RENAME and EXCHANGE, else 0
    to_name     BLOB NOT NULL,
    replaced    INTEGER NOT NULL,        -- node displaced or exchanged, else 0
    set_mode    INTEGER,                 -- SETATTR: the attributes that were set; NULL is not set
    set_uid     INTEGER,
    set_gid     INTEGER,
    set_mtime   INTEGER,
    set_atime   INTEGER,
    xattr_name  BLOB NOT NULL,
    xattr_value BLOB,                    -- NULL removes
    state       TEXT NOT NULL,           -- RecordState
    reason      TEXT NOT NULL,           -- why it is parked
    at_ns       INTEGER NOT NULL         -- wall time, for display
) STRICT;
CREATE INDEX journal_by_name ON journal (parent, name) WHERE parent != 0;
CREATE INDEX journal_by_to_name ON journal (to_parent, to_name) WHERE to_parent != 0;

-- Replayed operations that may have been executed on the server without our hearing of it.
CREATE TABLE intents (
    seq    INTEGER PRIMARY KEY,          -- journal.seq
    stage  TEXT NOT NULL,                -- how far the replay came; the volume's own words
    intent BLOB NOT NULL                 -- msgpack of ports.remote.Intent
) STRICT;

-- Content of files held here; the bytes are in content/xx/NODE or content/xx/NODE.VERSION.
CREATE TABLE content (
    node     INTEGER PRIMARY KEY,        -- nodes.id
    version  INTEGER NOT NULL,           -- which file holds it; 0 has no suffix
    token    BLOB,                       -- server revision that the fetched ranges belong to
    synced   INTEGER NOT NULL,           -- 1: file and its directory entry are durable
    stamp_ns INTEGER NOT NULL,           -- the file's mtime when it was made durable
    used_ns  INTEGER NOT NULL            -- last use, for culling
) STRICT;
CREATE INDEX content_by_use ON content (used_ns);
CREATE INDEX content_unsynced ON content (node) WHERE synced = 0;

-- Which bytes of a content file mean something. Never overlapping, never adjoining.
CREATE TABLE ranges (
    node  INTEGER NOT NULL,              -- content.node
    start INTEGER NOT NULL,              -- first byte
    "end" INTEGER NOT NULL,              -- byte after the last
    PRIMARY KEY (node, start)
) STRICT, WITHOUT ROWID;

-- Content as it was before the first local change; bytes in base/xx/NODE.VERSION.
CREATE TABLE bases (
    node    INTEGER PRIMARY KEY,         -- nodes.id
    version INTEGER NOT NULL,            -- which file holds it
    token   BLOB,                        -- server revision it is
    ranges  BLOB NOT NULL,               -- pairs of little-endian 64-bit start and end
    bytes   INTEGER NOT NULL,            -- bytes copied; 0 when they are shared with the content
    synced  INTEGER NOT NULL             -- 1: durable; after a power cut others are dropped
) STRICT;
CREATE INDEX bases_unsynced ON bases (node) WHERE synced = 0;

-- What the user wants to keep here.
CREATE TABLE pins (
    node      INTEGER PRIMARY KEY,       -- nodes.id
    priority  INTEGER NOT NULL,          -- higher is fetched first
    recursive INTEGER NOT NULL           -- 1: everything below too
) STRICT;

-- Conflicts that wait for a decision; variants are in variants/ID.WHICH.
CREATE TABLE conflicts (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    node            INTEGER NOT NULL,    -- nodes.id of the local variant
    kind            TEXT NOT NULL,       -- core.conflicts
    parent          INTEGER NOT NULL,    -- where it happened
    name            BLOB NOT NULL,
    detected_ns     INTEGER NOT NULL,
    record_seqs     TEXT NOT NULL,       -- journal.seq of the parked records, space-separated
    base_token      BLOB,                -- the revision that the local change was based on
    server_entry    BLOB,                -- msgpack of the server's Entry; NULL: absent there
    server_variant  TEXT,                -- file name in variants/; NULL: not fetched
    server_complete INTEGER NOT NULL,    -- 1: the server variant is whole
    base_variant    INTEGER NOT NULL,    -- 1: variants/ID.base is there
    note            TEXT NOT NULL
) STRICT;
CREATE INDEX conflicts_by_node ON conflicts (node);

INSERT INTO nodes VALUES (1, 16384, 493, 0, 0, 0, 0, 0, 0, 0, 0, 2, NULL);

-- A database of schema 1 as the first release wrote it. Never to be changed.
BEGIN TRANSACTION;
CREATE TABLE bases (
    node    INTEGER PRIMARY KEY,         -- nodes.id
    version INTEGER NOT NULL,            -- which file holds it
    token   BLOB,                        -- server revision it is
    ranges  BLOB NOT NULL,               -- pairs of little-endian 64-bit start and end
    bytes   INTEGER NOT NULL,            -- bytes copied; 0 when they are shared with the content
    synced  INTEGER NOT NULL             -- 1: durable; after a power cut others are dropped
) STRICT;
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
INSERT INTO "conflicts" VALUES(1,3,'update/update',2,X'C3A4',11,'2',NULL,X'8FA46E616D65C40164A46B696E64CD4000A46D6F6465CD01EDA375696400A367696400A473697A6500A86D74696D655F6E7302A5746F6B656EC403746F6BA47765616BC2A766696C655F6964C40169A56E6C696E6B01A47264657600A6746172676574C0A86374696D655F6E73C0A86274696D655F6E73C0',NULL,0,0,'n');
CREATE TABLE content (
    node     INTEGER PRIMARY KEY,        -- nodes.id
    version  INTEGER NOT NULL,           -- which file holds it; 0 has no suffix
    token    BLOB,                       -- server revision that the fetched ranges belong to
    synced   INTEGER NOT NULL,           -- 1: file and its directory entry are durable
    stamp_ns INTEGER NOT NULL,           -- the file's mtime when it was made durable
    used_ns  INTEGER NOT NULL            -- last use, for culling
) STRICT;
INSERT INTO "content" VALUES(3,0,NULL,1,1795363220588221522,0);
CREATE TABLE facts (
    key   TEXT PRIMARY KEY,              -- dotted name, e.g. 'server.epoch'
    value TEXT NOT NULL                  -- text; the owner of the key knows its format
) STRICT, WITHOUT ROWID;
INSERT INTO "facts" VALUES('volume.url','dir:/x');
CREATE TABLE intents (
    seq    INTEGER PRIMARY KEY,          -- journal.seq
    stage  TEXT NOT NULL,                -- how far the replay came; the volume's own words
    intent BLOB NOT NULL                 -- msgpack of ports.remote.Intent
) STRICT;
INSERT INTO "intents" VALUES(1,'sent',X'86A26F70A36F7031A470617468C404642FC3A4A8657870656374656484A5746F6B656EC0A766696C655F6964C0A46B696E64C0A7636F6E74656E74C3AA6F746865725F70617468C0AE6F746865725F6578706563746564C0A6737461676564C0');
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
INSERT INTO "journal" VALUES(1,'create',3,2,X'C3A4',0,X'',0,NULL,NULL,NULL,NULL,NULL,X'',NULL,'pending','',8);
INSERT INTO "journal" VALUES(2,'store',3,0,X'',0,X'',0,NULL,NULL,NULL,NULL,NULL,X'',NULL,'pending','',9);
CREATE TABLE names (
    parent INTEGER NOT NULL,             -- nodes.id of the directory
    name   BLOB NOT NULL,                -- one path component
    node   INTEGER NOT NULL,             -- nodes.id of what is there
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "names" VALUES(1,X'64',2);
INSERT INTO "names" VALUES(2,X'C3A4',3);
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
INSERT INTO "nodes" VALUES(1,16384,493,0,0,0,0,0,0,0,0,3,NULL);
INSERT INTO "nodes" VALUES(2,16384,493,0,0,0,0,1,2,3,4,2,NULL);
INSERT INTO "nodes" VALUES(3,32768,420,0,0,0,5,1,2,3,4,1,NULL);
CREATE TABLE pins (
    node      INTEGER PRIMARY KEY,       -- nodes.id
    priority  INTEGER NOT NULL,          -- higher is fetched first
    recursive INTEGER NOT NULL           -- 1: everything below too
) STRICT;
INSERT INTO "pins" VALUES(2,10,1);
CREATE TABLE ranges (
    node  INTEGER NOT NULL,              -- content.node
    start INTEGER NOT NULL,              -- first byte
    "end" INTEGER NOT NULL,              -- byte after the last
    PRIMARY KEY (node, start)
) STRICT, WITHOUT ROWID;
INSERT INTO "ranges" VALUES(3,0,5);
CREATE TABLE server_listings (
    directory INTEGER PRIMARY KEY,       -- nodes.id
    listed_ns INTEGER NOT NULL,          -- when; counts only within its epoch
    epoch     INTEGER NOT NULL
) STRICT;
INSERT INTO "server_listings" VALUES(1,7,0);
CREATE TABLE server_names (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    node   INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "server_names" VALUES(1,X'64',2);
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
INSERT INTO "server_nodes" VALUES(2,16384,493,0,0,0,2,X'746F6B',0,X'69',1,0,NULL,NULL,NULL,NULL,6,0);
CREATE TABLE xattrs (
    node  INTEGER NOT NULL,              -- nodes.id
    name  BLOB NOT NULL,                 -- full name, b'user.…'
    value BLOB NOT NULL,
    PRIMARY KEY (node, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "xattrs" VALUES(3,X'757365722E6B',X'76');
CREATE INDEX names_by_node ON names (node);
CREATE INDEX server_nodes_by_file_id ON server_nodes (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX server_names_by_node ON server_names (node);
CREATE INDEX journal_by_name ON journal (parent, name) WHERE parent != 0;
CREATE INDEX journal_by_to_name ON journal (to_parent, to_name) WHERE to_parent != 0;
CREATE INDEX content_by_use ON content (used_ns);
CREATE INDEX content_unsynced ON content (node) WHERE synced = 0;
CREATE INDEX bases_unsynced ON bases (node) WHERE synced = 0;
CREATE INDEX conflicts_by_node ON conflicts (node);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('nodes',3);
INSERT INTO "sqlite_sequence" VALUES('journal',2);
INSERT INTO "sqlite_sequence" VALUES('conflicts',1);
COMMIT;
PRAGMA user_version = 1;

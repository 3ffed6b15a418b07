-- Schema 7: settings of single nodes, and how often content was used.

-- What was set by extended attribute (core.setting_table); pins have a table of their own.
CREATE TABLE node_settings (
    node  INTEGER NOT NULL,              -- nodes.id
    name  TEXT NOT NULL,                 -- the setting's name
    value TEXT NOT NULL,                 -- as it was given
    PRIMARY KEY (node, name)
) STRICT, WITHOUT ROWID;

ALTER TABLE content ADD COLUMN uses INTEGER NOT NULL DEFAULT 0; -- how often lately, for culling

-- Schema 6: listings that need not be compared entry by entry, because nothing changed in them.

-- Directories of whose entries all that is known here is as a listing had it. Whatever changes in
-- server_names or server_nodes takes the row away, so that nobody has to remember to; when an
-- entry was seen is no part of what is known of it.
CREATE TABLE server_fingerprints (
    directory   INTEGER PRIMARY KEY,     -- server_listings.directory
    fingerprint BLOB NOT NULL            -- of that listing (ports.remote.Listing)
) STRICT;

CREATE TRIGGER name_came AFTER INSERT ON server_names BEGIN
    DELETE FROM server_fingerprints WHERE directory = new.parent;
END;

CREATE TRIGGER name_went AFTER DELETE ON server_names BEGIN
    DELETE FROM server_fingerprints WHERE directory = old.parent;
END;

CREATE TRIGGER name_changed AFTER UPDATE ON server_names BEGIN
    DELETE FROM server_fingerprints WHERE directory IN (old.parent, new.parent);
END;

CREATE TRIGGER node_came AFTER INSERT ON server_nodes BEGIN
    DELETE FROM server_fingerprints
        WHERE directory IN (SELECT parent FROM server_names WHERE node = new.node);
END;

CREATE TRIGGER node_went AFTER DELETE ON server_nodes BEGIN
    DELETE FROM server_fingerprints
        WHERE directory IN (SELECT parent FROM server_names WHERE node = old.node);
END;

CREATE TRIGGER node_changed AFTER UPDATE OF kind, mode, uid, gid, size, mtime_ns, token, weak,
    file_id, nlink, rdev, target, ctime_ns, btime_ns ON server_nodes BEGIN
    DELETE FROM server_fingerprints
        WHERE directory IN (SELECT parent FROM server_names WHERE node = new.node);
END;

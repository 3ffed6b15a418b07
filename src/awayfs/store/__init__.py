"""Everything that is kept on disk: the database and the cache files."""

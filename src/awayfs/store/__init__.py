"""Everything that is kept on disk: the database and the cache files.

``store`` opens a volume's state and names the parts: the local tree (``nodes``, ``names``),
the server's (``server``), the ``journal`` with its ``intents``, ``content`` with its
``ranges`` and ``bases``, ``pins``, ``conflicts``, ``facts``. ``db`` alone imports the
database driver; the schema is in ``schema/``. ``sync`` makes things durable; ``reserve`` keeps
room for what a full disk must not stop; ``salvage``, ``carry`` and ``fsck`` deal with damage.
docs/CRASH.md says what survives what.
"""

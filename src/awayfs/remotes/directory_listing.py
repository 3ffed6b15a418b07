"""Complete listings of directories that others may be changing."""

from __future__ import annotations

import errno
import os

from awayfs.core.types import Entry, RemotePath
from awayfs.remotes import linux, progress
from awayfs.remotes.directory_tree import Tree
from awayfs.remotes.names import is_hidden, is_linux_name

PASSES = 8
TICK_EVERY = 128


def list_directory(tree: Tree, path: RemotePath, client: str = "") -> list[Entry]:
    """All entries of one directory. FileNotFoundError, PermissionError, NotADirectoryError.

    readdir(3) may miss an entry that is renamed while the names are read, under its old name
    and its new one. So the names are read again until the directory's own token stays the
    same over a pass, and names from all passes count; whether one exists is for the lookup
    of that name to say. After some passes a directory that never rests is taken as it is:
    each name that stood throughout has been seen.
    """
    with tree.pinned(path) as (pin, _):
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=pin)
    try:
        entries = []
        for count, name in enumerate(sorted(_names(fd, client))):
            if count % TICK_EVERY == 0:
                progress.tick()
            entry = tree.entry_at(fd, name, fresh=False)
            if entry is not None:
                entries.append(entry)
        if linux.statx(fd, fresh=True).nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the directory was removed")
        return entries
    finally:
        os.close(fd)


def _names(fd: int, client: str) -> set[bytes]:
    found: set[bytes] = set()
    for _ in range(PASSES):
        before = linux.statx(fd, fresh=True)
        found.update(os.fsencode(name) for name in os.listdir(fd))
        after = linux.statx(fd, fresh=True)
        if (before.ctime_ns, before.mtime_ns) == (after.ctime_ns, after.mtime_ns):
            break
        progress.tick()
    return {name for name in found if is_linux_name(name) and not is_hidden(name, client)}

"""Making things durable without holding up the event loop.

``begin`` (loop) notes what is unsynced; ``SyncWork.run`` (any thread) makes it durable;
``finish`` (loop) writes ``synced = 1`` for what did not change in between.

Order of ``run``: content and base files, their directories, then the log. So a record that
is durable in the log never refers to a file whose content or name is not. The flag itself
becomes durable with the next sync, which errs to the safe side (docs/CRASH.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct, field

from awayfs.core.types import NodeId
from awayfs.store.content import Content
from awayfs.store.db import Database
from awayfs.store.files import Files, begin_writeback, fsync_path


class SyncWork(Struct):
    """What one sync covers: all that was committed, and written to files, before ``begin``."""

    files: list[tuple[NodeId, str, int]]
    bases: list[tuple[NodeId, str]]
    wal_path: str
    unlink: list[str]
    stamps: dict[NodeId, int] = field(default_factory=dict)
    bases_done: list[tuple[NodeId, str]] = field(default_factory=list)

    def run(self) -> None:
        """Blocking, any thread. Raises OSError when something cannot be made durable."""
        folders: set[str] = set()
        for _, path, _ in self.files if len(self.files) > 1 else ():
            with suppress(FileNotFoundError):
                begin_writeback(path)
        for node, path, _ in self.files:
            try:
                self.stamps[node] = _fsync_stamped(path)
            except FileNotFoundError:
                continue  # dropped, replaced or not yet made
            folders.add(os.path.dirname(path))
        for node, path in self.bases:
            try:
                fsync_path(path)
            except FileNotFoundError:
                continue
            folders.add(os.path.dirname(path))
            self.bases_done.append((node, path))
        for folder in sorted(folders):
            fsync_path(folder)
        fsync_path(self.wal_path)
        for path in self.unlink:
            os.unlink(path)


def _fsync_stamped(path: str) -> int:
    """fsync; the mtime before it, so that a later write shows as another one."""
    stamp = os.stat(path).st_mtime_ns
    fsync_path(path)
    return stamp


def begin(db: Database, content: Content, files: Files, nodes: Iterable[NodeId] | None) -> SyncWork:
    """Note what is to be made durable: the given nodes (all with None), and the log."""
    bases = content.bases.unsynced()
    if nodes is None:
        content.last_used.flush()
    else:
        nodes = set(nodes)
        bases = [node for node in bases if node in nodes]
    unlink, files.to_unlink = files.to_unlink, []
    return SyncWork(
        files=content.unsynced_files(nodes),
        bases=[(node, content.bases.path(node) or "") for node in bases],
        wal_path=db.wal_path,
        unlink=unlink,
    )


def finish(db: Database, content: Content, work: SyncWork) -> None:
    """Write down what is durable now, unless it changed since ``begin``."""
    if not work.stamps and not work.bases_done:
        return
    with db.transaction():
        content.mark_synced(
            (node, work.stamps[node])
            for node, _, change in work.files
            if node in work.stamps and content.change(node) == change
        )
        for node, path in work.bases_done:
            content.bases.mark_synced(node, path)

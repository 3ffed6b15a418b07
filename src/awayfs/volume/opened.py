"""Nodes whose content file is open, and the attributes that writes change.

A write changes size and times. Writing them to the database each time would cost more than
the write, so while a *whole* file (every byte cached) is open they live here and are saved
when the last writer closes, at fsync and at the timed commit. Nothing acknowledged hangs on
that: for a whole file with an unsent store the cache file itself tells size and time, and
``recover`` takes them from there after a crash. A partly cached file has no such witness,
so its changes go to the database at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from awayfs.core.types import NodeId
from awayfs.store.nodes import Node
from awayfs.store.store import Store


@dataclass(slots=True)
class OpenNode:
    """One node with an open content file; shared by all its handles."""

    node: NodeId
    fd: int
    size: int
    mtime_ns: int
    ctime_ns: int
    whole: bool
    users: int = 0
    writers: int = 0
    unsaved: bool = False  # size and times differ from the database
    unsynced: bool = False  # written since the last fsync was begun
    edits: int = 0  # counts changes of content, so that a torn upload is noticed
    written_ns: int = 0
    passthrough: int = 0  # backing id the kernel reads through, 0 for none
    outdated: bool = False  # the server has a newer content, to be taken after the last close


class OpenNodes:
    """All open nodes of a volume."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[NodeId, OpenNode] = {}

    def get(self, node: NodeId) -> OpenNode | None:
        """The open node, or None when nobody has it open."""
        return self._open.get(node)

    def all(self) -> list[OpenNode]:
        """Every open node."""
        return list(self._open.values())

    def acquire(self, node: Node, *, writing: bool) -> OpenNode:
        """One more user of a node's content; opens the cache file for the first."""
        opened = self._open.get(node.id)
        if opened is None:
            fd = self._store.content.open(node.id)
            opened = self._open[node.id] = OpenNode(
                node=node.id,
                fd=fd,
                size=node.size,
                mtime_ns=node.mtime_ns,
                ctime_ns=node.ctime_ns,
                whole=self._store.content.covers(node.id, 0, node.size),
            )
        opened.users += 1
        opened.writers += writing
        return opened

    def release(self, opened: OpenNode, *, writing: bool) -> bool:
        """One user less; saves after the last writer, closes after the last user (True)."""
        opened.writers -= writing
        opened.users -= 1
        if writing and not opened.writers:
            self.save(opened)
        if opened.users:
            return False
        self.save(opened)
        self._open.pop(opened.node, None)
        os.close(opened.fd)
        return True

    def overlay(self, node: Node) -> None:
        """Put the unsaved attributes of an open node into ``node``."""
        opened = self._open.get(node.id)
        if opened is not None and opened.unsaved:
            node.size = opened.size
            node.mtime_ns = opened.mtime_ns
            node.ctime_ns = opened.ctime_ns

    def save(self, opened: OpenNode) -> None:
        """Write unsaved attributes, and the range they imply, to the database."""
        if not opened.unsaved:
            return
        with self._store.transaction():
            self._store.nodes.update(
                opened.node,
                size=opened.size,
                mtime_ns=opened.mtime_ns,
                ctime_ns=opened.ctime_ns,
            )
            if opened.whole and opened.size:
                self._store.content.add_range(opened.node, 0, opened.size)
        opened.unsaved = False

    def save_all(self) -> None:
        """Write the unsaved attributes of every open node."""
        for opened in self._open.values():
            self.save(opened)

    def close_all(self) -> None:
        """Save and close everything; for the end of a mount."""
        for opened in list(self._open.values()):
            self.save(opened)
            os.close(opened.fd)
        self._open.clear()

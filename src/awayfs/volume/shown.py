"""What the plain name of a conflicted file shows: ``-o conflicted=local|server|error``.

``local`` is what it would show anyway. With ``error`` a file in conflict cannot be opened. With
``server`` it has the server's attributes and content, and cannot be changed. Nothing here is
written down: the local variant stays what it is, and so does what is replayed.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable

from msgspec.structs import replace

from awayfs.core.errors import ECONFLICTED
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.store.nodes import Node
from awayfs.volume.context import Context
from awayfs.volume.revisions import Revision
from awayfs.volume.virtual_conflicts import ConflictTree

ADVICE = "the file is in conflict; see awayfs conflicts"
KEPT_MOST = 32
"""Revisions of the server's that are kept open for who reads by the plain name."""


class Shown:
    """Decides for the mount; the volume itself never asks."""

    def __init__(self, context: Context, conflicts: ConflictTree) -> None:
        self._context = context
        self._store = context.store
        self._conflicts = conflicts
        self.errors = context.options.conflicted == "error"
        self.server = context.options.conflicted == "server"
        self._revisions: dict[NodeId, tuple[int, bytes, Revision]] = {}
        if self.errors or self.server:
            self._store.conflicts.on_change.append(self._changed)

    def _changed(self, node: NodeId) -> None:
        """A conflict was found, learned more of, or decided: the kernel asks again."""
        self._drop(node)
        self._context.kernel.forget_node(node)

    def is_conflicted(self, node: NodeId) -> bool:
        """Whether a conflict of the node waits for a decision."""
        return bool(self._store.conflicts.count()) and bool(self._store.conflicts.of_node(node))

    def check_open(self, node: Node, *, writing: bool) -> None:
        """ECONFLICTED where the plain name may not be opened so."""
        if not (self.errors or self.server) or not self.is_conflicted(node.id):
            return
        if self.errors or writing:
            raise OSError(ECONFLICTED, ADVICE)
        if self._servers(node) is None and self._is_ours_only(node):
            raise OSError(ECONFLICTED, "in conflict, and the server has no such file to show")
        opened = self._context.opened.get(node.id)
        if opened is not None and opened.passthrough and self._servers(node) is not None:
            raise OSError(ECONFLICTED, "in conflict, and still open with its local content")

    def check_change(self, node: NodeId) -> None:
        """ECONFLICTED where what is shown is the server's, and so not to be changed here."""
        if self.server and self.is_conflicted(node):
            raise OSError(ECONFLICTED, ADVICE)

    def is_servers(self, node: NodeId) -> bool:
        """Whether the content that is shown is another than the local one."""
        found = self._context.node(node) if self.server else None
        return found is not None and self._servers(found) is not None

    def attributes(self, node: Node) -> Node:
        """The node as its plain name shows it."""
        found = self._servers(node) if self.server else None
        if found is None:
            return node
        entry = found[1]
        uid, gid = self._context.local_owner(entry)
        return replace(
            node,
            size=len(entry.target or b"") if entry.kind is Kind.SYMLINK else entry.size,
            mode=entry.mode,
            uid=uid,
            gid=gid,
            mtime_ns=entry.mtime_ns,
            ctime_ns=entry.ctime_ns if entry.ctime_ns is not None else entry.mtime_ns,
            target=entry.target,
        )

    def read(self, node: NodeId, offset: int, size: int) -> bytes | Awaitable[bytes] | None:
        """The server's content; None where the local one is shown."""
        found = self._context.node(node)
        servers = self._servers(found) if found is not None else None
        if servers is None:
            return None
        return self._revision(node, *servers).read(offset, size)

    def end(self) -> None:
        """Close what is kept open."""
        for node in list(self._revisions):
            self._drop(node)

    def _servers(self, node: Node) -> tuple[Conflict, Entry] | None:
        """The conflict and the server's entry that are shown in the node's place."""
        if not self.is_conflicted(node.id) or not self._is_ours_only(node):
            return None
        for conflict in reversed(self._store.conflicts.of_node(node.id)):
            entry = conflict.server_entry
            if entry is not None and entry.kind is node.kind is not Kind.DIRECTORY:
                return conflict, entry
        return None

    def _is_ours_only(self, node: Node) -> bool:
        """Whether something of it is unsent; otherwise what is here is the server's already."""
        return node.kind is not Kind.DIRECTORY and self._store.journal.has_any(node.id)

    def _revision(self, node: NodeId, conflict: Conflict, entry: Entry) -> Revision:
        """Kept open, since every read asks for it."""
        known = self._revisions.get(node)
        if known is not None and known[:2] == (conflict.id, entry.token):
            return known[2]
        self._drop(node)
        while len(self._revisions) >= KEPT_MOST:
            self._drop(next(iter(self._revisions)))
        try:
            revision = self._conflicts.server_revision(conflict, entry)
        except FileNotFoundError as error:
            raise OSError(errno.EIO, "the server's variant has gone from the cache") from error
        self._revisions[node] = (conflict.id, entry.token, revision)
        return revision

    def _drop(self, node: NodeId) -> None:
        known = self._revisions.pop(node, None)
        if known is not None:
            known[2].close()

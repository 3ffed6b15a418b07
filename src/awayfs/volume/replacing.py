"""The whole content of a file replaced at once: what a merge made, or what an undo brings back.

Unlike a write, it is one transaction with whatever goes along with it, so that a daemon which
dies leaves the old content or the new one. Open files follow: their descriptor leads to the new
cache file from the commit on.
"""

from __future__ import annotations

import logging
import os

from awayfs.core.errors import UsageError
from awayfs.core.types import Kind, NodeId
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.opened import OpenNode

log = logging.getLogger(__name__)


class Replacing:
    """Replaces contents."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def check(self, node_id: NodeId) -> None:
        """Raise ``UsageError`` where a program's own view of the file would be torn."""
        node = self._store.nodes.get(node_id)
        if node is None or node.kind is not Kind.FILE:
            raise UsageError("there is no file here whose content could be replaced")
        opened = self._context.opened.get(node_id)
        if opened is not None and (opened.writers or opened.passthrough):
            raise UsageError("a program has it open; close it there and try again")

    def witness(self, node_id: NodeId) -> str:
        """A text that is another one once the content was changed; told apart, never compared
        in any other way.
        """
        try:
            status = os.stat(self._store.content.fd_path(node_id))
        except FileNotFoundError:
            return "none"
        edits = self._context.opened.edits(node_id)
        if not edits and not status.st_size:
            return "none"  # replay opens the cache file of what it makes
        return f"{edits}.{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"

    def replace(self, node_id: NodeId, staged: str, token: bytes | None) -> None:
        """A staged file, whole and durable, becomes the content, as of now.

        To be called inside a transaction, with the record that tells of it. ``token`` is the
        server's revision that it was made from.
        """
        now, size = self._context.now(), os.stat(staged).st_size
        opened = self._context.opened.get(node_id)
        if opened is not None:
            self._context.opened.save(opened)
        self._context.opened.edited(node_id)
        content = self._store.content
        content.replace_with(node_id, staged, size, token)
        content.stamp(node_id, now)
        self._store.nodes.update(node_id, size=size, mtime_ns=now, ctime_ns=now)
        fault("resolve.replacing")
        if opened is not None:
            path = content.fd_path(node_id)
            self._store.db.on_commit(lambda: _follow(opened, path, size, now))
        self._store.db.on_commit(lambda: self._context.kernel.forget_node(node_id))


def _follow(opened: OpenNode, path: str, size: int, now: int) -> None:
    """The open file shows the new content."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        log.error("the open file of node %d shows its old content: %s", opened.node, error)
        return
    os.dup2(fd, opened.fd, inheritable=False)
    os.close(fd)
    opened.size, opened.whole, opened.unsaved, opened.outdated = size, True, False, False
    opened.mtime_ns = opened.ctime_ns = now

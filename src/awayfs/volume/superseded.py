"""Keeping a version that one side wrote over while the other changed the same file otherwise.

Renamed here and rewritten there, or the other way round: both changes stand, and nobody is asked.
But who renamed a file may have done so to keep what was in it. So what the two sides began with
goes to the history, like a variant that lost a decision, until it is culled or brought back.
"""

from __future__ import annotations

import logging
import os

from awayfs.core.history import to_cull
from awayfs.core.types import NodeId, Range
from awayfs.store.files import clone_or_copy, unlink_quietly
from awayfs.store.history import Lost
from awayfs.store.nodes import Node
from awayfs.volume.context import Context

log = logging.getLogger(__name__)

HERE = "changed here, rewritten on the server"
THERE = "rewritten here, moved on the server"


class Superseded:
    """Puts such versions into the history, if all of them is here. Needs a transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def by_server(self, node: NodeId) -> None:
        """The clean content of a file is about to be dropped for the server's new one."""
        content, base = self._store.content, self._store.server.get(node)
        if base is None or content.token(node) != base.token:
            return
        if base.size and content.covers(node, 0, base.size):
            self._keep(node, content.fd_path(node), base.size, "local", HERE)

    def by_us(self, node: NodeId) -> None:
        """What was written here goes out over the base, under the name that the server chose."""
        content, base = self._store.content, self._store.server.get(node)
        path = content.base_path(node)
        if base is None or path is None or content.base_token(node) != base.token:
            return
        if base.size and content.base_ranges(node) == [Range(0, base.size)]:
            self._keep(node, path, base.size, "server", THERE)

    def _keep(self, node: NodeId, source: str, size: int, which: str, why: str) -> None:
        """That it cannot be kept holds nobody up: no promise hangs on it."""
        found = self._context.node(node)
        if found is None:
            return
        staged = self._store.content.stage_path()
        try:
            copied = clone_or_copy(
                source, staged, [Range(0, size)], self._context.options.base_limit
            )
            if copied is not None:
                os.truncate(staged, size)
                history, limits = self._store.history, self._context.settings().history
                history.add(self._lost(found, size, which, why), staged)
                history.remove(to_cull(history.weights(), self._context.now(), limits))
        except OSError as error:
            unlink_quietly(staged)
            log.warning("the former version of node %d is not kept: %s", node, error)

    def _lost(self, node: Node, size: int, which: str, why: str) -> Lost:
        return Lost(
            conflict=self._store.history.new_decision(),
            node=node.id,
            path=self._store.nodes.path(node.id) or b"?",
            which=which,
            mode=node.mode,
            mtime_ns=node.mtime_ns,
            size=size,
            kept_ns=self._context.now(),
            why=why,
        )

"""Descriptors of cache files that must go on showing what they showed when they were opened.

A cache file is changed in place by writes, and emptied when the server has a newer revision.
Whoever reads a variant from it keeps a private copy from then on, made before the change (a
reflink, or up to a limit the bytes), and only then: mostly nothing is copied at all.
"""

from __future__ import annotations

import errno
import logging
import os

from awayfs.core.types import NodeId, Range
from awayfs.store.files import clone_or_copy, unlink_quietly
from awayfs.store.store import Store

log = logging.getLogger(__name__)


class Held:
    """One such descriptor. ``ranges`` is what meant something when it was opened."""

    __slots__ = ("_fd", "node", "ranges")

    def __init__(self, node: NodeId, fd: int, ranges: list[Range]) -> None:
        self.node = node
        self._fd = fd
        self.ranges = ranges

    @property
    def fd(self) -> int:
        """The descriptor; ESTALE where the content is gone and could not be kept."""
        if self._fd < 0:
            raise OSError(errno.ESTALE, "the content has changed, and was too large to be kept")
        return self._fd

    def show(self, fd: int) -> None:
        """Go on with another descriptor; -1 for none."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd

    @property
    def is_lost(self) -> bool:
        """Whether the content is gone."""
        return self._fd < 0


class HeldContent:
    """All of them, by node."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._held: dict[NodeId, list[Held]] = {}

    def open(self, node: NodeId, ranges: list[Range]) -> Held:
        """Hold the present content of a node, of which ``ranges`` mean something."""
        fd = os.open(self._store.content.fd_path(node), os.O_RDONLY | os.O_CLOEXEC)
        held = Held(node, fd, ranges)
        self._held.setdefault(node, []).append(held)
        return held

    def close(self, held: Held) -> None:
        """Not wanted any more."""
        self._forget(held)
        held.show(-1)

    def about_to_change(self, node: NodeId) -> None:
        """The cache file of a node is about to be written to or emptied."""
        if node not in self._held:
            return
        for held in self._held.pop(node):
            held.show(self._copy(held))

    def _forget(self, held: Held) -> None:
        others = self._held.get(held.node, [])
        if held in others:
            others.remove(held)
        if not others:
            self._held.pop(held.node, None)

    def _copy(self, held: Held) -> int:
        target = self._store.content.stage_path()
        source = f"/proc/self/fd/{held.fd}"
        try:
            if clone_or_copy(source, target, held.ranges, self._limit) is None:
                return -1
            return os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.info("what is open of node %d cannot be kept: %s", held.node, error)
            return -1
        finally:
            unlink_quietly(target)

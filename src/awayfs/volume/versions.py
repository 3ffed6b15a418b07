"""Which content a cache file has: what is sent must be what was read, all of one moment."""

from __future__ import annotations

import os

from msgspec import Struct

from awayfs.core.types import NodeId
from awayfs.volume.context import Context


class Torn(Exception):
    """The file changed while it was being uploaded, or was decided about; later again."""


class Version(Struct, frozen=True):
    """What tells whether a cache file changed: our count of edits, and the file's own witness."""

    edits: int
    mtime_ns: int
    size: int


class Versions:
    """Tells them."""

    def __init__(self, context: Context) -> None:
        self._content = context.store.content
        self._opened = context.opened

    def of(self, node: NodeId, fd: int | None = None) -> Version:
        """Which content a node has at this moment; ``fd`` is its file, if open."""
        edits = self._opened.edits(node)
        try:
            status = os.stat(self._content.fd_path(node) if fd is None else fd)
        except FileNotFoundError:
            return Version(edits, 0, 0)
        return Version(edits, status.st_mtime_ns, status.st_size)

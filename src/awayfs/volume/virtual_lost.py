"""``.awayfs/lost+found``: work that has no place, or that the server would not take.

    refused/PATH       what is here of changes that the server refused
    nameless/NAME.N    what is here of conflicts whose name, or directory, is gone
    NAME               what repairs of the state directory found and kept
    damaged-TIME/      a database that was set aside

The first two are live and go with the decision; the others are files that nobody deletes.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial

from msgspec import Struct, field

from awayfs.core.types import Kind, NodeId, Range
from awayfs.store.conflicts import Conflict
from awayfs.store.nodes import KINDS, Node
from awayfs.volume.context import Context
from awayfs.volume.revisions import Found, Revision, Revisions
from awayfs.volume.virtual_conflicts import ConflictTree
from awayfs.volume.virtual_node import Listing, Path, VirtualNode, directory, of_node

REFUSED, NAMELESS = b"refused", b"nameless"
KEPT = b"lost+found"
ASIDE = b"damaged-"
CONTENT = (Kind.FILE, Kind.SYMLINK)


class _Live(Struct):
    """Nodes by where they are shown, as of one state of the database."""

    changes: int = -1
    nodes: dict[Path, NodeId] = field(default_factory=dict)
    below: dict[Path, dict[bytes, Kind]] = field(default_factory=dict)

    def add(self, path: Path, node: Node) -> None:
        self.nodes[path] = node.id
        for depth, name in enumerate(path, 1):
            kind = node.kind if depth == len(path) else Kind.DIRECTORY
            self.below.setdefault(path[: depth - 1], {})[name] = kind


class LostTree:
    """What is in ``lost+found``."""

    def __init__(self, context: Context, revisions: Revisions, conflicts: ConflictTree) -> None:
        self._context = context
        self._store = context.store
        self._revisions = revisions
        self._conflicts = conflicts
        self._live = _Live()

    def find(self, path: Path) -> VirtualNode:
        """What stands at a path."""
        if not path or path in ((REFUSED,), (NAMELESS,)):
            return directory(self._context.now())
        return self._waiting(path) if path[0] in (REFUSED, NAMELESS) else self._on_disk(path)

    def entries(self, path: Path) -> Listing:
        """Names in a directory."""
        if not path:
            names = [(name, Kind.DIRECTORY) for name in (REFUSED, NAMELESS)]
            return sorted(names + self._top())
        if path[0] in (REFUSED, NAMELESS):
            return sorted(self._shown().below.get(path, {}).items())
        return _scanned(self._place(path))

    # -- live -----------------------------------------------------------------------------

    def _waiting(self, path: Path) -> VirtualNode:
        shown = self._shown()
        node = self._context.node(shown.nodes[path]) if path in shown.nodes else None
        if node is not None:
            return of_node(self._context, node, partial(self._revisions.local, node.id))
        if path in shown.below:
            return directory(self._context.now())
        raise OSError(errno.ENOENT, "no such file or directory")

    def _shown(self) -> _Live:
        """What waits for a decision; made anew when anything was written since."""
        changes = self._store.db.changes
        if self._live.changes != changes:
            self._live = _Live(changes)
            for path, conflict in self._conflicts.refused():
                node = self._content_of(conflict)
                if node is not None and self._store.nodes.names(node.id):
                    self._live.add((REFUSED, *path), node)
            self._add_nameless(self._live)
        return self._live

    def _add_nameless(self, live: _Live) -> None:
        for place in self._store.conflicts.places():
            if self._store.nodes.path(place.node) is not None:
                continue
            conflict = self._store.conflicts.get(place.id)
            node = self._content_of(conflict) if conflict is not None else None
            if node is not None:
                live.add((NAMELESS, place.name + b".%d" % node.id), node)

    def _content_of(self, conflict: Conflict) -> Node | None:
        node = self._context.node(conflict.node)
        return node if node is not None and node.kind in CONTENT else None

    # -- kept on disk ---------------------------------------------------------------------

    def _top(self) -> Listing:
        state = os.fsencode(self._store.directory)
        place = os.path.join(state, KEPT)
        kept = _scanned(place) if os.path.isdir(place) else []
        aside = [entry for entry in _scanned(state) if entry[0].startswith(ASIDE)]
        reserved = (REFUSED, NAMELESS)
        return [entry for entry in kept if entry[0] not in reserved] + aside

    def _place(self, path: Path) -> bytes:
        """The path in the state directory; only what is offered can be named."""
        state = os.fsencode(self._store.directory)
        if any(name in (b"", b".", b"..") or b"/" in name for name in path):
            raise OSError(errno.ENOENT, "no such file or directory")
        if path[0].startswith(ASIDE):
            return os.path.join(state, *path)
        return os.path.join(state, KEPT, *path)

    def _on_disk(self, path: Path) -> VirtualNode:
        place = self._place(path)
        status = os.lstat(place)
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind not in (Kind.FILE, Kind.DIRECTORY):
            raise OSError(errno.ENOENT, "no such file or directory")
        found = [Found(os.fsdecode(place), [Range(0, status.st_size)])]
        return VirtualNode(
            kind=kind,
            mode=0o500 if kind is Kind.DIRECTORY else 0o400,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            nlink=2 if kind is Kind.DIRECTORY else 1,
            open=lambda: Revision(self._context, status.st_size, found, None),
            found=lambda: found,
        )


def _scanned(path: bytes) -> Listing:
    with os.scandir(path) as entries:
        return sorted(
            (entry.name, Kind.DIRECTORY if entry.is_dir(follow_symlinks=False) else Kind.FILE)
            for entry in entries
            if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
        )

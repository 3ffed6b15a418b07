"""What an import would change, noted beside the volume: for a dry run.

A change that the volume would refuse is refused here for the same reason. What happens between the
dry run and the import, a file that is opened or worked on, nobody can know.
"""

from __future__ import annotations

import errno
from collections import defaultdict

from awayfs.control.manifest import BaseFacts, NodeFacts
from awayfs.core.errors import EDISCONDATA
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.store.history import Shape
from awayfs.volume.changes import RENAME_EXCHANGE
from awayfs.volume.imported import check_free, check_rest
from awayfs.volume.removing import Remover
from awayfs.volume.replacing import Replacing
from awayfs.volume.volume import Volume

Slot = tuple[NodeId, bytes]


class Rehearsal:
    """``Onto`` nothing. What it makes has negative numbers."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._context = volume.context
        self._store = volume.store
        self._nodes = volume.store.nodes
        self._changes = volume.changes
        self._remover = Remover(volume.context)
        self._replacing = Replacing(volume.context)
        self._made: dict[NodeId, Kind] = {}
        self._slots: dict[Slot, NodeId | None] = {}
        self._named = defaultdict[NodeId, dict[Slot, None]](dict)  # what is in _slots, by node
        self._filled = defaultdict[NodeId, set[bytes]](set)  # and by directory
        self._xattrs: dict[tuple[NodeId, bytes], bool] = {}
        self._gone: set[NodeId] = set()
        self._changed: set[NodeId] = set()

    # -- looking --------------------------------------------------------------------------

    def kind(self, node: NodeId) -> Kind | None:
        if node in self._gone:
            return None
        if node in self._made:
            return self._made[node]
        found = self._nodes.get(node)
        return None if found is None else found.kind

    def is_named(self, node: NodeId) -> bool:
        return node == ROOT or bool(self._names(node))

    def child(self, parent: NodeId, name: bytes) -> NodeId | None:
        if (parent, name) in self._slots:
            return self._slots[parent, name]
        return None if parent in self._made else self._nodes.child_id(parent, name)

    def _names(self, node: NodeId) -> list[Slot]:
        slots = [] if node in self._made else self._nodes.names(node)
        kept = [slot for slot in slots if self._slots.get(slot, node) == node]
        return kept + [slot for slot in self._named[node] if slot not in kept]

    def _has_children(self, directory: NodeId) -> bool:
        if self._filled[directory]:
            return True
        known = () if directory in self._made else self._nodes.children(directory)
        return any((directory, name) not in self._slots for name, _ in known)

    def _is_inside(self, node: NodeId, directory: NodeId) -> bool:
        seen: set[NodeId] = set()
        while node != directory and node not in seen:
            seen.add(node)
            names = self._names(node)
            if not names:
                return False
            node = names[0][0]
        return node == directory

    # -- changing -------------------------------------------------------------------------

    def create(self, parent: NodeId, name: bytes, shape: Shape) -> NodeId:
        self._changes.check_supported(Kind(shape.kind))
        self._check_directory(parent)
        self._changes.check_name(parent, name)
        node = -1 - len(self._made)
        self._made[node] = Kind(shape.kind)
        self._put(parent, name, node)
        return node

    def link(self, node: NodeId, parent: NodeId, name: bytes) -> None:
        if self.kind(node) is Kind.DIRECTORY:
            raise OSError(errno.EPERM, "hard links to directories are not allowed")
        self._check_directory(parent)
        self._changes.check_name(parent, name)
        if not self._names(node):
            raise OSError(errno.ENOENT, "the file was removed")
        capabilities = self._context.link.capabilities
        if capabilities is not None and not capabilities.hard_links:
            raise OSError(errno.EPERM, "the server has no hard links")
        self._put(parent, name, node)

    def remove(self, parent: NodeId, name: bytes, kind: Kind) -> None:
        node = self.child(parent, name)
        if node is not None and kind is Kind.DIRECTORY:
            self._check_empty(node, "directory")
        self._put(parent, name, None)
        self._changed |= {node or 0}

    def rename(
        self, parent: NodeId, name: bytes, to_parent: NodeId, to_name: bytes, flags: int
    ) -> None:
        node, existing = self.child(parent, name), self.child(to_parent, to_name)
        assert node is not None
        self._check_directory(to_parent)
        self._check_move(node, to_parent)
        if flags == RENAME_EXCHANGE:
            assert existing is not None
            self._check_move(existing, parent)
            self._put(parent, name, existing)
        elif existing != node:
            self._changes.check_name(to_parent, to_name)
            if existing is not None:
                self._check_replaceable(node, existing)
            self._put(parent, name, None)
        self._put(to_parent, to_name, node)

    def set_attributes(self, node: NodeId, attributes: Attributes) -> None:
        self._changed.add(node)

    def set_xattr(self, node: NodeId, name: bytes, value: bytes | None) -> None:
        self._changes.check_xattrs()
        known = {} if node in self._made else self._nodes.xattrs(node)
        if value is None and not self._xattrs.get((node, name), name in known):
            raise OSError(errno.ENODATA, "no such attribute")
        self._xattrs[node, name] = value is not None
        self._changed.add(node)

    def give_way(self, parent: NodeId, name: bytes, standing: NodeId) -> None:
        if standing in self._made or self._remover.is_dirty_below(standing):
            return
        below = {standing, *self._nodes.below(standing)}
        if not below.isdisjoint(self._changed):
            return
        self._set(parent, name, None)
        elsewhere = {n for n in below if any(above not in below for above, _ in self._names(n))}
        self._gone |= below - elsewhere

    def set_back(self, node: NodeId, base: BaseFacts) -> None:
        pass

    async def replace(self, node: NodeId, facts: NodeFacts) -> None:
        if node not in self._made:
            check_free(self._replacing, node)
        self._changed.add(node)

    async def write(self, node: NodeId, facts: NodeFacts) -> None:
        if node not in self._made:
            check_free(self._replacing, node)
            check_rest(self._volume, node)
        self._changed.add(node)

    def _put(self, parent: NodeId, name: bytes, node: NodeId | None) -> None:
        self._set(parent, name, node)
        self._changed |= {parent, node or parent}

    def _set(self, parent: NodeId, name: bytes, node: NodeId | None) -> None:
        before = self._slots.get((parent, name))
        if before is not None:
            del self._named[before][parent, name]
            self._filled[parent].discard(name)
        self._slots[parent, name] = node
        if node is not None:
            self._named[node][parent, name] = None
            self._filled[parent].add(name)

    # -- what is refused ------------------------------------------------------------------

    def _check_directory(self, node: NodeId) -> None:
        if self.kind(node) is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "not a directory")
        if node != ROOT and not self._names(node):
            raise OSError(errno.ENOENT, "the directory was removed")

    def _check_empty(self, directory: NodeId, what: str) -> None:
        if self._has_children(directory):
            raise OSError(errno.ENOTEMPTY, f"{what} is not empty")
        if directory not in self._made and not self._store.server.children_known(directory):
            raise OSError(EDISCONDATA, f"the {what} was never listed")

    def _check_move(self, node: NodeId, to_parent: NodeId) -> None:
        if self.kind(node) is Kind.DIRECTORY and self._is_inside(to_parent, node):
            raise OSError(errno.EINVAL, "a directory cannot be moved into itself")

    def _check_replaceable(self, node: NodeId, existing: NodeId) -> None:
        kinds = (self.kind(node) is Kind.DIRECTORY, self.kind(existing) is Kind.DIRECTORY)
        if kinds == (False, True):
            raise OSError(errno.EISDIR, "target is a directory")
        if kinds == (True, False):
            raise OSError(errno.ENOTDIR, "target is not a directory")
        if kinds[1]:
            self._check_empty(existing, "target directory")

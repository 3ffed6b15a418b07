"""All variants of any node, in conflict or not: for programs that ask for one by descriptor.

``base`` is what changes here are based on, ``local`` what is here, ``server`` what the server was
last seen to have, ``merged`` what an attempt to merge made of them.
"""

from __future__ import annotations

import errno
from functools import partial

from awayfs.core.ioctls import Variant, VariantFacts
from awayfs.core.types import NodeId
from awayfs.volume.context import Context
from awayfs.volume.virtual import VirtualTree
from awayfs.volume.virtual_node import VirtualNode, of_node


class Variants:
    """Looks them up."""

    def __init__(self, context: Context, virtual: VirtualTree) -> None:
        self._context = context
        self._store = context.store
        self._virtual = virtual

    def of(self, node: NodeId) -> dict[Variant, VirtualNode]:
        """What there is of a node."""
        found: dict[Variant, VirtualNode] = {}
        for which in Variant:
            try:
                found[which] = self.one(node, which)
            except OSError:
                pass
        return found

    def facts(self, node: NodeId) -> dict[Variant, VariantFacts]:
        """The same, told."""
        return {
            which: VariantFacts(one.size, one.mtime_ns, one.kind | one.mode, one.state == "clean")
            for which, one in self.of(node).items()
        }

    def one(self, node: NodeId, which: Variant) -> VirtualNode:
        """One variant; ENOENT when there is none."""
        if which is Variant.LOCAL:
            local = self._context.node(node)
            if local is None:
                raise OSError(errno.ESTALE, "the file is gone")
            return of_node(self._context, local, partial(self._virtual.revisions.local, node))
        for conflict in reversed(self._store.conflicts.of_node(node)):
            found = self._virtual.conflicts.variant_itself(conflict, which.name.lower().encode())
            if found is not None:
                return found
        if which is Variant.MERGED:
            raise OSError(errno.ENOENT, "there is no merged variant")
        return self._virtual.base.of_node(node)

    def tree_path(self, node: NodeId, which: Variant) -> bytes | None:
        """Where a directory's variant is to be seen, below the root of the mount."""
        if which is Variant.LOCAL:
            return self._store.nodes.path(node)
        path = self._store.server.path(node)
        tree = b"base" if which is Variant.BASE else b"server"
        return None if path is None else b".awayfs/" + tree + (b"/" + path if path else b"")

"""The reference model: what a tree of nodes is, and what each record does to it.

Slow and obvious on purpose. Properties compare everything cleverer with it: an optimised
journal must mean the same as the original, and every order that ``order.ready`` allows must
end in the same tree.

A STORE sets the content, and with it the modification time: what an earlier SETATTR said
about that no longer holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.records import Record, RecordKind
from awayfs.core.types import ROOT, Attributes, Kind, NodeId

Slot = tuple[NodeId, bytes]
"""A name in a directory."""


class Invalid(Exception):
    """The record does not apply to this tree (parent missing, name taken, not empty, ...)."""


class ModelNode(Struct, frozen=True):
    """A node: kind, content token, attributes that were set, extended attributes."""

    kind: Kind = Kind.FILE
    content: object = None
    attributes: Attributes = Attributes()
    xattrs: Mapping[bytes, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Namespace:
    """A tree at one moment. Nodes without a name are not in it (open-but-unlinked files)."""

    nodes: Mapping[NodeId, ModelNode]
    names: Mapping[Slot, NodeId]

    @classmethod
    def empty(cls) -> Namespace:
        """The root alone."""
        return cls({ROOT: ModelNode(Kind.DIRECTORY)}, {})

    def children(self, directory: NodeId) -> dict[bytes, NodeId]:
        """The names in a directory."""
        return {name: node for (parent, name), node in self.names.items() if parent == directory}

    def slots(self, node: NodeId) -> list[Slot]:
        """All names of a node."""
        return [slot for slot, holder in self.names.items() if holder == node]

    def parent_of(self, node: NodeId) -> NodeId | None:
        """The directory a node lies in (the first one for a file with several names)."""
        return next((slot[0] for slot in self.slots(node)), None)

    def lies_within(self, node: NodeId, directory: NodeId) -> bool:
        """Whether ``node`` is ``directory`` or lies below it."""
        at: NodeId | None = node
        while at is not None and at != directory:
            at = self.parent_of(at)
        return at == directory

    def apply(self, record: Record, content: object = None, kind: Kind = Kind.FILE) -> Namespace:
        """The tree after ``record``, with POSIX semantics; raises ``Invalid``.

        ``content`` belongs to a STORE, ``kind`` to a CREATE: records do not carry them.
        """
        if record.kind is RecordKind.CREATE:
            return self._create(record, kind)
        self._need(record.node in self.nodes, "no such node")
        if record.kind is RecordKind.STORE:
            return self._store(record, content)
        return _APPLY[record.kind](self, record)

    def _need(self, condition: bool, why: str) -> None:
        if not condition:
            raise Invalid(why)

    def _need_free(self, slot: Slot) -> None:
        parent = self.nodes.get(slot[0])
        self._need(parent is not None and parent.kind is Kind.DIRECTORY, "no such directory")
        self._need(slot not in self.names, "name taken")

    def _need_held(self, slot: Slot, node: NodeId) -> None:
        self._need(self.names.get(slot) == node, "the name is not this node's")

    def _with_node(self, node: NodeId, value: ModelNode) -> Namespace:
        return Namespace({**self.nodes, node: value}, self.names)

    def _with_name(self, slot: Slot, node: NodeId) -> Namespace:
        return Namespace(self.nodes, {**self.names, slot: node})

    def _without_name(self, slot: Slot) -> Namespace:
        names = {other: node for other, node in self.names.items() if other != slot}
        return Namespace(self.nodes, names)

    def _drop_nameless(self, node: NodeId) -> Namespace:
        if self.slots(node):
            return self
        self._need(not self.children(node), "directory not empty")
        nodes = {other: value for other, value in self.nodes.items() if other != node}
        return Namespace(nodes, self.names)

    def _create(self, record: Record, kind: Kind) -> Namespace:
        slot = (record.parent, record.name)
        self._need(record.node not in self.nodes, "node exists")
        self._need_free(slot)
        return self._with_node(record.node, ModelNode(kind))._with_name(slot, record.node)

    def _link(self, record: Record) -> Namespace:
        slot = (record.parent, record.name)
        self._need(self.nodes[record.node].kind is not Kind.DIRECTORY, "link to a directory")
        self._need_free(slot)
        return self._with_name(slot, record.node)

    def _store(self, record: Record, content: object) -> Namespace:
        node = self.nodes[record.node]
        self._need(node.kind is Kind.FILE, "not a regular file")
        attributes = replace(node.attributes, mtime_ns=None)
        return self._with_node(record.node, replace(node, content=content, attributes=attributes))

    def _setattr(self, record: Record) -> Namespace:
        node = self.nodes[record.node]
        merged = merge_attributes(node.attributes, record.attributes)
        return self._with_node(record.node, replace(node, attributes=merged))

    def _setxattr(self, record: Record) -> Namespace:
        node = self.nodes[record.node]
        xattrs = {name: v for name, v in node.xattrs.items() if name != record.xattr_name}
        if record.xattr_value is not None:
            xattrs[record.xattr_name] = record.xattr_value
        return self._with_node(record.node, replace(node, xattrs=xattrs))

    def _remove(self, record: Record) -> Namespace:
        slot = (record.parent, record.name)
        self._need_held(slot, record.node)
        return self._without_name(slot)._drop_nameless(record.node)

    def _rename(self, record: Record) -> Namespace:
        source, target = (record.parent, record.name), (record.to_parent, record.to_name)
        self._need_held(source, record.node)
        if self.names.get(target) == record.node:
            return self  # POSIX: two names of one file; nothing happens
        self._need(not self.lies_within(record.to_parent, record.node), "into itself")
        after = self
        if record.replaced:
            self._need_held(target, record.replaced)
            self._need_replaceable(record.node, record.replaced)
            after = self._without_name(target)._drop_nameless(record.replaced)
        after._need_free(target)
        return after._without_name(source)._with_name(target, record.node)

    def _need_replaceable(self, node: NodeId, replaced: NodeId) -> None:
        is_directory = self.nodes[node].kind is Kind.DIRECTORY
        was_directory = self.nodes[replaced].kind is Kind.DIRECTORY
        self._need(is_directory == was_directory, "a directory and a non-directory")

    def _exchange(self, record: Record) -> Namespace:
        one, other = (record.parent, record.name), (record.to_parent, record.to_name)
        self._need_held(one, record.node)
        self._need_held(other, record.replaced)
        self._need(not self.lies_within(record.to_parent, record.node), "into itself")
        self._need(not self.lies_within(record.parent, record.replaced), "into itself")
        return self._with_name(one, record.replaced)._with_name(other, record.node)


_APPLY: Mapping[RecordKind, Callable[[Namespace, Record], Namespace]] = {
    RecordKind.LINK: Namespace._link,
    RecordKind.SETATTR: Namespace._setattr,
    RecordKind.SETXATTR: Namespace._setxattr,
    RecordKind.REMOVE: Namespace._remove,
    RecordKind.RENAME: Namespace._rename,
    RecordKind.EXCHANGE: Namespace._exchange,
}


def merge_attributes(earlier: Attributes, later: Attributes) -> Attributes:
    """Both set one after the other: the later value wins, field by field."""
    changes = {
        name: getattr(later, name)
        for name in Attributes.__struct_fields__
        if getattr(later, name) is not None
    }
    return replace(earlier, **changes)

"""What was changed here against the base: the offline session as a snapshot, to look at.

Only nodes that the journal touches are looked at, a few at a time, so that programs get their
turn however long the journal is. What changes meanwhile is told as it was or as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from msgspec import Struct, field

from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind
from awayfs.core.session import Difference, differences, pair_replaced
from awayfs.core.types import ROOT, Kind, NodeId
from awayfs.store.nodes import Node
from awayfs.store.server import ServerNode
from awayfs.store.store import Store
from awayfs.volume.context import Context
from awayfs.volume.revisions import Revisions, is_whole
from awayfs.volume.slices import Slices

FIELDS: Final[tuple[str, ...]] = ("mode", "uid", "gid", "mtime_ns", "atime_ns")


class StoreTrees:
    """Base and local tree, and the journal, as ``core.session`` asks for them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.base_slots = store.server.names
        self.local_slots = store.nodes.names
        self.of_node = store.journal.of_node
        self.inside = store.journal.inside
        self.touching_name = store.journal.touching_name

    def base_child(self, slot: Slot) -> NodeId | None:
        """What a name leads to in the base."""
        return self._store.server.child(*slot)

    def local_child(self, slot: Slot) -> NodeId | None:
        """What a name leads to here."""
        return self._store.nodes.child_id(*slot)

    def local_children(self, directory: NodeId) -> Iterable[NodeId]:
        """What is in a directory here."""
        return [child.id for _, child in self._store.nodes.children(directory)]


class Change(Struct, frozen=True):
    """One path that differs. ``letters``: A added, D removed, R renamed, T another type, then M for
    content (or a symlink's target) and P for properties: mode, owner, times, extended attributes.

    ``attributes`` has the value in the base and the value here of each that was set; ``xattrs``
    says which were set or removed.
    """

    letters: str
    path: bytes
    from_path: bytes
    difference: Difference
    node: Node | None
    base: ServerNode | None
    attributes: dict[str, tuple[int, int]] = field(default_factory=dict)
    xattrs: dict[str, str] = field(default_factory=dict)
    local_here: bool = True
    base_here: bool = True

    @property
    def shown_path(self) -> bytes:
        """Where it is, or was."""
        return self.path if self.node is not None else self.from_path


class Session:
    """Reads the differences; changes nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._revisions = Revisions(context)
        self.trees = StoreTrees(context.store)

    async def differences(self, path: bytes = b"") -> list[Difference]:
        """All places of touched nodes, at and below a path of either tree; unchanged ones too."""
        slices = Slices()
        found: list[Difference] = []
        paths = _Paths(self._store)
        for node in self._store.journal.nodes():
            found += [paths.placed(d) for d in differences(node, self.trees)]
            await slices.pause()
        paired = pair_replaced(found, self.trees)
        return [d for d in paired if concerns(d, path)]

    async def changes(self, path: bytes = b"") -> AsyncIterator[Change]:
        """What differs at and below a path, ordered by path."""
        slices = Slices()
        found = await self.differences(path)
        for difference in sorted(found, key=lambda d: (d.path or d.from_path, d.from_path)):
            change = self.change(difference)
            if change is not None:
                yield change
            await slices.pause()

    def change(self, d: Difference) -> Change | None:
        """One difference with all that is told of it; None when nothing differs after all."""
        node = self._context.node(d.node) if d.node is not None else None
        base = self._store.server.get(d.base_node) if d.base_node is not None else None
        if node is None and base is None:
            return None
        content = self._content_letter(d, node, base)
        attributes, xattrs = self._attributes(d, node, base)
        letters = _name_letter(d, base) + content
        if node is not None and base is not None and (attributes or xattrs):
            letters += "P"
        if not letters:
            return None
        return Change(
            letters,
            d.path,
            d.from_path,
            d,
            node,
            base,
            attributes,
            xattrs,
            local_here=node is None or self._local_here(node),
            base_here=base is None or self.base_here(base),
        )

    def base_here(self, base: ServerNode) -> bool:
        """Whether all of a base's content is here."""
        if base.kind is not Kind.FILE:
            return True
        return is_whole(self._revisions.base(base.node)[0], base.size)

    def _local_here(self, node: Node) -> bool:
        return node.kind is not Kind.FILE or self._store.content.covers(node.id, 0, node.size)

    def _content_letter(self, d: Difference, node: Node | None, base: ServerNode | None) -> str:
        if node is None or base is None:
            return ""
        if node.kind is not base.kind:
            return "T"
        if node.kind is Kind.SYMLINK:
            return "M" if node.target != base.target else ""
        if node.kind is Kind.FILE:
            changed = d.node != d.base_node or self._store.journal.has_store(node.id)
            return "M" if changed else ""
        return "M" if node.rdev != base.rdev and node.kind is not Kind.DIRECTORY else ""

    def _attributes(
        self, d: Difference, node: Node | None, base: ServerNode | None
    ) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
        if node is None or base is None or node.kind is not base.kind:
            return {}, {}
        records = self._store.journal.of_node(node.id)
        fields = fields_set(records) if d.node == d.base_node else {"mode", "uid", "gid"}
        owner = self._context.local_owner(base.entry())
        before = {"mode": base.mode, "uid": owner[0], "gid": owner[1], "mtime_ns": base.mtime_ns}
        if d.node != d.base_node and self._context.link.connected is None:
            fields -= {"uid", "gid"}  # whose files the account's are is not known yet
        values = {
            name: (before[name], getattr(node, name))
            for name in FIELDS
            if name in fields and name in before and before[name] != getattr(node, name)
        }
        return values, _xattrs_set(records, node.id)


class _Paths:
    """Paths of places in both trees; directories are looked up once."""

    def __init__(self, store: Store) -> None:
        self._base = store.server.path
        self._local = store.nodes.path
        self._known: dict[tuple[bool, NodeId], bytes] = {}

    def placed(self, d: Difference) -> Difference:
        """The same with its paths."""
        path = self._path(False, d.local) if d.local else b""
        from_path = self._path(True, d.base) if d.base else b""
        return Difference(d.node, d.base_node, d.base, d.local, path, from_path)

    def _path(self, base: bool, slot: Slot) -> bytes:
        parent, name = slot
        if parent in (0, ROOT):
            return name
        key = (base, parent)
        if key not in self._known:
            self._known[key] = (self._base if base else self._local)(parent) or b"?"
        return self._known[key] + b"/" + name


def fields_set(records: Iterable[Record]) -> set[str]:
    """The attributes that records set."""
    return {
        name
        for record in records
        if record.kind is RecordKind.SETATTR
        for name in FIELDS
        if getattr(record.attributes, name) is not None
    }


def _xattrs_set(records: Sequence[Record], node: NodeId) -> dict[str, str]:
    return {
        record.xattr_name.decode("utf-8", "surrogateescape"): "removed"
        if record.xattr_value is None
        else "set"
        for record in records
        if record.kind is RecordKind.SETXATTR and record.node == node
    }


def _name_letter(d: Difference, base: ServerNode | None) -> str:
    if d.node is None:
        return "D"
    if base is None:
        return "A"
    return "R" if d.path != d.from_path or (d.node == d.base_node and d.base != d.local) else ""


def concerns(d: Difference, path: bytes) -> bool:
    """Whether a difference is at or below a path, in either tree."""
    if not path:
        return True
    places = [p for p, slot in ((d.path, d.local), (d.from_path, d.base)) if slot is not None]
    return any(p == path or p.startswith(path + b"/") for p in places)

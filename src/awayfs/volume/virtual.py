"""The ``.awayfs`` tree in the root of a mount: reachable by name, never listed.

    status                              what ``awayfs status --json`` prints
    conflicts/PATH/{base,local,server}  the variants of every conflicted node

Nothing in it can be changed. Nodes are made when they are looked up and keep their number
while the mount lives; what they show is computed each time.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from awayfs.core.records import RecordKind
from awayfs.core.types import Kind, NodeId, Range
from awayfs.store.conflicts import Conflict
from awayfs.volume.context import Context

VIRTUAL_BASE = 1 << 62
Path = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class VirtualNode:
    """One object of the tree. A file's content is in ``data`` or in the file at ``path``."""

    kind: Kind
    data: bytes = b""
    path: str | None = None
    target: bytes = b""
    mtime_ns: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        if self.path is not None:
            return os.stat(self.path).st_size
        return len(self.target or self.data)


@dataclass(slots=True)
class _Shown:
    """Where conflicts are shown, as of one state of the database."""

    changes: int = -1
    conflicts: dict[Path, Conflict] = field(default_factory=dict)
    below: dict[Path, set[bytes]] = field(default_factory=dict)

    def add(self, path: Path, conflict: Conflict) -> None:
        self.conflicts[path] = conflict
        for depth, name in enumerate(path):
            self.below.setdefault(path[:depth], set()).add(name)


class VirtualTree:
    """Looks up, lists and reads what the volume tells about itself."""

    def __init__(self, context: Context, status: Callable[[], dict[str, Any]]) -> None:
        self._context = context
        self._store = context.store
        self._status = status
        self._paths: dict[int, Path] = {VIRTUAL_BASE: ()}
        self._ids: dict[Path, int] = {(): VIRTUAL_BASE}
        self._kept = _Shown()

    def node_id(self, path: Path) -> int:
        """The number of a path, allotted at its first use."""
        if path not in self._ids:
            number = VIRTUAL_BASE + len(self._ids)
            self._ids[path] = number
            self._paths[number] = path
        return self._ids[path]

    def path_of(self, node_id: int) -> Path:
        """The path of a number; ESTALE for one that was never given."""
        try:
            return self._paths[node_id]
        except KeyError:
            raise OSError(errno.ESTALE, "no such object") from None

    def get(self, path: Path) -> VirtualNode:
        """What stands at a path; ENOENT when nothing does."""
        now = self._context.now()
        if path in ((), (b"conflicts",)):
            return VirtualNode(Kind.DIRECTORY, mtime_ns=now)
        if path == (b"status",):
            text = json.dumps(self._status(), indent=2) + "\n"
            return VirtualNode(Kind.FILE, data=text.encode(), mtime_ns=now)
        if path[0] == b"conflicts":
            return self._in_conflicts(path[1:])
        raise OSError(errno.ENOENT, "no such file or directory")

    def children(self, path: Path) -> list[bytes]:
        """Names in a directory."""
        if path == ():
            return [b"conflicts", b"status"]
        shown = self._shown()
        names = set(shown.below.get(path[1:], ()))
        conflict = shown.conflicts.get(path[1:])
        if conflict is not None:
            names.update(self.variants(conflict))
        return sorted(names)

    def _in_conflicts(self, path: Path) -> VirtualNode:
        shown = self._shown()
        if path[:-1] in shown.conflicts:
            variants = self.variants(shown.conflicts[path[:-1]])
            if path[-1] in variants:
                return variants[path[-1]]
        if path in shown.conflicts or path in shown.below:
            return VirtualNode(Kind.DIRECTORY, mtime_ns=self._context.now())
        raise OSError(errno.ENOENT, "no such conflict")

    def _shown(self) -> _Shown:
        """All conflicts by path; made anew when anything was written since."""
        changes = self._store.db.changes
        if self._kept.changes != changes:
            self._kept = _Shown(changes)
            for conflict in self._store.conflicts.all():
                self._kept.add(tuple(self.conflict_path(conflict).split(b"/")), conflict)
        return self._kept

    def conflict_path(self, conflict: Conflict) -> bytes:
        """Where a conflict is shown: the node's path, or the name it was found under."""
        path = self._store.nodes.path(conflict.node)
        if path:
            return path
        directory = self._store.nodes.path(conflict.parent)
        return directory + b"/" + conflict.name if directory else conflict.name

    def variants(self, conflict: Conflict) -> dict[bytes, VirtualNode]:
        """What can be shown of a conflict: any of base, local, server."""
        variants: dict[bytes, VirtualNode] = {}
        local = self._local(conflict)
        if local is not None:
            variants[b"local"] = local
        base = self.base_path(conflict)
        if base is not None and os.path.exists(base):
            variants[b"base"] = VirtualNode(Kind.FILE, path=base, mtime_ns=conflict.detected_ns)
        entry = conflict.server_entry
        if entry is not None and entry.kind is Kind.SYMLINK:
            variants[b"server"] = VirtualNode(
                Kind.SYMLINK, target=entry.target or b"", mtime_ns=entry.mtime_ns
            )
        elif conflict.server_variant is not None:
            variants[b"server"] = VirtualNode(
                Kind.FILE, path=conflict.server_variant, mtime_ns=conflict.detected_ns
            )
        return variants

    def base_node(self, conflict: Conflict) -> NodeId:
        """Whose base a conflict is about: after a rename over, that of what was displaced."""
        for seq in conflict.record_seqs:
            record = self._store.journal.get(seq)
            if record is not None and record.kind is RecordKind.RENAME and record.replaced:
                return record.replaced
        return conflict.node

    def base_path(self, conflict: Conflict) -> str | None:
        """The file with the base's content, if it is all here."""
        node = self.base_node(conflict)
        content = self._store.content
        base = self._store.server.get(node)
        if (kept := content.base_path(node)) is not None:
            whole = base is None or content.base_ranges(node) == [Range(0, base.size)]
            return kept if whole or (base and not base.size) else None
        if node == conflict.node or base is None or self._store.journal.has_store(node):
            return None
        whole = content.has(node) and content.covers(node, 0, base.size)
        return content.fd_path(node) if whole and content.token(node) == base.token else None

    def _local(self, conflict: Conflict) -> VirtualNode | None:
        node = self._context.node(conflict.node)
        if node is None or not self._store.nodes.names(conflict.node):
            return None
        if node.kind is Kind.SYMLINK:
            return VirtualNode(Kind.SYMLINK, target=node.target or b"", mtime_ns=node.mtime_ns)
        if node.kind is Kind.FILE and self._store.content.covers(node.id, 0, node.size):
            if not self._store.content.has(node.id):
                return VirtualNode(Kind.FILE, mtime_ns=node.mtime_ns)
            return VirtualNode(
                Kind.FILE, path=self._store.content.fd_path(node.id), mtime_ns=node.mtime_ns
            )
        return None

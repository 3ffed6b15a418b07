"""What a node is beside its content, taken down for the history: names, attributes, targets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from awayfs.core.conflicts import ConflictKind
from awayfs.core.deciding import BASE, BOTH, LOCAL, SERVER
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.store.history import Lost, Shape
from awayfs.store.nodes import Node
from awayfs.volume.adopt import OWN
from awayfs.volume.context import Context
from awayfs.volume.known_xattrs import XATTRS_OF

ABSENT = Shape()
"""There is nothing."""
MADE_ANEW = (ConflictKind.UPDATE_REMOVE, ConflictKind.NAME_NAME, ConflictKind.TYPE)
"""Conflicts in which to keep both gives up nothing of ours but its name."""
IN_PLACE = (ConflictKind.UPDATE_UPDATE, ConflictKind.ATTRIBUTE)
"""Conflicts of two changes of one node, in which its name has no part."""


def shape_of(context: Context, node: Node | None, copy: NodeId = 0) -> Shape:
    """A node as it is shown here, with the first of its names."""
    if node is None:
        return ABSENT
    parent, name = next(iter(context.store.nodes.names(node.id)), (0, b""))
    return Shape(
        kind=int(node.kind),
        parent=parent,
        name=name,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        rdev=node.rdev,
        target=node.target,
        xattrs=xattrs_of(context, node.id),
        copy=copy,
    )


def shape_of_entry(context: Context, entry: Entry) -> Shape:
    """What the server has, as it would be shown here; its name is not known from this."""
    uid, gid = context.local_owner(entry)
    return Shape(
        kind=int(entry.kind),
        mode=entry.mode,
        uid=uid,
        gid=gid,
        mtime_ns=entry.mtime_ns,
        rdev=entry.rdev,
        target=entry.target,
    )


def xattrs_of(context: Context, node: NodeId) -> dict[bytes, bytes]:
    """A node's extended attributes as far as they are known here, ours left out."""
    known = context.store.nodes.xattrs(node)
    return {n: v for n, v in known.items() if n != XATTRS_OF and not n.startswith(OWN)}


class Bare:
    """Rows of the history that have no content."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def given_up(self, conflict: Conflict, path: bytes, choice: str, why: str) -> Iterator[Lost]:
        """What a decision gives up beside contents, and that there is nothing where it makes it."""
        entry, kind = conflict.server_entry, conflict.kind
        shapes: list[tuple[bytes, str, Shape]] = []
        if choice in (SERVER, BOTH) and kind == ConflictKind.REMOVE_UPDATE:
            shapes.append((path, LOCAL, ABSENT))
        elif kind == ConflictKind.ATTRIBUTE and choice == BASE and entry is not None:
            ours = shape_of(self._context, self._context.node(conflict.node))
            theirs = shape_of_entry(self._context, entry)
            shapes += [(path, LOCAL, ours), (path, SERVER, theirs)]
        elif choice == SERVER or (choice == BOTH and kind not in MADE_ANEW):
            shapes += [(at, LOCAL, shape) for at, shape in self._here(conflict, path)]
        elif choice == BOTH and self._are_two_links(conflict):
            shapes.append((path, LOCAL, shape_of(self._context, self._context.node(conflict.node))))
        if choice in (LOCAL, BOTH) and kind == ConflictKind.UPDATE_REMOVE:
            shapes.append((path, SERVER, ABSENT))
        elif choice == LOCAL and kind == ConflictKind.RENAME_RENAME:
            shapes.append(
                (path, SERVER, shape_of(self._context, self._context.node(conflict.node)))
            )
        elif choice == LOCAL and kind in IN_PLACE and entry is not None:
            shapes.append((path, SERVER, shape_of_entry(self._context, entry)))
        for at, which, shape in shapes:
            yield self.lost(conflict.id, conflict.node, at, which, shape, why)

    def _are_two_links(self, conflict: Conflict) -> bool:
        """Whether ours gets a conflict copy's name and, taken back, is told by its target alone."""
        node, entry = self._store.nodes.get(conflict.node), conflict.server_entry
        ours, theirs = node and node.kind, entry and entry.kind
        return conflict.kind == ConflictKind.NAME_NAME and ours is theirs is Kind.SYMLINK

    def _here(self, conflict: Conflict, path: bytes) -> Iterator[tuple[bytes, Shape]]:
        """Our node, and what was made or changed inside of it."""
        pending = [(conflict.node, path)]
        while pending:
            number, at = pending.pop()
            node = self._context.node(number)
            if node is None:
                continue
            yield at, shape_of(self._context, node)
            if node.kind is Kind.DIRECTORY:
                pending += [
                    (child.id, at + b"/" + name)
                    for name, child in self._store.nodes.children(number)
                    if self._store.journal.has_any(child.id)
                ]

    def lost(
        self, decision: int, node: NodeId, path: bytes, which: str, before: Shape, why: str
    ) -> Lost:
        """A row without content."""
        return Lost(
            conflict=decision,
            node=node,
            path=path,
            which=which,
            mode=before.mode,
            mtime_ns=before.mtime_ns,
            size=0,
            kept_ns=self._context.now(),
            why=why,
            before=before,
            content=False,
        )

    def with_name(self, conflict: Conflict, lost: Lost) -> Shape:
        """What was given up; of a file that both renamed, the server's name is known by now."""
        assert lost.before is not None
        names = self._store.server.names(lost.node)
        if conflict.kind != ConflictKind.RENAME_RENAME or lost.which != SERVER or not names:
            return lost.before
        return msgspec.structs.replace(lost.before, parent=names[0][0], name=names[0][1])

    def after(self, conflict: Conflict, lost: Lost, path: bytes, copy: str | None) -> Shape:
        """What has the place now of what was given up, or will as soon as it is looked at."""
        nodes = self._store.nodes
        above = path.rpartition(b"/")[0]
        found = nodes.resolve(above + b"/" + os.fsencode(copy)) if copy else None
        node = nodes.get(lost.node) if nodes.names(lost.node) else None
        if node is None or (found is not None and found.id == node.id):
            node = nodes.resolve(path)
        if node is None and conflict.server_entry is not None:
            shown = shape_of_entry(self._context, conflict.server_entry)
            return msgspec.structs.replace(shown, copy=found.id if found is not None else 0)
        return shape_of(self._context, node, found.id if found is not None else 0)

"""Giving a node the shape again that the history has: names, attributes, link targets.

Each step is a change like any other, journaled and sent guarded. Only what the decision changed
goes back; what somebody changed since is left to them, unless it is forced.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from awayfs.core.errors import UsageError
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.store.history import Lost, Shape
from awayfs.store.nodes import Node
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.journaling import Journaling
from awayfs.volume.replacing import Replacing
from awayfs.volume.shapes import shape_of, xattrs_of

DIRECTORY_MODE = 0o755
CHECKED = ("mode", "uid", "gid", "target")
"""What is compared to tell whether somebody changed it since; times change by themselves."""


class Making:
    """Makes, reshapes and removes. All but ``check`` need a transaction around them."""

    def __init__(
        self, context: Context, journaling: Journaling, changes: Changes, replacing: Replacing
    ) -> None:
        self._context = context
        self._store = context.store
        self._journaling = journaling
        self._changes = changes
        self._replacing = replacing

    def check(self, node: Node, lost: Lost, force: bool) -> None:
        """Raise ``UsageError`` where the shape cannot go back, before anything is changed."""
        before, after = lost.before, lost.after
        if before is None:
            return
        place = self._way_home(node, before, after)
        if place is not None:
            directory = self._store.nodes.get(place[0])
            if directory is None or directory.kind is not Kind.DIRECTORY:
                raise UsageError("the directory that it was in is gone; make it again first")
            if self._store.nodes.child_id(*place) is not None:
                name = os.fsdecode(place[1])
                raise UsageError(f"its name {name} is taken by now; move that away first")
        if after is None or force:
            return
        now = shape_of(self._context, node)
        for name in CHECKED:
            wanted, decided = getattr(before, name), getattr(after, name)
            if wanted != decided and getattr(now, name) not in (wanted, decided):
                raise UsageError(
                    f"its {name} was changed since that decision; --force takes the decision"
                    " back all the same"
                )

    def reshape(self, node: Node, lost: Lost) -> Shape:
        """Name, attributes and target go back; what it is then."""
        before, after, number = lost.before, lost.after, node.id
        if before is None:
            return shape_of(self._context, node)
        place = self._way_home(node, before, after)
        if place is not None:
            old = self._store.nodes.names(number)[0]
            self._changes.rename(*old, *place, 0)
            self._told(old, place)
        if before.target != node.target and node.kind is Kind.SYMLINK:
            number = self._relink(number, before)
        attributes = self._attributes(number, before, after)
        if attributes:
            self._changes.set_attributes(number, attributes)
        self._xattrs(number, before)
        self._context.kernel.forget_node(number)
        return shape_of(self._context, self._context.node(number))

    def make(self, path: bytes, lost: Lost, staged: str | None, together: Sequence[Lost]) -> NodeId:
        """What is gone is there again; its directories are made if need be."""
        above, _, name = path.rpartition(b"/")
        parent = self._directory(above, together)
        shape, options = lost.before, self._context.options
        if shape is None:  # of a version that kept no shapes
            mode = stat.S_IMODE(lost.mode)
            shape = Shape(kind=int(Kind.FILE), mode=mode, uid=options.uid, gid=options.gid)
        kind = Kind(shape.kind)
        made = self._changes.create(
            parent,
            name,
            kind,
            shape.mode,
            shape.uid,
            shape.gid,
            target=shape.target,
            rdev=shape.rdev,
        ).id
        if staged is not None:
            self._journaling.store(made)
            self._replacing.replace(made, staged, None)
        if shape.mtime_ns and kind is not Kind.DIRECTORY:
            self._changes.set_attributes(made, Attributes(mtime_ns=shape.mtime_ns))
        self._xattrs(made, shape)
        self._context.kernel.forget_entry(parent, name)
        return made

    def remove(self, node: Node) -> None:
        """All names of a node go; ``UsageError`` for a directory that is not empty."""
        for parent, name in self._store.nodes.names(node.id):
            try:
                if node.kind is Kind.DIRECTORY:
                    self._changes.rmdir(parent, name)
                else:
                    self._changes.unlink(parent, name)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                text = "it is a directory with something in it; remove that with rm -r"
                raise UsageError(text) from error
            self._context.kernel.forget_entry(parent, name)

    def _way_home(
        self, node: Node, before: Shape, after: Shape | None
    ) -> tuple[NodeId, bytes] | None:
        """The name that the decision took away, if it did, and only one can be meant."""
        home, names = (before.parent, before.name), self._store.nodes.names(node.id)
        if not before.parent or len(names) != 1 or names[0] == home or after is None:
            return None
        return home if (after.parent, after.name) == names[0] else None

    def _told(self, *places: tuple[NodeId, bytes]) -> None:
        for place in places:
            self._context.kernel.forget_entry(*place)

    def _attributes(self, node: NodeId, before: Shape, after: Shape | None) -> Attributes:
        """What of mode, owner and time the decision changed."""
        now = self._context.node(node)
        assert now is not None
        if now.kind is Kind.SYMLINK:
            return Attributes()
        wanted = {
            name: getattr(before, name)
            for name in ("mode", "uid", "gid", "mtime_ns")
            if getattr(now, name) != getattr(before, name)
            and (after is None or getattr(after, name) != getattr(before, name))
        }
        if now.kind is Kind.DIRECTORY:
            wanted.pop("mtime_ns", None)
        return Attributes(**wanted)

    def _xattrs(self, node: NodeId, before: Shape) -> None:
        """Those that were set; what others set is theirs."""
        now = xattrs_of(self._context, node)
        for name, value in (before.xattrs or {}).items():
            if now.get(name) != value:
                with suppress(OSError):  # a server without them keeps none
                    self._changes.set_xattr(node, name, value, 0)

    def _relink(self, node: NodeId, before: Shape) -> NodeId:
        """A link's target never changes: another link takes its place."""
        (place,) = self._store.nodes.names(node)[:1]
        self._changes.unlink(*place)
        made = self._changes.create(
            *place, Kind.SYMLINK, before.mode, before.uid, before.gid, target=before.target
        )
        self._told(place)
        return made.id

    def _directory(self, path: bytes, together: Sequence[Lost]) -> NodeId:
        """The directory at a path, made again as far as it is gone."""
        found = self._store.nodes.resolve(path)
        if found is not None and found.kind is not Kind.DIRECTORY:
            raise UsageError(f"{os.fsdecode(path)}: is no directory any more; move that away first")
        if found is not None:
            return found.id
        above, _, name = path.rpartition(b"/")
        parent = self._directory(above, together) if path else ROOT
        shape = next((one.before for one in together if one.path == path), None)
        options = self._context.options
        known = shape if shape is not None and shape.kind == Kind.DIRECTORY else None
        made = self._changes.create(
            parent,
            name,
            Kind.DIRECTORY,
            known.mode if known else DIRECTORY_MODE,
            known.uid if known else options.uid,
            known.gid if known else options.gid,
        )
        self._context.kernel.forget_entry(parent, name)
        return made.id

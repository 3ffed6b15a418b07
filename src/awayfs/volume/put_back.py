"""Giving one node the base's content and properties again. Needs a transaction around it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from awayfs.core.errors import UsageError
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Kind, NodeId, Range
from awayfs.store.files import clone_or_copy, unlink_quietly
from awayfs.store.history import Lost
from awayfs.store.server import ServerNode
from awayfs.volume import known_xattrs
from awayfs.volume.context import Context
from awayfs.volume.opened import OpenNode
from awayfs.volume.shapes import shape_of

WHY = "discarded"
BRINGING = (RecordKind.STORE, RecordKind.CREATE)
"""Records that something which is here only is to be sent with. A creation may stand for both: what
the server has no more is made anew by one record, with its content."""


class PutBack:
    """Node by node; what is lost is kept first."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def check(self, nodes: Iterable[NodeId]) -> None:
        """Raise ``UsageError`` where a content could not be kept, before anything goes."""
        limit = self._context.options.base_limit
        for node in nodes:
            opened = self._context.opened.get(node)
            if opened is None or not opened.writers or not self._brings_content(node):
                continue
            self._context.opened.save(opened)
            if sum(r.end - r.start for r in self._store.content.ranges(node)) > limit:
                probe = self._store.content.stage_path()
                self._copy(opened, probe, (), -1)
                unlink_quietly(probe)

    def _brings_content(self, node: NodeId) -> bool:
        return any(r.kind in BRINGING and r.node == node for r in self._store.journal.of_node(node))

    def keep(self, node: NodeId, decision: int) -> None:
        """The local content goes to the history, if there is any.

        Raises ``UsageError`` where that takes too much of a file that is being written.
        """
        content = self._store.content
        found = self._context.node(node)
        opened = self._context.opened.get(node)
        if opened is not None:
            self._context.opened.save(opened)
        if found is None or not found.size or not content.ranges(node):
            return
        staged = content.stage_path()
        self._stage(content.fd_path(node), staged, opened)
        path = self._path(node)
        lost = Lost(
            conflict=decision,
            node=node,
            path=path,
            which="local",
            mode=found.mode,
            mtime_ns=found.mtime_ns,
            size=os.stat(staged).st_size,
            kept_ns=self._context.now(),
            why=WHY,
            partial=not content.covers(node, 0, found.size),
            before=shape_of(self._context, found),
        )
        self._store.history.add(lost, staged)

    def _stage(self, source: str, staged: str, opened: OpenNode | None) -> None:
        """One more name of the file; a copy of one that a program may go on writing to."""
        if opened is not None and opened.writers:
            ranges = self._store.content.ranges(opened.node)
            self._copy(opened, staged, ranges, self._context.options.base_limit)
        else:
            os.link(source, staged)

    def _copy(self, opened: OpenNode, staged: str, ranges: Sequence[Range], limit: int) -> None:
        """A reflink, or up to ``limit`` bytes; another name would show what is written later."""
        source = self._store.content.fd_path(opened.node)
        if clone_or_copy(source, staged, ranges, limit) is None:
            path = os.fsdecode(self._path(opened.node))
            raise UsageError(
                f"{path}: a program is writing it, and it is too large to be copied for the"
                " history; close it there, and try again"
            )

    def _path(self, node: NodeId) -> bytes:
        return self._store.nodes.path(node) or self._store.server.path(node) or b"?"

    def properties(self, node: NodeId, records: Sequence[Record]) -> None:
        """Mode, owner, times and extended attributes, of those that the dropped records set.

        What records that stay have set is theirs.
        """
        base, local = self._store.server.get(node), self._store.nodes.get(node)
        if base is None or local is None:
            return
        values = self._base_values(base, records)
        for record in self._store.journal.of_node(node):
            if record.kind is RecordKind.SETATTR:
                for name in values:
                    wanted = getattr(record.attributes, name)
                    values[name] = values[name] if wanted is None else wanted
        self._store.nodes.update(node, ctime_ns=self._context.now(), **values)
        opened = self._context.opened.get(node)
        if opened is not None and "mtime_ns" in values:
            opened.mtime_ns = values["mtime_ns"]
        self._xattrs(node, records)

    def _base_values(self, base: ServerNode, records: Sequence[Record]) -> dict[str, int]:
        names = {
            name
            for record in records
            if record.kind is RecordKind.SETATTR
            for name in ("mode", "uid", "gid", "mtime_ns")
            if getattr(record.attributes, name) is not None
        }
        uid, gid = self._context.local_owner(base.entry())
        known = {"mode": base.mode, "uid": uid, "gid": gid, "mtime_ns": base.mtime_ns}
        if self._store.journal.has_store(base.node):
            names.discard("mtime_ns")  # that of the edit, which stays
        return {name: known[name] for name in names}

    def _xattrs(self, node: NodeId, records: Sequence[Record]) -> None:
        names = {r.xattr_name for r in records if r.kind is RecordKind.SETXATTR}
        if not names:
            return
        nodes, before = self._store.nodes, self._store.nodes.base_xattrs(node)
        left = {
            r.xattr_name: r.xattr_value
            for r in self._store.journal.of_node(node)
            if r.kind is RecordKind.SETXATTR
        }
        for name in names:
            nodes.set_xattr(node, name, left[name] if name in left else before.get(name))
            if name not in before:
                known_xattrs.doubt(self._store, node)  # the server is asked when it can be

    def content(self, node: NodeId, records: Sequence[Record]) -> None:
        """The base's content, as far as it is here; for the rest the server will be asked."""
        store = self._store
        base = store.server.get(node)
        if base is None or base.kind is not Kind.FILE or store.journal.has_store(node):
            return
        if not any(r.kind is RecordKind.STORE for r in records):
            return
        opened = self._context.opened.get(node)
        if opened is not None:
            self._stand_in(node, base)
            return
        self._restore(node, node, base)
        store.nodes.update(node, size=base.size, mtime_ns=base.mtime_ns)

    def _restore(self, node: NodeId, to: NodeId, base: ServerNode) -> None:
        content = self._store.content
        if content.base_token(node) == base.token:
            content.restore_base(node, to)
        else:  # none was kept, or it is of another revision
            content.drop_base(node)
            content.drop(to)

    def _stand_in(self, node: NodeId, base: ServerNode) -> None:
        """Descriptors keep what they had: another node takes the place of the open one.

        The old one lives on without a name, like any file that was removed while it was open.
        """
        nodes, server = self._store.nodes, self._store.server
        old = nodes.get(node)
        assert old is not None
        new = nodes.add(
            old.kind,
            old.mode,
            old.uid,
            old.gid,
            size=base.size,
            atime_ns=base.mtime_ns,
            mtime_ns=base.mtime_ns,
            ctime_ns=self._context.now(),
            btime_ns=old.btime_ns,
        ).id
        for name, value in nodes.xattrs(node).items():
            nodes.set_xattr(new, name, value)
        for parent, name in nodes.names(node):
            nodes.remove_name(parent, name)
            nodes.add_name(parent, name, new)
        self._restore(node, new, base)
        places = server.names(node)
        server.set(new, base.entry(), seen_ns=0, digest=base.digest)
        server.forget(node)
        for parent, name in places:
            server.add_name(parent, name, new)
        pin = self._store.pins.get(node)
        if pin is not None:
            self._store.pins.remove(node)
            self._store.pins.add(new, pin.priority, pin.recursive)
        self._store.node_settings.inherit(new, node)

"""Changes of the name space and of attributes, as POSIX has them, each with its record.

The kernel has checked permissions (``default_permissions``) and resolved the path; what is
checked here is what can differ from the kernel's view, and what only a file system knows.
All methods answer without waiting: they touch the local tree and the journal only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from awayfs.core.errors import EDISCONDATA
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.ports.remote import STAGED_PREFIX
from awayfs.store.nodes import Node
from awayfs.volume import known_xattrs
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.fault import fault
from awayfs.volume.journaling import Journaling
from awayfs.volume.opened import OpenNode

NAME_MAX = 255
RESERVED = b".awayfs"
MADE_KNOWN = 10_000
SAVED_WITHIN_NS = 600 * SECOND_NS
"""A file that was made longer ago, and renamed over another, had a life of its own."""
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class Changes:
    """create, mkdir, symlink, mknod, link, unlink, rmdir, rename, chmod, chown, utimes, xattrs."""

    def __init__(self, context: Context, journaling: Journaling) -> None:
        self._context = context
        self._store = context.store
        self._nodes = context.store.nodes
        self._journal = journaling
        self._made: dict[NodeId, None] = {}  # the last ones made here, oldest first

    def create(
        self,
        parent: NodeId,
        name: bytes,
        kind: Kind,
        mode: int,
        uid: int,
        gid: int,
        *,
        target: bytes | None = None,
        rdev: int = 0,
    ) -> Node:
        """A new node under a new name. ``mode`` has the umask applied; permission bits only.

        A set-group-ID directory hands its group, and to directories the bit, down (inode(7)).
        """
        self.check_supported(kind)
        directory = self._directory(parent)
        with self._applied():
            node = self._add(directory, name, kind, mode, uid, gid, target, rdev)
            self._journal.append(RecordKind.CREATE, node.id, parent=parent, name=name)
        return node

    def create_open(
        self, parent: NodeId, name: bytes, mode: int, uid: int, gid: int, *, writing: bool
    ) -> tuple[Node, OpenNode]:
        """A new file, open (open(2) with O_CREAT); EEXIST where the name is taken.

        With ``writing`` its first store is journaled with it; it is withdrawn should nobody write
        (``Files.close``).
        """
        directory = self._directory(parent)
        self._store.reserve.check()
        with self._store.transaction():
            node = self._add(directory, name, Kind.FILE, mode, uid, gid)
            opened = self._context.opened.create(node, writing=writing)
            opened.blank = self._journal.created(node.id, parent, name, stored=writing)
        self._nodes.touched(directory, node.mtime_ns)
        fault("changes.applied")
        fault("files.journaled")
        return node, opened

    def unnamed(self, parent: NodeId, mode: int, uid: int, gid: int) -> Node:
        """An O_TMPFILE file: no name, and no record until ``link`` gives it one."""
        directory = self._directory(parent)
        with self._store.transaction():
            return self._add(directory, None, Kind.FILE, mode, uid, gid)

    def link(self, node_id: NodeId, parent: NodeId, name: bytes) -> Node:
        """One more name for a node (link(2)); the first name of an O_TMPFILE file creates it."""
        node = self._required(node_id)
        if node.kind is Kind.DIRECTORY:
            raise OSError(errno.EPERM, "hard links to directories are not allowed")
        self._directory(parent)
        self._check_new_name(parent, name)
        unnamed = not self._nodes.names(node_id)
        if unnamed and self._store.journal.has_any(node_id):
            raise OSError(errno.ENOENT, "the file was removed")
        capabilities = self._context.link.capabilities
        if not unnamed and capabilities and not capabilities.hard_links:
            raise OSError(errno.EPERM, "the server has no hard links")
        with self._applied():
            self._nodes.add_name(parent, name, node_id)
            self._nodes.update(node_id, ctime_ns=self._context.now())
            self._touch(parent)
            kind = RecordKind.CREATE if unnamed else RecordKind.LINK
            self._journal.append(kind, node_id, parent=parent, name=name)
            if unnamed:
                self._journal_nameless(node)
        return self._required(node_id)

    def unlink(self, parent: NodeId, name: bytes) -> Node:
        """Remove a name (unlink(2)); the node stays while it is open or its record waits."""
        node = self._child(parent, name)
        if node.kind is Kind.DIRECTORY:
            raise OSError(errno.EISDIR, "is a directory")
        self._store.insist(lambda: self._remove_name(parent, name, node))
        return node

    def rmdir(self, parent: NodeId, name: bytes) -> Node:
        """Remove an empty directory (rmdir(2)).

        A directory that was never listed cannot be known to be empty: EDISCONDATA.
        """
        node = self._child(parent, name)
        if node.kind is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "not a directory")
        if self._nodes.has_children(node.id):
            raise OSError(errno.ENOTEMPTY, "directory is not empty")
        if not self._store.server.children_known(node.id):
            raise OSError(EDISCONDATA, "the directory was never listed")
        self._store.insist(lambda: self._remove_name(parent, name, node))
        return node

    def rename(
        self, parent: NodeId, name: bytes, to_parent: NodeId, to_name: bytes, flags: int
    ) -> None:
        """rename(2) and renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE."""
        node = self._child(parent, name)
        self._directory(to_parent)
        existing = self._nodes.child(to_parent, to_name)
        if flags == RENAME_EXCHANGE:
            self._exchange(parent, name, node, to_parent, to_name, existing)
            return
        if flags not in (0, RENAME_NOREPLACE):
            raise OSError(errno.EINVAL, "unknown rename flags")
        if existing is not None and flags == RENAME_NOREPLACE:
            raise OSError(errno.EEXIST, "target exists")
        if existing is not None and existing.id == node.id:
            return
        self.check_name(to_parent, to_name)
        self._check_move(node, to_parent)
        if existing is not None:
            self._check_replaceable(node, existing)
        self._move(parent, name, node, to_parent, to_name, existing)

    def set_attributes(self, node_id: NodeId, attributes: Attributes) -> Node:
        """chmod, chown and utimensat; size is ``Files.truncate``'s business."""
        self._required(node_id)
        now = self._context.now()
        columns: dict[str, int] = {"ctime_ns": now}
        for field in ("mode", "uid", "gid", "mtime_ns", "atime_ns"):
            value = getattr(attributes, field)
            if value is not None:
                columns[field] = value
        opened = self._context.opened.get(node_id)
        with self._applied():
            if opened is not None:
                self._context.opened.save(opened)
            self._nodes.update(node_id, **columns)
            if self._journaled(node_id):
                self._journal.append(RecordKind.SETATTR, node_id, attributes=attributes)
            if attributes.mtime_ns is not None and self._store.journal.has_store(node_id):
                self._store.content.stamp(node_id, attributes.mtime_ns)  # see ``opened``
        if opened is not None:
            opened.ctime_ns = now
            opened.mtime_ns = columns.get("mtime_ns", opened.mtime_ns)
        return self._required(node_id)

    def set_xattr(self, node_id: NodeId, name: bytes, value: bytes | None, flags: int) -> None:
        """setxattr(2), or removexattr(2) with value None."""
        self.check_xattrs()
        known = self._nodes.xattrs(node_id)
        if value is None and name not in known:
            raise OSError(errno.ENODATA, "no such attribute")
        if flags & os.XATTR_CREATE and name in known:
            raise OSError(errno.EEXIST, "attribute exists")
        if flags & os.XATTR_REPLACE and name not in known:
            raise OSError(errno.ENODATA, "no such attribute")
        with self._applied():
            # Else nobody knows what it was.
            if name in known or known_xattrs.were_read(self._store, node_id, known):
                self._keep_base_xattr(node_id, name, known.get(name))
            self._nodes.set_xattr(node_id, name, value)
            self._nodes.update(node_id, ctime_ns=self._context.now())
            if self._journaled(node_id):
                self._journal.append(
                    RecordKind.SETXATTR, node_id, xattr_name=name, xattr_value=value
                )

    def _keep_base_xattr(self, node_id: NodeId, name: bytes, value: bytes | None) -> None:
        """What discarding the change brings back; kept at the first one that is unsent."""
        if self._store.server.get(node_id) is None:
            return
        records = self._store.journal.of_node(node_id)
        if not any(r.kind is RecordKind.SETXATTR and r.xattr_name == name for r in records):
            self._nodes.keep_base_xattr(node_id, name, value)

    @contextmanager
    def _applied(self, *, growing: bool = True) -> Iterator[None]:
        """One transaction for a change and its record; the caller is answered after it."""
        if growing:
            self._store.reserve.check()
        with self._store.transaction():
            yield
        fault("changes.applied")

    def discard_if_unused(self, node_id: NodeId) -> bool:
        """Drop a node that has no name, no record, no user and nothing on the server."""
        if node_id == ROOT or self._context.opened.get(node_id) is not None:
            return False
        if self._store.journal.has_any(node_id) or self._nodes.names(node_id):
            return False
        if self._store.server.names(node_id) or self._store.conflicts.of_node(node_id):
            return False
        if self._nodes.get(node_id) is None or self._nodes.has_children(node_id):
            return False
        with self._store.transaction():
            self._nodes.remove(node_id)
        return True

    def _add(
        self,
        directory: Node,
        name: bytes | None,
        kind: Kind,
        mode: int,
        uid: int,
        gid: int,
        target: bytes | None = None,
        rdev: int = 0,
    ) -> Node:
        """A new node in a directory, or with no name one that could be there (O_TMPFILE)."""
        if name is not None:
            self.check_name(directory.id, name)
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            if kind is Kind.DIRECTORY:
                mode |= stat.S_ISGID
        now = self._context.now()
        node = self._nodes.add(
            kind,
            mode,
            uid,
            gid,
            rdev=rdev,
            size=len(target) if target is not None else 0,
            atime_ns=now,
            mtime_ns=now,
            ctime_ns=now,
            btime_ns=now,
            target=target,
            place=None if name is None else (directory.id, name),
        )
        if name is not None:
            self._nodes.update(directory.id, mtime_ns=now, ctime_ns=now)
        self._made[node.id] = None
        if len(self._made) > MADE_KNOWN:
            del self._made[next(iter(self._made))]
        return node

    def _remove_name(self, parent: NodeId, name: bytes, node: Node) -> None:
        with self._applied(growing=False):
            self._nodes.remove_name(parent, name)
            self._nodes.update(node.id, ctime_ns=self._context.now())
            self._touch(parent)
            self._journal.append(RecordKind.REMOVE, node.id, parent=parent, name=name)

    def _move(
        self,
        parent: NodeId,
        name: bytes,
        node: Node,
        to_parent: NodeId,
        to_name: bytes,
        existing: Node | None,
    ) -> None:
        now = self._context.now()
        with self._applied():
            if existing is not None:
                self._nodes.remove_name(to_parent, to_name)
                self._nodes.update(existing.id, ctime_ns=now)
                self._inherit_pin(existing.id, node.id)
            self._nodes.move_name(parent, name, to_parent, to_name)
            self._nodes.update(node.id, ctime_ns=now)
            self._touch(parent)
            self._touch(to_parent)
            record = self._journal.append(
                RecordKind.RENAME,
                node.id,
                parent=parent,
                name=name,
                to_parent=to_parent,
                to_name=to_name,
                replaced=existing.id if existing else 0,
            )
            if existing is not None and self._is_save(node, existing):
                self._store.saves.add(record.seq)
                del self._made[node.id]  # from now on it is the other

    def _is_save(self, node: Node, existing: Node) -> bool:
        """Whether a file, or a symlink, is made here just now, only to take another's name."""
        lately = 0 <= self._context.now() - node.btime_ns <= SAVED_WITHIN_NS
        alike = node.kind is existing.kind and node.kind in (Kind.FILE, Kind.SYMLINK)
        return alike and node.nlink == 1 and lately and node.id in self._made

    def _exchange(
        self,
        parent: NodeId,
        name: bytes,
        node: Node,
        to_parent: NodeId,
        to_name: bytes,
        existing: Node | None,
    ) -> None:
        if existing is None:
            raise OSError(errno.ENOENT, "nothing to exchange with")
        self._check_move(node, to_parent)
        self._check_move(existing, parent)
        aside = b".awayfs~exchange~%d" % self._context.now()
        with self._applied():  # nobody ever sees one of them under the name in between
            self._nodes.move_name(parent, name, parent, aside)
            self._nodes.move_name(to_parent, to_name, parent, name)
            self._nodes.move_name(parent, aside, to_parent, to_name)
            for changed in (node.id, existing.id):
                self._nodes.update(changed, ctime_ns=self._context.now())
            self._touch(parent)
            self._touch(to_parent)
            self._journal.append(
                RecordKind.EXCHANGE,
                node.id,
                parent=parent,
                name=name,
                to_parent=to_parent,
                to_name=to_name,
                replaced=existing.id,
            )

    def _inherit_pin(self, replaced: NodeId, node: NodeId) -> None:
        """An editor's save is an edit of the target: the pin goes with the name."""
        pin = self._store.pins.get(replaced)
        if pin is not None:
            self._store.pins.add(node, pin.priority, pin.recursive)
        self._store.node_settings.inherit(node, replaced)

    def _check_replaceable(self, node: Node, existing: Node) -> None:
        if existing.kind is Kind.DIRECTORY:
            if node.kind is not Kind.DIRECTORY:
                raise OSError(errno.EISDIR, "target is a directory")
            if self._nodes.has_children(existing.id):
                raise OSError(errno.ENOTEMPTY, "target directory is not empty")
            if not self._store.server.children_known(existing.id):
                raise OSError(EDISCONDATA, "the target directory was never listed")
        elif node.kind is Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "target is not a directory")

    def _check_move(self, node: Node, to_parent: NodeId) -> None:
        if node.kind is Kind.DIRECTORY and (
            node.id == to_parent or self._nodes.is_ancestor(node.id, to_parent)
        ):
            raise OSError(errno.EINVAL, "a directory cannot be moved into itself")

    def _check_new_name(self, parent: NodeId, name: bytes) -> None:
        self.check_name(parent, name)
        if self._nodes.child_id(parent, name) is not None:
            raise OSError(errno.EEXIST, "exists")

    def check_name(self, parent: NodeId, name: bytes) -> None:
        """Raise OSError for a name that a new one there must not be."""
        if self._context.options.read_only:
            raise OSError(errno.EROFS, "mounted read-only")
        capabilities = self._context.link.capabilities
        longest = min(NAME_MAX, capabilities.name_max) if capabilities else NAME_MAX
        if len(name) > longest:
            raise OSError(errno.ENAMETOOLONG, "name too long")
        if parent == ROOT and name == RESERVED:
            raise OSError(errno.EPERM, ".awayfs is the volume's own")
        if name.startswith(STAGED_PREFIX) and name.endswith((b".new", b".old", b".fence")):
            raise OSError(errno.EPERM, "such names are awayfs's own on the server")

    def check_supported(self, kind: Kind) -> None:
        """Raise OSError for a kind that the server cannot hold."""
        capabilities = self._context.link.capabilities
        if capabilities is None or kind in (Kind.FILE, Kind.DIRECTORY):
            return
        offered = capabilities.symlinks if kind is Kind.SYMLINK else capabilities.special_files
        if not offered:
            raise OSError(errno.EPERM, "the server cannot hold this kind of file")

    def check_xattrs(self) -> None:
        """Raise OSError where the server has no extended attributes."""
        capabilities = self._context.link.capabilities
        if capabilities is not None and not capabilities.xattrs:
            raise OSError(errno.EOPNOTSUPP, "the server has no extended attributes")

    def _journal_nameless(self, node: Node) -> None:
        """What was done to a file while it had no name, beside what its creation tells."""
        if node.size:
            self._journal.store(node.id)
        for name, value in self._nodes.xattrs(node.id).items():
            self._journal.append(RecordKind.SETXATTR, node.id, xattr_name=name, xattr_value=value)

    def _journaled(self, node_id: NodeId) -> bool:
        """Whether the server has, or is to have, this node: a nameless one stays here."""
        return node_id == ROOT or bool(self._nodes.names(node_id))

    def _touch(self, directory: NodeId) -> None:
        now = self._context.now()
        self._nodes.update(directory, mtime_ns=now, ctime_ns=now)

    def _directory(self, node_id: NodeId) -> Node:
        node = self._required(node_id)
        if node.kind is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "not a directory")
        if node_id != ROOT and not self._nodes.is_named(node_id):
            raise OSError(errno.ENOENT, "the directory was removed")
        return node

    def _required(self, node_id: NodeId) -> Node:
        node = self._context.node(node_id)
        if node is None:
            raise OSError(errno.ESTALE, "the file is gone")
        return node

    def _child(self, parent: NodeId, name: bytes) -> Node:
        node = self._nodes.child(parent, name)
        if node is None:
            raise OSError(errno.ENOENT, "no such file or directory")
        return node

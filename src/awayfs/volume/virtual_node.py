"""What the objects of the ``.awayfs`` tree have in common, whatever part of it they are in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from awayfs.core.events import EventFile
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.nodes import Node
from awayfs.volume.context import Context
from awayfs.volume.revisions import Found, Revision, There, is_whole, state_of

VIRTUAL_BASE = 1 << 62
"""Node ids and inode numbers from here on are the ``.awayfs`` tree's."""
EVENTS_INODE = VIRTUAL_BASE | 1 << 59
"""Always the same: who follows a file by name takes another number for another file."""
BASE_INODES = VIRTUAL_BASE | 1 << 60
SERVER_INODES = VIRTUAL_BASE | 2 << 60
LOCAL_INODES = VIRTUAL_BASE | 3 << 60
"""Inode numbers of what is known under a node id, a range for each tree.

Hard links then show as such, and none is ever equal to the plain file's: programs that compare
files take equal numbers for a proof that there is nothing to compare.
"""

Path = tuple[bytes, ...]
Listing = list[tuple[bytes, Kind]]


@dataclass(frozen=True, slots=True)
class VirtualNode:
    """One object. A file's content is in ``data`` or is read from what ``open`` gives.

    ``owner`` None: it belongs to who mounted. ``inode`` 0: a number of its own. ``found`` tells
    what of the content is here; it is asked only when somebody wants to know, since most of what
    is looked up is never opened.
    """

    kind: Kind
    mode: int = 0o400
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    nlink: int = 1
    rdev: int = 0
    target: bytes = b""
    owner: tuple[int, int] | None = None
    inode: int = 0
    data: bytes | None = None
    open: Callable[[], Revision | EventFile] | None = None
    found: Callable[[], list[Found]] | None = None

    @property
    def state(self) -> str:
        """``clean`` when all of it is here, else ``partial`` or ``placeholder``."""
        if self.kind is not Kind.FILE or self.found is None:
            return "clean"
        return state_of(self.found(), self.size)

    @property
    def path(self) -> str | None:
        """The one file in the state directory that holds all of it, where there is one."""
        found = self.found() if self.found is not None else []
        return next((one.path for one in found if is_whole([one], self.size)), None)


Looked = VirtualNode | Awaitable[VirtualNode]
Listed = Listing | Awaitable[Listing]


def directory(now_ns: int, mode: int = 0o500) -> VirtualNode:
    """A directory that is only there to hold others."""
    return VirtualNode(Kind.DIRECTORY, mode=mode, mtime_ns=now_ns, ctime_ns=now_ns, nlink=2)


def private(top: VirtualNode) -> VirtualNode:
    """The top of a whole tree: only who mounted gets in, whatever the tree's own rights say."""
    return replace(top, mode=0o500, owner=None)


def link(target: bytes, now_ns: int) -> VirtualNode:
    """A symbolic link of ours."""
    return VirtualNode(
        Kind.SYMLINK, mode=0o777, size=len(target), mtime_ns=now_ns, ctime_ns=now_ns, target=target
    )


def text(content: bytes, now_ns: int) -> VirtualNode:
    """A file whose content is made when it is looked at."""
    return VirtualNode(Kind.FILE, size=len(content), mtime_ns=now_ns, ctime_ns=now_ns, data=content)


def of_entry(
    context: Context,
    entry: Entry,
    inode: int,
    found: Callable[[], list[Found]] = list,
    there: There | None = None,
) -> VirtualNode:
    """An object as the server showed it."""
    return VirtualNode(
        kind=entry.kind,
        mode=entry.mode,
        size=len(entry.target or b"") if entry.kind is Kind.SYMLINK else entry.size,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.ctime_ns if entry.ctime_ns is not None else entry.mtime_ns,
        nlink=entry.nlink,
        rdev=entry.rdev,
        target=entry.target or b"",
        owner=context.local_owner(entry),
        inode=inode,
        open=lambda: Revision(context, entry.size, found(), there),
        found=found,
    )


def of_node(context: Context, node: Node, found: Callable[[], list[Found]]) -> VirtualNode:
    """An object as it is here; what of its content is not here cannot be had."""
    return VirtualNode(
        kind=node.kind,
        mode=node.mode,
        size=node.size,
        mtime_ns=node.mtime_ns,
        ctime_ns=node.ctime_ns,
        nlink=node.nlink,
        rdev=node.rdev,
        target=node.target or b"",
        owner=(node.uid, node.gid),
        inode=local_inode(node.id),
        open=lambda: Revision(context, node.size, found(), None),
        found=found,
    )


def local_inode(node: NodeId) -> int:
    """The inode number under which the local variant of a node shows in the tree."""
    return LOCAL_INODES | node

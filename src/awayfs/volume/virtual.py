"""The ``.awayfs`` tree in the root of a mount: reachable by name, never listed.

    status                                      what ``awayfs status --json`` prints
    events                                      what happens, a line each (``core.events``)
    conflicts/PATH/{base,local,server,merged}   the variants of every conflicted node
    base/PATH                                   the tree as it was last in step
    server/PATH                                 the tree as the server has it
    lost+found/                                 work that has no place
    variant/TICKET                              a variant for whoever was given the ticket

Nothing in it can be changed. What a path shows is computed each time it is asked for; a path
has a number as long as the kernel knows it.
"""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from awayfs.core.events import EventFile
from awayfs.core.types import Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.context import Context
from awayfs.volume.revisions import Revisions
from awayfs.volume.server_variants import ServerVariants
from awayfs.volume.virtual_base import BaseTree
from awayfs.volume.virtual_conflicts import ConflictTree
from awayfs.volume.virtual_lost import LostTree
from awayfs.volume.virtual_node import (
    EVENTS_INODE,
    VIRTUAL_BASE,
    Listed,
    Looked,
    Path,
    VirtualNode,
    directory,
    text,
)
from awayfs.volume.virtual_server import ServerTree
from awayfs.volume.virtual_tickets import TicketTree

__all__ = ["VIRTUAL_BASE", "Path", "VirtualNode", "VirtualTree"]

OPEN_TO_ALL = 0o511
"""The top can be passed through, for tickets; what is in it has rights of its own."""


class SubTree(Protocol):
    """A part of the tree, by path below its own name."""

    def find(self, path: Path) -> Looked: ...

    def entries(self, path: Path) -> Listed: ...


class VirtualTree:
    """Looks up, lists and numbers what the volume tells about itself."""

    def __init__(
        self,
        context: Context,
        status: Callable[[], dict[str, Any]],
        learn: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        self._context = context
        self._status = status
        self.revisions = Revisions(context)
        self.server_variants = ServerVariants(context)
        self.conflicts = ConflictTree(context, self.revisions, self.server_variants)
        self.base = BaseTree(context, self.revisions, learn)
        self.server = ServerTree(context, self.revisions)
        self.tickets = TicketTree(context)
        self._subtrees: dict[bytes, SubTree] = {
            b"base": self.base,
            b"conflicts": self.conflicts,
            b"lost+found": LostTree(context, self.revisions, self.conflicts),
            b"server": self.server,
            b"variant": self.tickets,
        }
        self._numbers = itertools.count(VIRTUAL_BASE + 1)
        self._paths: dict[int, Path] = {VIRTUAL_BASE: ()}
        self._ids: dict[Path, int] = {(): VIRTUAL_BASE}

    # -- numbers --------------------------------------------------------------------------

    def node_id(self, path: Path) -> int:
        """The number of a path, allotted at its first use."""
        if path not in self._ids:
            number = next(self._numbers)
            self._ids[path] = number
            self._paths[number] = path
        return self._ids[path]

    def path_of(self, node_id: int) -> Path:
        """The path of a number; ESTALE for one that is not known."""
        try:
            return self._paths[node_id]
        except KeyError:
            raise OSError(errno.ESTALE, "no such object") from None

    def forget(self, node_id: int) -> None:
        """The kernel does not know a number any more; it is never given again."""
        if node_id == VIRTUAL_BASE:
            return
        path = self._paths.pop(node_id, None)
        if path is not None:
            del self._ids[path]
            if path[0] == b"variant" and len(path) > 1:
                self.tickets.forget(path[1:])

    # -- the tree -------------------------------------------------------------------------

    def get(self, path: Path) -> Looked:
        """What stands at a path; ENOENT when nothing does."""
        now = self._context.now()
        if path == ():
            return directory(now, OPEN_TO_ALL)
        if path == (b"status",):
            return text((json.dumps(self._status(), indent=2) + "\n").encode(), now)
        if path == (b"events",):
            return self._events()
        return self._subtree(path).find(path[1:])

    def entries(self, path: Path) -> Listed:
        """Names in a directory, with what they are."""
        if path == ():
            names = [(name, Kind.DIRECTORY) for name in self._subtrees if name != b"variant"]
            return sorted([*names, (b"events", Kind.FILE), (b"status", Kind.FILE)])
        return self._subtree(path).entries(path[1:])

    def _events(self) -> VirtualNode:
        """A file that only grows; who reads it slowly is told what he missed."""
        log = self._context.events
        return VirtualNode(
            Kind.FILE,
            size=log.end,
            mtime_ns=log.last_ns,
            ctime_ns=log.last_ns,
            inode=EVENTS_INODE,
            open=lambda: EventFile(log),
        )

    def _subtree(self, path: Path) -> SubTree:
        try:
            return self._subtrees[path[0]]
        except KeyError:
            raise OSError(errno.ENOENT, "no such file or directory") from None

    # -- conflicts, as commands ask for them ----------------------------------------------

    def conflict_path(self, conflict: Conflict) -> bytes:
        """The path a conflict is about."""
        return self.conflicts.path_of(conflict)

    def shown_path(self, conflict: Conflict) -> bytes:
        """Where a conflict stands below ``conflicts``."""
        return self.conflicts.shown_path(conflict)

    def variants(self, conflict: Conflict) -> dict[bytes, VirtualNode]:
        """The variants of a conflict of which all is here."""
        return self.conflicts.variants(conflict)

    def base_node(self, conflict: Conflict) -> NodeId:
        """Whose base a conflict is about."""
        return self.conflicts.base_node(conflict)

    def base_path(self, conflict: Conflict) -> str | None:
        """The file with the base's content, if it is all here."""
        base = self.conflicts.variant(conflict, b"base")
        return base.path if base is not None and base.kind is Kind.FILE else None

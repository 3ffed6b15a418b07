"""``.awayfs/server``: the whole tree as the server has it.

While the server can be asked it is asked, and what it says is shown whatever is known or changed
here. Otherwise it is what was last seen: the server view, and what conflicts say of objects that
were never adopted.
"""

from __future__ import annotations

import errno
from functools import partial

from msgspec import Struct

from awayfs.core.conflicts import ConflictKind
from awayfs.core.errors import EDISCONDATA, EDISCONNECTED, NotFound, RemoteError, Unreachable
from awayfs.core.types import ROOT, Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.volume.changes import RESERVED
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.revisions import Revisions, There, os_error
from awayfs.volume.server_variants import place_of
from awayfs.volume.virtual_node import (
    SERVER_INODES,
    Listed,
    Listing,
    Looked,
    Path,
    VirtualNode,
    directory,
    of_entry,
    private,
)

AGAIN_NS = 30 * SECOND_NS
"""Who looks through a directory for longer than an observation counts has it listed again."""
LISTINGS_MOST = 64
LISTED_MOST = 200_000
"""How many listings, and how many entries in all of them, are remembered."""


class _Seen(Struct):
    """A directory as the server listed it, or single names of it; absent ones are None."""

    at_ns: int
    entries: dict[bytes, Entry | None]
    complete: bool


class ServerTree:
    """What the server has."""

    def __init__(self, context: Context, revisions: Revisions) -> None:
        self._context = context
        self._store = context.store
        self._revisions = revisions
        self._seen: dict[Path, _Seen] = {}
        self._overrides: dict[tuple[NodeId, bytes], Conflict] = {}
        self._overrides_of = -1

    def find(self, path: Path) -> Looked:
        """What stands at a path; asks the server where that was not just done."""
        if not path:
            return self._root()
        if path == (RESERVED,):
            raise OSError(errno.ENOENT, "no such file or directory")
        if not self._context.link.usable:
            return self._known(path)
        seen = self._fresh(path[:-1])
        if seen is not None and (path[-1] in seen.entries or seen.complete):
            return self._shown(path, seen.entries.get(path[-1]))
        return self._ask_again(path) if self._is_being_read(path[:-1]) else self._ask(path)

    def entries(self, path: Path) -> Listed:
        """Names in a directory, with what they are."""
        return self._list(path) if self._context.link.usable else self._known_entries(path)

    def place(self, node: NodeId) -> Path | None:
        """The path under which the server has a node, as far as is known."""
        path = self._store.server.path(node)
        return None if path is None else tuple(part for part in path.split(b"/") if part)

    # -- asking ---------------------------------------------------------------------------

    async def _ask(self, path: Path) -> VirtualNode:
        entry: Entry | None
        try:
            entry = await self._context.link.call(lambda remote: remote.stat(b"/".join(path)))
        except NotFound:
            entry = None
        except Unreachable:
            return self._known(path)
        except RemoteError as error:
            raise os_error(error, errno.ENOENT) from error
        self._remember_one(path, entry)
        return self._shown(path, entry)

    async def _list(self, path: Path) -> Listing:
        try:
            listed = await self._context.link.call(lambda remote: remote.list(b"/".join(path)))
        except Unreachable:
            return self._known_entries(path)
        except RemoteError as error:
            raise os_error(error, errno.ENOENT) from error
        entries: dict[bytes, Entry | None] = {
            entry.name: entry for entry in listed if path or entry.name != RESERVED
        }
        self._remember(path, _Seen(self._context.now(), entries, complete=True))
        return [(name, entry.kind) for name, entry in sorted(entries.items()) if entry]

    def _fresh(self, path: Path) -> _Seen | None:
        """What was seen of a directory a moment ago; a listing answers its lookups."""
        seen = self._seen.get(path)
        age = max(self._context.effective.value("fresh"), 1.0) * SECOND_NS
        if seen is None or not 0 <= self._context.now() - seen.at_ns <= age:
            return None
        return seen

    def _is_being_read(self, path: Path) -> bool:
        """Whether a directory was listed not long ago, so that one listing saves many questions."""
        seen = self._seen.get(path)
        return seen is not None and seen.complete and self._context.now() - seen.at_ns < AGAIN_NS

    async def _ask_again(self, path: Path) -> VirtualNode:
        await self._list(path[:-1])
        seen = self._seen.get(path[:-1])
        return self._shown(path, seen.entries.get(path[-1])) if seen else self._known(path)

    def _remember_one(self, path: Path, entry: Entry | None) -> None:
        seen = self._fresh(path[:-1])
        if seen is None:
            seen = _Seen(self._context.now(), {}, complete=False)
            self._remember(path[:-1], seen)
        if not self._context.effective.value("fresh"):
            seen.entries.pop(path[-1], None)  # the next one asks again
        else:
            seen.entries[path[-1]] = entry

    def _remember(self, path: Path, seen: _Seen) -> None:
        self._seen.pop(path, None)
        self._seen[path] = seen
        while len(self._seen) > 1 and (
            len(self._seen) > LISTINGS_MOST
            or sum(len(one.entries) for one in self._seen.values()) > LISTED_MOST
        ):
            del self._seen[next(iter(self._seen))]

    # -- showing --------------------------------------------------------------------------

    def _shown(self, path: Path, entry: Entry | None) -> VirtualNode:
        if entry is None:
            raise OSError(errno.ENOENT, "no such file or directory")
        node = self._node_of(path, entry)
        inode = SERVER_INODES | node if node is not None else 0
        if entry.kind is not Kind.FILE:
            return of_entry(self._context, entry, inode)
        known = self._in_conflict_with(path, entry) if node is None else node
        found = partial(self._revisions.on_server, known, entry)
        there = There(lambda: b"/".join(path), entry.token)
        return of_entry(self._context, entry, inode, found, there)

    def _node_of(self, path: Path, entry: Entry) -> NodeId | None:
        """What the object is known as here, or what it is in conflict with; else None."""
        node = self._walk(path)
        if entry.file_id is not None:
            node = self._store.server.by_file_id(entry.file_id)
        base = self._store.server.get(node) if node is not None else None
        return node if base is not None and base.kind is entry.kind else None

    def _in_conflict_with(self, path: Path, entry: Entry) -> NodeId | None:
        """The node here that a stranger at this place is in conflict with."""
        above = self._walk(path[:-1])
        conflict = self._overriding().get((above, path[-1])) if above is not None else None
        known = conflict.server_entry if conflict is not None else None
        return conflict.node if conflict and known and known.token == entry.token else None

    def _root(self) -> VirtualNode:
        base = self._store.server.get(ROOT)
        if base is None:
            return directory(self._context.now())
        return private(of_entry(self._context, base.entry(), SERVER_INODES | ROOT))

    def _walk(self, path: Path) -> NodeId | None:
        node: NodeId | None = ROOT
        for name in path:
            node = self._store.server.child(node, name) if node is not None else None
        return node

    # -- what was last seen ---------------------------------------------------------------

    def _known(self, path: Path) -> VirtualNode:
        above = self._known_directory(path[:-1])
        place = (above, path[-1])
        if place in self._overriding():
            return self._shown(path, self._overriding()[place].server_entry)
        node = self._store.server.child(*place)
        base = self._store.server.get(node) if node is not None else None
        if base is not None:
            return self._shown(path, base.entry(path[-1]))
        if self._store.server.listed_ns(above) is None:
            raise OSError(EDISCONNECTED, "not known here, and the server is away")
        raise OSError(errno.ENOENT, "no such file or directory")

    def _known_directory(self, path: Path) -> NodeId:
        """The node of a directory on the server; the errno says why there is none."""
        node = ROOT
        for name in path:
            override = self._overriding().get((node, name))
            seen = override.server_entry if override is not None else None
            child = self._store.server.child(node, name)
            if child is None or (seen is not None and seen.kind is not Kind.DIRECTORY):
                raise OSError(EDISCONNECTED, "not known here, and the server is away")
            node = child
        return node

    def _known_entries(self, path: Path) -> Listing:
        node = self._known_directory(path)
        if self._store.server.listed_ns(node) is None:
            raise OSError(EDISCONDATA, "it was never listed, and the server is away")
        entries = dict(self._store.server.kinds(node))
        for (above, name), conflict in self._overriding().items():
            entry = conflict.server_entry
            if above == node and entry is None:
                entries.pop(name, None)
            elif above == node and entry is not None:
                entries[name] = entry.kind
        return sorted(entries.items())

    def _overriding(self) -> dict[tuple[NodeId, bytes], Conflict]:
        """The conflicts that know of the server what was not adopted; made anew after any write."""
        if self._overrides_of != self._store.db.changes:
            self._overrides_of = self._store.db.changes
            self._overrides = {}
            for conflict in self._store.conflicts.all():
                place = place_of(self._store, conflict)
                gone = conflict.kind == ConflictKind.UPDATE_REMOVE
                if place is not None and (conflict.server_entry is not None or gone):
                    self._overrides[place] = conflict
        return self._overrides

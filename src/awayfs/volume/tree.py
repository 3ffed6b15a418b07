"""Looking at the tree: lookup, attributes, directories, links, extended attributes.

Answers come from the store at once where they are fresh, local, or all there is (offline).
Otherwise the server is asked first and the method returns a coroutine; when the server turns
out to be away the store's answer stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable

from msgspec import Struct

from awayfs.core.errors import EDISCONDATA, EDISCONNECTED, Refused, RemoteError, Unreachable
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Kind, NodeId, Space
from awayfs.store.nodes import Node
from awayfs.volume import known_xattrs
from awayfs.volume.adopt import OWN
from awayfs.volume.ahead import LookAhead
from awayfs.volume.changes import Changes
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.observe import Observer

SPACE_KEPT_NS = 10 * SECOND_NS
LISTING_S = 0.25
"""So long who asks for one name waits for a listing of all names."""


class DirectoryHandle(Struct):
    """One open directory, and what it contained when reading began.

    The kernel often has the listing itself and never reads, so entries are loaded late.
    """

    node: NodeId
    parent: NodeId
    entries: list[tuple[bytes, Node]] | None = None
    changes: int = -1  # the state of the database that ``entries`` are of


class Tree:
    """Reads of the name space and of attributes."""

    def __init__(self, context: Context, observer: Observer, changes: Changes) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._changes = changes
        self.ahead = LookAhead(context, observer)
        self._stale_lookup_ns: dict[NodeId, int] = {}
        self._space: Space | None = None
        self._space_ns = 0

    def lookup(self, parent: NodeId, name: bytes) -> Node | Awaitable[Node]:
        """The node under a name; ENOENT, or EDISCONNECTED when that cannot be known."""
        found = self._store.nodes.child_id(parent, name)  # mostly none, before a file is made
        node = None if found is None else self._context.node(found)
        if self._context.link.usable and not self._settled(parent, name, node):
            return self._lookup_asking(parent, name)
        return self._known(parent, name, node)

    def attributes(self, node_id: NodeId) -> Node | Awaitable[Node]:
        """A node's attributes, asked of the server first when they are stale."""
        if self._context.link.usable and self._is_stale(node_id):
            return self._attributes_asking(node_id)
        return self._present(node_id)

    def freshen(self, node_id: NodeId) -> Awaitable[None] | None:
        """What an open has to wait for: a stale observation, content to be verified, a refusal."""
        if not self._context.link.usable:
            return None
        if self._is_worth_a_look(node_id) or self._observer.is_suspect(node_id):
            return self._freshen(node_id)
        return None

    async def open_directory(self, node_id: NodeId) -> DirectoryHandle:
        """Open a directory, listed anew if need be; EDISCONDATA when it never was."""
        node = self._present(node_id)
        if node.kind is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "not a directory")
        if not self.directory_is_fresh(node_id):
            self.ahead.opened(node_id, fresh=False)
            await self._list(node_id)
        else:
            self.ahead.opened(node_id, fresh=True)
        return self._opened(node_id)

    def opened_directory(self, node_id: NodeId) -> DirectoryHandle:
        """Open a directory as it is known here."""
        self.ahead.opened(node_id, fresh=True)
        return self._opened(node_id)

    def _opened(self, node_id: NodeId) -> DirectoryHandle:
        if not self._store.server.children_known(node_id):
            text = "the directory was never listed, and the server is away"
            raise self._context.refusals.missing(node_id, EDISCONDATA, text)
        parent = node_id if node_id == ROOT else self._store.nodes.parent(node_id) or ROOT
        return DirectoryHandle(node_id, parent)

    def load(self, handle: DirectoryHandle) -> list[tuple[bytes, Node]]:
        """Have the handle's entries be those of this moment."""
        handle.changes = self._store.db.changes
        handle.entries = self.entries(handle.node)
        return handle.entries

    def entry_now(self, handle: DirectoryHandle, index: int) -> Node | None:
        """What the name of a loaded entry means by now; None when it is gone.

        A directory is read in parts, between which much can happen; the kernel keeps what it is
        told with a name.
        """
        assert handle.entries is not None
        name, node = handle.entries[index]
        if handle.changes != self._store.db.changes:
            found = self._store.nodes.child(handle.node, name)
            if found is None:
                return None
            node = found
        self._context.opened.overlay(node)
        return node

    def entries(self, node_id: NodeId) -> list[tuple[bytes, Node]]:
        """Names and nodes in a directory, as they are known here."""
        entries = self._store.nodes.children(node_id)
        for _, child in entries:
            self._context.opened.overlay(child)
        return entries

    def directory_is_fresh(self, node_id: NodeId) -> bool:
        """Whether ``open_directory`` would answer without asking the server."""
        if not self._context.link.usable or not self._is_listable(node_id):
            return True
        return self._context.is_fresh(self._store.server.listed_ns(node_id), node_id)

    async def xattrs(self, node_id: NodeId) -> dict[bytes, bytes]:
        """Extended attributes, read from the server unless those of its revision are here."""
        known = self._store.nodes.xattrs(node_id)
        link = self._context.link
        capabilities = link.capabilities
        path = self._store.server.path(node_id)
        if (
            link.usable
            and capabilities is not None
            and capabilities.xattrs
            and path is not None
            and not known_xattrs.are_current(self._store, node_id, known)
        ):
            known = await self._load_xattrs(node_id, path, known)
        return {name: value for name, value in known.items() if name != known_xattrs.XATTRS_OF}

    async def space(self) -> Space | None:
        """The server's free space, at most ten seconds old while connected; None if unknown."""
        now = self._context.now()
        if self._context.link.usable and now - self._space_ns > SPACE_KEPT_NS:
            self._space_ns = now
            try:
                self._space = await self._context.link.call(lambda remote: remote.space())
            except RemoteError:
                pass
        return self._space

    async def _load_xattrs(
        self, node_id: NodeId, path: bytes, known: dict[bytes, bytes]
    ) -> dict[bytes, bytes]:
        """Read and kept, unless there is more than the answer tells: then what is set here counts.

        That may have come to the server just behind it.
        """
        mark, ours = known_xattrs.mark_of(self._store, node_id), self._xattrs_set_here(node_id)
        try:
            found = await self._context.link.call(lambda remote: remote.xattrs(path))
        except RemoteError:
            return known
        found = {name: value for name, value in found.items() if not name.startswith(OWN)}
        moved_on = known_xattrs.mark_of(self._store, node_id) != mark
        gone = self._store.nodes.get(node_id) is None
        if moved_on or gone or self._store.journal.has_any(node_id):
            merged = {**found, **ours, **self._xattrs_set_here(node_id)}
            return {name: value for name, value in merged.items() if value is not None}
        with self._store.transaction():
            for name in known.keys() - found.keys():
                self._store.nodes.set_xattr(node_id, name, None)
            for name, value in {**found, known_xattrs.XATTRS_OF: mark}.items():
                self._store.nodes.set_xattr(node_id, name, value)
        return found

    def _xattrs_set_here(self, node_id: NodeId) -> dict[bytes, bytes | None]:
        """What was set here last of each that is not on the server yet; None: removed."""
        records = self._store.journal.of_node(node_id)
        return {r.xattr_name: r.xattr_value for r in records if r.kind is RecordKind.SETXATTR}

    def _known(self, parent: NodeId, name: bytes, node: Node | None) -> Node:
        if node is not None:
            self._context.opened.overlay(node)
            return node
        if not self._context.link.usable and not self._absence_known(parent, name):
            text = "not known here, and the server is away"
            raise self._context.refusals.missing(parent, EDISCONNECTED, text)
        raise OSError(errno.ENOENT, "no such file or directory")

    def _absence_known(self, parent: NodeId, name: bytes) -> bool:
        return (
            self._store.server.children_known(parent)
            or self._store.server.child(parent, name) is not None
        )

    def _settled(self, parent: NodeId, name: bytes, node: Node | None) -> bool:
        """Whether the name needs no look at the server now."""
        server = self._store.server
        if node is not None:
            seen_ns = server.seen_ns(node.id)
            if seen_ns is None or self._context.is_fresh(seen_ns, node.id):
                return True
            return server.child(parent, name) != node.id  # renamed or linked here only
        if server.child(parent, name) is not None or not self._is_listable(parent):
            return True  # removed here, or in a directory that only exists here
        return self._context.is_fresh(server.listed_ns(parent), parent)

    async def _lookup_asking(self, parent: NodeId, name: bytes) -> Node:
        try:
            await self._look_at_server(parent, name)
        except Unreachable:
            pass
        except Refused as error:
            if self._store.nodes.child_id(parent, name) is None:
                raise OSError(error.errno, str(error)) from error
        except RemoteError:
            pass
        return self._known(parent, name, self._store.nodes.child(parent, name))

    async def _look_at_server(self, parent: NodeId, name: bytes) -> None:
        """One name is looked at alone; who asks for a second soon gets the whole directory, unless
        that is so large that a look at the name is sooner there.
        """
        now = self._context.now()
        recently = now - self._stale_lookup_ns.get(parent, 0) < SECOND_NS
        self._stale_lookup_ns[parent] = now
        if len(self._stale_lookup_ns) > 10_000:
            self._stale_lookup_ns.clear()
        keeps = self._context.fresh_s(parent) > 0  # else a listing answers no second question
        listed_ns = self._store.server.listed_ns(parent)
        if keeps and recently and not self._context.is_fresh(listed_ns, parent):
            with contextlib.suppress(TimeoutError):  # the listing goes on, for all who come later
                await asyncio.wait_for(self._observer.directory(parent), LISTING_S)
                return
        await self._observer.name(parent, name)

    def _is_stale(self, node_id: NodeId) -> bool:
        seen_ns = self._store.server.seen_ns(node_id)
        return seen_ns is not None and not self._context.is_fresh(seen_ns, node_id)

    def _is_worth_a_look(self, node_id: NodeId) -> bool:
        return self._is_stale(node_id) or self._context.refusals.any(node_id)

    def _is_listable(self, node_id: NodeId) -> bool:
        return node_id == ROOT or self._store.server.get(node_id) is not None

    async def _attributes_asking(self, node_id: NodeId) -> Node:
        await self._freshen(node_id)
        return self._present(node_id)

    async def _freshen(self, node_id: NodeId) -> None:
        try:
            if self._is_worth_a_look(node_id):
                await self._observer.node(node_id)
            if self._observer.is_suspect(node_id):
                await self._observer.verify(node_id)
        except RemoteError:
            pass  # what is known here stands

    async def _list(self, node_id: NodeId) -> None:
        try:
            await self._observer.directory(node_id)
            self._context.refusals.note(node_id, None)
        except Refused as error:
            self._context.refusals.note(node_id, error)
            if not self._store.server.children_known(node_id):
                raise OSError(error.errno, str(error)) from error
        except RemoteError:
            pass

    def _present(self, node_id: NodeId) -> Node:
        node = self._context.node(node_id)
        if node is None:
            raise OSError(errno.ESTALE, "the file is gone")
        return node

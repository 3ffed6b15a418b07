"""Where records work on the server, by the server's names of the nodes that they are about."""

from __future__ import annotations

from msgspec import Struct

from awayfs.core.earlier_names import name_after
from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import ROOT, NodeId
from awayfs.store.store import Store
from awayfs.volume.searching import join

CHANGING = (RecordKind.STORE, RecordKind.SETATTR, RecordKind.SETXATTR)
MOVING = (RecordKind.RENAME, RecordKind.EXCHANGE)


class Places(Struct, frozen=True):
    """Where a record works on the server; None where there is no such place (yet)."""

    path: bytes | None = None  # the node, or the name to be removed
    target: bytes | None = None  # the name that is wanted
    directory: NodeId = 0  # of ``path``
    target_directory: NodeId = 0


class PlaceFinder:
    """Finds them, for replay and for decisions alike: what was decided about is what goes out."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, record: Record) -> Places:
        """The paths that a record works on."""
        if record.kind in (RecordKind.CREATE, RecordKind.LINK):
            path, directory = self._path_of(record.node)
            target = self.join(record.parent, record.name)
            return Places(path, target, directory, record.parent)
        if record.kind is RecordKind.REMOVE:
            if self._store.server.child(record.parent, record.name) != record.node:
                return Places(directory=record.parent)
            path = self.join(record.parent, record.name)
            return Places(path, None, record.parent)
        if record.kind in MOVING:
            path, directory = self._source_of(record)
            target = self.join(record.to_parent, record.to_name)
            return Places(path, target, directory, record.to_parent)
        if record.kind in CHANGING and (stays := self._name_that_stays(record.node)):
            return Places(self.join(*stays), None, stays[0])
        path, directory = self._path_of(record.node)
        return Places(path, None, directory)

    def all_of(self, node: NodeId) -> list[bytes]:
        """The paths of all names that the server has of a node, where there is a way to them."""
        paths = (self.join(*name) for name in self._store.server.names(node))
        return [path for path in paths if path is not None]

    def displaced_by(self, record: Record) -> bytes | None:
        """Where the server has what a rename or exchange finds under its new name."""
        server, place = self._store.server, (record.to_parent, record.to_name)
        if record.kind is RecordKind.RENAME and server.child(*place) != record.replaced:
            return server.path(record.replaced) or self.join(*place)
        return self.join(*place)

    def join(self, directory: NodeId, name: bytes) -> bytes | None:
        """The path of a name in a directory that the server has, else None."""
        path = self._store.server.path(directory)
        return None if path is None else join(path, name)

    def _path_of(self, node: NodeId) -> tuple[bytes | None, NodeId]:
        if node == ROOT:
            return b"", 0
        names = self._store.server.names(node)
        if not names:
            return None, 0
        return self._store.server.path(node), names[0][0]

    def _source_of(self, record: Record) -> tuple[bytes | None, NodeId]:
        """The name that a rename moves: the recorded one where the server still has it."""
        if self._store.server.child(record.parent, record.name) == record.node:
            return self.join(record.parent, record.name), record.parent
        return self._path_of(record.node)

    def _name_that_stays(self, node: NodeId) -> Slot | None:
        """The first name that no record takes away, wherever it is moved before: a change that went
        out under another one alone would go with it. None where there is but one, or none stays.
        """
        names = self._store.server.names(node)
        if len(names) < 2:
            return None
        records = self._store.journal.of_node(node)
        return next((name for name in names if name_after(node, name, records)), None)

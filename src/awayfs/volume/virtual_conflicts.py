"""``.awayfs/conflicts/PATH/{base,local,server,merged}``: the variants of every conflicted node.

A directory's variants are symlinks into the other trees. Where something in a conflicted
directory bears the name of a variant, its own directory has ``~`` appended; where two nodes are
in conflict under one path, the second has ``~`` and the conflict's number.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from msgspec import Struct, field

from awayfs.core.conflicts import ConflictKind
from awayfs.core.namespace import Slot
from awayfs.core.records import RecordKind
from awayfs.core.types import Entry, Kind, NodeId, Range
from awayfs.store.conflicts import WHICH, Conflict, Place
from awayfs.volume.context import Context
from awayfs.volume.revisions import Found, Revision, Revisions, There, is_whole
from awayfs.volume.server_variants import ServerVariants, place_of
from awayfs.volume.virtual_node import (
    Listing,
    Path,
    VirtualNode,
    directory,
    link,
    of_entry,
    of_node,
)

BASE, LOCAL, SERVER, MERGED = b"base", b"local", b"server", b"merged"
VARIANTS = (BASE, LOCAL, SERVER, MERGED)


class Shown(Struct):
    """Where conflicts are shown, as of one state of the database."""

    changes: int = -1
    conflicts: dict[Path, list[int]] = field(default_factory=dict)
    paths: dict[int, Path] = field(default_factory=dict)
    below: dict[Path, set[bytes]] = field(default_factory=dict)

    def add(self, path: Path, conflict: int) -> None:
        self.paths[conflict] = path
        if path in self.conflicts:
            self.conflicts[path].append(conflict)
            return
        self.conflicts[path] = [conflict]
        for depth, name in enumerate(path):
            self.below.setdefault(path[:depth], set()).add(name)


def arranged(places: Iterable[tuple[Place, Path]]) -> Shown:
    """Every conflict at a path of its own, if another node's has not got it (pure)."""
    shown, owners, raw = Shown(), dict[Path, NodeId](), dict[Path, Path]()
    for place, path in sorted(places, key=lambda item: (len(item[1]), item[0].id)):
        at: Path = ()
        for depth, name in enumerate(path, 1):
            known = raw.get(path[:depth])
            if known is None:
                free = name + b"~" if at in shown.conflicts and name in VARIANTS else name
                known = raw[path[:depth]] = (*at, free)
            at = known
        if owners.setdefault(at, place.node) != place.node:
            at = (*at[:-1], at[-1] + b"~%d" % place.id)
            owners[at] = place.node
        shown.add(at, place.id)
    return shown


class ConflictTree:
    """The conflicts and their variants."""

    def __init__(
        self, context: Context, revisions: Revisions, server_variants: ServerVariants
    ) -> None:
        self._context = context
        self._store = context.store
        self._revisions = revisions
        self._server_variants = server_variants
        self._kept = Shown()

    # -- the tree -------------------------------------------------------------------------

    def find(self, path: Path) -> VirtualNode:
        """What stands at a path below ``conflicts``."""
        shown = self._shown()
        if path and path[:-1] in shown.conflicts and path[-1] in VARIANTS:
            variant = self._variant_at(path[:-1], shown, path[-1])
            if variant is not None:
                return variant
        if not path or path in shown.conflicts or path in shown.below:
            return directory(self._context.now())
        raise OSError(errno.ENOENT, "no such conflict")

    def entries(self, path: Path) -> Listing:
        """Names in a directory."""
        shown = self._shown()
        found: Listing = [(name, Kind.DIRECTORY) for name in shown.below.get(path, ())]
        for name in VARIANTS if path in shown.conflicts else ():
            variant = self._variant_at(path, shown, name)
            if variant is not None:
                found.append((name, variant.kind))
        return sorted(found)

    def shown_path(self, conflict: Conflict) -> bytes:
        """Where a conflict stands in the tree."""
        path = self._shown().paths.get(conflict.id)
        return b"/".join(path) if path is not None else self.path_of(conflict)

    def path_of(self, conflict: Conflict) -> bytes:
        """The path a conflict is about: the node's, or the name it was found under."""
        path = self._store.nodes.path(conflict.node)
        if path:
            return path
        above = self._store.nodes.path(conflict.parent)
        return above + b"/" + conflict.name if above else conflict.name

    def located(self) -> list[tuple[Place, bytes]]:
        """Every conflict's place with the path it is about, oldest first: quick for many."""
        return self._with_paths(self._store.conflicts.places())

    def named(self) -> list[tuple[Place, bytes]]:
        """The same under each name of what is in conflict: a hard link is, by any of them."""
        return self._with_paths(self._store.conflicts.places_by_name())

    def _with_paths(self, places: Iterable[Place]) -> list[tuple[Place, bytes]]:
        above: dict[NodeId, Path] = {}
        return [
            (place, b"/".join((*self._directory(place.parent, above), place.name)))
            for place in places
        ]

    def shown_paths(self) -> dict[int, Path]:
        """Where each conflict stands in the tree at this moment."""
        return dict(self._shown().paths)

    def _shown(self) -> Shown:
        """All conflicts by path; made anew when anything was written since."""
        changes = self._store.db.changes
        if self._kept.changes != changes:
            above: dict[NodeId, Path] = {}
            self._kept = arranged(
                (place, (*self._directory(place.parent, above), place.name))
                for place in self._store.conflicts.places()
            )
            self._kept.changes = changes
        return self._kept

    def _directory(self, node: NodeId, known: dict[NodeId, Path]) -> Path:
        if node not in known:
            path = self._store.nodes.path(node)
            known[node] = tuple(path.split(b"/")) if path else ()
        return known[node]

    # -- variants -------------------------------------------------------------------------

    def _variant_at(self, path: Path, shown: Shown, name: bytes) -> VirtualNode | None:
        """A variant at one path: the newest conflict's, or what an older one has."""
        for number in reversed(shown.conflicts[path]):
            conflict = self._store.conflicts.get(number)
            node = self.variant(conflict, name, path) if conflict is not None else None
            if node is not None:
                return node
        return None

    def variants(self, conflict: Conflict) -> dict[bytes, VirtualNode]:
        """The variants of one conflict of which all is here."""
        path = self._shown().paths.get(conflict.id, ())
        found = {name: self.variant(conflict, name, path) for name in VARIANTS}
        return {
            name: node for name, node in found.items() if node is not None and node.state == "clean"
        }

    def variant(self, conflict: Conflict, name: bytes, path: Path = ()) -> VirtualNode | None:
        """One variant, whole or not; None when there is nothing to show.

        ``path`` is where the conflict is shown: the links of directories lead from there.
        """
        node = self.variant_itself(conflict, name)
        if node is None or node.kind is not Kind.DIRECTORY:
            return node
        target = self._elsewhere(conflict, name)
        if target is None:
            return None
        return link(b"../" * (len(path) + 1) + target, node.mtime_ns)

    def variant_itself(self, conflict: Conflict, name: bytes) -> VirtualNode | None:
        """One variant, a directory as such."""
        if name == LOCAL:
            return self._local(conflict)
        if name == SERVER:
            return self._server(conflict)
        if name == BASE:
            return self._base(conflict)
        return self._merged(conflict)

    def _elsewhere(self, conflict: Conflict, name: bytes) -> bytes | None:
        """Where a directory's variant is to be seen, from ``.awayfs``."""
        if name == LOCAL:
            return b"../" + self.path_of(conflict)
        node = self.base_node(conflict)
        path = self._store.server.path(node) if name == BASE else self.server_path(conflict)
        return None if path is None else name + b"/" + path

    def _local(self, conflict: Conflict) -> VirtualNode | None:
        """None where a file was removed here, and nobody worked on what is shown again."""
        node = self._context.node(conflict.node)
        if node is None or not self._store.nodes.names(conflict.node):
            return None
        gone = conflict.shows_servers and not self._store.journal.has_any(node.id)
        if gone and node.kind is not Kind.DIRECTORY:
            return None
        return of_node(self._context, node, partial(self._revisions.local, node.id))

    def _server(self, conflict: Conflict) -> VirtualNode | None:
        entry = self._server_entry(conflict)
        if entry is None:
            return None
        node = of_entry(self._context, entry, 0, partial(self._server_found, conflict, entry))
        return replace(node, open=partial(self.server_revision, conflict, entry))

    def _server_entry(self, conflict: Conflict) -> Entry | None:
        """What was renamed on both sides stands there under its other name."""
        if conflict.server_entry is not None or self._renamed_to(conflict) is None:
            return conflict.server_entry
        known = self._store.server.get(conflict.node)
        return known.entry() if known is not None else None

    def _renamed_to(self, conflict: Conflict) -> Slot | None:
        """The name that the server gave it. It is not known after a start before it is seen again:
        then the one that our own rename starts from is known still.
        """
        if conflict.kind != ConflictKind.RENAME_RENAME:
            return None
        seen, names = self._context.seen_at(conflict.node), self._store.server.names(conflict.node)
        if seen is not None or not names:
            return seen
        records = [self._store.journal.get(seq) for seq in conflict.record_seqs]
        ours = {(record.parent, record.name) for record in records if record is not None}
        return None if names[0] in ours else names[0]

    def server_revision(self, conflict: Conflict, entry: Entry) -> Revision:
        """The server's content of a conflict, opened.

        What was not fetched when it was found is fetched now that somebody wants it, and kept.
        """
        found = self._server_found(conflict, entry)
        if not is_whole(found, entry.size):
            self._server_variants.complete_soon(conflict.id)
        there = There(lambda: self.server_path(conflict), entry.token)
        return Revision(self._context, entry.size, found, there)

    def _server_found(self, conflict: Conflict, entry: Entry) -> list[Found]:
        if conflict.server_variant is not None and conflict.server_complete:
            whole = Found(conflict.server_variant, [Range(0, entry.size)])
            if os.path.exists(whole.path):
                return [whole]
        return self._revisions.of_token(conflict.node, entry.token)

    def server_path(self, conflict: Conflict) -> bytes | None:
        """Where the server has its variant, as far as is known."""
        place = self._renamed_to(conflict) or place_of(self._store, conflict)
        above = self._store.server.path(place[0]) if place is not None else None
        if place is None or above is None:
            return None
        return above + b"/" + place[1] if above else place[1]

    def _base(self, conflict: Conflict) -> VirtualNode | None:
        if conflict.shows_servers:
            return self._base_of_the_removed(conflict)
        node = self.base_node(conflict)
        base = self._store.server.get(node)
        if base is None:
            return self._base_of_the_forgotten(conflict, node)
        if base.kind is not Kind.FILE:
            return of_entry(self._context, base.entry(), 0)
        found = self._revisions.of_token(node, base.token) or self._kept_base(node, conflict)
        shown = of_entry(self._context, base.entry(), 0, lambda: found)
        return shown if shown.state == "clean" else None

    def _kept_base(self, node: NodeId, conflict: Conflict) -> list[Found]:
        """The base that was kept, of the revision that the conflict was found with."""
        content = self._store.content
        path = content.base_path(node)
        if path is None or content.base_token(node) != conflict.base_token:
            return []
        return [Found(path, content.base_ranges(node))]

    def _base_of_the_forgotten(self, conflict: Conflict, node: NodeId) -> VirtualNode | None:
        """The server has forgotten it, and so have we, but the content is still here."""
        path = self._store.content.base_path(node)
        if path is None or not os.path.exists(path):
            return None
        size = os.stat(path).st_size
        found = [Found(path, self._store.content.base_ranges(node))]
        local = self._store.nodes.get(node)
        entry = Entry(
            name=b"",
            kind=Kind.FILE,
            mode=local.mode if local else 0o400,
            uid=self._context.options.uid,
            gid=self._context.options.gid,
            size=size,
            mtime_ns=conflict.detected_ns,
            token=b"",
        )
        shown = of_entry(self._context, entry, 0, lambda: found)
        return shown if shown.state == "clean" else None

    def _base_of_the_removed(self, conflict: Conflict) -> VirtualNode | None:
        """What is known by its node is the server's by now."""
        known = self._store.server.get(conflict.node)
        if known is not None and known.kind is Kind.DIRECTORY:
            return of_entry(self._context, known.entry(), 0)
        return self._own_file(conflict, WHICH[0]) if conflict.base_variant else None

    def _merged(self, conflict: Conflict) -> VirtualNode | None:
        return self._own_file(conflict, WHICH[2])

    def _own_file(self, conflict: Conflict, which: str) -> VirtualNode | None:
        """A whole variant that the conflict has in a file of its own."""
        path = self._store.conflicts.variant_path(conflict.id, which)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None
        local = self._store.nodes.get(conflict.node)
        found = [Found(path, [Range(0, status.st_size)])]
        return VirtualNode(
            Kind.FILE,
            mode=local.mode if local else 0o400,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_mtime_ns,
            owner=(local.uid, local.gid) if local else None,
            open=lambda: Revision(self._context, status.st_size, found, None),
            found=lambda: found,
        )

    def base_node(self, conflict: Conflict) -> NodeId:
        """Whose base a conflict is about: after a rename over, that of what was displaced."""
        for seq in conflict.record_seqs:
            record = self._store.journal.get(seq)
            if record is not None and record.kind is RecordKind.RENAME and record.replaced:
                return record.replaced
        return conflict.node

    def refused(self) -> list[tuple[Path, Conflict]]:
        """Conflicts whose record the server refused, with where they are shown."""
        shown = self._shown()
        found = []
        for place in self._store.conflicts.places():
            conflict = self._store.conflicts.get(place.id)
            if place.kind == ConflictKind.REFUSED and conflict is not None:
                found.append((shown.paths[place.id], conflict))
        return found

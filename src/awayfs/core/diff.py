"""Directory diffing: what changed on the server in one directory.

Compares a complete listing with what was listed last and says what happened, in the words of
nodes. Renames are found by ``file_id``. All changes of one answer hold at the same time (two
files that swapped names are two ``Moved``), so they are applied together, not one by one.

The rules come from DESIGN sections 3 and 5:

* A regular file with another ``file_id`` under a known name is an editor's save: the node
  keeps its name and its content changed. So is "old one renamed to a backup, new one created":
  the name keeps its node and the backup is a new node.
* Of a file with several names that is not so where the new one has a single name, or another
  name, here or in another directory, holds the old one as far as anybody knows: this name alone
  holds another file.
* Without ids a file with several names is changed where all of them, in one listing, show the
  same new revision; a name that alone shows another one is another file's (``Replaced``).
* A new file that was saved over one name, and is linked to others, is that name's node.
* Of two nodes that turn out to be one hard-linked file, one is to have all names (``Joined``).
* Any other change of identity under a name is ``Replaced``.
* An equal token that was weak when we saw it and is strong now proves nothing about the
  moments between: ``SUSPECT``. If it is still weak, the question stays open for next time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.types import Entry, Kind, NodeId


class KnownChild(Struct, frozen=True):
    """One name as it was last in step with the server (not the local tree's view)."""

    name: bytes
    node: NodeId
    base: Entry


class Content(enum.StrEnum):
    """What an update did to the content of a file, or to the listing of a directory."""

    CHANGED = "changed"
    SUSPECT = "suspect"  # cannot be told from the entry: compare digests or fetch again
    SAME = "same"  # attributes only


class Created(Struct, frozen=True):
    """A new object."""

    entry: Entry


class Updated(Struct, frozen=True):
    """The same node under the same name, with another revision."""

    node: NodeId
    entry: Entry
    content: Content


class Removed(Struct, frozen=True):
    """The name is gone; the node may live on under another name of its own."""

    node: NodeId
    name: bytes


class Moved(Struct, frozen=True):
    """Renamed within this directory; ``content`` as in ``Updated``."""

    node: NodeId
    old_name: bytes
    entry: Entry
    content: Content


class MovedIn(Struct, frozen=True):
    """A node known in another directory has come here."""

    node: NodeId
    entry: Entry


class Linked(Struct, frozen=True):
    """One more name of a known node, which keeps (or may keep) its others."""

    node: NodeId
    entry: Entry


class Joined(Struct, frozen=True):
    """A name of ``old_node``, as it was; the same file is known as ``node``, too."""

    old_node: NodeId
    node: NodeId
    entry: Entry


class Replaced(Struct, frozen=True):
    """The name holds another object; ``old_node`` lost it."""

    name: bytes
    old_node: NodeId
    entry: Entry


class Unchanged(Struct, frozen=True):
    """As it was; ``entry`` is the newer observation."""

    node: NodeId
    entry: Entry


Change = Created | Updated | Removed | Moved | MovedIn | Linked | Joined | Replaced | Unchanged


def _nowhere(_: bytes) -> NodeId | None:
    return None


def _one(_: NodeId) -> int:
    return 1


def diff_listing(
    known: Sequence[KnownChild],
    listed: Sequence[Entry],
    known_by_file_id: Callable[[bytes], NodeId | None] = _nowhere,
    names_of: Callable[[NodeId], int] = _one,
) -> list[Change]:
    """The changes that turn ``known`` into ``listed``, removals first.

    ``known_by_file_id`` finds a node anywhere in the volume by its base's ``file_id``
    (a mapping's ``get`` will do), ``names_of`` tells how many names a node has in all of it. A
    change of a node that has local changes is only an observation; what it means for them is
    decided at replay.
    """
    steps = diff_listing_steps(known, listed, known_by_file_id, names_of)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return list(end.value)


def diff_listing_steps(
    known: Sequence[KnownChild],
    listed: Sequence[Entry],
    known_by_file_id: Callable[[bytes], NodeId | None] = _nowhere,
    names_of: Callable[[NodeId], int] = _one,
) -> Generator[None, None, list[Change]]:
    """As ``diff_listing``, for large directories: yields often, and returns the changes."""
    return _Diff(known, listed, known_by_file_id, names_of).steps()


def compare_entries(base: Entry, entry: Entry) -> Content | None:
    """What changed between two entries of one object; None when nothing did."""
    if entry.kind is Kind.FILE:
        return _compare_files(base, entry)
    if entry.target != base.target or entry.rdev != base.rdev:
        return Content.CHANGED
    if entry.kind is Kind.DIRECTORY and entry.token != base.token:
        return Content.CHANGED
    return None if _attributes(base) == _attributes(entry) else Content.SAME


def as_listed(base: Entry, entry: Entry) -> bool:
    """Whether nothing at all is known of an object but what a listing says of it.

    That is stricter than no change. Only a strong token is as good when it is seen as a weak one,
    and of what is no regular file nothing hangs on that.
    """
    if base.weak == entry.weak or is_open_question(base):
        return base == entry
    return base == replace(entry, weak=base.weak)


def is_open_question(entry: Entry) -> bool:
    """Whether the content may change without another token: a regular file's, while it is weak."""
    return entry.weak and entry.kind is Kind.FILE


def _compare_files(base: Entry, entry: Entry) -> Content | None:
    if entry.size != base.size or entry.mtime_ns != base.mtime_ns:
        return Content.CHANGED
    if base.file_id is not None and entry.file_id is not None and base.file_id != entry.file_id:
        return Content.CHANGED
    if entry.token != base.token or (base.weak and not entry.weak):
        return Content.SUSPECT
    return None if _attributes(base) == _attributes(entry) else Content.SAME


def _attributes(entry: Entry) -> tuple[object, ...]:
    """What a user sees of an entry beside its content."""
    return (entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.nlink, entry.file_id)


class _Diff:
    """One comparison; near-linear in the two lengths."""

    def __init__(
        self,
        known: Sequence[KnownChild],
        listed: Sequence[Entry],
        elsewhere: Callable[[bytes], NodeId | None],
        names_of: Callable[[NodeId], int],
    ) -> None:
        self.known = known
        self.listed = listed
        self.elsewhere = elsewhere
        self.names_of = names_of
        self.known_by_name = {child.name: child for child in known}
        self.listed_by_name = {entry.name: entry for entry in listed}
        self.known_here: dict[bytes, list[KnownChild]] = {}
        self.without_ids: dict[NodeId, list[bytes]] = {}
        for child in known:
            if child.base.file_id is not None:
                self.known_here.setdefault(child.base.file_id, []).append(child)
            else:
                self.without_ids.setdefault(child.node, []).append(child.name)
        self.moved_names: set[bytes] = set()
        self.displaced: list[KnownChild] = []
        self.saved: dict[bytes, NodeId] = {}  # new files that were saved over a known one

    def steps(self) -> Generator[None, None, list[Change]]:
        settled: list[Change | None] = []
        for entry in self.listed:
            settled.append(self._stayed_or_arrived(entry))
            yield
        changes: list[Change] = []
        for entry, change in zip(self.listed, settled, strict=True):
            changes.append(change or self._newcomer(entry))
            yield
        changes = [self._link_to_saved(change) for change in changes]
        gone = [child for child in self.known if child.name not in self.listed_by_name]
        removed = [
            Removed(child.node, child.name)
            for child in (*gone, *self.displaced)
            if child.name not in self.moved_names
        ]
        return [*removed, *changes]

    def _stayed_or_arrived(self, entry: Entry) -> Change | None:
        """A known object under its name or a new one; None for one we do not know."""
        child = self.known_by_name.get(entry.name)
        if child is not None and _same_identity(child.base, entry):
            content = compare_entries(child.base, entry)
            twin = self._twin(child.node, entry)
            if twin is not None:
                return Joined(child.node, twin, entry)
            if content is None:
                return Unchanged(child.node, entry)
            if content is Content.CHANGED and self._parted_without_ids(child, entry):
                return Replaced(entry.name, child.node, entry)
            return Updated(child.node, entry, content)
        arrival = self._arrival(entry)
        if arrival is not None and child is not None:
            self.displaced.append(child)
        return arrival

    def _twin(self, node: NodeId, entry: Entry) -> NodeId | None:
        """The node by which a hard-linked file is found, where that is another one."""
        if entry.file_id is None or entry.nlink < 2 or entry.kind is Kind.DIRECTORY:
            return None
        known = self.elsewhere(entry.file_id)
        return None if known == node else known

    def _newcomer(self, entry: Entry) -> Change:
        """An object we do not know, under a name that may have been another's."""
        child = self.known_by_name.get(entry.name)
        if child is None or child.name in self.moved_names:
            return Created(entry)  # the one that moved away is told as Moved
        both_files = child.base.kind is Kind.FILE and entry.kind is Kind.FILE
        if not both_files or self._is_parted(child, entry):
            return Replaced(entry.name, child.node, entry)
        if self._saved_as(entry) is not None:
            self.displaced.append(child)
            return Created(entry)
        if entry.file_id is not None:
            self.saved[entry.file_id] = child.node
        return Updated(child.node, entry, Content.CHANGED)

    def _saved_as(self, entry: Entry) -> NodeId | None:
        """The node over which a new file was saved under another of its names here."""
        if entry.file_id is None or entry.nlink < 2 or entry.kind is Kind.DIRECTORY:
            return None
        return self.saved.get(entry.file_id)

    def _link_to_saved(self, change: Change) -> Change:
        if not isinstance(change, Created):
            return change
        node = self._saved_as(change.entry)
        return change if node is None else Linked(node, change.entry)

    def _is_parted(self, child: KnownChild, entry: Entry) -> bool:
        """Whether the file that ``child`` was lives on under another of its names."""
        if child.base.nlink > 1 and entry.nlink == 1:
            return True
        same = self.known_here.get(child.base.file_id or b"", ())
        if any(self._stays(other) for other in same):
            return True
        return self.names_of(child.node) > max(1, len(same))

    def _parted_without_ids(self, child: KnownChild, entry: Entry) -> bool:
        """Whether other names of a file are not seen to have changed along with this one."""
        if entry.file_id is not None or entry.kind is not Kind.FILE:
            return False
        names = self.names_of(child.node)
        if names < 2:
            return False
        here = self.without_ids.get(child.node, ())
        shown = [self.listed_by_name.get(name) for name in here]
        revision = (entry.size, entry.token)
        others = any(seen is not None and (seen.size, seen.token) != revision for seen in shown)
        return others or len(here) < names

    def _arrival(self, entry: Entry) -> Change | None:
        """A known node under a new name, or None for an object we do not know."""
        if entry.file_id is None:
            return None
        here = [c for c in self.known_here.get(entry.file_id, ()) if c.base.kind is entry.kind]
        if here:
            return self._arrival_from_here(here, entry)
        node = self.elsewhere(entry.file_id)
        if node is None:
            return None
        if entry.nlink > 1 and entry.kind is not Kind.DIRECTORY:
            return Linked(node, entry)
        return MovedIn(node, entry)

    def _arrival_from_here(self, here: list[KnownChild], entry: Entry) -> Change | None:
        left = next((c for c in here if self._has_left(c)), None)
        if left is not None:
            self.moved_names.add(left.name)
            content = compare_entries(left.base, entry) or Content.SAME
            return Moved(left.node, left.name, entry, content)
        if any(self._stays(c) or c.name in self.moved_names for c in here):
            return Linked(here[0].node, entry)
        return None  # every old name was saved over: this is the editor's backup, a new node

    def _stays(self, child: KnownChild) -> bool:
        """The old name still holds the same object."""
        entry = self.listed_by_name.get(child.name)
        return entry is not None and _same_identity(child.base, entry)

    def _has_left(self, child: KnownChild) -> bool:
        """The old name is gone, or holds something that is not an editor's save of it."""
        if child.name in self.moved_names:
            return False
        entry = self.listed_by_name.get(child.name)
        if entry is None:
            return True
        return not _same_identity(child.base, entry) and not self._saved_over(child, entry)

    def _saved_over(self, child: KnownChild, entry: Entry) -> bool:
        """A regular file nobody knows stands where a regular file stood."""
        if child.base.kind is not Kind.FILE or entry.kind is not Kind.FILE:
            return False
        if entry.file_id is None:
            return True
        return entry.file_id not in self.known_here and self.elsewhere(entry.file_id) is None


def _same_identity(base: Entry, entry: Entry) -> bool:
    """Same kind, and the same id where both have one."""
    if base.kind is not entry.kind:
        return False
    return base.file_id is None or entry.file_id is None or base.file_id == entry.file_id

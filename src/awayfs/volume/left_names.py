"""Files that keep other names when one of theirs goes, or are moved by an exchange.

Removing one of several names of a file, or renaming over it, changes its link count and with
that, on many servers, its version token: a change of our own that must not be taken for
somebody else's by the next record about this file. The same goes for the second of two files
that were exchanged. So it is looked at again under a name that
is left, and what stands there becomes the base, if nothing but that can have happened to it.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.facts import Facts
from awayfs.core.records import Record, RecordKind
from awayfs.core.sameness import same_object
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.server import ServerNode
from awayfs.volume.context import Context
from awayfs.volume.searching import join


class Left(Struct, frozen=True):
    """A node that lost a name and has others: as it stood before, and as it stands now.

    ``before`` is None where an earlier try of ours took the name away.
    """

    node: NodeId
    before: Entry | None
    after: Entry


class LeftNames:
    """Looks, and takes over; the looking comes first, since a commit does not wait."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    async def look(self, record: Record, facts: Facts, *, acted: bool) -> Left | None:
        """The file that this record took a name from, by another of its names on the server.

        Not ``acted``: the name was gone already, by an earlier try of ours or by somebody else.
        """
        if record.kind is RecordKind.REMOVE:
            node, before, lost = record.node, facts.current, (record.parent, record.name)
        elif record.kind is RecordKind.RENAME and record.replaced:
            node, before = record.replaced, facts.target_current
            lost = (record.to_parent, record.to_name)
        elif record.kind is RecordKind.EXCHANGE:  # the other node, where it is now
            node, before = record.replaced, facts.target_current
            lost = (record.parent, record.name)
        else:
            return None
        if not (acted or facts.retried):
            return None
        if record.kind is RecordKind.EXCHANGE:
            return await self._look_at(node, before if acted else None, *lost)
        for parent, name in self._store.server.names(node):
            if (parent, name) != lost:
                return await self._look_at(node, before if acted else None, parent, name)
        return None

    async def _look_at(
        self, node: NodeId, before: Entry | None, parent: NodeId, name: bytes
    ) -> Left | None:
        directory = self._store.server.path(parent)
        if directory is None:
            return None
        after = await self._context.link.find(join(directory, name))
        return Left(node, before, after) if after else None

    def adopt(self, left: Left) -> None:
        """Make it the base, unless somebody else changed the file; inside the commit."""
        base = self._store.server.get(left.node)
        if base is None or not _is_ours(base, left):
            return
        owned = self._store.content.token(left.node) == base.token
        rights = {name: getattr(base, name) for name in ("mode", "uid", "gid")}
        known = replace(left.after, **rights)  # of what both sides set the base has neither
        self._store.server.set(left.node, known, seen_ns=self._context.now(), digest=base.digest)
        if owned:
            self._store.content.set_token(left.node, left.after.token)


def _is_ours(base: ServerNode, left: Left) -> bool:
    """Whether only the link count can have changed."""
    if left.after.kind is not Kind.FILE or not same_object(base.entry(), left.after):
        return False
    if left.before is not None and left.before.token != base.token:
        return False
    known = left.before or base.entry()
    return _without_count(known) == _without_count(replace(left.after, name=known.name))


def _without_count(entry: Entry) -> Entry:
    """An entry but for what a change of its link count changes too."""
    return replace(entry, token=b"", weak=False, nlink=0, ctime_ns=None)

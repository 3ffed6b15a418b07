"""What ``awayfs journal export`` writes of this volume: records, nodes, and what they are based on.

The content is read by the command, a piece at a time (``Exporter.read``), so that a large export
keeps nobody waiting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from awayfs.control.manifest import BaseFacts, NodeFacts, RecordFacts
from awayfs.control.messages import text_of
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Kind, NodeId
from awayfs.volume.context import Context
from awayfs.volume.revisions import Revision, Revisions, is_whole
from awayfs.volume.slices import Slices
from awayfs.volume.versions import Versions

READ_MAX = 1 << 20


class Exporter:
    """Tells facts and content; changes nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._revisions = Revisions(context)
        self._versions = Versions(context)

    async def facts(self) -> AsyncIterator[NodeFacts | RecordFacts]:
        """All records, in order, and each node that one of them speaks of, before it.

        A node is told again where the first record of its content came meanwhile.
        """
        slices = Slices()
        told: set[NodeId] = {0}
        without: set[NodeId] = set()
        after = 0
        while records := self._store.journal.all(limit=100, after=after):
            for record in records:
                for node in (record.node, record.parent, record.to_parent, record.replaced):
                    if node not in told:
                        told.add(node)
                        facts = self.node(node)
                        if not facts.stored:
                            without.add(node)
                        yield facts
                if record.kind is RecordKind.STORE and record.node in without:
                    facts = self.node(record.node, stored=True)
                    if facts.stored:  # else it is removed again
                        without.discard(record.node)
                        yield facts
                yield record_facts(record)
            after = records[-1].seq
            await slices.pause()

    def node(self, node_id: NodeId, *, stored: bool = False) -> NodeFacts:
        """One node; of one that is gone altogether nothing but its number is known.

        ``stored``: a record told of its content, which may have been sent since.
        """
        node = self._context.node(node_id)
        base = self._base(node_id)
        if node is None:
            kind = base.kind if base else int(Kind.FILE)
            return NodeFacts(
                id=node_id, kind=kind, mode=0, uid=0, gid=0, rdev=0, size=0, mtime_ns=0, base=base
            )
        path = self._store.nodes.path(node_id)
        stored = (stored or self._store.journal.has_store(node_id)) and path is not None
        ranges = self._store.content.ranges(node_id) if stored else []
        return NodeFacts(
            id=node_id,
            kind=int(node.kind),
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            rdev=node.rdev,
            size=node.size,
            mtime_ns=node.mtime_ns,
            target=node.target,
            path=path,
            shown=text_of(path).encode("ascii", "backslashreplace").decode() if path else "",
            stored=stored,
            ranges=_within(
                self._whole_or(node_id, node.size, [(r.start, r.end) for r in ranges]), node.size
            ),
            base=base,
        )

    def _whole_or(
        self, node: NodeId, size: int, ranges: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """An open whole file may have grown since its ranges were written down."""
        opened = self._context.opened.get(node)
        return [(0, size)] if opened is not None and opened.whole and size else ranges

    def _base(self, node_id: NodeId) -> BaseFacts | None:
        base = self._store.server.get(node_id)
        path = self._store.server.path(node_id)
        if base is None or path is None:
            return None
        return BaseFacts(
            path=path,
            kind=int(base.kind),
            mode=base.mode,
            uid=base.uid,
            gid=base.gid,
            size=base.size,
            mtime_ns=base.mtime_ns,
            token=base.token,
            weak=base.weak,
            file_id=base.file_id,
            digest=base.digest,
        )

    def base_is_here(self, node_id: NodeId) -> bool:
        """Whether all of a base's content can be read without the server."""
        base = self._store.server.get(node_id)
        if base is None or base.kind is not Kind.FILE:
            return False
        return is_whole(self._revisions.base(node_id)[0], base.size)

    async def read(self, node_id: NodeId, which: str, offset: int, length: int) -> bytes:
        """A piece of a node's ``base`` or ``local`` content; OSError where it is not here."""
        if which == "base":
            base = self._store.server.get(node_id)
            size = base.size if base is not None else 0
            found, there = self._revisions.base(node_id)
        else:
            node = self._context.node(node_id)
            opened = self._context.opened.get(node_id)
            if opened is not None:
                self._context.opened.save(opened)
            size = node.size if node is not None else 0
            found, there = self._revisions.local(node_id), None
        revision = Revision(self._context, size, found, there)
        try:
            data = revision.read(offset, min(length, READ_MAX))
            return data if isinstance(data, bytes) else await data
        finally:
            revision.close()

    def stamp(self, node_id: NodeId) -> str:
        """Another text once the content of a node has changed."""
        version = self._versions.of(node_id)
        return f"{version.edits}.{version.mtime_ns}.{version.size}"


def record_facts(record: Record) -> RecordFacts:
    """A record as it is exported."""
    a = record.attributes
    return RecordFacts(
        seq=record.seq,
        kind=str(record.kind),
        node=record.node,
        parent=record.parent,
        name=record.name,
        to_parent=record.to_parent,
        to_name=record.to_name,
        replaced=record.replaced,
        mode=a.mode,
        uid=a.uid,
        gid=a.gid,
        mtime_ns=a.mtime_ns,
        atime_ns=a.atime_ns,
        xattr_name=record.xattr_name,
        xattr_value=record.xattr_value,
        at_ns=record.at_ns,
    )


def _within(ranges: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What lies beyond the end is no content."""
    return [(start, min(end, size)) for start, end in ranges if start < size]

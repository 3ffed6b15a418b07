"""Small contents, which go to the server with their name, in one call (``Remote.put``).

What goes is read in the step in which its record is frozen. So nothing is staged before that which
a later edit would make void, and what the server is to show is known before it is asked.
"""

from __future__ import annotations

import errno
import hashlib
import os

from msgspec import Struct, structs

from awayfs.core.types import NEVER_SEEN, Attributes, Entry, Kind, NodeId
from awayfs.store.nodes import Node
from awayfs.volume.context import Context
from awayfs.volume.sent_attributes import SentAttributes
from awayfs.volume.versions import Torn, Versions


class Small(Struct, frozen=True):
    """A content as it was at one moment, and what the server shows where it arrived."""

    content: bytes
    digest: bytes
    attributes: Attributes
    entry: Entry


class SmallContents:
    """Reads them."""

    def __init__(self, context: Context, attributes: SentAttributes) -> None:
        self._context = context
        self._store = context.store
        self._attributes = attributes
        self._versions = Versions(context)

    def goes_at_once(self, seq: int, node: Node) -> bool:
        """Whether a record's content goes by one call; not what an earlier try staged a part of.

        Nor what is open for writing: it may be small for a moment only, like a file that was just
        made. While it is staged, that is seen.
        """
        able, opened = self._context.link.capabilities, self._context.opened.get(node.id)
        if opened is not None and opened.writers:
            return False
        return able is not None and node.size <= able.put and self._store.intents.get(seq) is None

    def read(self, node_id: NodeId, mode: int | None) -> Small:
        """All of a file, ``mode`` being what it gets instead of its own.

        Raises ``Torn`` where it changes meanwhile, or has grown, and ``OSError``.
        """
        node, able = self._context.node(node_id), self._context.link.capabilities
        if node is None:
            raise OSError(errno.ESTALE, "nothing to send: the node is gone")
        fd = self._store.content.open(node_id)
        try:
            before = self._versions.of(node_id, fd)
            content = os.pread(fd, node.size + 1, 0)
            torn = self._versions.of(node_id, fd) != before or len(content) != node.size
        finally:
            os.close(fd)
        if torn or able is None or len(content) > able.put:
            raise Torn
        sent = node if mode is None else structs.replace(node, mode=mode)
        return Small(
            content=content,
            digest=hashlib.blake2b(content, digest_size=32).digest(),
            attributes=self._attributes.new(sent),
            entry=_shown(sent, able.time_granularity_ns),
        )


def _shown(node: Node, granularity_ns: int) -> Entry:
    return Entry(
        name=b"",
        kind=Kind.FILE,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        size=node.size,
        mtime_ns=node.mtime_ns - node.mtime_ns % max(granularity_ns, 1),
        token=NEVER_SEEN,
        weak=True,
    )

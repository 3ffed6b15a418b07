"""Which attributes the server gets: those that it can hold, with ids as they are there."""

from __future__ import annotations

from awayfs.core.facts import Facts
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Attributes, Entry, Kind
from awayfs.store.nodes import Node
from awayfs.volume.context import Context


class SentAttributes:
    """Tells them for what is made, changed, or found to stand there already."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    def new(self, node: Node) -> Attributes:
        """What a new object gets on the server: mode and time, the owner where it can be set."""
        uid, gid = self._owner(node)
        return Attributes(mode=node.mode, uid=uid, gid=gid, mtime_ns=node.mtime_ns)

    def possible(self, attributes: Attributes) -> Attributes:
        """The attributes that the server can hold, with ids as they are there."""
        connected = self._context.link.connected
        assert connected is not None
        able, options = connected.capabilities, self._context.options
        uid, gid = attributes.uid, attributes.gid
        if connected.own_uid is not None and uid == options.uid:
            uid = connected.own_uid
        if connected.own_gid is not None and gid == options.gid:
            gid = connected.own_gid
        return Attributes(
            mode=attributes.mode if able.mode else None,
            uid=uid if able.owner else None,
            gid=gid if able.owner else None,
            mtime_ns=attributes.mtime_ns if able.set_mtime else None,
            atime_ns=attributes.atime_ns if able.set_mtime else None,
        )

    def unlike(self, record: Record, facts: Facts, entry: Entry) -> Attributes:
        """The attributes of what stands there that should be other ones."""
        node, connected = self._context.node(record.node), self._context.link.connected
        if node is None or connected is None or entry.kind not in (Kind.FILE, Kind.DIRECTORY):
            return Attributes()
        able = connected.capabilities
        mode = node.mode if facts.retried and node.mode != entry.mode else None
        late = abs(node.mtime_ns - entry.mtime_ns) >= max(able.time_granularity_ns, 1)
        followed = self._store.journal.has_open_store(node.id)
        sent = entry.kind is Kind.FILE and entry.size == node.size and not followed
        ours = facts.ours  # got its time when it was sent; another one that was set since goes out
        timed = ours is not None and (ours.size, ours.mtime_ns) == (entry.size, entry.mtime_ns)
        return Attributes(
            mode=mode if able.mode and record.kind is RecordKind.CREATE else None,
            mtime_ns=node.mtime_ns if late and sent and not timed and able.set_mtime else None,
        )

    def _owner(self, node: Node) -> tuple[int | None, int | None]:
        """The ids to set on the server; None where the account's own are right or all there is."""
        connected = self._context.link.connected
        if connected is None or not connected.capabilities.owner:
            return None, None
        options = self._context.options
        uid = connected.own_uid if node.uid == options.uid else node.uid
        gid = connected.own_gid if node.gid == options.gid else node.gid
        return uid, gid

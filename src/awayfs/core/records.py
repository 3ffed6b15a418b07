"""The journal's records: what changed here, in the order it was acknowledged.

A record names nodes by id, so a rename of a directory on the server does not strand what was
changed inside it. Content is not in the record: ``Store`` says that a node's content
changed, and what is sent is the content at the time it goes out.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.types import Attributes, NodeId


class RecordKind(enum.StrEnum):
    """One change; the comment lists the fields that carry meaning beside ``node``."""

    CREATE = "create"  # parent, name: the node appears there (file, directory, symlink, ...)
    LINK = "link"  # parent, name: one more name of an existing node
    STORE = "store"  # content changed (write, truncate, fallocate, copy)
    SETATTR = "setattr"  # attributes: the values that were set
    SETXATTR = "setxattr"  # xattr_name, xattr_value (None removes)
    REMOVE = "remove"  # parent, name: the name goes (unlink, rmdir)
    RENAME = "rename"  # parent, name -> to_parent, to_name; replaced: the node it displaced
    EXCHANGE = "exchange"  # parent, name <-> to_parent, to_name; replaced: the other node


class RecordState(enum.StrEnum):
    """Where a record stands."""

    PENDING = "pending"  # waiting; may still be optimised away
    FROZEN = "frozen"  # went out: never cancelled or merged, only followed
    PARKED = "parked"  # in conflict or refused; waits for a decision


class Record(Struct, frozen=True):
    """One acknowledged change.

    ``seq`` orders records and never repeats. ``at_ns`` is wall time, for display
    and for how long a change rests (``core.ageing``).
    """

    seq: int
    kind: RecordKind
    node: NodeId
    parent: NodeId = 0
    name: bytes = b""
    to_parent: NodeId = 0
    to_name: bytes = b""
    replaced: NodeId = 0
    attributes: Attributes = Attributes()
    xattr_name: bytes = b""
    xattr_value: bytes | None = None
    state: RecordState = RecordState.PENDING
    reason: str = ""  # why it is parked
    at_ns: int = 0

    def in_state(self, state: RecordState, reason: str) -> Record:
        """The same record in another state."""
        return replace(self, state=state, reason=reason)

    def __str__(self) -> str:
        """In one line, for the log."""
        places = f"{self.parent}/{self.name!r} {self.to_parent}/{self.to_name!r}"
        return f"record {self.seq} {self.kind} of {self.node} ({self.state}) {places}"


def takes_name(record: Record, node: NodeId, place: tuple[NodeId, bytes]) -> bool:
    """Whether an unsent record takes a name away from the node."""
    if (record.parent, record.name) == place:
        return True
    return record.replaced == node and (record.to_parent, record.to_name) == place


def brings_name(record: Record, node: NodeId, place: tuple[NodeId, bytes]) -> bool:
    """Whether an unsent record gives the node a name."""
    if record.kind in (RecordKind.CREATE, RecordKind.LINK):
        return record.node == node and (record.parent, record.name) == place
    if record.kind not in (RecordKind.RENAME, RecordKind.EXCHANGE):
        return False
    if record.node == node and (record.to_parent, record.to_name) == place:
        return True
    exchanged = record.kind is RecordKind.EXCHANGE and record.replaced == node
    return exchanged and (record.parent, record.name) == place


def takes_away(records: Iterable[Record], node: NodeId) -> bool:
    """Whether an unsent record removes a name of the node, or displaces it (no exchange does)."""
    return any(
        r.kind is RecordKind.REMOVE or (r.replaced == node and r.kind is not RecordKind.EXCHANGE)
        for r in records
    )


def fields_set(records: Iterable[Record]) -> frozenset[str]:
    """The attributes that unsent records set."""
    return frozenset(
        name
        for record in records
        if record.kind is RecordKind.SETATTR
        for name in ("mode", "uid", "gid", "mtime_ns", "atime_ns")
        if getattr(record.attributes, name) is not None
    )

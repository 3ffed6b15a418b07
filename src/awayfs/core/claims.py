"""What a record uses of the tree: by that, some wait for others (``order``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId

Claim = tuple[Literal["node", "slot", "directory", "rights", "moves"], NodeId, bytes]
"""Something a record uses. ``directory``: that it exists; ``slot``: a name in it."""

IsDirectory = Callable[[NodeId], bool]

_STRUCTURAL = (RecordKind.RENAME, RecordKind.EXCHANGE)


def runs_alone(record: Record, is_directory: IsDirectory | None = None) -> bool:
    """Whether nothing else may be on its way at the same time: it changes others' paths."""
    return record.kind in _STRUCTURAL and _may_move_directory(record, is_directory)


def claims(
    record: Record, is_directory: IsDirectory | None = None
) -> tuple[list[Claim], list[Claim]]:
    """What a record reads (may be shared) and writes (may not), beside what it makes; each once."""
    reads: list[Claim] = []
    writes: list[Claim] = [("node", record.node, b"")]
    if record.replaced:
        writes += [("node", record.replaced, b""), ("directory", record.replaced, b"")]
    for parent, name in _slots(record):
        reads += [("directory", parent, b""), ("rights", parent, b"")]
        writes.append(("slot", parent, name))
    if record.kind is RecordKind.REMOVE:
        writes.append(("directory", record.node, b""))
    if record.kind is RecordKind.SETATTR and sets_rights(record):
        writes.append(("rights", record.node, b""))
    if record.kind in _STRUCTURAL and _may_form_ring(record, is_directory):
        writes.append(("moves", 0, b""))
    if record.to_parent:  # of two names both may be in one directory
        writes = list(dict.fromkeys(writes))
        reads = [claim for claim in dict.fromkeys(reads) if claim not in writes]
    return reads, writes


def made(record: Record) -> list[Claim]:
    """What others need and have from this record.

    It does not wait for those that came before: they are from when the directory was there
    already, and wait for it themselves. It is being made anew then.
    """
    return [("directory", record.node, b"")] if record.kind is RecordKind.CREATE else []


def makes_directory(record: Record, is_directory: IsDirectory | None) -> bool:
    """What is inside of it waits for it: it need not wait for its turn among all others."""
    is_new = record.kind is RecordKind.CREATE
    return is_new and is_directory is not None and is_directory(record.node)


def _slots(record: Record) -> list[tuple[NodeId, bytes]]:
    slots = [(record.parent, record.name)] if record.parent else []
    if record.to_parent:
        slots.append((record.to_parent, record.to_name))
    return slots


def sets_rights(record: Record) -> bool:
    """Or the time, which each change inside a directory sets anew (``cp -a`` sets it last)."""
    wanted = record.attributes
    set_here = (wanted.mode, wanted.uid, wanted.gid, wanted.mtime_ns)
    return any(value is not None for value in set_here)


def is_soft(claim: Claim, state: RecordState) -> bool:
    """What a set-aside record does not hold back: what only might be affected.

    A change of rights does not hold back what happens inside the directory. A move in conflict
    does not hold back other moves; one that only waits a moment does, or a ring could form.
    """
    return claim[0] == "rights" or (claim[0] == "moves" and state is RecordState.PARKED)


def _may_move_directory(record: Record, is_directory: IsDirectory | None) -> bool:
    if is_directory is None:
        return True
    nodes = [record.node]
    if record.kind is RecordKind.EXCHANGE:
        nodes.append(record.replaced)
    return any(is_directory(node) for node in nodes)


def _may_form_ring(record: Record, is_directory: IsDirectory | None) -> bool:
    """A directory that changes its parent may come to lie inside itself; a rename in place not.

    A plain move into the root cannot close a ring, but it can be what opens one.
    """
    if record.parent == record.to_parent:
        return False
    return _may_move_directory(record, is_directory)

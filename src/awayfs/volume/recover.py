"""What a start does before anything else: put right what the last end left.

A daemon that was killed leaves sizes and times of open files unsaved (see ``opened``), nodes
without a name that were open, and records that were in flight. Records need nothing: replay
offers a frozen one again and settles it. After a power cut, content that was not made durable
cannot be trusted: it is never sent over a settled version without being asked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from awayfs.core.conflicts import ConflictKind
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId
from awayfs.store.fsck import let_go_unreachable
from awayfs.store.server import ServerNode
from awayfs.store.store import Store
from awayfs.volume.files import CUT

POWER_CUT = "the machine went down before this change was safe on disk; look at it and decide"


def recover(store: Store, now_ns: int) -> None:
    """Bring the store in order; to be called once, before the first request."""
    _finish_cut(store)
    for node in {r.node for r in store.journal.all() if r.kind is RecordKind.STORE}:
        _adopt_witness(store, node)
    if store.suspect:
        with store.transaction():
            for node in store.suspect:
                _park_suspect(store, node, now_ns)
            store.suspects_seen_to()
    let_go_unreachable(store)
    for node in store.nodes.orphans():
        if not (
            store.journal.has_any(node)
            or store.server.names(node)
            or store.conflicts.of_node(node)
            or store.nodes.has_children(node)
        ):
            store.nodes.remove(node)


def _finish_cut(store: Store) -> None:
    """A truncation that is in the database and perhaps not in the file (``Files._shrink``).

    The file is older than the truncation only if that was not carried out.
    """
    cut = store.facts.get(CUT)
    if cut is None:
        return
    node, size, mtime_ns = map(int, cut.split())
    found = store.nodes.get(node)
    if found is None or (found.size, found.mtime_ns) != (size, mtime_ns):
        return
    try:
        fd = store.content.open(node, create=False)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(fd)
        if status.st_size > size and status.st_mtime_ns < mtime_ns:
            os.ftruncate(fd, size)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(fd)


def _adopt_witness(store: Store, node: NodeId) -> None:
    """Size and time of a whole file with an unsent store, from the cache file itself."""
    found = store.nodes.get(node)
    if found is None or not store.content.covers(node, 0, found.size):
        return
    try:
        status = os.stat(store.content.fd_path(node))
    except FileNotFoundError:
        return
    if (status.st_size, status.st_mtime_ns) == (found.size, found.mtime_ns):
        return
    with store.transaction():
        store.nodes.update(node, size=status.st_size, mtime_ns=status.st_mtime_ns)
        store.content.truncate_ranges(node, status.st_size)
        store.content.add_range(node, 0, status.st_size)


def _park_suspect(store: Store, node: NodeId, now_ns: int) -> None:
    """A store over a version that the server has waits for a look; a new file just goes out.

    So it does where it was renamed over another, as editors save: that is what waits then.
    """
    names = store.nodes.names(node)
    records = store.journal.of_node(node)
    stores = [r for r in records if r.kind is RecordKind.STORE]
    if not names:
        return
    if (base := store.server.get(node)) is not None:
        _park(store, node, names[0], stores, base, now_ns)
        return
    for record in records:
        over = record.node == node and record.kind is RecordKind.RENAME and record.replaced
        if over and _was_settled(store, over):
            _park(store, node, names[0], [record], store.server.get(over), now_ns)
            return


def _was_settled(store: Store, replaced: NodeId) -> bool:
    """Whether a file had a content that was safe, there or here, when another took its name.

    Or, where it was as doubtful itself, what it had taken the name from.
    """
    if store.server.get(replaced) is not None or replaced not in store.suspect:
        return True
    taken = [r.replaced for r in store.journal.of_node(replaced) if r.node == replaced]
    return any(_was_settled(store, before) for before in taken if before)


def _park(
    store: Store,
    node: NodeId,
    place: tuple[NodeId, bytes],
    records: Sequence[Record],
    over: ServerNode | None,
    now_ns: int,
) -> None:
    """Records that would have doubtful content take the place of ``over`` wait for a decision."""
    base = store.server.get(node)
    with store.transaction():
        for record in records:
            store.journal.set_state(record.seq, RecordState.PARKED, POWER_CUT)
        store.conflicts.add(
            node,
            ConflictKind.UPDATE_UPDATE,
            *place,
            now_ns,
            record_seqs=tuple(r.seq for r in records),
            base_token=base.token if base is not None else None,
            server_entry=over.entry() if over is not None else None,
            note=POWER_CUT,
        )

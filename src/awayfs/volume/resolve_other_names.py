"""The other names of a file that is made anew, or given up, because the server lost one of them.

What was removed here is to go there as well, whatever is decided about the name that was kept.
So a name that the server has yet gets a node of its own for as long as its removal takes, which
goes out over the revision that was removed, and no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from awayfs.core.earlier_names import name_after, taken_out
from awayfs.core.namespace import Slot
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Kind, NodeId
from awayfs.store.server import ServerNode
from awayfs.store.store import Store


def set_apart(store: Store, record: Record) -> None:
    """Before a file is forgotten on the server for the sake of ``record``: what was done since
    that takes another name from it is done to a node that stands for that name alone.
    """
    base = store.server.get(record.node)
    if base is None or base.kind is Kind.DIRECTORY:
        return
    with store.transaction():
        for name in store.server.names(record.node):
            later = [r for r in store.journal.of_node(record.node) if r.seq > record.seq]
            if name_after(record.node, name, later) is None:
                new = _standing_for(store, record.node, base, name)
                _take_from(store, record.node, new, name, later)


def _standing_for(store: Store, node: NodeId, base: ServerNode, name: Slot) -> NodeId:
    """A node that is what the server has under a name, and has none here: it is removed."""
    shown = store.nodes.get(node)
    assert shown is not None  # it has records
    new = store.nodes.add(
        base.kind,
        base.mode,
        shown.uid,
        shown.gid,
        rdev=shown.rdev,
        size=base.size,
        atime_ns=base.mtime_ns,
        mtime_ns=base.mtime_ns,
        ctime_ns=shown.ctime_ns,
        btime_ns=shown.btime_ns,
        target=shown.target,
    ).id
    store.server.set(new, base.entry(), seen_ns=0, digest=base.digest)
    store.server.remove_name(*name)
    store.server.add_name(*name, new)
    if store.content.base_token(node) == base.token:
        store.content.restore_base(node, new)  # proves that nothing but a link count is another
    return new


def _take_from(
    store: Store, node: NodeId, new: NodeId, name: Slot, later: Sequence[Record]
) -> None:
    """What ``later`` did to a name of ``node`` is done to ``new``.

    What was renamed before it was taken away goes at once: the server is not to see that.
    """
    journal = store.journal
    _, taking = taken_out(node, name, later)
    first = next(r for r in later if r.seq in taking)
    if len(taking) == 1:
        is_its_own = first.node == node
        journal.replace(replace(first, node=new) if is_its_own else replace(first, replaced=new))
        return
    removal = Record(0, RecordKind.REMOVE, new, *name, at_ns=first.at_ns)
    free = next((seq for seq, rest in taking.items() if rest is None), None)
    for seq, rest in taking.items():
        if seq == free:
            journal.replace(replace(removal, seq=seq))
        elif rest is None:
            journal.remove([seq])
        else:
            journal.replace(rest)
    if free is None:
        journal.append(removal.kind, new, parent=name[0], name=name[1], at_ns=first.at_ns)

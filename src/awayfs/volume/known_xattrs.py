"""Of which revision the extended attributes are that are known here.

A mark among a node's attributes has the token of that revision. So whatever takes over another one
need not think of them: they are read again when somebody asks. Only an operation of ours that went
out over the very revision they are of carries the mark along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from awayfs.core.types import Entry, NodeId
from awayfs.store.store import Store

XATTRS_OF = b""
"""The mark's name, which no attribute has."""
_WEAK = b"?"

Check = Callable[[Store, NodeId, Mapping[bytes, bytes]], bool]


def are_current(store: Store, node: NodeId, known: Mapping[bytes, bytes]) -> bool:
    """Whether ``known`` are the attributes of the revision that the server was seen to have."""
    base = store.server.get(node)
    return base is not None and known.get(XATTRS_OF) == base.token


def were_read(store: Store, node: NodeId, known: Mapping[bytes, bytes]) -> bool:
    """Whether they are, as far as a token can tell that was weak when they were read."""
    base = store.server.get(node)
    return base is not None and known.get(XATTRS_OF) in (base.token, _WEAK + base.token)


def were_read_once(_store: Store, _node: NodeId, known: Mapping[bytes, bytes]) -> bool:
    """Whether they are those of any revision."""
    return XATTRS_OF in known


def mark_of(store: Store, node: NodeId) -> bytes:
    """The mark of attributes that are about to be read; to be asked before the server is.

    A weak token may be that of another attribute's change in the same moment.
    """
    base = store.server.get(node)
    if base is None:
        return b""
    return _WEAK + base.token if base.weak else base.token


def carry(store: Store, node: NodeId, before: Entry | None, after: Entry) -> None:
    """An operation of ours made ``after`` of ``before``, and what is known is known of that."""
    if before is None:
        return
    mark = store.nodes.xattrs(node).get(XATTRS_OF)
    if mark not in (before.token, _WEAK + before.token):
        return
    store.nodes.set_xattr(node, XATTRS_OF, mark.removesuffix(before.token) + after.token)


def doubt(store: Store, node: NodeId) -> None:
    """They are read again when somebody asks and the server can be."""
    store.nodes.set_xattr(node, XATTRS_OF, None)

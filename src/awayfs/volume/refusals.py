"""What the server did not let this account do when it was last asked.

The kernel checks modes (ADR 0016). Where they lie, as for root over an export with ``root_squash``
or on a file with an ACL, what counts is what the server answered: when it was asked for content or
names, or for the account's access (``Entry.access``), where the protocol tells that.

Offline, whether it would allow it now is not known: EDISCONPERM, and not EDISCONDATA or
EDISCONNECTED.
"""

from __future__ import annotations

import errno
import os

from awayfs.core.errors import EDISCONPERM, Refused, RemoteError
from awayfs.core.permissions import READ, WRITE, Caller, Rights, allows
from awayfs.core.types import Entry, NodeId
from awayfs.store.store import Store

ASKED = 8
"""Content or names were refused when somebody asked for them."""
FORBIDDEN = (errno.EACCES, errno.EPERM)
TEXT = "the server refused it when it was last asked, and is away"


class Refusals:
    """Notes what came of asking, and says what it means. ``uid`` and ``gid`` are the account's."""

    def __init__(self, store: Store, uid: int, gid: int) -> None:
        self._store = store
        self._account = Caller(uid, gid, frozenset(os.getgroups()))

    def note(self, node: NodeId, error: RemoteError | None) -> None:
        """What came of asking for a node's content or names: None for success."""
        denied = self._store.refusals.of(node)
        if error is None:
            self._store.refusals.set(node, denied & ~ASKED)
        elif isinstance(error, Refused) and error.errno in FORBIDDEN and self._is_known(node):
            self._store.refusals.set(node, denied | ASKED)

    def note_access(self, node: NodeId, entry: Entry) -> None:
        """What the server answered of the account's access, where that is less than the mode."""
        if entry.access is None:
            return
        rights = Rights(entry.uid, entry.gid, entry.mode)
        denied = self._store.refusals.of(node) & ASKED
        for bit in (READ, WRITE):
            if not entry.access & bit and allows(rights, self._account, bit):
                denied |= bit
        if denied != self._store.refusals.of(node) and self._is_known(node):
            self._store.refusals.set(node, denied)

    def any(self, node: NodeId) -> bool:
        """Whether it is worth asking again before something is refused."""
        return bool(self._store.refusals.of(node) & (READ | WRITE))

    def check(self, node: NodeId, access: int, *, connected: bool) -> None:
        """EACCES where the server just denied READ or WRITE, EDISCONPERM where it did once."""
        if not self._store.refusals.of(node) & access:
            return
        if connected:
            raise OSError(errno.EACCES, "the server does not allow it")
        raise OSError(EDISCONPERM, TEXT)

    def missing(self, node: NodeId, code: int, text: str) -> OSError:
        """The error for what is not known here while the server is away."""
        denied = self._store.refusals.of(node) & (ASKED | READ)
        return OSError(EDISCONPERM, TEXT) if denied else OSError(code, text)

    def _is_known(self, node: NodeId) -> bool:
        return self._store.nodes.get(node) is not None

"""What the server did not let us look into when it was last asked.

Offline, such a thing is not just missing from the cache: whether it may be looked into is what
is not known. So it fails with EDISCONPERM, and not with EDISCONDATA or EDISCONNECTED.
"""

from __future__ import annotations

import errno

from awayfs.core.errors import EDISCONPERM, Refused, RemoteError
from awayfs.core.types import NodeId
from awayfs.store.store import Store

FORBIDDEN = (errno.EACCES, errno.EPERM)
TEXT = "the server refused it when it was last asked, and is away"


class Refusals:
    """Notes what came of asking, and says what it means while nobody can be asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, node: NodeId, error: RemoteError | None) -> None:
        """What came of asking for a node's content or names: None for success."""
        if error is None:
            self._store.refusals.discard(node)
            return
        forbidden = isinstance(error, Refused) and error.errno in FORBIDDEN
        if forbidden and self._store.nodes.get(node) is not None:
            self._store.refusals.add(node)

    def missing(self, node: NodeId, code: int, text: str) -> OSError:
        """The error for what is not known here while the server is away."""
        return OSError(EDISCONPERM, TEXT) if node in self._store.refusals else OSError(code, text)

"""What the server did not let us look into when it was last asked.

Offline, such a thing is not just missing from the cache: whether it may be looked into is what
is not known. So it fails with EDISCONPERM, and not with EDISCONDATA or EDISCONNECTED. Kept in
memory only; after a restart nothing of this is known, and the other two say so truly.
"""

from __future__ import annotations

import errno

from awayfs.core.errors import EDISCONPERM, Refused, RemoteError
from awayfs.core.types import NodeId

FORBIDDEN = (errno.EACCES, errno.EPERM)
TEXT = "the server refused it when it was last asked, and is away"


class Refusals:
    """Nodes whose content or names the server refused to tell."""

    def __init__(self) -> None:
        self._nodes: set[NodeId] = set()

    def note(self, node: NodeId, error: RemoteError | None) -> None:
        """What came of asking for a node's content or names: None for success."""
        if error is None:
            self._nodes.discard(node)
        elif isinstance(error, Refused) and error.errno in FORBIDDEN:
            self._nodes.add(node)

    def missing(self, node: NodeId, code: int, text: str) -> OSError:
        """The error for what is not known here while the server is away."""
        return OSError(EDISCONPERM, TEXT) if node in self._nodes else OSError(code, text)

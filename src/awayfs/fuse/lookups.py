"""How often the kernel has been given each node, so that it is known when it lets go.

Every reply with an entry (LOOKUP, CREATE, TMPFILE, MKNOD, MKDIR, SYMLINK, LINK and each
name of a READDIRPLUS but "." and "..") adds one; FORGET takes away. While the count is
not zero, the kernel may use the node's id without looking it up again. The root is never
looked up and never forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class LookupCounts:
    """Lookup counts by node id; a node without one is not known to the kernel."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, nodeid: int, n: int = 1) -> None:
        """Count `n` more lookups of `nodeid`."""
        self._counts[nodeid] = self._counts.get(nodeid, 0) + n

    def add_all(self, nodeids: Iterable[int]) -> None:
        """Count one more lookup of each (`DirectoryBuffer.looked_up`)."""
        for nodeid in nodeids:
            self.add(nodeid)

    def forget(self, nodeid: int, n: int) -> int:
        """Take `n` lookups away; what remains, never less than 0."""
        remaining = self._counts.get(nodeid, 0) - n
        if remaining > 0:
            self._counts[nodeid] = remaining
            return remaining
        self._counts.pop(nodeid, None)
        return 0

    def __getitem__(self, nodeid: int) -> int:
        return self._counts.get(nodeid, 0)

    def __contains__(self, nodeid: int) -> bool:
        return nodeid in self._counts

    def __iter__(self) -> Iterator[int]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

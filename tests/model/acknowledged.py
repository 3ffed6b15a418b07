"""What a client had after its last change, where nobody else works.

All that was acknowledged is there in the end, whatever was cut off and sent again. That all are
alike says less: what is silently taken back is so for everybody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from awayfs.core.types import ROOT, Kind, NodeId
from tests.model.client import Client
from tests.model.share import Share, Tree

XATTR = "user.model"
GRAIN_NS = 4_000_000
"""How finely the server tells a time that it was given."""


@dataclass(frozen=True)
class Acknowledged:
    """One moment of a client; times and attributes by path, as far as they are known here."""

    tree: Tree
    times: dict[str, int]
    xattrs: dict[str, bytes]

    @classmethod
    def of(cls, client: Client) -> Acknowledged:
        """All that the client shows now."""
        found = cls(client.tree(), {}, {})
        pending: list[tuple[NodeId, str]] = [(ROOT, "")]
        while pending:
            directory, above = pending.pop()
            for name, child in client.store.nodes.children(directory):
                client.volume.context.opened.overlay(child)
                path = above + os.fsdecode(name)
                if child.kind is Kind.DIRECTORY:
                    pending.append((child.id, path + "/"))
                elif child.kind is Kind.FILE:
                    found.times[path] = child.mtime_ns
                value = client.store.nodes.xattrs(child.id).get(os.fsencode(XATTR))
                if value is not None:
                    found.xattrs[path] = value
        return found

    def missing(self, share: Share, alike: Callable[[Tree], Tree]) -> str | None:
        """The first thing of it that the server does not have; ``alike`` takes away what cannot be
        compared.
        """
        wanted, there = alike(self.tree), alike(share.tree())
        for path in sorted(wanted.keys() | there.keys()):
            before, now = wanted.get(path), there.get(path)
            if before and now and now[0] == "file" and isinstance(before[2], str):
                before = (*before[:2], now[2], *before[3:])  # of its content nothing is here
            if before != now:
                return f"{path}: {before}, there {now}"
        for path, time_ns in self.times.items():
            there_ns = (share.root / path).lstat().st_mtime_ns
            if abs(there_ns - time_ns) >= GRAIN_NS:
                return f"{path}: the time {time_ns}, there {there_ns}"
        for path, value in self.xattrs.items():
            if _xattr(share.root / path) != value:
                return f"{path}: the attribute {value!r}, there {_xattr(share.root / path)!r}"
        return None


def _xattr(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, XATTR, follow_symlinks=False)
    except OSError:
        return None

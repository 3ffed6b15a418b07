"""How facts are put into the answers to commands."""

from __future__ import annotations

import os
from typing import Any

from awayfs.control.messages import text_of
from awayfs.core.types import Entry


def entry_facts(entry: Entry) -> dict[str, Any]:
    """What is told of a revision on the server."""
    return {"size": entry.size, "mtime_ns": entry.mtime_ns, "mode": entry.mode}


def pairs_of(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Paths with reasons."""
    return [{"path": printable(path), "why": why} for path, why in pairs]


def printable(path: str) -> str:
    """A path of ``os.fsdecode``, in the text form that messages carry."""
    return text_of(os.fsencode(path))

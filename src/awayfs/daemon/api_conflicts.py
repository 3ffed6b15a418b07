"""What commands can ask about conflicts: what is in conflict, and with which variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from awayfs.control.messages import path_param, text_of
from awayfs.control.server import Handler
from awayfs.daemon.shown import entry_facts
from awayfs.store.conflicts import Conflict
from awayfs.volume.volume import Volume


class ConflictApi:
    """Answers ``conflicts``. ``volume`` gives the volume, once there is one."""

    def __init__(self, volume: Callable[[], Volume]) -> None:
        self._volume = volume

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {"conflicts": self._conflicts}

    async def _conflicts(self, params: dict[str, Any]) -> dict[str, Any]:
        path = path_param(params, default="") if params.get("path") else b""
        found = self._volume().conflicts_at(path)
        return {"conflicts": [self._conflict(conflict) for conflict in found]}

    def _conflict(self, conflict: Conflict) -> dict[str, Any]:
        volume = self._volume()
        path = volume.virtual.conflict_path(conflict)
        shown = ".awayfs/conflicts/" + text_of(volume.virtual.shown_path(conflict))
        variants = volume.virtual.variants(conflict)
        node = volume.context.node(conflict.node)
        base = volume.store.server.get(volume.virtual.base_node(conflict))
        local_names = volume.store.nodes.names(conflict.node)
        facts: dict[str, dict[str, Any] | None] = {
            "base": entry_facts(base.entry()) if base else None,
            "server": entry_facts(conflict.server_entry) if conflict.server_entry else None,
            "local": {"size": node.size, "mtime_ns": node.mtime_ns, "mode": node.mode}
            if node and local_names
            else None,
        }
        answer: dict[str, Any] = {
            "id": conflict.id,
            "path": text_of(path),
            "kind": conflict.kind,
            "detected_ns": conflict.detected_ns,
            "note": conflict.note,
        }
        for which, known in facts.items():
            available = which.encode() in variants
            if known is None and not available:
                answer[which] = None
                continue
            answer[which] = {
                **(known or {}),
                "available": available,
                "path": f"{shown}/{which}" if available else None,
            }
        return answer

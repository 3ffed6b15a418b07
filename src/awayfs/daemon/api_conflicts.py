"""What commands can ask about conflicts: what is in conflict, and with which variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from awayfs.control.messages import path_param, text_of
from awayfs.control.server import Handler
from awayfs.core.conflicts import ConflictKind
from awayfs.daemon.shown import entry_facts
from awayfs.store.conflicts import Conflict
from awayfs.volume.slices import Slices
from awayfs.volume.virtual_conflicts import BASE, LOCAL, SERVER, VARIANTS
from awayfs.volume.virtual_node import VirtualNode
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
        volume, slices, prefix = self._volume(), Slices(), path + b"/"
        shown = volume.virtual.conflicts.shown_paths()
        found: list[dict[str, Any]] = []
        named = volume.virtual.conflicts.named() if path else []
        asked = {place.id for place, at in named if at == path or at.startswith(prefix)}
        for place, at in volume.virtual.conflicts.located():
            if path and place.id not in asked:
                continue
            conflict = volume.store.conflicts.get(place.id)
            if conflict is not None:
                found.append(self._conflict(conflict, at, shown.get(place.id, ())))
            await slices.pause()
        return {
            "conflicts": found,
            "settings": [*volume.context.settings().complaints, *volume.share_rules.complaints()],
        }

    def _conflict(
        self, conflict: Conflict, path: bytes, shown_path: tuple[bytes, ...]
    ) -> dict[str, Any]:
        volume = self._volume()
        shown = ".awayfs/conflicts/" + text_of(b"/".join(shown_path) or path)
        variants = [
            name
            for name in VARIANTS
            if (variant := volume.virtual.conflicts.variant(conflict, name, shown_path)) is not None
            and variant.state == "clean"
        ]
        local = volume.virtual.conflicts.variant_itself(conflict, LOCAL)
        facts: dict[str, dict[str, Any] | None] = {
            "base": self._base(conflict),
            "server": self._server(conflict, path),
            "local": _facts(local) if local else None,
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

    def _server(self, conflict: Conflict, path: bytes) -> dict[str, Any] | None:
        """Also says its name there, where that is another; empty where that is not known."""
        tree = self._volume().virtual.conflicts
        found = tree.variant_itself(conflict, SERVER)
        if found is None:
            renamed = conflict.kind == ConflictKind.RENAME_RENAME
            return {} if renamed and conflict.server_entry is None else None
        there = tree.server_path(conflict)
        return _facts(found) | ({} if there in (None, path) else {"named": text_of(there or b"")})

    def _base(self, conflict: Conflict) -> dict[str, Any] | None:
        """Empty where there was one, and nothing is known of it any more."""
        volume = self._volume()
        if conflict.shows_servers:
            kept = volume.virtual.conflicts.variant_itself(conflict, BASE)
            return _facts(kept) if kept is not None else {}
        known = volume.store.server.get(volume.virtual.base_node(conflict))
        return entry_facts(known.entry()) if known else None


def _facts(variant: VirtualNode) -> dict[str, Any]:
    return {"size": variant.size, "mtime_ns": variant.mtime_ns, "mode": variant.mode}

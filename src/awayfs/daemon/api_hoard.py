"""What commands can ask about what is fetched ahead: why, and what had better be pinned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from awayfs.control.messages import path_param, text_of
from awayfs.control.server import Handler
from awayfs.core.learning import LEAST_SCORE, Reason
from awayfs.core.types import Kind
from awayfs.volume.volume import Volume


class HoardApi:
    """Handlers of ``hoard --why`` and ``hoard --suggest``."""

    def __init__(self, volume: Callable[[], Volume]) -> None:
        self._volume = volume

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {"hoard_why": self._why, "hoard_suggest": self._suggest}

    async def _why(self, params: dict[str, Any]) -> dict[str, Any]:
        volume, path = self._volume(), path_param(params)
        node = await volume.find(path)
        learned = bool(volume.context.effective.value("learn"))
        reasons = await volume.learning.why(node.id)
        score = sum(reason.score for reason in reasons)
        missing = [why for _, why in (await volume.hoard.check(node.id)).missing]
        return {
            "path": text_of(path),
            "pinned": volume.context.effective.is_pinned(node.id),
            "left_out": volume.hoard.is_left_out(node.id),
            "learn": learned,
            "score": round(score, 3),
            "wanted": node.kind is Kind.FILE and learned and score >= LEAST_SCORE,
            "here": not missing,
            "missing": missing[:1],
            "reasons": [self._told(reason) for reason in reasons],
        }

    def _told(self, reason: Reason) -> dict[str, Any]:
        hoard = self._volume().hoard
        texts = {
            "used": "it was used lately",
            "with": f"it is used together with {hoard.path(reason.node)}",
            "directory": f"much is used in {hoard.path(reason.node)}",
        }
        return {"kind": reason.kind, "score": round(reason.score, 3), "text": texts[reason.kind]}

    async def _suggest(self, _params: dict[str, Any]) -> dict[str, Any]:
        advice = self._volume().learning.advice()
        return {"suggestions": [{"path": text_of(a.path), "times": a.times} for a in advice]}

"""What commands can ask about settings: which value counts at a path, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from awayfs.control.messages import path_param, text_of
from awayfs.control.server import Handler
from awayfs.core.merge_rules import in_order, rule_for
from awayfs.core.setting_table import TABLE, value_text
from awayfs.volume.volume import Volume


class SettingsApi:
    """Answers ``config``. ``volume`` gives the volume when it is there."""

    def __init__(self, volume: Callable[[], Volume]) -> None:
        self._volume = volume

    def handlers(self) -> Mapping[str, Handler]:
        """Method → handler."""
        return {"config": self._config}

    async def _config(self, params: dict[str, Any]) -> dict[str, Any]:
        volume, path = self._volume(), path_param(params).strip(b"/")
        await volume.find(path)
        await volume.share_rules.read_settings()
        effective = volume.context.effective
        settings = []
        for name, setting in TABLE.items():
            if name == "leave-out":
                continue
            found = effective.at(path if setting.per_path else b"", name)
            settings.append(
                {
                    "name": name,
                    "value": found.value,
                    "text": value_text(found.value),
                    "from": found.where,
                    "place": found.place.name.lower(),
                    "per_path": setting.per_path,
                }
            )
        out = effective.left_out(path)
        return {
            "path": text_of(path),
            "settings": settings,
            "leave_out": [
                {"pattern": one.pattern, "from": one.where} for one in effective.patterns(path)
            ],
            "left_out": None if out is None else {"pattern": out.pattern, "from": out.where},
            "merge": await self._merge(volume, path),
            "complaints": [
                *volume.context.settings().complaints,
                *effective.complaints(),
                *volume.share_rules.complaints(),
            ],
        }

    async def _merge(self, volume: Volume, path: bytes) -> dict[str, Any] | None:
        """The rule that would decide a conflict at the path."""
        own = volume.context.settings().rules
        rule = rule_for(path, in_order(own, await volume.share_rules.of(path)))
        if rule is None:
            return None
        return {"strategy": str(rule.strategy), "pattern": rule.pattern, "from": rule.source}

"""The user's settings for one volume, out of the tables of ``config.toml``.

Settings for all stand at the top; sections ``[volume."..."]`` (URL, mount point or id) and
``[server."HOST"]`` have the same for some, and go before them. What is wrong is left out and
complained about, a line each.

What is kept here, and how (``core.setting_table``), comes as layers (``core.effective``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from awayfs.core.effective import Layer, Place
from awayfs.core.history import Limits
from awayfs.core.merge_rules import Rule, in_order, rules_of
from awayfs.core.naming import why_not_template
from awayfs.core.setting_layers import DIRECTORY, Source, layers_of
from awayfs.core.setting_table import TABLE

TABLES = ("merge", "conflicts", "history", DIRECTORY, *TABLE)
SECTIONS = ("volume", "server")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set. ``copy_name`` is the template of conflict copies, empty for ours.

    ``layers`` are in the order of the file's scopes, those of a volume first.
    """

    rules: tuple[Rule, ...] = ()
    copy_name: str = ""
    history: Limits = Limits()  # noqa: RUF009
    layers: tuple[Layer, ...] = ()
    complaints: tuple[str, ...] = ()


def settings_of(
    table: Mapping[str, Any],
    source: str,
    volume: Iterable[str],
    server: str,
    size: Callable[[str], int],
) -> Settings:
    """The settings of a volume that goes by the names ``volume`` and is on ``server``.

    ``size`` reads sizes such as ``500M`` and raises ValueError.
    """
    wrong = [
        f"{source}: there is no setting {name!r}; it is ignored"
        for name in table
        if name not in (*TABLES, *SECTIONS)
    ]
    scopes: list[Mapping[str, Any]] = []
    places = Source(source)
    layers: list[Layer] = []
    for kind, names in (("volume", tuple(volume)), ("server", (server,))):
        sections = table.get(kind, {})
        if not isinstance(sections, Mapping):
            wrong.append(f'{source}: write [{kind}."NAME"]; it is ignored')
            continue
        for name, section in sections.items():
            if not isinstance(section, Mapping):
                wrong.append(f'{source}: write [{kind}."NAME"]; {name!r} is ignored')
            elif name in names:
                scopes.append(section)
                wrong += _unknown(section, source, f'{kind}."{name}"')
                place = Place.VOLUME if kind == "volume" else Place.SERVER
                layers += layers_of(section, places, place, f'{kind}."{name}"')
    layers += layers_of(table, places, Place.TOP, "")
    wrong += places.complaints
    settings = Settings(layers=tuple(layers))
    rules: list[list[Rule]] = []
    for scope in (*scopes, table):
        found, complaints = rules_of(scope["merge"], source) if "merge" in scope else ([], [])
        rules.append(found)
        wrong += complaints
    for scope in (table, *reversed(scopes)):  # the nearest one has the last word
        settings = _with_values(settings, scope, source, size, wrong)
    return replace(settings, rules=tuple(in_order(*rules)), complaints=tuple(wrong))


def _unknown(section: Mapping[str, Any], source: str, where: str) -> list[str]:
    return [
        f"{source}: [{where}]: there is no setting {name!r}; it is ignored"
        for name in section
        if name not in TABLES
    ]


def _with_values(
    settings: Settings,
    scope: Mapping[str, Any],
    source: str,
    size: Callable[[str], int],
    wrong: list[str],
) -> Settings:
    def complain(name: str, why: str) -> None:
        wrong.append(f"{source}: {name}: {why}; it is ignored")

    conflicts = _table(scope, "conflicts", ("copy-name",), complain)
    template = conflicts.get("copy-name", settings.copy_name)
    if not isinstance(template, str):
        complain("conflicts.copy-name", "is a text")
    elif template and (why := why_not_template(template)):
        complain("conflicts.copy-name", why)
    else:
        settings = replace(settings, copy_name=template)
    history = _table(scope, "history", ("age-days", "total", "largest"), complain)
    limits = settings.history
    for name, value in history.items():
        try:
            if name == "age-days":
                if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                    raise ValueError("a number of days")
                limits = replace(limits, age_days=float(value))
            else:
                number = value if isinstance(value, int) else size(str(value))
                if number < 0:
                    raise ValueError("a size such as 500M or 20G")
                field = {"total": "total", "largest": "one"}[name]
                limits = replace(limits, **{field: number})
        except ValueError as error:
            complain(f"history.{name}", f"is {error}")
    return replace(settings, history=limits)


def _table(
    scope: Mapping[str, Any],
    name: str,
    known: tuple[str, ...],
    complain: Callable[[str, str], None],
) -> dict[str, Any]:
    table = scope.get(name, {})
    if not isinstance(table, Mapping):
        complain(name, f"write [{name}]")
        return {}
    for key in table:
        if key not in known:
            complain(f"{name}.{key}", f"there is no such setting; known are {', '.join(known)}")
    return {key: value for key, value in table.items() if key in known}

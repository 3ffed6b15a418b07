"""From a table of TOML to layers of settings: what is wrong in it is left out and said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from awayfs.core.effective import Layer, Place, cost
from awayfs.core.setting_table import MOST_PATTERNS, TABLE, contradiction, path_pattern

MOST_COMPLAINTS = 20
DIRECTORY = "directory"
PATTERN = "path"


class Source(Struct):
    """A file that settings come from. ``root``: the directory on the share that it is in."""

    name: str
    share: bool = False
    root: bytes = b""
    complaints: list[str] = field(default_factory=list)

    def complain(self, what: str) -> None:
        """Keep one line; of a file on the share not more than a person reads."""
        if not self.share or len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(f"{self.name}: {what}; it is ignored")


def layers_of(table: Mapping[str, Any], source: Source, place: Place, where: str) -> list[Layer]:
    """The layers that one table makes: its own values, and its ``[[directory]]`` tables.

    ``where`` is the table's name in the file, empty for its top. Names that are no settings are
    the caller's to complain about.
    """
    prefix = f"[{where}] " if where else ""
    told = f"{source.name}{' ' if where else ''}{prefix.strip()}"
    layers = []
    values = _values(table, source, prefix, per_path=False)
    if values:
        layers.append(Layer(place, told, values, source.root))
    tables = table.get(DIRECTORY, [])
    if not isinstance(tables, list):
        source.complain(f"{prefix}write [[directory]], with two brackets")
        return layers
    deeper = place if source.share else Place.DIRECTORY
    by_pattern = []
    for number, one in enumerate(tables, 1):
        name = f"{prefix}[[directory]] number {number}"
        if not isinstance(one, Mapping):
            source.complain(f"{name}: is not a table")
            continue
        by_pattern += _by_pattern(one, source, name, deeper)
    return _affordable([*layers, *by_pattern], source)


def _affordable(layers: list[Layer], source: Source) -> list[Layer]:
    """Those of a file on the share that there is time for: each path is held against all."""
    left = MOST_PATTERNS if source.share else sum(map(cost, layers))
    found = []
    for layer in layers:
        left -= cost(layer)
        if left < 0:
            source.complain(f"what is beyond {MOST_PATTERNS} patterns")
            break
        found.append(layer)
    wide = layers[:1] if layers and not layers[0].pattern else []
    return [*found[len(wide) :], *found[: len(wide)]]


def _by_pattern(table: Mapping[str, Any], source: Source, name: str, place: Place) -> list[Layer]:
    patterns = table.get(PATTERN)
    named = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(named, list) or not named:
        source.complain(f'{name}: has no path = "PATTERN"')
        return []
    for key in table:
        if key != PATTERN and key not in TABLE:
            source.complain(f"{name}: there is no setting {key!r}")
    values = _values(table, source, f"{name}: ", per_path=True)
    layers = []
    for one in named[:MOST_PATTERNS]:
        try:
            pattern = path_pattern(one)
        except ValueError as error:
            source.complain(f"{name}: path is {error}")
            continue
        layers.append(Layer(place, f"{source.name} {name}", values, source.root, pattern))
    return layers if values else []


def _values(
    table: Mapping[str, Any], source: Source, prefix: str, *, per_path: bool
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, given in table.items():
        setting = TABLE.get(name)
        if setting is None:
            continue
        if source.share and not setting.from_share:
            source.complain(f"{prefix}{name}: is taken from your own configuration only")
        elif per_path and not setting.per_path:
            source.complain(f"{prefix}{name}: holds for a whole volume, not for a directory")
        else:
            try:
                values[name] = setting.read(given)
            except ValueError as error:
                source.complain(f"{prefix}{name}: is {error}")
    wrong = contradiction(values)
    if wrong is not None:
        source.complain(f"{prefix}{wrong}")
        return {k: v for k, v in values.items() if k not in ("pin", "never-cache", "cull")}
    return values

"""Which value of a setting counts for a path, and where it comes from.

A layer is one place that says something: an extended attribute, a table of ``config.toml``, the
mount options, a file on the share. The layers stand in the order of ``Place``, in which the first
one that is about the path and has a value wins. What a person set on the very thing goes before
what he set by pattern, that before what he gave for the volume, and all of it before what comes
with the share.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from awayfs.core.merge_rules import fits_or_below
from awayfs.core.setting_table import TABLE


class Place(enum.IntEnum):
    """The kinds of places, the strongest first."""

    XATTR = 0  # the nearest directory, or the node itself
    DIRECTORY = 1  # [[directory]] of config.toml: the volume's, the server's, those for all
    OPTION = 2  # -o of the mount
    VOLUME = 3  # [volume."..."] of config.toml
    SERVER = 4
    TOP = 5
    SHARE = 6  # .awayfs.toml, the nearest directory first
    DEFAULT = 7


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says. ``root``: the directory that it is about, with all below.

    With a ``pattern``, only what fits it below there, and all below what fits.
    """

    place: Place
    where: str
    values: Mapping[str, Any]
    root: bytes = b""
    pattern: str = ""


class Found(Struct, frozen=True):
    """A value, its place, and that place's rank among all layers: lower is stronger."""

    value: Any
    place: Place
    where: str
    rank: int


def in_order(layers: Iterable[Layer]) -> list[Layer]:
    """Layers by strength; at one kind of place the deeper root first, else as they came."""
    return sorted(layers, key=lambda one: (one.place, -len(one.root)))


def is_about(layer: Layer, path: bytes) -> bool:
    """Whether a layer says something about a path from the volume's root."""
    if layer.root:
        if path != layer.root and not path.startswith(layer.root + b"/"):
            return False
        path = path[len(layer.root) + 1 :]
    return not layer.pattern or fits_or_below(layer.pattern, _text(path))


def cost(layer: Layer) -> int:
    """How many patterns a layer has a path compared with at most."""
    return bool(layer.pattern) + len(layer.values.get("leave-out", ()))


def resolve(name: str, path: bytes, layers: Iterable[Layer]) -> Found:
    """The value of one setting for a path; ``layers`` are in order.

    Of a pin and never-cache, which exclude each other, the stronger place's counts.
    """
    ordered = list(layers)
    found = _first(name, path, ordered)
    rival = {"pin": "never-cache", "never-cache": "pin"}.get(name)
    if rival is not None and _asks(name, found):
        other = _first(rival, path, ordered)
        if _asks(rival, other) and other.rank < found.rank:
            return Found(TABLE[name].default, other.place, other.where, other.rank)
    return found


def _asks(name: str, found: Found) -> bool:
    """Whether a value asks for something; a pin does with any priority, 0 included."""
    return found.value is not None if name == "pin" else bool(found.value)


def _first(name: str, path: bytes, layers: list[Layer]) -> Found:
    for rank, layer in enumerate(layers):
        if name in layer.values and is_about(layer, path):
            return Found(layer.values[name], layer.place, layer.where, rank)
    return Found(TABLE[name].default, Place.DEFAULT, "default", len(layers))


class LeftOut(Struct, frozen=True):
    """A pattern of ``leave-out`` and where it comes from."""

    pattern: str
    where: str


def patterns_at(path: bytes, layers: Iterable[Layer]) -> list[LeftOut]:
    """All patterns of ``leave-out`` that count at a path: they add up."""
    return [
        LeftOut(pattern, layer.where)
        for layer in layers
        if layer.values.get("leave-out") and is_about(layer, path)
        for pattern in layer.values["leave-out"]
    ]


def left_out(path: bytes, layers: Iterable[Layer]) -> LeftOut | None:
    """The pattern by which hoard walks leave a path out, or None."""
    for layer in layers:
        if layer.values.get("leave-out") and is_about(layer, path):
            inside = _text(path[len(layer.root) + 1 :] if layer.root else path)
            for pattern in layer.values["leave-out"]:
                if fits_or_below(pattern, inside):
                    return LeftOut(pattern, layer.where)
    return None


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")

"""The settings of what is kept here: their names, what a value may be, and the defaults.

``per_path`` ones can differ from directory to directory; the others hold for a volume. A file on
the share may give only what is ``from_share``, an extended attribute what is ``xattr``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from awayfs.core.patterns import pattern as compiled
from awayfs.core.sending import Policy

PIN_PRIORITY: Final = 100
PIN_PRIORITY_MAX: Final = 1000
MOST_PATTERNS: Final = 200
SLOWEST: Final = 1 << 10
"""Bytes a second; a share is of no use below."""
INDEXERS: Final = (
    *("tracker-miner-f", "tracker-extract", "localsearch-3", "localsearch-ext"),
    *("baloo_file", "baloo_file_extr", "baloorunner", "tumblerd", "ffmpegthumbnail"),
    *("gnome-thumbnail", "evince-thumbnai", "totem-video-thu", "gdk-pixbuf-thum", "kioworker"),
    *("updatedb", "updatedb.mlocat", "updatedb.plocat", "recollindex", "catfish"),
)
"""Programs that read everything they see, by the name of the process (15 bytes of it)."""
_COMM: Final = 15
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Setting(Struct, frozen=True):
    """One of them. ``read`` makes a value of what TOML or text gives; ValueError says what is
    right. ``meaning`` is for a person.
    """

    name: str
    read: Callable[[object], Any]
    default: Any
    meaning: str
    per_path: bool = False
    from_share: bool = False
    xattr: bool = False


def size(text: str) -> int:
    """Bytes from ``500M`` and the like; raises ``ValueError``."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise ValueError("a size such as 500M or 20G")
    return int(float(match[1]) * _UNITS[match[2]])


def switch(value: object) -> bool:
    """On or off, as TOML's true or in words."""
    words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError("on or off")


def _number(value: object, what: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = -1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(what)
    return float(value)


def seconds(value: object) -> float:
    """A time of 0 or more."""
    return _number(value, "a number of seconds")


def percent(value: object) -> float:
    """0 to below 100."""
    text = value.strip().removesuffix("%") if isinstance(value, str) else value
    found = _number(text, "a percentage below 100")
    if found >= 100:
        raise ValueError("a percentage below 100")
    return found


def amount(value: object) -> int | None:
    """Bytes above 0; None for no limit."""
    if isinstance(value, str) and value.strip().lower() == "none":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 62:
        return value
    found = size(value) if isinstance(value, str) else 0
    if not found:
        raise ValueError("a size such as 500M or 20G, or none")
    return found


def rate(value: object) -> int | None:
    """Bytes a second; None for no limit."""
    text = value.strip().lower().removesuffix("/s") if isinstance(value, str) else value
    wrong = "bytes a second, such as 500K or 2M and at least 1K, or none"
    try:
        found = amount(text)
    except ValueError:
        raise ValueError(wrong) from None
    if found is not None and found < SLOWEST:
        raise ValueError(wrong)
    return found


def priority(value: object) -> int | None:
    """A pin's priority; on is the usual one, off is no pin."""
    if isinstance(value, str) and value.strip().isdigit() and len(value.strip()) < 6:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= PIN_PRIORITY_MAX:
            return value
        raise ValueError(f"a priority from 0 to {PIN_PRIORITY_MAX}, on or off")
    try:
        return PIN_PRIORITY if switch(value) else None
    except ValueError:
        raise ValueError(f"a priority from 0 to {PIN_PRIORITY_MAX}, on or off") from None


def path_pattern(value: object) -> str:
    """A pattern as in rules for conflicts; one that begins with a slash counts from the root."""
    if not isinstance(value, str) or not value.strip("/") or "\0" in value:
        raise ValueError('a pattern such as "*.iso" or "build/**"')
    if value.startswith("/"):
        value = value[1:] if "/" in value[1:].rstrip("/") else "./" + value[1:]
    try:
        compiled(value.removeprefix("./"))
    except re.error:
        raise ValueError('a pattern such as "*.iso" or "build/**"') from None
    return value


def _patterns(value: object) -> tuple[str, ...]:
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or len(named) > MOST_PATTERNS:
        raise ValueError(f"a list of at most {MOST_PATTERNS} patterns")
    return tuple(path_pattern(one) for one in named)


def policy(value: object) -> str:
    """When changes are sent, by its name."""
    try:
        return str(Policy(str(value)))
    except ValueError:
        raise ValueError("eager, lazy or manual") from None


def _programs(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        if all(isinstance(one, str) and one and "\0" not in one for one in value):
            return tuple(one.encode()[:_COMM].decode(errors="ignore") for one in value)
        raise ValueError("a list of process names, on or off")
    try:
        return INDEXERS if switch(value) else ()
    except ValueError:
        raise ValueError("a list of process names, on or off") from None


TABLE: Final[Mapping[str, Setting]] = {
    setting.name: setting
    for setting in (
        Setting("pin", priority, None, "kept here, with this priority", True, True, True),
        Setting("never-cache", switch, False, "content goes after its use", True, True, True),
        Setting("cull", switch, True, "may be evicted for want of room", True, True, True),
        Setting("fresh", seconds, 3.0, "seconds that an observation counts", True, True, True),
        Setting("leave-out", _patterns, (), "not fetched by hoard walks", True, True),
        Setting("cache-size", amount, None, "bytes of content at most"),
        Setting("brun", percent, 7.0, "culling goes on until so many blocks are free (%)"),
        Setting("bcull", percent, 5.0, "culling begins below so many free blocks (%)"),
        Setting("bstop", percent, 1.0, "nothing is cached below so many free blocks (%)"),
        Setting("frun", percent, 7.0, "as brun, for files"),
        Setting("fcull", percent, 5.0, "as bcull, for files"),
        Setting("fstop", percent, 1.0, "as bstop, for files"),
        Setting("learn", switch, True, "what was used lately is fetched ahead"),
        Setting("walk-interval", seconds, 900.0, "seconds between hoard walks, 0 for none"),
        Setting("bandwidth", amount, None, "bytes a second at most for hoard walks"),
        Setting("reintegrate", policy, "eager", "when changes are sent: eager, lazy or manual"),
        Setting("rate-up", rate, None, "bytes a second at most to the server"),
        Setting("rate-down", rate, None, "bytes a second at most from the server"),
        Setting("weak-rate", rate, 64 << 10, "bytes a second below which a link is weak"),
        Setting("weak-latency", seconds, 0.4, "seconds of a round trip above which it is"),
        Setting("ageing", seconds, 60.0, "seconds that a change rests on a weak link"),
        Setting("indexers", _programs, INDEXERS, "programs that pull nothing in"),
    )
}
"""All settings by name."""


def value_text(value: object) -> str:
    """A value as it can be given again."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ", ".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def out_of_order(marks: Mapping[str, float]) -> str | None:
    """What is wrong with the watermarks, or None: stop lies below cull, and cull below run."""
    for kind in "bf":
        stop, cull, run = (marks[f"{kind}{mark}"] for mark in ("stop", "cull", "run"))
        if not stop < cull < run:
            return (
                f"watermarks out of order: {kind}stop={stop:g} must be below "
                f"{kind}cull={cull:g}, and that below {kind}run={run:g}"
            )
    return None


MARKS: Final = ("brun", "bcull", "bstop", "frun", "fcull", "fstop")


def contradiction(values: Mapping[str, Any]) -> str | None:
    """What in one place excludes each other, or None."""
    if not values.get("never-cache"):
        return None
    if values.get("pin") is not None:
        return "pin and never-cache exclude each other"
    if values.get("cull") is False:
        return "cull = false and never-cache exclude each other"
    return None

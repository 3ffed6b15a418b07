"""The ``-o`` options of a mount, for the command that takes them and the daemon that obeys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from awayfs.core.errors import UsageError
from awayfs.core.setting_table import MARKS, TABLE, contradiction, out_of_order, seconds, size


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a mount was asked to be. None and empty text mean "the default of whoever uses it"."""

    ro: bool = False
    allow_other: bool = False
    default_permissions: bool = False
    noexec: bool = False
    writes: str = "behind"  # behind, close, through
    errno: str = "posix"  # posix, distinct
    conflicted: str = "local"  # local, server, error
    base_limit: int | None = None  # bytes; larger base content is not copied
    identity: str = ""  # absolute file names, or empty
    known_hosts: str = ""
    credentials: str = ""
    ssh_config: str = ""
    server_program: str = "never"  # auto, never
    timeout: float | None = None  # seconds
    passthrough: str = "auto"  # auto, off
    writeback: bool = False
    volume_id: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # core.setting_table, as given

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MountOptions:
        """Back from ``as_dict``; names of a newer version are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


_IGNORED = frozenset(
    ("_netdev", "nofail", "noauto", "auto", "user", "users", "nouser", "owner", "group")
) | frozenset(("defaults", "nosuid", "nodev", "noatime", "relatime", "async"))


def _positive(text: str) -> float:
    value = seconds(text)
    if not value:
        raise ValueError("a number of seconds above 0")
    return value


def _file(text: str) -> str:
    if not text:
        raise ValueError("a file name")
    return os.path.abspath(os.path.expanduser(text))


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise ValueError("letters, digits, '.', '_' and '-'")
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(", ".join(choices[:-1]) + " or " + choices[-1])
        return text

    return check


_FLAGS = frozenset(("ro", "allow_other", "default_permissions", "noexec", "writeback"))
_SETTINGS = frozenset(TABLE) - {"leave-out"}
_SWITCHES = frozenset(("pin", "never-cache", "cull", "learn"))
"""Those that need no value."""
_OPPOSITES = {"rw": "ro", "exec": "noexec"}
_VALUES: dict[str, Callable[[str], Any]] = {
    "writes": _one_of("behind", "close", "through"),
    "errno": _one_of("posix", "distinct"),
    "conflicted": _one_of("local", "server", "error"),
    "base-limit": size,
    "identity": _file,
    "known_hosts": _file,
    "credentials": _file,
    "ssh_config": _file,
    "server_program": _one_of("auto", "never"),
    "timeout": _positive,
    "passthrough": _one_of("auto", "off"),
    "volume-id": _name,
}


def parse(text: str) -> MountOptions:
    """The options of ``-o`` text; raises ``UsageError`` naming what is wrong and what is right.

    What fstab lines carry for others (``_netdev``, ``nofail``, ``x-...``) is passed over; of
    two that contradict each other the last one counts, as with ``mount``.
    """
    values: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for part in _split(text):
        name, equals, value = part.partition("=")
        if name in _OPPOSITES:
            values[_OPPOSITES[name]] = False
        elif name in _IGNORED or name.startswith(("x-", "comment=", "X-")):
            continue
        elif name in _FLAGS:
            if equals:
                raise UsageError(f"-o {name}: takes no value; write just {name}")
            values[name] = True
        elif name in _VALUES:
            values[name.replace("-", "_")] = _value(name, value, _VALUES[name])
        elif name in _SETTINGS:
            given = value if equals or name not in _SWITCHES else "on"
            settings[name] = _value(name, given, TABLE[name].read)
        else:
            known = ", ".join(sorted(_FLAGS | _VALUES.keys() | _SETTINGS))
            raise UsageError(f"-o {name}: unknown option; known ones are {known}")
    options = replace(MountOptions(), **values, settings=settings)
    wrong = contradiction(settings) or out_of_order(
        {mark: settings.get(mark, TABLE[mark].default) for mark in MARKS}
    )
    if wrong is not None:
        raise UsageError(f"-o {text}: {wrong}")
    if options.writes != "behind" and settings.get("reintegrate") == "manual":
        raise UsageError(
            f"-o reintegrate=manual does not go with -o writes={options.writes}: "
            "that would wait for what only 'awayfs sync' sends"
        )
    if options.writeback and options.conflicted == "server":
        raise UsageError(
            "-o conflicted=server does not go with -o writeback: the kernel would keep the size"
        )
    return options


def _value(name: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise UsageError(f"-o {name}={value}: not understood; give {error}") from None


def _split(text: str) -> list[str]:
    """Parts between commas; ``\\,`` is a comma inside a value, as in file names."""
    parts = re.split(r"(?<!\\),", text)
    return [part.strip().replace("\\,", ",") for part in parts if part.strip()]

"""Reading ``config.toml``: a bad file is complained about in one line, and changes nothing."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from awayfs.core.setting_table import size
from awayfs.core.settings import Settings, settings_of

LARGEST = 1 << 20
_PART = rb"""[ \t]*(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*"""
_DEEP = re.compile(rb"(?:\." + _PART + rb"){20}")
"""A key of so many parts; the time to read one grows with their number squared."""


def config_file() -> str:
    """The user's configuration, which need not exist."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.config")
    return os.path.join(home, "awayfs", "config.toml")


def parse(content: bytes, source: str) -> tuple[dict[str, Any], str | None]:
    """The tables of a TOML file, and what is wrong with it: which line, what, why."""
    if len(content) > LARGEST:
        return {}, f"{source}: is larger than {LARGEST >> 20} MiB; it is ignored"
    deep = _DEEP.search(content)
    if deep is not None:
        line = content.count(b"\n", 0, deep.start()) + 1
        return {}, f"{source}: line {line}: a key has too many parts; the file is ignored"
    try:
        return tomllib.loads(content.decode("utf-8")), None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return {}, f"{source}: line {line}: is not UTF-8; the file is ignored"
    except (ValueError, RecursionError) as error:  # a number may be too long for Python
        why = " ".join(str(error).split())
        return {}, f"{source}: {why}; the file is ignored"


class ConfigFile:
    """The settings of one volume as the file has them now; read again when it has changed."""

    def __init__(self, path: str, volume: Iterable[str], server: str) -> None:
        self._path = path
        self._volume = tuple(volume)
        self._server = server
        self._seen: tuple[int, ...] | None = ()
        self._settings = Settings()

    def __call__(self) -> Settings:
        """What is set now; the same object while the file is the same.

        After a change that cannot be read, what was set before stays, with the complaint.
        """
        try:
            status = os.stat(self._path)
            seen: tuple[int, ...] | None = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            seen = None
        except OSError:
            seen = (-1,)
        if seen != self._seen:
            self._seen = seen
            self._settings = Settings() if seen is None else self._read()
        return self._settings

    def _read(self) -> Settings:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                content = file.read(LARGEST + 1)
        except OSError as error:
            return self._kept(f"{self._path}: cannot be read: {error.strerror}; it is ignored")
        table, complaint = parse(content, self._path)
        if complaint is not None:
            return self._kept(complaint)
        return settings_of(table, self._path, self._volume, self._server, size)

    def _kept(self, complaint: str) -> Settings:
        return replace(self._settings, complaints=(complaint,))

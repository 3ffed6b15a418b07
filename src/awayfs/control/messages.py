"""What goes over a control socket: one JSON object a line, in both directions.

    → {"id": 1, "method": "pin", "params": {"path": "a", "walk": true}}
    ← {"id": 1, "progress": {"done": 3, "total": 9, "bytes": 4096, "path": "a/b"}}
    ← {"id": 1, "alive": true}                       nothing new, but somebody is there
    ← {"id": 1, "result": {"files": 9, "bytes": 8192, "failed": []}}
    ← {"id": 1, "error": {"kind": "usage", "message": "one line"}}

Names are bytes and JSON has text only, so a name is carried as UTF-8 with each invalid byte
as a lone surrogate (``surrogateescape``, as ``os.fsdecode`` does in a UTF-8 locale), written
``\\udcXX``. Lines are pure ASCII: an escaped newline never ends one, and every byte string
comes back as it was. msgspec's own encoder refuses lone surrogates, hence the standard
library's here, also because a command that only asks should not pay for importing more.

Kinds of errors: ``usage`` (the request cannot be carried out as asked), ``unknown-method``,
``bad-request``, ``internal``, ``os``, ``forbidden``, ``not-running`` and ``no-answer`` (both
raised by the client), ``in-use``, ``busy``, and otherwise the error's name in
``awayfs.core.errors`` with dashes (``unreachable``, ``authentication-required``, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from awayfs.core.errors import AwayfsError, UsageError

MAX_REQUEST = 1 << 20
"""Longest request line; a reply may be longer (10,000 conflicts)."""

KEEPALIVE = 2.0
"""Seconds between signs of life while a request is being worked on."""

ANSWER_WITHIN = 10.0
"""Seconds of silence after which a command takes the daemon for stuck."""


class ControlError(AwayfsError):
    """A request failed; ``kind`` says how, for programs."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(one_line(message))
        self.kind = kind


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def text_of(name: bytes) -> str:
    """A name or path as it is carried."""
    return name.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The name or path that was carried."""
    return text.encode("utf-8", "surrogateescape")


def _fallback(value: object) -> object:
    if isinstance(value, bytes):
        return text_of(value)
    raise TypeError(f"{type(value).__name__} cannot be carried in a message")


def encode(message: Mapping[str, Any]) -> bytes:
    """One line, with its newline; ``bytes`` values are carried as names are."""
    return json.dumps(message, default=_fallback, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The object of one line; raises ``ControlError`` for anything else."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"not a JSON object: {error}", "bad-request") from None
    if not isinstance(message, dict):
        raise ControlError("not a JSON object", "bad-request")
    return message


def path_param(params: Mapping[str, Any], key: str = "path", default: str | None = None) -> bytes:
    """A path relative to the volume's root (``b""`` is the root) out of a request.

    Raises ``ControlError`` where it is missing, absolute, or climbs.
    """
    value = params.get(key, default)
    if not isinstance(value, str):
        raise ControlError(f"{key}: a path is needed", "usage")
    try:
        path = bytes_of(value)
    except UnicodeEncodeError:
        raise ControlError(f"{key}: not a path", "usage") from None
    if b"\0" in path or path.startswith(b"/") or b".." in path.split(b"/"):
        raise ControlError(f"{key}: not a path inside the mount", "usage")
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def kind_of(error: BaseException) -> str:
    """The kind that stands for an exception on the wire."""
    if isinstance(error, ControlError):
        return error.kind
    if isinstance(error, UsageError):
        return "usage"
    if isinstance(error, AwayfsError):
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
    return "os" if isinstance(error, OSError) else "internal"

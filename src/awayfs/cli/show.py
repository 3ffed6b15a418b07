"""How things look: sizes, times, tables, JSON, and names from servers made harmless."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import click

from awayfs.control.messages import text_of

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str | bytes | None) -> str:
    """The text with everything escaped that could act on a terminal, or hide.

    Names come from a server that may be hostile: control characters, direction marks and
    bytes that are not UTF-8 are written as escapes, also when the output is no terminal.
    """
    if text is None:
        return "-"
    if isinstance(text, bytes):
        text = text_of(text)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def ago(then_ns: int | None, now_ns: int | None = None) -> str:
    """A moment as the time since it."""
    if not then_ns:
        return "never"
    now = time.time_ns() if now_ns is None else now_ns
    seconds = (now - then_ns) / 1e9
    if seconds < 0:
        return "in the future" if seconds < -2 else "just now"
    for limit, unit, name in (
        (2, 0.0, "just now"),
        (120, 1.0, "s ago"),
        (7200, 60.0, "min ago"),
        (172800, 3600.0, "h ago"),
        (86400 * 60, 86400.0, "days ago"),
    ):
        if seconds < limit:
            return f"{seconds // unit:.0f} {name}" if unit else name
    return time.strftime("%Y-%m-%d", time.localtime(then_ns / 1e9))


def duration(seconds: float) -> str:
    """A length of time in two units at most."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest and minutes < 10 else "")
    hours, rest = divmod(minutes, 60)
    return f"{hours} h" + (f" {rest} min" if rest else "")


def moment(when_ns: int, now_ns: int | None = None) -> str:
    """A moment by the clock on the wall; with the date unless it is today."""
    now = time.localtime((time.time_ns() if now_ns is None else now_ns) / 1e9)
    when = time.localtime(when_ns / 1e9)
    today = (when.tm_year, when.tm_yday) == (now.tm_year, now.tm_yday)
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", when)


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


_HELD = {
    "lazy": "until used, or until the mount is idle (reintegrate=lazy)",
    "manual": "for 'awayfs sync' (reintegrate=manual)",
}


def held(number: int, policy: str) -> str:
    """How many changes are not sent yet by the user's own wish."""
    return f"{count(number, 'change')} {'waits' if number == 1 else 'wait'} {_HELD.get(policy, '')}"


def as_json(value: Any) -> None:
    """Print as JSON; pure ASCII, so that invalid bytes in names survive as ``\\udcXX``."""
    click.echo(json.dumps(value, indent=2, default=_fallback))


def as_json_line(value: Any) -> None:
    """Print as one line of JSON."""
    click.echo(json.dumps(value, default=_fallback))


def _fallback(value: object) -> object:
    if isinstance(value, bytes):
        return text_of(value)
    raise TypeError(type(value).__name__)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """Print aligned columns; the numbers in ``right`` are columns aligned to the right."""
    cells = [list(header), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(padded).rstrip())


def facts(pairs: Sequence[tuple[str, str]], indent: str = "  ") -> None:
    """Print names and values, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{indent}{name.ljust(width)}  {printable(value)}")


def complain(message: str) -> None:
    """One line on standard error."""
    click.echo("awayfs: " + printable(message), err=True)

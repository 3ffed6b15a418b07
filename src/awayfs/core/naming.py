"""Names that awayfs gives: conflict copies.

``report.odt`` that lost its name becomes ``report (conflict HOST 2026-11-22).odt``. Names are
bytes and may be any bytes; the extension is kept so that the copy opens with the same program.
A template of the user's names it otherwise, such as ``{name}.conflict-{host}-{date}`` where a
program loads every ``*.conf``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container

NAME_MAX = 255
_EXTENSION_MAX = 32
TEMPLATE = "{stem} (conflict {host} {date}){ext}"
LONGEST_TEMPLATE = 60
RESERVED = ".awayfs"
"""Such names are ours, here and on the server: one that is taken for a staged file goes."""
_FIELD = re.compile(rb"\{(stem|ext|name|host|date)\}")
_MARK = re.compile(rb" \((?:partial )?conflict [^()/]{1,100} \d{4}-\d\d-\d\d(?: \d+)?\)")
_DOUBLE_EXTENSION = re.compile(rb"\.tar\.[A-Za-z0-9]{1,5}\Z")


def conflict_copy_name(
    name: bytes,
    host: str,
    when: str,
    taken: Callable[[bytes], bool] | Container[bytes] = (),
    name_max: int = NAME_MAX,
    template: str = "",
) -> bytes:
    """A free name for a conflict copy of ``name``, at most ``name_max`` bytes long.

    ``when`` is a date like ``2026-11-22``. The copy of a conflict copy is named after the
    original. The stem is shortened, at a character boundary, where the name is too long.
    ``template`` has fields in braces; without one, ``TEMPLATE`` counts.
    """
    is_taken = taken if callable(taken) else taken.__contains__
    stem, extension = split_extension(original_name(name))
    fields = {b"ext": extension, b"host": _printable(host).encode(), b"date": when.encode()}
    parts = _FIELD.split((template or TEMPLATE).encode())
    number = 1
    while True:
        candidate = _filled(parts, stem, fields, number, name_max)
        if not is_taken(candidate):
            return candidate
        number += 1


def _filled(
    parts: list[bytes], stem: bytes, fields: dict[bytes, bytes], number: int, name_max: int
) -> bytes:
    """A template's name; from the second on, with a number where it stands best."""
    named = parts[1::2]
    counted = next(f for f in (b"date", b"host", b"stem", b"name") if f in named)
    values = fields | {b"stem": stem, b"name": stem + fields[b"ext"]}
    if number > 1:
        values[counted] += b" %d" % number
    filled = [values[part] if odd % 2 else part for odd, part in enumerate(parts)]
    spare = name_max - sum(map(len, filled))
    if spare < 0:
        at = next(i for i in range(1, len(parts), 2) if parts[i] in (b"stem", b"name"))
        tail = filled[at][len(stem) :]
        filled[at] = cut(stem, max(1, len(stem) + spare)) + tail
    return b"".join(filled)


def why_not_template(template: str) -> str | None:
    """What is wrong with a template for conflict copies; None when it is one."""
    named = [field.decode() for field in _FIELD.findall(template.encode())]
    if "/" in template or "\0" in template:
        return "is a name, without a slash"
    if not {"stem", "name"} & set(named):
        return "needs {stem} or {name}"
    if template in ("{stem}", "{name}", "{stem}{ext}"):
        return "has to make another name"
    if template.startswith(RESERVED):
        return f"must not begin with {RESERVED}"
    if len(template) > LONGEST_TEMPLATE:
        return f"is longer than {LONGEST_TEMPLATE} letters"
    if re.search(r"[{}]", re.sub(_FIELD.pattern.decode(), "", template)):
        return "can have {stem}, {ext}, {name}, {host} and {date}, and no other braces"
    return None


def is_conflict_copy(name: bytes) -> bool:
    """Whether awayfs gave this name: a conflict copy is never itself a conflict."""
    return _MARK.search(name) is not None


def original_name(name: bytes) -> bytes:
    """The name without the marks of a conflict copy."""
    return _MARK.sub(b"", name) or name


def split_extension(name: bytes) -> tuple[bytes, bytes]:
    """``(stem, extension)``; a leading dot starts a name, it does not end one.

    Something long after a dot is no extension but part of a sentence.
    """
    double = _DOUBLE_EXTENSION.search(name)
    at = double.start() if double else name.rfind(b".")
    if at <= 0 or not name[:at].strip(b".") or len(name) - at > _EXTENSION_MAX:
        return name, b""
    if b" " in name[at:] or at == len(name) - 1:
        return name, b""
    return name[:at], name[at:]


def cut(name: bytes, length: int) -> bytes:
    """The first ``length`` bytes at most, never half a UTF-8 character."""
    if len(name) <= length:
        return name
    end = length
    while end > 0 and length - end < 4 and name[end] & 0xC0 == 0x80:
        end -= 1
    if end == 0 or name[end] & 0xC0 == 0x80:  # not UTF-8 here: any place is as good
        end = length
    return name[:end]


def _printable(host: str) -> str:
    """A host name fit to stand in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", host)[:40] or "here"


def folded(name: bytes) -> str:
    """The same for names that a server which ignores case and normal form takes for one."""
    return unicodedata.normalize("NFC", name.decode(errors="surrogateescape").casefold())

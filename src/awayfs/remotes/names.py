"""Names that awayfs gives to files on a server."""

from __future__ import annotations

import re

from awayfs.core.types import OpId
from awayfs.ports.remote import ASIDE_SUFFIX, STAGED_PREFIX, STAGED_SUFFIX

NAME_MAX = 255

_OWN = re.compile(
    re.escape(STAGED_PREFIX)
    + rb"[0-9a-z]{1,32}(?:"
    + re.escape(STAGED_SUFFIX)
    + b"|"
    + re.escape(ASIDE_SUFFIX)
    + rb")"
)

FENCE_SUFFIX = b".fence"
_FENCE = re.compile(re.escape(STAGED_PREFIX) + rb"[0-9a-z]{1,32}" + re.escape(FENCE_SUFFIX))


def staged_name(op: OpId) -> bytes:
    """Where ``op`` builds what it will move into place."""
    return STAGED_PREFIX + op.encode("ascii") + STAGED_SUFFIX


def aside_name(op: OpId) -> bytes:
    """Where ``op`` keeps what must not be destroyed yet."""
    return STAGED_PREFIX + op.encode("ascii") + ASIDE_SUFFIX


def fence_name(client: str) -> bytes:
    """What stands in a volume's root as long as a program of the client's may act there."""
    return STAGED_PREFIX + (client or "0").encode("ascii") + FENCE_SUFFIX


def is_own(name: bytes) -> bool:
    """Whether an operation builds or keeps something at ``name``."""
    return _OWN.fullmatch(name) is not None


def is_hidden(name: bytes, client: str) -> bool:
    """Whether a listing for ``client`` leaves ``name`` out: what an operation of another client has
    there, and each fence.
    """
    if _FENCE.fullmatch(name):
        return True
    return is_own(name) and not (client and name.startswith(STAGED_PREFIX + client.encode("ascii")))


def is_linux_name(name: bytes) -> bool:
    """Whether a name from a server can be a name here at all."""
    return (
        0 < len(name) <= NAME_MAX
        and b"/" not in name
        and b"\0" not in name
        and name not in (b".", b"..")
    )


def conflict_name(name: bytes, op: OpId, attempt: int = 0) -> bytes:
    """A visible name beside ``name`` for a revision that lost its own: ``a (conflict op).txt``.

    The extension stays where it was, so that programs still know the type; the stem is cut
    where the name would be longer than a Linux name may be. ``attempt`` numbers further ones.
    """
    tag = op.encode("ascii") + (b"-%d" % attempt if attempt else b"")
    mark = b" (conflict " + tag + b")"
    stem, dot, extension = name.rpartition(b".")
    if not stem or len(extension) > 16:
        stem, dot, extension = name, b"", b""
    room = NAME_MAX - len(mark) - len(dot) - len(extension)
    return stem[:room] + mark + dot + extension

"""What a decision about a conflict may be, and what it gives up: tables.

``local``, ``server`` and ``both`` are for every conflict (``core.conflicts``). ``base`` and
``with`` decide for a content, and so only where both variants are contents of one file.
"""

from __future__ import annotations

from collections.abc import Mapping

from awayfs.core.conflicts import ConflictKind
from awayfs.core.records import RecordKind

LOCAL, SERVER, BOTH, BASE, WITH = CHOICES = ("local", "server", "both", "base", "with")
"""``with``: a content given by a person, a tool or a rule."""

_K = ConflictKind
_BOTH_LOSE = frozenset({LOCAL, SERVER})
_OURS, _THEIRS = frozenset({LOCAL}), frozenset({SERVER})

LOSES: Mapping[tuple[str, str], frozenset[str]] = {
    (_K.UPDATE_UPDATE, LOCAL): _THEIRS,
    (_K.UPDATE_UPDATE, SERVER): _OURS,
    (_K.UPDATE_UPDATE, BASE): _BOTH_LOSE,
    (_K.UPDATE_UPDATE, WITH): _BOTH_LOSE,
    (_K.UPDATE_REMOVE, SERVER): _OURS,
    (_K.UPDATE_REMOVE, BASE): _OURS,
    (_K.UPDATE_REMOVE, WITH): _OURS,
    (_K.REMOVE_UPDATE, LOCAL): _THEIRS,
    (_K.REMOVE_UPDATE, BASE): _THEIRS,
    (_K.REMOVE_UPDATE, WITH): _THEIRS,
    (_K.NAME_NAME, SERVER): _OURS,
    (_K.NAME_NAME, WITH): _BOTH_LOSE,
    (_K.TYPE, SERVER): _OURS,
    (_K.REFUSED, SERVER): _OURS,
}
"""The variants whose content no name shows after a decision. Others lose none."""

_TAKES: Mapping[str, tuple[RecordKind | None, ...]] = {
    _K.UPDATE_UPDATE: (RecordKind.STORE, RecordKind.RENAME),
    _K.UPDATE_REMOVE: (RecordKind.STORE, RecordKind.CREATE),
    _K.REMOVE_UPDATE: (None,),
    _K.NAME_NAME: (RecordKind.CREATE,),
}
"""The parked record of conflicts that a content decides; None: there is none any more."""

OVERWRITES: Mapping[str, tuple[str, ...]] = {
    _K.UPDATE_UPDATE: (LOCAL, BASE, WITH),
    _K.UPDATE_REMOVE: (LOCAL, BOTH, BASE, WITH),
    _K.NAME_NAME: (WITH,),
    _K.ATTRIBUTE: (BASE,),
}
"""Decisions that put something in the place of what the server has: of what was looked at."""


def loses(kind: str, choice: str) -> frozenset[str]:
    """The variants that a decision gives up."""
    return LOSES.get((kind, choice), frozenset())


def takes_content(kind: str, record: RecordKind | None) -> bool:
    """Whether a content can decide a conflict; ``record`` is what waits for it."""
    return record in _TAKES.get(kind, ())


def has_base(kind: str) -> bool:
    """Whether there was one revision that both sides began with."""
    return (kind, BASE) in LOSES


def overwrites(kind: str, choice: str) -> bool:
    """Whether the server's revision must be the one that the person saw."""
    return choice in OVERWRITES.get(kind, ())


WHAT: Mapping[str, str] = {
    LOCAL: "ours is kept",
    SERVER: "the server's is kept",
    BOTH: "both are kept, under two names",
    BASE: "the version before both changes is kept",
    WITH: "the given content is kept",
}


def told(kind: str, choice: str) -> str:
    """What a decision would do, in words, for ``--dry-run``."""
    lost = [{LOCAL: "ours", SERVER: "the server's"}[which] for which in sorted(loses(kind, choice))]
    if kind == _K.UPDATE_REMOVE and choice in (LOCAL, BOTH):
        return "ours is made anew on the server"
    if kind == _K.REMOVE_UPDATE and choice == LOCAL:
        return "the removal stands; the server's goes to the history"
    if kind == _K.REFUSED and choice == LOCAL:
        return "the server is asked once more"
    return WHAT[choice] + (f"; {' and '.join(lost)} goes to the history" if lost else "")

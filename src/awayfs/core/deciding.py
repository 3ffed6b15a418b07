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


_RENAMED_OVER: Mapping[str, str] = {
    LOCAL: "ours takes the name; the server's gets one of its own",
    SERVER: "our rename is undone",
}
_NO_TWO: Mapping[str, str] = {
    _K.REMOVE_UPDATE: "the server's is kept, as there is none of ours",
    _K.RENAME_RENAME: "the server's name is kept, as it is one file",
    _K.ATTRIBUTE: "the server's is kept, as it is one file",
    _K.REFUSED: "nothing: use --keep local or --keep server",
}
"""What becomes of ``both`` where two cannot stand side by side."""


def told(kind: str, choice: str, record: RecordKind | None = None) -> str:
    """What a decision would do, in words, for ``--dry-run``. ``record`` is what waits for it."""
    if kind == _K.REMOVE_UPDATE and record is RecordKind.RENAME:
        return _RENAMED_OVER.get(choice, WHAT[choice])
    if choice == BOTH and kind in _NO_TWO:
        return _NO_TWO[kind]
    lost = [{LOCAL: "ours", SERVER: "the server's"}[which] for which in sorted(loses(kind, choice))]
    if kind == _K.UPDATE_REMOVE and choice in (LOCAL, BOTH):
        return "ours is made anew on the server"
    if kind == _K.REMOVE_UPDATE and choice == LOCAL:
        return "the removal stands; the server's goes to the history"
    if kind == _K.REFUSED and choice == LOCAL:
        return "the server is asked once more"
    verb = "go" if len(lost) > 1 else "goes"
    return WHAT[choice] + (f"; {' and '.join(lost)} {verb} to the history" if lost else "")

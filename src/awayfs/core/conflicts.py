"""Conflict kinds, and what each resolution does, as data.

DESIGN section 5: a conflict is found per node, all variants are kept, and nobody is stopped.
A resolution is a short list of abstract steps; the shell carries them out in order.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class ConflictKind(enum.StrEnum):
    """``local/server``: what happened here, and what happened there."""

    UPDATE_UPDATE = "update/update"  # content changed on both sides
    UPDATE_REMOVE = "update/remove"  # changed (or renamed, or filled) here, removed there
    REMOVE_UPDATE = "remove/update"  # removed here, changed (or filled) there
    NAME_NAME = "name/name"  # two different objects want one name
    RENAME_RENAME = "rename/rename"  # renamed on both sides, to different names
    TYPE = "type"  # a file here is a directory there, or the like
    ATTRIBUTE = "attribute"  # the same attribute set to different values
    REFUSED = "refused"  # the server said no


class Resolution(enum.StrEnum):
    """What a person, or a rule, decides."""

    LOCAL = "local"
    SERVER = "server"
    BOTH = "both"


class Step(enum.StrEnum):
    """One thing that a resolution does."""

    REBASE = "rebase"  # the server's current revision becomes the base of our record
    REBASE_ABSENT = "rebase-absent"  # our record now expects nothing there
    RELEASE = "release"  # the parked record becomes pending and is replayed
    DROP = "drop"  # the parked record, and what depends on it for this node, goes
    ADOPT = "adopt"  # the name shows the server's content, kind and attributes
    ADOPT_NAME = "adopt-name"  # the node takes the server's name for it
    ADOPT_ATTRIBUTES = "adopt-attributes"  # the server's attributes are taken
    RECREATE = "recreate"  # a create (with content) goes in front of the record
    FORGET = "forget"  # the node goes here, as it went on the server
    COPY_LOCAL = "copy-local"  # the local variant becomes a conflict copy: a new node
    RENAME_LOCAL = "rename-local"  # the local node takes the name of a conflict copy
    COPY_SERVER = "copy-server"  # the server's variant becomes a conflict copy beside it
    SET_ASIDE = "set-aside"  # the local variant goes to lost+found


_K, _R, _S = ConflictKind, Resolution, Step

STEPS: Mapping[tuple[ConflictKind, Resolution], tuple[Step, ...]] = {
    (_K.UPDATE_UPDATE, _R.LOCAL): (_S.REBASE, _S.RELEASE),
    (_K.UPDATE_UPDATE, _R.SERVER): (_S.DROP, _S.ADOPT),
    (_K.UPDATE_UPDATE, _R.BOTH): (_S.COPY_LOCAL, _S.DROP, _S.ADOPT),
    (_K.UPDATE_REMOVE, _R.LOCAL): (_S.RECREATE, _S.REBASE_ABSENT, _S.RELEASE),
    (_K.UPDATE_REMOVE, _R.SERVER): (_S.DROP, _S.FORGET),
    (_K.UPDATE_REMOVE, _R.BOTH): (_S.RECREATE, _S.REBASE_ABSENT, _S.RELEASE),
    (_K.REMOVE_UPDATE, _R.LOCAL): (_S.REBASE, _S.RELEASE),
    (_K.REMOVE_UPDATE, _R.SERVER): (_S.DROP, _S.ADOPT),
    (_K.REMOVE_UPDATE, _R.BOTH): (_S.DROP, _S.ADOPT),
    (_K.NAME_NAME, _R.LOCAL): (_S.COPY_SERVER, _S.REBASE_ABSENT, _S.RELEASE),
    (_K.NAME_NAME, _R.SERVER): (_S.SET_ASIDE, _S.DROP, _S.ADOPT),
    (_K.NAME_NAME, _R.BOTH): (_S.RENAME_LOCAL, _S.ADOPT, _S.RELEASE),
    (_K.RENAME_RENAME, _R.LOCAL): (_S.REBASE, _S.RELEASE),
    (_K.RENAME_RENAME, _R.SERVER): (_S.DROP, _S.ADOPT_NAME),
    (_K.RENAME_RENAME, _R.BOTH): (_S.COPY_LOCAL, _S.DROP, _S.ADOPT_NAME),
    (_K.TYPE, _R.LOCAL): (_S.COPY_SERVER, _S.REBASE_ABSENT, _S.RELEASE),
    (_K.TYPE, _R.SERVER): (_S.SET_ASIDE, _S.DROP, _S.ADOPT),
    (_K.TYPE, _R.BOTH): (_S.RENAME_LOCAL, _S.ADOPT, _S.RELEASE),
    (_K.ATTRIBUTE, _R.LOCAL): (_S.REBASE, _S.RELEASE),
    (_K.ATTRIBUTE, _R.SERVER): (_S.DROP, _S.ADOPT_ATTRIBUTES),
    (_K.ATTRIBUTE, _R.BOTH): (_S.DROP, _S.ADOPT_ATTRIBUTES),
    (_K.REFUSED, _R.LOCAL): (_S.RELEASE,),
    (_K.REFUSED, _R.SERVER): (_S.SET_ASIDE, _S.DROP, _S.ADOPT),
    (_K.REFUSED, _R.BOTH): (_S.COPY_LOCAL, _S.DROP, _S.ADOPT),
}
"""What to do. Where there is only one content, ``both`` keeps that one."""

DEFAULT: Mapping[ConflictKind, Resolution] = {
    ConflictKind.UPDATE_REMOVE: Resolution.LOCAL,
    ConflictKind.REMOVE_UPDATE: Resolution.SERVER,
}
"""Resolutions that lose no content: content beats deletion. The others wait for a decision."""


def steps(kind: ConflictKind, resolution: Resolution) -> tuple[Step, ...]:
    """The steps of ``resolution`` for a conflict of ``kind``."""
    return STEPS[kind, resolution]

"""What a replay decision may look at, and what it can say; the rules are in ``decide``."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.conflicts import ConflictKind
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import ABSENT, Attributes, Entry, Expected, Kind


class Parent(enum.StrEnum):
    """Where the directory stands that the record works in (for renames: the target's)."""

    PRESENT = "present"
    UNBORN = "unborn"  # created here, not on the server yet
    GONE = "gone"  # was on the server, and the server said it is not there now
    REPLACED = "replaced"  # something that is no directory has its place on the server


class Facts(Struct, frozen=True):
    """Everything a decision may look at.

    ``current`` stands at the node's own path on the server (for REMOVE the path of the name,
    for LINK any name of the node, for RENAME and EXCHANGE the source). ``target_current``
    stands at the name that a CREATE, LINK, RENAME or EXCHANGE wants. None is ``NotFound``
    and nothing else. Digests are None while not computed or not known.
    """

    record: Record
    kind: Kind
    base: Entry | None = None  # the node as we last agreed with the server; None: never there
    current: Entry | None = None
    target_base: Entry | None = None  # base of ``record.replaced``
    target_current: Entry | None = None
    local_size: int | None = None
    base_digest: bytes | None = None
    local_digest: bytes | None = None
    current_digest: bytes | None = None
    target_base_digest: bytes | None = None
    target_digest: bytes | None = None  # of ``target_current``
    symlink_target: bytes | None = None
    rdev: int = 0
    base_xattrs: Mapping[bytes, bytes] | None = None
    current_xattrs: Mapping[bytes, bytes] | None = None
    ours: Entry | None = None  # what an earlier attempt of this record left (staged entry)
    ours_digest: bytes | None = None  # and its content's, where the entry alone proves nothing
    sent: Expected | None = None  # what an earlier attempt of a RENAME or EXCHANGE was to move,
    sent_target: Expected | None = None  # and what it required to be where that was to go
    went: Entry | None = None  # what the RENAME was to move, as it stood there at that time
    retried: bool = False  # an earlier attempt may have been executed
    crossed: bool = False  # an EXCHANGE of several steps: it is on record that they were taken
    moved: bool = False  # the node's file_id was seen elsewhere on the server
    inside: bool = False  # the name that is wanted is inside of the node itself on the server
    other_names: bool = False  # the server was just seen to have the node under another name
    unknown_children: int = 0  # on the server, in the directory to remove or displace
    twin: bytes | None = None  # another node's name there that the server takes for the wanted one
    is_moved_one: bool = False  # what has the wanted name was renamed on both sides
    parent: Parent = Parent.PRESENT
    complete: bool = True  # the content to send is all here
    read_only: bool = False
    name_max: int = 255
    unsupported: bool = False  # the server cannot hold this kind of object or attribute


INTO_ITSELF = (
    "on the server, what it is moved into is inside of it: --keep server takes the move back;"
    " if that is moved out there first, --keep local carries it out"
)
LOOK_FIRST = 64 << 10
"""Bytes that are not sent before it is known that their name is free."""


def mode_set_there(facts: Facts) -> int | None:
    """The mode of a file that somebody changed on the server since it was seen: content that goes
    out over it leaves it as it is. What was set here goes with a record of its own.
    """
    base, current = facts.base, facts.current
    if base is None or current is None or base.mode == current.mode:
        return None
    return current.mode


def known_after(facts: Facts, after: Entry, set_here: Collection[str]) -> Entry:
    """What is the base once content went out: of rights that both sides set, those before both,
    so that the record of ours meets the server's. What an earlier try of ours gave it is not
    theirs.
    """
    base, current, ours = facts.base, facts.current, facts.ours
    if base is None or current is None:
        return after
    names = [name for name in ("mode", "uid", "gid") if name in set_here]
    known = [entry for entry in (base, ours) if entry is not None]
    theirs = [n for n in names if all(getattr(e, n) != getattr(current, n) for e in known)]
    return replace(after, **{name: getattr(base, name) for name in theirs})


def digest_seen(facts: Facts, entry: Entry | None) -> bytes | None:
    """The digest of what stands on the server as ``entry``, where it was taken."""
    if entry is None:
        return None
    return facts.current_digest if entry is facts.current else facts.target_digest


def may_assume_free(record: Record, kind: Kind, size: int, retried: bool) -> bool:
    """Whether a CREATE may be decided as if nothing stood at its name, without a look there.

    The operation is exclusive: it answers what stands there, having changed nothing, and then the
    record is decided anew on that. So a wrong guess costs what was sent for nothing.
    """
    if record.kind is not RecordKind.CREATE or retried:
        return False
    return kind is not Kind.FILE or size <= LOOK_FIRST


def may_assume_known(record: Record, base: Entry | None, names: int, retried: bool) -> bool:
    """Whether a change of something with so many names there may be decided as if the server had
    what it had when it was last seen, without a look.

    The operation compares all that a look would tell (``if_as_known``), and does nothing where that
    differs; then the record is decided anew. Where there are ids, a look tells more.
    """
    if retried or base is None or base.weak or base.file_id is not None:
        return False
    if names != 1 or base.nlink != 1:
        return False
    if record.kind is RecordKind.STORE:
        return base.kind is Kind.FILE
    goes = record.kind is RecordKind.REMOVE
    goes = goes or (record.kind is RecordKind.RENAME and not record.replaced)
    return goes and base.kind in (Kind.FILE, Kind.SYMLINK)


class Apply(Struct, frozen=True):
    """Do it. ``expected`` guards the node's path, ``target`` the wanted name.

    ``attributes`` are what is left to set for a SETATTR. ``unproven``: keep what is displaced.
    """

    expected: Expected
    target: Expected = ABSENT
    attributes: Attributes | None = None
    unproven: bool = False


class AlreadyDone(Struct, frozen=True):
    """The server is as the record wants it; ``entry`` is the node there (None: removed)."""

    entry: Entry | None


class NeedDigest(Struct, frozen=True):
    """Compute a digest and ask again.

    ``current`` and ``target`` are those of ``Facts.current`` and ``Facts.target_current`` on
    the server; ``local`` is that of the local content.
    """

    which: Literal["current", "target", "local"]


class Conflict(Struct, frozen=True):
    """Park the record and keep all variants. ``on_target``: it is about the displaced node."""

    kind: ConflictKind
    detail: str
    on_target: bool = False


class Refused(Struct, frozen=True):
    """The server would say no; park the record with its data."""

    errno: int
    reason: str


class Wait(Struct, frozen=True):
    """Not yet."""

    reason: str


Decision = Apply | AlreadyDone | NeedDigest | Conflict | Refused | Wait


def if_as_known(facts: Facts, decision: Decision) -> Apply | None:
    """What was decided about ``current`` unseen, if really nothing has changed there since.

    None: a look is needed first.
    """
    known = facts.current
    if known is None or not isinstance(decision, Apply) or decision.unproven:
        return None
    rights = (known.mode, known.uid, known.gid)
    return replace(decision, expected=Expected(known.token, kind=known.kind, rights=rights))

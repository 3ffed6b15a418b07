"""Whether what stands on the server is what we know, or put there ourselves.

* *Content unchanged* is proved by an equal strong token, or by an equal digest. Equal weak
  tokens prove nothing; where the base's digest is known the server's is asked for
  (``NeedDigest``). Where it is not known, the content was never complete here, so no change
  of ours was derived from it: equal tokens are then accepted, and ``Apply.unproven`` asks the
  shell to keep what the operation displaces.
* *Identity* (kind, and ``file_id`` where both sides have one) is enough for renames, links and
  attributes, which do not touch content; only a modification time is that of one content. A
  regular file with a new ``file_id`` under its old name is the same file after an editor's save.
* A regular file without an id that is met under another name than before is compared by digest:
  an equal token there may be that of another file.
* Directories are never compared by version: their tokens change with every child.
"""

from __future__ import annotations

import enum

from awayfs.core.facts import LOOK_FIRST, Facts
from awayfs.core.types import NEVER_SEEN, Entry, Expected, Kind

WORTH_READING = 1 << 20
"""Bytes that may be read to learn whether a try of ours, of which no answer came, arrived."""


def same_object(known: Entry, seen: Entry) -> bool:
    """Same kind, and no evidence of another object."""
    if known.kind is not seen.kind:
        return False
    return known.file_id is None or seen.file_id is None or known.file_id == seen.file_id


def proved_same(known: Entry | None, seen: Entry | None) -> bool:
    """Evidence of the same object: an equal id, or an equal strong token."""
    if known is None or seen is None or known.kind is not seen.kind:
        return False
    if known.file_id is not None and seen.file_id is not None:
        return known.file_id == seen.file_id
    return known.token == seen.token and not (known.weak or seen.weak)


def looks_same(known: Entry | None, seen: Entry | None) -> bool:
    """For a retried rename without ids: the same as far as anything can tell."""
    if known is None or seen is None or not same_object(known, seen):
        return False
    if known.kind is Kind.DIRECTORY:
        return True
    fields = ("size", "mtime_ns", "target", "rdev")
    return all(getattr(known, name) == getattr(seen, name) for name in fields)


def looks_moved(went: Entry | None, seen: Entry) -> bool:
    """For a retried rename without ids whose old name is taken: whether this is what went.

    A directory that was moved has the time that it had, unless somebody worked in it.
    """
    return went is not None and looks_same(went, seen) and went.mtime_ns == seen.mtime_ns


def looks_replaced(went: Entry | None, seen: Entry) -> bool:
    """The same rename's old name: whether something else stands there by now."""
    if went is None or went.token == seen.token:
        return False
    return not looks_same(went, seen) or went.mtime_ns != seen.mtime_ns


def is_what_went(sent: Expected | None, seen: Entry | None) -> bool:
    """Whether this is what an earlier attempt was to move, whatever it was known as before. Where
    there are no ids, no more is left of it than its token.
    """
    if sent is None or sent.token is None or seen is None or sent.kind is not seen.kind:
        return False
    if sent.file_id is not None and seen.file_id is not None:
        return sent.file_id == seen.file_id
    return sent.token == seen.token and seen.kind is not Kind.DIRECTORY


def is_another_file(
    known: Entry | None,
    known_digest: bytes | None,
    seen: Entry,
    digest: bytes | None,
    *,
    retried: bool,
) -> bool | None:
    """Whether a file that looks like a known one, under another name than that, is another.

    None where the ``digest`` of what is seen would tell; where that of the known one is not known,
    looks have to do. ``retried``: it may be what a try of ours put there.
    """
    if known_digest is None or not may_be_another(known, seen, retried=retried):
        return False
    return None if digest is None else known_digest != digest


def may_be_another(known: Entry | None, seen: Entry | None, *, retried: bool) -> bool:
    """Whether looks alone do not tell that two names show one file.

    Without ids there may be no more to see than a size and a time, and files that were made in one
    go have both in common. That such a one came where a try of ours was to put a large file is less
    likely than that it arrived, and not worth reading it.
    """
    if known is None or seen is None or seen.size == 0 or not are_without_ids(known, seen):
        return False
    if not looks_same(known, seen):
        return False  # it was known by something else
    return not (retried and seen.size > WORTH_READING)


def are_without_ids(known: Entry, seen: Entry) -> bool:
    """Whether two entries of regular files have no ids to tell them apart by."""
    both_files = known.kind is seen.kind is Kind.FILE
    return both_files and (known.file_id is None or seen.file_id is None)


def is_ours(f: Facts, seen: Entry) -> bool:
    """What stands there was put there by an earlier attempt of this very record."""
    if f.ours is None or f.ours.kind is not seen.kind:
        return False
    if f.ours.file_id is not None and seen.file_id is not None:
        return f.ours.file_id == seen.file_id and f.ours.size == seen.size
    return f.ours.token == seen.token and not seen.weak


def came_through(f: Facts, seen: Entry, digest: bytes | None) -> bool | None:
    """``is_ours`` for content; None where the digest of what stands there would tell.

    Without ids, an equal weak token may be that of somebody's edit within the same second, and
    any that of what stood there before. Another one may be no more than the change time that
    taking its place gave it.
    """
    ours = f.ours
    if ours is None or ours.kind is not seen.kind or seen.kind is not Kind.FILE:
        return is_ours(f, seen)
    if ours.file_id is not None and seen.file_id is not None:
        return ours.file_id == seen.file_id  # whatever was done to it since it came there
    if f.ours_digest is None:
        return is_ours(f, seen)
    if ours.token == NEVER_SEEN:
        if ours.size != seen.size or seen.size == 0:
            return ours.size == seen.size
        return None if digest is None else digest == f.ours_digest
    is_known = ours.token == seen.token
    if not is_known and not looks_same(ours, seen):
        return False
    strong = is_known and not (ours.weak or seen.weak)
    if seen.size == 0 or (strong and not _may_be_from_before(f, ours)):
        return True
    return None if digest is None else digest == f.ours_digest


def _may_be_from_before(f: Facts, ours: Entry) -> bool:
    """Whether what was to be displaced, or never looked at (``may_assume_free``), may look so."""
    return ours.size <= LOOK_FIRST if f.base is None else ours.token == f.base.token


class Compared(enum.Enum):
    """How the server's content compares with a known revision."""

    UNCHANGED = enum.auto()
    UNPROVEN = enum.auto()
    CHANGED = enum.auto()
    ASK = enum.auto()  # a digest of the server's would tell


def compare(
    known: Entry, known_digest: bytes | None, seen: Entry, seen_digest: bytes | None
) -> Compared:
    """The content of a node as we knew it against what stands there now (same kind)."""
    if seen.kind is not Kind.FILE:
        same = seen.target == known.target and seen.rdev == known.rdev
        return Compared.UNCHANGED if same else Compared.CHANGED
    if seen.size != known.size:
        return Compared.CHANGED
    equal_tokens = seen.token == known.token
    if equal_tokens and not (seen.weak or known.weak):
        return Compared.UNCHANGED
    if seen.size == 0:
        return Compared.UNCHANGED  # an empty file holds nothing that could have changed
    if known_digest is None:
        return Compared.UNPROVEN if equal_tokens and same_object(known, seen) else Compared.CHANGED
    if seen_digest is None:
        return Compared.ASK
    return Compared.UNCHANGED if seen_digest == known_digest else Compared.CHANGED

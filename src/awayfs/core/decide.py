"""What to do with one record, given what stands on the server: one pure decision.

The shell observes, calls ``decide``, and acts with guarded operations. What counts as the same is
told in ``core.sameness``.

A precondition is always built from what stands there now, once that was found acceptable, so
that a change in between is caught by the guard. The rules are those of DESIGN section 5.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec.structs import replace

from awayfs.core.conflicts import ConflictKind
from awayfs.core.facts import (
    INTO_ITSELF,
    AlreadyDone,
    Apply,
    Conflict,
    Decision,
    Facts,
    NeedDigest,
    Parent,
    Refused,
    Wait,
)
from awayfs.core.records import RecordKind
from awayfs.core.sameness import (
    Compared,
    are_without_ids,
    came_through,
    compare,
    is_another_file,
    is_ours,
    is_what_went,
    looks_moved,
    looks_replaced,
    looks_same,
    may_be_another,
    proved_same,
    same_object,
)
from awayfs.core.types import ABSENT, Attributes, Entry, Expected, Kind

__all__ = [
    "AlreadyDone",
    "Apply",
    "Conflict",
    "Decision",
    "Facts",
    "NeedDigest",
    "Parent",
    "Refused",
    "Wait",
    "decide",
]


def decide(facts: Facts) -> Decision:
    """The decision for one record."""
    if facts.crossed:  # whatever stands there by now, it came after our exchange
        there = facts.target_current
        return AlreadyDone(there if there is not None and there.kind is facts.kind else None)
    return _obstacle(facts) or _RULES[facts.record.kind](facts)


# --- Before anything else -------------------------------------------------------------------

_NAMING = (RecordKind.CREATE, RecordKind.LINK, RecordKind.RENAME, RecordKind.EXCHANGE)


def _obstacle(f: Facts) -> Decision | None:
    """What makes the record impossible whatever stands on the server."""
    kind = f.record.kind
    if f.read_only:
        return Refused(errno.EROFS, "the server's volume is read-only")
    if f.unsupported:
        return Refused(errno.EOPNOTSUPP, "the server cannot hold this")
    if kind in _NAMING:
        wanted = f.record.name if kind in (RecordKind.CREATE, RecordKind.LINK) else b""
        if max(len(wanted), len(f.record.to_name)) > f.name_max:
            return Refused(errno.ENAMETOOLONG, "the name is too long for the server")
        if f.twin is not None:
            shown = f.twin.decode(errors="backslashreplace")
            return _conflict(ConflictKind.NAME_NAME, f"the server takes {shown} for the same name")
    if f.parent is Parent.UNBORN:
        return Wait("the directory is not on the server yet")
    if f.parent is Parent.GONE and kind is not RecordKind.REMOVE:
        return _conflict(ConflictKind.UPDATE_REMOVE, "the directory was removed on the server")
    if f.parent is Parent.REPLACED:
        return _conflict(ConflictKind.TYPE, "the directory was replaced on the server")
    return None


# --- What is the same -----------------------------------------------------------------------


def _content(f: Facts, base: Entry, current: Entry) -> Compared:
    """What the node holds, against what it held."""
    verdict = compare(base, f.base_digest, current, f.current_digest)
    return _allowing_for_ourselves(verdict, f.retried, base, f.base_digest, current)


def _content_there(f: Facts, base: Entry, there: Entry) -> Compared:
    """What holds the wanted name, against what that held."""
    verdict = compare(base, f.target_base_digest, there, f.target_digest)
    return _allowing_for_ourselves(verdict, f.retried, base, f.target_base_digest, there)


def _allowing_for_ourselves(
    verdict: Compared, retried: bool, base: Entry, base_digest: bytes | None, seen: Entry
) -> Compared:
    """A try of ours that was cut off may have put it aside and back, which changes no more than
    its change time; nor does a name of the file that came or went, by a change of ours to what is
    another one here without ids. Where a digest could tell, that has told.
    """
    if verdict is not Compared.CHANGED or base_digest is not None or not looks_same(base, seen):
        return verdict
    linked = are_without_ids(base, seen) and base.nlink != seen.nlink
    return Compared.UNPROVEN if retried or linked else verdict


def _revision(entry: Entry, digest: bytes | None = None) -> Expected:
    """Exactly what stands there now; ``digest`` is that of its content, if that was taken."""
    content = entry.kind is not Kind.DIRECTORY
    proof = digest if entry.weak else None
    return Expected(entry.token, entry.file_id, entry.kind, content=content, digest=proof)


def _identity(entry: Entry) -> Expected:
    """The object that stands there now, whatever its content."""
    return Expected(entry.token, entry.file_id, entry.kind, content=False)


def _conflict(kind: ConflictKind, detail: str, *, on_target: bool = False) -> Conflict:
    return Conflict(kind, detail, on_target)


def _type_conflict(here: Kind, there: Kind) -> Conflict:
    detail = f"a {here.name.lower()} here, a {there.name.lower()} on the server"
    return _conflict(ConflictKind.TYPE, detail)


def _found(
    f: Facts, known: Entry | None, known_digest: bytes | None, there: Entry
) -> Decision | None:
    """What has the wanted name looks like what is to have it; None where it is another file."""
    is_another = is_another_file(known, known_digest, there, f.target_digest, retried=f.retried)
    if is_another is None:
        return NeedDigest("target")
    return None if is_another else AlreadyDone(there)


# --- One rule a record kind -----------------------------------------------------------------


def _create(f: Facts) -> Decision:
    """A new name: free, or taken by the same thing, or a conflict."""
    there = f.target_current
    if there is None:
        return Apply(ABSENT)
    return _meet(f, there, f.target_digest, "target")


def _meet(
    f: Facts, there: Entry, digest: bytes | None, which: Literal["current", "target"]
) -> Decision:
    """An object made here meets a stranger under its name on the server."""
    if f.retried and (ours := came_through(f, there, digest)) is not False:
        return AlreadyDone(there) if ours else NeedDigest(which)
    if there.kind is not f.kind:
        return _type_conflict(f.kind, there.kind)
    if f.is_moved_one:
        return _conflict(
            ConflictKind.NAME_NAME, "what was renamed on both sides has its name there"
        )
    if f.kind is Kind.FILE:
        return _meet_file(f, there, digest, which)
    same = {
        Kind.SYMLINK: there.target == f.symlink_target,
        Kind.CHARACTER: there.rdev == f.rdev,
        Kind.BLOCK: there.rdev == f.rdev,
    }
    if same.get(f.kind, True):
        return AlreadyDone(there)
    return _conflict(ConflictKind.NAME_NAME, "created on both sides, differently")


def _meet_file(
    f: Facts, there: Entry, digest: bytes | None, which: Literal["current", "target"]
) -> Decision:
    """Equal content is adopted; so is the empty file that a lost CREATE left behind."""
    if f.retried and there.size == 0 and f.record.kind is RecordKind.CREATE:
        return AlreadyDone(there)
    if f.local_size != there.size:
        return _conflict(ConflictKind.NAME_NAME, "created on both sides with different content")
    if there.size == 0:
        return AlreadyDone(there)
    if f.local_digest is None:
        return NeedDigest("local")
    if digest is None:
        return NeedDigest(which)
    if digest == f.local_digest:
        return AlreadyDone(there)
    return _conflict(ConflictKind.NAME_NAME, "created on both sides with different content")


def _link(f: Facts) -> Decision:
    """One more name: the node must be there, the name free or already this node's."""
    source, there = f.current, f.target_current
    if there is not None:
        known = source or f.base
        if proved_same(known, there) or (f.retried and looks_same(known, there)):
            if f.current_digest is None and may_be_another(source, there, retried=f.retried):
                return NeedDigest("current")
            digest = f.base_digest if source is None else f.current_digest
            if found := _found(f, known, digest, there):
                return found
        if there.kind is not f.kind:
            return _type_conflict(f.kind, there.kind)
        return _conflict(ConflictKind.NAME_NAME, "the name was taken on the server")
    if source is None or source.kind is not f.kind:  # a thing of another kind has its name now
        return _conflict(ConflictKind.UPDATE_REMOVE, "linked here, removed on the server")
    return Apply(_identity(source), ABSENT)


def _store(f: Facts) -> Decision:
    """Content changed here; it goes out over the revision it was based on, and no other."""
    if not f.complete:
        return Wait("a part of the content is not here yet")
    current = f.current
    if current is None:
        return _store_on_nothing(f)
    if f.retried and (ours := came_through(f, current, f.current_digest)) is not False:
        return AlreadyDone(current) if ours else NeedDigest("current")
    if f.base is None:
        return _meet(f, current, f.current_digest, "current")
    if current.kind is not f.kind:
        return _type_conflict(f.kind, current.kind)
    return _store_over(f, f.base, current)


def _store_on_nothing(f: Facts) -> Decision:
    if f.base is None:
        return Apply(ABSENT)
    if f.moved:
        return _conflict(ConflictKind.UPDATE_REMOVE, "changed here, moved on the server")
    return _conflict(ConflictKind.UPDATE_REMOVE, "changed here, removed on the server")


def _store_over(f: Facts, base: Entry, current: Entry) -> Decision:
    if f.current_digest is not None and f.current_digest == f.local_digest:
        return AlreadyDone(current)
    verdict = _content(f, base, current)
    if verdict is Compared.UNCHANGED:
        return Apply(_revision(current, f.current_digest))
    if verdict is Compared.ASK:
        return NeedDigest("current")
    if current.size == f.local_size and current.kind is Kind.FILE:  # perhaps the same content
        if current.size == 0:
            return AlreadyDone(current)
        if f.local_digest is None:
            return NeedDigest("local")
        if f.current_digest is None:
            return NeedDigest("current")
    if verdict is Compared.UNPROVEN:
        return Apply(_revision(current), unproven=True)
    return _conflict(ConflictKind.UPDATE_UPDATE, "content changed on both sides")


_OWNED = ("mode", "uid", "gid")
_TIMES = ("mtime_ns", "atime_ns")


def _setattr(f: Facts) -> Decision:
    """Attributes that do not overlap are merged; times that describe lost content are not set.

    A server edit of data with a local change of mode is no conflict. The modification time of
    content that the server has since replaced would be a lie, so it is left out.
    """
    absent = _gone_or_other(f, "attributes changed here, removed on the server")
    if absent is not None or f.current is None:
        return absent or Wait("unreachable")
    base, current, wanted = f.base, f.current, f.record.attributes
    for name in _OWNED:
        value, there = getattr(wanted, name), getattr(current, name)
        if value is None or value == there:
            continue
        if base is not None and there != getattr(base, name):
            return _conflict(ConflictKind.ATTRIBUTE, f"{name} changed on both sides")
    left = _still_to_set(wanted, base, current)
    if not left:
        return AlreadyDone(current)
    dates = current.kind is Kind.FILE and left.mtime_ns is not None
    expected = _revision(current) if dates else _identity(current)  # a time is one content's
    return Apply(expected, attributes=left)


def _still_to_set(wanted: Attributes, base: Entry | None, current: Entry) -> Attributes:
    """What of ``wanted`` the server does not show yet and may be set."""
    left = wanted
    for name in (*_OWNED, "mtime_ns"):
        if getattr(wanted, name) == getattr(current, name):
            left = replace(left, **{name: None})
    if base is not None and current.kind is Kind.FILE:
        edited = (current.size, current.mtime_ns) != (base.size, base.mtime_ns)
        if edited and wanted.mtime_ns != current.mtime_ns:
            left = replace(left, mtime_ns=None, atime_ns=None)
    return left


def _setxattr(f: Facts) -> Decision:
    """Extended attributes are compared one by one, where the server's are known."""
    absent = _gone_or_other(f, "attributes changed here, removed on the server")
    if absent is not None or f.current is None:
        return absent or Wait("unreachable")
    name, wanted = f.record.xattr_name, f.record.xattr_value
    if f.current_xattrs is not None:
        there = f.current_xattrs.get(name)
        if there == wanted:
            return AlreadyDone(f.current)
        if f.base_xattrs is not None and there != f.base_xattrs.get(name):
            return _conflict(ConflictKind.ATTRIBUTE, "the same attribute changed on both sides")
    return Apply(_identity(f.current))


def _gone_or_other(f: Facts, removed: str) -> Conflict | None:
    """The node's path holds nothing, or another kind of thing."""
    if f.current is None:
        return _conflict(ConflictKind.UPDATE_REMOVE, removed)
    if f.current.kind is not f.kind:
        return _type_conflict(f.kind, f.current.kind)
    return None


def _remove(f: Facts) -> Decision:
    """Removed here. Gone there: done. Unchanged: goes. Changed: content beats deletion."""
    base, current = f.base, f.current
    if current is None:
        return AlreadyDone(None)
    if base is None:  # ours never got there, or it is what we made and nobody touched since
        return Apply(_revision(current)) if is_ours(f, current) else AlreadyDone(None)
    if current.kind is not base.kind:
        return AlreadyDone(None)  # what was removed is gone there too: another has its name
    if current.kind is Kind.DIRECTORY:
        if f.unknown_children:
            return _conflict(ConflictKind.REMOVE_UPDATE, "the server's directory is not empty")
        return Apply(_identity(current))
    if f.other_names and current.nlink > 1 and same_object(base, current):
        return Apply(_revision(current))  # its content stays: it is another once a name is gone
    verdict = _content(f, base, current)
    if verdict in (Compared.UNCHANGED, Compared.UNPROVEN):
        expected = _revision(current, f.current_digest)
        return Apply(expected, unproven=verdict is Compared.UNPROVEN)
    if verdict is Compared.ASK:
        return NeedDigest("current")
    return _conflict(ConflictKind.REMOVE_UPDATE, "removed here, changed on the server")


def _rename(f: Facts) -> Decision:
    """The source must be the node we know, the target free or what we meant to displace."""
    source, there = f.current, f.target_current
    if there is not None and _rename_was_done(f, there):
        found = _found(f, f.base, f.base_digest, there)
        if found is not None:
            return found
    if f.moved:  # whatever has its name by now
        return _conflict(ConflictKind.RENAME_RENAME, "renamed on both sides")
    if source is None or source.kind is not f.kind:  # a thing of another kind has its name now
        return _conflict(ConflictKind.UPDATE_REMOVE, "renamed here, removed on the server")
    another = f.base is not None and not same_object(f.base, source)
    if another and source.kind is Kind.DIRECTORY:
        return _conflict(ConflictKind.UPDATE_REMOVE, "another directory has its name now")
    if f.inside:
        return Refused(errno.EINVAL, INTO_ITSELF)
    if there is None:
        return Apply(_identity(source), ABSENT)
    if _only_case_differs(f) and proved_same(source, there):
        if f.current_digest is None and may_be_another(source, there, retried=False):
            return NeedDigest("current")
        is_another = is_another_file(
            source, f.current_digest, there, f.target_digest, retried=False
        )
        if is_another is None:
            return NeedDigest("target")
        if not is_another:
            return Apply(_identity(source), _identity(there))
    return _displace(f, source, there)


def _rename_was_done(f: Facts, there: Entry) -> bool:
    """The node stands at the target already: our lost answer, or the same rename there."""
    if f.base is None:
        return False
    if f.current is not None and proved_same(f.current, there):
        return False  # two names of one object, or one name seen twice
    if f.current is None and (proved_same(f.base, there) or is_what_went(f.sent, there)):
        return True
    has_ids = f.base.file_id is not None and there.file_id is not None
    if has_ids:
        return f.base.file_id == there.file_id
    if f.current is not None:
        return looks_replaced(f.went, f.current) and looks_moved(f.went, there)
    return f.retried and (looks_same(f.base, there) or looks_same(f.went, there))


def _only_case_differs(f: Facts) -> bool:
    """A rename by case alone: a case-insensitive server shows the source at the target."""
    record = f.record
    return record.parent == record.to_parent and (
        record.name.decode(errors="surrogateescape").casefold()
        == record.to_name.decode(errors="surrogateescape").casefold()
    )


def _displace(f: Facts, source: Entry, there: Entry) -> Decision:
    """Something stands at the target of a rename."""
    if not f.record.replaced or f.target_base is None:
        return _conflict(ConflictKind.NAME_NAME, "the name was taken on the server")
    if there.kind is not f.target_base.kind:
        return replace(_type_conflict(f.target_base.kind, there.kind), on_target=True)
    if there.kind is Kind.DIRECTORY:
        if f.unknown_children:
            detail = "the server's directory to be replaced is not empty"
            return _conflict(ConflictKind.REMOVE_UPDATE, detail, on_target=True)
        return Apply(_identity(source), _identity(there))
    if f.target_digest is not None and f.target_digest == f.local_digest:
        # the same content goes over it
        return Apply(_identity(source), _revision(there, f.target_digest))
    verdict = _content_there(f, f.target_base, there)
    if verdict in (Compared.UNCHANGED, Compared.UNPROVEN):
        unproven = verdict is Compared.UNPROVEN
        expected = _revision(there, f.target_digest)
        return Apply(_identity(source), expected, unproven=unproven)
    if verdict is Compared.ASK:
        return NeedDigest("target")
    detail = "replaced here, changed on the server"
    return _conflict(ConflictKind.UPDATE_UPDATE, detail, on_target=True)


def _exchange(f: Facts) -> Decision:
    """Both names must hold the nodes we know; crossed ones are our lost answer."""
    here, there = f.current, f.target_current
    if here is None or there is None:
        kind = ConflictKind.RENAME_RENAME if f.moved else ConflictKind.UPDATE_REMOVE
        return _conflict(kind, "exchanged here, one of the two is gone on the server")
    if _are_crossed(f, here, there) and (found := _found_crossed(f, here, there)):
        return found
    if here.kind is not f.kind:
        return _type_conflict(f.kind, here.kind)
    if f.target_base is not None and f.target_base.kind is not there.kind:
        return replace(_type_conflict(f.target_base.kind, there.kind), on_target=True)
    if f.moved:
        return _conflict(ConflictKind.RENAME_RENAME, "renamed on both sides")
    return Apply(_identity(here), _identity(there))


def _are_crossed(f: Facts, here: Entry, there: Entry) -> bool:
    """Whether each stands where the other stood; two that look alike prove nothing."""
    for same in (proved_same, looks_same) if f.retried else (proved_same,):
        if same(f.base, there) and same(f.target_base, here) and not same(here, there):
            return True
    went = is_what_went(f.sent, there) and is_what_went(f.sent_target, here)
    return went and here.file_id != there.file_id


def _found_crossed(f: Facts, here: Entry, there: Entry) -> Decision | None:
    """Done, as far as it looks; None where one of the two is another file."""
    known, digest = f.target_base, f.target_base_digest
    is_another = is_another_file(known, digest, here, f.current_digest, retried=f.retried)
    if is_another is None:
        return NeedDigest("current")
    return None if is_another else _found(f, f.base, f.base_digest, there)


_RULES: Mapping[RecordKind, Callable[[Facts], Decision]] = {
    RecordKind.CREATE: _create,
    RecordKind.LINK: _link,
    RecordKind.STORE: _store,
    RecordKind.SETATTR: _setattr,
    RecordKind.SETXATTR: _setxattr,
    RecordKind.REMOVE: _remove,
    RecordKind.RENAME: _rename,
    RecordKind.EXCHANGE: _exchange,
}

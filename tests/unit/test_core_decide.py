"""Replay decisions: a table of named cases, and what must never happen."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from awayfs.core.conflicts import ConflictKind
from awayfs.core.decide import (
    AlreadyDone,
    Apply,
    Conflict,
    Decision,
    Facts,
    NeedDigest,
    Parent,
    Refused,
    Wait,
    decide,
)
from awayfs.core.facts import INTO_ITSELF
from awayfs.core.records import Record, RecordKind
from awayfs.core.sameness import WORTH_READING
from awayfs.core.types import ABSENT, NEVER_SEEN, Attributes, Entry, Expected, Kind

K, C = RecordKind, ConflictKind


def entry(
    content: str = "base",
    *,
    kind: Kind = Kind.FILE,
    version: int = 0,
    weak: bool = False,
    file_id: bytes | None = b"1",
    **more: object,
) -> Entry:
    """An entry whose token changes with content and version, or with the size alone if weak."""
    token = b"%d" % len(content) if weak else f"{content}/{version}".encode()
    values: dict[str, object] = {
        "name": b"x",
        "kind": kind,
        "mode": 0o644,
        "uid": 1000,
        "gid": 1000,
        "size": len(content),
        "mtime_ns": 1000 + version,
        "token": token,
        "weak": weak,
        "file_id": file_id,
    }
    return Entry(**{**values, **more})  # type: ignore[arg-type]


def digest(content: str) -> bytes:
    return content.encode()


def directory(version: int = 0, **more: object) -> Entry:
    return entry("", kind=Kind.DIRECTORY, version=version, **more)  # type: ignore[arg-type]


def symlink(target: bytes, **more: object) -> Entry:
    content = target.decode()
    return entry(content, kind=Kind.SYMLINK, target=target, **more)  # type: ignore[arg-type]


def facts(kind: RecordKind, node_kind: Kind = Kind.FILE, /, **more: object) -> Facts:
    fields = {name: more.pop(name) for name in list(more) if name in RECORD_FIELDS}
    record = Record(1, kind, 7, 1, b"x", **fields)  # type: ignore[arg-type]
    return Facts(record, node_kind, **more)  # type: ignore[arg-type]


RECORD_FIELDS = {"to_parent", "to_name", "replaced", "attributes", "xattr_name", "xattr_value"}
BASE, OTHER, LONGER = entry("base"), entry("srv!", version=1), entry("longer", version=1)
TOUCHED = entry("base", version=1, mode=0o600)  # attributes changed, content not
WEAK = entry("base", weak=True)
DIR, NEW_DIR = directory(), directory(1, file_id=b"2")
STRANGER = entry("else", file_id=b"2")
SENT = entry("sent!", weak=True, file_id=None)
PLACED = replace(SENT, token=b"placed", weak=False)
UNSEEN = replace(SENT, token=NEVER_SEEN, mtime_ns=1)
KEPT = entry("base", version=2, file_id=None)  # a size and a time that may have been kept
LINKED = entry("base", nlink=2)
NO_ID, LATER = entry("base", file_id=None), entry("later on", version=3, file_id=None)
MOVED, MOVED_LATER = replace(NO_ID, token=b"moved"), replace(LATER, token=b"moved later")


def store(**more: object) -> Facts:
    values: dict[str, object] = {
        "base": BASE,
        "local_size": 5,
        "base_digest": digest("base"),
        "local_digest": digest("local"),
    }
    return facts(K.STORE, **{**values, **more})  # type: ignore[arg-type]


def rename(node_kind: Kind = Kind.FILE, /, **more: object) -> Facts:
    values: dict[str, object] = {"base": BASE, "to_parent": 1, "to_name": b"y"}
    return facts(K.RENAME, node_kind, **{**values, **more})  # type: ignore[arg-type]


def over(**more: object) -> Facts:
    """A rename over node 8, whose base is ``victim``."""
    victim = entry("vctm", file_id=b"8")
    values: dict[str, object] = {"current": BASE, "replaced": 8, "target_base": victim}
    return rename(**{**values, **more})  # type: ignore[arg-type]


VICTIM, VICTIM_EDITED = entry("vctm", file_id=b"8"), entry("edit", version=1, file_id=b"8")


def chmod(wanted: Attributes, **more: object) -> Facts:
    return facts(K.SETATTR, attributes=wanted, **{"base": BASE, **more})  # type: ignore[arg-type]


def setxattr(value: bytes | None, **more: object) -> Facts:
    values: dict[str, object] = {"base": BASE, "current": BASE}
    named = {"xattr_name": b"user.x", "xattr_value": value}
    return facts(K.SETXATTR, **{**named, **values, **more})  # type: ignore[arg-type]


def revision(of: Entry, proof: bytes | None = None) -> Expected:
    return Expected(of.token, of.file_id, of.kind, digest=proof)


def identity(of: Entry) -> Expected:
    return Expected(of.token, of.file_id, of.kind, content=False)


APPLY, DONE, NEED, WAIT, REFUSED = Apply, AlreadyDone, NeedDigest, Wait, Refused
Answer = type[Decision] | Decision | ConflictKind

CREATED = {"local_size": 4, "local_digest": digest("mine")}
CASES: dict[str, tuple[Facts, Answer]] = {
    # --- create
    "create: the name is free": (facts(K.CREATE), Apply(ABSENT)),
    "create: equal content is adopted": (
        facts(
            K.CREATE, target_current=STRANGER, local_size=4, local_digest=b"d", target_digest=b"d"
        ),
        AlreadyDone(STRANGER),
    ),
    "create: other content": (
        facts(K.CREATE, target_current=STRANGER, target_digest=b"else", **CREATED),
        C.NAME_NAME,
    ),
    "create: same size asks": (
        facts(K.CREATE, target_current=STRANGER, **CREATED),
        NeedDigest("target"),
    ),
    "create: same size, own digest unknown": (
        facts(K.CREATE, target_current=STRANGER, local_size=4),
        NeedDigest("local"),
    ),
    "create: other size needs no digest": (
        facts(K.CREATE, target_current=LONGER, **CREATED),
        C.NAME_NAME,
    ),
    "create: both empty": (facts(K.CREATE, target_current=entry(""), local_size=0), DONE),
    "create: an empty stranger is not ours": (
        facts(K.CREATE, target_current=entry(""), **CREATED),
        C.NAME_NAME,
    ),
    "create retried: the empty file is ours": (
        facts(K.CREATE, target_current=entry(""), retried=True, **CREATED),
        DONE,
    ),
    "create retried: what was staged stands there": (
        facts(K.CREATE, target_current=STRANGER, ours=STRANGER, retried=True, **CREATED),
        AlreadyDone(STRANGER),
    ),
    "create retried: a stranger still is one": (
        facts(K.CREATE, target_current=LONGER, ours=STRANGER, retried=True, **CREATED),
        C.NAME_NAME,
    ),
    "mkdir: free": (facts(K.CREATE, Kind.DIRECTORY), Apply(ABSENT)),
    "mkdir: a directory is adopted": (
        facts(K.CREATE, Kind.DIRECTORY, target_current=NEW_DIR),
        AlreadyDone(NEW_DIR),
    ),
    "mkdir: one that was renamed on both sides is there": (
        facts(K.CREATE, Kind.DIRECTORY, target_current=NEW_DIR, is_moved_one=True),
        C.NAME_NAME,
    ),
    "create: one with equal content that was renamed on both sides is there": (
        facts(
            K.CREATE,
            target_current=STRANGER,
            is_moved_one=True,
            local_size=4,
            local_digest=b"d",
            target_digest=b"d",
        ),
        C.NAME_NAME,
    ),
    "create retried: what was staged is not that one": (
        facts(
            K.CREATE,
            target_current=STRANGER,
            ours=STRANGER,
            is_moved_one=True,
            retried=True,
            **CREATED,
        ),
        AlreadyDone(STRANGER),
    ),
    "mkdir: a file is there": (facts(K.CREATE, Kind.DIRECTORY, target_current=STRANGER), C.TYPE),
    "create: a directory is there": (facts(K.CREATE, target_current=DIR, **CREATED), C.TYPE),
    "symlink: same target": (
        facts(K.CREATE, Kind.SYMLINK, target_current=symlink(b"t"), symlink_target=b"t"),
        DONE,
    ),
    "symlink: other target": (
        facts(K.CREATE, Kind.SYMLINK, target_current=symlink(b"u"), symlink_target=b"t"),
        C.NAME_NAME,
    ),
    "fifo: a fifo is adopted": (
        facts(K.CREATE, Kind.FIFO, target_current=entry("", kind=Kind.FIFO)),
        DONE,
    ),
    "fifo: a file is there": (facts(K.CREATE, Kind.FIFO, target_current=STRANGER), C.TYPE),
    "device: same numbers": (
        facts(
            K.CREATE, Kind.CHARACTER, rdev=5, target_current=entry("", kind=Kind.CHARACTER, rdev=5)
        ),
        DONE,
    ),
    "device: other numbers": (
        facts(K.CREATE, Kind.BLOCK, rdev=5, target_current=entry("", kind=Kind.BLOCK, rdev=6)),
        C.NAME_NAME,
    ),
    "create: the directory is not there yet": (facts(K.CREATE, parent=Parent.UNBORN), WAIT),
    "create: the directory was removed": (facts(K.CREATE, parent=Parent.GONE), C.UPDATE_REMOVE),
    "create: the directory was replaced": (facts(K.CREATE, parent=Parent.REPLACED), C.TYPE),
    "create: a twin by case on a server that ignores it": (
        facts(K.CREATE, target_current=entry("mine"), twin=b"X", target_digest=b"mine", **CREATED),
        C.NAME_NAME,
    ),
    "create: read-only": (facts(K.CREATE, read_only=True), REFUSED),
    "create: name too long": (facts(K.CREATE, name_max=0), REFUSED),
    "create: kind unsupported": (facts(K.CREATE, Kind.SYMLINK, unsupported=True), REFUSED),
    # --- link
    "link: free": (facts(K.LINK, base=BASE, current=BASE), Apply(identity(BASE))),
    "link: source edited there": (
        facts(K.LINK, base=BASE, current=OTHER),
        Apply(identity(OTHER)),
    ),
    "link: source removed": (facts(K.LINK, base=BASE), C.UPDATE_REMOVE),
    "link: source replaced by a directory": (
        facts(K.LINK, base=BASE, current=DIR),
        C.UPDATE_REMOVE,
    ),
    "link: already this file": (
        facts(K.LINK, base=BASE, current=LINKED, target_current=LINKED),
        DONE,
    ),
    "link: taken by a stranger": (
        facts(K.LINK, base=BASE, current=BASE, target_current=STRANGER),
        C.NAME_NAME,
    ),
    "link: taken by a directory": (
        facts(K.LINK, base=BASE, current=BASE, target_current=NEW_DIR),
        C.TYPE,
    ),
    "link retried, no ids": (
        facts(
            K.LINK,
            base=BASE,
            current=replace(LINKED, file_id=None),
            current_digest=digest("base"),
            target_current=replace(LINKED, file_id=None, weak=True),
            target_digest=digest("base"),
            retried=True,
        ),
        DONE,
    ),
    # --- store
    "store: unchanged": (store(current=BASE), Apply(revision(BASE))),
    "store: content changed there": (
        store(current=OTHER, current_digest=digest("srv!")),
        C.UPDATE_UPDATE,
    ),
    "store: size tells": (store(current=LONGER), C.UPDATE_UPDATE),
    "store: token differs, size does not": (store(current=OTHER), NeedDigest("current")),
    "store: attributes changed there": (
        store(current=TOUCHED, current_digest=digest("base")),
        Apply(revision(TOUCHED)),
    ),
    "store: same content on both sides": (
        store(current=entry("local"), current_digest=digest("local")),
        DONE,
    ),
    "store: perhaps the same content": (store(current=entry("LOCAL")), NeedDigest("current")),
    "store: perhaps the same, own digest unknown": (
        store(current=entry("LOCAL"), local_digest=None),
        NeedDigest("local"),
    ),
    "store: both emptied it": (store(current=entry(""), local_size=0), DONE),
    "store: removed there": (store(), C.UPDATE_REMOVE),
    "store: moved there": (store(moved=True), C.UPDATE_REMOVE),
    "store: a directory there": (store(current=DIR), C.TYPE),
    "store: weak token, digest known": (store(base=WEAK, current=WEAK), NeedDigest("current")),
    "store: weak token, equal digest": (
        store(base=WEAK, current=WEAK, current_digest=digest("base")),
        Apply(revision(WEAK, digest("base"))),
    ),
    "store: weak token, other digest": (
        store(base=WEAK, current=WEAK, current_digest=digest("srv!")),
        C.UPDATE_UPDATE,
    ),
    "store: weak token, never read": (
        store(base=WEAK, current=WEAK, base_digest=None),
        Apply(revision(WEAK), unproven=True),
    ),
    "store: weak, never read, another id": (
        store(base=WEAK, current=replace(WEAK, file_id=b"2"), base_digest=None),
        C.UPDATE_UPDATE,
    ),
    "store: weak but empty": (
        store(base=entry("", weak=True), current=entry("", weak=True)),
        APPLY,
    ),
    "store: token differs, never read": (
        store(current=TOUCHED, base_digest=None),
        C.UPDATE_UPDATE,
    ),
    "store: editor's save there with equal content": (
        store(current=entry("base", version=1, file_id=b"2"), current_digest=digest("base")),
        APPLY,
    ),
    "store: never there, free": (store(base=None), Apply(ABSENT)),
    "store: never there, taken": (store(base=None, current=LONGER), C.NAME_NAME),
    "store: never there, equal content": (
        store(base=None, current=entry("local"), current_digest=digest("local")),
        DONE,
    ),
    "store: never there, same size": (
        store(base=None, current=entry("LOCAL")),
        NeedDigest("current"),
    ),
    "store retried: ours": (store(current=STRANGER, ours=STRANGER, retried=True), DONE),
    "store retried: ours, and edited there since": (
        store(current=replace(STRANGER, size=9, token=b"9"), ours=STRANGER, retried=True),
        DONE,
    ),
    "store retried: without ids, a weak token asks for the digest of what was staged": (
        store(current=SENT, ours=SENT, ours_digest=digest("sent!"), retried=True),
        NeedDigest("current"),
    ),
    "store retried: ours by that digest, though edited here again since": (
        store(
            current=SENT,
            current_digest=digest("sent!"),
            ours=SENT,
            ours_digest=digest("sent!"),
            retried=True,
        ),
        AlreadyDone(SENT),
    ),
    "store retried: somebody's edit within the same second": (
        store(
            current=SENT,
            current_digest=digest("other"),
            ours=SENT,
            ours_digest=digest("sent!"),
            local_size=7,
            retried=True,
        ),
        C.UPDATE_UPDATE,
    ),
    "store retried: without ids, its place may have given it another change time": (
        store(current=PLACED, ours=SENT, ours_digest=digest("sent!"), retried=True),
        NeedDigest("current"),
    ),
    "store retried: ours by the digest under another change time": (
        store(
            current=PLACED,
            current_digest=digest("sent!"),
            ours=SENT,
            ours_digest=digest("sent!"),
            local_size=7,
            retried=True,
        ),
        AlreadyDone(PLACED),
    ),
    "store retried: somebody's edit under another change time": (
        store(
            current=PLACED,
            current_digest=digest("other"),
            ours=SENT,
            ours_digest=digest("sent!"),
            local_size=7,
            retried=True,
        ),
        C.UPDATE_UPDATE,
    ),
    "store retried: a strong token proves nothing where the base shows the same": (
        store(base=KEPT, current=KEPT, ours=KEPT, ours_digest=digest("edit"), retried=True),
        NeedDigest("current"),
    ),
    "store retried: a strong token is enough where the base shows another": (
        store(current=KEPT, ours=KEPT, ours_digest=digest("edit"), retried=True),
        AlreadyDone(KEPT),
    ),
    "store retried: what went by one call is known by its content": (
        store(current=SENT, ours=UNSEEN, ours_digest=digest("sent!"), retried=True),
        NeedDigest("current"),
    ),
    "store retried: ours by that, whatever time the server gave it": (
        store(
            current=PLACED,
            current_digest=digest("sent!"),
            ours=UNSEEN,
            ours_digest=digest("sent!"),
            local_size=7,
            retried=True,
        ),
        AlreadyDone(PLACED),
    ),
    "store retried: somebody's edit, whatever its time": (
        store(
            current=PLACED,
            current_digest=digest("other"),
            ours=UNSEEN,
            ours_digest=digest("sent!"),
            local_size=7,
            retried=True,
        ),
        C.UPDATE_UPDATE,
    ),
    "store retried: of another size than what went by one call": (
        store(
            current=entry("longer", weak=True, file_id=None),
            ours=UNSEEN,
            ours_digest=digest("sent!"),
            retried=True,
        ),
        C.UPDATE_UPDATE,
    ),
    "store retried: what went by one call was empty": (
        store(
            current=entry("", weak=True, file_id=None),
            ours=replace(UNSEEN, size=0),
            ours_digest=digest(""),
            retried=True,
        ),
        DONE,
    ),
    "store retried: by digest": (
        store(current=entry("local"), current_digest=digest("local"), retried=True),
        DONE,
    ),
    "store: content not complete": (store(current=BASE, complete=False), WAIT),
    "store: directory removed there": (store(parent=Parent.GONE), C.UPDATE_REMOVE),
    # --- setattr
    "chmod: unchanged": (
        chmod(Attributes(mode=0o600), current=BASE),
        Apply(identity(BASE), attributes=Attributes(mode=0o600)),
    ),
    "chmod: content edited there": (
        chmod(Attributes(mode=0o600), current=OTHER),
        Apply(identity(OTHER), attributes=Attributes(mode=0o600)),
    ),
    "chmod: same mode there": (chmod(Attributes(mode=0o600), current=TOUCHED), DONE),
    "chmod: other mode there": (chmod(Attributes(mode=0o640), current=TOUCHED), C.ATTRIBUTE),
    "chown: mode changed there": (
        chmod(Attributes(gid=5), current=TOUCHED),
        Apply(identity(TOUCHED), attributes=Attributes(gid=5)),
    ),
    "chown: owner changed there": (
        chmod(Attributes(uid=5), current=replace(BASE, uid=6)),
        C.ATTRIBUTE,
    ),
    "chmod: half of it is there": (
        chmod(Attributes(mode=0o600, gid=5), current=TOUCHED),
        Apply(identity(TOUCHED), attributes=Attributes(gid=5)),
    ),
    "utimes: unchanged": (
        chmod(Attributes(mtime_ns=5), current=BASE),
        Apply(revision(BASE), attributes=Attributes(mtime_ns=5)),
    ),
    "utimes: edited there, the time would lie": (
        chmod(Attributes(mtime_ns=5), current=OTHER),
        DONE,
    ),
    "utimes and chmod: edited there": (
        chmod(Attributes(mode=0o600, mtime_ns=5), current=OTHER),
        Apply(identity(OTHER), attributes=Attributes(mode=0o600)),
    ),
    "chmod: removed there": (chmod(Attributes(mode=0o600)), C.UPDATE_REMOVE),
    "chmod: a directory there": (chmod(Attributes(mode=0o600), current=DIR), C.TYPE),
    "chmod: weak token is enough": (
        chmod(Attributes(mode=0o600), base=WEAK, current=WEAK),
        APPLY,
    ),
    "utimes of a directory: children came there": (
        facts(
            K.SETATTR,
            Kind.DIRECTORY,
            attributes=Attributes(mtime_ns=5),
            base=DIR,
            current=directory(1),
        ),
        APPLY,
    ),
    # --- setxattr
    "xattr: theirs unknown": (setxattr(b"1"), Apply(identity(BASE))),
    "xattr: same there": (setxattr(b"1", current_xattrs={b"user.x": b"1"}), DONE),
    "xattr: removed on both sides": (setxattr(None, current_xattrs={}), DONE),
    "xattr: unchanged there": (
        setxattr(b"1", base_xattrs={b"user.x": b"0"}, current_xattrs={b"user.x": b"0"}),
        APPLY,
    ),
    "xattr: another changed there": (
        setxattr(b"1", base_xattrs={}, current_xattrs={b"user.y": b"0"}),
        APPLY,
    ),
    "xattr: changed on both sides": (
        setxattr(b"1", base_xattrs={}, current_xattrs={b"user.x": b"2"}),
        C.ATTRIBUTE,
    ),
    "xattr: removed there": (setxattr(b"1", current=None), C.UPDATE_REMOVE),
    # --- remove
    "remove: unchanged": (facts(K.REMOVE, base=BASE, current=BASE), Apply(revision(BASE))),
    "remove: both removed": (facts(K.REMOVE, base=BASE), AlreadyDone(None)),
    "remove retried: absent": (facts(K.REMOVE, base=BASE, retried=True), AlreadyDone(None)),
    "remove: changed there": (facts(K.REMOVE, base=BASE, current=LONGER), C.REMOVE_UPDATE),
    "remove: perhaps changed": (
        facts(K.REMOVE, base=BASE, current=OTHER, base_digest=digest("base")),
        NeedDigest("current"),
    ),
    "remove: only attributes changed there": (
        facts(
            K.REMOVE,
            base=BASE,
            current=TOUCHED,
            base_digest=digest("base"),
            current_digest=digest("base"),
        ),
        Apply(revision(TOUCHED)),
    ),
    "remove: changed, never read here": (
        facts(K.REMOVE, base=BASE, current=OTHER),
        C.REMOVE_UPDATE,
    ),
    "remove: weak, never read": (
        facts(K.REMOVE, base=WEAK, current=WEAK),
        Apply(revision(WEAK), unproven=True),
    ),
    "remove: one of several names, changed": (
        facts(K.REMOVE, base=BASE, current=replace(OTHER, nlink=2), other_names=True),
        APPLY,
    ),
    "remove: changed, its other name is outside of the share": (
        facts(
            K.REMOVE,
            base=BASE,
            base_digest=digest("base"),
            current=replace(OTHER, nlink=2),
            current_digest=digest("srv!"),
        ),
        C.REMOVE_UPDATE,
    ),
    "remove: linked elsewhere, no more": (
        facts(
            K.REMOVE,
            base=BASE,
            base_digest=digest("base"),
            current=replace(OTHER, nlink=2),
            current_digest=digest("base"),
        ),
        APPLY,
    ),
    "remove: a directory there": (facts(K.REMOVE, base=BASE, current=DIR), AlreadyDone(None)),
    "remove: never there": (facts(K.REMOVE), AlreadyDone(None)),
    "remove: never there, a stranger stays": (
        facts(K.REMOVE, current=STRANGER),
        AlreadyDone(None),
    ),
    "remove: what an earlier attempt left": (
        facts(K.REMOVE, current=STRANGER, ours=STRANGER),
        Apply(revision(STRANGER)),
    ),
    "rmdir: empty": (facts(K.REMOVE, Kind.DIRECTORY, base=DIR, current=DIR), Apply(identity(DIR))),
    "rmdir: unknown children": (
        facts(K.REMOVE, Kind.DIRECTORY, base=DIR, current=directory(1), unknown_children=1),
        C.REMOVE_UPDATE,
    ),
    "rmdir: a file there": (
        facts(K.REMOVE, Kind.DIRECTORY, base=DIR, current=STRANGER),
        AlreadyDone(None),
    ),
    "remove a symlink: unchanged": (
        facts(K.REMOVE, Kind.SYMLINK, base=symlink(b"t"), current=symlink(b"t")),
        APPLY,
    ),
    "remove a symlink: retargeted there": (
        facts(K.REMOVE, Kind.SYMLINK, base=symlink(b"t"), current=symlink(b"u")),
        C.REMOVE_UPDATE,
    ),
    "remove: the directory is gone too": (
        facts(K.REMOVE, base=BASE, parent=Parent.GONE),
        AlreadyDone(None),
    ),
    # --- rename
    "rename: free": (rename(current=BASE), Apply(identity(BASE), ABSENT)),
    "rename: edited there": (rename(current=OTHER), Apply(identity(OTHER), ABSENT)),
    "rename: saved by an editor there": (rename(current=STRANGER), APPLY),
    "rename: removed there": (rename(), C.UPDATE_REMOVE),
    "rename: renamed there": (rename(moved=True), C.RENAME_RENAME),
    "rename: renamed there, name taken again": (
        rename(current=STRANGER, moved=True),
        C.RENAME_RENAME,
    ),
    "rename: renamed there, its name taken by a directory": (
        rename(current=NEW_DIR, moved=True),
        C.RENAME_RENAME,
    ),
    "rename: a directory there": (rename(current=NEW_DIR), C.UPDATE_REMOVE),
    "rename: another directory there": (
        rename(Kind.DIRECTORY, base=DIR, current=NEW_DIR),
        C.UPDATE_REMOVE,
    ),
    "rename of a directory: free": (rename(Kind.DIRECTORY, base=DIR, current=directory(1)), APPLY),
    "rename: same rename there": (rename(target_current=BASE), AlreadyDone(BASE)),
    "rename retried: done, id tells": (
        rename(target_current=LONGER, retried=True),
        AlreadyDone(LONGER),
    ),
    "rename retried: done, then the old name taken": (
        rename(current=STRANGER, target_current=BASE, retried=True),
        AlreadyDone(BASE),
    ),
    "rename retried: done, no ids": (
        rename(base=replace(WEAK, file_id=None), target_current=WEAK, retried=True),
        AlreadyDone(WEAK),
    ),
    "rename retried: done, no ids, then the old name taken": (
        rename(base=NO_ID, went=NO_ID, current=LATER, target_current=MOVED, retried=True),
        AlreadyDone(MOVED),
    ),
    "rename retried: edited there before it was done, no ids": (
        rename(base=NO_ID, went=LATER, target_current=MOVED_LATER, retried=True),
        AlreadyDone(MOVED_LATER),
    ),
    "rename retried: not done, edited there since, and a stranger at the target, no ids": (
        rename(base=NO_ID, went=NO_ID, current=LATER, target_current=MOVED_LATER, retried=True),
        C.NAME_NAME,
    ),
    "rename retried: not done, and a copy of it at the target, no ids": (
        rename(base=NO_ID, went=NO_ID, current=NO_ID, target_current=MOVED, retried=True),
        C.NAME_NAME,
    ),
    "rename retried: gone, and a stranger at the target": (
        rename(target_current=entry("longer", file_id=b"2"), retried=True),
        C.UPDATE_REMOVE,
    ),
    "rename retried: what was saved over there just before went along": (
        rename(target_current=STRANGER, sent=identity(STRANGER), retried=True),
        AlreadyDone(STRANGER),
    ),
    "rename retried: not done yet": (rename(current=BASE, retried=True), APPLY),
    "rename: taken by a stranger": (rename(current=BASE, target_current=STRANGER), C.NAME_NAME),
    "rename: by case alone, on a server that ignores case": (
        replace(
            rename(current=BASE, target_current=BASE),
            record=Record(1, K.RENAME, 7, 1, b"x", 1, b"X"),
        ),
        Apply(identity(BASE), identity(BASE)),
    ),
    "rename over: unchanged": (
        over(target_current=VICTIM),
        Apply(identity(BASE), revision(VICTIM)),
    ),
    "rename over: the displaced one was removed there": (over(), Apply(identity(BASE), ABSENT)),
    "rename over: the displaced one was edited": (
        over(target_current=replace(VICTIM_EDITED, size=9)),
        C.UPDATE_UPDATE,
    ),
    "rename over: perhaps edited": (
        over(target_current=VICTIM_EDITED, target_base_digest=digest("vctm")),
        NeedDigest("target"),
    ),
    "rename over: only attributes changed": (
        over(
            target_current=VICTIM_EDITED,
            target_base_digest=digest("vctm"),
            target_digest=digest("vctm"),
        ),
        APPLY,
    ),
    "rename over: same edit on both sides": (
        over(target_current=VICTIM_EDITED, target_digest=b"d", local_digest=b"d"),
        APPLY,
    ),
    "rename over: a directory stands there": (over(target_current=NEW_DIR), C.TYPE),
    "rename over: a stranger where ours never was": (
        over(target_base=None, target_current=STRANGER),
        C.NAME_NAME,
    ),
    "rename over a directory: empty": (
        rename(
            Kind.DIRECTORY,
            base=DIR,
            current=DIR,
            replaced=8,
            target_base=NEW_DIR,
            target_current=NEW_DIR,
        ),
        APPLY,
    ),
    "rename over a directory: filled there": (
        rename(
            Kind.DIRECTORY,
            base=DIR,
            current=DIR,
            replaced=8,
            target_base=NEW_DIR,
            target_current=NEW_DIR,
            unknown_children=1,
        ),
        C.REMOVE_UPDATE,
    ),
    "rename: into what is inside of it there": (
        rename(Kind.DIRECTORY, base=DIR, current=DIR, inside=True),
        Refused(errno.EINVAL, INTO_ITSELF),
    ),
    "rename: renamed there, what it was to go into seen inside of it before": (
        rename(Kind.DIRECTORY, base=DIR, moved=True, inside=True),
        C.RENAME_RENAME,
    ),
    "rename: name too long": (rename(current=BASE, name_max=0), REFUSED),
    "rename: new directory removed there": (
        rename(current=BASE, parent=Parent.GONE),
        C.UPDATE_REMOVE,
    ),
    # --- exchange
    "exchange: both there": (
        facts(K.EXCHANGE, base=BASE, current=BASE, target_base=VICTIM, target_current=VICTIM),
        Apply(identity(BASE), identity(VICTIM)),
    ),
    "exchange: already crossed": (
        facts(K.EXCHANGE, base=BASE, current=VICTIM, target_base=VICTIM, target_current=BASE),
        AlreadyDone(BASE),
    ),
    "exchange: two that look alike": (
        facts(K.EXCHANGE, base=BASE, current=BASE, target_base=BASE, target_current=BASE),
        Apply(identity(BASE), identity(BASE)),
    ),
    "exchange retried: what was saved over there just before went along": (
        facts(
            K.EXCHANGE,
            base=BASE,
            current=VICTIM,
            target_base=VICTIM,
            target_current=STRANGER,
            sent=identity(STRANGER),
            sent_target=identity(VICTIM),
            retried=True,
        ),
        AlreadyDone(STRANGER),
    ),
    "exchange retried: not done yet": (
        facts(
            K.EXCHANGE,
            base=BASE,
            current=STRANGER,
            target_base=VICTIM,
            target_current=VICTIM,
            sent=identity(STRANGER),
            sent_target=identity(VICTIM),
            retried=True,
        ),
        Apply(identity(STRANGER), identity(VICTIM)),
    ),
    "exchange: both taken, on record": (
        facts(K.EXCHANGE, base=BASE, current=VICTIM, target_current=BASE, crossed=True),
        AlreadyDone(BASE),
    ),
    "exchange: both taken, one removed there since": (
        facts(K.EXCHANGE, base=BASE, current=VICTIM, target_base=VICTIM, crossed=True),
        AlreadyDone(None),
    ),
    "exchange: one removed there": (
        facts(K.EXCHANGE, base=BASE, current=BASE, target_base=VICTIM),
        C.UPDATE_REMOVE,
    ),
    "exchange: one is a directory now": (
        facts(K.EXCHANGE, base=BASE, current=NEW_DIR, target_base=VICTIM, target_current=VICTIM),
        C.TYPE,
    ),
    "exchange: the other is a directory now": (
        facts(K.EXCHANGE, base=BASE, current=BASE, target_base=VICTIM, target_current=NEW_DIR),
        C.TYPE,
    ),
}


TWIN_CASES: dict[str, tuple[Facts, Answer]] = {
    "link: ask of the file": (
        facts(K.LINK, base=NO_ID, current=NO_ID, target_current=NO_ID),
        NeedDigest("current"),
    ),
    "link: ask of what has the name": (
        facts(
            K.LINK,
            base=NO_ID,
            current=NO_ID,
            current_digest=digest("base"),
            target_current=NO_ID,
        ),
        NeedDigest("target"),
    ),
    "link: the same content": (
        facts(
            K.LINK,
            base=NO_ID,
            current=NO_ID,
            current_digest=digest("base"),
            target_current=NO_ID,
            target_digest=digest("base"),
        ),
        AlreadyDone(NO_ID),
    ),
    "link: another one": (
        facts(
            K.LINK,
            base=NO_ID,
            current=NO_ID,
            current_digest=digest("base"),
            target_current=NO_ID,
            target_digest=digest("twin"),
        ),
        C.NAME_NAME,
    ),
    "link: the file is gone, and what has the name is another one": (
        facts(
            K.LINK,
            base=NO_ID,
            base_digest=digest("base"),
            target_current=NO_ID,
            target_digest=digest("twin"),
        ),
        C.NAME_NAME,
    ),
    "rename: ask of what has the name": (
        rename(base=NO_ID, base_digest=digest("base"), target_current=NO_ID),
        NeedDigest("target"),
    ),
    "rename: the content is not known here": (
        rename(base=NO_ID, target_current=NO_ID),
        AlreadyDone(NO_ID),
    ),
    "rename: done": (
        rename(
            base=NO_ID,
            base_digest=digest("base"),
            target_current=NO_ID,
            target_digest=digest("base"),
        ),
        AlreadyDone(NO_ID),
    ),
    "rename: removed there, and another one made": (
        rename(
            base=NO_ID,
            base_digest=digest("base"),
            target_current=NO_ID,
            target_digest=digest("twin"),
            retried=True,
        ),
        C.UPDATE_REMOVE,
    ),
    "rename: a try of ours, of a large file": (
        rename(
            base=replace(NO_ID, size=WORTH_READING + 1),
            base_digest=digest("base"),
            target_current=replace(NO_ID, size=WORTH_READING + 1),
            retried=True,
        ),
        DONE,
    ),
    "link: a try of ours, of a large file": (
        facts(
            K.LINK,
            base=NO_ID,
            current=replace(NO_ID, size=WORTH_READING + 1),
            target_current=replace(NO_ID, size=WORTH_READING + 1),
            retried=True,
        ),
        DONE,
    ),
    "rename by case alone: ask of the file": (
        rename(to_name=b"X", base=NO_ID, current=NO_ID, target_current=NO_ID),
        NeedDigest("current"),
    ),
    "rename by case alone: ask of what has the name": (
        rename(
            to_name=b"X",
            base=NO_ID,
            current=NO_ID,
            current_digest=digest("base"),
            target_current=NO_ID,
        ),
        NeedDigest("target"),
    ),
    "rename by case alone: one file": (
        rename(
            to_name=b"X",
            base=NO_ID,
            current=NO_ID,
            current_digest=digest("base"),
            target_current=NO_ID,
            target_digest=digest("base"),
        ),
        Apply(identity(NO_ID), identity(NO_ID)),
    ),
    "rename by case alone: another file": (
        rename(
            to_name=b"X",
            base=NO_ID,
            current=NO_ID,
            current_digest=digest("base"),
            target_current=NO_ID,
            target_digest=digest("twin"),
        ),
        C.NAME_NAME,
    ),
    "exchange: ask of the other one": (
        facts(
            K.EXCHANGE,
            base=NO_ID,
            target_base=KEPT,
            target_base_digest=digest("kept"),
            current=KEPT,
            target_current=NO_ID,
        ),
        NeedDigest("current"),
    ),
    "exchange: ask of the one": (
        facts(
            K.EXCHANGE,
            base=NO_ID,
            base_digest=digest("base"),
            target_base=KEPT,
            current=KEPT,
            target_current=NO_ID,
        ),
        NeedDigest("target"),
    ),
    "exchange: done": (
        facts(
            K.EXCHANGE,
            base=NO_ID,
            base_digest=digest("base"),
            target_base=KEPT,
            current=KEPT,
            target_current=NO_ID,
            target_digest=digest("base"),
        ),
        AlreadyDone(NO_ID),
    ),
    "exchange: others look crossed": (
        facts(
            K.EXCHANGE,
            base=NO_ID,
            base_digest=digest("base"),
            target_base=KEPT,
            target_base_digest=digest("kept"),
            current=KEPT,
            current_digest=digest("twin"),
            target_current=NO_ID,
        ),
        Apply(identity(KEPT), identity(NO_ID)),
    ),
}
"""Without ids: files with one size and one time, of which only the content tells them apart."""
CASES |= {f"twins, {name}": case for name, case in TWIN_CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_named_case(name: str) -> None:
    given_facts, expected = CASES[name]
    decision = decide(given_facts)
    if isinstance(expected, ConflictKind):
        assert isinstance(decision, Conflict)
        assert decision.kind is expected
    elif isinstance(expected, type):
        assert isinstance(decision, expected)
    else:
        assert decision == expected


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 80


def test_a_conflict_about_the_displaced_node_says_so() -> None:
    decision = decide(over(target_current=replace(VICTIM_EDITED, size=9)))
    assert isinstance(decision, Conflict) and decision.on_target


def test_refusals_say_why() -> None:
    assert decide(facts(K.CREATE, read_only=True)) == Refused(
        errno.EROFS, "the server's volume is read-only"
    )


# --- What must never happen -------------------------------------------------------------------

CONTENTS = ("", "base", "edit", "longer")


@dataclass
class World:
    """What the server really holds, of which facts show a part."""

    facts: Facts
    contents: dict[str, str | None]

    def decide(self) -> Decision:
        """Ask, computing digests on demand."""
        while True:
            decision = decide(self.facts)
            if not isinstance(decision, NeedDigest):
                return decision
            field = f"{decision.which}_digest"
            assert getattr(self.facts, field) is None, "asked twice"
            content = self.contents[decision.which]
            assert content is not None, "asked for the digest of nothing"
            self.facts = replace(self.facts, **{field: digest(content)})


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A file of which base, local and server content are known to the test."""
    weak = draw(st.booleans())
    base, local = draw(st.sampled_from(CONTENTS)), draw(st.sampled_from(CONTENTS))
    present = draw(st.booleans()) or draw(st.booleans())
    current = draw(st.sampled_from(CONTENTS)) if present else None
    target = draw(st.sampled_from((None, *CONTENTS)))
    victim = draw(st.sampled_from(CONTENTS))
    ids = draw(st.booleans())

    def at(content: str | None, number: bytes) -> Entry | None:
        if content is None:
            return None
        version = draw(st.integers(0, 1))
        file_id = draw(st.sampled_from([number, b"new"])) if ids else None
        return entry(content, version=version, weak=weak, file_id=file_id)

    base_entry = entry(base, weak=weak, file_id=b"1" if ids else None)
    victim_entry = entry(victim, weak=weak, file_id=b"8" if ids else None)
    kind = draw(st.sampled_from([K.STORE, K.REMOVE, K.RENAME]))
    replaced = draw(st.sampled_from([0, 8]))
    known = draw(st.booleans())
    record = Record(1, kind, 7, 1, b"x", 1, b"y", replaced if kind is K.RENAME else 0)
    world_facts = Facts(
        record,
        Kind.FILE,
        base=base_entry,
        current=at(current, b"1"),
        target_base=victim_entry if replaced else None,
        target_current=at(target, b"8"),
        local_size=len(local),
        base_digest=digest(base) if known else None,
        local_digest=digest(local) if draw(st.booleans()) else None,
        target_base_digest=digest(victim) if known else None,
        retried=draw(st.booleans()),
    )
    contents = {"base": base, "local": local, "current": current, "target": target}
    return World(world_facts, {**contents, "victim": victim})


@settings(max_examples=2000, deadline=None)
@given(worlds())
def test_nothing_of_the_servers_is_overwritten_blind(world: World) -> None:
    """What is displaced is the base, or equals what replaces it, or is kept as unproven."""
    decision = world.decide()
    if not isinstance(decision, Apply) or decision.unproven:
        return
    kind, contents = world.facts.record.kind, world.contents
    if kind is K.RENAME:
        if contents["target"] is not None:
            assert contents["target"] in (contents["victim"], contents["local"])
            assert world.facts.target_current is not None
            assert decision.target.token == world.facts.target_current.token
        else:
            assert decision.target == ABSENT
    else:
        assert contents["current"] == contents["base"]
        assert world.facts.current is not None
        current = world.facts.current
        proof = world.facts.current_digest if current.weak else None
        assert decision.expected == revision(current, proof)


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_what_a_try_of_ours_put_aside_and_back_is_not_changed(retried: bool, known: bool) -> None:
    """It has another change time, and so another token. A digest tells, where one is known."""
    back = replace(BASE, token=b"another")
    more = {"retried": retried, "base_digest": digest("base") if known else None}
    removed = decide(facts(K.REMOVE, base=BASE, current=back, **more))
    stored = decide(store(current=back, **more))
    over_it = decide(
        over(
            target_base=BASE,
            target_current=back,
            retried=retried,
            target_base_digest=more["base_digest"],
        )
    )
    for decision in (removed, stored, over_it):
        if known:
            assert isinstance(decision, NeedDigest)
        elif retried:
            assert isinstance(decision, Apply) and decision.unproven
        else:
            assert isinstance(decision, Conflict)


@pytest.mark.parametrize("file_id", [None, b"1"])
def test_a_name_more_or_less_is_no_other_content_without_ids(file_id: bytes | None) -> None:
    """The two names are two files here, so that a change of ours to one tells nothing of this."""
    base = entry("base", file_id=file_id, nlink=2)
    seen = replace(base, token=b"another", nlink=1)
    removed = decide(facts(K.REMOVE, base=base, current=seen))
    stored = decide(store(base=base, current=seen, base_digest=None))
    for decision in (removed, stored):
        if file_id is None:
            assert isinstance(decision, Apply) and decision.unproven
        else:
            assert isinstance(decision, Conflict)
    edited = replace(seen, mtime_ns=seen.mtime_ns + 1)
    assert isinstance(decide(facts(K.REMOVE, base=base, current=edited)), Conflict)


@settings(max_examples=2000, deadline=None)
@given(worlds())
def test_unproven_only_where_nothing_is_known(world: World) -> None:
    decision = world.decide()
    if isinstance(decision, Apply) and decision.unproven:
        seen = world.facts.current
        known = world.facts.base_digest
        if world.facts.record.kind is K.RENAME:
            seen, known = world.facts.target_current, world.facts.target_base_digest
        assert seen is not None and known is None
        assert seen.weak or world.facts.retried  # it may have been put aside and back by ourselves


@settings(max_examples=1000, deadline=None)
@given(worlds(), st.integers(0, 3))
def test_a_lost_answer_is_no_conflict_with_oneself(world: World, version: int) -> None:
    """The server is exactly as the record would leave it."""
    f, contents = replace(world.facts, retried=True), world.contents
    local = contents["local"]
    assert local is not None and f.base is not None
    if f.record.kind is K.REMOVE:
        f = replace(f, current=None)
    elif f.record.kind is K.STORE:
        result = entry(local, version=version, weak=f.base.weak, file_id=b"staged")
        f = replace(f, current=result)
        contents = {**contents, "current": local}
    else:
        f = replace(f, current=None, target_current=f.base)
        contents = {**contents, "current": None, "target": contents["base"]}
    decision = World(f, contents).decide()
    same_as_base = f.record.kind is K.STORE and local == contents["base"]
    assert isinstance(decision, AlreadyDone) or (same_as_base and isinstance(decision, Apply))

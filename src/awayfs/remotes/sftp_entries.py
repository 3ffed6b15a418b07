"""Paths, attributes and version tokens as SFTP v3 shows them; nothing here does I/O."""

from __future__ import annotations

import hashlib
import stat as st

from awayfs.core.types import Entry, Expected, Kind, RemotePath
from awayfs.remotes.sftp_packets import Attributes

SECOND = 1_000_000_000
LATEST = 0xFFFF_FFFF
"""Times of v3 are unsigned 32-bit seconds."""

LETTER = {
    Kind.FILE: b"f",
    Kind.DIRECTORY: b"d",
    Kind.SYMLINK: b"l",
    Kind.FIFO: b"p",
    Kind.SOCKET: b"s",
    Kind.CHARACTER: b"c",
    Kind.BLOCK: b"b",
}


KINDS = {int(kind): kind for kind in Kind}


def parent(path: RemotePath) -> RemotePath:
    """The directory of a path; of the root, the root."""
    return path.rpartition(b"/")[0]


def basename(path: RemotePath) -> bytes:
    """The last component of a path; of the root, ``b""``."""
    return path.rpartition(b"/")[2]


def join(directory: RemotePath, name: bytes) -> RemotePath:
    """The path of ``name`` in ``directory``."""
    return directory + b"/" + name if directory else name


def kind_of(attrs: Attributes) -> Kind | None:
    """The kind, or None where the server sends no permissions or a type we do not know."""
    return KINDS.get(st.S_IFMT(attrs.permissions or 0))


def token_of(kind: Kind, size: int, mtime: int, target: bytes | None) -> bytes:
    """The version token: kind, size and whole mtime seconds; of a symlink, its target.

    Mode and owner are not in it: they change without content, and are compared as what they
    are. A symlink's content is its target, so its token is strong whatever the clock says.
    """
    if kind is Kind.SYMLINK and target is not None:
        return b"l:" + hashlib.blake2b(target, digest_size=16).hexdigest().encode()
    return b"%s:%d:%d" % (LETTER[kind], size, mtime)


def kind_in(token: bytes) -> Kind | None:
    """The kind a token was made of."""
    return next((kind for kind, letter in LETTER.items() if token[:1] == letter), None)


def entry_of(name: bytes, attrs: Attributes, *, target: bytes | None = None, weak: bool) -> Entry:
    """An entry; the caller has made sure that ``kind_of`` is not None.

    There is no inode, no ctime, no nlink and no device number in v3 (the human-readable
    ``longname`` has a link count, but the draft forbids reading it).
    """
    kind = kind_of(attrs)
    assert kind is not None, "attributes without a type"
    size = attrs.size or 0
    mtime = attrs.mtime or 0
    return Entry(
        name=name,
        kind=kind,
        mode=st.S_IMODE(attrs.permissions or 0),
        uid=attrs.uid or 0,
        gid=attrs.gid or 0,
        size=size,
        mtime_ns=mtime * SECOND,
        token=token_of(kind, size, mtime, target),
        weak=weak and not (kind is Kind.SYMLINK and target is not None),
        target=target,
    )


def matches(entry: Entry | None, expected: Expected) -> bool:
    """Whether what stands there is what was expected; weak tokens are the caller's to prove."""
    if entry is None or expected.token is None:
        return entry is None and expected.token is None
    wanted = expected.kind if expected.kind is not None else kind_in(expected.token)
    if wanted is not None and entry.kind is not wanted:
        return False
    if expected.rights is not None and (entry.mode, entry.uid, entry.gid) != expected.rights:
        return False
    return entry.token == expected.token if expected.content else True


def seconds(time_ns: int) -> int:
    """Whole seconds for the wire: rounded down, held within what v3 can say."""
    return min(max(time_ns // SECOND, 0), LATEST)

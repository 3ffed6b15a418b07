"""The values that all layers share. Names are ``bytes``, times are integer nanoseconds."""

from __future__ import annotations

import enum
import stat
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from msgspec import Struct

NodeId = int
"""A node's local id, allotted once, never reused; it is the node's ``st_ino``."""

ROOT: NodeId = 1

RemotePath = bytes
"""A path on the server relative to the volume's root: ``b"a/b"``; the root is ``b""``."""

OpId = str
"""Identity of one replayed operation: 1 to 32 characters of ``[0-9a-z]``."""


class Kind(enum.IntEnum):
    """What a node is; the values are those of ``S_IFMT``, so ``kind | mode`` is ``st_mode``."""

    FILE = stat.S_IFREG
    DIRECTORY = stat.S_IFDIR
    SYMLINK = stat.S_IFLNK
    FIFO = stat.S_IFIFO
    SOCKET = stat.S_IFSOCK
    CHARACTER = stat.S_IFCHR
    BLOCK = stat.S_IFBLK


class Entry(Struct, frozen=True, eq=False):
    """One object as a server shows it at one moment.

    ``token`` is the version token: opaque, equal as long as the server shows no sign of a
    change of content, attributes included where the protocol cannot tell them apart (a
    ``dir:`` token has the change time in it, so ``chmod`` changes it). ``weak`` says that a
    later edit could bear the same token (same second, same size over SFTP v3), so that equal
    weak tokens do not prove equal content. ``file_id`` is an identity that survives renames
    and is never reused (inode plus birth time, file handle), or None where there is none.
    ``access`` is what the account may do with it as the server answered, in the bits of
    ``core.permissions``; None where it was not asked.
    """

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    token: bytes
    weak: bool = False
    file_id: bytes | None = None
    nlink: int = 1
    rdev: int = 0
    target: bytes | None = None
    ctime_ns: int | None = None
    btime_ns: int | None = None
    access: int | None = None

    def __eq__(self, other: object) -> bool:
        """All but ``access``: two looks at one object may have asked for it or not."""
        return isinstance(other, Entry) and _but_access(self) == _but_access(other)

    def __hash__(self) -> int:
        return hash(_but_access(self))


_but_access = attrgetter(*(name for name in Entry.__struct_fields__ if name != "access"))


NEVER_SEEN: Final = b""
"""The token of an entry that nobody has seen on the server: what is to stand there."""


class Attributes(Struct, frozen=True):
    """Attributes to set; None leaves one as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None

    def __bool__(self) -> bool:
        return self != Attributes()


class Expected(Struct, frozen=True):
    """A precondition on one path of the server.

    ``token`` None means that nothing must be there. Otherwise what is there must be the
    revision with this token; ``file_id``, where both sides have one, must agree too.
    ``content`` False relaxes the check to identity: same kind, and same ``file_id`` where
    there is one (for renames and attribute changes, which do not touch content).
    ``rights``, where given, are the mode, uid and gid that must be there too; an adapter compares
    them if its capabilities say so (``acts_unseen``). ``digest`` is the BLAKE2b-256 of its content,
    where that was taken since the token alone proves nothing: for who tidies up later.
    """

    token: bytes | None
    file_id: bytes | None = None
    kind: Kind | None = None
    content: bool = True
    rights: tuple[int, int, int] | None = None
    digest: bytes | None = None


ABSENT = Expected(token=None)


class Committed(Struct, frozen=True):
    """The change is on the server; ``entry`` is what stands there now (None when removed)."""

    entry: Entry | None


class Mismatch(Struct, frozen=True):
    """The precondition failed and the server is as it was; ``current`` is what stands there."""

    current: Entry | None


Outcome = Committed | Mismatch


class Digest(Struct, frozen=True):
    """BLAKE2b-256 of a whole file, with the entry it was read under."""

    entry: Entry
    blake2b: bytes


@dataclass(frozen=True, slots=True)
class Space:
    """What ``statfs`` tells, in bytes and files."""

    block_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    name_max: int = 255


class Range(Struct, frozen=True):
    """Bytes ``start`` up to, not including, ``end``."""

    start: int
    end: int

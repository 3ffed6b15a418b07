"""What awayfs asks of a server, whatever the protocol.

Every call has a deadline of its own inside the adapter or its wrapper and ends in one of:
a value; ``NotFound``; ``Refused(errno)``; ``AuthenticationRequired``; ``WrongServer``;
``Implausible``; ``Unreachable``. After ``Unreachable`` a mutation may have been executed:
the caller keeps its intent and calls ``settle`` before it decides anew.

Guarded mutations (``replace``, ``rename``, ``remove``, ``make``, ``link``) never destroy a
revision other than the expected one: they either commit or answer ``Mismatch`` with the
server as it was. Names that an operation needs on the way are derived from its ``OpId``:
``.awayfs-<op>.new`` for what is staged, ``.awayfs-<op>.old`` for what was moved aside, in
the directory of the target. ``list`` never shows such names, but for those of the client
that the adapter was opened for (option ``client``), which may have to be reaped.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from awayfs.core.types import (
    Attributes,
    Digest,
    Entry,
    Expected,
    Kind,
    OpId,
    Outcome,
    RemotePath,
    Space,
)

STAGED_PREFIX = b".awayfs-"
STAGED_SUFFIX = b".new"
ASIDE_SUFFIX = b".old"


class Guard(enum.StrEnum):
    """How a replace is guarded against a concurrent writer (REMOTES table)."""

    ATOMIC = "atomic"
    LOCKED = "locked"
    COMPOUND = "compound"
    SWAP = "swap"
    ASIDE = "aside"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this server can do, probed at connect time; decisions read it as data."""

    guard: Guard
    stable_ids: bool  # Entry.file_id is set
    strong_tokens: bool  # tokens are never weak
    time_granularity_ns: int
    symlinks: bool
    hard_links: bool
    special_files: bool
    mode: bool
    owner: bool  # uid and gid can be set
    set_mtime: bool
    xattrs: bool
    exchange: bool  # in one step
    case_sensitive: bool
    read_only: bool
    name_max: int
    largest_io: int
    in_flight: int  # requests worth having on the way at once
    sending: int = 0  # steps of our changes beside those; 0: they count among the others
    put: int = 0  # bytes of content that go by ``put`` at most; 0: all by ``stage``
    acts_unseen: bool = False  # what is expected is all compared, ``Expected.rights`` included


@dataclass(frozen=True, slots=True)
class Connected:
    """What ``connect`` found: capabilities, the root, and who the server is.

    ``identity`` names the volume where the protocol tells it (root handle, host key
    fingerprint); None where it does not. ``own_uid``/``own_gid`` are the account's ids on
    the server, None when unknown. ``addresses`` are this end's and the server's in the network;
    None where they are not known, or something stands between. ``account`` is whom the server
    takes us for, ``user@host``; empty where the protocol has no accounts. ``seen`` is what stands
    at those of the ``witnesses`` where something does; None where nobody looked.
    """

    capabilities: Capabilities
    root: Entry
    identity: bytes | None = None
    own_uid: int | None = None
    own_gid: int | None = None
    addresses: tuple[str, str] | None = None
    account: str = ""
    seen: Mapping[RemotePath, Entry] | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """``length`` bytes were written at their offset; ``entry`` is the file after the read.

    ``length`` is short only at the end of the file. The content belongs to the caller's
    revision only if ``entry.token`` is the token it expected.
    """

    length: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete listing, or the word that it is as it was.

    ``fingerprint`` is opaque, and equal only for listings of which every field of every entry
    is equal. ``if_strong`` is the one that it would have if no token were weak: a listing
    answers to both, since a token that was strong proves the same content whatever it is now.
    ``entries`` is None where ``fingerprint`` is the one that was asked about.
    """

    fingerprint: bytes
    if_strong: bytes
    entries: list[Entry] | None


class Piece(Struct, frozen=True):
    """A small file that is wanted whole: its first ``length`` bytes.

    They go to ``offset`` of the landing file.
    """

    path: RemotePath
    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class Landed:
    """What came of a ``Piece``: so many bytes, and the token that the file has after the read.

    As with ``Fetched``, ``length`` is short only at the end of the file, and the content belongs
    to the caller's revision only if the token is the expected one.
    """

    length: int
    token: bytes


class Put(Struct, frozen=True, array_like=True):
    """The arguments of one ``Remote.put``."""

    op: OpId
    path: RemotePath
    content: bytes
    attributes: Attributes
    expected: Expected


class Sent(Struct, frozen=True):
    """How far the upload of a content came: its first ``length`` bytes are durable on the server.

    ``digest`` is the BLAKE2b-256 of that whole content, as it is here. ``token`` is the staged
    file's at that moment.
    """

    length: int
    digest: bytes
    token: bytes


class Crossing(enum.StrEnum):
    """Where what an exchange took aside goes, where that is more than one step."""

    NO = ""
    BACK = "back"  # to the names that it was taken from
    OVER = "over"  # to each other's


class Intent(Struct, frozen=True):
    """What a mutation that may have been cut off wanted to do; enough to tidy up after it.

    ``staged`` is what ``stage`` answered; ``staged_digest`` is the BLAKE2b-256 of its content,
    noted where the entry has no ``file_id`` by which it could be known again. ``sent`` is how far
    an upload came that is not complete, so that nothing is staged yet. ``crossing`` is that of an
    exchange of ``other_path`` (its ``a``) with ``path`` (its ``b``), where there is no
    ``capabilities.exchange``. ``moving`` is what stood at ``other_path`` when it was to be renamed.
    """

    op: OpId
    path: RemotePath
    expected: Expected
    other_path: RemotePath | None = None
    other_expected: Expected | None = None
    staged: Entry | None = None
    staged_digest: bytes | None = None
    sent: Sent | None = None
    crossing: Crossing = Crossing.NO
    moving: Entry | None = None


class Remote(Protocol):
    """One volume on one server. Not thread-safe; calls may overlap on one event loop."""

    async def connect(self, witnesses: Sequence[RemotePath] = ()) -> Connected:
        """Open the session (again), and look at some paths if that costs no further round trip.

        Raises when the path is not a directory on the server.
        """
        ...

    async def close(self) -> None:
        """Drop the session; never raises."""
        ...

    async def probe(self) -> None:
        """The cheapest round trip that shows the volume itself answers."""
        ...

    async def stat(self, path: RemotePath) -> Entry:
        """The object itself, symlinks not followed; ``NotFound`` proves absence.

        ``Entry.access`` is set where the adapter can ask for it at little cost.
        """
        ...

    async def list(self, path: RemotePath) -> list[Entry]:
        """All entries, complete, without ``.``, ``..`` and other clients' staged names.

        Raises rather than return a part. Names that cannot be a Linux name (empty, ``/``,
        NUL, over 255 bytes) are left out.
        """
        ...

    async def list_unless(self, path: RemotePath, fingerprint: bytes) -> Listing:
        """As ``list``, but without the entries where the listing has this fingerprint."""
        ...

    async def fetch(self, path: RemotePath, offset: int, length: int, fd: int) -> Fetched:
        """Copy a range of a file to the same offset of ``fd`` (a cache file).

        The entry is taken after the read, from the same open file where the protocol can.
        """
        ...

    async def fetch_many(self, pieces: Sequence[Piece], fd: int) -> Sequence[Landed | None]:
        """Copy many small files into one landing file, as many at once as the protocol can.

        Meant for the background: it keeps out of the way of ``fetch``. None stands for a file
        that did not come, whatever the reason: asking for it alone, by ``fetch``, tells why.
        """
        ...

    async def digest(self, path: RemotePath) -> Digest:
        """BLAKE2b-256 of the whole file as the server has it."""
        ...

    async def stage(
        self,
        op: OpId,
        directory: RemotePath,
        fd: int,
        size: int,
        attributes: Attributes,
        start: int = 0,
        token: bytes = b"",
    ) -> Entry:
        """Write ``size`` bytes of ``fd`` to the staged name of ``op`` in ``directory``.

        Verified and durable on the server (where it can be asked), attributes set. A staged
        file left by an earlier try of the same ``op`` is overwritten, but for the first ``start``
        bytes that ``stage_part`` left there: those are sent again only where what is there
        cannot be that (``token``, the size, the end of it).
        """
        ...

    async def stage_part(
        self, op: OpId, directory: RemotePath, fd: int, start: int, end: int, token: bytes = b""
    ) -> Entry | None:
        """Write a part of ``fd`` to the staged name of ``op``, durable; nobody else may read it.

        From ``start`` 0 it is made anew. Else the first ``start`` bytes have to be there: None,
        and nothing is written, where there is no such file, it is shorter, has another ``token``
        than the last part left although it is no longer, or ends in other bytes than ``fd``.
        """
        ...

    async def replace(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """Move the staged file of ``op`` to ``path``, guarded by ``expected`` (or ABSENT).

        On ``Mismatch`` the staged file is still there. Extended attributes, owner and ACLs
        of the replaced file are carried over where the protocol can.
        """
        ...

    async def put(
        self,
        op: OpId,
        path: RemotePath,
        content: bytes,
        attributes: Attributes,
        expected: Expected,
    ) -> Outcome:
        """``stage`` and ``replace`` in one, for a content of at most ``capabilities.put`` bytes.

        On ``Mismatch`` there may be something staged still, which ``settle`` removes.
        """
        ...

    async def put_many(self, puts: Sequence[Put]) -> Sequence[Outcome | Exception]:
        """``put`` of each, all at once; what one raises stands in its place, and stops no other."""
        ...

    async def discard_staged(self, op: OpId, directory: RemotePath) -> None:
        """Remove the staged file of ``op``; fine if there is none."""
        ...

    async def make(
        self,
        op: OpId,
        path: RemotePath,
        kind: Kind,
        attributes: Attributes,
        target: bytes = b"",
        rdev: int = 0,
    ) -> Outcome:
        """Create a directory, symlink (to ``target``), fifo, socket or device; exclusive."""
        ...

    async def link(self, op: OpId, source: RemotePath, path: RemotePath) -> Outcome:
        """A hard link; exclusive."""
        ...

    async def remove(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """Remove a name. A directory must be empty (else ``Refused(ENOTEMPTY)``)."""
        ...

    async def rename(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        source_expected: Expected,
        path_expected: Expected,
    ) -> Outcome:
        """Rename; what is at ``path`` must be as expected (ABSENT or a revision to replace).

        ``Mismatch.current`` is what stands at ``path`` when that differs; when the source
        differs from ``source_expected``, or is gone, ``NotFound`` is raised.
        """
        ...

    async def exchange(
        self,
        op: OpId,
        a: RemotePath,
        b: RemotePath,
        a_expected: Expected,
        b_expected: Expected,
    ) -> Outcome:
        """Swap two names (RENAME_EXCHANGE): with ``capabilities.exchange`` in one step.

        The entry that is returned is that of the object that was at ``a`` and is at ``b`` now.
        ``Mismatch.current`` is of the first path that differs; nothing has moved then.

        Without that capability both are only taken aside, what was at ``a`` to ``.old`` beside
        ``b``, what was at ``b`` to ``.new`` beside ``a``. Names alone never tell what has been done
        already: two files may look alike. So the caller notes ``Crossing.OVER``, and ``settle``
        ends it; before that it takes it back (``Crossing.BACK``).
        """
        ...

    async def set_attributes(
        self, path: RemotePath, attributes: Attributes, expected: Expected
    ) -> Outcome:
        """Change attributes of the object itself; returns the entry after the change."""
        ...

    async def xattrs(self, path: RemotePath) -> dict[bytes, bytes]:
        """All extended attributes worth caching (``user.*``); empty where unsupported."""
        ...

    async def set_xattr(
        self, path: RemotePath, name: bytes, value: bytes | None, expected: Expected | None
    ) -> Outcome:
        """Set, or with None remove, one extended attribute; returns the entry after the change.

        ``expected`` None: of whatever stands there.
        """
        ...

    async def space(self) -> Space:
        """Sizes of the file system behind the volume."""
        ...

    async def settle(self, intent: Intent) -> None:
        """Bring what an interrupted operation left half-done to one of its two ends.

        After it, no name of ``intent.op`` is left over, every revision that was on the
        server (or was made by the operation) stands at a proper name, and plain ``stat``
        tells what happened. Idempotent. A revision that cannot get its name back because
        another stands there is moved to a visible conflict-copy name beside it.
        """
        ...

"""Changes and digests by the program on the server (``sftp_program``), where it does them.

Each gives None where it does not, having touched nothing: the caller goes the usual way. What may
be destroyed, and whether a token alone proves it, is told as in ``sftp_revisions``; the comparing
is the program's. What it cannot put back or keep by itself is done here, over SFTP.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable

from awayfs.core.errors import Implausible, NotFound, Refused, Unreachable
from awayfs.core.types import (
    Attributes,
    Committed,
    Digest,
    Entry,
    Expected,
    Kind,
    Mismatch,
    OpId,
    Outcome,
    RemotePath,
)
from awayfs.remotes import pacing
from awayfs.remotes import server_steps as far
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_entries import kind_in, kind_of, seconds
from awayfs.remotes.sftp_moves import Moves, own_names
from awayfs.remotes.sftp_packets import Attributes as Shown
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_program import Answer, Program
from awayfs.remotes.sftp_revisions import Contents
from awayfs.remotes.sftp_transfer import FSYNC_S
from awayfs.remotes.sftp_view import View

LARGEST_CONTENT = 64 << 10
LONGEST_PATH = 4096

_Wanted = tuple[int, bytes, int, bytes]
"""Kind, token, how the rest is compared, and with what; for ``server_steps.Wanted``."""


class ByProgram:
    """Asks it, and makes the port's outcomes of its answers."""

    def __init__(
        self,
        program: Program,
        view: View,
        clock: ServerClock,
        paths: Paths,
        moves: Moves,
        contents: Contents,
        may_chown: bool,
        tick: Callable[[float], None],
    ) -> None:
        self.program = program
        self._view = view
        self._clock = clock
        self._paths = paths
        self._moves = moves
        self._contents = contents
        self._may_chown = may_chown
        self._tick = tick

    async def put(
        self,
        op: OpId,
        path: RemotePath,
        content: bytes,
        attributes: Attributes,
        expected: Expected,
    ) -> Outcome | None:
        """``Remote.put``."""
        if attributes.mode is None or len(content) > LARGEST_CONTENT:
            return None
        if not await self.program.may_ask():
            return None
        wanted = self._wanted(path, expected) if expected.token is not None else _ABSENT
        if wanted is None or len(path) > LONGEST_PATH:
            return None
        flow = pacing.pacer.get().up
        if flow.limit is not None:
            if len(content) > flow.chunk(LARGEST_CONTENT):
                return None
            await pacing.up(len(content))
        uid, gid = self._owner(attributes)
        mtime, atime = _times(attributes)
        kind, token, how, rest = wanted
        head = far.PUT.pack(
            *(len(op), len(path), attributes.mode & 0o7777, uid, gid, mtime, atime),
            *(far.INHERIT if self._may_chown else 0, kind, len(token), how),
        )
        body = b"".join((head, op.encode(), path, token, rest, content))
        return await self._outcome(op, path, far.ASKED_PUT, body)

    async def make(self, op: OpId, path: RemotePath, attributes: Attributes) -> Outcome | None:
        """``Remote.make``, of a directory."""
        if attributes.mode is None or len(path) > LONGEST_PATH:
            return None
        if not await self.program.may_ask():
            return None
        given = attributes.mode & 0o7777, *self._owner(attributes), *_times(attributes)
        body = far.MAKE.pack(len(op), len(path), *given) + op.encode() + path
        return await self._outcome(op, path, far.ASKED_MAKE, body)

    async def remove(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome | None:
        """``Remote.remove``, of what is no directory."""
        wanted = self._wanted(path, expected) if await self.program.may_ask() else None
        if wanted is None or len(path) > LONGEST_PATH:
            return None
        kind, token, how, rest = wanted
        head = far.REMOVE.pack(len(op), len(path), kind, len(token), how)
        body = b"".join((head, op.encode(), path, token, rest))
        return await self._outcome(op, path, far.ASKED_REMOVE, body)

    async def rename(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        source_expected: Expected,
        path_expected: Expected,
    ) -> Outcome | None:
        """``Remote.rename``, of what is no directory, to a name that is to be free."""
        if path_expected.token is not None or source == path or not await self.program.may_ask():
            return None
        wanted = self._wanted(source, source_expected)
        if wanted is None or len(source) + len(path) > LONGEST_PATH:
            return None
        kind, token, how, rest = wanted
        head = far.RENAME.pack(len(op), len(source), len(path), kind, len(token), how)
        body = b"".join((head, op.encode(), source, path, token, rest))
        return await self._outcome(op, path, far.ASKED_RENAME, body, source)

    async def digest(self, path: RemotePath) -> Digest | None:
        """``Remote.digest``, of a file that is not large."""
        if not self.program.is_ready or not path or len(path) > LONGEST_PATH:
            return None
        self._tick(FSYNC_S)
        answer = await self.program.ask("", far.ASKED_DIGEST, path)
        if answer.status == far.ABSENT:
            await self._paths.root_is_there()
            raise NotFound(f"{path.decode(errors='backslashreplace')}: no such file")
        if answer.status != far.DONE:
            return None
        entry = self._entry(path, answer, rest=32)
        if entry is None or entry.kind is not Kind.FILE:
            raise Implausible("a digest of what is no file")
        return Digest(entry, answer.body[-32:])

    async def over(self, op: OpId) -> None:
        """Return when nothing can come of earlier requests of this operation any more."""
        await self.program.over(op)

    # -- what is asked --------------------------------------------------------------------

    def _wanted(self, path: RemotePath, expected: Expected) -> _Wanted | None:
        """What may be destroyed at a path, None where that is for the usual way to compare."""
        token = expected.token
        if token is None or not token or len(token) > 255:
            return None
        kind = expected.kind if expected.kind is not None else kind_in(token)
        if kind not in (Kind.FILE, Kind.SYMLINK):
            return None
        compared = self._compared(path, token, kind) if expected.content else (far.NOTHING, b"")
        if compared is None:
            return None
        how, rest = compared
        if expected.rights is not None:
            how, rest = how | far.RIGHTS, rest + far.OWNED.pack(*expected.rights)
        return int(kind) >> 12, token if expected.content else b"", how, rest

    def _compared(self, path: RemotePath, token: bytes, kind: Kind) -> tuple[int, bytes] | None:
        """How content is compared beside its token."""
        if kind is Kind.SYMLINK:
            return far.NOTHING, b""
        told = _size_and_mtime(token)
        if told is None or not self._clock.known:
            return None
        size, mtime = told
        now = time.monotonic_ns()
        digest = self._contents.of(path, token)  # also of one that has become strong since
        if not size or (digest is None and not self._clock.weak(path, mtime, now, now)):
            return far.NOTHING, b""
        if size > far.LARGEST_READ:
            return None
        return far.TAKEN if digest is None else far.GIVEN, digest or b""

    def _owner(self, wanted: Attributes) -> tuple[int, int]:
        """Whom to give a new file; -1: nobody."""
        theirs = wanted.gid is not None or wanted.uid not in (None, self.program.uid)
        if not self._may_chown or not theirs:
            return -1, -1
        uid = -1 if wanted.uid is None else wanted.uid
        return uid, -1 if wanted.gid is None else wanted.gid

    # -- what is answered -----------------------------------------------------------------

    async def _outcome(
        self, op: OpId, path: RemotePath, kind: int, body: bytes, source: RemotePath = b""
    ) -> Outcome | None:
        self._tick(FSYNC_S)
        answer = await self.program.ask(op, kind, body)
        if answer.status == far.NO and not answer.flags:
            return None
        if answer.flags:
            await self._tidy(op, path, answer.flags, source)
        if answer.status in (far.MISMATCH, far.ABSENT):
            self._looked_anew(source or path)
        if answer.status == far.DONE:
            entry = self._entry(path, answer)
            if (entry is None) != (kind == far.ASKED_REMOVE):
                raise Implausible("an outcome without what stands there")
            return Committed(entry)
        if answer.status == far.MISMATCH:
            return await self._mismatch(path, answer)
        if answer.status == far.FAILED:
            raise _refused(answer)
        if answer.status == far.ABSENT and kind == far.ASKED_RENAME:
            await self._paths.root_is_there()
            raise NotFound("the source is gone, or not what it was")
        # It has failed on the way, or says what is no answer to this.
        raise Unreachable("the program on the server does not know what became of a change")

    def _looked_anew(self, path: RemotePath) -> None:
        """The caller reads it again: a digest from when it was weak has told what it could."""
        told, now = _size_and_mtime(self._contents.token(path) or b""), time.monotonic_ns()
        if told is not None and not self._clock.weak(path, told[1], now, now):
            self._contents.forget(path)

    async def _mismatch(self, path: RemotePath, answer: Answer) -> Outcome:
        if answer.flags:
            return Mismatch(await self._view.find(path))
        current = self._entry(path, answer)
        if current is None:
            await self._paths.root_is_there()
        return Mismatch(current)

    async def _tidy(self, op: OpId, path: RemotePath, flags: int, source: RemotePath) -> None:
        """What was moved aside and could not get its name back, or was written into."""
        _, aside = own_names(op, path)
        if flags & far.PUT_BACK:
            await self._moves.put_back(aside, path, op)
        if flags & far.KEEP:
            await self._moves.keep(aside, path, op)
        if flags & far.SOURCE_BACK and source:
            await self._moves.put_back(own_names(op, source)[1], source, op)

    def _entry(self, path: RemotePath, answer: Answer, rest: int = 0) -> Entry | None:
        """What stands there as the program tells it; as ``View`` would have it from SFTP."""
        body = answer.body
        if not body:
            return None
        if len(body) < far.ENTRY.size + rest:
            raise Implausible("the program on the server tells a part of an entry")
        mode, size, mtime, uid, gid = far.ENTRY.unpack_from(body)
        shown = Shown(size, uid, gid, mode, None, mtime)
        target = body[far.ENTRY.size :] if kind_of(shown) is Kind.SYMLINK else None
        return self._view.entry(path, shown, answer.sent_ns, target)


_ABSENT: _Wanted = (0, b"", far.NOTHING, b"")


def _size_and_mtime(token: bytes) -> tuple[int, int] | None:
    """What a file's token was made of (``sftp_entries.token_of``)."""
    parts = token.split(b":")
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return int(parts[1]), int(parts[2])


def _times(wanted: Attributes) -> tuple[int, int]:
    """mtime and atime in seconds, one standing for both; -1: as they come."""
    if wanted.mtime_ns is None:
        return -1, -1
    atime_ns = wanted.mtime_ns if wanted.atime_ns is None else wanted.atime_ns
    return seconds(wanted.mtime_ns), seconds(atime_ns)


def _refused(answer: Answer) -> Refused:
    try:
        (code,) = struct.unpack(">I", answer.body)
    except struct.error as error:
        raise Implausible("the program on the server does not say why it failed") from error
    if code not in errno.errorcode:
        code = errno.EIO
    return Refused(code, f"the server's disk: {os.strerror(code)}")

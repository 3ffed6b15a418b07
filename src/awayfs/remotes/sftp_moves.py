"""Steps that guarded operations are made of: moving aside, placing, putting back.

Names of operations (``.awayfs-<op>.new`` and ``.old``) are used by nobody else, so a move to
one of them may replace; a move to any other name is exclusive.

OpenSSH's plain RENAME is not what it seems. A file is moved by link(2) and unlink(2): whoever
renames a new revision over the old name between the two loses it. Anything else is moved by
stat(2) and rename(2): a dangling symlink at the new name is replaced. So names are left with
posix-rename@openssh.com (rename(2), one step) and taken with hardlink@openssh.com (link(2),
one exclusive step) where the server has them; RENAME is for directories, which cannot be
linked but which rename(2) does not put over anything but an empty directory either.

A name of ours is another matter: nobody renames anything over that. What is staged takes its name
by RENAME, one request for two, once a session has shown that this is what OpenSSH makes of it:
something stands at the new name, and the server refuses.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from collections.abc import Awaitable, Callable

from awayfs.core.errors import Implausible, NotFound, Refused, Unreachable
from awayfs.core.types import Digest, Entry, Kind, OpId, RemotePath
from awayfs.ports.remote import ASIDE_SUFFIX, STAGED_SUFFIX
from awayfs.remotes.faults import reach
from awayfs.remotes.names import aside_name, conflict_name, staged_name
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_connection import Extensions
from awayfs.remotes.sftp_entries import basename, join, parent
from awayfs.remotes.sftp_errors import Failed
from awayfs.remotes.sftp_view import View

CONFLICT_TRIES = 100


class Placed(enum.IntEnum):
    """What became of our name when it was to give what it bears another one."""

    NO = 0  # nothing happened: something stands there, or it cannot be done this way
    LINKED = 1  # both names bear it
    MOVED = 2  # ours is gone


class Moves:
    """Moves on one server. ``digest`` reads a whole file; only ``same`` and ``has`` use it."""

    def __init__(
        self,
        channel: Channel,
        view: View,
        extensions: Extensions,
        digest: Callable[[RemotePath], Awaitable[Digest]],
    ) -> None:
        self._channel = channel
        self._view = view
        self._extensions = extensions
        self._digest = digest
        self._renames = False  # whether RENAME is exclusive was seen here
        self._may_prove = channel.wire.is_openssh

    @property
    def may_link(self) -> bool:
        """Whether the server makes hard links, as far as it says."""
        return self._extensions.hard_link

    async def take(self, path: RemotePath, own: RemotePath) -> Entry | None:
        """Move what stands at ``path`` to our name; what came out, None if nothing was there."""
        over = self._extensions.rename_over
        move = self._channel.rename_over if over else self._channel.rename_exclusive
        # Both requests leave at once. OpenSSH answers in order; elsewhere we look again.
        moved, looked = move(path, own), self._view.look(own)
        try:
            await moved
        except NotFound:
            return None
        taken = await self._view.found(looked)
        return taken if taken is not None else await self._view.stat(own)

    async def place(self, own: RemotePath, path: RemotePath, kind: Kind) -> bool:
        """Give what is at our name the name ``path`` too; False if something stands there.

        The name ``own`` may be gone afterwards or not: the caller drops it.
        """
        if kind is not Kind.DIRECTORY and await self._has_linked(own, path):
            return True
        if await self._view.find(path) is not None:
            return False
        try:
            await self._channel.rename_exclusive(own, path)
        except Refused:
            if await self._view.find(path) is not None:
                return False
            raise
        return True

    async def link(self, source: RemotePath, path: RemotePath) -> Entry | None:
        """A hard link, and what is now at ``path``; None where it could not be made.

        That is: no such extension, a file system without links, a file that is not ours
        (fs.protected_hardlinks), or a name that is taken.
        """
        if not self.may_link:
            return None
        linked, looked = self._channel.hard_link(source, path), self._view.look(path)
        try:
            await linked
        except Refused:
            return None
        there = await self._view.found(looked)
        return there if there is not None else await self._view.stat(source)

    async def _has_linked(self, own: RemotePath, path: RemotePath) -> bool:
        """A hard link, without a look at it; False where it could not be made."""
        if not self.may_link:
            return False
        try:
            await self._channel.hard_link(own, path)
        except Refused:
            return False
        return True

    async def hand_over(self, own: RemotePath, path: RemotePath) -> Placed:
        """What is staged at our name takes the name ``path``, if nothing stands there."""
        if not self.may_link:
            return Placed.NO
        renames = self._renames
        move = self._channel.rename_exclusive if renames else self._channel.hard_link
        try:
            await move(own, path)
        except Refused:
            return Placed.NO
        return Placed.MOVED if renames else Placed.LINKED

    async def prove(self, own: RemotePath) -> None:
        """See once a session whether RENAME refuses a name that is taken.

        With names of one operation alone, which must have nothing aside.
        """
        if not self._may_prove:
            return
        self._may_prove = False
        other = own.removesuffix(STAGED_SUFFIX) + ASIDE_SUFFIX
        if not await self._has_linked(own, other):
            return
        reach("proof.linked")
        try:
            await self._channel.rename_exclusive(own, other)
        except Failed:
            self._renames = True
        except Refused:
            pass
        reach("proof.seen")
        await self.drop(other)

    async def put_back(self, own: RemotePath, path: RemotePath, op: OpId) -> None:
        """Give a revision its name back, or a conflict name beside it if that is taken.

        It may have the name already, by an earlier call that was cut off.
        """
        entry = await self._view.find(own)
        if entry is None:
            return
        name = basename(path)
        for attempt in range(CONFLICT_TRIES):
            if await self.place(own, path, entry.kind) or await self.same(own, path):
                reach("back.placed")
                await self.drop(own)
                return
            path = join(parent(path), conflict_name(name, op, attempt))
        raise Refused(errno.EEXIST, "every conflict name is taken")

    async def keep(self, own: RemotePath, path: RemotePath, op: OpId) -> None:
        """Give a revision a conflict name beside ``path``, which is somebody else's now."""
        name = conflict_name(basename(path), op)
        await self.put_back(own, join(parent(path), name), op)

    async def drop(self, *names: RemotePath) -> None:
        """Unlink names of ours, in this order; fine if they are gone."""
        for gone in [self._channel.unlink(name) for name in names]:  # all leave at once
            try:
                await gone
            except NotFound:
                pass

    async def same(self, a: RemotePath, b: RemotePath) -> bool:
        """Whether two names bear the same content. v3 has no inode numbers, so it is read."""
        one, other = await asyncio.gather(self._view.find(a), self._view.find(b))
        if one is None or other is None or one.token != other.token:
            return False
        if one.kind is not Kind.FILE:
            return one.kind is Kind.SYMLINK
        try:
            digests = await asyncio.gather(self._digest(a), self._digest(b))
        except Unreachable:
            raise
        except (NotFound, Refused, Implausible):
            return False
        return digests[0].blake2b == digests[1].blake2b

    async def has(self, path: RemotePath, digest: bytes | None) -> bool:
        """Whether a file there has the content of this digest."""
        try:
            return (await self._digest(path)).blake2b == digest
        except Unreachable:
            raise
        except (NotFound, Refused, Implausible):
            return False


def own_names(op: OpId, path: RemotePath) -> tuple[RemotePath, RemotePath]:
    """N and O of an operation on ``path``: what is staged, and what is moved aside."""
    directory = parent(path)
    return join(directory, staged_name(op)), join(directory, aside_name(op))

"""Mutations that need no moving aside: make, link, attributes."""

from __future__ import annotations

import errno
import time

from awayfs.core.errors import NotFound, Refused
from awayfs.core.types import (
    Attributes,
    Committed,
    Entry,
    Expected,
    Kind,
    Mismatch,
    OpId,
    Outcome,
    RemotePath,
)
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.faults import reach
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_connection import Extensions
from awayfs.remotes.sftp_entries import basename, matches, parent, seconds
from awayfs.remotes.sftp_errors import BadMessage, Failed
from awayfs.remotes.sftp_moves import own_names
from awayfs.remotes.sftp_view import View


class Changes:
    """Exclusive creation and attributes on one server."""

    def __init__(
        self, channel: Channel, view: View, clock: ServerClock, extensions: Extensions
    ) -> None:
        self._channel = channel
        self._view = view
        self._clock = clock
        self._extensions = extensions

    async def make(
        self, op: OpId, path: RemotePath, kind: Kind, attributes: Attributes, target: bytes
    ) -> Outcome:
        """A directory or a symlink; v3 has no request for anything else."""
        if kind not in (Kind.DIRECTORY, Kind.SYMLINK):
            raise Refused(errno.EOPNOTSUPP, "SFTP can make directories and symlinks only")
        try:
            if kind is Kind.DIRECTORY:
                permissions = 0o777 if attributes.mode is None else attributes.mode & 0o777
                await self._channel.mkdir(path, packets.Attributes(permissions=permissions))
            else:
                swapped = await self._swaps_symlink(op, path)
                await self._channel.symlink(target, path, swapped)
        except (Failed, BadMessage) as error:
            return await self._taken(path, error)
        reach("make.made")
        made = await self._view.stat(path)
        if kind is Kind.DIRECTORY:
            self._clock.stamped(made.mtime_ns // 1_000_000_000, time.monotonic_ns())
        if kind is Kind.DIRECTORY and attributes.mode == made.mode:
            attributes = Attributes(
                uid=attributes.uid,
                gid=attributes.gid,
                mtime_ns=attributes.mtime_ns,
                atime_ns=attributes.atime_ns,
            )
        if attributes and (kind is Kind.DIRECTORY or self._extensions.lsetstat):
            made = await self._dress(path, made, attributes)
        return Committed(made)

    async def _swaps_symlink(self, op: OpId, path: RemotePath) -> bool:
        """In which order this server takes SYMLINK's two paths, tried once a session.

        In the wrong one it would make a link where the target lies, which may be anywhere. Only a
        name of ours can come of the try, in either order: the other one is that of a directory,
        which stands.
        """
        wire, own = self._channel.wire, own_names(op, path)[0]
        if wire.swaps_symlink is not None:
            return wire.swaps_symlink
        await self._unlinked(own)
        for swapped in (False, True):
            try:
                await self._channel.symlink(self._channel.absolute(parent(path)), own, swapped)
            except Failed as error:
                refusal = error
                continue
            if not await self._unlinked(own):
                raise Refused(errno.EOPNOTSUPP, "the server makes symlinks who knows where")
            wire.swaps_symlink = swapped
            return swapped
        raise refusal

    async def _unlinked(self, own: RemotePath) -> bool:
        """Remove a name of ours; False if it was not there."""
        try:
            await self._channel.unlink(own)
        except NotFound:
            return False
        return True

    async def _dress(self, path: RemotePath, made: Entry, attributes: Attributes) -> Entry:
        """Attributes of something new: what the server refuses is left as it is."""
        try:
            await self._set(path, made, attributes)
        except Refused:
            pass
        return await self._view.stat(path)

    async def link(self, source: RemotePath, path: RemotePath) -> Outcome:
        """hardlink@openssh.com, which is exclusive."""
        if not self._extensions.hard_link:
            raise Refused(errno.EOPNOTSUPP, "the server offers no hard links")
        try:
            await self._channel.hard_link(source, path)
        except Failed as error:
            return await self._taken(path, error)
        reach("link.made")
        return Committed(await self._view.stat(path))

    async def _taken(self, path: RemotePath, error: Refused) -> Outcome:
        """EEXIST comes as a plain failure: it was that if something stands there."""
        current = await self._view.find(path)
        if current is not None:
            return Mismatch(current)
        raise await self._why_not_made(path, error) from error

    async def _why_not_made(self, path: RemotePath, error: Refused) -> Refused:
        if error.errno != errno.EIO:
            return error
        try:
            space = await self._channel.statvfs(parent(path))
        except (Refused, NotFound):
            return error
        if space.flags & 1:
            return Refused(errno.EROFS, str(error))
        if space.bavail == 0 or (space.files and not space.favail):
            return Refused(errno.ENOSPC, str(error))
        if space.namemax and len(basename(path)) > space.namemax:
            return Refused(errno.ENAMETOOLONG, str(error))
        return error

    async def set_attributes(
        self, path: RemotePath, attributes: Attributes, expected: Expected
    ) -> Outcome:
        """Compare, then set: v3 has no guarded SETSTAT, so a race here changes attributes of
        another revision, never content."""
        current = await self._view.find(path)
        if current is None or not matches(current, expected):
            return Mismatch(current)
        reach("attributes.checked")
        await self._set(path, current, attributes)
        reach("attributes.set")
        return Committed(await self._view.stat(path))

    async def _set(self, path: RemotePath, current: Entry, wanted: Attributes) -> None:
        """One request an aspect, owner first: chown(2) clears setuid bits.

        SETSTAT follows symlinks, so lsetstat@openssh.com is used where there is one. Without
        it a symlink keeps its attributes. The mode of a symlink means nothing on Linux.
        """
        symlink = current.kind is Kind.SYMLINK
        if symlink and not self._extensions.lsetstat:
            return
        follow = not self._extensions.lsetstat
        if wanted.uid is not None or wanted.gid is not None:
            uid = current.uid if wanted.uid is None else wanted.uid
            gid = current.gid if wanted.gid is None else wanted.gid
            await self._setstat(path, packets.Attributes(uid=uid, gid=gid), follow)
        if wanted.mode is not None and not symlink:
            mode = packets.Attributes(permissions=wanted.mode & 0o7777)
            await self._setstat(path, mode, follow=True)
        if wanted.mtime_ns is not None or wanted.atime_ns is not None:
            await self._setstat(path, await self._times(path, wanted), follow)

    async def _times(self, path: RemotePath, wanted: Attributes) -> packets.Attributes:
        """Both times, as v3 sets them together: the one not wanted stays what it is."""
        now = await self._channel.lstat(path)
        atime, mtime = now.atime or 0, now.mtime or 0
        if wanted.atime_ns is not None:
            atime = seconds(wanted.atime_ns)
        if wanted.mtime_ns is not None:
            mtime = seconds(wanted.mtime_ns)
        return packets.Attributes(atime=atime, mtime=mtime)

    async def _setstat(self, path: RemotePath, attrs: packets.Attributes, follow: bool) -> None:
        try:
            await self._channel.setstat(path, attrs, follow)
        except Failed:
            raise
        except Refused as error:
            if error.errno == errno.EACCES:  # EPERM and EACCES are one code in v3
                raise Refused(errno.EPERM, str(error)) from error
            raise

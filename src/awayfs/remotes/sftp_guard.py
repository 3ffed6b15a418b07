"""Guarded mutations over SFTP: no revision but the expected one is destroyed (ASIDE).

``replace``, with N = ``.awayfs-<op>.new`` (staged), O = ``.awayfs-<op>.old``, P the target:

    1  look at P, compare             nothing was touched if it differs
    2  rename P to O                  readers see no file for a moment
    3  look at O, compare             what differs is put back
    4  link N to P                    exclusive; if P is taken, O is put back or kept
    5  look at O again, unlink O      what was written into it meanwhile is kept
    6  unlink N

Where nothing is expected at P, it begins with 4, which tells as well whether anything is there;
only if that cannot be done are there looks before. ``remove`` is 1 to 3 and 5, whose look is that
of 3 unless content is read in between. ``rename`` of a source S makes N by a hard link to S, looks
at N, goes through 1 to 5, then removes the name S in the same way, and last unlinks N. So N never
holds the only name of somebody's revision, and whoever finds it may unlink it at any time; O is
never unlinked unseen. Directories are moved in one step that the server guards. Where the server
is known to be OpenSSH, 4 and 6 of a ``replace`` are one request (``sftp_moves``).

To compare is to compare tokens, and contents under weak ones (``sftp_revisions``). To *keep*
is to give a conflict name beside P. ``sftp_settle`` tidies up after a cut at any point.

Residual risk: between the last look at O and its unlink (a round trip), a writer that has held
the replaced file open since before the rename can still write into it; its data goes where
that of any writer goes whose file another program renames over.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from awayfs.core.errors import NotFound, Refused, RemoteError, Unreachable
from awayfs.core.types import Committed, Entry, Expected, Kind, Mismatch, OpId, Outcome, RemotePath
from awayfs.remotes.faults import reach
from awayfs.remotes.names import is_linux_name
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_entries import basename, kind_in, matches, parent
from awayfs.remotes.sftp_errors import Failed
from awayfs.remotes.sftp_moves import Moves, Placed, own_names
from awayfs.remotes.sftp_packets import Attributes
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_revisions import Revision, Revisions
from awayfs.remotes.sftp_staged import Staged
from awayfs.remotes.sftp_view import View

SAME_TRIES = 3


class Guarded:
    """The guarded mutations on one server."""

    def __init__(
        self,
        channel: Channel,
        view: View,
        moves: Moves,
        revisions: Revisions,
        may_chown: bool,
        sync: Callable[[RemotePath], Awaitable[None]],
        paths: Paths,
        staged: Staged,
    ) -> None:
        self._channel = channel
        self._view = view
        self._moves = moves
        self._revisions = revisions
        self._may_chown = may_chown
        self._sync = sync
        self._paths = paths
        self._staged = staged

    async def replace(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """``Remote.replace``."""
        own, aside = own_names(op, path)
        if expected.token is None and (placed := await self._place_at_once(own, path)):
            return placed
        looks = [self._view.look(name) for name in (path, aside)]
        staged = self._staged.of(own) or await self._view.find(own)
        current, left = [await self._view.found(look) for look in looks]
        if staged is None:
            raise NotFound(f"nothing is staged for {op}")
        if left is not None:
            await self._moves.put_back(aside, path, op)
            current = await self._view.find(path)
        if not matches(current, expected):
            return Mismatch(current)
        revision: Revision | None = None
        if current is not None:
            if current.kind is Kind.DIRECTORY:
                raise Refused(errno.EISDIR, "a directory stands there")
            revision = await self._revisions.known(op, path, current, expected)
            if revision is None:
                return Mismatch(await self._view.find(path))
            staged = await self._inherit(own, staged, current)
            self._staged.note(own, staged)
        reach("replace.checked")
        outcome = await self._put_over(op, own, path, staged, revision)
        if isinstance(outcome, Committed):
            self._staged.forget(own)
            reach("replace.tidied")
            await self._sync(parent(path))
        return outcome

    async def _place_at_once(self, own: RemotePath, path: RemotePath) -> Committed | None:
        """Where nothing is expected: what is staged takes the name. None if that cannot be done.

        The entry is that of what we staged, and not of what is at the name by now: whoever writes
        there is not taken for us.
        """
        entry = self._staged.of(own)
        looked = None if entry is not None else self._view.look(own)
        placed = await self._moves.hand_over(own, path)
        if not placed:
            return None
        if looked is not None:
            entry = await self._view.found(looked)
        if entry is None:
            return None
        reach("over.placed")
        if placed is Placed.LINKED:
            await self._moves.prove(own)
            await self._moves.drop(own)
        self._staged.forget(own)
        reach("replace.tidied")
        await self._sync(parent(path))
        return Committed(replace(entry, name=basename(path)))

    async def remove(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """``Remote.remove``."""
        _, aside = own_names(op, path)
        looks = [self._view.look(name) for name in (path, aside)]
        current, left = [await self._view.found(look) for look in looks]
        if left is not None:
            await self._moves.put_back(aside, path, op)
            current = await self._view.find(path)
        if not matches(current, expected):
            return Mismatch(current)
        if current is None:
            return Committed(None)
        reach("remove.checked")
        if current.kind is Kind.DIRECTORY:
            if not await self._remove_directory(path):
                return Mismatch(await self._view.find(path))
        else:
            revision = await self._revisions.known(op, path, current, expected)
            if revision is None or not await self._drop_name(op, path, revision):
                return Mismatch(await self._view.find(path))
        reach("remove.removed")
        await self._sync(parent(path))
        return Committed(None)

    async def rename(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        source_expected: Expected,
        path_expected: Expected,
    ) -> Outcome:
        """``Remote.rename``."""
        if path.startswith(source + b"/"):
            raise Refused(errno.EINVAL, "a directory cannot be moved into itself")
        looks = [self._view.look(source)]
        if source == path or not self._needs_no_look(source_expected, path_expected):
            looks.append(self._view.look(path))
        incoming, current = [*[await self._view.found(look) for look in looks], None][:2]
        if incoming is None or not matches(incoming, source_expected):
            raise NotFound("the source is gone, or not what it was")
        if not matches(current, path_expected):
            return Mismatch(current)
        if source == path:
            return Committed(incoming)
        _check_kinds(incoming, current)
        reach("rename.checked")
        if incoming.kind is Kind.DIRECTORY:
            outcome = await self._rename_directory(source, path, current)
        else:
            brought = await self._revisions.known(op, source, incoming, source_expected)
            if brought is None:
                raise NotFound("the source is not what it was")
            revision: Revision | None = None
            if current is not None:
                revision = await self._revisions.known(op, path, current, path_expected)
                if revision is None:
                    return Mismatch(await self._view.find(path))
            outcome = await self._rename_file(op, source, path, brought, revision)
        if isinstance(outcome, Committed):
            await self._sync(parent(path))
            if parent(source) != parent(path):
                await self._sync(parent(source))
        return outcome

    def _needs_no_look(self, source: Expected, path: Expected) -> bool:
        """Whether the move itself tells if anything stands at a name that is to be free."""
        kind = source.kind or (kind_in(source.token) if source.token is not None else None)
        is_linked = kind is not None and kind is not Kind.DIRECTORY and self._moves.may_link
        return path.token is None and is_linked

    async def _put_over(
        self,
        op: OpId,
        own: RemotePath,
        path: RemotePath,
        incoming: Entry,
        revision: Revision | None,
        keep_own: bool = False,
    ) -> Outcome:
        """Steps 2 to 6: what is at ``own`` takes the name ``path`` from ``revision``.

        With ``keep_own`` step 6 is left to the caller; if nothing was placed, N stays anyway.
        """
        _, aside = own_names(op, path)
        taken: Entry | None = None
        if revision is not None:
            taken = await self._moves.take(path, aside)
            reach("over.taken")
            if taken is None or not await self._revisions.is_it(aside, taken, revision):
                await self._moves.put_back(aside, path, op)
                return Mismatch(await self._view.find(path))
        moved = Placed.NO
        try:
            if not keep_own and incoming.kind is Kind.FILE:
                moved = await self._moves.hand_over(own, path)
            placed = bool(moved) or await self._moves.place(own, path, incoming.kind)
        except Unreachable:
            raise
        except RemoteError:
            await self._moves.put_back(aside, path, op)
            raise
        reach("over.placed")
        done = [own] if placed and not keep_own and moved is not Placed.MOVED else []
        if revision is not None and taken is not None:
            # Where another writer took the name, the revision aside is the one that it wrote
            # over; it goes if it surely is the expected one.
            sure = revision if placed or revision.proven else None
            await self._let_go(op, aside, path, taken, sure, done)
        else:
            await self._moves.drop(*done)
        if not placed:
            return Mismatch(await self._view.find(path))
        return Committed(replace(incoming, name=basename(path)))

    async def _let_go(
        self,
        op: OpId,
        aside: RemotePath,
        path: RemotePath,
        taken: Entry,
        revision: Revision | None,
        also: Sequence[RemotePath] = (),
    ) -> None:
        """Unlink the revision that was replaced, unless it was written into since we looked.

        ``also`` are names of ours that go after it.
        """
        last = await self._view.find(aside)
        same = last is not None and last.token == taken.token
        if revision is not None and same and await self._revisions.is_it(aside, last, revision):
            await self._moves.drop(aside, *also)
            return
        if last is not None:
            await self._moves.keep(aside, path, op)
        await self._moves.drop(*also)

    async def _drop_name(self, op: OpId, path: RemotePath, revision: Revision) -> bool:
        """Remove a name, if it is that of the expected revision."""
        _, aside = own_names(op, path)
        taken = await self._moves.take(path, aside)
        reach("drop.taken")
        if taken is None:
            return False
        if not await self._revisions.is_it(aside, taken, revision):
            await self._moves.put_back(aside, path, op)
            return False
        if revision.blake2b is None:  # the look that came with the move was the last, too
            await self._moves.drop(aside)
        else:
            await self._let_go(op, aside, path, taken, revision)
        return True

    async def _rename_file(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        brought: Revision,
        revision: Revision | None,
    ) -> Outcome:
        own, aside = own_names(op, path)
        looks = [self._view.look(name) for name in {aside, own_names(op, source)[1]}]
        if any([await self._view.found(look) for look in looks]):
            raise Refused(errno.EBUSY, "an earlier try was not settled")
        incoming = await self._moves.link(source, own)
        if incoming is None:  # an earlier try may have left one
            await self._moves.drop(own)
            incoming = await self._moves.link(source, own)
        if incoming is None:
            return await self._rename_unlinked(op, source, path, brought, revision)
        reach("rename.linked")
        if not await self._revisions.is_it(own, incoming, brought):
            await self._moves.drop(own)
            raise NotFound("the source is not what it was")
        outcome = await self._put_over(op, own, path, incoming, revision, keep_own=True)
        if isinstance(outcome, Committed):
            await self._drop_source(op, source, own, incoming, brought.entry.weak)
            reach("rename.removed")
        await self._moves.drop(own)
        return outcome

    async def _drop_source(
        self, op: OpId, source: RemotePath, own: RemotePath, incoming: Entry, weak: bool
    ) -> None:
        """Remove a rename's old name, unless another writer has put a revision there.

        What is moved aside must be what is at ``own``, which is the same file.
        """
        _, aside = own_names(op, source)
        taken = await self._moves.take(source, aside)
        reach("drop.taken")
        if taken is None:
            return
        if await self._is_link(own, aside, incoming, taken, weak):
            await self._moves.drop(aside)
        else:
            await self._moves.put_back(aside, source, op)

    async def _is_link(
        self, own: RemotePath, aside: RemotePath, incoming: Entry, taken: Entry, weak: bool
    ) -> bool:
        if not weak and taken.token == incoming.token:
            return True
        for _ in range(SAME_TRIES):  # a file that is being written may differ between two looks
            if await self._moves.same(own, aside):
                return True
        return False

    async def _rename_unlinked(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        brought: Revision,
        revision: Revision | None,
    ) -> Outcome:
        """Where the source cannot have a second name: the move is looked at afterwards."""
        _, aside = own_names(op, path)
        taken: Entry | None = None
        if revision is None and (there := await self._view.find(path)) is not None:
            return Mismatch(there)
        if revision is not None:
            taken = await self._moves.take(path, aside)
            reach("rename.taken")
            if taken is None or not await self._revisions.is_it(aside, taken, revision):
                await self._moves.put_back(aside, path, op)
                return Mismatch(await self._view.find(path))
        try:
            await self._channel.rename_exclusive(source, path)
        except Unreachable:
            raise
        except RemoteError as error:
            there = await self._view.find(path)
            if taken is not None:
                await self._moves.put_back(aside, path, op)
            if there is not None:
                return Mismatch(there)
            raise await self._why_not_moved(source, path, error) from error
        moved = await self._view.find(path)
        if moved is None or not await self._revisions.is_it(path, moved, brought):
            await self._moves.put_back(path, source, op)
            await self._moves.put_back(aside, path, op)
            raise NotFound("the source is not what it was")
        if taken is not None:
            await self._let_go(op, aside, path, taken, revision)
        return Committed(moved)

    async def _rename_directory(
        self, source: RemotePath, path: RemotePath, current: Entry | None
    ) -> Outcome:
        """One request: the server does not put a directory over anything but an empty one."""
        self._paths.forget()
        try:
            if current is None:
                await self._channel.rename_exclusive(source, path)
            else:
                await self._channel.rename_over(source, path)
        except Failed as error:
            there = await self._view.find(path)
            if current is None and there is not None:
                return Mismatch(there)
            if there is not None and await self._hasown_names(path):
                raise Refused(errno.ENOTEMPTY, "the directory there is not empty") from error
            raise await self._why_not_moved(source, path, error) from error
        finally:
            self._paths.forget()
        reach("rename.moved")
        return Committed(await self._view.find(path))

    async def _why_not_moved(
        self, source: RemotePath, path: RemotePath, error: RemoteError
    ) -> RemoteError:
        """EXDEV comes as a plain failure; two file systems differ in their id."""
        try:
            one, other = await asyncio.gather(
                self._channel.statvfs(parent(source)), self._channel.statvfs(parent(path))
            )
        except (Refused, NotFound):
            return error
        return Refused(errno.EXDEV, str(error)) if one.fsid != other.fsid else error

    async def _remove_directory(self, path: RemotePath) -> bool:
        """RMDIR; False if it is gone. ENOTEMPTY comes as a plain failure: look again."""
        self._paths.forget()
        try:
            await self._channel.rmdir(path)
        except NotFound:
            return False
        except Failed as error:
            there = await self._view.find(path)
            if there is None or there.kind is not Kind.DIRECTORY:
                return False
            if await self._hasown_names(path):
                raise Refused(errno.ENOTEMPTY, "the directory is not empty") from error
            raise
        finally:
            self._paths.forget()
        return True

    async def _hasown_names(self, path: RemotePath) -> bool:
        async for block in self._channel.readdir(path):
            if any(is_linux_name(item.filename) for item in block):
                return True
        return False

    async def _inherit(self, own: RemotePath, staged: Entry, current: Entry) -> Entry:
        """Carry the owner of the replaced file over, where we may."""
        if not self._may_chown or (staged.uid, staged.gid) == (current.uid, current.gid):
            return staged
        attrs = Attributes(uid=current.uid, gid=current.gid)
        try:
            await self._channel.setstat(own, attrs, follow=True)
            # chown(2) clears setuid and setgid
            await self._channel.setstat(own, Attributes(permissions=staged.mode), True)
        except Refused:
            return staged
        return replace(staged, uid=current.uid, gid=current.gid)


def _check_kinds(incoming: Entry, current: Entry | None) -> None:
    """rename(2): a directory goes over a directory only, anything else over no directory."""
    if current is None or (incoming.kind is Kind.DIRECTORY) == (current.kind is Kind.DIRECTORY):
        return
    code = errno.EISDIR if current.kind is Kind.DIRECTORY else errno.ENOTDIR
    raise Refused(code, "a directory and something else cannot take each other's name")

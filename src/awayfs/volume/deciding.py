"""Carrying a decision out, whoever made it: a person, a tool, a rule.

settle   what an earlier decision left half done on the server
check    that the server has what was looked at, where that is to be overwritten;
         if not, the conflict is found anew and nothing is decided
keep     what will be given up, in the history
decide   (``resolve``, ``resolve_content``)
note     what won, so that an undo can tell whether the file was changed since
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.deciding import BASE, BOTH, LOCAL, SERVER, WITH, has_base, loses, overwrites
from awayfs.core.errors import UsageError
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Entry, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.store.files import fsync_path, unlink_quietly
from awayfs.volume.context import Context
from awayfs.volume.losing import Losing
from awayfs.volume.places import MOVING
from awayfs.volume.resolve import Resolver
from awayfs.volume.resolve_steps import COPY_TEMPLATE, MOVED_ON, MovedOn, differs
from awayfs.volume.suspects import digest_of_file

log = logging.getLogger(__name__)

CHANGED_HERE = "it was changed here meanwhile; look at it and decide anew"
NO_LONGER = "is not in conflict any more; see awayfs conflicts"


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a conflict. ``too_large``: the variants that the history could not take."""

    path: bytes
    kind: str
    kept: str
    copy: str | None = None
    too_large: list[str] = field(default_factory=list)


class Deciding:
    """Decides conflicts."""

    def __init__(
        self,
        context: Context,
        resolver: Resolver,
        losing: Losing,
        path_of: Callable[[Conflict], bytes],
        base_of: Callable[[Conflict], str | None],
        completed: Callable[[int], Awaitable[None]],
        found_anew: Callable[[int], Awaitable[None]],
    ) -> None:
        self._context = context
        self._store = context.store
        self._resolver = resolver
        self._losing = losing
        self._path_of = path_of
        self._base_of = base_of
        self._completed = completed
        self._found_anew = found_anew
        self._locks = WeakValueDictionary[int, asyncio.Lock]()

    # -- decisions ------------------------------------------------------------------------

    async def keep(
        self, number: int, choice: str, *, copy_name: str = "", all_of_it: bool = False
    ) -> Decided:
        """Decide for a variant, or for both. ``copy_name`` is a rule's template.

        ``all_of_it``: what loses has to be in the history, else ``TooLarge`` is raised.

        Raises ``UsageError`` where that makes no sense or the server moved on, ``RemoteError``
        when it cannot be asked, OSError(ENOSPC).
        """
        if choice == BASE and self._get(number).kind != ConflictKind.ATTRIBUTE:
            return await self._keep_base(number, all_of_it)
        async with self._locked(number) as conflict:
            path = self._path_of(conflict)
            record = self._record(conflict)
            await self._prepare(conflict, record, choice)
            conflict = self._again(conflict)
            given_up = self._lost_by(conflict, record, choice)
            if LOCAL in given_up or choice == BOTH:
                self._check_seen(conflict, path)
                await self._have_pages(conflict)
                conflict = self._again(conflict)
            unchanged = self._unchanged(conflict)
            lost: list[str] = []
            if not self._is_carried_out(conflict):
                why = f"--keep {choice}"
                lost = await self._losing.keep(conflict, path, given_up, why, all_of_it, choice)
            result = await self._digest_of_winner(conflict, choice)
            copy = await self._resolve(conflict, choice, copy_name, unchanged)
            self._losing.decided(conflict, path, result, copy)
            return Decided(path, conflict.kind, choice, copy, lost)

    async def _resolve(
        self, conflict: Conflict, choice: str, copy_name: str, unchanged: Callable[[], None]
    ) -> str | None:
        template = COPY_TEMPLATE.set(copy_name)
        try:
            if choice == BASE:
                unchanged()
                await self._resolver.base_attributes(conflict)
                return None
            return await self._resolver.resolve(conflict, Resolution(choice), unchanged)
        except UsageError as error:
            if choice == LOCAL:  # which drops nothing of ours
                self._losing.cancelled(conflict.id)
            if isinstance(error, MovedOn):
                await self._find_anew(conflict)
            raise
        finally:
            COPY_TEMPLATE.reset(template)

    def check_content(self, conflict: Conflict, choice: str) -> None:
        """Raise ``UsageError`` where a content decides nothing, or the base's is not here."""
        if choice == BASE and not has_base(conflict.kind):
            raise UsageError("there is no version from before both changes; use another --keep")
        if choice == BASE and self._base_of(conflict) is None:
            raise UsageError("the content from before both changes is not here any more")
        self._resolver.content.check(conflict, self._record(conflict))

    async def _keep_base(self, number: int, all_of_it: bool) -> Decided:
        conflict = self._get(number)
        self.check_content(conflict, BASE)
        base = self._base_of(conflict)
        assert base is not None
        staged = await self.staged_copy(base)
        return await self.take(number, staged, BASE, "--keep base", all_of_it=all_of_it)

    async def take(
        self,
        number: int,
        staged: str,
        choice: str = WITH,
        why: str = "--with a file",
        seen: bytes | None = None,
        made_from: str | None = None,
        all_of_it: bool = False,
    ) -> Decided:
        """Decide for a content, in a durable staging file that is ours from now on.

        ``seen`` is the token of the server's revision that it was made from; None: of the one
        that the conflict shows. ``made_from`` is the witness of our variant, likewise.
        """
        try:
            async with self._locked(number) as conflict:
                return await self._take(conflict, staged, choice, why, seen, made_from, all_of_it)
        finally:
            unlink_quietly(staged)

    async def _take(
        self,
        conflict: Conflict,
        staged: str,
        choice: str,
        why: str,
        seen: bytes | None,
        made_from: str | None,
        all_of_it: bool,
    ) -> Decided:
        path, record = self._path_of(conflict), self._record(conflict)
        self._resolver.content.check(conflict, record)
        shown = conflict.server_entry.token if conflict.server_entry is not None else None
        if seen is not None and seen != shown:
            raise UsageError(MOVED_ON)
        there = await self._prepare(conflict, record, choice)
        conflict = self._again(conflict)
        unchanged = self._unchanged(conflict, made_from)
        given_up = self._lost_by(conflict, record, choice)
        lost = await self._losing.keep(conflict, path, given_up, why, all_of_it, choice)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(None, digest_of_file, staged)
        known = None
        if there is not None:
            known = await self._resolver.steps.variant_digest(conflict, there)
        self._again(conflict)
        self._resolver.content.check(conflict, record)
        await self._resolver.take(
            conflict, record, staged, there, known, unchanged, is_base=choice == BASE
        )
        self._losing.decided(conflict, path, result)
        return Decided(path, conflict.kind, choice, None, lost)

    # -- steps ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _locked(self, number: int) -> AsyncIterator[Conflict]:
        """One decision about a conflict at a time; it is looked up when the turn has come."""
        lock = self._locks.setdefault(number, asyncio.Lock())
        async with lock:
            conflict, deciding = self._get(number), self._context.deciding
            deciding[conflict.node] += 1
            try:
                yield conflict
            finally:
                deciding[conflict.node] -= 1
                if not deciding[conflict.node]:
                    del deciding[conflict.node]

    def _get(self, number: int) -> Conflict:
        conflict = self._store.conflicts.get(number)
        if conflict is None:
            raise UsageError(NO_LONGER)
        return conflict

    def _check_seen(self, conflict: Conflict, path: bytes) -> None:
        """What is written past us is seen only at the end: it must not be what is given up."""
        for node, place in self._losing.losing_here(conflict, path):
            opened = self._context.opened.get(node)
            if opened is not None and opened.mappers:
                what = "it" if node == conflict.node else os.fsdecode(place)
                raise UsageError(
                    f"a program may be writing to {what} through a mapping, which is not seen;"
                    " close it there and try again, or use --keep local"
                )

    async def _have_pages(self, conflict: Conflict) -> None:
        """What programs wrote to the kernel's pages belongs to our variant."""
        nodes = self._store.nodes

        def is_concerned(node: NodeId) -> bool:
            above = [parent for parent, _ in nodes.names(node)]
            inside = any(nodes.is_ancestor(conflict.node, directory) for directory in above)
            return node == conflict.node or inside

        everything = self._context.opened.all()
        await self._context.pages.have(one for one in everything if is_concerned(one.node))

    def _unchanged(self, conflict: Conflict, known: str | None = None) -> Callable[[], None]:
        """A check that our variant is what it was, or was then: what is kept is what goes."""
        before = known or self._witness(conflict)

        def check() -> None:
            if self._witness(conflict) != before:
                raise UsageError(CHANGED_HERE)

        return check

    def _witness(self, conflict: Conflict) -> str:
        """Another text once our variant, or a file in it that has unsent content, was changed."""
        node, witness = self._store.nodes.get(conflict.node), self._resolver.content.witness
        if node is None or node.kind is not Kind.DIRECTORY:
            return witness(conflict.node)
        inside = self._losing.losing_here(conflict, b"")
        return " ".join(f"{child}.{witness(child)}" for child, _ in inside)

    async def completed(self, number: int) -> Conflict:
        """The conflict with all of the server's variant, if that can be had now."""
        if not self._get(number).server_complete:
            await self._completed(number)
        return self._get(number)

    def _again(self, conflict: Conflict) -> Conflict:
        """The conflict as it is after a wait."""
        return self._get(conflict.id)

    def _is_carried_out(self, conflict: Conflict) -> bool:
        """Whether an earlier decision was cut off when all but the conflict was gone.

        What it gave up is in the history; what is here now must not take its place there.
        """
        return bool(conflict.record_seqs) and self._record(conflict) is None

    def _record(self, conflict: Conflict) -> Record | None:
        for seq in conflict.record_seqs:
            record = self._store.journal.get(seq)
            if record is not None:
                return record
        return None

    async def _prepare(
        self, conflict: Conflict, record: Record | None, choice: str
    ) -> Entry | None:
        """Settle, check, and have whole what will be given up; what the server has now."""
        if record is not None:
            await self._resolver.strangers.settle(record)
        there: Entry | None = None
        if overwrites(conflict.kind, choice):
            there = await self._there(conflict, record)
            if differs(conflict.server_entry, there):
                await self._find_anew(conflict)
                raise UsageError(MOVED_ON)
        elif record is None:
            known = self._store.server.get(conflict.node)
            there = known.entry() if known is not None else None
            if SERVER in loses(conflict.kind, choice) and differs(conflict.server_entry, there):
                await self._show_as_it_is(conflict, there)
                raise UsageError(MOVED_ON)
        if SERVER in loses(conflict.kind, choice) and not conflict.server_complete:
            await self._completed(conflict.id)
        return there

    async def _there(self, conflict: Conflict, record: Record | None) -> Entry | None:
        """What stands on the server in the place of the node, at this moment."""
        if record is None:
            path = self._store.server.path(conflict.node)
        elif record.kind in MOVING:
            return await self._at_either_name(conflict, record)
        else:
            places = self._resolver.steps.places.of(record)
            path = places.target if record.kind is RecordKind.CREATE else places.path
        return None if path is None else await self._resolver.steps.stat(path)

    async def _at_either_name(self, conflict: Conflict, record: Record) -> Entry | None:
        """What was shown may stand under the old name, or be in the way under the new one."""
        steps = self._resolver.steps
        places = (steps.places.displaced_by(record), steps.places.of(record).path)
        found = [await steps.stat(path) for path in places if path is not None]
        there = [entry for entry in found if entry is not None]
        shown = [entry for entry in there if not differs(conflict.server_entry, entry)]
        return next(iter(shown or there), None)

    async def _find_anew(self, conflict: Conflict) -> None:
        """Replay meets the server as it is now, and records what it finds."""
        with self._store.transaction():
            for seq in conflict.record_seqs:
                if self._store.journal.get(seq) is not None:
                    self._store.journal.set_state(seq, RecordState.PENDING)
            self._store.conflicts.remove(conflict.id)
        self._context.on_journal()
        await self._found_anew(conflict.node)

    async def _show_as_it_is(self, conflict: Conflict, there: Entry | None) -> None:
        """What came back was taken over in a newer revision: that is the server's variant."""
        self._store.conflicts.update(conflict.id, server_entry=there, server_complete=False)
        await self._completed(conflict.id)

    def too_large(self, conflict: Conflict, choice: str) -> list[str]:
        """The variants that a decision would give up and the history could not take."""
        which = self._lost_by(conflict, self._record(conflict), choice)
        return self._losing.too_large(conflict, which, self._path_of(conflict))

    def _lost_by(self, conflict: Conflict, record: Record | None, choice: str) -> frozenset[str]:
        """The contents that a decision gives up. Attributes and names lose none."""
        lost = loses(conflict.kind, choice)
        if record is None and SERVER in lost and self._store.journal.has_store(conflict.node):
            return lost | {LOCAL}  # what came back was worked on
        if conflict.kind == ConflictKind.UPDATE_REMOVE:
            return lost  # with all that was done to it since, whatever was the first of it
        if conflict.kind == ConflictKind.TYPE:
            return lost  # the node goes, whatever was the first that was done to it
        if record is not None and record.kind in (RecordKind.SETATTR, RecordKind.SETXATTR):
            return frozenset()
        if record is not None and record.kind is RecordKind.LINK:
            return lost - {LOCAL}
        return lost

    async def _digest_of_winner(self, conflict: Conflict, choice: str) -> bytes | None:
        """So that an undo knows the file that was decided for; None where it is not here."""
        loop = asyncio.get_running_loop()
        path: str | None = None
        both = choice == BOTH and conflict.kind != ConflictKind.UPDATE_REMOVE
        if choice == SERVER or both:  # which has the name then
            path = conflict.server_variant if conflict.server_complete else None
        elif choice in (LOCAL, BOTH):
            node = self._context.node(conflict.node)
            whole = node is not None and node.kind is Kind.FILE
            if whole and node is not None and self._store.content.covers(node.id, 0, node.size):
                path = self._store.content.fd_path(node.id)
        if path is None:
            return None
        try:
            return await loop.run_in_executor(None, digest_of_file, path)
        except FileNotFoundError:
            return None

    # -- contents -------------------------------------------------------------------------

    async def staged_copy(self, path: str | bytes) -> str:
        """A durable staging copy of a file of the user's; ``UsageError`` where it is none."""
        staged = self._store.content.stage_path()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, _copy_regular, path, staged)
        except OSError as error:
            unlink_quietly(staged)
            raise UsageError(
                f"{os.fsdecode(path)}: cannot be read: {error.strerror or error}"
            ) from error
        except BaseException:
            unlink_quietly(staged)
            raise
        return staged


def _copy_regular(source: str | bytes, target: str) -> None:
    """Blocking. Never waits for a FIFO, never reads a device."""
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(read)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{os.fsdecode(source)}: is a directory; give a file")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{os.fsdecode(source)}: is not a regular file")
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(read, "rb", closefd=False) as source_file, open(write, "wb") as target_file:
            shutil.copyfileobj(source_file, target_file, 1 << 20)
        fsync_path(target)
    finally:
        os.close(read)

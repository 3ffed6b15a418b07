"""Keeping what a decision gives up, before it is given up.

The rows are committed before the decision is carried out, and shown once it was: a daemon that
dies in between has them, and the conflict, still.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from dataclasses import replace

from msgspec import Struct

from awayfs.core.conflicts import ConflictKind
from awayfs.core.deciding import BOTH
from awayfs.core.errors import UsageError
from awayfs.core.history import Limits, to_cull
from awayfs.core.types import Entry, Kind, NodeId, Range
from awayfs.store.conflicts import Conflict
from awayfs.store.files import clone_or_copy, fsync_path, unlink_quietly
from awayfs.store.history import Lost
from awayfs.store.nodes import Node
from awayfs.volume.context import SECOND_NS, Context
from awayfs.volume.fault import fault
from awayfs.volume.server_variants import VARIANT_LIMIT
from awayfs.volume.shapes import ABSENT, Bare, shape_of, shape_of_entry

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NOT_HERE = (
    "the server's version is not here, and could not be fetched now, so nothing was decided; try"
    " again, or use --keep both or server"
)
COPIED = (ConflictKind.UPDATE_UPDATE, ConflictKind.NAME_NAME)
"""Conflicts of two contents: to keep both makes a conflict copy of ours."""
UNDONE = "undone"
TRIES = 3
CULL_NS = 10 * SECOND_NS


class TooLarge(UsageError):
    """The history cannot take a variant, and it was not to be given up without."""


class _Staged(Struct, frozen=True):
    """A variant on its way into the history."""

    lost: Lost
    path: str | None


class Losing:
    """Puts variants into the history, and takes old ones out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store
        self._bare = Bare(context)
        self._culled_ns = 0

    @property
    def limits(self) -> Limits:
        """What may be kept, by the user's settings of this moment."""
        return self._context.settings().history

    async def keep(
        self,
        conflict: Conflict,
        path: bytes,
        which: frozenset[str],
        why: str,
        all_of_it: bool,
        choice: str,
    ) -> list[str]:
        """Keep the variants of a conflict that will lose; those that are too large, by name.

        With them goes what ``choice`` gives up beside contents. Raises ``UsageError`` when there
        is no room for them, or the server's is not here, and, with ``all_of_it``, ``TooLarge``:
        nothing was decided then.
        """
        staged: list[_Staged] = []
        too_large: list[str] = []
        try:
            if "local" in which:
                for node_id, place in self.losing_here(conflict, path):
                    one = await self._stage_local(conflict, node_id, place, why)
                    if one is None:
                        too_large.append("local")
                    else:
                        staged.append(one)
            if "server" in which:
                entry = conflict.server_entry
                if entry is not None and entry.kind is Kind.FILE:
                    one = self._stage_server(conflict, entry, path, why)
                    staged += [one] if one else []
                    if one is None and entry.size <= min(self.limits.one, VARIANT_LIMIT):
                        raise UsageError(NOT_HERE)
                    too_large += [] if one else ["server"]
            if not self.limits.holds(one.lost.size for one in staged):
                too_large += [one.lost.which for one in staged]
            if too_large and all_of_it:
                raise TooLarge(self.not_kept(too_large[0]))
            staged += await self._going_on(conflict, path, which, choice, why)
            have = {(one.lost.path, one.lost.which) for one in staged}
            bare = self._bare.given_up(conflict, path, choice, why)
            staged += [_Staged(one, None) for one in bare if (one.path, one.which) not in have]
            self._commit(staged)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise UsageError(
                "there is no room to keep the version that would be given up, so nothing was"
                " decided; make room on the disk of the state directory"
            ) from error
        finally:
            for one in staged:
                if one.path is not None:
                    unlink_quietly(one.path)
        fault("resolve.kept")
        return sorted(set(too_large))

    def not_kept(self, which: str) -> str:
        """What is said before a variant is given up that the history cannot take."""
        return f"the {which} version is too large for the history: it could not be taken back"

    def too_large(self, conflict: Conflict, which: frozenset[str], path: bytes) -> list[str]:
        """The variants that a decision would give up for good, before it is carried out."""
        found: list[str] = []
        entry, limit = conflict.server_entry, self.limits.one
        here = self.losing_here(conflict, path) if "local" in which else ()
        ours = [self._context.node(node) for node, _ in here]
        if any(node is not None and node.size > limit for node in ours):
            found += [] if self._shares_blocks() else ["local"]
        fetched = conflict.server_complete and conflict.server_variant is not None
        theirs = entry.size if entry is not None and entry.kind is Kind.FILE else 0
        if "server" in which and theirs > VARIANT_LIMIT and not fetched:
            found.append("server")
        all_sizes = [node.size for node in ours if node is not None]
        all_sizes += [theirs] if "server" in which else []
        if not found and not self.limits.holds(all_sizes):
            found += sorted(which)
        return found

    def _shares_blocks(self) -> bool:
        """Whether the history can have a file without a copy of its bytes."""
        source, target = self._store.content.stage_path(), self._store.content.stage_path()
        try:
            os.close(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return clone_or_copy(source, target, (), -1) is not None
        finally:
            unlink_quietly(source)
            unlink_quietly(target)

    async def _going_on(
        self, conflict: Conflict, path: bytes, which: frozenset[str], choice: str, why: str
    ) -> list[_Staged]:
        """Ours, where it goes on as a conflict copy: taken back, it is under its name again."""
        node = self._store.nodes.get(conflict.node)
        if choice != BOTH or conflict.kind not in COPIED or "local" in which:
            return []
        if node is None or node.kind is not Kind.FILE:
            return []
        one = await self._stage_local(conflict, node.id, path, why)
        return [one] if one is not None else []

    def _commit(self, staged: list[_Staged]) -> None:
        with self._store.transaction():
            for one in staged:
                self._store.history.add(one.lost, one.path)

    def losing_here(self, conflict: Conflict, path: bytes) -> Iterator[tuple[NodeId, bytes]]:
        """The file in conflict, or all files with unsent content inside the directory."""
        node = self._store.nodes.get(conflict.node)
        if node is None:
            return
        if node.kind is Kind.FILE:
            yield node.id, path
        elif node.kind is Kind.DIRECTORY:
            pending, seen = [(node.id, path)], {node.id}
            while pending:
                directory, above = pending.pop()
                for name, child in self._store.nodes.children(directory):
                    place = above + b"/" + name
                    if child.id in seen:
                        continue  # a state of before rings were ruled out: fsck mends it
                    if child.kind is Kind.DIRECTORY:
                        seen.add(child.id)
                        pending.append((child.id, place))
                    elif child.kind is Kind.FILE and self._store.journal.has_any(child.id):
                        yield child.id, place

    async def _stage_local(
        self, conflict: Conflict, node_id: NodeId, path: bytes, why: str
    ) -> _Staged | None:
        staged = await self.copy_of(node_id)
        node = self._context.node(node_id)
        if staged is None or node is None:
            return None
        lost = self._lost(conflict.id, node, path, "local", staged, why)
        lost = replace(lost, before=shape_of(self._context, node))
        partial = not self._store.content.covers(node_id, 0, node.size)
        return _Staged(replace(lost, partial=partial), staged)

    async def copy_of(self, node_id: NodeId) -> str | None:
        """The content of a file as a durable staging file; None when it is too large.

        What is not here of it was never a variant: holes stand for it.
        """
        for _ in range(TRIES):
            node = self._context.node(node_id)
            opened = self._context.opened.get(node_id)
            if node is None:
                return None
            if opened is not None:
                self._context.opened.save(opened)
            edits = self._context.opened.edits(node_id)
            staged = await self._copied(node)
            if staged is None or self._context.opened.edits(node_id) == edits:
                return staged
            unlink_quietly(staged)
        raise UsageError("a program is writing it; wait until it is done and try again")

    async def _copied(self, node: Node) -> str | None:
        staged = self._store.content.stage_path()
        if not self._store.content.has(node.id):
            fd = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.ftruncate(fd, node.size)
            os.close(fd)
            return staged
        source, limit = self._store.content.fd_path(node.id), self.limits.one
        ranges = [
            Range(r.start, min(r.end, node.size))
            for r in self._store.content.ranges(node.id)
            if r.start < node.size
        ]

        def copy() -> bool:
            if clone_or_copy(source, staged, ranges, limit) is None:
                return False
            os.truncate(staged, node.size)
            fsync_path(staged)
            return True

        copied = await asyncio.get_running_loop().run_in_executor(None, copy)
        return staged if copied else None

    def _stage_server(
        self, conflict: Conflict, entry: Entry, path: bytes, why: str
    ) -> _Staged | None:
        """The server's variant is a file of its own already, and never changes."""
        variant = conflict.server_variant
        staged = self._store.content.stage_path()
        if entry.size == 0:
            os.close(os.open(staged, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        elif variant is None or not conflict.server_complete or not os.path.exists(variant):
            return None
        else:
            os.link(variant, staged)
        lost = Lost(
            conflict=conflict.id,
            node=conflict.node,
            path=path,
            which="server",
            mode=entry.mode,
            mtime_ns=entry.mtime_ns,
            size=os.stat(staged).st_size,
            kept_ns=self._context.now(),
            why=why,
            before=shape_of_entry(self._context, entry),
        )
        return _Staged(lost, staged)

    def _lost(
        self, conflict: int, node: Node, path: bytes, which: str, staged: str, why: str
    ) -> Lost:
        return Lost(
            conflict=conflict,
            node=node.id,
            path=path,
            which=which,
            mode=node.mode,
            mtime_ns=node.mtime_ns,
            size=os.stat(staged).st_size,
            kept_ns=self._context.now(),
            why=why,
        )

    def current(self, node: Node, path: bytes, staged: str | None, result: bytes | None) -> Lost:
        """What an undo displaces: a loss of its own, that can be undone like any other.

        ``staged`` None: it changes no content.
        """
        number, shape = self._store.history.new_decision(), shape_of(self._context, node)
        if staged is None:
            lost = self._bare.lost(number, node.id, path, "current", shape, UNDONE)
        else:
            lost = self._lost(number, node, path, "current", staged, UNDONE)
        return self._store.history.add(replace(lost, result=result, before=shape), staged)

    def made(self, path: bytes, made: NodeId) -> Lost:
        """An undo has made something anew: taking that back has it go."""
        number = self._store.history.new_decision()
        lost = self._bare.lost(number, made, path, "current", ABSENT, UNDONE)
        return self._store.history.add(lost, None)

    def decided(
        self, conflict: Conflict, path: bytes, result: bytes | None, copy: str | None = None
    ) -> None:
        """The decision was carried out; ``result`` is the digest of what won. Culls, too."""
        history = self._store.history
        lost = history.of_conflict(conflict.id)
        if lost:
            history.set_result(conflict.id, result)
        for one in lost:
            if one.before is not None and one.path == path:
                before = self._bare.with_name(conflict, one)
                history.set_shapes(one.id, before, self._bare.after(conflict, one, path, copy))
        self.cull_now_and_then()

    def cancelled(self, conflict: int) -> None:
        """The decision was not carried out, and nothing of it was begun: nothing lost."""
        lost = self._store.history.of_conflict(conflict)
        self._store.history.remove([one.id for one in lost])

    def cull_now_and_then(self) -> None:
        """``cull``, unless that was done a moment ago."""
        if self._context.now() - self._culled_ns > CULL_NS:
            self.cull()

    def cull(self) -> int:
        """What is too old or too much goes; how many."""
        self._culled_ns = self._context.now()
        gone = to_cull(self._store.history.weights(), self._context.now(), self.limits)
        self._store.history.remove(gone)
        return len(gone)

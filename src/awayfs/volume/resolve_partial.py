"""Deciding about content of which a part is gone for good.

A file was changed while only parts of it were here, and the server has replaced, or removed, the
version that the rest belonged to. What is here must not go out as if it were the file. So it
cannot win the name; with ``--keep both`` it is saved beside it under a name that says what it
is, with zeros where nothing is known and a note that tells the ranges that are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import EDISCONDATA, RemoteError, UsageError
from awayfs.core.namespace import Slot
from awayfs.core.naming import NAME_MAX, conflict_copy_name
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Kind, NodeId, Range
from awayfs.store.conflicts import Conflict
from awayfs.store.nodes import Node
from awayfs.volume.changes import Changes
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.fetch import Fetcher
from awayfs.volume.journaling import Journaling
from awayfs.volume.resolve_server import KeepServer
from awayfs.volume.resolve_steps import Steps

WHOLE, PART = b" (conflict ", b" (partial conflict "
NOTE = b".known-ranges.txt"
MOVING = (RecordKind.CREATE, RecordKind.LINK, RecordKind.RENAME)
REMAKING = (ConflictKind.TYPE, ConflictKind.NAME_NAME)


class KeepKnown:
    """Carries out decisions that want content which is not all there any more."""

    def __init__(
        self,
        context: Context,
        journaling: Journaling,
        changes: Changes,
        fetcher: Fetcher,
        server: KeepServer,
        steps: Steps,
    ) -> None:
        self._context = context
        self._store = context.store
        self._journaling = journaling
        self._changes = changes
        self._fetcher = fetcher
        self._server = server
        self._steps = steps

    async def is_needed(self, conflict: Conflict, record: Record) -> bool:
        """Whether a decision for the local variant meets one that cannot be made whole.

        What the server still has of it is fetched. Raises ``UsageError`` when it cannot be asked.
        """
        return _wants_content(conflict, record) and await self.is_lost(record.node)

    async def is_lost(self, number: NodeId) -> bool:
        """Whether a part of a file is neither here nor on the server: likewise."""
        node = self._context.node(number)
        if node is None or node.kind is not Kind.FILE or self._fetcher.is_whole(node):
            return False
        try:
            await self._fetcher.whole_to_send(number, first=True)  # what holds the room may wait
        except OSError as error:
            if error.errno == EDISCONDATA:
                raise UsageError(
                    "a part of it is not here, and the server is away; try again when it is back"
                ) from error
        except RemoteError as error:
            raise UsageError(f"a part of it is not here, and cannot be fetched: {error}") from error
        now = self._context.node(number)
        return now is not None and not self._fetcher.is_whole(now)

    async def keep(self, conflict: Conflict, record: Record, keep: Resolution) -> str | None:
        """Save what is known and take the server's; ``UsageError`` for anything but ``both``."""
        known = self._store.content.ranges(record.node)
        if keep is not Resolution.BOTH:
            also = "--keep both to save what is here beside it, or " if known else ""
            raise UsageError(
                f"a part of it was never here, and the server has it no more: use {also}"
                "--keep server"
            )
        node = self._context.node(record.node)
        saved: list[str] = []

        def save() -> None:
            if node is not None and known:
                saved.append(self.save(self._steps.beside(conflict), node, known))

        await self._server.keep(conflict, record, save)
        if saved:
            fault("resolve.copied")
        return saved[0] if saved else None

    def save(self, place: Slot, node: Node, known: Sequence[Range]) -> str:
        """The known ranges as a new file beside a place, with its own records, and a note about
        them; its name.
        """
        parent, name = place
        when = time.strftime("%Y-%m-%d", time.localtime(self._context.now() / 1e9))
        host = self._context.options.host
        copy = _partial_name(name, host, when, {n for n, _ in self._store.nodes.children(parent)})
        with self._store.transaction():
            made = self._make(parent, copy, node)
            source, target = self._store.content.open(node.id), self._store.content.open(made)
            try:
                for part in known:
                    _copy(source, target, part)
                os.ftruncate(target, node.size)
            finally:
                os.close(source)
                os.close(target)
            self._finish(made, node.size, node.mtime_ns)
            self._save_note(parent, copy, node, known)
        return os.fsdecode(copy)

    def _save_note(self, parent: NodeId, copy: bytes, node: Node, known: Sequence[Range]) -> None:
        text = _note(os.fsdecode(copy), self._context.options.host, node.size, known)
        data = os.fsencode(text)
        made = self._make(parent, copy + NOTE, node)
        fd = self._store.content.open(made)
        try:
            os.pwrite(fd, data, 0)
        finally:
            os.close(fd)
        self._finish(made, len(data), self._context.now())

    def _make(self, parent: NodeId, name: bytes, like: Node) -> NodeId:
        mode = like.mode & 0o666
        made = self._changes.create(parent, name, Kind.FILE, mode, like.uid, like.gid)
        self._context.kernel.forget_entry(parent, name)
        return made.id

    def _finish(self, node: NodeId, size: int, mtime_ns: int) -> None:
        self._store.nodes.update(node, size=size, mtime_ns=mtime_ns)
        self._store.content.add_range(node, 0, size)
        self._journaling.store(node)


def _wants_content(conflict: Conflict, record: Record) -> bool:
    """Whether the local variant goes out as a whole when it is decided for."""
    if conflict.kind == ConflictKind.REFUSED:
        return False
    if conflict.kind == ConflictKind.UPDATE_REMOVE or record.kind is RecordKind.STORE:
        return True
    return conflict.kind in REMAKING and record.kind not in MOVING


def _partial_name(name: bytes, host: str, when: str, there: set[bytes]) -> bytes:
    """``NAME (partial conflict HOST DATE).EXT``; that name and its note's are free."""

    def marked(candidate: bytes) -> bytes:
        at = candidate.rfind(WHOLE)
        return candidate[:at] + PART + candidate[at + len(WHOLE) :]

    def is_taken(candidate: bytes) -> bool:
        return bool({marked(candidate), marked(candidate) + NOTE} & there)

    room = NAME_MAX - len(PART) + len(WHOLE) - len(NOTE)
    return marked(conflict_copy_name(name, host, when, is_taken, room))


def _copy(source: int, target: int, part: Range) -> None:
    offset = part.start
    while offset < part.end:
        copied = os.copy_file_range(source, target, part.end - offset, offset, offset)
        if copied == 0:
            break
        offset += copied


def _note(name: str, host: str, size: int, known: Sequence[Range]) -> str:
    lines = [f"  {part.start} to {min(part.end, size)}" for part in known if part.start < size]
    return "\n".join(
        [
            f"{name} is NOT a whole file.",
            "",
            f"It was changed on {host} while only parts of it were there. The version that the",
            "rest belonged to was replaced on the server before it could be fetched.",
            "",
            f"Of its {size} bytes, these are known (first byte, and the byte after the last):",
            *lines,
            "Everything else reads as zeros and says nothing about the file.",
            "",
        ]
    )

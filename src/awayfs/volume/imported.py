"""What an import changes: the volume itself, through the path that any local change takes.

Files of the archive lie unpacked in a directory, as ``local-ID`` and ``base-ID``.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Final, Protocol

from msgspec.structs import replace

from awayfs.control.manifest import BaseFacts, NodeFacts
from awayfs.core.diff import Removed
from awayfs.core.errors import UsageError
from awayfs.core.types import ROOT, Attributes, Kind, NodeId, Range
from awayfs.store.files import clone_or_copy, fsync_path, unlink_quietly
from awayfs.store.history import Shape
from awayfs.volume.adopt import Adopter
from awayfs.volume.archived_bases import ArchivedBases
from awayfs.volume.replacing import Replacing
from awayfs.volume.suspects import digest_of_file
from awayfs.volume.volume import Volume

CHUNK: Final = 1 << 20
ONLY_A_PART: Final = "only a part of it is in the archive"


class Skipped(Exception):
    """One record cannot become a change here; the text says why."""


class Onto(Protocol):
    """What records are played onto. Raises what the changes raise, and ``Skipped``."""

    def kind(self, node: NodeId) -> Kind | None:
        """None: there is no such node any more."""

    def is_named(self, node: NodeId) -> bool:
        """Whether others than who has it open see it."""

    def child(self, parent: NodeId, name: bytes) -> NodeId | None: ...

    def create(self, parent: NodeId, name: bytes, shape: Shape) -> NodeId: ...

    def link(self, node: NodeId, parent: NodeId, name: bytes) -> None: ...

    def remove(self, parent: NodeId, name: bytes, kind: Kind) -> None: ...

    def rename(
        self, parent: NodeId, name: bytes, to_parent: NodeId, to_name: bytes, flags: int
    ) -> None: ...

    def set_attributes(self, node: NodeId, attributes: Attributes) -> None: ...

    def set_xattr(self, node: NodeId, name: bytes, value: bytes | None) -> None: ...

    def give_way(self, parent: NodeId, name: bytes, standing: NodeId) -> None:
        """What the server has there becomes a stranger, if nothing of it is ours."""

    def set_back(self, node: NodeId, base: BaseFacts) -> None:
        """Have the base here be the archived one."""

    async def replace(self, node: NodeId, facts: NodeFacts) -> None:
        """All of the content."""

    async def write(self, node: NodeId, facts: NodeFacts) -> None:
        """The ranges of the content that the archive has."""


class Imported:
    """``Onto`` the volume."""

    def __init__(self, volume: Volume, directory: bytes, bases: ArchivedBases) -> None:
        self._volume = volume
        self._context = volume.context
        self._store = volume.store
        self._changes = volume.changes
        self._kernel = volume.context.kernel
        self._place = directory
        self._bases = bases
        self._adopter = Adopter(volume.context)
        self._replacing = Replacing(volume.context)

    # -- names and attributes -------------------------------------------------------------

    def kind(self, node: NodeId) -> Kind | None:
        found = self._store.nodes.get(node)
        return None if found is None else found.kind

    def is_named(self, node: NodeId) -> bool:
        return node == ROOT or bool(self._store.nodes.names(node))

    def child(self, parent: NodeId, name: bytes) -> NodeId | None:
        return self._store.nodes.child_id(parent, name)

    def create(self, parent: NodeId, name: bytes, shape: Shape) -> NodeId:
        made = self._changes.create(
            parent, name, Kind(shape.kind), shape.mode, shape.uid, shape.gid,
            target=shape.target, rdev=shape.rdev,
        )  # fmt: skip
        self._kernel.forget_entry(parent, name)
        return made.id

    def link(self, node: NodeId, parent: NodeId, name: bytes) -> None:
        self._changes.link(node, parent, name)
        self._kernel.forget_entry(parent, name)
        self._kernel.forget_node(node)

    def remove(self, parent: NodeId, name: bytes, kind: Kind) -> None:
        if kind is Kind.DIRECTORY:
            self._changes.rmdir(parent, name)
        else:
            self._changes.unlink(parent, name)
        self._kernel.forget_entry(parent, name)

    def rename(
        self, parent: NodeId, name: bytes, to_parent: NodeId, to_name: bytes, flags: int
    ) -> None:
        self._changes.rename(parent, name, to_parent, to_name, flags)
        self._kernel.forget_entry(parent, name)
        self._kernel.forget_entry(to_parent, to_name)

    def set_attributes(self, node: NodeId, attributes: Attributes) -> None:
        self._changes.set_attributes(node, attributes)
        self._kernel.forget_node(node)

    def set_xattr(self, node: NodeId, name: bytes, value: bytes | None) -> None:
        self._changes.set_xattr(node, name, value, 0)

    def give_way(self, parent: NodeId, name: bytes, standing: NodeId) -> None:
        self._adopter.adopt(parent, [Removed(standing, name)])

    # -- content --------------------------------------------------------------------------

    def set_back(self, node: NodeId, base: BaseFacts) -> None:
        """Not where it has content of ours: of a file with several names that was done when the
        content was imported, which is to stay when one of them goes.
        """
        if self._store.journal.has_store(node):
            return
        now = self._store.server.get(node)
        assert now is not None
        older = replace(
            now.entry(), token=base.token, size=base.size, mtime_ns=base.mtime_ns, weak=True
        )
        with self._store.transaction():
            if now.kind is Kind.FILE:
                self._adopter.drop_content(node, base.size, base.token)
            self._store.server.set(node, older, seen_ns=0, digest=base.digest)

    async def replace(self, node: NodeId, facts: NodeFacts) -> None:
        """All of a content at once: a daemon that dies has sent no half of it.

        Not of a file that a program has open in a way that would show it otherwise: the base
        could not be set back either, and the server's newer version would be replaced unseen.
        """
        store = self._store
        check_free(self._replacing, node)
        made_from = self._replacing.witness(node)
        await self._volume.room.make_or_wait(facts.size, node)
        archived = await self._archived_base(facts)
        staged = await self._staged(facts)
        try:
            self._check_same(node, made_from)
            with store.transaction():
                if facts.base is not None and self._bases.moved_on(node, facts.base):
                    self.set_back(node, facts.base)
                    if archived is not None:
                        self._keep_base(node, facts.base, archived)
                self._volume.journaling.store(node)
                base = store.server.get(node)
                self._replacing.replace(node, staged, base.token if base is not None else None)
        finally:
            unlink_quietly(staged)

    async def _staged(self, facts: NodeFacts) -> str:
        """A whole content of the archive as a staging file; one of a file without any is empty."""
        if facts.member is None:
            staged = self._store.content.stage_path()
            os.close(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            return staged
        fd = os.open(self._member("local", facts.id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_size != facts.size:
                raise OSError(errno.EIO, "a file of the archive is not as long as it says")
            return await self._volume.deciding.staged_copy(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    async def write(self, node: NodeId, facts: NodeFacts) -> None:
        """A part of a content. Its sending needs the rest in any case; with that, it goes in at
        once, too: of a half, nobody could tell later what the server had instead.
        """
        check_free(self._replacing, node)
        check_rest(self._volume, node)
        try:
            await self._volume.fetcher.whole_to_send(node)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Skipped(f"{ONLY_A_PART}, and the rest cannot be had: {error.strerror}") from error
        made_from = self._replacing.witness(node)
        await self._volume.room.make_or_wait(facts.size, node)
        staged = await self._joined(node, facts)
        try:
            self._check_same(node, made_from)
            with self._store.transaction():
                self._volume.journaling.store(node)
                base = self._store.server.get(node)
                self._replacing.replace(node, staged, base.token if base is not None else None)
        finally:
            unlink_quietly(staged)

    def _check_same(self, node: NodeId, made_from: str) -> None:
        """Raise ``Skipped`` where the content is another one than when its successor was begun."""
        if self._replacing.witness(node) != made_from or self._store.nodes.get(node) is None:
            raise Skipped("it was changed here meanwhile")
        check_free(self._replacing, node)

    async def _joined(self, node: NodeId, facts: NodeFacts) -> str:
        """What is here with the ranges of the archive in it, as a staging file."""
        found, content = self._context.node(node), self._store.content
        if found is None or not content.covers(node, 0, found.size):
            raise Skipped("it was changed here meanwhile")
        kept, loop = min(found.size, facts.size), asyncio.get_running_loop()
        staged, archived = content.stage_path(), self._member("local", facts.id)
        fd = content.open(node)
        try:
            await loop.run_in_executor(None, _join, fd, kept, archived, facts, staged)
        except BaseException:
            unlink_quietly(staged)
            raise
        finally:
            os.close(fd)
        return staged

    async def _archived_base(self, facts: NodeFacts) -> str | None:
        """Where the archived base lies, if it is what the archive says that it is: by that digest
        the server's version may be taken for it.
        """
        base, path = facts.base, os.fsdecode(self._member("base", facts.id))
        if base is None or base.member is None:
            return None
        loop = asyncio.get_running_loop()
        believed = await loop.run_in_executor(None, _is_what_it_says, path, base.digest)
        return path if believed else None

    def _keep_base(self, node: NodeId, base: BaseFacts, path: str) -> None:
        """The archived base serves a merge, when the server has moved on.

        Only then: as the base of what the server has now it would be believed to be that.
        """
        ranges = [Range(0, base.size)] if base.size else []
        limit = self._context.options.base_limit
        self._store.content.bases.keep(node, path, ranges, base.token, limit)

    def _member(self, which: str, number: int) -> bytes:
        return os.path.join(self._place, b"%s-%d" % (which.encode(), number))


def check_free(replacing: Replacing, node: NodeId) -> None:
    """Raise ``Skipped`` where a program has it open in a way that would show it otherwise."""
    try:
        replacing.check(node)
    except UsageError as error:
        raise Skipped(str(error)) from error


def check_rest(volume: Volume, node: NodeId) -> None:
    """Raise ``Skipped`` where the archive has a part, and the rest is out of reach."""
    found = volume.context.node(node)
    if found is not None and not volume.fetcher.is_whole(found) and not volume.link.usable:
        raise Skipped(f"{ONLY_A_PART}, and the server is away")


def _join(fd: int, kept: int, archived: bytes, facts: NodeFacts, target: str) -> None:
    """Blocking. What was cut off, and grew again, is in the archive's ranges."""
    clone_or_copy(f"/proc/self/fd/{fd}", target, [Range(0, kept)] if kept else [], kept)
    read = os.open(archived, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with open(target, "r+b") as file:
            file.truncate(kept)
            file.truncate(facts.size)
            for start, end in facts.ranges:
                file.seek(start)
                while start < end:
                    data = os.pread(read, min(CHUNK, end - start), start)
                    if not data:
                        raise OSError(errno.EIO, "a file of the archive is shorter than it says")
                    file.write(data)
                    start += len(data)
    finally:
        os.close(read)
    fsync_path(target)


def _is_what_it_says(path: str, digest: bytes | None) -> bool:
    """Blocking."""
    return os.path.isfile(path) and digest in (None, digest_of_file(path))

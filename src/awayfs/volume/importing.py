"""``awayfs journal import``: an exported journal becomes local changes of this volume again.

The records are played in order, each through the write path, so what follows is what follows any
local change: it is sent, or found to be in conflict. So that the latter is found, what a change
was based on comes from the archive: where the server has moved on since, the base here is set back
to the archived one before the change is made.

A dry run plays them onto a rehearsal instead, so that it says what the import would say.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from typing import Any, Final

from awayfs.control.manifest import NAME, BaseFacts, Manifest, NodeFacts, RecordFacts, read
from awayfs.control.messages import text_of
from awayfs.core.errors import EDISCONDATA, EDISCONNECTED, RemoteError, UsageError
from awayfs.core.records import RecordKind
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.store.history import Shape
from awayfs.store.nodes import Node
from awayfs.volume.archived_bases import ArchivedBases
from awayfs.volume.changes import RENAME_EXCHANGE
from awayfs.volume.fault import fault
from awayfs.volume.imported import ONLY_A_PART, Imported, Onto, Skipped
from awayfs.volume.rehearsing import Rehearsal
from awayfs.volume.slices import Slices
from awayfs.volume.volume import Volume

DEVICES: Final = (Kind.CHARACTER, Kind.BLOCK)
XATTRS: Final = (b"user.", b"system.posix_acl_")
"""Attributes that say something to programs, and give a file no rights."""
OURS: Final = b"user.awayfs."


class Importer:
    """One import. ``load`` checks everything that can be checked, ``apply`` changes.

    ``rehearsed``: nothing is changed, and the report is the one that the import would make.
    """

    def __init__(self, volume: Volume, directory: bytes, *, rehearsed: bool = False) -> None:
        self._volume = volume
        self._context = volume.context
        self._store = volume.store
        self._place = directory
        self._manifest: Manifest
        self._facts: dict[int, NodeFacts] = {}
        self._here: dict[int, NodeId] = {0: 0}
        self._stored: set[int] = set()
        self._written: set[int] = set()
        self._mine: set[NodeId] = {ROOT}
        self._bases = ArchivedBases(self._store.server)
        self._onto: Onto = (
            Rehearsal(volume) if rehearsed else Imported(volume, directory, self._bases)
        )
        self._moved_on: list[str] = []
        self._skipped: list[dict[str, str]] = []
        self._applied = 0

    @property
    def total(self) -> int:
        """Number of records."""
        return len(self._manifest.records)

    def report(self) -> dict[str, Any]:
        """What became of it."""
        return {
            "records": self.total,
            "applied": self._applied,
            "moved_on": self._moved_on,
            "skipped": self._skipped,
        }

    # -- looking --------------------------------------------------------------------------

    async def load(self, *, force: bool) -> None:
        """Read the manifest, and find here what it speaks of. UsageError for a refusal."""
        if self._context.options.read_only:
            raise UsageError("the volume is mounted read-only")
        path = os.path.join(self._place, os.fsencode(NAME))
        data = await asyncio.get_running_loop().run_in_executor(None, _content_of, path)
        self._manifest = read(data)
        if not force:
            self._check_volume()
        self._facts = {facts.id: facts for facts in self._manifest.nodes}
        about = {record.node for record in self._manifest.records}
        about |= {record.replaced for record in self._manifest.records}
        for facts in self._manifest.nodes:
            if facts.base is not None:
                await self._locate(facts, facts.base, facts.id in about)
        await self._know_xattrs()

    async def _know_xattrs(self) -> None:
        """As before any change of one: what is not known cannot be removed, or differ there later.
        What has unsent changes does not get to know more.
        """
        kind = RecordKind.SETXATTR
        changed = {record.node for record in self._manifest.records if record.kind == kind}
        for number in changed & self._here.keys():
            await self._volume.tree.xattrs(self._here[number])

    def _check_volume(self) -> None:
        volume, facts = self._manifest.volume, self._store.facts
        identity = facts.get("volume.identity")
        if volume.identity is not None and identity is not None:
            same = volume.identity == identity
        else:
            same = volume.url == facts.get("volume.url")
        if not same:
            raise UsageError(
                f"it was exported from another volume, {volume.url}; if that is meant, give --force"
            )

    async def _locate(self, facts: NodeFacts, base: BaseFacts, about: bool) -> None:
        node = await self._find(base)
        if node is None:
            return
        self._here[facts.id] = node
        if about and node != ROOT and self._store.journal.has_any(node):
            raise UsageError(
                f"{text_of(base.path)}: has unsent changes of its own here; "
                "send or discard them first"
            )
        if about and self._bases.counts(node, base) and self._matters(facts.id):
            self._moved_on.append(text_of(base.path))

    async def _find(self, base: BaseFacts) -> NodeId | None:
        """What is here of a revision's object: by its path, or its identity on the server."""
        node: Node | None = None
        try:
            node = await self._volume.find(base.path)
        except OSError as error:
            if error.errno in (EDISCONNECTED, EDISCONDATA):
                raise UsageError(
                    f"{text_of(base.path)}: is not known here, and the server is away; go online"
                ) from error
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                raise
        except RemoteError as error:
            raise UsageError(f"{text_of(base.path)}: {error}") from error
        if node is not None and node.kind == base.kind:
            return node.id
        known = self._store.server.by_file_id(base.file_id) if base.file_id else None
        found = self._store.nodes.get(known) if known is not None else None
        return found.id if found is not None and found.kind == base.kind else None

    def _matters(self, number: int) -> bool:
        records = self._manifest.records
        return any(
            (r.node == number and r.kind in ("store", "remove")) or r.replaced == number
            for r in records
        )

    # -- changing -------------------------------------------------------------------------

    async def apply(self) -> AsyncIterator[int]:
        """Play the records; yields how many are done, now and then."""
        slices = Slices()
        for done, record in enumerate(self._manifest.records, 1):
            try:
                self._claim(record)
                await self._play(record)
                self._mine.update(self._touched(record))
                if record.kind == RecordKind.STORE or record.mtime_ns is not None:
                    self._bases.rewritten(self._here.get(record.node, 0))
                self._applied += 1
            except Skipped as skipped:
                self._skip(record, str(skipped))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                    raise
                self._skip(record, error.strerror or str(error))
            fault("import.applied")
            if done % 100 == 0:
                yield done
            await slices.pause()

    def _touched(self, record: RecordFacts) -> set[NodeId]:
        """What is here of the nodes that a record is about."""
        return {
            self._here[number] for number in (record.node, record.replaced) if number in self._here
        }

    def _claim(self, record: RecordFacts) -> None:
        """What was changed here since the import began is not an import's to replace."""
        touched = self._touched(record) - {0}
        if any(map(self._store.journal.has_any, touched - self._mine)):
            raise Skipped("it was changed here meanwhile")
        self._mine |= touched

    def _skip(self, record: RecordFacts, why: str) -> None:
        facts = self._facts[record.node]
        path = facts.path if facts.path is not None else facts.base.path if facts.base else b"?"
        self._skipped.append(
            {"path": text_of(path), "why": f"{record.kind} of record {record.seq}: {why}"}
        )

    async def _play(self, record: RecordFacts) -> None:
        match RecordKind(record.kind):
            case RecordKind.CREATE:
                self._create(record)
            case RecordKind.LINK:
                self._link(record)
            case RecordKind.STORE:
                await self._write(record)
            case RecordKind.REMOVE:
                self._remove(record)
            case RecordKind.RENAME | RecordKind.EXCHANGE:
                self._move(record)
            case RecordKind.SETATTR:
                self._set_attributes(record)
            case RecordKind.SETXATTR:
                self._set_xattr(record)

    def _node(self, number: int) -> NodeId:
        node = self._here.get(number)
        if node is None or not self._is_there(node):
            raise Skipped("it is gone from the server")
        return node

    def _is_there(self, node: NodeId) -> bool:
        """What has no name is there only for who has it open, and is never sent."""
        return self._onto.kind(node) is not None and self._onto.is_named(node)

    def _directory(self, number: int) -> NodeId:
        """A directory here; one that is gone from the server is made again, with those above."""
        node = self._here.get(number)
        if node is not None and self._onto.kind(node) is not None:
            return node
        base = self._facts[number].base
        if base is None:
            raise Skipped("its directory could not be made")
        at = ROOT
        for name in base.path.split(b"/"):
            child = self._onto.child(at, name)
            if child is not None and self._onto.kind(child) is not Kind.DIRECTORY:
                raise Skipped("something else stands where its directory was")
            at = child if child is not None else self._make_directory(at, name)
        self._here[number] = at
        return at

    def _make_directory(self, parent: NodeId, name: bytes) -> NodeId:
        options = self._context.options
        shape = Shape(kind=Kind.DIRECTORY, mode=0o755, uid=options.uid, gid=options.gid)
        made = self._onto.create(parent, name, shape)
        self._mine.add(made)  # no record tells of it
        return made

    def _create(self, record: RecordFacts) -> None:
        facts = self._facts[record.node]
        parent = self._directory(record.parent)
        standing = self._onto.child(parent, record.name)
        if standing is not None and self._onto.kind(standing) is Kind.DIRECTORY == Kind(facts.kind):
            self._here[record.node] = standing  # made here, or there, as well
            return
        self._make_room(parent, record.name)
        made = self._here[record.node] = self._make(parent, record.name, facts)
        if facts.kind == Kind.FILE and not facts.stored:  # an empty file, which no store dates
            self._onto.set_attributes(made, Attributes(mtime_ns=facts.mtime_ns))

    def _make(self, parent: NodeId, name: bytes, facts: NodeFacts) -> NodeId:
        kind = Kind(facts.kind)
        if kind in DEVICES:
            raise Skipped("it is a device; make it with mknod")
        uid, gid = self._owner(facts)
        shape = Shape(
            kind=kind, mode=_harmless(facts.mode, kind), uid=uid, gid=gid,
            target=facts.target, rdev=facts.rdev,
        )  # fmt: skip
        return self._onto.create(parent, name, shape)

    def _owner(self, facts: NodeFacts) -> tuple[int, int]:
        """What was the user's there is the user's here."""
        there, here = self._manifest.volume, self._context.options
        uid = here.uid if facts.uid == there.uid else facts.uid
        return uid, here.gid if facts.gid == there.gid else facts.gid

    def _make_room(self, parent: NodeId, name: bytes) -> None:
        """What the server has there meanwhile becomes a stranger, which replay will meet."""
        standing = self._onto.child(parent, name)
        if standing is None:
            return
        self._onto.give_way(parent, name, standing)
        if self._onto.child(parent, name) is not None:
            raise Skipped("something with unsent changes of its own has the name")

    def _link(self, record: RecordFacts) -> None:
        parent = self._directory(record.parent)
        self._make_room(parent, record.name)
        self._onto.link(self._node(record.node), parent, record.name)

    def _remove(self, record: RecordFacts) -> None:
        parent, node = self._directory(record.parent), self._node(record.node)
        if self._onto.child(parent, record.name) != node:
            raise Skipped("it is elsewhere by now")
        self._set_back(node, self._facts[record.node].base)
        self._onto.remove(parent, record.name, Kind(self._facts[record.node].kind))

    def _move(self, record: RecordFacts) -> None:
        parent, to_parent = self._directory(record.parent), self._directory(record.to_parent)
        node = self._node(record.node)
        exchanging = record.kind == RecordKind.EXCHANGE
        if self._onto.child(parent, record.name) != node:
            raise Skipped("it is elsewhere by now")
        expected = self._here.get(record.replaced) if record.replaced else None
        if exchanging and expected in (None, node):
            raise Skipped("what it was exchanged with is gone from the server")
        if self._onto.child(to_parent, record.to_name) != expected:
            if exchanging:
                raise Skipped("what it was exchanged with is elsewhere by now")
            self._make_room(to_parent, record.to_name)
            if not self._is_there(node) or self._onto.child(parent, record.name) != node:
                raise Skipped("something else stands above it by now")
        elif expected is not None and not exchanging:
            self._set_back(expected, self._facts[record.replaced].base)
        flags = RENAME_EXCHANGE if exchanging else 0
        self._onto.rename(parent, record.name, to_parent, record.to_name, flags)

    def _set_attributes(self, record: RecordFacts) -> None:
        node = self._node(record.node)
        there, here = self._manifest.volume, self._context.options
        uid = here.uid if record.uid == there.uid else record.uid
        gid = here.gid if record.gid == there.gid else record.gid
        kind = self._onto.kind(node)
        assert kind is not None
        mode = None if record.mode is None else _harmless(record.mode, kind)
        self._onto.set_attributes(
            node, Attributes(mode, uid, gid, record.mtime_ns, record.atime_ns)
        )

    def _set_xattr(self, record: RecordFacts) -> None:
        node, name = self._node(record.node), record.xattr_name
        if not name.startswith(XATTRS) or name.startswith(OURS):
            raise Skipped(f"{text_of(name)} is not taken from an archive")
        self._onto.set_xattr(node, name, record.xattr_value)

    # -- content --------------------------------------------------------------------------

    def _set_back(self, node: NodeId, base: BaseFacts | None) -> None:
        """Have the base here be the archived one, where the server has moved on since.

        To be followed by the change, with nothing in between: what is observed then is left to
        replay, which finds that the server has another revision.
        """
        if base is not None and self._bases.moved_on(node, base):
            self._onto.set_back(node, base)

    async def _write(self, record: RecordFacts) -> None:
        """All of a node's content, at its first STORE: what is sent is one content anyway."""
        facts = self._facts[record.node]
        if record.node in self._stored:
            if record.node in self._written:  # a time that was set in between is not that of all
                self._date(self._node(record.node), facts)
            return
        self._stored.add(record.node)
        if facts.path is None:
            return  # it was removed again
        if facts.member is None and facts.size:
            raise Skipped("its content is not in the archive")
        whole = facts.ranges == ([(0, facts.size)] if facts.size else [])
        if not whole and not self._has_rest(facts):
            raise Skipped(f"{ONLY_A_PART}, and the rest is gone from the server")
        node = self._to_write(facts)
        if whole:
            await self._onto.replace(node, facts)
        elif facts.base is not None and self._bases.moved_on(node, facts.base):
            raise Skipped(f"{ONLY_A_PART}, and the server has another version")
        else:
            await self._onto.write(node, facts)
        self._written.add(record.node)
        self._bases.stored(node)
        self._date(node, facts)

    def _date(self, node: NodeId, facts: NodeFacts) -> None:
        self._onto.set_attributes(node, Attributes(mtime_ns=facts.mtime_ns))

    def _has_rest(self, facts: NodeFacts) -> bool:
        """Whether what the archive has a part of was changed in a file that still is there."""
        node = self._here.get(facts.id)
        return facts.base is not None and node is not None and self._is_there(node)

    def _to_write(self, facts: NodeFacts) -> NodeId:
        """The file; one that is gone from the server is made again where it was."""
        node = self._here.get(facts.id)
        if node is not None and self._is_there(node):
            return node
        base = facts.base
        if base is None:
            raise Skipped("it could not be made")
        above, _, name = base.path.rpartition(b"/")
        parent = ROOT
        for part in above.split(b"/") if above else ():
            child = self._onto.child(parent, part)
            parent = child if child is not None else self._make_directory(parent, part)
        self._make_room(parent, name)
        self._here[facts.id] = self._make(parent, name, facts)
        return self._here[facts.id]


def _harmless(mode: int, kind: Kind) -> int:
    """Who wrote an archive does not say as whom its programs run."""
    return mode if kind is Kind.DIRECTORY else mode & ~(stat.S_ISUID | stat.S_ISGID)


def _content_of(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()

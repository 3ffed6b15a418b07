"""Deciding about an exchange of two names (RENAME_EXCHANGE) that the server has come between.

There are two nodes to it. Each either stands where it stood on the server, or is gone there; a
decision that looked at one alone would leave the other one under different names here and there.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.conflicts import Resolution
from awayfs.core.earlier_names import rest_of
from awayfs.core.errors import UsageError
from awayfs.core.records import Record, RecordKind
from awayfs.core.types import Entry, NodeId
from awayfs.store.server import ServerNode
from awayfs.volume.context import Context
from awayfs.volume.fault import fault
from awayfs.volume.giving_up import NAMING, GivingUp
from awayfs.volume.journaling import Journaling
from awayfs.volume.observe import Observer
from awayfs.volume.resolve_local import KeepLocal
from awayfs.volume.resolve_partial import KeepKnown
from awayfs.volume.resolve_steps import Steps
from awayfs.volume.returning import Returning
from awayfs.volume.searching import join

Place = tuple[NodeId, bytes]
INSIDE = "its place on the server is inside of it here; move that out here first"
LOST = (
    "the content of one of the two is neither here nor on the server: use --keep both, by which the"
    " other one has its new name, or --keep server"
)
TAKEN = "another has its name here; rename that one, or use --keep local"


class _Side(Struct, frozen=True):
    """One of the two: its name before and after, and whether the server still has it there."""

    node: NodeId
    home: Place
    to: Place
    stands: bool


class KeepExchange:
    """Carries out decisions about an exchange."""

    def __init__(
        self,
        context: Context,
        observer: Observer,
        journaling: Journaling,
        giving_up: GivingUp,
        steps: Steps,
        local: KeepLocal,
        known: KeepKnown,
    ) -> None:
        self._context = context
        self._store = context.store
        self._observer = observer
        self._known = known
        self._local = local
        self._journaling = journaling
        self._giving_up = giving_up
        self._steps = steps
        self._returning = Returning(context)

    async def keep(self, record: Record, keep: Resolution) -> str | None:
        """Decide; what is there of both sides stays with ``both`` as with ``local``.

        The path of a copy, if one was made of what is known of a content that is lost.
        """
        if keep is Resolution.SERVER:
            await self._keep_server(record)
            return None
        return await self._keep_local(record, keep)

    async def _keep_server(self, record: Record) -> None:
        """Both go back to their names; what is gone there, and unchanged here, goes."""
        sides = await self._sides(record)
        with self._store.transaction():
            self._store.journal.remove([record.seq])
            standing = [self._what_stands(side, record) for side in sides]
            for side in sides:
                self._check_home_since(side, record.seq)
            going = [
                (side, node)
                for side, node in zip(sides, standing, strict=True)
                if node and (node != side.node or side.stands or self._has_work(node))
            ]
            staying = [node for side, node in going if self._would_vanish(side, node)]
            for side, node in zip(sides, standing, strict=True):
                if node not in staying:
                    self._giving_up.name(*side.to, node)
            for side, node in going:
                if node not in staying:
                    self._check_home(side, node)
                    self._returning.name(*side.home, node)
            left = [side for side in sides if side not in [gone for gone, _ in going]]
            for side in left:  # the other side may have given its node a name
                if not self._store.nodes.names(side.node):
                    self._come_back(side)
        await self._steps.look([record.parent, record.to_parent])

    async def _keep_local(self, record: Record, keep: Resolution) -> str | None:
        """What stands is renamed; what is gone is made anew under the name that it has here.

        What was never here of it is fetched, where the server has it elsewhere. If that is lost,
        it goes with ``both``, and what is known of it is saved; ``local`` is refused.
        """
        sides = await self._sides(record)
        standing = [side for side in sides if side.stands]
        if len(standing) == len(sides):
            self._steps.release(record)
            return None
        linked = [s for s in sides if not s.stands and await self._is_linked(s, record.seq)]
        gone = [side.node for side in sides if not side.stands and side not in linked]
        lost = [node for node in gone if await self._is_lost(node)]
        if lost and keep is not Resolution.BOTH:
            raise UsageError(LOST)
        with self._store.transaction():
            if standing:
                self._rename(record, standing[0])
            else:
                self._store.journal.remove([record.seq])
            for side in linked:
                self._store.server.remove_name(*side.home)
                to = {"parent": side.to[0], "name": side.to[1]}
                self._journaling.append(RecordKind.LINK, side.node, **to)
            saved = [self._give_up(node, record.seq) for node in lost]
            for node in gone:
                if node not in lost:
                    self._make_anew(node, record.seq)
        fault("resolve.copied")
        await self._steps.look([record.parent, record.to_parent])
        return next(filter(None, saved), None)

    def _rename(self, record: Record, side: _Side) -> None:
        """What stands takes the other's name; where that is inside of it on the server by now, and
        it was moved on here, it steps aside, and is moved from there.
        """
        journal, to = self._store.journal, side.to
        onward = [r for r in journal.of_node(side.node) if r.seq > record.seq and _moves(r, side)]
        if onward and side.node in self._store.server.above(to[0]):
            to = (side.home[0], b"%s.moved-%d" % (side.home[1][:200], record.seq))
            journal.replace(replace(onward[0], parent=to[0], name=to[1]))
        journal.replace(_as_rename(record, side, to))

    async def _is_linked(self, side: _Side, seq: int) -> bool:
        """Whether the server has a file under another of its names: it is linked from there."""
        known = self._store.server.names(side.node)
        later = [r for r in self._store.journal.of_node(side.node) if r.seq > seq]
        moved = any(record.kind in NAMING for record in later)
        if moved or side.home not in known or self._store.nodes.child_id(*side.to) != side.node:
            return False
        return any([await self._stands(side.node, name) for name in known if name != side.home])

    async def _is_lost(self, node: NodeId) -> bool:
        """Whether its content is neither here nor, under whatever name, on the server."""
        found = self._context.node(node)
        if found is not None and not self._store.content.covers(node, 0, found.size):
            await self._observer.search(node)
        return await self._known.is_lost(node)

    def _give_up(self, number: NodeId, seq: int) -> str | None:
        """What is known of a content is saved, and its file goes; the name of the copy."""
        node, names = self._context.node(number), self._store.nodes.names(number)
        known = self._store.content.ranges(number)
        copy = None
        if node is not None and names and known:
            copy = self._known.save(names[0], node, known)
        self._without_later(number, seq)
        self._giving_up.node(number)
        return copy

    def _without_later(self, node: NodeId, seq: int) -> None:
        """What was done with a node since is dropped, but for what that did to others."""
        journal = self._store.journal
        later = [record for record in journal.of_node(node) if record.seq > seq]
        for record in later:
            left = rest_of(record, node)
            if left is None:
                journal.remove([record.seq])
            else:
                journal.replace(left)

    def _make_anew(self, node: NodeId, seq: int) -> None:
        """What was done with it since is part of what is made, and nothing apart from it."""
        names, journal = self._store.nodes.names(node), self._store.journal
        self._without_later(node, seq)
        if not names:
            self._giving_up.node(node)
            return
        parent, name = names[0]
        made = self._journaling.append(RecordKind.CREATE, node, parent=parent, name=name)
        self._local.recreate(made)
        for conflict in self._store.conflicts.of_node(node):
            if not any(map(journal.get, conflict.record_seqs)):
                self._store.conflicts.remove(conflict.id)

    async def _sides(self, record: Record) -> tuple[_Side, _Side]:
        here, there = (record.parent, record.name), (record.to_parent, record.to_name)
        return (
            _Side(record.node, here, there, await self._stands(record.node, here)),
            _Side(record.replaced, there, here, await self._stands(record.replaced, there)),
        )

    async def _stands(self, node: NodeId, home: Place) -> bool:
        """Whether the server has a node under the name that it had."""
        base, directory = self._store.server.get(node), self._store.server.path(home[0])
        if base is None or directory is None:
            return False
        entry = await self._steps.stat(join(directory, home[1]))
        return entry is not None and _is_same(base, entry)

    def _come_back(self, side: _Side) -> None:
        """A node that lost its name here: removed since, displaced since, or gone there, too."""
        if not side.stands:
            self._giving_up.changes(side.node, below=True)
            self._giving_up.node(side.node)
        elif not self._steps.is_taken_away(side.node):
            self._returning.name(*side.home, side.node)

    def _what_stands(self, side: _Side, record: Record) -> NodeId:
        """What stands now where the exchange had put a node: that one, what a later exchange put
        in its place, or nothing of it (0).

        What was done with it later starts from the name that it has on the server.
        """
        standing = self._steps.start_from(side.home, side.to, side.node, record.seq)
        return standing if self._store.nodes.child_id(*side.to) == standing else 0

    def _check_home(self, side: _Side, node: NodeId) -> None:
        """A name that something else took here since cannot be given back, nor one in itself."""
        if self._returning.leads_nowhere(node, side.home[0]):
            raise UsageError(INSIDE)
        if self._store.nodes.child_id(*side.home) is not None:
            raise UsageError(TAKEN)

    def _would_vanish(self, side: _Side, node: NodeId) -> bool:
        """Whether the directory that it came from was removed here: it stays where it is until that
        is back (``Returning.as_there``).
        """
        nodes = self._store.nodes
        return nodes.is_named(node) and nodes.path(side.home[0]) is None

    def _check_home_since(self, side: _Side, seq: int) -> None:
        """Nor one that something else took while the node had another, though it is free by now:
        that would meet the node there.
        """
        later = [r for r in self._store.journal.touching_name(*side.home) if r.seq > seq]
        if side.stands and later and not _ends_there(later[0], side):
            raise UsageError(TAKEN)

    def _has_work(self, node: NodeId) -> bool:
        """Whether something unsent would go along: that is a matter of its own."""
        journal = self._store.journal
        return journal.has_any(node) or any(map(journal.has_any, self._giving_up.below(node)))


def _moves(record: Record, side: _Side) -> bool:
    """Whether a record moves a node on from where the exchange had put it."""
    is_rename = record.kind is RecordKind.RENAME and record.node == side.node
    return is_rename and (record.parent, record.name) == side.to


def _as_rename(record: Record, side: _Side, to: Place) -> Record:
    return Record(
        seq=record.seq,
        kind=RecordKind.RENAME,
        node=side.node,
        parent=side.home[0],
        name=side.home[1],
        to_parent=to[0],
        to_name=to[1],
        at_ns=record.at_ns,
    )


def _ends_there(record: Record, side: _Side) -> bool:
    """Whether a record takes a node's name on the server away, or the node from it."""
    if side.node in (record.node, record.replaced):
        return True
    gives = record.kind in (RecordKind.CREATE, RecordKind.LINK)
    return not gives and (record.parent, record.name) == side.home


def _is_same(base: ServerNode, entry: Entry) -> bool:
    if base.file_id is not None and entry.file_id is not None:
        return base.file_id == entry.file_id
    return base.kind is entry.kind

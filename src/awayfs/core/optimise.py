"""Take out of the journal what has no net effect.

The journal is read once, in order. Each pending record is merged into what came before where
that is provably the same, else appended; so after each record what stands there means the same
as the prefix read so far, and every record in it can be carried out in turn. Rules:

* a node created and removed again cancels with all that concerned only it;
* of several STOREs of a node the first stays: what is sent is the content at sending time, and
  a rename over another file must never come before the content is there;
* an older modification time is dropped when a STORE follows; SETATTRs merge field by field,
  but not across a STORE (content never goes out under a looser mode than it was written
  under) nor across work inside the directory (which the mode may allow or forbid);
* of several SETXATTRs of one attribute the last stays;
* RENAME a→b→c is a→c, CREATE+RENAME is CREATE, RENAME+REMOVE is REMOVE, there and back is
  nothing: where nothing in between used a name or directory that this depends on;
* changes of a node that is removed in the end are dropped.

So the reading may be interrupted after any record: what was merged so far, with the rest as it
was, is a journal that means the same. A long one is optimised step by step.

Only PENDING records are touched. FROZEN and PARKED ones are barriers: nothing is merged across
one that concerns the same node, nothing is moved across one that uses the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from awayfs.core.namespace import Slot, merge_attributes
from awayfs.core.positions import STRUCTURAL, NodeTest, Positions, between, slots_of
from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import NodeId

_MAX_PASSES = 4
_UNKNOWN: Slot = (0, b"")


class Plan(Struct, frozen=True):
    """What to do to the journal: delete ``dropped`` by seq, replace ``rewritten`` by seq."""

    dropped: frozenset[int] = frozenset()
    rewritten: tuple[Record, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dropped or self.rewritten)


_NOTHING = Plan()


def optimise(
    records: Sequence[Record],
    is_directory: NodeTest | None = None,
    has_names: NodeTest | None = None,
) -> Iterator[Plan]:
    """What of ``records`` (the journal, in order) can go or become simpler.

    Each plan is to be applied to what the ones before it left, and is whole in itself: nothing
    has to follow. Most change nothing.

    ``is_directory`` tells the kind of a node; without it every node that was neither stored to
    nor linked may be a directory. ``has_names`` tells whether a node has a name now, after the
    last record; without it a node of the server's is taken to have had one name (no hard links
    that the journal does not show).
    """
    for _ in range(_MAX_PASSES):
        one = _Pass(records, is_directory, has_names)
        changed = False
        for plan in one.steps():
            changed |= bool(plan)
            yield plan
        if not changed:
            return
        records = one.left()


class _Pass:
    """One reading of the journal."""

    def __init__(
        self,
        records: Sequence[Record],
        is_directory: NodeTest | None,
        has_names: NodeTest | None,
    ) -> None:
        self.records = records
        self.standing: dict[int, Record | None] = {}  # what a step has changed, by position
        self.has_names = has_names
        self.journal = Positions(is_directory or _guess_directories(records))
        self.barrier: dict[NodeId, int] = {}
        self.fresh: set[NodeId] = set()  # created here, never in a barrier or an exchange
        self.cancelled: set[NodeId] = set()
        self.names: dict[NodeId, set[Slot]] = {}
        self.arrival: dict[Slot, int] = {}  # what brought the holder of a name there
        self.origin: dict[int, int | None] = {}  # for a RENAME: its source's arrival
        self.made_at = {r.node: at for at, r in enumerate(records) if r.kind is RecordKind.CREATE}
        self.store: dict[NodeId, int] = {}
        self.setattr: dict[NodeId, int] = {}
        self.setxattr: dict[tuple[NodeId, bytes], int] = {}
        self.rules: dict[RecordKind, Callable[[int, Record], None]] = {
            RecordKind.CREATE: self._create,
            RecordKind.LINK: self._link,
            RecordKind.STORE: self._store,
            RecordKind.SETATTR: self._setattr,
            RecordKind.SETXATTR: self._setxattr,
            RecordKind.REMOVE: self._remove,
            RecordKind.RENAME: self._rename,
            RecordKind.EXCHANGE: self._exchange,
        }

    def steps(self) -> Iterator[Plan]:
        """Read the journal; after each record, what that changed."""
        for position, record in enumerate(self.records):
            if record.state is not RecordState.PENDING:
                self._barrier(position, record)
            elif record.node not in self.cancelled:
                self.rules[record.kind](position, record)
            self.journal.touched.add(position)
            yield self._changed()
        for node in self.names:
            self._drop_changes_if_dead(node)
            yield self._changed()

    def left(self) -> list[Record]:
        """What is left after the last step."""
        live = self.journal.live
        return [live[position] for position in sorted(live)]

    def _changed(self) -> Plan:
        """The difference that the last step made."""
        dropped: list[int] = []
        rewritten: list[Record] = []
        for position in sorted(self.journal.touched):
            before = self.standing.get(position, self.records[position])
            after = self.journal.live.get(position)
            if after is before or after == before:
                continue
            self.standing[position] = after
            if after is None:
                dropped.append(self.records[position].seq)
            else:
                rewritten.append(after)
        self.journal.touched.clear()
        return Plan(frozenset(dropped), tuple(rewritten)) if dropped or rewritten else _NOTHING

    # --- names ------------------------------------------------------------------------------

    def _gain(self, node: NodeId, slot: Slot) -> None:
        self._known_names(node).add(slot)

    def _lose(self, node: NodeId, slot: Slot, position: int) -> None:
        """A name goes; one that the journal never gave was the server's."""
        names = self._known_names(node)
        names.discard(slot if slot in names else _UNKNOWN)
        if not names:
            self.journal.removed_at[node] = position

    def _known_names(self, node: NodeId) -> set[Slot]:
        return self.names.setdefault(node, {_UNKNOWN})

    def _is_dead(self, node: NodeId) -> bool:
        return not self.names.get(node, {_UNKNOWN})

    def _lives(self, node: NodeId) -> None:
        """A change of a node without names: it had one more that the journal does not show."""
        if self._is_dead(node):
            self.names[node].add(_UNKNOWN)

    def _follow_names(self, position: int, record: Record) -> None:
        """Keep the books on who has which names, whatever becomes of the record."""
        node, slot = record.node, (record.parent, record.name)
        to = (record.to_parent, record.to_name)
        if record.kind is RecordKind.CREATE:
            self.names[node] = {slot}
        elif record.kind is RecordKind.LINK:
            self._gain(node, slot)
        elif record.kind is RecordKind.REMOVE:
            self._lose(node, slot, position)
        elif record.kind is RecordKind.RENAME:
            if record.replaced:
                self._lose(record.replaced, to, position)
            self._known_names(node).add(to)
            self._lose(node, slot, position)
        elif record.kind is RecordKind.EXCHANGE:
            for holder, old, new in ((node, slot, to), (record.replaced, to, slot)):
                self._gain(holder, new)
                self._lose(holder, old, position)
        else:
            self._lives(node)

    # --- barriers ---------------------------------------------------------------------------

    def _barrier(self, position: int, record: Record) -> None:
        """A record that must not be touched, and across which its nodes' records do not merge."""
        if not _is_no_op(record):
            self._follow_names(position, record)
        self.journal.put(position, record)
        for node in (record.node, record.replaced):
            self.barrier[node] = position
            self.fresh.discard(node)
        for slot in slots_of(record):
            self.arrival.pop(slot, None)

    def _open(self, node: NodeId, position: int | None) -> int | None:
        """The position, if its record is live and the node's, and no barrier of that came after it.

        What a decision gave up may leave one node arriving at a name that another then leaves.
        """
        record = None if position is None else self.journal.live.get(position)
        if position is None or record is None or record.node != node:
            return None
        return position if position > self.barrier.get(node, -1) else None

    # --- content and attributes -------------------------------------------------------------

    def _store(self, position: int, record: Record) -> None:
        self._lives(record.node)
        self._forget_older_mtime(record.node)
        if self._open(record.node, self.store.get(record.node)) is None:
            self.journal.put(position, record)
            self.store[record.node] = position

    def _forget_older_mtime(self, node: NodeId) -> None:
        earlier = self._open(node, self.setattr.get(node))
        if earlier is None:
            return
        record = self.journal.live[earlier]
        left = replace(record.attributes, mtime_ns=None)
        if left == record.attributes:
            return
        if left:
            self.journal.put(earlier, replace(record, attributes=left))
        else:
            self.journal.take(earlier)

    def _setattr(self, position: int, record: Record) -> None:
        node = record.node
        self._lives(node)
        earlier = self._open(node, self.setattr.get(node))
        if earlier is not None and self._may_merge_attributes(node, earlier, position):
            before = self.journal.take(earlier).attributes
            record = replace(record, attributes=merge_attributes(before, record.attributes))
        self.journal.put(position, record)
        self.setattr[node] = position

    def _may_merge_attributes(self, node: NodeId, earlier: int, position: int) -> bool:
        stored = self._open(node, self.store.get(node))
        if stored is not None and stored > earlier:
            return False
        return not between(self.journal.inside.get(node), earlier, position)

    def _setxattr(self, position: int, record: Record) -> None:
        self._lives(record.node)
        key = (record.node, record.xattr_name)
        earlier = self._open(record.node, self.setxattr.get(key))
        if earlier is not None:
            self.journal.take(earlier)
        self.journal.put(position, record)
        self.setxattr[key] = position

    # --- names come and go ------------------------------------------------------------------

    def _create(self, position: int, record: Record) -> None:
        self._follow_names(position, record)
        self.fresh.add(record.node)
        self._arrive(position, record, None)

    def _link(self, position: int, record: Record) -> None:
        self._lives(record.node)
        self._follow_names(position, record)
        self._arrive(position, record, None)

    def _arrive(self, position: int, record: Record, origin: int | None) -> None:
        """Set a record that gives a node a name."""
        self.journal.put(position, record)
        is_rename = record.kind is RecordKind.RENAME
        slot = (record.to_parent, record.to_name) if is_rename else (record.parent, record.name)
        self.arrival[slot] = position
        self.origin[position] = origin

    def _exchange(self, position: int, record: Record) -> None:
        self._follow_names(position, record)
        self.journal.put(position, record)
        self.fresh -= {record.node, record.replaced}
        for slot in slots_of(record):
            self.arrival.pop(slot, None)

    def _remove(self, position: int, record: Record) -> None:
        slot = (record.parent, record.name)
        self._follow_names(position, record)
        arrived = self._open(record.node, self.arrival.pop(slot, None))
        if self._may_cancel(record.node):
            self._cancel(record.node, slot)
        elif arrived is None or not self._remove_simpler(position, record, arrived):
            self.journal.put(position, record)

    def _remove_simpler(self, position: int, record: Record, arrived: int) -> bool:
        """LINK+REMOVE is nothing; RENAME+REMOVE is REMOVE of the old name."""
        journal, node = self.journal, record.node
        came = journal.live[arrived]
        if came.kind is RecordKind.LINK:
            if between(journal.structural.get(node), arrived, position):
                return False  # this name may have been what kept the node alive
            journal.take(arrived)
            return True
        if came.kind is not RecordKind.RENAME or came.replaced:
            return False
        slot = (came.parent, came.name)
        if journal.may_stay(node, slot, arrived, position):
            journal.take(arrived)
            journal.put(position, replace(record, parent=slot[0], name=slot[1]))
            return True
        if journal.untouched(node, arrived, position):
            early = replace(record, seq=came.seq, parent=slot[0], name=slot[1])
            journal.put(arrived, early)
            if self._is_dead(node):
                journal.removed_at[node] = arrived
            return True
        return False

    def _rename(self, position: int, record: Record) -> None:
        if _is_no_op(record):
            return
        source = (record.parent, record.name)
        target = (record.to_parent, record.to_name)
        self._lives(record.node)
        self._follow_names(position, record)
        if record.replaced and self._may_cancel(record.replaced):
            record = replace(record, replaced=self._cancel(record.replaced, target, record))
            if record.replaced and self._is_dead(record.replaced):
                self.journal.removed_at[record.replaced] = position
        arrived = self._open(record.node, self.arrival.pop(source, None))
        if arrived is None or self._is_made_later(record.to_parent, position):
            self._arrive(position, record, arrived)
        elif self.journal.live[arrived].kind is RecordKind.RENAME:
            self._rename_again(position, record, arrived)
        else:
            self._name_anew(position, record, arrived)

    def _is_made_later(self, directory: NodeId, position: int) -> bool:
        """Whether a decision has it made anew after this, perhaps under a name that the node leaves
        with an earlier record: in one, each would wait for the other.
        """
        return self.made_at.get(directory, position) > position

    def _rename_again(self, position: int, record: Record, arrived: int) -> None:
        """RENAME a→b, b→c."""
        journal, node = self.journal, record.node
        first = journal.live[arrived]
        source, target = (first.parent, first.name), (record.to_parent, record.to_name)
        origin = self.origin.get(arrived)
        may_stay = not first.replaced and journal.may_stay(node, source, arrived, position)
        if may_stay and source == target:
            journal.take(arrived)
            if origin is not None:
                self.arrival[target] = origin
            return
        if may_stay:
            journal.take(arrived)
            joined = replace(record, parent=source[0], name=source[1])
            self._arrive(position, joined, origin)
            return
        if first.replaced or record.replaced or source == target:
            self._arrive(position, record, arrived)
        elif journal.may_come_early(node, target, arrived, position):
            joined = replace(first, to_parent=target[0], to_name=target[1])
            self._arrive(arrived, joined, origin)
        else:
            self._arrive(position, record, arrived)

    def _name_anew(self, position: int, record: Record, arrived: int) -> None:
        """CREATE or LINK, then RENAME."""
        journal, node = self.journal, record.node
        first = journal.live[arrived]
        named = replace(first, parent=record.to_parent, name=record.to_name)
        target = (record.to_parent, record.to_name)
        if record.replaced:
            self._arrive(position, record, arrived)
        elif journal.may_come_early(node, target, arrived, position):
            self._arrive(arrived, named, None)
        elif journal.untouched(node, arrived, position):
            journal.take(arrived)
            self._arrive(position, replace(named, seq=record.seq), None)
        else:
            self._arrive(position, record, arrived)

    # --- nodes that leave no trace ----------------------------------------------------------

    def _may_cancel(self, node: NodeId) -> bool:
        """Created here, nameless now, and no record that stays works inside it."""
        return node in self.fresh and self._is_dead(node) and not self.journal.inside.get(node)

    def _cancel(self, node: NodeId, last: Slot, displacing: Record | None = None) -> NodeId:
        """Drop all that concerns only this node, which lost its last name, ``last``.

        Where the node displaced another, the heir to its place, there are two ways. Who
        displaced the node now displaces the heir, which stood there meanwhile; ``displacing``
        is to do so with the node that is returned. Otherwise the heir is removed when the node
        came: where the node left by itself, or the heir itself displaced it (a rename over
        oneself does nothing).
        """
        journal = self.journal
        held: dict[Slot, tuple[int, Record]] = {}  # what brought the node there
        for position in list(journal.own.get(node, ())):
            record = journal.live[position]
            source, target = (record.parent, record.name), (record.to_parent, record.to_name)
            if record.replaced == node:
                heir = self._inherit(record, *held.pop(target))
                journal.put(position, replace(record, replaced=heir))
                if heir and self._is_dead(heir):
                    journal.removed_at[heir] = position
                continue
            journal.take(position)
            if record.kind in (RecordKind.RENAME, RecordKind.REMOVE):
                self._bury(*held.pop(source))
            if record.kind is RecordKind.RENAME:
                held[target] = (position, record)
            elif record.kind in (RecordKind.CREATE, RecordKind.LINK):
                held[source] = (position, record)
        self.fresh.discard(node)
        self.cancelled.add(node)
        return self._inherit(displacing, *held.pop(last))

    def _inherit(self, displacing: Record | None, position: int, arrival: Record) -> NodeId:
        """The node for ``displacing`` to displace instead of the cancelled one."""
        if displacing is None or displacing.node == arrival.replaced:
            self._bury(position, arrival)
            return 0
        return arrival.replaced

    def _bury(self, position: int, arrival: Record) -> None:
        """Remove the node that a cancelled rename displaced, at the time of that rename."""
        if arrival.replaced:
            remove = Record(
                seq=arrival.seq,
                kind=RecordKind.REMOVE,
                node=arrival.replaced,
                parent=arrival.to_parent,
                name=arrival.to_name,
                at_ns=arrival.at_ns,
            )
            self.journal.put(position, remove)

    def _drop_changes_if_dead(self, node: NodeId) -> None:
        """Content and attributes of a node that is removed in the end need not be sent.

        But rights of a directory stay where what follows inside may need them.
        """
        if not self._is_dead(node) or (self.has_names and self.has_names(node)):
            return
        journal, barrier = self.journal, self.barrier.get(node, -1)
        inside = journal.inside.get(node)
        for position in list(journal.own.get(node, ())):
            record = journal.live[position]
            if position <= barrier or record.kind in STRUCTURAL:
                continue
            is_setattr = record.kind is RecordKind.SETATTR
            if not (is_setattr and inside and inside[-1] > position):
                journal.take(position)


def _is_no_op(record: Record) -> bool:
    """A rename between two names of one file, or to the same name: POSIX does nothing."""
    if record.kind is not RecordKind.RENAME:
        return False
    same_name = (record.parent, record.name) == (record.to_parent, record.to_name)
    return same_name or record.replaced == record.node


def _guess_directories(records: Sequence[Record]) -> NodeTest:
    """Without being told: what was stored to or linked is no directory, all else may be one."""
    files = {r.node for r in records if r.kind in (RecordKind.STORE, RecordKind.LINK)}
    return lambda node: node not in files
